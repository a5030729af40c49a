"""Methods that act only on words which the user's and the system's texts did not bring in."""

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from helpers import distance, small_model, small_prompt

from lime_mlx import decode
from lime_mlx.decoding import start
from lime_mlx.errors import MethodError
from lime_mlx.methods import parse_method
from lime_mlx.prompt import Prompt, Span

ACTING = ["dleaf:gamma=0.9", "heads:strength=2", "pai:alpha=1", "m3id:decay=0.5,beta=0"]
SMOOTHING = "kvsmooth:ref=0.9,clip=0,window=3"
TOKENS = (5, 9, 60, 33, 2)


@pytest.fixture(scope="module")
def model():
    return small_model()


def asked(content: np.ndarray, prompted: np.ndarray) -> Prompt:
    """A prompt that knows its content tokens, (V,) bool, and which of them a text brought in."""
    bare = small_prompt()
    return Prompt(bare.input_ids, spans=bare.spans, language=SimpleNamespace(content=content, prompted=prompted))


def rows(model, spec: str, prompt: Prompt, relevance: bool = False) -> list[np.ndarray]:
    """The logits (V,) before each token of `TOKENS`."""
    method, session, logits = parse_method(spec).prepare(model), start(model, prompt, reliance=relevance), []
    for token in TOKENS:
        logits.append(np.array(method.step(session).logits))
        session.append(token)
    return logits


@pytest.mark.parametrize("relevance", [True, False])
@pytest.mark.parametrize("spec", ACTING)
def test_a_prompted_word_has_plain_logits_and_every_other_one_the_methods(model, spec, relevance):
    """At every token, three ways on from the same answer: plain, by the method, and by the method that spares words."""
    prompt = asked(np.arange(64) % 4 != 0, np.arange(64) % 3 == 0)
    plain, acting, sparing = (parse_method(one).prepare(model) for one in ("none", spec, f"{spec},words=unprompted"))
    session, acted, apart = start(model, prompt, reliance=relevance), [], []
    for token in (*TOKENS, 40, 41, 17, 8):
        without, published = (method.step(session.fork()) for method in (plain, acting))
        ours = sparing.step(session)
        acted.append(session.may_judge(int(without.logits.argmax())))
        np.testing.assert_array_equal(ours.logits, (published if acted[-1] else without).logits)
        apart.append(distance(published.logits, without.logits) > 1e-4)
        assert (ours.relevance is None) is not relevance
        session.append(token)
    assert {(True, True), (False, True)} <= set(zip(acted, apart, strict=True))


@pytest.mark.parametrize("spec", [*ACTING, SMOOTHING])
def test_without_the_option_nothing_changes(model, spec):
    content, prompted = np.arange(64) % 2 == 0, np.arange(64) % 3 == 0
    for prompt in (small_prompt(), asked(content, prompted)):
        before, now = (rows(model, one, prompt) for one in (spec, f"{spec},words=all"))
        assert all((a == b).all() for a, b in zip(before, now, strict=True))


@pytest.mark.parametrize("spec", ACTING)
def test_where_every_word_may_be_judged_the_method_acts_everywhere(model, spec):
    prompt = asked(np.ones(64, dtype=bool), np.zeros(64, dtype=bool))
    for ours, wanted in zip(rows(model, f"{spec},words=unprompted", prompt), rows(model, spec, prompt), strict=True):
        np.testing.assert_array_equal(ours, wanted)
    bare = small_prompt()
    for ours, wanted in zip(rows(model, f"{spec},words=unprompted", bare), rows(model, spec, bare), strict=True):
        np.testing.assert_array_equal(ours, wanted)


def entries(model, spec: str, prompt: Prompt) -> list[np.ndarray]:
    """Keys and values of the smoothed layer, after all of `TOKENS` were worked on."""
    method, session = parse_method(spec).prepare(model), start(model, prompt, reliance=False)
    for token in TOKENS:
        mx.eval(method.step(session).logits)
        session.append(token)
    mx.eval(method.step(session).logits)
    return [np.array(x)[0, :, len(prompt) :] for x in session.cache[0].entries()]


def test_kvsmooth_leaves_the_entries_of_words_that_may_not_be_judged(model):
    """Layer 0 reads no other layer, so that its entries before smoothing are plain decoding's."""
    content, prompted = np.ones(64, dtype=bool), np.zeros(64, dtype=bool)
    content[TOKENS[1]], prompted[TOKENS[3]] = False, True
    prompt = asked(content, prompted)
    spared = entries(model, f"{SMOOTHING},layers=0,words=unprompted", prompt)
    plain, smoothed = entries(model, "none", prompt), entries(model, f"{SMOOTHING},layers=0", prompt)
    for index in range(len(TOKENS)):
        left = index in (1, 3)
        for ours, before, published in zip(spared, plain, smoothed, strict=True):
            assert (distance(ours[:, index], before[:, index]) < 1e-6) is left
            assert distance(published[:, index], before[:, index]) > 1e-3


@pytest.mark.parametrize("spec", [*ACTING, SMOOTHING, f"{SMOOTHING},words=unprompted+m3id:decay=0.5,beta=0"])
@pytest.mark.parametrize("back", [0, 1, 3])
def test_an_answer_goes_back_and_branches_off(model, spec, back):
    content, prompted = np.arange(64) % 4 != 0, np.arange(64) % 4 == 1
    prompt = asked(content, prompted)
    method = parse_method(f"{spec},words=unprompted").prepare(model)
    session, fresh = (start(model, prompt) for _ in range(2))
    for token in TOKENS:
        method.step(session)
        session.append(token)
    method.step(session)
    fork = session.fork()
    for one in (session, fork):
        one.rewind(back)
    kept = TOKENS[: len(TOKENS) - back]
    for token in kept:
        method.step(fresh)
        fresh.append(token)
    for token in (8, 4):
        wanted = np.array(method.step(fresh).logits)
        for one in (session, fork):
            np.testing.assert_allclose(np.array(method.step(one).logits), wanted, atol=2e-5)
        for one in (session, fork, fresh):
            one.append(token)


def test_observers_see_one_forward_a_token(model):
    """The forward that tells the likely word is nobody's but the method's."""
    content = np.arange(64) % 2 == 0
    session, seen = start(model, asked(content, ~content & False), reliance=False), []
    session.observers = {1: lambda weights: seen.append(weights.shape)}
    method = parse_method("heads:words=unprompted").prepare(model)
    for token in TOKENS:
        mx.eval(method.step(session).logits)
        session.append(token)
    assert len(seen) == len(TOKENS)


@pytest.mark.parametrize("spec", ["heads", "dleaf", "pai", "m3id"])
def test_a_prompt_without_a_picture_is_refused_at_once(model, spec):
    with pytest.raises(MethodError, match=f"{spec} needs a picture or a sound in the prompt"):
        next(decode(model, Prompt(np.arange(8), spans=()), f"{spec}:words=unprompted"))
    assert (
        len(list(decode(model, Prompt(np.arange(8), spans=[Span("image", 1, 3)]), f"{spec}:words=unprompted", 2))) == 2
    )
