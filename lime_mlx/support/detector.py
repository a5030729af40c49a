"""The calibrated detector: from the statistics of a content token to the probability that it has no support."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from lime_mlx.errors import CheckpointError
from lime_mlx.support.statistics import from_logits, from_relevance


@dataclass(frozen=True)
class Detector:
    """A logistic regression on a few statistics: the probability that a word that names something is unsupported.

    weights: of each statistic; words whose probability is at least `threshold` are flagged.
    """

    weights: Mapping[str, float]
    intercept: float
    threshold: float

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> "Detector | None":
        """The one that a checkpoint was calibrated with, "lime": {"detector": {...}} in config.json; None without.

        Raises `CheckpointError` when it is not one.
        """
        stored = config.get("lime")
        values = stored.get("detector") if isinstance(stored, Mapping) else None
        return None if values is None else cls.parse(values, "config.json")

    @classmethod
    def parse(cls, values: object, where: str) -> "Detector":
        """From {"weights": {...}, "intercept": ..., "threshold": ...}. Raises `CheckpointError`, which says where."""
        try:
            if not isinstance(values, Mapping):
                raise TypeError("not an object")
            weights = {str(name): float(value) for name, value in values["weights"].items()}
            detector = cls(weights, float(values["intercept"]), float(values["threshold"]))
            if not np.isfinite([*weights.values(), detector.intercept, detector.threshold]).all():
                raise ValueError("not finite")
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise CheckpointError(
                f'The "detector" in {where} cannot be used: it needs weights, an intercept and a threshold.'
            ) from error
        unknown = weights.keys() - {*from_relevance(np.zeros(1), np.ones(1, bool)), *from_logits(np.zeros(1), 0)}
        if unknown:
            raise CheckpointError(f"The detector in {where} has an unknown statistic {min(unknown)!r}.")
        return detector

    @property
    def digest(self) -> str:
        """8 hexadecimal digits that tell it from others, whatever the threshold."""
        values = [sorted(self.weights.items()), self.intercept]
        return sha256(json.dumps(values).encode()).hexdigest()[:8]

    def p_unsupported(self, statistics: Mapping[str, float]) -> float:
        """Probability, 0 to 1, that the word has no support."""
        score = self.intercept + sum(weight * statistics[name] for name, weight in self.weights.items())
        return float(1 / (1 + np.exp(-np.clip(score, -60, 60))))
