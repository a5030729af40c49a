"""Which thresholds keep a risk, with a stated probability, however losses are distributed.

The risk at a threshold is the mean loss of an answer, R = E[L], with L in [0, 1]. For each threshold there is a p value
of "R is above the wanted risk" (learn then test, Angelopoulos et al. 2021, arXiv 2110.01052). Thresholds are tested
in an order that does not depend on these losses, and the first that fails ends the tests: the probability that any
threshold that passed has R above the risk is at most 1 - confidence, however many there are.
"""

from math import ceil, e, exp, inf, lgamma, log, log1p

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
# The most pictures that `pictures_needed` names.
MOST = 1_000_000


def p_value(losses: ArrayLike, risk: float, confidence: float) -> Floats:
    """The p values (...) of "the mean loss is above `risk`", from losses (..., n) in [0, 1] of n answers.

    By betting (Waudby-Smith and Ramdas 2020, arXiv 2010.09686, section 3): a capital of 1 is multiplied for each answer
    by 1 - b (L - risk). The bet b, 0 to 1, rests on the answers before alone:
    b_i = min(1, sqrt(2 log(1 / (1 - confidence)) / (n v))), v the variance of the losses before i, which begin with one
    of 1/2 whose variance is 1/4. Where the mean is above the risk, the expected factor is at most 1, and so the capital
    ever reaches 1 / p with a probability of at most p (Ville's inequality). The answers come in a fixed random order,
    for those of a data set may lie in a meaningful one.
    """
    loss = np.asarray(losses, dtype=np.float64)
    count = loss.shape[-1]
    loss = loss[..., np.random.default_rng(0).permutation(count)]
    counted = np.arange(2, count + 2)
    mean = (0.5 + loss.cumsum(axis=-1)) / counted
    variance = (0.25 + ((loss - mean) ** 2).cumsum(axis=-1)) / counted
    before = np.concatenate([np.full((*loss.shape[:-1], 1), 0.25), variance[..., :-1]], axis=-1)[..., :count]
    bet = np.minimum(1, np.sqrt(-2 * log1p(-confidence) / (max(count, 1) * before)))
    capital = np.log1p(-bet * (loss - risk)).cumsum(axis=-1)
    return np.asarray(np.exp(-capital.max(axis=-1, initial=0)), dtype=np.float64)


def hoeffding_bentkus(losses: ArrayLike, risk: float) -> float:
    """The p value of the same by the inequalities of Hoeffding and Bentkus (arXiv 2110.01052, proposition 2).

    losses (n,). It needs the mean loss only; `benchmarks/risk_coverage.py` compares it with `p_value`.
    """
    loss = np.asarray(losses, dtype=np.float64)
    count, mean = len(loss), min(float(loss.mean()), risk)
    divergence = (mean * log(mean / risk) if mean else 0.0) + (1 - mean) * log((1 - mean) / (1 - risk))
    at_most = ceil(count * float(loss.mean()) - 1e-9)
    tail = sum(
        exp(lgamma(count + 1) - lgamma(k + 1) - lgamma(count - k + 1) + k * log(risk) + (count - k) * log1p(-risk))
        for k in range(at_most + 1)
    )
    return min(1.0, exp(-count * divergence), e * tail)


def passed(losses: Floats, risk: float, confidence: float) -> int:
    """How many thresholds pass, from the first on; losses (t, n) in the order of the tests."""
    failed = np.flatnonzero(p_value(losses, risk, confidence) > 1 - confidence)
    return int(failed[0]) if len(failed) else len(losses)


def upper_bound(losses: Floats, confidence: float, digits: int = 20) -> Floats:
    """The smallest risk (t,) that each row of losses (t, n) would pass by itself, to within 2**-digits; 1 at most."""
    low, high = np.zeros(len(losses)), np.ones(len(losses))
    for _ in range(digits):
        middle = (low + high) / 2
        fails = np.array(
            [p_value(row, risk, confidence) > 1 - confidence for row, risk in zip(losses, middle, strict=True)]
        )
        low, high = np.where(fails, middle, low), np.where(fails, high, middle)
    return high


def reachable(losses: Floats, kept: Floats, confidence: float, share: float) -> float:
    """The smallest risk at which a threshold would pass whose `kept` (t,) is at least `share`; inf where none is.

    It is chosen after the losses were seen, and so it says what to ask for next time, not what is promised.
    """
    bounds = np.maximum.accumulate(upper_bound(losses, confidence))
    return float(bounds[kept >= share].min(initial=inf))


def pictures_needed(losses: Floats, risk: float, confidence: float) -> int | None:
    """About how many answers with losses such as these (n,) would pass; None where `MOST` would not.

    It repeats the losses.
    """

    def passes(count: int) -> bool:
        return bool(p_value(np.resize(losses, count), risk, confidence) <= 1 - confidence)

    if losses.mean() >= risk or not passes(MOST):
        return None
    low, high = 0, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high
