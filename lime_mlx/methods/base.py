"""What a decoding method is: it turns what was said so far into next-token logits."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np

from lime_mlx.cache import Edit, Edited, KVCache, softmax
from lime_mlx.errors import MethodError, NumericalError, PromptError
from lime_mlx.layout import SEQUENCE, Layout
from lime_mlx.lrp.relevance import cached
from lime_mlx.lrp.rules import ATTN_LRP
from lime_mlx.prompt import Prompt

PREFILL = 512
Processors = Sequence[Callable[[mx.array, mx.array], mx.array]]


@dataclass
class Session:
    """One answer in the making. The loop says tokens; the method fills `cache` up to the newest position.

    embeds (1, T, D): the prompt and the tokens said so far. modality (T0,) bool: prompt positions of picture or sound.
    content (V,) bool or None: tokens that name something. process: logits (V,) to the scores a token is picked from.
    layout: where the positions stand and what they see. prompt: what was asked, where it is known. observers: of some
    layers, called with the attention weights (1, H, G, 1, T) of the newest position. state: what methods keep.
    """

    model: Any
    embeds: mx.array
    modality: np.ndarray
    content: np.ndarray | None = None
    process: Callable[[mx.array], mx.array] | None = None
    layout: Layout = SEQUENCE
    prompt: Prompt | None = None
    want_relevance: bool = True
    want_trace: bool = False
    tokens: list[int] = field(default_factory=list)
    observers: dict[int, Callable[[mx.array], None]] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.cache = KVCache(len(self.decoder.layers))

    @classmethod
    def open(cls, model: Any, prompt: Prompt, processors: Processors = (), content: np.ndarray | None = None):
        """A session at the end of the prompt. Raises `NumericalError` when its embeddings are not finite."""
        embeds, layout = model.inputs(prompt)
        if not mx.isfinite(embeds).all().item():
            raise NumericalError("The input embeddings are not finite: the weights or the media input hold NaN.")
        session = cls(model, embeds, model.modality(prompt), content, layout=layout, prompt=prompt)
        session.tokens = [int(token) for token in prompt.input_ids]
        session.process = _chained(session, processors)
        return session

    def branch(self, prompt: Prompt) -> "Session":
        """A session of a prompt that begins with the tokens and media that this one's cache holds, and goes on as text.

        The entries of the cache and the features of the media are taken over.
        """
        common = self.cache.offset
        rest = self.decoder.embed(self.model.ids(prompt))[:, common:]
        embeds = mx.concatenate([self.embeds[:, :common], rest], axis=1)
        layout = self.layout.beginning(common)
        session = Session(self.model, embeds, self.model.modality(prompt), self.content, layout=layout, prompt=prompt)
        session.tokens = [int(token) for token in prompt.input_ids]
        session.cache = self.cache.copy()
        return session

    @property
    def decoder(self):
        return self.model.language_model

    @property
    def newest(self) -> mx.array:
        """Embedding (1, 1, D) of the newest position."""
        return self.embeds[:, -1:]

    @property
    def said(self) -> list[int]:
        """The tokens of the answer so far."""
        return self.tokens[len(self.modality) :]

    def say(self, token: int) -> None:
        """Append a token to what was said."""
        self.tokens.append(token)
        self.embeds = mx.concatenate([self.embeds, self.decoder.embed(mx.array([token]))], axis=1)

    def prefill(self, end: int | None = None) -> None:
        """Run what the cache lacks, up to but without position `end`; by default the newest."""
        end = self.embeds.shape[1] - 1 if end is None else end
        while (start := self.cache.offset) < end:
            stop = self.layout.cut(min(start + PREFILL, end))
            if stop == self.embeds.shape[1]:
                raise PromptError("The prompt ends with a picture; say something after it.")
            self.decoder(self.embeds[:, start:stop], self.cache, start, layout=self.layout)
            mx.eval(self.cache.arrays())

    def extend(self, edits: Mapping[int, Edit] | None = None) -> mx.array:
        """The plain forward of the newest position: its entries go into the cache; returns logits (V,).

        Layers in `edits` make their attention weights by them; the others keep the fused attention.
        """
        seen = self._observed(edits)
        memory = [Edited(layer, seen[i]) if i in seen else layer for i, layer in enumerate(self.cache.layers)]
        hidden = self.decoder(self.newest, memory, self.cache.offset, layout=self.layout)
        return self.decoder.head(hidden[0, -1])

    def read(self, deltas=None, rules=ATTN_LRP, target=None, edits: Mapping[int, Edit] | None = None, contrast=False):
        """A `Reading` of the newest position at the cache entries; the cache stays as it is."""
        past, edits = self.cache.read(), self._observed(edits)
        how = (rules, deltas, self.process, target, self.layout, edits, contrast)
        return cached(self.decoder, past, self.newest, *how)

    def scores(self, logits: mx.array) -> mx.array:
        return logits if self.process is None else self.process(logits)

    @contextmanager
    def observing(self, observers: Mapping[int, Callable[[mx.array], None]]) -> Iterator[None]:
        """Observers of layers, beside those that there are, while this lasts."""
        before = self.observers
        both = {i: _both(before[i], new) if i in before else new for i, new in observers.items()}
        self.observers = {**before, **both}
        try:
            yield
        finally:
            self.observers = before

    def _observed(self, edits: Mapping[int, Edit] | None) -> dict[int, Edit]:
        """The edits, with the observers behind them."""
        edits = dict(edits or {})
        for index, observe in self.observers.items():
            edits[index] = _watched(edits.get(index, softmax), observe)
        return edits


def _chained(session: Session, processors: Processors) -> Callable[[mx.array], mx.array] | None:
    def process(logits: mx.array) -> mx.array:
        for processor in processors:
            logits = processor(mx.array(session.tokens), logits[None])[0]
        return logits

    return process if processors else None


def _both(*observers: Callable[[mx.array], None]) -> Callable[[mx.array], None]:
    def observe(weights):
        for observer in observers:
            observer(weights)

    return observe


def _watched(edit: Edit, observe: Callable[[mx.array], None]) -> Edit:
    def watched(scores):
        weights = edit(scores)
        observe(weights)
        return weights

    return watched


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
        reading = session.read(edits=edits)
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
