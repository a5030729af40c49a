"""ACG, IAT, AdaIAT, LocoRE, FLB and ONLY against their equations in NumPy; with others, on text alone, back and on."""

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import any_length, distance, fixture, parity_checkpoint, prompt_of, small_model, small_prompt
from rivals import Doubtful, Guided, acg, ada, flb, only, own_text, without_picture_heads
from stepwise import Stepwise, forced, furthest, led, logits_of, plain, smoothed

from lime_mlx.checkpoint.load import load_model
from lime_mlx.decoding import decode, start, steps
from lime_mlx.errors import MethodError
from lime_mlx.lrp.rules import GRADIENT
from lime_mlx.methods import only as only_module
from lime_mlx.methods import parse_method
from lime_mlx.prompt import Prompt, Span

DEPTH = 4
TOKENS = np.random.default_rng(8).integers(0, 64, 8).tolist()
PROMPT = small_prompt()
IDS = PROMPT.input_ids
WINDOWS = {
    "use_sliding_window": True,
    "sliding_window": 9,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
ALL, MIDDLE = range(DEPTH), (1, 2)


@pytest.fixture(scope="module")
def model():
    return small_model(num_hidden_layers=DEPTH)


def spec(name, options):
    return f"{name}:" + ",".join(f"{key}={value}" for key, value in options.items())


# --- ACG


@pytest.mark.parametrize(
    ("options", "layers"), [({}, ALL), ({"gamma": 0.5}, ALL), ({"gamma": 3, "layers": "1-2"}, MIDDLE)]
)
def test_acg_is_that_of_the_equations(model, options, layers):
    wanted = acg(model, IDS, TOKENS, options.get("gamma", 2.0), layers)
    assert furthest(logits_of(model, PROMPT, spec("acg", options), TOKENS), wanted) < 1e-5
    assert distance(wanted, plain(model, IDS, TOKENS)) > 1e-2


def test_acg_where_a_window_hides_the_picture():
    model = small_model(num_hidden_layers=DEPTH, **WINDOWS)
    wanted = acg(model, IDS, TOKENS, 2.0, ALL)
    assert furthest(logits_of(model, PROMPT, "acg", TOKENS), wanted) < 1e-5


def test_acg_default_is_that_of_the_family(model):
    llava = small_model(num_hidden_layers=DEPTH)
    llava._config = {"model_type": "llava"}
    ready = [parse_method("acg").prepare(each) for each in (llava, model)]
    assert [each.gamma for each in ready] == [2.4, 2.0]
    assert parse_method("acg:gamma=1").prepare(llava).gamma == 1


def test_acg_is_at_right_angles_to_what_the_text_says(model):
    """The part that is added, for each head, on random scores and values."""
    session = start(model, PROMPT, reliance=False)
    guidance = parse_method("acg:gamma=1").prepare(model).edits(session)[0]
    rng = np.random.default_rng(0)
    scores, v = mx.array(rng.standard_normal((1, 2, 2, 1, 12))), mx.array(rng.standard_normal((1, 2, 12, 16)))
    scores, v = scores.astype(mx.float32), v.astype(mx.float32)
    ordinary = guidance(scores)
    added = (guidance.guided(scores, v) - ordinary) @ v[:, :, None]
    blind = mx.where(guidance.media, -mx.inf, scores)
    text = mx.softmax(blind, axis=-1) @ v[:, :, None]
    cosine = (added * text).sum(-1) / mx.linalg.norm(added, axis=-1) / mx.linalg.norm(text, axis=-1)
    assert mx.abs(cosine).max().item() < 1e-4
    assert mx.linalg.norm(added).item() > 0.1
    np.testing.assert_allclose(np.array(ordinary.sum(-1)), 1, rtol=1e-5)


def test_relevance_goes_through_the_guidance(model):
    """As if each head's share along the text were a constant."""
    session = start(model, PROMPT)
    session.prefill()
    reading = session.relevance(rules=GRADIENT, edits=parse_method("acg").prepare(model).edits(session))
    past = [tuple(np.array(x[0], dtype=np.float64) for x in pair) for pair in session.cache.entries()]
    embed = np.array(session.newest[0, 0], dtype=np.float64)
    slow = Guided(model, 2.0, ALL, frozen=True)
    slow.logits(embed, past)
    wanted = slow.relevance(embed, past, int(reading.target))
    assert distance(reading.relevance, wanted) < 1e-4
    assert distance(session.relevance(rules=GRADIENT).relevance, wanted) > 1e-3


def test_observers_of_a_guided_layer_see_ordinary_weights(model):
    shown = []
    session = start(model, PROMPT, reliance=False)
    session.observers[1] = lambda weights: shown.append(np.array(weights))
    guided = parse_method("acg:gamma=3")
    list(steps(session, guided, 3))
    assert len(shown) == 3
    for weights in shown:
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_acg_with_kvsmooth(model):
    """Entropies are those of the ordinary weights of the guided states."""
    ours = logits_of(model, PROMPT, "acg+kvsmooth:ref=0,clip=0", TOKENS)
    assert furthest(ours, acg(model, IDS, TOKENS, 2.0, ALL)) < 1e-5
    moved = logits_of(model, PROMPT, "acg+kvsmooth:window=3", TOKENS)
    assert np.isfinite(moved).all() and furthest(moved, ours) > 1e-3


# --- IAT and LocoRE


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [
        ("iat", {}, MIDDLE),
        ("iat", {"alpha": 2, "layers": "all"}, ALL),
        ("iat", {"layers": "3"}, (3,)),
        ("locore", {}, MIDDLE),
        ("locore", {"beta": 2, "window": 0, "layers": "all"}, ALL),
        ("locore", {"beta": 1, "window": 2, "layers": "2-"}, (2, 3)),
        ("locore", {"beta": 1, "window": 99, "layers": "all"}, ALL),
    ],
)
@pytest.mark.parametrize("windows", [{}, WINDOWS], ids=["full", "windows"])
def test_own_text_is_that_of_the_equations(name, options, layers, windows):
    """By default IAT takes layers 5 to 17 of 32 and LocoRE 9 to 14: 1 and 2 of 4."""
    model = small_model(num_hidden_layers=DEPTH, **windows)
    values = {key: value for key, value in options.items() if key != "layers"}
    published = {"alpha": 0.8} if name == "iat" else {"beta": 0.15, "window": 5}
    wanted = plain(model, IDS, TOKENS, own_text(len(IDS), layers, **{**published, **values}))
    unchanged = plain(model, IDS, TOKENS)
    assert furthest(logits_of(model, PROMPT, spec(name, options), TOKENS), wanted) < 1e-5
    assert distance(wanted[0], unchanged[0]) < 1e-12  # nothing is written yet
    assert distance(wanted[1:], unchanged[1:]) > 1e-3


