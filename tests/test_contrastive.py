"""VCD, M3ID, AAD and PAI against their equations in NumPy; what the other branch is asked; methods together."""

from itertools import permutations

import checkpoints as tiny
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import any_length, distance, fixture, parity_checkpoint, prompt_of, small_model, small_prompt
from mlx.utils import tree_unflatten
from stepwise import boosted, forced, furthest, led, log_softmax, logits_of, plain, smoothed

from lime_mlx.checkpoint.load import build, load_model
from lime_mlx.decoding import decode, start, steps
from lime_mlx.errors import MethodError
from lime_mlx.media.mel import Mel
from lime_mlx.methods import METHODS, parse_method
from lime_mlx.methods.base import Wrapper
from lime_mlx.prompt import Prompt, Span

DEPTH = 4
TOKENS = np.random.default_rng(7).integers(0, 64, 6).tolist()
PROMPT = small_prompt()
ASKED = np.delete(PROMPT.input_ids, np.arange(2, 6))
NEVER = np.finfo(np.float32).min


@pytest.fixture(scope="module")
def model():
    return small_model(num_hidden_layers=DEPTH)


@pytest.fixture(scope="module")
def llava():
    model = build(tiny.LLAVA)
    model.update(tree_unflatten(list(tiny.random_weights(tiny.LLAVA).items())))
    return model


def known(case, folder):
    return any_length(load_model(parity_checkpoint(case, folder))), prompt_of(fixture(case))


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    return known("qwen2_audio", tmp_path_factory.mktemp("audio"))


def kept(scores, logits, beta):
    """The scores, but for tokens with less than beta times the largest probability."""
    p = np.exp(log_softmax(logits))
    return scores if beta == 0 else np.where(p >= beta * p.max() * (1 - 1e-9), scores, NEVER)


def contrasted(full, other, alpha, beta=0.0):
    return np.stack([kept((1 + alpha) * a - alpha * b, a, beta) for a, b in zip(full, other, strict=True)])


def m3id(full, other, decay=0.02, beta=0.1):
    """On log-probabilities; ours are shifted by what the softmax takes away."""
    out = []
    for t, (a, b) in enumerate(zip(full, other, strict=True), start=1):
        g, p, q = np.exp(-decay * t), log_softmax(a), log_softmax(b)
        out.append(kept(p + (1 - g) / g * (p - q) + (a - p), a, beta))
    return np.stack(out)


def guided(full, other, guidance=1.1, beta=0.1):
    pairs = [(a, log_softmax(a), log_softmax(b)) for a, b in zip(full, other, strict=True)]
    return np.stack([kept(guidance * (p - q) + q + (a - p), a, beta) for a, p, q in pairs])


@pytest.mark.parametrize("options", [{}, {"decay": 0.3}, {"decay": 1, "beta": 0}, {"decay": 0.1, "beta": 1}])
def test_m3id_is_that_of_the_equations(model, options):
    wanted = m3id(plain(model, PROMPT.input_ids, TOKENS), plain(model, ASKED, TOKENS), **options)
    spec = "m3id:" + ",".join(f"{key}={value}" for key, value in options.items())
    ours = logits_of(model, PROMPT, spec, TOKENS)
    assert furthest(ours, wanted) < 1e-5
    assert (ours > NEVER).sum(axis=1).tolist() == (wanted > NEVER).sum(axis=1).tolist()
    if options.get("beta") == 1:
        assert ((ours > NEVER).sum(axis=1) == 1).all()


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({}, (2, 3)),
        ({"alpha": 0.8, "guidance": 1.7, "beta": 0}, (2, 3)),
        ({"layers": "1-2", "beta": 0.5}, (1, 2)),
        ({"layers": "all", "guidance": 0}, range(DEPTH)),
    ],
)
def test_pai_is_that_of_the_equations(model, options, layers):
    own = {key: value for key, value in options.items() if key in ("guidance", "beta")}
    looked = plain(model, PROMPT.input_ids, TOKENS, boosted(options.get("alpha", 0.2), layers=layers))
    wanted = guided(looked, plain(model, ASKED, TOKENS), **own)
    spec = "pai:" + ",".join(f"{key}={value}" for key, value in options.items())
    assert furthest(logits_of(model, PROMPT, spec, TOKENS), wanted) < 1e-5


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_weights(bits):
    model = small_model(num_hidden_layers=DEPTH)
    nn.quantize(model, group_size=32, bits=bits)
    full, other = plain(model, PROMPT.input_ids, TOKENS), plain(model, ASKED, TOKENS)
    assert furthest(logits_of(model, PROMPT, "m3id:decay=0.3", TOKENS), m3id(full, other, 0.3)) < 1e-5
    looked = plain(model, PROMPT.input_ids, TOKENS, boosted(0.2, layers=(2, 3)))
    assert furthest(logits_of(model, PROMPT, "pai", TOKENS), guided(looked, other)) < 1e-5


