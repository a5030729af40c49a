"""Plain decoding one token ahead gives what the loop gives that looks at each token, and leaves the session alike."""

import mlx.core as mx
import numpy as np
import pytest
from helpers import distance, small_model, small_prompt

from lime_mlx.decoding import start, steps
from lime_mlx.errors import NumericalError
from lime_mlx.methods import Plain
from lime_mlx.sampling import Sampling


def decoded(model, look: bool, count: int = 8, temperature: float = 0.0, stop=frozenset()):
    session = start(model, small_prompt(), reliance=look)
    sampler = Sampling(temperature, seed=3).sampler(64)
    return session, list(steps(session, Plain(), count, sampler, frozenset(stop)))


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_the_tokens_are_those_of_the_loop_that_looks(temperature, dtype):
    model = small_model(dtype=dtype)
    (ahead, ours), (behind, wanted) = (decoded(model, look, 8, temperature) for look in (False, True))
    assert [step.token for step in ours] == [step.token for step in wanted]
    for a, b in zip(ours, wanted, strict=True):
        assert a.logits.dtype == np.float32 and a.logits.shape == (64,)
        np.testing.assert_array_equal(a.logits, b.logits)
    assert (
        ahead.tokens == behind.tokens
        and distance(ahead.embeds.astype(mx.float32), behind.embeds.astype(mx.float32)) == 0
    )
    assert all(step.shares is None for step in ours)


def test_a_session_goes_on_after_a_stop():
    model = small_model()
    third = decoded(model, True)[1][2].token
    (ahead, ours), (behind, wanted) = (decoded(model, look, 8, stop={third}) for look in (False, True))
    assert [step.token for step in ours] == [step.token for step in wanted]
    assert ahead.generated == behind.generated
    for session in (ahead, behind):
        session.append(7)
        session.append(9)
    assert distance(ahead.extend(), behind.extend()) < 1e-5


def test_weights_that_are_not_finite_end_at_their_token():
    """The embedding of the second token: the third token's logits are the first that see it."""
    model = small_model()
    second = decoded(model, True)[1][1].token
    table = model.language_model.model.embed_tokens
    table.weight = mx.where(mx.arange(64)[:, None] == second, mx.nan, table.weight)
    session, seen = start(model, small_prompt(), reliance=False), []
    if second in session.tokens:
        pytest.skip("the prompt holds the token")
    with pytest.raises(NumericalError, match="generated token 3"):
        seen.extend(step.token for step in steps(session, Plain(), 8))
    assert session.generated[1:] == [second]
