"""One answer in the making: its prompt, cache, tokens and observers, with ways to branch off and to go back."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.attention import Memory, softmax
from lime_mlx.cache import Change, Edit, Edited, Entries, Guidance, KVCache, fresh, overlays
from lime_mlx.errors import NumericalError, PromptError
from lime_mlx.kv import DEFAULT, FIRST, KVOptions
from lime_mlx.lrp.record import Record, read
from lime_mlx.lrp.relevance import RelevanceResult, Scoring, Target, cached
from lime_mlx.lrp.rules import ATTN_LRP, Rules
from lime_mlx.models.base import Features, Model, encoded
from lime_mlx.models.decoder import Decoder
from lime_mlx.positions import SEQUENCE, Positions
from lime_mlx.prompt import Noun, Prompt
from lime_mlx.support.detector import Detector
from lime_mlx.support.domain import Domain, features

# mlx-lm's form: the tokens so far, logits (1, V), to logits (1, V).
LogitsProcessor = Callable[[mx.array, mx.array], mx.array]
# Scores (V,) to the token that is picked.
Pick = Callable[[mx.array], int]
Observer = Callable[[mx.array], None]


class State(Protocol):
    """What a method keeps of an answer between its tokens."""

    def fork(self) -> State:
        """An equal state that changes on its own."""

    def truncate(self, count: int) -> None:
        """Go back to the first `count` tokens of the answer, the last of which the method has not worked on."""


@dataclass(eq=False)
class Session:
    """One answer in the making. The loop appends tokens; the method fills `cache` up to the newest position.

    embeds (1, T, D): the prompt and the tokens generated so far. modality (T0,) bool: the prompt positions of pictures
    and sounds; modalities: the same for each kind. positions: their coordinates and their attention mask. processors:
    from logits to the scores that a token is picked by. observers: of some layers; each gets the attention weights
    (1, K, G, 1, T) of the newest position. hidden_observers: of some layers; each gets the hidden state (1, 1, D) after
    its layer. state: what methods keep, by their names. pick: how a token is picked by its scores; greedy: always
    the best one. margins: of the questions that the model was asked about this prompt, see `lime_mlx.asking`. reused:
    how many positions of the prompt were not computed for this session, see `lime_mlx.prefixes`. features: of the
    pictures and sounds. opener: opens sessions of other prompts, where `Session.open` is not meant; see `beside`. kv:
    what was chosen about the cache.

    To intervene in decoding, subclass `Method`: its `step` may observe, change the cache (`cache.overwrite`), edit
    attention weights (`extend`, `relevance`), try a branch (`fork`) or go back (`rewind`).
    """

    model: Model
    prompt: Prompt
    embeds: mx.array
    positions: Positions = SEQUENCE
    processors: Sequence[LogitsProcessor] = ()
    want_relevance: bool = True
    want_trace: bool = False
    tokens: list[int] = field(default_factory=list)
    observers: dict[int, Observer] = field(default_factory=dict)
    hidden_observers: dict[int, Observer] = field(default_factory=dict)
    state: dict[str, State] = field(default_factory=dict)
    pick: Pick = field(default=lambda scores: int(mx.argmax(scores)))
    margins: dict[Noun, float | None] = field(default_factory=dict)
    greedy: bool = True
    judging: bool = False
    reused: int = 0
    features: Features = field(default_factory=dict)
    opener: Callable[[Prompt], Session] | None = None
    kv: KVOptions = DEFAULT

    def __post_init__(self) -> None:
        self.modalities: Mapping[str, NDArray[np.bool_]] = self.model.modalities(self.prompt)
        self.modality: NDArray[np.bool_] = np.any(list(self.modalities.values()), axis=0)
        self.tokens = self.tokens or [int(token) for token in self.prompt.input_ids]
        reaches = [self.positions.reach(layer.window) for layer in self.decoder.layers]
        self.cache = KVCache(len(reaches), self.kv, reaches, max(self.media_ends, default=None))
        self._blends: list[Scoring] = []

    @classmethod
    def open(
        cls,
        model: Model,
        prompt: Prompt,
        processors: Sequence[LogitsProcessor] = (),
        features: Callable[[], Features] | None = None,
        kv: KVOptions = DEFAULT,
    ) -> Session:
        """A session at the end of the prompt.

        features: gives those of the pictures and sounds, where the towers need not compute them again.
        Raises `PromptError` for a prompt that is longer than the model's context, or does not fit the model, and
        `NumericalError` when its embeddings are not finite.
        """
        context = model.context
        if context is not None and len(prompt) > context:
            raise PromptError(
                f"The prompt has {len(prompt):,} tokens, but the context of this model holds {context:,}: "
                "shorten the text, or give fewer or smaller pictures or sounds."
            )
        kv.check_heads(model.language_model.config.dim)
        pinned = max((span.stop for span in model.spans(prompt)), default=min(FIRST, len(prompt) - 1))
        recent = kv.recent(pinned, len(prompt))
        computed = encoded(prompt, model) if features is None else features()
        embeds, positions = model.inputs(prompt, computed)
        if recent is not None:
            positions = replace(positions, recent=recent, pinned=pinned)
        if not mx.isfinite(embeds).all().item():
            raise NumericalError("The input embeddings are not finite: the weights or the media input hold NaN.")
        return cls(model, prompt, embeds, positions, processors, features=computed, kv=kv)

    def beside(self, prompt: Prompt) -> Session:
        """A session of another prompt about the same pictures and sounds, whose features are not computed again."""
        if self.opener is not None:
            return self.opener(prompt)
        return Session.open(self.model, prompt, features=lambda: self.features, kv=self.kv)

    def branch(self, prompt: Prompt, shared: int | None = None) -> Session:
        """A session of another prompt that begins with the same tokens and media, and continues with text only.

        shared: how many tokens the prompts have in common; by default all that the cache holds. Their cache entries
        and the features of the media are taken over. Nothing that methods did is.
        """
        common = self.cache.offset if shared is None else min(shared, self.cache.offset)
        common = self.cache.resumable(common)
        rest = self.decoder.embed(self.model.ids(prompt))[:, common:]
        embeds = mx.concatenate([self.embeds[:, :common], rest], axis=1)
        positions = self.positions.beginning(common)
        session = Session(self.model, prompt, embeds, positions, features=self.features, kv=self.kv)
        session.opener = self.opener
        session.want_relevance = self.want_relevance
        session.cache = self.cache.copy(common)
        return session

    def fork(self) -> Session:
        """The same answer so far, with a cache and states of methods that change on their own; nobody observes it."""
        session = Session(self.model, self.prompt, self.embeds, self.positions, self.processors, kv=self.kv)
        session.want_relevance, session.want_trace = self.want_relevance, self.want_trace
        session.pick, session.greedy, session.margins = self.pick, self.greedy, self.margins
        session.features, session.opener = self.features, self.opener
        session.tokens = list(self.tokens)
        session.cache = self.cache.copy()
        session.state = {name: state.fork() for name, state in self.state.items()}
        session._blends = list(self._blends)
        return session

    def rewind(self, count: int) -> None:
        """Take back the newest `count` tokens of the answer; 0 takes back only the method's work on the newest one.

        The cache and the states of methods go back, too; what layers with a window then lack is computed again. Raises
        `ValueError` for more tokens than were generated, and `MethodError` where a method changed what is lacking.
        """
        if not 0 <= count <= len(self.generated):
            raise ValueError(f"{count} tokens cannot be taken back, {len(self.generated)} were generated")
        self.truncate(len(self.generated) - count)

    def truncate(self, count: int) -> None:
        """Keep the first `count` tokens of the answer, or all if there are fewer. See `rewind`."""
        length = len(self.prompt) + min(count, len(self.generated))
        self.tokens, self.embeds = self.tokens[:length], self.embeds[:, :length]
        self.cache.trim(max(0, self.cache.offset - (length - 1)))
        for state in self.state.values():
            state.truncate(length - len(self.prompt))

    @property
    def decoder(self) -> Decoder:
        return self.model.language_model

    @property
    def content(self) -> NDArray[np.bool_] | None:
        """(V,) bool, the content tokens; None where the prompt does not know them."""
        return None if self.prompt.language is None else self.prompt.language.content

    def may_judge(self, token: int) -> bool:
        """Whether a token can name something that the user's and the system's texts did not bring in.

        Such words may be judged, flagged and replaced. Without a processor's knowledge of the prompt, all tokens may.
        """
        language = self.prompt.language
        return language is None or bool(language.content[token] and not language.prompted[token])

    def wants_relevance_of(self, token: int) -> bool:
        """Whether the relevance of a token is asked for: by the caller, or while `judging`, by a method."""
        return self.want_relevance or (self.judging and self.may_judge(token))

    def media_features(self) -> NDArray[np.float64]:
        """The features (N, F) of each picture and sound of the prompt, by which `Domain` tells whether it is inside."""
        spans = self.model.spans(self.prompt)
        sources = sorted({(span.kind, span.source) for span in spans})
        positions = [
            np.concatenate([np.arange(s.start, s.stop) for s in spans if (s.kind, s.source) == source])
            for source in sources
        ]
        embeds = self.embeds[0].astype(mx.float32)
        return np.array([features(np.array(embeds[mx.array(part)])) for part in positions])

    @cached_property
    def in_domain(self) -> bool | None:
        """Whether all pictures and sounds are like those that the model was calibrated on. See `support.domain`.

        None where nothing can be said: for text alone, and for a model whose calibration did not record its inputs.
        """
        domain = Domain.from_config(self.model.config)
        if domain is None or not self.modality.any():
            return None
        return all(domain.inside(row) for row in self.media_features())

    @cached_property
    def detector(self) -> Detector | None:
        """The model's detector where it may judge the words of this answer; None outside of its domain, or without."""
        return None if self.in_domain is False else Detector.from_config(self.model.config)

    @property
    def newest(self) -> mx.array:
        """Embedding (1, 1, D) of the newest position."""
        return self.embeds[:, -1:]

    @property
    def generated(self) -> list[int]:
        """The tokens of the answer so far."""
        return self.tokens[len(self.prompt) :]

    def append(self, token: int) -> None:
        """Append a token to the answer. Raises `ValueError` for one outside the vocabulary."""
        if not 0 <= operator.index(token) < self.decoder.config.vocab_size:
            raise ValueError(f"There is no token {token}: the vocabulary has {self.decoder.config.vocab_size:,}.")
        self.tokens.append(token)
        self.embeds = mx.concatenate([self.embeds, self.decoder.embed(mx.array([token]))], axis=1)

    @cached_property
    def media_ends(self) -> list[int]:
        """Behind which position each picture or sound of the prompt ends."""
        spans = self.model.spans(self.prompt)
        return sorted({(span.kind, span.source): span.stop for span in spans}.values())

    def border(self, start: int) -> int:
        """Where the chunk of the prefill that begins at `start` ends: behind the next picture or sound, if it is near.

        Prompts that begin alike are cut alike, so that what was computed for one serves the other to the last bit.
        """
        step = start + self.kv.prefill_step_size
        return self.positions.cut(min([step, *(end for end in self.media_ends if end > start)]))

    def prefill(self, end: int | None = None) -> None:
        """Run what the cache lacks, up to but without position `end`; by default the newest."""
        end = self.embeds.shape[1] - 1 if end is None else end
        while (start := self.cache.offset) < end:
            stop = min(self.border(start), self.positions.cut(end))
            if end < stop == self.embeds.shape[1]:
                raise PromptError("The prompt ends with a picture; say something after it.")
            self.decoder(self.embeds[:, start:stop], self.cache.layers, start, positions=self.positions)
            mx.eval(self.cache.arrays())

    def extend(self, edits: Mapping[int, Edit] | None = None, record: Record | None = None) -> mx.array:
        """The plain forward of the newest position: its entries go into the cache; returns logits (V,).

        Layers in `edits` make their attention weights by them; the others keep the fused attention. What the cache
        lacks before the newest position is run first; an entry that it has of the newest position is replaced. With
        a record, `read` then gives the relevance of any logit.
        """
        watched = self._edits_with_observers(edits)
        self._reach_newest()
        memory: list[Memory] = [
            Edited(layer, watched[i]) if i in watched else layer for i, layer in enumerate(self.cache.layers)
        ]
        arguments = (self.newest, memory, self.cache.offset)
        if record is not None:
            return record.forward(self.decoder, *arguments, self.positions, self.hidden_observers)
        hidden = self.decoder(*arguments, positions=self.positions, observers=self.hidden_observers)
        return self.decoder.head(hidden[0, -1])

    def read(
        self,
        record: Record,
        targets: Sequence[int] | mx.array,
        edits: Mapping[int, Edit] | None = None,
        rules: Rules = ATTN_LRP,
        rivals: mx.array | None = None,
        deltas: Sequence[Change] | None = None,
    ) -> mx.array:
        """Relevance (N, T) of N logits after the newest position, by the record of a forward with the same edits.

        rivals (N,): tokens whose logits are subtracted. The cache must hold the positions before the newest one.
        """
        past, ids = self.before_newest(), targets if isinstance(targets, mx.array) else mx.array([*targets])
        return read(self.decoder, record, past, rules, ids, rivals, deltas, self.positions, edits)

    def likely(self) -> int:
        """The token that plain decoding would give next, whatever blends there are; one forward more.

        Nobody observes the forward, and it adds no entry.
        """
        self._reach_newest()
        memory = overlays(self.cache.entries())
        hidden = self.decoder(self.newest, memory, self.cache.offset, positions=self.positions)
        return int(mx.argmax(self._processed(self.decoder.head(hidden[0, -1]))))

    def relevance(
        self,
        deltas: Sequence[Change] | None = None,
        rules: Rules = ATTN_LRP,
        target: Target = None,
        edits: Mapping[int, Edit] | None = None,
        contrast: bool = False,
    ) -> RelevanceResult:
        """The forward of the newest position with its relevance at the cache entries; it adds no entry of its own."""
        self._reach_newest()
        return cached(
            self.decoder,
            self.cache.entries(),
            self.newest,
            rules,
            deltas=deltas,
            scoring=self.scores,
            target=target,
            positions=self.positions,
            edits=edits,
            contrast=contrast,
            observers=self.hidden_observers,
            watched=self._edits_with_observers(edits),
        )

    def relevance_of(
        self, targets: Sequence[int], rules: Rules = ATTN_LRP, edits: Mapping[int, Edit] | None = None
    ) -> mx.array:
        """Relevance (N, T) of each of N tokens that could come next, in one batched pass; the cache stays as it is.

        The cache must hold every position before the newest one.
        """
        record, past = Record(), self.before_newest()
        record.forward(self.decoder, self.newest, overlays(past, None, None, edits), self._start, self.positions)
        return read(self.decoder, record, past, rules, mx.array([*targets]), None, None, self.positions, edits)

    @property
    def unobserved(self) -> bool:
        """Whether nobody looks at a plain forward, or changes its logits: then the next may begin before it is read."""
        looking = self.want_relevance or self.judging or self.observers or self.hidden_observers
        return not (looking or self.processors or self._blends)

    @property
    def _start(self) -> int:
        """How many positions are before the newest."""
        return self.embeds.shape[1] - 1

    def before_newest(self) -> list[Entries | None]:
        """Every layer's entries of the positions before the newest, which the cache must hold."""
        return [*self.cache.before(self._start)] if self._start else [None] * len(self.cache)

    def _reach_newest(self) -> None:
        """The cache then holds every position but the newest."""
        self.prefill()
        self.cache.trim(self.cache.offset - (self.embeds.shape[1] - 1))
        self.cache.pack()

    def scores(self, logits: mx.array) -> mx.array:
        """What a token is picked by, (V,), from logits (V,): blends first, then the processors."""
        for blend in reversed(self._blends):
            logits = blend(logits)
        return self._processed(logits)

    def _processed(self, logits: mx.array) -> mx.array:
        for processor in self.processors:
            logits = processor(mx.array(self.tokens), logits[None])[0]
        return logits

    @contextmanager
    def blending(self, blend: Scoring) -> Iterator[None]:
        """Tokens are picked by what `blend` makes of the logits while this lasts."""
        self._blends.append(blend)
        try:
            yield
        finally:
            self._blends.pop()

    @contextmanager
    def observing(
        self, observers: Mapping[int, Observer], hidden: Mapping[int, Observer] | None = None
    ) -> Iterator[None]:
        """Observers of layers' attention and of hidden states, beside those that there are, while this lasts."""
        before = self.observers, self.hidden_observers
        self.observers = _with(before[0], observers)
        self.hidden_observers = _with(before[1], hidden or {})
        try:
            yield
        finally:
            self.observers, self.hidden_observers = before

    def _edits_with_observers(self, edits: Mapping[int, Edit] | None) -> dict[int, Edit]:
        """The edits, with the observers behind them."""
        observed = fresh(edits)
        for index, observe in self.observers.items():
            observed[index] = _edit_with_observer(observed.get(index, softmax), observe)
        return observed


def _with(present: dict[int, Observer], added: Mapping[int, Observer]) -> dict[int, Observer]:
    return {**present, **{index: _call_both(present.get(index), new) for index, new in added.items()}}


def _call_both(first: Observer | None, second: Observer) -> Observer:
    def observe(weights: mx.array) -> None:
        if first is not None:
            first(weights)
        second(weights)

    return observe


@dataclass(frozen=True)
class _ObservedGuidance(Guidance):
    edit: Guidance
    observe: Observer

    def guided(self, scores: mx.array, v: mx.array) -> mx.array:
        self.observe(self.edit(scores))
        return self.edit.guided(scores, v)


def _edit_with_observer(edit: Edit, observe: Observer) -> Edit:
    if isinstance(edit, Guidance):
        return _ObservedGuidance(edit, observe)

    def watched(scores: mx.array) -> mx.array:
        weights = edit(scores)
        observe(weights)
        return weights

    return watched
