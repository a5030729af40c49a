import mlx.core as mx
import numpy as np
import pytest
from helpers import Joined, distance, small_model, small_prompt
from reference import Reference

from lime_mlx.cache import overlays
from lime_mlx.decoding import start
from lime_mlx.errors import MethodError, PromptError
from lime_mlx.lrp.relevance import cached, exact, exact_slope, grounding, relevance, reliance, shares
from lime_mlx.lrp.rules import rules as rules_by_name
from lime_mlx.prompt import Prompt

RULES = ["attnlrp", "cplrp", "mlplrp", "plain"]
LENGTH = 12


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def session(model):
    """The newest of twelve positions, the others cached."""
    session = start(model, small_prompt(LENGTH))
    session.prefill()
    return session


def past_of(session):
    return [tuple(np.array(x[0], dtype=np.float64) for x in pair) for pair in session.cache.entries()]


def deltas(decoder, heads, length=LENGTH, seed=3):
    rng, shape = np.random.default_rng(seed), (1, heads, length, decoder.config.dim)
    return [tuple(mx.array(0.1 * rng.standard_normal(shape).astype(np.float32)) for _ in "kv") for _ in decoder.layers]


@pytest.mark.parametrize("heads", [None, 2, 4])
def test_cached_relevance_is_what_the_logit_gains(model, session, heads):
    """Plain rules, in double precision, by scaling one position after the other."""
    moved = deltas(model.language_model, heads) if heads else None
    reading = cached(model.language_model, session.cache.entries(), session.newest, rules_by_name("plain"), moved)
    embed, past = np.array(session.newest[0, 0], dtype=np.float64), past_of(session)
    arrays = moved and [tuple(np.array(x[0], dtype=np.float64) for x in pair) for pair in moved]
    reference = Reference(model)
    assert distance(reading.logits, reference.logits(embed, past, arrays)) < 1e-5
    target = int(reading.target)
    assert target == int(mx.argmax(reading.logits))
    assert distance(reading.relevance, reference.relevance(embed, past, target, arrays)) < 1e-5


@pytest.mark.parametrize("heads", [None, 2, 4])
@pytest.mark.parametrize("rules", RULES)
def test_cached_relevance_is_entry_times_gradient(model, session, rules, heads):
    decoder, rule, position = model.language_model, rules_by_name(rules), LENGTH - 1
    moved = deltas(decoder, heads) if heads else [(None, None)] * len(decoder.layers)
    past = session.cache.entries()

    def logit(past, embed):
        memory = [Joined(pair, delta, rule) for pair, delta in zip(past, moved, strict=True)]
        return decoder.head(decoder(embed, memory, position, rule)[0, -1])[target]

    reading = cached(decoder, past, session.newest, rule, moved)
    target = int(reading.target)
    slopes, slope = mx.grad(logit, argnums=[0, 1])([list(pair) for pair in past], session.newest)
    found = sum(
        (x * g).sum((0, 1, 3))
        for pair, grads in zip(past, slopes, strict=True)
        for x, g in zip(pair, grads, strict=True)
    )
    wanted = np.append(np.array(found), (session.newest * slope).sum().item())
    assert distance(reading.relevance, wanted) < 1e-5


@pytest.mark.parametrize("rules", RULES)
def test_cached_logits_and_entries_are_those_of_the_plain_forward(model, session, rules):
    reading = session.relevance(rules=rules_by_name(rules))
    memory = overlays(session.cache.entries())
    logits = model.language_model.head(model.language_model(session.newest, memory, LENGTH - 1)[0, -1])
    assert distance(reading.logits, logits) < 2e-6
    for ours, layer in zip(reading.entries, memory, strict=True):
        for a, b in zip(ours, layer.fresh, strict=True):
            assert distance(a, b) < 2e-6
    assert session.cache.offset == LENGTH - 1


def test_a_chosen_target_is_explained(model, session):
    decoder, arguments = model.language_model, (session.cache.entries(), session.newest, rules_by_name("plain"))
    embed, past = np.array(session.newest[0, 0], dtype=np.float64), past_of(session)
    for target in (0, 17):
        reading = cached(decoder, *arguments, target=target)
        assert int(reading.target) == target
        assert distance(reading.relevance, Reference(model).relevance(embed, past, target)) < 1e-5


