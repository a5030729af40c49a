"""Is a map true? Cover the cells that it calls relevant, and see whether the word falls.

Deletion covers cells one after another; insertion begins with all covered and shows them one after another (Petsiuk et
al. 2018, arXiv 1806.07421). Both show the same pictures: to insert the most relevant cells first is to delete the least
relevant first, read from its end. So the area under the insertion curve is the area under the deletion curve of the
least relevant first, and their difference is the area between the two curves of AttnLRP (arXiv 2402.05602).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The shares of the cells that are covered at the points of a curve. They lie close at both ends, where a map that knows
# its object matters most, and alike from both ends, so that deletion read backwards is insertion.
SHARES = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 7 / 8, 15 / 16, 1.0)
# Random orders to compare with. A map as good as chance beats all of them one time in 20.
ORDERS = 19
# The least by which the input must raise the probability of a word: what it does not raise, no map can explain.
LEAST_RISE = 0.1

Outcome = Literal["held", "failed", "unclear"]
Floats = NDArray[np.float64]


def order(relevance: ArrayLike, seed: int = 0) -> NDArray[np.intp]:
    """The cells (n,) of a map, the most relevant first. Cells that are alike come in random order."""
    values = np.asarray(relevance, dtype=np.float64).ravel()
    return np.lexsort((np.random.default_rng(seed).random(values.size), -values))


def random_orders(cells: int, count: int = ORDERS, seed: int = 0) -> list[NDArray[np.intp]]:
    """Orders of `cells` cells that know nothing."""
    generator = np.random.default_rng(seed)
    return [generator.permutation(cells) for _ in range(count)]


def masks(cells: NDArray[np.intp], shares: Sequence[float] = SHARES) -> NDArray[np.bool_]:
    """(points, n) bool: which cells are covered at each point of the curve that covers them in this order."""
    covered = np.zeros((len(shares), len(cells)), dtype=bool)
    for row, share in zip(covered, shares, strict=True):
        row[cells[: round(share * len(cells))]] = True
    return covered


def area(curve: ArrayLike, shares: Sequence[float] = SHARES) -> float:
    """The area under a curve (points,), by trapezoids. The shares are from 0 to 1, so it is a mean of the curve."""
    values, widths = np.asarray(curve, dtype=np.float64), np.diff(shares)
    return float((widths * (values[1:] + values[:-1]) / 2).sum())


@dataclass(frozen=True, eq=False)
class MapCheck:
    """How the probability of a word changed while the cells of its map were covered.

    word: its name. kind: of the map, see `lime_mlx.probes.kinds`. medium, number: "image" or "audio", and which one,
    from 0. cells: rows and columns. most, least (points,): the probability with the most, or the least, relevant cells
    covered first. random (orders, points): with cells covered in random orders. shares (points,): of
    covered cells. index: which word of the answer.
    """

    word: str
    kind: str
    medium: str
    number: int
    cells: tuple[int, int]
    most: Floats
    least: Floats
    random: Floats
    shares: Sequence[float] = SHARES
    index: int = 0

    @property
    def deletion(self) -> float:
        """The area under the curve that covers the most relevant cells first. Low is good."""
        return area(self.most, self.shares)

    @property
    def insertion(self) -> float:
        """The area under the curve that shows the most relevant cells first. High is good."""
        return area(self.least, self.shares)

    @property
    def chance(self) -> Floats:
        """The areas under the curves of the random orders, (orders,)."""
        return np.array([area(curve, self.shares) for curve in self.random])

    @property
    def faithfulness(self) -> float:
        """Insertion less deletion, -1 to 1. Random orders have 0 in the mean, and a reversed map changes the sign."""
        return self.insertion - self.deletion

    @property
    def rise(self) -> float:
        """By how much the whole input raises the probability of the word."""
        return float(self.most[0] - self.most[-1])

    @property
    def outcome(self) -> Outcome:
        """held: deletion is below, and insertion above, those of all random orders. unclear: the rise is too small."""
        if self.rise < LEAST_RISE:
            return "unclear"
        chance = self.chance
        return "held" if self.deletion < chance.min() and self.insertion > chance.max() else "failed"

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        noun = {"image": "picture", "audio": "sound"}[self.medium]
        before, after = (f"{100 * p:.0f} %" for p in (self.most[0], self.most[-1]))
        if self.outcome == "unclear":
            return (
                f"Cannot tell for “{self.word}”: its probability is {before} with the {noun} and {after} "
                f"with all of it covered, so the {noun} does not decide this word."
            )
        areas = (
            f"with its brightest cells covered first, the mean probability of the word is {self.deletion:.2f} "
            f"against {self.chance.mean():.2f} in random order, and with its darkest first it is {self.insertion:.2f}"
        )
        if self.outcome == "held":
            return f"The map of “{self.word}” held: {areas}."
        backwards = self.deletion > self.chance.max() and self.insertion < self.chance.min()
        why = "it points away from what decides the word" if backwards else "some random order does as well"
        return f"The map of “{self.word}” did not hold, {why}: {areas}."

    def to_dict(self) -> dict[str, object]:
        """JSON values. Curves are probabilities at the shares of covered cells; insertion reads them from the end."""
        chance = self.chance
        return {
            "word": self.word,
            "map": self.kind,
            "medium": self.medium,
            "number": self.number,
            "cells": list(self.cells),
            "outcome": self.outcome,
            "sentence": self.sentence,
            "faithfulness": round(self.faithfulness, 4),
            "deletion": {
                "most": round(self.deletion, 4),
                "least": round(self.insertion, 4),
                "random": round(float(chance.mean()), 4),
                "random_range": [round(float(chance.min()), 4), round(float(chance.max()), 4)],
            },
            "insertion": {
                "most": round(self.insertion, 4),
                "least": round(self.deletion, 4),
                "random": round(float(chance.mean()), 4),
            },
            "curves": {
                "covered": [round(share, 4) for share in self.shares],
                "most": _rounded(self.most),
                "least": _rounded(self.least),
                "random": _rounded(self.random.mean(axis=0)),
            },
        }


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 4) for value in values]
