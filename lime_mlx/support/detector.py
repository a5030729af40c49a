"""The calibrated detector: from the statistics of a content token to the probability that it has no support."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256

import numpy as np

from lime_mlx.errors import CheckpointError
from lime_mlx.support.statistics import from_logits, from_relevance


@dataclass(frozen=True)
class Asking:
    """What the model's own answer adds: a logistic regression on the probability by relevance and on the margin.

    relevance: weight of the log-odds of the probability by relevance. margin: weight of the logit of yes less that of
    no, when the model is asked whether the thing is there. lowest: words with less by relevance alone are not asked
    about.
    """

    relevance: float
    margin: float
    intercept: float
    lowest: float

    def p_unsupported(self, p_unsupported: float, margin: float) -> float:
        """Probability, 0 to 1, from that by relevance and from the margin."""
        p = min(max(p_unsupported, 1e-6), 1 - 1e-6)
        return _sigmoid(self.relevance * math.log(p / (1 - p)) + self.margin * margin + self.intercept)


@dataclass(frozen=True)
class Detector:
    """A logistic regression on a few statistics: the probability that a word that names something is unsupported.

    weights: of each statistic; words whose probability is at least `threshold` are flagged. asking: what asking the
    model back adds; None where it was calibrated without.
    """

    weights: Mapping[str, float]
    intercept: float
    threshold: float
    asking: Asking | None = None

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
            stored = values.get("asking")
            asking = None if stored is None else Asking(**{name: float(stored[name]) for name in ASKING})
            detector = cls(weights, float(values["intercept"]), float(values["threshold"]), asking)
            numbers = [*weights.values(), detector.intercept, detector.threshold]
            numbers += vars(asking).values() if asking else ()
            if not np.isfinite(numbers).all():
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
        values: list[object] = [sorted(self.weights.items()), self.intercept]
        values += [asdict(self.asking)] if self.asking else []
        return sha256(json.dumps(values).encode()).hexdigest()[:8]

    def p_unsupported(self, statistics: Mapping[str, float]) -> float:
        """Probability, 0 to 1, that the word has no support; with a "margin" among the statistics, by that, too."""
        p, margin = self._by_relevance(statistics), statistics.get("margin")
        if self.asking is None or margin is None or p < self.asking.lowest:
            return p
        return self.asking.p_unsupported(p, margin)

    def asks(self, statistics: Mapping[str, float]) -> bool:
        """Whether the margin of a word counts: the model is to be asked about it."""
        return self.asking is not None and self._by_relevance(statistics) >= self.asking.lowest

    def _by_relevance(self, statistics: Mapping[str, float]) -> float:
        return _sigmoid(self.intercept + sum(weight * statistics[name] for name, weight in self.weights.items()))


ASKING = tuple(field.name for field in fields(Asking))


def _sigmoid(score: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(score, -60, 60))))
