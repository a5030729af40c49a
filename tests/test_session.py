"""Sessions that branch off, go back and are observed, with every method and composition."""

import mlx.core as mx
import numpy as np
import pytest
from helpers import distance, small_model, small_prompt

from lime_mlx import load
from lime_mlx.decoding import start
from lime_mlx.methods import parse_method
from lime_mlx.prompt import Noun
from lime_mlx.scenes import PROMPTS, SOUND_PROMPTS, make_scene, make_sound
from lime_mlx.session import Session

SPECS = [
    "none",
    "lime:steps=3,lr=0.05,words=all",
    "lime:mode=exact,steps=2,lr=0.05",
    "kvsmooth:window=3,ref=0.5",
    "dleaf",
    "heads",
    "m3id:decay=0.3",
    "pai",
    "kvsmooth:window=3,ref=0.5+m3id:decay=0.3+lime:lr=0.05,words=all",
]
TOKENS = (5, 9, 60, 33, 2, 17)


@pytest.fixture(scope="module")
def model():
    return small_model()


def decoded(session, method, tokens) -> np.ndarray:
    """The logits (n + 1, V) before each of the tokens and after the last one; they are appended one by one."""
    rows = [np.array(method.step(session).logits)]
    for token in tokens:
        session.append(token)
        rows.append(np.array(method.step(session).logits))
    return np.stack(rows)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("back", [0, 1, 4])
def test_a_session_goes_back_as_if_nothing_had_been_generated(model, spec, back):
    method = parse_method(spec).prepare(model)
    session, fresh = (start(model, small_prompt()) for _ in range(2))
    decoded(session, method, TOKENS)
    session.rewind(back)
    kept = TOKENS[: len(TOKENS) - back]
    assert session.generated == list(kept) and session.embeds.shape[1] == len(session.tokens)
    wanted = decoded(fresh, method, [*kept, 8, 4])[len(kept) :]
    np.testing.assert_allclose(decoded(session, method, (8, 4)), wanted, atol=2e-5)
    assert session.cache.offset == fresh.cache.offset


@pytest.mark.parametrize("spec", SPECS)
def test_a_fork_and_its_origin_go_their_own_ways(model, spec):
    method = parse_method(spec).prepare(model)
    session = start(model, small_prompt())
    decoded(session, method, TOKENS[:3])
    fork = session.fork()
    for one, tokens in ((fork, (40, 41)), (session, (8, 4))):
        fresh = start(model, small_prompt())
        wanted = decoded(fresh, method, [*TOKENS[:3], *tokens])[4:]
        for token, logits in zip(tokens, wanted, strict=True):
            one.append(token)
            assert distance(np.array(method.step(one).logits), logits) < 2e-5
    assert fork.generated == [*TOKENS[:3], 40, 41] and session.generated == [*TOKENS[:3], 8, 4]


def test_a_fork_keeps_the_blends_that_hold_now(model):
    session = start(model, small_prompt())
    logits = decoded(session, parse_method("none").prepare(model), TOKENS[:2])[-1]
    with session.blending(lambda logits: -logits):
        fork = session.fork()
    assert distance(fork.scores(mx.array(logits)), -logits) == 0
    assert distance(session.scores(mx.array(logits)), logits) == 0


@pytest.mark.parametrize("relevance", [True, False])
def test_another_token_is_taken_after_going_back(model, relevance):
    """`extend` and `relevance` run what the cache lacks, whatever was called before them."""
    fresh, session = (start(model, small_prompt(), reliance=relevance) for _ in range(2))
    read = (lambda one: one.relevance().logits) if relevance else (lambda one: one.extend())
    fresh.append(5)
    fresh.append(9)
    wanted = np.array(read(fresh))
    assert distance(read(fresh), wanted) < 1e-5
    session.prefill()
    mx.eval(session.extend())
    session.append(5)
    mx.eval(session.extend())
    session.append(60)
    mx.eval(session.extend())
    session.rewind(1)
    session.append(9)
    assert distance(read(session), wanted) < 1e-5


