"""A promise: how large the share of unsupported words among those kept is at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

from lime_mlx.errors import CheckpointError
from lime_mlx.prompt import MODALITIES

# Procedures that decode plainly and act on flagged words. Any other procedure is the spec of a method.
MARK, DROP = "mark", "drop"


@dataclass(frozen=True)
class Promise:
    """With the probability `confidence` over the draw of the calibration, the mean loss of an answer is at most `risk`.

    The loss is the share of the unsupported words among the object words that the answer keeps, 0 where it keeps none.

    threshold: the one that was chosen. procedure: "mark" or "drop", plain decoding whose words are flagged from the
    threshold on; or the spec of a method, with the threshold in it. pictures: the number of answers that the bound
    rests on. loss, recall, kept: what was observed on these: the mean loss, the share of the true objects that are
    kept, and the share of those that plain decoding names. task: its spec. medium: "image" or "audio". question and
    tokens: what was asked, and the most tokens of an answer. weights: the fingerprint of the model's weights. detector:
    the digest of the detector.
    """

    risk: float
    confidence: float
    threshold: float
    procedure: str
    pictures: int
    loss: float
    recall: float
    kept: float
    task: str
    medium: str
    question: str
    tokens: int
    weights: str
    detector: str

    def __post_init__(self) -> None:
        """Raise `ValueError` for values that no calibration gives."""
        for name in ("risk", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is not between 0 and 1")
        for name in ("threshold", "loss", "recall", "kept"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is not from 0 to 1")
        if min(self.pictures, self.tokens) < 1 or self.medium not in MODALITIES:
            raise ValueError("nothing was asked")
        if not all((self.procedure, self.task, self.question, self.weights, self.detector)):
            raise ValueError("a text is empty")

    @property
    def flags(self) -> bool:
        """Whether the procedure acts on flagged words of plain answers."""
        return self.procedure in (MARK, DROP)

    @property
    def method(self) -> str:
        """The spec of the method that decodes."""
        return "none" if self.flags else self.procedure

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Promise | None:
        """The one in "lime": {"promise": {...}} of config.json; None without. Raises `CheckpointError`."""
        stored = config.get("lime")
        values = stored.get("promise") if isinstance(stored, Mapping) else None
        return None if values is None else cls.parse(values, "config.json")

    @classmethod
    def parse(cls, values: object, where: str) -> Promise:
        """From a JSON object with exactly the fields. Raises `CheckpointError`, which says where."""
        kinds = {field.name: str(field.type) for field in fields(cls)}
        try:
            if not isinstance(values, Mapping) or values.keys() != kinds.keys():
                raise TypeError("other fields")
            arguments: dict[str, Any] = {name: READ[kind](values[name]) for name, kind in kinds.items()}
            return cls(**arguments)
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f'The "promise" in {where} cannot be used: lime-mlx evaluate --calibrate --risk makes a new one.'
            ) from error


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise TypeError("not a number")
    return float(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("not a whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


READ = {"float": _number, "int": _count, "str": _text}