@pytest.mark.parametrize("name", ["iat", "locore", "flb", "kvsmooth"])
def test_methods_that_need_no_picture(model, name):
    # Chunks of a prompt end behind a picture. This one ends where the prompt alone is cut, too, so that sums are equal.
    picture = small_prompt(start=2, stop=len(IDS) - 1)
    assert picture.input_ids.tolist() == IDS.tolist()
    alone, seen = (logits_of(model, prompt, name, TOKENS) for prompt in (Prompt(IDS), picture))
    assert furthest(alone, seen) < 1e-6


@pytest.mark.parametrize("count", [1, 2, 3, 4, 12, 32, 40])
def test_default_layers_are_there(count):
    class Deep:
        config = {}
        language_model = type("Decoder", (), {"layers": [None] * count})

    known = {
        1: ((0, 0), (0, 0)),
        2: ((0, 1), (1, 1)),
        3: ((0, 2), (1, 1)),
        4: ((1, 2), (1, 2)),
        12: ((2, 6), (3, 5)),
        32: ((5, 17), (9, 14)),
        40: ((6, 21), (11, 18)),
    }
    for name, (first, last) in zip(("iat", "locore"), known[count], strict=True):
        assert parse_method(name).prepare(Deep).layers == range(first, last + 1)


# --- AdaIAT