def noised(pixels, steps, seed):
    """One step of forward diffusion after another, with noise that adds up to that of the seed."""
    share = 1.0
    for beta in (1 / (1 + np.exp(-np.linspace(-6, 6, 1000))) * (0.5e-2 - 1e-5) + 1e-5)[: steps + 1]:
        share *= 1 - beta
    noise = np.random.default_rng(seed).standard_normal(pixels.shape, dtype=np.float32)
    return np.sqrt(share) * pixels + np.sqrt(1 - share) * noise


@pytest.mark.parametrize(
    "options", [{}, {"alpha": 0.3, "beta": 0}, {"noise": 0, "beta": 0.5}, {"noise": 999, "seed": 3}]
)
def test_vcd_is_that_of_the_equations(llava, options):
    prompt = tiny.prompt()
    pixels = noised(prompt.media["pixel_values"], options.get("noise", 500), options.get("seed", 0))
    other = Prompt(prompt.input_ids, {"pixel_values": pixels.astype(np.float32)})
    full, less = (logits_of(llava, asked, "none", TOKENS) for asked in (prompt, other))
    wanted = contrasted(full, less, options.get("alpha", 1), options.get("beta", 0.1))
    spec = "vcd:" + ",".join(f"{key}={value}" for key, value in options.items())
    assert furthest(logits_of(llava, prompt, spec, TOKENS), wanted) < 1e-5
    assert distance(less, full) > 1e-4


def test_diffusion_ends_in_noise_and_starts_at_the_picture():
    pixels = np.random.default_rng(0).standard_normal((3, 100, 100))
    assert distance(noised(pixels, 0, 0), pixels) < 0.005
    correlation = [np.corrcoef(noised(pixels, steps, 0).ravel(), pixels.ravel())[0, 1] for steps in (500, 999)]
    assert correlation == pytest.approx([0.866, 0.286], abs=0.02)


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_aad_is_that_of_the_equations(audio, alpha):
    model, prompt = audio
    silent = {**prompt.media, "input_features": np.full_like(prompt.media["input_features"], -1.5)}
    full, less = (logits_of(model, asked, "none", TOKENS) for asked in (prompt, Prompt(prompt.input_ids, silent)))
    wanted = contrasted(full, less, alpha or 0.5)
    assert furthest(logits_of(model, prompt, f"aad:alpha={alpha}" if alpha else "aad", TOKENS), wanted) < 1e-5
    assert distance(less, full) > 1e-4


def test_silence_is_what_the_features_of_silence_are():
    features, mask = Mel()(np.zeros(16000, dtype=np.float32), 16000)
    assert mask.all()
    np.testing.assert_array_equal(features, -1.5)


NOTHING = ["m3id:decay=0,beta=0", "pai:alpha=0,guidance=1,beta=0", "m3id:decay=0", "pai:alpha=0,guidance=1"]


@pytest.mark.parametrize("spec", NOTHING)
def test_no_strength_is_no_method(model, spec):
    """Without beta to the logit; with it among the tokens that are left."""
    ours, none = (logits_of(model, PROMPT, name, TOKENS) for name in (spec, "none"))
    left = ours > NEVER
    assert left.all() == ("beta" in spec)
    assert distance(ours[left], none[left]) < 1e-6
    assert (ours.argmax(1) == none.argmax(1)).all()


