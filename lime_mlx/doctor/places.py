"""Where on the picture the features change when a dot appears: the orientation, by features."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from . import pictures
from .findings import Answers, Finding, explained
from .luck import by_lot
from .subjects import PLACE

# Two pictures to how much the features differ (N,), and where these lie: x and y from 0 to 1 (N, 2).
Change = Callable[[object, object], tuple[NDArray[np.float64], NDArray[np.float64]]]


def orientation(change: Change) -> Finding:
    """Whether a dot at a side changes the features of that side most."""
    truths = by_lot(random.Random(0), PLACE.options, 8)
    readings = [
        _side(*change(_dot(truth, number), pictures.solid(pictures.WHITE))) for number, truth in enumerate(truths)
    ]
    answers = Answers(PLACE.options, truths, readings)
    lacks = "to change features where the picture changes"
    return explained("orientation", answers, PLACE.faults, lacks, noun="changes of the features")


def _dot(side: str, number: int) -> object:
    """A dot at a side, in another colour each time."""
    return pictures.place(side, ink=pictures.RGB[("black", "red", "blue", "green")[number % 4]])


def _side(sizes: NDArray[np.float64], points: NDArray[np.float64]) -> str | None:
    """The side of the features that change most; None without a grid, or where nothing changes."""
    if not len(sizes) or not sizes.max() > 0:
        return None
    weights = np.where(sizes >= 0.5 * sizes.max(), sizes, 0)
    x, y = weights @ points / weights.sum() - 0.5
    if abs(x) > abs(y):
        return "left" if x < 0 else "right"
    return "top" if y < 0 else "bottom"
