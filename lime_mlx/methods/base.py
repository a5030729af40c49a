"""What a decoding method is: it turns what was said so far into next-token logits."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from lime_mlx.cache import KVCache
from lime_mlx.errors import PromptError
from lime_mlx.layout import SEQUENCE, Layout
from lime_mlx.lrp.relevance import cached
from lime_mlx.lrp.rules import ATTN_LRP

PREFILL = 512


@dataclass
class Session:
    """One answer in the making. The loop says tokens; the method fills `cache` up to the newest position.

    embeds (1, T, D): the prompt and the tokens said so far. modality (T0,) bool: prompt positions of picture or sound.
    content (V,) bool or None: tokens that name something. process: logits (V,) to the scores a token is picked from.
    layout: where the positions stand and what they see.
    """

    model: Any
    embeds: mx.array
    modality: np.ndarray
    content: np.ndarray | None = None
    process: Callable[[mx.array], mx.array] | None = None
    layout: Layout = SEQUENCE
    want_relevance: bool = True
    want_trace: bool = False
    tokens: list[int] = field(default_factory=list)

    def __post_init__(self):
        self.cache = KVCache(len(self.decoder.layers))

    @property
    def decoder(self):
        return self.model.language_model

    @property
    def newest(self) -> mx.array:
        """Embedding (1, 1, D) of the newest position."""
        return self.embeds[:, -1:]

    def say(self, token: int) -> None:
        """Append a token to what was said."""
        self.tokens.append(token)
        self.embeds = mx.concatenate([self.embeds, self.decoder.embed(mx.array([token]))], axis=1)

    def prefill(self) -> None:
        """Run what the cache lacks, up to but without the newest position."""
        while (start := self.cache.offset) < self.embeds.shape[1] - 1:
            stop = self.layout.cut(min(start + PREFILL, self.embeds.shape[1] - 1))
            if stop == self.embeds.shape[1]:
                raise PromptError("The prompt ends with a picture; say something after it.")
            self.decoder(self.embeds[:, start:stop], self.cache, start, layout=self.layout)
            mx.eval(self.cache.arrays())

    def extend(self) -> mx.array:
        """The plain forward of the newest position: its entries go into the cache; returns logits (V,)."""
        hidden = self.decoder(self.newest, self.cache, self.cache.offset, layout=self.layout)
        return self.decoder.head(hidden[0, -1])

    def read(self, deltas=None, rules=ATTN_LRP, target=None):
        """A `Reading` of the newest position at the cache entries; the cache stays as it is."""
        past = self.cache.read()
        return cached(self.decoder, past, self.newest, rules, deltas, self.process, target, self.layout)

    def scores(self, logits: mx.array) -> mx.array:
        return logits if self.process is None else self.process(logits)


@dataclass
class Forward:
    """What a method gives for one token: logits (V,) float32, and relevance (T,) float32 when it was computed."""

    logits: mx.array
    relevance: np.ndarray | None = None
    trace: dict[str, np.ndarray] | None = None
    optimised: bool = False


class Method(ABC):
    """A decoding method. Subclasses are frozen dataclasses whose fields are the options of its spec."""

    name: str

    def prepare(self, model: Any) -> "Method":
        """The method with the model's own defaults filled in."""
        return self

    @abstractmethod
    def step(self, session: Session) -> Forward:
        """Logits after the newest position; on return the cache holds its entries, if the method keeps one."""


@dataclass(frozen=True)
class Plain(Method):
    """Ordinary decoding."""

    name = "none"

    def step(self, session: Session) -> Forward:
        session.prefill()
        if not session.want_relevance:
            return Forward(session.extend())
        reading = session.read()
        mx.eval(reading.logits, reading.relevance, reading.entries)
        session.cache.append(reading.entries)
        return Forward(reading.logits, np.array(reading.relevance))
