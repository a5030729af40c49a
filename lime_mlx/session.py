"""What a decoding method is: it turns what was said so far into next-token logits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from lime_mlx.cache import Edit, Edited, KVCache, softmax
from lime_mlx.errors import NumericalError, PromptError
from lime_mlx.lrp.relevance import cached
from lime_mlx.lrp.rules import ATTN_LRP
from lime_mlx.positions import SEQUENCE, Positions
from lime_mlx.prompt import Prompt

PREFILL = 512
Processors = Sequence[Callable[[mx.array, mx.array], mx.array]]


@dataclass
class Session:
    """One answer in the making. The loop says tokens; the method fills `cache` up to the newest position.

    embeds (1, T, D): the prompt and the tokens said so far. modality (T0,) bool: prompt positions of picture or sound.
    content (V,) bool or None: tokens that name something. process: logits (V,) to the scores a token is picked from.
    positions: where they stand and what they see. prompt: what was asked, where it is known. observers: of some layers,
    called with the attention weights (1, H, G, 1, T) of the newest position. state: what methods keep.
    """

    model: Any
    embeds: mx.array
    modality: np.ndarray
    content: np.ndarray | None = None
    process: Callable[[mx.array], mx.array] | None = None
    positions: Positions = SEQUENCE
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
        embeds, positions = model.inputs(prompt)
        if not mx.isfinite(embeds).all().item():
            raise NumericalError("The input embeddings are not finite: the weights or the media input hold NaN.")
        session = cls(model, embeds, model.modality(prompt), content, positions=positions, prompt=prompt)
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
        positions = self.positions.beginning(common)
        session = Session(
            self.model, embeds, self.model.modality(prompt), self.content, positions=positions, prompt=prompt
        )
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
    def generated(self) -> list[int]:
        """The tokens of the answer so far."""
        return self.tokens[len(self.modality) :]

    def append(self, token: int) -> None:
        """Append a token to what was said."""
        self.tokens.append(token)
        self.embeds = mx.concatenate([self.embeds, self.decoder.embed(mx.array([token]))], axis=1)

    def prefill(self, end: int | None = None) -> None:
        """Run what the cache lacks, up to but without position `end`; by default the newest."""
        end = self.embeds.shape[1] - 1 if end is None else end
        while (start := self.cache.offset) < end:
            stop = self.positions.cut(min(start + PREFILL, end))
            if stop == self.embeds.shape[1]:
                raise PromptError("The prompt ends with a picture; say something after it.")
            self.decoder(self.embeds[:, start:stop], self.cache, start, positions=self.positions)
            mx.eval(self.cache.arrays())

    def extend(self, edits: Mapping[int, Edit] | None = None) -> mx.array:
        """The plain forward of the newest position: its entries go into the cache; returns logits (V,).

        Layers in `edits` make their attention weights by them; the others keep the fused attention.
        """
        seen = self._observed(edits)
        memory = [Edited(layer, seen[i]) if i in seen else layer for i, layer in enumerate(self.cache.layers)]
        hidden = self.decoder(self.newest, memory, self.cache.offset, positions=self.positions)
        return self.decoder.head(hidden[0, -1])

    def relevance(
        self, deltas=None, rules=ATTN_LRP, target=None, edits: Mapping[int, Edit] | None = None, contrast=False
    ):
        """A `RelevanceResult` of the newest position at the cache entries; the cache stays as it is."""
        past, edits = self.cache.entries(), self._observed(edits)
        how = (rules, deltas, self.process, target, self.positions, edits, contrast)
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