def test_a_penalty_decides_which_token_is_explained(model, session):
    """Its logit is explained as it was before the penalty."""
    decoder, best = model.language_model, int(cached(model.language_model, *arguments_of(session)).target)

    def process(logits):
        return mx.where(mx.arange(logits.shape[0]) == best, logits / 3, logits * 0.5)

    for read, arguments in ((cached, arguments_of(session)), (exact, (session.embeds, rules_by_name("attnlrp")))):
        penalised = read(decoder, *arguments, scoring=process)
        other = int(penalised.target)
        assert other == int(mx.argmax(process(penalised.logits)))
        plain = read(decoder, *arguments, target=other)
        assert distance(penalised.relevance, plain.relevance) < 1e-5
        assert distance(penalised.logits, plain.logits) < 1e-6


def arguments_of(session):
    return session.cache.entries(), session.newest, rules_by_name("attnlrp")


def test_one_token_alone_has_no_cache(model):
    session = start(model, Prompt([5]))
    session.prefill()
    reading = session.relevance()
    wanted = relevance(model, Prompt([5]))
    assert reading.relevance.shape == (1,)
    assert distance(reading.relevance, wanted) < 1e-5


@pytest.mark.parametrize("rules", RULES)
def test_exact_and_cached_agree_at_the_newest_position(model, session, rules):
    """No other position sees it, so its embedding is all that either reads."""
    whole = relevance(model, small_prompt(LENGTH), rules)
    assert session.relevance(rules=rules_by_name(rules)).relevance[-1].item() == pytest.approx(whole[-1], rel=1e-4)


@pytest.mark.parametrize("rules", RULES)
def test_exact_slope_is_the_weighted_relevance(model, session, rules):
    decoder, rule = model.language_model, rules_by_name(rules)
    moved = deltas(decoder, 4)
    weights = mx.array(np.random.default_rng(4).standard_normal(LENGTH).astype(np.float32))
    reading = exact(decoder, session.embeds, rule, moved)
    logits, slope = exact_slope(decoder, session.embeds, weights, rule, moved)
    assert distance(logits, reading.logits) < 2e-6
    assert slope[int(reading.target)].item() == pytest.approx((weights * reading.relevance).sum().item(), rel=1e-4)


def test_relevance_of_a_prompt(model):
    prompt = small_prompt(LENGTH)
    found = relevance(model, prompt)
    assert (found.shape, found.dtype) == ((LENGTH,), np.float32)
    best = int(mx.argmax(model.logits(prompt)[-1]))
    np.testing.assert_array_equal(found, relevance(model, prompt, target=best))
    assert distance(relevance(model, prompt, target=(best + 1) % 64), found) > 0.1
    with pytest.raises(MethodError, match="Unknown rules 'x'"):
        relevance(model, prompt, "x")
    for target in (-1, 64):
        with pytest.raises(PromptError, match=f"Target token {target} is outside the vocabulary of 64."):
            relevance(model, prompt, target=target)


def test_shares_of_the_absolute_relevance():
    found = shares(np.array([1, -2, 3, 0, -4.0]), {"image": np.array([False, True, True, False])})
    assert found == pytest.approx((0.5, 0, 0.1, 0.4))
    assert (found.image, found.audio, found.prompt, found.own) == tuple(found)
    assert found.reliance == found.image
    assert reliance(np.array([1, -2, 3, 0, -4.0]), np.array([False, True, True, False])) == pytest.approx(0.5)


def test_shares_of_nothing_are_zero():
    assert shares(np.zeros(2), {"image": np.array([True, False])}) == (0, 0, 0, 0)


def test_grounding_is_the_positive_share_inside():
    modality = np.array([False, True, True, True, False])
    inside = np.array([True, False, True])
    assert grounding(np.array([9, 2, 1, -5, 9, 9.0]), modality, inside) == pytest.approx(2 / 3)
    assert grounding(-np.ones(6), modality, inside) == 0
