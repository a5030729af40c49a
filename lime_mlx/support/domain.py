"""Is a picture or a sound like those that a detector was calibrated on? A test on the features that the decoder gets.

Features of an input are the mean and the deviation, over its positions, of a few fixed directions of its projected
features: no further forward is needed. The distance to the calibration's inputs is that of Mahalanobis, with the
covariance shrunk to its diagonal, as in Lee et al. 2018, arXiv 1807.03888 (there by class). The threshold is that of
split conformal prediction (Vovk et al. 2005, chapter 4) on distances of held-out inputs: an input like those of the
calibration is outside with a probability of about `ALARMS`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray

from lime_mlx.errors import CheckpointError

Floats = NDArray[np.float64]
DIRECTIONS = 24
SHRINKAGE = 0.1
FOLDS = 5
ALARMS = 0.01
# So many inputs are needed: of fewer, no distance has only `ALARMS` of them above it.
LEAST = ceil(1 / ALARMS)
# Significant digits of what is stored.
DIGITS = 5


@dataclass(frozen=True, eq=False)
class Domain:
    """The inputs that a detector was calibrated on: where their features (F,) lie.

    inputs: what they are, such as "drawn scenes". mean (F,); scales (F,): the deviations; whitening (F, F), lower
    triangular: of features that are centred and divided by `scales` it makes uncorrelated ones of variance 1.
    threshold: inputs whose distance is at most that are inside.
    """

    inputs: str
    mean: Floats
    scales: Floats
    whitening: Floats
    threshold: float

    @classmethod
    def fit(cls, features: NDArray[np.floating], inputs: str) -> Domain:
        """From the features (N, F) of N inputs. Raises `ValueError` for fewer than `LEAST` inputs."""
        rows = np.asarray(features, dtype=np.float64)
        if len(rows) < LEAST:
            raise ValueError(f"a domain needs {LEAST} inputs, got {len(rows)}")
        fold = np.arange(len(rows)) % FOLDS
        distances = np.empty(len(rows))
        for held_out in range(FOLDS):
            others = cls(inputs, *_gaussian(rows[fold != held_out]), np.inf)
            distances[fold == held_out] = [others.distance(row) for row in rows[fold == held_out]]
        rank = min(len(rows), ceil((len(rows) + 1) * (1 - ALARMS)))
        return cls(inputs, *_gaussian(rows), float(np.sort(distances)[rank - 1]))

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Domain | None:
        """That of a checkpoint's detector, "lime": {"domain": {...}} in config.json; None without.

        Raises `CheckpointError` when it is not one.
        """
        stored = config.get("lime")
        values = stored.get("domain") if isinstance(stored, Mapping) else None
        return None if values is None else _parsed(json.dumps(values), "config.json")

    @classmethod
    def parse(cls, values: object, where: str) -> Domain:
        """From what `to_dict` gives. Raises `CheckpointError`, which says where."""
        try:
            if not isinstance(values, Mapping) or not isinstance(values["inputs"], str):
                raise TypeError("not an object with inputs")
            mean, scales, rows = (_numbers(values[name]) for name in ("mean", "scales", "whitening"))
            (threshold,) = _numbers([values["threshold"]])
            size = len(mean)
            if not size or len(scales) != size or len(rows) != size * (size + 1) // 2:
                raise ValueError("sizes do not fit")
            if threshold <= 0 or (scales <= 0).any():
                raise ValueError("not positive")
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            raise CheckpointError(
                f'The "domain" in {where} cannot be used: it needs inputs, mean, scales, whitening and a threshold.'
            ) from error
        whitening = np.zeros((size, size))
        whitening[np.tril_indices(size)] = rows
        return cls(values["inputs"], mean, scales, whitening, float(threshold))

    def to_dict(self) -> dict[str, object]:
        """JSON values; of the whitening, the lower triangle row by row."""
        lower = self.whitening[np.tril_indices(len(self.mean))]
        arrays = {"mean": self.mean, "scales": self.scales, "whitening": lower}
        rounded = {name: [_rounded(value) for value in array] for name, array in arrays.items()}
        return {"inputs": self.inputs, "threshold": _rounded(self.threshold), **rounded}

    def distance(self, features: NDArray[np.floating]) -> float:
        """The Mahalanobis distance of an input's features (F,) from the calibration's, divided by the root of F.

        Infinite for features that are not finite, and for those of a model with another number of them.
        """
        if features.shape != self.mean.shape or not np.isfinite(features).all():
            return float("inf")
        with np.errstate(over="ignore", invalid="ignore"):  # then it is infinite or no number, and so not inside
            white = self.whitening @ ((features - self.mean) / self.scales)
            return float(np.sqrt(np.mean(white**2)))

    def inside(self, features: NDArray[np.floating]) -> bool:
        """Whether an input is like those of the calibration."""
        return self.distance(features) <= self.threshold

    def note(self, noun: str) -> str:
        """What the reader of an answer about a picture or sound that is outside should know."""
        return (
            f"Note: this model is not calibrated for such input: the {noun} is unlike the {self.inputs} of its "
            "calibration, so its words cannot be judged."
        )


def features(embeds: NDArray[np.floating]) -> Floats:
    """The features (F,) of one picture or sound, from its positions' projected features (P, D) in the decoder."""
    directed = np.asarray(embeds, dtype=np.float64) @ _directions(embeds.shape[1])
    return np.concatenate([directed.mean(axis=0), directed.std(axis=0)])


@lru_cache(maxsize=4)
def _directions(size: int) -> Floats:
    """Fixed directions (size, DIRECTIONS) of signs. The raw numbers of the generator are the same in all versions."""
    drawn = np.random.PCG64(0).random_raw(size * DIRECTIONS)
    signs = 1.0 - 2.0 * (drawn >> np.uint64(63)).astype(np.float64)
    directions: Floats = signs.reshape(size, DIRECTIONS) / np.sqrt(size)
    return directions


def _gaussian(rows: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, scales and whitening of rows (N, F); a feature that never changes has a small scale of its own size."""
    mean, scales = rows.mean(axis=0), rows.std(axis=0)
    scales = np.maximum(scales, 1e-6 * np.maximum(np.abs(mean), 1))
    standard = (rows - mean) / scales
    covariance = (1 - SHRINKAGE) * standard.T @ standard / len(rows) + SHRINKAGE * np.eye(rows.shape[1])
    return mean, scales, np.linalg.inv(np.linalg.cholesky(covariance))


@lru_cache(maxsize=4)
def _parsed(text: str, where: str) -> Domain:
    return Domain.parse(json.loads(text), where)


def _numbers(values: object) -> Floats:
    """Finite numbers of a JSON list. Raises `TypeError` or `ValueError`."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError("not a list")
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise TypeError("not numbers")
    numbers = np.array([float(value) for value in values], dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("not finite")
    return numbers


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
