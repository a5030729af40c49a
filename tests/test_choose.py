"""Choosing words by their support, and asking the model back."""

import json
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from choosing import reference
from helpers import small_model, small_prompt
from mlx.utils import tree_flatten

from lime_mlx import decode, generate, load
from lime_mlx.asking import completions, continued, margins
from lime_mlx.decoding import start, steps
from lime_mlx.errors import CheckpointError, MethodError
from lime_mlx.generation import stream_generate
from lime_mlx.media.audio import Sound
from lime_mlx.methods import METHODS, parse_method
from lime_mlx.methods.choose import Turns, _possible
from lime_mlx.prompt import Noun, Prompt
from lime_mlx.scenes import PROMPTS, SOUND_PROMPTS, make_scene, make_sound
from lime_mlx.session import Session
from lime_mlx.support.detector import Asking, Detector

# Adversarial validation scenes; in the first ones plain decoding names a companion that is not there.
SEEDS = range(100_300, 100_306)


@pytest.fixture(scope="module", params=["demo", "demo-sound"])
def demo(request):
    return request.param, *load(request.param)


def asked(demo, seed, text=None):
    name, _, processor = demo
    if name == "demo":
        return processor.prompt(text or PROMPTS[0], images=[make_scene(seed, "adversarial").image])
    scene = make_sound(seed, "adversarial")
    return processor.prompt(text or SOUND_PROMPTS[0], audio=[Sound(scene.samples, scene.rate)])


def answer(model, processor, prompt, spec, max_tokens=32, **options):
    session = start(model, prompt, reliance=False)
    ends = frozenset(processor.eos_token_ids)
    decoded = [step.token for step in steps(session, parse_method(spec), max_tokens, stop=ends, **options)]
    return [token for token in decoded if token not in ends], session


@pytest.mark.parametrize("ask", ["never", "flagged", "always"])
def test_the_slow_reference_says_the_same(demo, ask):
    _, model, processor = demo
    changed = 0
    for seed in SEEDS[:3]:
        prompt = asked(demo, seed)
        wanted, _ = reference(model, prompt, processor.eos_token_ids, 24, ask=ask)
        tokens, _ = answer(model, processor, prompt, f"choose:ask={ask}", 24)
        assert tokens == wanted
        changed += tokens != answer(model, processor, prompt, "none", 24)[0]
    assert changed


def test_steps_come_when_they_are_settled(demo):
    """What is printed is the whole answer: nothing that was taken back, nothing left out."""
    _, model, processor = demo
    for seed in SEEDS:
        session = start(model, asked(demo, seed), reliance=False)
        ends = frozenset(processor.eos_token_ids)
        came = []
        for step in steps(session, parse_method("choose"), 32, stop=ends):
            came.append(step.token)
            assert came[: len(session.generated)] == session.generated[: len(came)]
        assert [token for token in came if token not in ends] == session.generated


def test_an_answer_that_is_cut_has_as_many_tokens_as_wanted(demo):
    _, model, processor = demo
    for count in (1, 2, 5, 9):
        assert len(list(decode(model, asked(demo, SEEDS[0]), "choose", count, reliance=False))) == count


def test_streaming_says_what_the_whole_answer_says(demo):
    _, model, processor = demo
    prompt = asked(demo, SEEDS[1])
    pieces = [response.text for response in stream_generate(model, processor, prompt, method="choose", max_tokens=32)]
    assert "".join(pieces).strip() == generate(model, processor, prompt, method="choose", max_tokens=32).text


def test_it_says_what_it_did_not_take(demo):
    """Words carry what stood in their place and was flagged or named before; plain decoding rejects nothing."""
    _, model, processor = demo
    threshold, replaced = Detector.from_config(model.config).threshold, 0
    for seed in SEEDS:
        prompt = asked(demo, seed)
        plain, chosen = (generate(model, processor, prompt, method=spec, max_tokens=32) for spec in ("none", "choose"))
        assert not any(word.rejected for word in plain.words)
        rejected = [each for word in chosen.words for each in word.rejected]
        assert all(each.repeated or each.p_unsupported >= threshold for each in rejected)
        # The answers part before the first flagged word of plain decoding, or at it; choose rejected that word.
        flagged = next((index for index, word in enumerate(plain.words) if word.flagged), None)
        if flagged is not None:
            assert plain.words[flagged].name in {each.text for each in rejected}
            replaced += 1
        if replaced == 2:
            break
    assert replaced