def test_no_strength_is_no_method_with_media(llava, audio):
    for model, prompt, spec in ((llava, tiny.prompt(), "vcd:alpha=0,beta=0"), (*audio, "aad:alpha=0")):
        ours, none = (logits_of(model, prompt, name, TOKENS) for name in (spec, "none"))
        assert furthest(ours, none) < 1e-6


@pytest.mark.parametrize("spec", ["m3id:decay=0.3", "pai", "dleaf+kvsmooth:window=3+m3id", "heads+m3id"])
def test_what_is_asked_of_relevance_changes_nothing(model, spec):
    ours, read = (forced(model, PROMPT, spec, TOKENS, reliance=wanted) for wanted in (False, True))
    assert furthest(*(np.stack([step.logits for step in run]) for run in (ours, read))) < 1e-5


@pytest.mark.parametrize("spec", ["vcd", "aad"])
def test_what_is_asked_of_relevance_changes_nothing_with_media(llava, audio, spec):
    model, prompt = (llava, tiny.prompt()) if spec == "vcd" else audio
    ours, read = (logits_of(model, prompt, spec, TOKENS, wanted) for wanted in (False, True))
    assert furthest(ours, read) < 1e-5


def odd(tokens, logits):
    """A penalty that changes what is picked: only odd tokens are."""
    return mx.where(mx.arange(logits.shape[-1]) % 2 == 0, logits - 1000, logits)


@pytest.mark.parametrize("processors", [(), (odd,)], ids=["plain", "penalty"])
def test_relevance_is_that_of_the_token_that_is_said(model, processors):
    """The contrast picks another token than the model alone; the logit explained is the model's own."""
    said = list(decode(model, PROMPT, "m3id:decay=0.5,beta=0", 6, logits_processors=processors))
    session, others = start(model, PROMPT, processors=processors), 0
    for step in said:
        session.prefill()
        alone = session.relevance()
        others += alone.target.item() != step.token
        assert distance(step.relevance, session.relevance(target=step.token).relevance) < 1e-5
        session.append(step.token)
    assert others


def test_processors_see_the_contrast_once(model):
    seen = []

    def watch(tokens, logits):
        seen.append(np.array(logits[0]))
        return logits - 1

    session = start(model, PROMPT, reliance=False, processors=[watch])
    *_, step = steps(session, parse_method("m3id:decay=1+kvsmooth"), 3)
    assert session.observers == {}
    assert session.scores(mx.array(step.logits)).tolist() == (step.logits - 1).tolist()
    np.testing.assert_array_equal(seen[-1], step.logits)


@pytest.mark.parametrize("spec", ["m3id", "pai", "kvsmooth:ref=1+m3id", "lime:lr=0.05,words=all+m3id"])
def test_the_branch_is_a_session_of_its_own(model, spec):
    """Nothing of what changes the answer's cache reaches it, and it is told what was said."""
    session, fresh = start(model, PROMPT, reliance=False), start(model, Prompt(ASKED), reliance=False)
    said = [step.token for step in steps(session, parse_method(spec), 6)]
    branch = session.state["pai" if spec == "pai" else "m3id"]
    for token in said[:-1]:
        fresh.append(token)
    fresh.prefill()
    fresh.extend()
    assert branch.tokens == [*ASKED, *said[:-1]]
    assert branch.cache.offset == len(ASKED) + 5
    for ours, wanted in zip(branch.cache.entries(), fresh.cache.entries(), strict=True):
        assert all(distance(a, b) < 1e-6 for a, b in zip(ours, wanted, strict=True))