def statistics(folder, heads=4, depth=DEPTH):
    """Random statistics and the file that holds them; one head has none before unsupported words."""
    rng = np.random.default_rng(4)
    supported, unsupported = (rng.uniform(0.02, 0.12, (depth, heads)).astype(np.float32) for _ in range(2))
    unsupported[1, 0] = 0
    file = folder / "statistics.json"
    file.write_text(json.dumps({"supported": supported.tolist(), "unsupported": unsupported.tolist()}))
    return supported, unsupported, file


@pytest.mark.parametrize(
    ("options", "layers"),
    [({}, MIDDLE), ({"alpha": 1, "layers": "all"}, ALL), ({"alpha": 2, "beta": 3, "layers": "all"}, ALL)],
)
@pytest.mark.parametrize("reliance", [False, True])
def test_adaiat_is_that_of_the_equations(model, tmp_path, options, layers, reliance):
    supported, unsupported, file = statistics(tmp_path)
    values = {key: value for key, value in options.items() if key != "layers"}
    log = []
    wanted = plain(model, IDS, TOKENS, ada(len(IDS), supported, unsupported, layers, **values, log=log))
    ours = logits_of(model, PROMPT, spec("adaiat", {"statistics": file, **options}), TOKENS, reliance)
    assert furthest(ours, wanted) < 1e-5
    assert any(log)
    assert distance(wanted, plain(model, IDS, TOKENS)) > 1e-3


def test_adaiat_is_raised_where_attention_is_low(model, tmp_path):
    log = []
    supported, unsupported, _ = statistics(tmp_path)
    plain(model, IDS, TOKENS, ada(len(IDS), supported, unsupported, ALL, log=log))
    assert {True, False} == set(log)


def test_adaiat_without_strength_is_no_method(model, tmp_path):
    file = statistics(tmp_path)[2]
    ours, none = (logits_of(model, PROMPT, each, TOKENS) for each in (f"adaiat:statistics={file},alpha=0", "none"))
    assert furthest(ours, none) < 1e-5


def test_adaiat_needs_statistics_of_the_model(model, tmp_path):
    with pytest.raises(MethodError, match="^adaiat needs the option statistics: write adaiat:statistics=...$"):
        parse_method("adaiat")
    with pytest.raises(MethodError, match="^adaiat: beta is -1.0; it must be a number of at least 0.$"):
        parse_method("adaiat:statistics=x,beta=-1")
    for text in ("{}", "[1]", '{"supported": [[1]], "unsupported": "x"}', "no"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(MethodError, match="^adaiat: .*bad.json holds no statistics of "):
            parse_method(f"adaiat:statistics={tmp_path / 'bad.json'}").prepare(model)
    with pytest.raises(MethodError, match="^adaiat: .* holds no statistics of this model; write them anew.$"):
        parse_method(f"adaiat:statistics={statistics(tmp_path, depth=3)[2]}").prepare(model)
    with pytest.raises(MethodError, match="^adaiat: nowhere.json holds no statistics of "):
        parse_method("adaiat:statistics=nowhere.json").prepare(model)


# --- FLB


@pytest.mark.parametrize("options", [{}, {"gamma": 2, "rate": 1, "beta": 0}, {"gamma": 1, "rate": 0.3, "beta": 1}])
def test_flb_is_that_of_the_equations(model, options):
    unchanged = plain(model, IDS, TOKENS)
    wanted = flb(unchanged, **options)
    ours = logits_of(model, PROMPT, spec("flb", options), TOKENS)
    assert furthest(ours, wanted) < 1e-5
    left = wanted[0] > -1e38
    assert distance(ours[0][left], unchanged[0][left]) < 1e-5  # the first token is the model's own
    if options.get("beta") == 0:
        assert distance(ours[-1], unchanged[-1]) > 0.1


def test_flb_boosts_what_is_within(model):
    within = logits_of(model, PROMPT, "dleaf+kvsmooth:window=3", TOKENS)
    ours = logits_of(model, PROMPT, "flb:gamma=2,beta=0+dleaf+kvsmooth:window=3", TOKENS)
    assert furthest(ours, flb(within, 2, beta=0)) < 1e-5


def test_flb_goes_back_and_branches_off(model):
    """The first logits are those of the answer that is being made."""
    ready = parse_method("flb:gamma=2,rate=1,beta=0").prepare(model)
    session = start(model, PROMPT, reliance=False)
    said = [step.logits for step in _said(ready, session, TOKENS[:4])]
    branch = session.fork()
    session.rewind(2)
    again = [step.logits for step in _said(ready, session, TOKENS[2:4])]
    assert furthest(np.stack(again), np.stack(said[2:4])) < 1e-5
    assert branch.state["flb"] is not session.state["flb"]
    session.rewind(4)
    assert session.state["flb"].logits is None and branch.state["flb"].logits is not None
    anew = [step.logits for step in _said(ready, session, TOKENS[:2])]
    assert furthest(np.stack(anew), np.stack(said[:2])) < 1e-5


def _said(ready, session, tokens):
    """The steps that lead to each of `tokens`, which are appended."""
    out = []
    for token in tokens:
        out.append(ready.step(session))
        session.append(token)
    return out


def test_flb_that_starts_late_boosts_itself(model):
    """A method that did not see the first token has no first logits but those before it."""
    session = start(model, PROMPT, reliance=False)
    for token in TOKENS[:3]:
        session.append(token)
    logits = parse_method("flb:gamma=1,rate=1,beta=0").prepare(model).step(session).logits
    wanted = plain(model, IDS, TOKENS[:3])[-1]
    assert distance(logits, wanted * (2 - np.exp(-3))) < 1e-5


# --- ONLY


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"agree": 1, "differ": 2, "beta": 0},
        {"gamma": 0, "beta": 0},
        {"gamma": 2, "beta": 0.5},
        {"gamma": 0.9, "layer": 2, "beta": 0},
        {"layer": 3, "beta": 0},
    ],
    ids=str,
)
def test_only_is_that_of_the_equations(model, options):
    wanted, apart = only(model, IDS, TOKENS, **options)
    assert furthest(logits_of(model, PROMPT, spec("only", options), TOKENS), wanted) < 1e-5
    gamma = options.get("gamma", 0.25)
    if gamma in (0, 2):
        assert {distance < gamma for distance in apart} == {gamma == 2}