def test_reliance_is_that_of_the_token_that_was_chosen(demo):
    _, model, processor = demo
    prompt = asked(demo, SEEDS[0])
    decoded = list(decode(model, prompt, "choose", 12))
    for index, step in enumerate(decoded[:8]):
        session = start(model, prompt)
        for before in decoded[:index]:
            session.append(before.token)
        result = session.relevance(target=mx.array(step.token))
        np.testing.assert_allclose(step.relevance, np.array(result.relevance), atol=1e-4)


def test_words_of_the_question_are_left_alone(demo):
    name, model, processor = demo
    noun, where = ("dog", "picture") if name == "demo" else ("bell", "sound")
    for seed in SEEDS:
        prompt = asked(demo, seed, f"Is there a {noun} in the {where}?")
        tokens, _ = answer(model, processor, prompt, "choose:ask=always,threshold=0.01", 16)
        assert noun in processor.tokenizer.decode(tokens)


def test_a_sentence_ends_where_it_has_named_something(demo):
    """Where no token is likely, another turn is a full stop, or behind one the end of the answer."""
    _, model, processor = demo
    session = start(model, asked(demo, SEEDS[0]), reliance=False)
    language = session.prompt.language
    sure = mx.where(mx.arange(language.content.size) == int(language.content.argmax()), 20.0, 0.0)
    stops, ends = set(language.tokens(".")), set(language.ends)
    for before, turns in (
        ("There is a bell", stops),
        ("There is a bell.", ends),
        ("There is a bell. Beside the", set()),
        ("There is a", set()),
    ):
        possible = np.array(_possible(session, sure, set(), list(language.encode(before))))
        assert set(np.flatnonzero(possible).tolist()) == turns, before
        assert not _possible(session, sure, turns or stops, list(language.encode(before))).any().item()


@pytest.mark.parametrize("spec", ["kvsmooth+choose", "m3id+choose", "pai+choose", "heads+choose", "lime+choose"])
def test_it_composes(demo, spec):
    _, model, processor = demo
    assert parse_method(spec).name == "choose"
    assert answer(model, processor, asked(demo, SEEDS[0]), spec)[0]


def test_it_composes_once():
    with pytest.raises(MethodError, match="choose is named twice"):
        parse_method("choose+choose:k=2")


def test_sampling_is_repeatable(demo):
    _, model, processor = demo
    options = {"method": "choose", "max_tokens": 24, "temperature": 1.0, "seed": 3}
    first, second = (generate(model, processor, asked(demo, SEEDS[0]), **options).text for _ in range(2))
    assert first == second


def test_no_list_of_the_worlds_words_is_used(demo, monkeypatch):
    """The answer is the same when nobody can read the kinds of the worlds."""
    _, model, processor = demo
    prompt = asked(demo, SEEDS[0])
    wanted, _ = answer(model, processor, prompt, "choose")
    import lime_mlx.scenes.habits as habits
    import lime_mlx.scenes.language as language

    def out_of_reach(self):
        raise AssertionError("the list of the world's words was read")

    monkeypatch.setattr(habits.World, "__getattribute__", lambda self, name: out_of_reach(self))
    monkeypatch.setattr(language, "MASS", None)
    assert answer(model, processor, prompt, "choose")[0] == wanted


# --- a model without a detector


def uncalibrated(model):
    """The same model without what was calibrated."""
    other = type(model)({key: value for key, value in model.config.items() if key != "lime"})
    other.load_weights(tree_flatten(model.parameters()), strict=False)
    return other


def test_a_model_that_was_not_calibrated_never_says_what_it_would_deny(demo):
    _, model, processor = demo
    bare = uncalibrated(model)
    assert Detector.from_config(bare.config) is None
    for seed in SEEDS:
        prompt = asked(demo, seed)
        _, session = answer(bare, processor, prompt, "choose")
        assert session.margins
    with pytest.raises(MethodError, match="calibrate"):
        parse_method("choose:ask=never").prepare(bare)


# --- asking


def test_a_batch_of_questions_is_what_each_says_alone(demo):
    name, model, processor = demo
    nouns = [Noun("dog"), Noun("rain", False), Noun("umbrella"), Noun("red ball")]
    prompt = asked(demo, SEEDS[0])
    session = start(model, prompt)
    together = margins(session, nouns)
    for noun, margin in zip(nouns, together, strict=True):
        question = prompt.language.question(noun)
        logits = np.array(Session.open(model, question.prompt).extend())
        assert margin == pytest.approx(question.yes_no.margin(logits), abs=1e-3)
    assert margins(session, nouns[::-1]) == together[::-1]
    assert len(session.margins) == 4
    assert margins(session.fork(), [Noun("dog")]) == together[:1]
    assert session.cache.offset < len(prompt)


