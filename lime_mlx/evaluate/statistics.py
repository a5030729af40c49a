"""Whether a difference between two runs on the same questions is more than chance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from math import ceil, comb, nan, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
SAMPLES = 2000
SWAPS, ALL_WAYS = 20_000, 12


class PairedDifference(NamedTuple):
    """The second ratio less the first, its 95 % bootstrap interval, and a two-sided p; nan where there is no data."""

    difference: float
    low: float
    high: float
    p: float


def mean_ratio(top: Floats, bottom: Floats) -> Floats:
    """top / bottom; for several in the last axis, where there is one, the harmonic mean of the k ratios.

    top, bottom (..., k), or single numbers. A ratio of 0 makes the mean 0.
    """
    ratios = np.asarray(top, dtype=np.float64) / np.asarray(bottom, dtype=np.float64)
    if ratios.ndim == 0:
        return ratios
    with np.errstate(divide="ignore"):
        mean: Floats = ratios.shape[-1] / (1 / ratios).sum(axis=-1)
    return ratios[..., 0] if ratios.shape[-1] == 1 else mean


def interval(
    numerators: ArrayLike, denominators: ArrayLike, pictures: Sequence[Hashable], seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of sum(numerators) / sum(denominators), which draws whole pictures.

    numerators, denominators (n,), or (n, k) for `mean_ratio` of k ratios; pictures (n,): the picture of each entry. nan
    where nothing was counted.
    """
    top, bottom = _by_picture(numerators, pictures), _by_picture(denominators, pictures)
    if not bottom.any(axis=0).all() or not len(bottom):
        return nan, nan
    above, below = (_drawn(len(top), SAMPLES, seed) @ column for column in (top, bottom))
    defined = (below > 0).all(axis=-1)
    if not defined.any():
        return nan, nan
    low, high = np.percentile(mean_ratio(above[defined], below[defined]), (2.5, 97.5))
    return float(low), float(high)


@lru_cache(maxsize=8)
def _drawn(count: int, samples: int, seed: int) -> Floats:
    """How often each of `count` pictures is drawn, (samples, count), `count` of them with replacement each time."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples).astype(np.float64)


def _by_picture(values: ArrayLike, pictures: Sequence[Hashable]) -> Floats:
    """The sums of the values of each picture, (pictures, k), in the order in which the pictures come."""
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[:, None] if numbers.ndim == 1 else numbers
    if len(numbers) != len(pictures):
        raise ValueError(f"{len(numbers)} values for {len(pictures)} pictures")
    index: dict[Hashable, int] = {}
    rows = [index.setdefault(picture, len(index)) for picture in pictures]
    if not rows:
        return np.zeros(numbers.shape)
    sums = [np.bincount(rows, weights=column, minlength=len(index)) for column in numbers.T]
    return np.stack(sums, axis=1).astype(np.float64)


def mcnemar(first: Sequence[bool] | NDArray[np.bool_], second: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Exact two-sided p of McNemar's test on right/wrong answers to the same n questions."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} answers against {len(second)}")
    gained = sum(1 for a, b in zip(first, second, strict=True) if b and not a)
    lost = sum(1 for a, b in zip(first, second, strict=True) if a and not b)
    n, least = gained + lost, min(gained, lost)
    return min(1.0, float(2 * sum(comb(n, k) for k in range(least + 1)) / 2**n))


def paired_bootstrap(
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    pictures: Sequence[Hashable] | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """The difference second - first of two ratios (numerators, denominators) on the same pictures.

    p is that of `randomisation_p`: resampling shows how far the difference may lie, but not what chance alone gives.
    """
    columns = [np.asarray(column, dtype=np.float64) for column in (*first, *second)]
    names = range(len(columns[0])) if pictures is None else pictures
    data = np.stack([_by_picture(column, names) for column in columns])
    if not data.shape[1] or not data[[1, 3]].sum(axis=1).all():
        return PairedDifference(nan, nan, nan, nan)
    a, n, b, m = _drawn(data.shape[1], samples, seed) @ data
    defined = ((n > 0) & (m > 0)).all(axis=-1)
    differences = mean_ratio(b[defined], m[defined]) - mean_ratio(a[defined], n[defined])
    low, high = np.percentile(differences, (2.5, 97.5))
    a, n, b, m = data.sum(axis=1)
    seen = float(mean_ratio(b, m) - mean_ratio(a, n))
    return PairedDifference(seen, float(low), float(high), randomisation_p(data, seed))


def randomisation_p(data: Floats, seed: int = 0) -> float:
    """Two-sided p of a difference b/m - a/n (Fisher's randomisation test).

    data (4, n), or (4, n, k) for `mean_ratio` of k ratios: a, n, b, m of each picture.

    It is how often the difference is as large as the one seen when a coin decides for each picture which result belongs
    to which run: of all ways where few pictures differ, else of `SWAPS` random ones.
    """
    data = data[..., None] if data.ndim == 2 else data
    total = data.sum(axis=1)
    change = (data[2:] - data[:2])[:, (data[2:] != data[:2]).any(axis=(0, 2))]
    count = change.shape[1]
    if count <= ALL_WAYS:
        coins = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    else:
        coins = np.random.default_rng(seed).integers(2, size=(SWAPS, count), dtype=np.int8)
    moved = coins.astype(np.float32) @ change.astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = total[:2, None] + moved, total[2:, None] - moved
        differences = np.abs(mean_ratio(second[0], second[1]) - mean_ratio(first[0], first[1]))
        seen = abs(mean_ratio(total[2], total[3]) - mean_ratio(total[0], total[1]))
    extreme = int((~(differences < seen - 1e-6)).sum())  # nan counts against a difference
    return extreme / len(coins) if count <= ALL_WAYS else (extreme + 1) / (len(coins) + 1)


def questions_needed(gained: int, lost: int, n: int, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """How many questions would show the difference that was seen (McNemar; Connor, 1987); None where there was none.

    gained, lost: of n questions, those that only the second run and only the first run answered rightly. power: the
    probability that the test shows it. alpha: the level of the test.
    """
    if min(gained, lost) < 0 or gained + lost > n:
        raise ValueError(f"{gained} gained and {lost} lost of {n} questions")
    if gained == lost:
        return None
    changed, shift = (gained + lost) / n, abs(gained - lost) / n
    size, strength = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    return ceil((size * sqrt(changed) + strength * sqrt(max(changed - shift**2, 0))) ** 2 / shift**2)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected p of several comparisons, in their order."""
    corrected, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, p[index] * (len(p) - rank)))
        corrected[index] = highest
    return corrected
