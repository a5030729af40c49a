"""The sham controls: what they change, by hand; which words they know; what the bundled demos make of them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import distance, small_model, small_prompt
from PIL import Image
from rivals import kept
from stepwise import forced, furthest, logits_of, plain, smoothed

import lime_mlx
from lime_mlx.checkpoint.load import load, load_processor
from lime_mlx.decoding import decode
from lime_mlx.errors import MethodError
from lime_mlx.evaluate.asking import answer
from lime_mlx.methods import parse_method
from lime_mlx.prompt import Prompt, Span
from lime_mlx.session import Session

TOKENS = np.random.default_rng(9).integers(20, 64, 8).tolist()
WORDS = {"yes": (3, 40), "no": (4,), "the": (5, 6, 50), "a": (7,), ".": (10,), "!": (11,), ",": (12, 13), ";": (14,)}
ENDS = frozenset({1, 2})
NEVER = np.finfo(np.float32).min


@pytest.fixture(scope="module")
def model():
    return small_model()


def told(words=WORDS) -> Prompt:
    """A prompt whose language knows some words."""
    prompt = small_prompt()
    language = SimpleNamespace(
        tokens=lambda word: words.get(word, ()), ends=ENDS, content=np.ones(64, bool), prompted=np.zeros(64, bool)
    )
    return Prompt(prompt.input_ids, spans=prompt.spans, language=language)


PROMPT = told()
IDS = PROMPT.input_ids


@pytest.mark.parametrize(
    ("spec", "words"), [("yes=2", {"yes": 2}), ("no=1.5", {"no": 1.5}), ("the=3,yes=1", {"the": 3, "yes": 1})]
)
def test_words_are_shifted(model, spec, words):
    wanted = plain(model, IDS, TOKENS)
    for word, amount in words.items():
        wanted[:, list(WORDS[word])] += amount
    assert furthest(logits_of(model, PROMPT, f"sham:{spec}", TOKENS), wanted) < 1e-5


@pytest.mark.parametrize("beta", [0, 0.1, 1])
def test_the_cut_alone(model, beta):
    full = plain(model, IDS, TOKENS)
    wanted = np.stack([kept(logits, logits, beta) for logits in full])
    ours = logits_of(model, PROMPT, f"sham:beta={beta}", TOKENS)
    assert furthest(ours, wanted) < 1e-5
    assert (ours.argmax(1) == full.argmax(1)).all()  # so that greedy decoding says the same
    assert (ours > NEVER).all() == (beta == 0)


def test_the_cut_is_that_of_the_unshifted_logits(model):
    wanted = []
    for logits in plain(model, IDS, TOKENS):
        shifted = logits.copy()
        shifted[list(WORDS["the"])] += 50
        wanted.append(kept(shifted, logits, 0.3))
    assert furthest(logits_of(model, PROMPT, "sham:the=50,beta=0.3", TOKENS), np.stack(wanted)) < 1e-5


def test_nothing_happens_before_the_length(model):
    ours = logits_of(model, PROMPT, "sham:length=9", TOKENS)
    assert furthest(ours, plain(model, IDS, TOKENS)) < 1e-5


def test_a_pause_ends_the_answer(model):
    """Behind so many tokens, the ends have what the best of pauses and ends has, and no pause is left."""
    full, ours = plain(model, IDS, TOKENS), logits_of(model, PROMPT, "sham:length=4", TOKENS)
    assert furthest(ours[:4], full[:4]) < 1e-5
    pauses, ends = [12, 13, 14], sorted(ENDS)
    for logits, scores in zip(full[4:], ours[4:], strict=True):
        wanted = logits.copy()
        wanted[pauses], wanted[ends] = NEVER, logits[pauses + ends].max()
        assert furthest(scores[None], wanted[None]) < 1e-5


def test_a_sentence_ends_the_answer(model):
    tokens = [20, 10, 21, 22, 11, 23]
    ours = logits_of(model, PROMPT, "sham:length=3", tokens)
    full = plain(model, IDS, tokens)
    assert furthest(ours[2][None], full[2][None]) < 1e-5  # too early
    assert np.flatnonzero(ours[5] > NEVER).tolist() == sorted(ENDS)
    assert distance(ours[5][sorted(ENDS)], full[5][sorted(ENDS)]) < 1e-5


def test_an_answer_is_as_long_as_wanted(model):
    """A shift brings a pause at every token, so that the answer ends at once behind the length."""
    prompt = told({**WORDS, "the": WORDS[","]})
    free = [step.token for step in decode(model, prompt, "sham:the=1000", 12, stop=ENDS)]
    cut = [step.token for step in decode(model, prompt, "sham:the=1000,length=5", 12, stop=ENDS)]
    assert len(free) == 12 and set(free) <= set(WORDS[","])
    assert len(cut) == 6 and cut[:5] == free[:5] and cut[5] in ENDS


def test_controls_go_with_methods(model):
    within, *_ = smoothed(model, IDS, TOKENS, window=3, ref=0.5)
    within[:, list(WORDS["the"])] += 2
    assert furthest(logits_of(model, PROMPT, "sham:the=2+kvsmooth:window=3,ref=0.5", TOKENS), within) < 1e-5


def test_relevance_is_that_of_the_token_that_is_said(model):
    (step,) = decode(model, PROMPT, "sham:yes=1000", 1)
    assert step.token in WORDS["yes"]
    session = Session.open(model, PROMPT)
    session.prefill()
    assert distance(step.relevance, session.relevance(target=step.token).relevance) < 1e-5


def test_text_alone(model):
    alone = Prompt(IDS, language=PROMPT.language)
    ours = [logits_of(model, prompt, "sham:no=2,beta=0.1", TOKENS) for prompt in (alone, PROMPT)]
    assert furthest(*ours) < 1e-6


@pytest.mark.parametrize("option", ["yes", "no", "the"])
def test_words_need_a_language(model, option):
    with pytest.raises(MethodError) as caught:
        forced(model, small_prompt(), f"sham:{option}=1", [])
    assert str(caught.value) == f"sham: {option} needs a prompt that a processor made, which knows its words."
    with pytest.raises(MethodError) as caught:
        forced(model, told({}), f"sham:{option}=1", [])
    assert str(caught.value) == f"sham: {option} has no token of its own in this model; leave the option out."


def test_a_length_needs_a_language(model):
    with pytest.raises(MethodError, match="^sham: length needs a prompt that a processor made"):
        forced(model, Prompt(IDS, spans=[Span("image", 2, 6)]), "sham:length=1", TOKENS[:1])


def test_no_control_is_none():
    with pytest.raises(MethodError) as caught:
        parse_method("sham")
    assert str(caught.value) == "sham needs one of its options yes, no, the, a, beta, length, as in sham:the=1."


@pytest.fixture(scope="module")
def demo():
    return load("demo")


@pytest.fixture(scope="module")
def prompt(demo):
    scene = Path(lime_mlx.__file__).parents[1] / "examples/scene.png"
    return demo[1].prompt("What is in the picture?", images=[Image.open(scene).convert("RGB")])


def said(demo, prompt, spec):
    model, processor = demo
    return answer(lambda: Session.open(model, prompt), parse_method(spec), processor, 48, False, True)


def test_the_demo_knows_its_words():
    processor = load_processor(Path(lime_mlx.__file__).parent / "demo/picture")
    language = processor.prompt("What is here?").language
    for word in ("yes", "no", "the", "a", ".", ","):
        assert language.tokens(word)
        for token in language.tokens(word):
            assert processor.tokenizer.decode([token]).strip().lower() == word
    assert language.ends == processor.eos_token_ids


def test_what_the_demo_makes_of_a_shift(demo, prompt):
    assert said(demo, prompt, "sham:yes=1000")["text"].lower().startswith("yes")
    assert said(demo, prompt, "sham:no=1000")["text"].lower().startswith("no")
    assert said(demo, prompt, "sham:the=1000")["text"].lower().startswith("the the")


def test_what_the_demo_makes_of_a_length(demo, prompt):
    whole, cut = (said(demo, prompt, spec) for spec in ("none", "sham:length=3"))
    assert 3 <= len(cut["tokens"]) < len(whole["tokens"])
    assert whole["text"].startswith(cut["text"])
    assert said(demo, prompt, "sham:length=100")["text"] == whole["text"]