def test_only_agrees_and_differs(model):
    """A limit between the distances of the steps, so that both ways are taken."""
    _, apart = only(model, IDS, TOKENS)
    middle = float(np.median(apart)) + 1e-4
    wanted, _ = only(model, IDS, TOKENS, gamma=middle, beta=0)
    assert 0 < sum(distance < middle for distance in apart) < len(apart)
    assert furthest(logits_of(model, PROMPT, f"only:gamma={middle},beta=0", TOKENS), wanted) < 1e-5


@pytest.mark.parametrize("seed", range(5))
def test_heads_that_are_left_out(seed):
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(12, 0.3), 4)
    if seed == 4:
        rows[1, 2:6], rows[2, 1:2], rows[2, 6:] = 0, 0, 0
    media = np.isin(np.arange(12), range(2, 6))
    weights = mx.array(rows.reshape(1, 2, 2, 1, 12).astype(np.float32))
    ours = np.array(only_module.without_picture_heads(weights, media)).reshape(4, 12)
    np.testing.assert_allclose(ours, without_picture_heads(rows), atol=1e-6)
    assert (ours == 0).all(axis=1).any()


def test_only_within_an_attention_and_a_cache_of_their_own(model):
    """The second opinion is made of the edited attention."""
    ours = logits_of(model, PROMPT, "dleaf+only:beta=0", TOKENS)
    assert furthest(ours, only(model, IDS, TOKENS, beta=0, edit=led())[0]) < 1e-5
    assert np.isfinite(logits_of(model, PROMPT, "kvsmooth:window=3+only:beta=0", TOKENS)).all()


def test_only_sees_the_undisturbed_forward_of_lime(model):
    """And LIME works for the token that both give."""
    still = logits_of(model, PROMPT, "lime:lr=0,words=all+only:beta=0", TOKENS)
    assert furthest(still, only(model, IDS, TOKENS, beta=0)[0]) < 1e-5
    session, said = start(model, PROMPT), iter([*TOKENS, 0])
    both, sampler = parse_method("lime:lr=0.05,words=all+only:beta=0"), lambda _: mx.array([next(said)])
    moved = list(steps(session, both, 9, sampler))
    within = np.stack([step.logits for step in forced(model, PROMPT, "lime:lr=0.05,words=all", TOKENS)])
    assert all(step.optimised for step in moved)
    assert furthest(np.stack([step.logits for step in moved]), still) > 1e-3
    assert furthest(within, plain(model, IDS, TOKENS)) > 1e-3
    assert session.observers == session.hidden_observers == {}