def test_the_cache_stays_as_it_is(demo):
    _, model, processor = demo
    prompt = asked(demo, SEEDS[0])
    session, other = start(model, prompt), start(model, prompt)
    for each in (session, other):
        each.extend()
        each.append(20)
    margins(session, [Noun("dog"), Noun("cat")])
    session.prefill(session.embeds.shape[1])
    completions(session, [20, 21])
    np.testing.assert_array_equal(np.array(session.extend()), np.array(other.extend()))


def test_nobody_is_asked_without_a_processor_or_a_picture(demo):
    _, model, processor = demo
    prompt = asked(demo, SEEDS[0])
    bare = Prompt(prompt.input_ids, prompt.media, parts=prompt.parts)
    assert margins(start(model, bare), [Noun("dog")]) == [None]
    assert margins(start(model, processor.prompt("What is a dog?")), [Noun("dog")]) == [None]
    with pytest.raises(MethodError, match="processor"):
        list(decode(model, bare, "choose:ask=always", 2))
    with pytest.warns(UserWarning, match="relevance alone"):
        assert len(list(decode(model, bare, "choose", 4))) == 4


def test_text_alone_is_plain_decoding(demo):
    _, model, processor = demo
    prompt = processor.prompt("What is a dog?")
    assert answer(model, processor, prompt, "choose")[0] == answer(model, processor, prompt, "none")[0]


def test_texts_of_different_length_go_on_together():
    model = small_model()
    session = start(model, small_prompt(30))
    session.prefill()
    tails = [[5, 6, 7], [8], [9, 10, 11, 12]]
    together = np.array(continued(session, 20, tails))
    for tail, row in zip(tails, together, strict=True):
        alone = start(model, small_prompt(30))
        alone.prefill()
        np.testing.assert_allclose(row, np.array(continued(alone, 20, [tail]))[0], atol=2e-5)


def test_relevance_of_several_tokens_is_that_of_each():
    session = start(small_model(), small_prompt())
    session.prefill()
    tokens = [3, 50, 7]
    together = np.array(session.relevance_of(tokens))
    for token, row in zip(tokens, together, strict=True):
        np.testing.assert_allclose(row, np.array(session.relevance(target=mx.array(token)).relevance), atol=1e-5)


# --- options, state


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("choose:k=0", "at least 1"),
        ("choose:k=99999", "vocabulary has"),
        ("choose:ask=sometimes", "always, flagged"),
        ("choose:back=-1", "at least 0"),
        ("choose:weight=-1", "at least 0"),
    ],
)
def test_options_that_are_refused(demo, spec, words):
    _, model, _ = demo
    with pytest.raises(MethodError, match=words) as caught:
        parse_method(spec).prepare(model)
    assert "\n" not in str(caught.value)


def test_state_goes_back_and_branches():
    turns = Turns({2: {5}, 4: {6}}, {2: mx.zeros(1), 4: mx.zeros(1)}, 2)
    other = turns.fork()
    turns.truncate(3)
    assert turns.banned == {2: {5}} and list(turns.scores) == [2]
    other.banned[2].add(9)
    assert turns.banned == {2: {5}} and other.backs == 2
    assert "choose" in METHODS


def test_a_detector_with_questions_is_read_and_checked():
    values = {"weights": {"share": 1.0}, "intercept": 0.0, "threshold": 0.4}
    asking = {"relevance": 1.0, "margin": -0.5, "intercept": 0.1, "lowest": 0.02}
    detector = Detector.parse(json.loads(json.dumps({**values, "asking": asking})), "here")
    assert detector.asking == Asking(**asking)
    assert detector.p_unsupported({"share": 0.0}) == 0.5
    assert detector.p_unsupported({"share": 0.0, "margin": 2.0}) == pytest.approx(1 / (1 + np.exp(0.9)))
    unlikely = {"share": -5.0, "margin": -9.0}
    assert not detector.asks(unlikely) and detector.p_unsupported(unlikely) == pytest.approx(1 / (1 + np.exp(5)))
    assert detector.asks({"share": 0.0})
    without = replace(detector, asking=None)
    assert without.p_unsupported({"share": 0.0, "margin": 2.0}) == 0.5 and not without.asks({"share": 9.0})
    assert without.digest != detector.digest == replace(detector, threshold=0.9).digest
    for broken in ({**asking, "margin": "x"}, {}, {**asking, "lowest": float("nan")}, 3):
        with pytest.raises(CheckpointError):
            Detector.parse({**values, "asking": broken}, "here")
