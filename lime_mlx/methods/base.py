"""What a decoding method is: it turns the answer so far into next-token logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, NamedTuple, TypeVar, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx import spec
from lime_mlx.cache import Edit
from lime_mlx.errors import MethodError
from lime_mlx.lrp.record import Record
from lime_mlx.lrp.relevance import Scoring
from lime_mlx.models.base import Model
from lime_mlx.prompt import NOUNS, Prompt
from lime_mlx.session import Session

T = TypeVar("T")


class Rejected(NamedTuple):
    """A word that could have come next, and that a method did not take.

    p_unsupported: the probability, 0 to 1, that it has no support; repeated: the sentence named it before.
    """

    text: str
    p_unsupported: float = 0.0
    repeated: bool = False


@dataclass
class Forward:
    """What a method gives for one token.

    logits (V,) float32; relevance (T,) float32 where it was computed; trace: what the method recorded, empty where it
    optimised nothing; token: the one that the method picked, None where it is picked by the logits. rejected: the words
    that it did not take in its place.
    """

    logits: mx.array
    relevance: NDArray[np.float32] | None = None
    trace: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    optimised: bool = False
    token: int | None = None
    rejected: tuple[Rejected, ...] = ()


class Prepared(ABC):
    """A method made ready for one model: every option has a value."""

    @property
    def caches(self) -> bool:
        """Whether it leaves the newest position's entries in the cache."""
        return True

    @abstractmethod
    def step(self, session: Session) -> Forward:
        """Logits after the newest position; on return the cache holds its entries, if the method keeps one.

        A method may first take back tokens of the answer that are not settled.
        """

    def settled(self, session: Session) -> int:
        """How many tokens of the answer the method will not take back."""
        return len(session.generated)


class Method(ABC):
    """A decoding method as a spec names it. Subclasses are frozen dataclasses whose fields are the spec's options.

    old_spellings: from a key, or "key=value", as an earlier version had it to today's.
    """

    name: ClassVar[str]
    old_spellings: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        spec.check(self, self.name, MethodError)

    @property
    def media(self) -> frozenset[str]:
        """What it works on: "image", "audio"."""
        return frozenset(NOUNS)

    def notes(self, prompt: Prompt) -> list[str]:
        """Sentences on what the user should know of the method with this prompt."""
        return []

    @abstractmethod
    def prepare(self, model: Model) -> Prepared:
        """The method for one model. Raises `MethodError` where it does not fit the model."""

    def value(self, model: Model, key: str, published: T) -> T:
        """An option's value: as the spec says, else the checkpoint's own value, else the published one.

        A checkpoint's own values stand in its config.json as "lime": {"methods": {name: {key: value}}}. Raises
        `MethodError` for a stored value that is not valid.
        """
        given: T | None = getattr(self, key)
        if given is not None:
            return given
        stored = model.config.get("lime")
        for name in ("methods", self.name):
            stored = stored.get(name) if isinstance(stored, Mapping) else None
        if not isinstance(stored, Mapping) or key not in stored:
            return published
        value = stored[key]
        if problem := spec.options(type(self))[key].problem(value):
            raise MethodError(
                f"config.json has a value for {self.name} that is not valid: {key} is {value!r}; {problem}"
            )
        return cast(T, value)


@dataclass(frozen=True)
class Plain(Method):
    """`none`: ordinary decoding."""

    name = "none"

    def prepare(self, model: Model) -> Prepared:
        return PlainDecoding()


class PlainDecoding(Prepared):
    """Ordinary decoding; with other attention weights in some layers where a subclass gives `edits`."""

    def edits(self, session: Session) -> Mapping[int, Edit]:
        return {}

    def step(self, session: Session) -> Forward:
        session.prefill()
        edits = self.edits(session)
        if not (session.want_relevance or session.judging):
            return Forward(session.extend(edits))
        record = Record()
        logits = session.extend(edits, record)
        token = int(mx.argmax(session.scores(logits)))
        if not session.wants_relevance_of(token):
            return Forward(logits)
        return Forward(logits, np.array(session.read(record, [token], edits)[0]))


@dataclass(frozen=True)
class Wrapper(Method):
    """A method around another one: it changes the cache or the logits that `inner` leaves."""

    inner: Method = field(default=Plain(), kw_only=True)

    @property
    def media(self) -> frozenset[str]:
        return self.inner.media

    def notes(self, prompt: Prompt) -> list[str]:
        return self.inner.notes(prompt)


@dataclass(frozen=True)
class Rescoring(Wrapper):
    """A method that makes scores of the logits that `inner` leaves."""


def rescored(inner: Prepared, session: Session, blend: Scoring) -> Forward:
    """The step of `inner` with what `blend` makes of its logits.

    Relevance, LIME and its gates are about the token that is picked by this.
    """
    with session.blending(blend):
        forward = inner.step(session)
    return replace(forward, logits=blend(forward.logits))


def nan_unless_finite(scores: mx.array, *sources: mx.array) -> mx.array:
    """The scores (V,), all NaN where a source (V,) holds NaN or infinity: no cut hides it. Computed lazily."""
    whole = mx.stack([mx.isfinite(source).all() for source in sources]).all()
    return mx.where(whole, scores, mx.nan)


class LayersText:
    """The constraint of an option that names layers: "all", "3", "0-15" (inclusive) or "3-"."""

    def problem(self, value: object) -> str | None:
        if isinstance(value, str) and _ends(value) is not None:
            return None
        return "write all, one layer such as 3, or a range such as 0-15 or 3-."


Layers = Annotated[str, LayersText()]


def _ends(text: str) -> tuple[int, int | None] | None:
    """First and last layer of a text that names layers; None for the last is the last one there is."""
    first, dash, last = ("0", "-", "") if text == "all" else text.partition("-")
    digits = all(x.isascii() and x.isdigit() for x in (first, last) if x)
    if not first or not digits or int(last or first) < int(first):
        return None
    return int(first), int(last) if last else None if dash else int(first)


def layer_range(method: str, text: str, count: int) -> range:
    """The layers that `text` names, of a model with `count`. Raises `MethodError` for layers it does not have."""
    first, stated = _ends(text) or (0, None)
    last = count - 1 if stated is None else stated
    if not first <= last < count:
        raise MethodError(f"{method}: layers is {text!r}, but the model has {count} layers.")
    return range(first, last + 1)


def needs_media(method: str, session: Session) -> None:
    """Raise `MethodError` where the prompt has neither picture nor sound."""
    if not session.modality.any():
        raise MethodError(f"{method} needs a picture or a sound in the prompt; use --method none for text alone.")


def visible(session: Session) -> NDArray[np.bool_]:
    """(T,) bool: which positions up to the newest are picture or sound."""
    return np.pad(session.modality, (0, session.embeds.shape[1] - len(session.modality)))