def test_only_with_one_layer():
    model = small_model(num_hidden_layers=1)
    slow = Doubtful(model, 0)
    assert slow.last == 0
    wanted, _ = only(model, IDS, TOKENS, beta=0)
    assert furthest(logits_of(model, PROMPT, "only:beta=0", TOKENS), wanted) < 1e-5


def test_only_in_gemma_is_finite():
    windows = {"sliding_window": 5, "sliding_window_pattern": 3, "query_pre_attn_scalar": 16}
    model = small_model(model_type="gemma3_text", num_hidden_layers=6, **windows)
    for layer in range(6):
        assert np.isfinite(logits_of(model, PROMPT, f"only:layer={layer},beta=0", TOKENS)).all()
    assert np.isfinite(logits_of(model, PROMPT, "acg", TOKENS)).all()


def test_only_refuses(model):
    with pytest.raises(MethodError, match="^only: layer is 4, but the model has 4 layers.$"):
        parse_method("only:layer=4").prepare(model)
    with pytest.raises(MethodError, match="^only reads the cache, which lime:mode=exact does not use; take"):
        parse_method("only+lime:mode=exact").prepare(model)


# --- all of them

EVERY = ["acg", "iat:alpha=2", "locore:beta=1", "flb:gamma=1,rate=1", "only"]
REFERENCES = {
    "acg": lambda model: acg(model, IDS, TOKENS, 2.0, ALL),
    "iat:alpha=2": lambda model: plain(model, IDS, TOKENS, own_text(len(IDS), MIDDLE, alpha=2)),
    "locore:beta=1": lambda model: plain(model, IDS, TOKENS, own_text(len(IDS), MIDDLE, beta=1, window=5)),
    "flb:gamma=1,rate=1": lambda model: flb(plain(model, IDS, TOKENS), 1, 1),
    "only": lambda model: only(model, IDS, TOKENS)[0],
}


@pytest.mark.parametrize("name", EVERY)
def test_quantised_weights(name):
    model = small_model(num_hidden_layers=DEPTH)
    nn.quantize(model, group_size=32, bits=4)
    assert furthest(logits_of(model, PROMPT, name, TOKENS), REFERENCES[name](model)) < 1e-5


@pytest.mark.parametrize("name", EVERY)
def test_what_is_asked_of_relevance_changes_nothing(model, name):
    ours, read = (forced(model, PROMPT, name, TOKENS, reliance=wanted) for wanted in (False, True))
    assert furthest(*(np.stack([step.logits for step in run]) for run in (ours, read))) < 1e-5
    assert all(np.isfinite(step.relevance).all() for step in read)


@pytest.mark.parametrize("name", ["acg:gamma=0", "iat:alpha=0", "locore:beta=0", "flb:gamma=0,beta=0"])
def test_no_strength_is_no_method(model, name):
    ours, none = (logits_of(model, PROMPT, each, TOKENS) for each in (name, "none"))
    assert furthest(ours, none) < 1e-5


def test_only_without_strength_is_no_method(model):
    ours, none = (logits_of(model, PROMPT, each, TOKENS) for each in ("only:agree=0,differ=0,beta=0", "none"))
    assert furthest(ours, none) < 1e-6


@pytest.mark.parametrize("name", EVERY)
def test_going_back_gives_the_same_again(model, name):
    ready = parse_method(name).prepare(model)
    session = start(model, PROMPT, reliance=False)
    said = [step.logits for step in _said(ready, session, TOKENS[:5])]
    session.rewind(3)
    again = [step.logits for step in _said(ready, session, TOKENS[2:5])]
    assert furthest(np.stack(again), np.stack(said[2:5])) < 1e-5


