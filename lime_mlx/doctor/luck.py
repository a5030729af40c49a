"""How likely is a result by luck alone?

The truths of n trials are drawn by lot: every option as often as every other, in an order in which all orders are
equally likely. A guess that does not rest on the picture is the same in whatever order the truths came. So its chance
of at least m hits is the share of all orders in which the given answers have at least m hits, a test by permutation:

    luck = (1 + #{orders : hits(order) >= m}) / (1 + #orders)

An explanation that was chosen among h faults has h times that (Bonferroni). A model that is able to do something does
it in at least 4 of 5 cases. The chance that it has at most m hits in n trials is binomial:

    luck = sum over i <= m of C(n, i) 0.8^i 0.2^(n - i)
"""

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import comb
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

T = TypeVar("T")
# What is more likely than this by luck decides nothing.
LIMIT = 0.01
# How often a model that can do something does it, at least. Less than that is no ability.
ABLE = 0.8
ORDERS = 20_000


def by_lot(rng: random.Random, options: Sequence[T], count: int) -> list[T]:
    """So many options in a random order, each as often as each other, as far as that is possible."""
    rounds, rest = divmod(count, len(options))
    chosen = [*list(options) * rounds, *rng.sample(list(options), rest)]
    rng.shuffle(chosen)
    return chosen


@lru_cache(32)
def _orders(count: int, options: int) -> NDArray[np.int64]:
    """(ORDERS, count) int64: what `by_lot` could have drawn."""
    rng = np.random.default_rng(0)
    rounds, rest = divmod(count, options)
    extra = rng.permuted(np.tile(np.arange(options), (ORDERS, 1)), axis=1)[:, :rest]
    every = np.tile(np.repeat(np.arange(options), rounds), (ORDERS, 1))
    return rng.permuted(np.concatenate([every, extra], axis=1), axis=1)


def agreement(fits: ArrayLike, hits: int) -> float:
    """The chance of so many hits by luck. fits (trials, options) bool: whether an answer fits each possible truth."""
    table = np.asarray(fits, dtype=bool)
    orders = _orders(*table.shape)
    reached = table[np.arange(len(table)), orders].sum(axis=1) >= hits
    return float((1 + np.count_nonzero(reached)) / (1 + ORDERS))


def at_least(hits: int, trials: int, chance: float) -> float:
    """P(X >= hits) of X ~ Binomial(trials, chance)."""
    terms = (comb(trials, i) * chance**i * (1 - chance) ** (trials - i) for i in range(hits, trials + 1))
    return min(1.0, sum(terms))


def at_most(hits: int, trials: int, chance: float = ABLE) -> float:
    """P(X <= hits) of X ~ Binomial(trials, chance): how likely a model that is able has so few hits."""
    return at_least(trials - hits, trials, 1 - chance)


def pairings(items: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """All ways to put an even number of items into pairs: 105 for eight of them."""
    if not items:
        yield []
        return
    first, *rest = items
    for index, partner in enumerate(rest):
        for pairs in pairings([*rest[:index], *rest[index + 1 :]]):
            yield [(first, partner), *pairs]


def pairing(distances: NDArray[np.float64]) -> float:
    """The chance that items 0 and 1, 2 and 3, ... are as close as they are, if all items were of one kind.

    distances (2m, 2m), symmetric. It is the share of all pairings whose distances sum to no more than those of these
    pairs: an exact test by permutation.
    """
    sums = np.array([sum(distances[a, b] for a, b in pairs) for pairs in pairings(range(len(distances)))])
    given = sum(distances[i, i + 1] for i in range(0, len(distances), 2))
    return float((sums <= given).mean())


def matching(scores: NDArray[np.float64]) -> float:
    """The chance that answers fit their own truths as well as they do, if they belonged to none.

    scores (n, n): how well answer i fits truth j. The test of `agreement`, with sums of scores in place of hits.
    """
    orders = _orders(len(scores), len(scores))
    sums = scores[np.arange(len(scores)), orders].sum(axis=1)
    return float((1 + np.count_nonzero(sums >= np.trace(scores) - 1e-9)) / (1 + ORDERS))


def signs(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """The chance of a sum of differences this large or larger, if each could as well have the other sign (exact)."""
    values = np.array([difference for difference in differences if difference])
    if not len(values) or len(values) > 20:
        return 1.0
    flips = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
    return float((flips @ values >= values.sum() - 1e-9).mean())