@pytest.mark.parametrize("token", [-1, 1_000_000, "x", 3.7])
def test_only_a_token_of_the_vocabulary_is_appended(model, token):
    session = start(model, small_prompt())
    with pytest.raises((ValueError, TypeError)):
        session.append(token)
    assert session.generated == []


def test_more_than_was_generated_cannot_be_taken_back(model):
    session = start(model, small_prompt())
    with pytest.raises(ValueError, match="1 tokens cannot be taken back, 0 were generated"):
        session.rewind(1)


@pytest.mark.parametrize("relevance", [True, False])
def test_hidden_states_of_layers_are_observed(model, relevance):
    """Each layer's state goes into the next; the last one, normed, gives the logits."""
    session = start(model, small_prompt(), reliance=relevance)
    states: dict[int, mx.array] = {}
    session.hidden_observers = {index: lambda h, index=index: states.__setitem__(index, h) for index in range(3)}
    logits = parse_method("none").prepare(model).step(session).logits
    decoder = model.language_model
    assert sorted(states) == [0, 1, 2] and all(state.shape == (1, 1, 64) for state in states.values())
    assert distance(decoder.head(decoder.model.norm(states[2][0, -1])), logits) < 1e-5
    whole = decoder.block(2, _states(model, session, 2), _nothing())
    assert distance(whole[0, -1], states[2][0, -1]) < 1e-4


def _nothing():
    from lime_mlx.cache import Overlay

    return Overlay()


def _states(model, session, count):
    h = session.embeds
    for index in range(count):
        h = model.language_model.block(index, h, _nothing())
    return h


def test_attention_observers_stand_beside_each_other(model):
    session, seen = start(model, small_prompt(), reliance=False), []
    session.prefill()
    session.observers = {1: lambda weights: seen.append("first")}
    with session.observing({1: lambda weights: seen.append("second"), 2: lambda weights: seen.append("other")}):
        mx.eval(session.extend())
    assert seen == ["first", "second", "other"] and list(session.observers) == [1]


@pytest.mark.parametrize("kind", ["picture", "sound"])
def test_a_question_goes_on_from_the_shared_beginning(kind):
    """What the model says to a question is the same from the cache of the prompt as from nothing."""
    model, processor = load("demo" if kind == "picture" else "demo-sound")
    if kind == "picture":
        prompt = processor.prompt(PROMPTS[0], images=[make_scene(240_003, "ordinary").image])
    else:
        scene = make_sound(240_003, "ordinary")
        from lime_mlx.media.audio import Sound

        prompt = processor.prompt(SOUND_PROMPTS[0], audio=[Sound(scene.samples, scene.rate)])
    session = Session.open(model, prompt)
    session.prefill()
    before = [np.array(x) for pair in session.cache.entries() for x in pair]
    for noun in ("dog", "bell"):
        question, shared, _ = prompt.language.question(Noun(noun, noun != "rain"))
        assert 0 < shared < min(len(prompt), len(question))
        branch = session.branch(question, shared)
        assert branch.cache.offset == shared
        branch.prefill()
        alone = Session.open(model, question)
        alone.prefill()
        assert distance(branch.extend(), alone.extend()) < 1e-5
    after = [np.array(x) for pair in session.cache.entries() for x in pair]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


def test_a_prompt_of_a_processor_brings_its_content_tokens():
    """So that `decode` leaves the other tokens alone without being told."""
    from lime_mlx import decode

    model, processor = load("demo")
    prompt = processor.prompt(PROMPTS[0], images=[make_scene(240_003, "ordinary").image])
    stop = frozenset(processor.eos_token_ids)
    steps = list(decode(model, prompt, "lime:words=content", 24, trace=True, stop=stop))
    undisturbed = [step.trace["ref_logits"].argmax() for step in steps if step.optimised]
    assert undisturbed and all(processor.content[token] for token in undisturbed)
    assert any(not step.optimised for step in steps)
    assert all(bool(step.trace) == step.optimised for step in steps)