@pytest.mark.parametrize(
    ("case", "spec"),
    [
        ("llava", "m3id"),
        ("llava_next", "m3id"),
        ("qwen2_audio", "m3id"),
        ("qwen2_vl_nested", "m3id"),
        ("qwen2_5_vl_nested", "m3id"),
        ("qwen3_vl_deeper", "m3id"),
        ("qwen2_5_vl_nested", "pai"),
    ],
)
def test_families_without_their_media(case, spec, tmp_path):
    """There are no tokens around it either, where these belong to the picture or the sound."""
    model, prompt = known(case, tmp_path)
    session = start(model, prompt, reliance=False)
    (step,) = steps(session, parse_method(f"{spec}:beta=0"), 1)
    branch, modality = session.state[spec], model.modality(prompt)
    assert branch.tokens == [token for token, seen in zip(prompt.input_ids, modality, strict=True) if not seen]
    assert len(branch.tokens) == len(prompt) - sum(len(span) for span in model.spans(prompt)) - 2 * model.framed
    if spec == "m3id":
        full, other = (logits_of(model, asked, "none", []) for asked in (prompt, Prompt(branch.tokens)))
        assert furthest(step.logits[None], m3id(full, other, beta=0)) < 1e-5


@pytest.mark.parametrize("case", ["llava_next", "qwen2_vl_nested", "qwen2_5_vl_nested", "qwen3_vl_deeper"])
def test_families_with_noise(case, tmp_path):
    model, prompt = known(case, tmp_path)
    session = start(model, prompt, reliance=False)
    (step,) = steps(session, parse_method("vcd:beta=0"), 1)
    media = {**prompt.media, "pixel_values": noised(prompt.media["pixel_values"], 500, 0).astype(np.float32)}
    full, other = (logits_of(model, asked, "none", []) for asked in (prompt, Prompt(prompt.input_ids, media)))
    assert furthest(step.logits[None], contrasted(full, other, 1)) < 1e-5
    assert session.state["vcd"].tokens == prompt.input_ids.tolist()


NEEDS = "needs a picture or a sound in the prompt; use --method none for text alone."


@pytest.mark.parametrize("spec", ["m3id", "pai", "vcd", "aad", "dleaf", "heads", "m3id+kvsmooth", "dleaf+kvsmooth"])
def test_text_alone_is_refused(model, spec):
    with pytest.raises(MethodError) as caught:
        forced(model, Prompt(PROMPT.input_ids), spec, [])
    assert str(caught.value) == f"{spec.partition('+')[0]} {NEEDS}"


@pytest.mark.parametrize(
    "case", ["llava_two_pictures", "llava_next_two_pictures", "qwen2_5_vl", "qwen2_audio_two_sounds"]
)
def test_several_pictures_are_refused(case, tmp_path):
    model, prompt = known(case, tmp_path)
    for name in ("aad" if "audio" in case else "vcd", "m3id", "pai"):
        with pytest.raises(MethodError) as caught:
            forced(model, prompt, name, [])
        wanted = f"{name} contrasts one picture or one sound, but the prompt has 2 of them."
        assert str(caught.value) == wanted


def test_a_picture_is_no_sound(llava, audio, model):
    with pytest.raises(MethodError, match="^aad contrasts a sound, but the prompt has a picture; choose another"):
        forced(llava, tiny.prompt(), "aad", [])
    with pytest.raises(MethodError, match="^vcd contrasts a picture, but the prompt has a sound; choose another"):
        forced(*audio, "vcd", [])
    both = Prompt(PROMPT.input_ids, spans=[Span("image", 2, 4), Span("audio", 6, 8)])
    with pytest.raises(MethodError, match="^m3id contrasts one picture or one sound, but .* has pictures and sounds.$"):
        forced(model, both, "m3id", [])


def test_dleaf_kvsmooth_m3id(model):
    wanted, *_ = smoothed(model, PROMPT.input_ids, TOKENS, window=3, ref=0.5, edit=led())
    wanted = m3id(wanted, plain(model, ASKED, TOKENS), decay=0.3)
    ours = logits_of(model, PROMPT, "dleaf+kvsmooth:window=3,ref=0.5+m3id:decay=0.3", TOKENS)
    assert furthest(ours, wanted) < 1e-5


def test_pai_kvsmooth(model):
    looked = boosted(0.5, layers=(2, 3))
    wanted, *_ = smoothed(model, PROMPT.input_ids, TOKENS, ref=0.5, window=3, edit=looked)
    wanted = guided(wanted, plain(model, ASKED, TOKENS))
    assert furthest(logits_of(model, PROMPT, "pai:alpha=0.5+kvsmooth:ref=0.5,window=3", TOKENS), wanted) < 1e-5