@pytest.mark.parametrize("name", EVERY)
def test_two_answers_of_one_method_do_not_meet(model, name):
    method, prompts = parse_method(name), [small_prompt(), small_prompt(15, 1, 9)]
    apart = [list(decode(model, prompt, parse_method(name), 6)) for prompt in prompts]
    for together in zip(*(decode(model, prompt, method, 6) for prompt in prompts), strict=True):
        for run, step in zip(apart, together, strict=True):
            np.testing.assert_array_equal(step.logits, run.pop(0).logits)


@pytest.mark.parametrize("name", ["acg", "only", "acg+kvsmooth", "only+iat"])
def test_text_alone_is_refused(model, name):
    with pytest.raises(MethodError) as caught:
        forced(model, Prompt(IDS), name, [])
    needs = "needs a picture or a sound in the prompt; use --method none for text alone."
    assert str(caught.value) == f"{name.partition('+')[0]} {needs}"


@pytest.mark.parametrize("name", EVERY)
def test_a_prompt_of_one_token(model, name):
    prompt = Prompt([3], spans=[Span("image", 0, 1)])
    if name == "only":
        with pytest.raises(MethodError, match="^only needs a prompt of two tokens at least.$"):
            logits_of(model, prompt, name, [])
        prompt = Prompt([3, 4], spans=[Span("image", 0, 1)])
    for reliance in (False, True):
        assert np.isfinite(logits_of(model, prompt, name, TOKENS[:3], reliance)).all()


def test_iat_kvsmooth_flb(model):
    edit = own_text(len(IDS), MIDDLE, alpha=2)
    within, *_ = smoothed(model, IDS, TOKENS, window=3, ref=0.5, edit=edit)
    ours = logits_of(model, PROMPT, "iat:alpha=2+kvsmooth:window=3,ref=0.5+flb:gamma=1,beta=0", TOKENS)
    assert furthest(ours, flb(within, 1, beta=0)) < 1e-5


@pytest.mark.parametrize("case", ["llava", "gemma3", "qwen3_vl_deeper", "qwen2_audio", "idefics3"])
@pytest.mark.parametrize("name", ["acg", "only:beta=0", "iat", "flb:beta=0"])
def test_families_with_their_media(case, name, tmp_path):
    """Several steps give the same, whether relevance is asked for or not, and not what plain decoding gives."""
    model, prompt = any_length(load_model(parity_checkpoint(case, tmp_path))), prompt_of(fixture(case))
    tokens = TOKENS[:3]
    ours, read = (logits_of(model, prompt, name, tokens, wanted) for wanted in (False, True))
    assert np.isfinite(ours).all() and furthest(ours, read) < 1e-4
    assert distance(ours[1:], logits_of(model, prompt, "none", tokens)[1:]) > 1e-6


@pytest.mark.parametrize(
    ("both", "message"),
    [
        ("acg+iat", "acg and iat do not go together: both compute the token's attention."),
        ("flb+only", "flb and only do not go together: both change the logits."),
        ("sham:the=1+m3id", "sham and m3id do not go together: both change the logits."),
        ("pai+acg", "pai and acg do not go together: both compute the token's attention."),
    ],
)
def test_what_does_not_go_together(both, message):
    with pytest.raises(MethodError) as caught:
        parse_method(both)
    assert str(caught.value) == message


def test_stepwise_reference_is_still_itself(model):
    assert furthest(plain(model, IDS, TOKENS), logits_of(model, PROMPT, "none", TOKENS)) < 1e-5
    assert isinstance(Doubtful(model, 0), Stepwise)


@pytest.mark.parametrize("name", ["acg", "iat:alpha=2", "locore:beta=1"])
def test_relevance_of_several_candidates_goes_through_the_edits(model, name):
    ready, session = parse_method(name).prepare(model), start(model, PROMPT)
    for token in TOKENS[:2]:
        session.append(token)
    session.prefill()
    edits = ready.edits(session)
    together = np.array(session.relevance_of([3, 9, 20], edits=edits))
    for token, row in zip([3, 9, 20], together, strict=True):
        assert distance(row, session.relevance(target=token, edits=edits).relevance) < 1e-5
    assert distance(together, np.array(session.relevance_of([3, 9, 20]))) > 1e-4
