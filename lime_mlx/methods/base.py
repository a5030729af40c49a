"""What a decoding method is: it turns what was said so far into next-token logits."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np

from lime_mlx.cache import Edit
from lime_mlx.errors import MethodError
from lime_mlx.session import Session


@dataclass
class Forward:
    """What a method gives for one token: logits (V,) float32, and relevance (T,) float32 when it was computed."""

    logits: mx.array
    relevance: np.ndarray | None = None
    trace: dict[str, np.ndarray] | None = None
    optimised: bool = False


class Method(ABC):
    """A decoding method. Subclasses are frozen dataclasses whose fields are the options of its spec.

    `caches`: it leaves the newest position's entries in the cache.
    """

    name: ClassVar[str]
    caches: bool = True

    def prepare(self, model: Any) -> "Method":
        """The method with the model's own defaults filled in."""
        return self

    @abstractmethod
    def step(self, session: Session) -> Forward:
        """Logits after the newest position; on return the cache holds its entries, if the method keeps one."""


@dataclass(frozen=True)
class Plain(Method):
    """Ordinary decoding; with other attention weights in some layers when a subclass gives `edits`."""

    name = "none"

    def edits(self, session: Session) -> Mapping[int, Edit]:
        return {}

    def step(self, session: Session) -> Forward:
        session.prefill()
        edits = self.edits(session)
        if not session.want_relevance:
            return Forward(session.extend(edits))
        reading = session.relevance(edits=edits)
        mx.eval(reading.logits, reading.relevance, reading.entries)
        session.cache.append(reading.entries)
        return Forward(reading.logits, np.array(reading.relevance))


@dataclass(frozen=True)
class Wrapper(Method):
    """A method around another one: it changes the cache or the logits that `inner` leaves."""

    inner: Method = field(default=Plain(), kw_only=True)

    @property
    def caches(self) -> bool:
        return self.inner.caches


def parse_layers(method: str, text: str) -> tuple[int, int | None]:
    """First and last layer of "all", "3", "0-15" (inclusive) or "3-"; None is the last one there is."""
    first, dash, last = ("0", "-", "") if text == "all" else str(text).partition("-")
    if not first or not all(x.isascii() and x.isdigit() for x in (first, last) if x) or int(last or first) < int(first):
        raise MethodError(
            f"{method}: layers is {text!r}; write all, one layer such as 3, or a range such as 0-15 or 3-."
        )
    return int(first), int(last) if last else None if dash else int(first)


def layer_range(method: str, text: str, count: int) -> range:
    """The layers that `text` names, of a model with `count`. Raises `MethodError` for layers it does not have."""
    first, last = parse_layers(method, text)
    last = count - 1 if last is None else last
    if not first <= last < count:
        raise MethodError(f"{method}: layers is {text!r}, but the model has {count} layers.")
    return range(first, last + 1)


def check_range(method: str, key: str, value: float, low: float, high: float) -> None:
    """Raise `MethodError` unless low <= value <= high; a bound that is infinite is not a value."""
    if not low <= value <= high or value == math.inf:
        bound = f"a number of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise MethodError(f"{method}: {key} is {value:g}; it must be {bound}.")


def needs_media(method: str, session: Session) -> None:
    if not session.modality.any():
        raise MethodError(f"{method} needs a picture or a sound in the prompt; use --method none for text alone.")