@pytest.mark.parametrize("inner", ["kvsmooth", "lime:lr=0.05,words=all", "kvsmooth+lime:lr=0.05,words=all", "none"])
def test_vcd_blends_what_is_within(llava, inner):
    """And what is within works for the token that the blend would pick."""
    prompt = tiny.prompt()
    pixels = noised(prompt.media["pixel_values"], 500, 0).astype(np.float32)
    less = logits_of(llava, Prompt(prompt.input_ids, {"pixel_values": pixels}), "none", TOKENS)

    def picked(tokens, logits):
        return logits + 3 * (logits - mx.array(less[tokens.size - len(prompt)]))

    within = logits_of(llava, prompt, inner, TOKENS, logits_processors=[picked])
    ours = logits_of(llava, prompt, f"vcd:alpha=3,beta=0+{inner}", TOKENS)
    assert furthest(ours, contrasted(within, less, 3)) < 1e-5
    if inner.startswith("lime"):
        alone = logits_of(llava, prompt, inner, TOKENS)
        assert furthest(ours, contrasted(alone, less, 3)) > 1e-3


@pytest.mark.parametrize(
    "parts",
    [
        ("dleaf:gamma=0.5", "kvsmooth:window=3", "m3id:decay=0.3"),
        ("lime:steps=3", "kvsmooth", "aad"),
        ("pai", "kvsmooth"),
        ("vcd", "heads"),
        ("vcd", "none"),
    ],
)
def test_the_order_of_the_parts_does_not_matter(parts):
    (method,) = {parse_method(" + ".join(order)) for order in permutations(parts)}
    names, inner = set(), method
    while isinstance(inner, Wrapper):
        names.add(inner.name)
        inner = inner.inner
    assert names | {inner.name} == {part.partition(":")[0] for part in parts}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vcd+m3id", "vcd and m3id do not go together: both change the logits."),
        ("aad+kvsmooth+pai", "aad and pai do not go together: both change the logits."),
        ("kvsmooth+kvsmooth", "kvsmooth is named twice; leave one out."),
        ("lime+dleaf", "lime and dleaf do not go together: both compute the token's attention."),
        ("heads+kvsmooth+dleaf", "heads and dleaf do not go together: both compute the token's attention."),
        ("lime+pai", "pai and lime do not go together: both compute the token's attention."),
        ("pai+heads", "pai and heads do not go together: both compute the token's attention."),
        ("kvsmooth+", f"Unknown method ''; choose one of {', '.join(METHODS)}."),
        ("kvsmooth+vdc", f"Unknown method 'vdc'; choose one of {', '.join(METHODS)}. Did you mean vcd?"),
    ],
)
def test_what_does_not_go_together_is_refused(spec, message):
    with pytest.raises(MethodError) as caught:
        parse_method(spec)
    assert str(caught.value) == message


def test_a_plus_may_stand_in_a_number():
    assert parse_method("lime:lr=1e+0,steps=3+kvsmooth") == parse_method("kvsmooth+lime:steps=3,lr=1")
    assert parse_method("lime:lr=1e+0").lr == 1


@pytest.mark.parametrize(
    "spec", ["kvsmooth:window=3", "dleaf", "m3id:decay=0.3", "pai", "heads", "dleaf+kvsmooth:window=3+m3id:decay=0.3"]
)
def test_two_answers_of_one_method_do_not_meet(model, spec):
    method, prompts = parse_method(spec), [small_prompt(), small_prompt(15, 1, 9)]
    apart = [list(decode(model, prompt, parse_method(spec), 6)) for prompt in prompts]
    for together in zip(*(decode(model, prompt, method, 6) for prompt in prompts), strict=True):
        for run, step in zip(apart, together, strict=True):
            alone = run.pop(0)
            assert step.token == alone.token
            np.testing.assert_array_equal(step.logits, alone.logits)
