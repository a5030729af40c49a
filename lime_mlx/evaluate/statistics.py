"""Whether a difference between two runs on the same questions is more than chance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from math import ceil, comb, nan, sqrt
from statistics import NormalDist

import numpy as np

SAMPLES = 2000
SWAPS, ALL_WAYS = 20_000, 12


def interval(
    numerators: Sequence[float], denominators: Sequence[float], pictures: Sequence[Hashable], seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of sum(numerators) / sum(denominators), drawing whole pictures (n entries each)."""
    top, bottom = _by_picture(numerators, pictures), _by_picture(denominators, pictures)
    if not bottom.any():
        return nan, nan
    above, below = (_drawn(len(top), SAMPLES, seed) @ column for column in (top, bottom))
    low, high = np.percentile(above[below > 0] / below[below > 0], (2.5, 97.5))
    return float(low), float(high)


@lru_cache(maxsize=8)
def _drawn(count: int, samples: int, seed: int) -> np.ndarray:
    """How often each of `count` pictures is drawn, (samples, count), `count` of them with replacement each time."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples).astype(np.float64)


def _by_picture(values: Sequence[float], pictures: Sequence[Hashable]) -> np.ndarray:
    if len(values) != len(pictures):
        raise ValueError(f"{len(values)} values for {len(pictures)} pictures")
    places: dict[Hashable, int] = {}
    rows = [places.setdefault(picture, len(places)) for picture in pictures]
    return np.bincount(rows, weights=np.asarray(values, float), minlength=len(places)) if rows else np.zeros(0)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Exact two-sided p of McNemar's test on right/wrong answers to the same n questions."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} answers against {len(second)}")
    gained = sum(1 for a, b in zip(first, second, strict=True) if b and not a)
    lost = sum(1 for a, b in zip(first, second, strict=True) if a and not b)
    n, least = gained + lost, min(gained, lost)
    return min(1.0, 2 * sum(comb(n, k) for k in range(least + 1)) / 2**n)


def paired_bootstrap(
    first: tuple[Sequence[float], Sequence[float]],
    second: tuple[Sequence[float], Sequence[float]],
    pictures: Sequence[Hashable] | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict:
    """The difference second - first of two ratios (numerators, denominators) on the same pictures.

    Returns difference, low and high (95 % bootstrap interval) and p, two-sided, of `swapped`: resampling tells how far
    the difference may lie, but not what chance alone would give. nan where there is no data.
    """
    columns = [*first, *second]
    names = range(len(columns[0])) if pictures is None else pictures
    data = np.stack([_by_picture(column, names) for column in columns])
    if not data.shape[1] or not data[1].sum() or not data[3].sum():
        return {"difference": nan, "low": nan, "high": nan, "p": nan}
    a, n, b, m = data @ _drawn(data.shape[1], samples, seed).T
    known = (n > 0) & (m > 0)
    low, high = np.percentile(b[known] / m[known] - a[known] / n[known], (2.5, 97.5))
    a, n, b, m = data.sum(axis=1)
    return {"difference": float(b / m - a / n), "low": float(low), "high": float(high), "p": swapped(data, seed)}


def swapped(data: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of a difference b/m - a/n, data (4, n) of a, n, b, m by picture (Fisher's randomisation test).

    How often it is as large as seen when a coin decides for each picture which outcome is whose: of all ways where few
    pictures differ, else of SWAPS.
    """
    total = data.sum(axis=1)
    change = (data[2:] - data[:2])[:, (data[2:] != data[:2]).any(axis=0)]
    count = change.shape[1]
    if count <= ALL_WAYS:
        coins = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    else:
        coins = np.random.default_rng(seed).integers(2, size=(SWAPS, count), dtype=np.int8)
    moved = coins.astype(np.float32) @ change.T.astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (total[:2] + moved).T, (total[2:] - moved).T
        found = np.abs(second[0] / second[1] - first[0] / first[1])
    seen = abs(total[2] / total[3] - total[0] / total[1])
    extreme = int((~(found < seen - 1e-6)).sum())  # what cannot be computed counts against a difference
    return extreme / len(coins) if count <= ALL_WAYS else (extreme + 1) / (len(coins) + 1)


def questions_needed(gained: int, lost: int, n: int, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """How many questions show the difference seen (McNemar; Connor, 1987); None where no difference was seen.

    `gained` and `lost` are the questions of n that only the second and only the first run answered rightly.
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
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, p[place] * (len(p) - rank)))
        corrected[place] = highest
    return corrected
