"""The optimisation of one token by LIME: deltas on its keys and values, moved against the gradient of the objective.

Allouche and Keshet, arXiv 2605.01766. `Fast` runs the newest position against the cache, `Exact` the whole sequence.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx import backend
from lime_mlx.cache import Delta, overlays
from lime_mlx.errors import NumericalError
from lime_mlx.lrp.pairs import Outer, relevance_gradient
from lime_mlx.lrp.record import Pace, Record
from lime_mlx.lrp.relevance import RelevanceResult, Target, exact, exact_slope, picked
from lime_mlx.lrp.rules import PLAIN, rules
from lime_mlx.products import product
from lime_mlx.session import Session

from .base import Forward
from .moves import FactoredUpdate, WholeUpdate, pairs
from .updates import UPDATES, Deltas, Normalised, norm

Trace = dict[str, NDArray[np.float32]]
# Exact without checkpoints holds about this many times the attention weights of all layers (measured: 9).
HELD_ATTENTIONS = 12
# Arrays of the size of the deltas that several updates hold: the deltas, a gradient and two moments, old and new.
HELD_DELTAS = 6
# How far a token falls behind that may not be taken: more than logits differ, and finite in contrasts and sums.
FAR = 1e4


@dataclass(frozen=True)
class Options:
    """The options of LIME, each with a value; `lime_mlx.methods.lime.Lime` says what they mean."""

    mode: str
    steps: int
    lr: float
    kl: float
    tau: float
    layers: range
    rules: str
    objective: str
    target: str
    update: str
    kl_direction: str
    deltas: str
    positions: str
    heads: str
    checkpoint: str
    replace: str
    beta: float


# One dict a layer, {"k": ..., "v": ...}, with what moves: arrays (1, H, T, d), or what stands for such.
Moving = Any


class Loss(NamedTuple):
    """A forward under deltas, L_rel, L_KL, and the gradient of the whole objective."""

    result: RelevanceResult
    rel: mx.array
    kl: mx.array
    gradient: Moving


class First:
    """The undisturbed forward: logits (V,), the token () that would be picked, and its relevance, read when needed."""

    def __init__(self, logits: mx.array, target: mx.array, read: Callable[[], mx.array]):
        self.logits, self.target, self._read = logits, target, read

    @cached_property
    def relevance(self) -> mx.array:
        """(T,) float32."""
        return self._read()

    @property
    def is_read(self) -> bool:
        return "relevance" in vars(self)


class TokenOptimizer(ABC):
    """The optimisation of one token. Modes differ in how a forward and its relevance are computed.

    skip: from the first forward, whether this token is left alone.
    """

    def __init__(self, options: Options, session: Session, skip: Callable[[First], bool] | None = None):
        self.options, self.session, self.decoder, self.skip = options, session, session.decoder, skip
        self.rules = rules(options.rules)
        self.length = session.embeds.shape[1]
        mask = np.zeros(self.length, dtype=np.float32)
        mask[: len(session.modality)] = session.modality
        self.weights = mx.array(mask / mask.sum())
        self.movable = self._movable(mask)
        self.contrast = options.target == "contrast"

    @abstractmethod
    def run(self) -> Forward:
        """Logits and what belongs to them."""

    @abstractmethod
    def forward(self, deltas: Moving, target: Target = None, contrast: bool = False) -> RelevanceResult:
        """Logits, target and relevance under the deltas; `target` None is the token that would be picked."""

    @abstractmethod
    def first(self) -> First:
        """The forward without deltas."""

    @abstractmethod
    def start(self) -> Moving:
        """The deltas before the first update."""

    @abstractmethod
    def stepper(self) -> Callable[[Moving, Moving], Moving]:
        """The step rule: from a gradient and deltas to the next deltas."""

    @abstractmethod
    def loss(self, deltas: Moving, reference: mx.array | None, first: First | None = None) -> Loss:
        """The objective under the deltas. reference: the undisturbed logits (V,); None counts no divergence.

        first: the undisturbed forward, where its relevance may be read again.
        """

    @abstractmethod
    def last_logits(self, deltas: Moving) -> mx.array:
        """Logits (V,) under the deltas."""

    def relevance_loss(self, relevance: mx.array) -> mx.array:
        """uniform: cross-entropy of softmax(R / tau) to a uniform one over the picture or sound M, as published;
        mass: minus the logarithm of its sum over M; share: minus sum over M of R_i, over sum over all of |R_k|.
        """
        if self.options.objective == "share":
            return -mx.where(self.weights > 0, relevance, 0).sum() / mx.maximum(mx.abs(relevance).sum(), 1e-30)
        scaled = relevance / self.options.tau
        if self.options.objective == "mass":
            inside = mx.where(self.weights > 0, scaled, mx.finfo(scaled.dtype).min)
            return mx.logsumexp(scaled) - mx.logsumexp(inside)
        return -(self.weights * (scaled - mx.logsumexp(scaled))).sum()

    def divergence(self, reference: mx.array, logits: mx.array) -> mx.array:
        """KL(reference || perturbed), or the other way round where the options say "paper"."""
        first, second = (x - mx.logsumexp(x) for x in (reference, logits))
        if self.options.kl_direction == "paper":
            first, second = second, first
        return (mx.exp(first) * (first - second)).sum()

    def zeros(self) -> Deltas:
        """One dict a layer, {"k": (1, H, T, d), "v": ...}, with what the options let move."""
        config, count = self.decoder.config, len(self.decoder.layers)
        heads = config.num_attention_heads if self.options.heads == "query" else config.key_heads
        shape = (1, heads, self.length, config.dim)
        return [
            {which: mx.zeros(shape) for which in self.options.deltas} if index in self.options.layers else {}
            for index in range(count)
        ]

    def _movable(self, media: NDArray[np.float32]) -> mx.array | None:
        """(T, 1) float32, 1 at the positions whose entries may move; None where all may. media (T,): 1 at the media."""
        if self.options.positions == "all":
            return None
        prompt = (np.arange(self.length) < len(self.session.prompt)).astype(np.float32)
        return mx.array(media if self.options.positions == "media" else prompt)[:, None]

    def _allowed(self, logits: mx.array, reference: mx.array) -> mx.array:
        """The logits (V,) under the deltas, with the tokens far behind that may not take a word's place.

        plausible: those with less than beta times the largest probability of the undisturbed logits. names: of these
        only those that can name nothing, where the prompt knows them.
        """
        options, content = self.options, self.session.content
        named = options.replace == "names"
        if options.replace == "any" or options.beta == 0 or (named and content is None):
            return logits
        allowed = reference >= reference.max() + math.log(options.beta)
        if named and content is not None:
            allowed = allowed | mx.array(content)
        return mx.where(allowed, logits, logits - FAR)

    def optimise(self, watch: Callable[[Moving, Moving], None] | None = None) -> Forward:
        """Run all steps. `watch` is called with each step's gradient and the deltas after it."""
        options, session = self.options, self.session
        first = self.first()
        if options.steps == 1 or (self.skip is not None and self.skip(first)):
            wanted = session.wants_relevance_of(int(first.target))
            return Forward(first.logits, np.array(first.relevance) if wanted else None)
        deltas, step, reference, records = self.start(), self.stepper(), None, []
        for _ in range(options.steps - 1):
            loss = self.loss(deltas, reference, first)
            reference = mx.stop_gradient(first.logits)
            deltas = step(loss.gradient, deltas)
            mx.eval(loss.result.logits, loss.result.relevance, loss.rel, loss.kl)
            if session.want_trace:
                records.append(_record(loss, options.kl, deltas))
            if watch is not None:
                watch(loss.gradient, deltas)
        logits = self.last_logits(deltas)
        mx.eval(logits)
        if not mx.isfinite(logits).all().item():
            raise NumericalError(f"lime gave logits that are not finite at lr {options.lr:g}; use a smaller lr.")
        trace = _gathered(records, first.logits, logits) if records else {}
        # The next token's arrays are one position longer: what the pool holds would not be used again.
        del deltas, step, loss
        mx.clear_cache()
        logits = self._allowed(logits, first.logits)
        picked = mx.argmax(session.scores(logits))
        same, wanted = picked.item() == first.target.item(), session.wants_relevance_of(int(picked))
        relevance = None
        if same and (wanted or first.is_read):
            relevance = np.array(first.relevance)
        elif wanted:
            relevance = np.array(self.relevance_of(picked))
        return Forward(logits, relevance, trace, optimised=True)

    @abstractmethod
    def relevance_of(self, token: mx.array) -> mx.array:
        """The relevance (T,) of a token's logit in the undisturbed forward."""


class Fast(TokenOptimizer):
    """The newest position against the cache; relevance is read at the cache entries.

    The undisturbed forward is the plain one, whose entries go into the cache. Gradients are sums of outer products.
    """

    def run(self) -> Forward:
        return self.optimise()

    @cached_property
    def record(self) -> Record:
        """The plain forward."""
        record = Record()
        self.session.extend(record=record)
        return record

    def first(self) -> First:
        target = mx.argmax(self.session.scores(self.record.logits))
        return First(self.record.logits, target, lambda: self.relevance_of(target))

    def relevance_of(self, token: mx.array) -> mx.array:
        return self.session.read(self.record, token[None], rules=self.rules)[0]

    def start(self) -> Moving:
        return [{} for _ in self.decoder.layers]

    def stepper(self) -> Callable[[Moving, Moving], Moving]:
        options = self.options
        rule = (FactoredUpdate if self.factored() else WholeUpdate)(options.update, options.lr)
        return lambda gradient, _: rule.update(gradient)

    def factored(self) -> bool:
        """Whether deltas are made again wherever they are used. One update, and updates along gradients, need no more.

        Several others are faster with arrays, where these fit beside what is there.
        """
        options = self.options
        if options.steps == 2 or options.update == Normalised.name or options.checkpoint == "on":
            return True
        config = self.decoder.config
        heads = config.num_attention_heads if options.heads == "query" else config.key_heads
        size = HELD_DELTAS * 2 * config.num_hidden_layers * heads * config.dim * self.length * 4
        return options.checkpoint == "auto" and not backend.fits(mx.get_active_memory() + size, backend.COMFORTABLE)

    def forward(self, deltas: Moving, target: Target = None, contrast: bool = False) -> RelevanceResult:
        return self._forward(self._recorded(deltas), deltas, target, contrast)

    def _recorded(self, deltas: Moving) -> Record:
        if not any(deltas):
            return self.record
        session, record = self.session, Record()
        memory = overlays(session.before_newest(), pairs(deltas))
        embed = session.newest.astype(mx.float32)
        record.forward(self.decoder, embed, memory, self.length - 1, session.positions)
        return record

    def _forward(self, record: Record, deltas: Moving, target: Target, contrast: bool) -> RelevanceResult:
        chosen, rival = picked(record.logits, self.session.scores, target, contrast)
        rivals = None if rival is None else rival[None]
        (relevance,) = self.session.read(record, chosen[None], None, self.rules, rivals, pairs(deltas))
        return RelevanceResult(record.logits, chosen, relevance, [], rival)

    def loss(self, deltas: Moving, reference: mx.array | None, first: First | None = None) -> Loss:
        options, session, record = self.options, self.session, self._recorded(deltas)
        if first is None or self.contrast or any(deltas):
            result = self._forward(record, deltas, None, self.contrast)
        else:
            result = RelevanceResult(first.logits, first.target, first.relevance, [])
        rel, weights = mx.value_and_grad(self.relevance_loss)(result.relevance)
        kl, arriving = mx.array(0.0), None
        if reference is not None:
            kl, slope = mx.value_and_grad(partial(self.divergence, reference))(result.logits)
            arriving = options.kl * slope
        both = relevance_gradient(
            self.decoder,
            record,
            [entries for entries in session.before_newest() if entries is not None],
            weights,
            self.rules,
            result.target,
            result.rival,
            pairs(deltas),
            session.positions,
            arriving,
            per_query=options.heads == "query",
        )
        return Loss(result, rel, kl, [self._moving(index, layer) for index, layer in enumerate(both)])

    def _moving(self, index: int, gradient: tuple[Outer, Outer]) -> dict[str, Outer]:
        """What of a layer's gradient the options let move."""
        if index not in self.options.layers:
            return {}
        parts = {name: x for name, x in zip("kv", gradient, strict=True) if name in self.options.deltas}
        movable = self.movable
        return parts if movable is None else {name: x * movable[:, 0] for name, x in parts.items()}

    def last_logits(self, deltas: Moving) -> mx.array:
        session, pace = self.session, Pace()
        memory = overlays(session.before_newest(), pairs(deltas))
        rules = PLAIN.using(partial(product, wait=True))
        embed, observers = session.newest.astype(mx.float32), dict.fromkeys(range(len(memory)), pace.keep)
        hidden = self.decoder(embed, memory, self.length - 1, rules, session.positions, observers)
        return self.decoder.head(hidden[0, -1], rules)


class Exact(TokenOptimizer):
    """The whole sequence at every step, block by block, as the official code computes it."""

    def run(self) -> Forward:
        return self.optimise()

    @cached_property
    def _begun(self) -> Loss:
        return self.loss(self.zeros(), None)

    def first(self) -> First:
        # Gates and reports are about the token's own logit.
        result = self.forward(self.zeros()) if self.contrast or self.options.steps == 1 else self._begun.result
        return First(result.logits, result.target, lambda: result.relevance)

    def relevance_of(self, token: mx.array) -> mx.array:
        return self.forward(self.zeros(), token).relevance

    def start(self) -> Moving:
        return self.zeros()

    def stepper(self) -> Callable[[Moving, Moving], Moving]:
        rule = UPDATES[self.options.update](self.options.lr)

        def update(gradient: Deltas, deltas: Deltas) -> Deltas:
            deltas = rule.update(gradient, deltas)
            mx.eval(deltas)
            return deltas

        return update

    def forward(self, deltas: Moving, target: Target = None, contrast: bool = False) -> RelevanceResult:
        session = self.session
        return exact(
            self.decoder,
            session.embeds,
            self.rules,
            _arrays(deltas),
            session.scores,
            target,
            checkpoint=self.checkpointed(),
            positions=session.positions,
            contrast=contrast,
        )

    def loss(self, deltas: Deltas, reference: mx.array | None, first: First | None = None) -> Loss:
        if first is not None and reference is None:
            return self._begun
        if not self.checkpointed():
            return self._nested(deltas, reference)
        embeds, positions = self.session.embeds, self.session.positions
        result = self.forward(deltas, contrast=self.contrast)
        rel, weights = mx.value_and_grad(self.relevance_loss)(result.relevance)

        def objective(free: Deltas) -> tuple[mx.array, mx.array]:
            logits, slope = exact_slope(self.decoder, embeds, weights, self.rules, _arrays(free), positions)
            kl = mx.array(0.0) if reference is None else self.divergence(reference, logits)
            explained = slope[result.target]
            if result.rival is not None:
                explained = explained - slope[result.rival]
            return explained + self.options.kl * kl, kl

        (_, kl), gradient = mx.value_and_grad(objective)(deltas)
        return Loss(result, rel, kl, self._held(gradient))

    def _nested(self, deltas: Deltas, reference: mx.array | None) -> Loss:
        """The objective with its gradient through relevance that is itself a gradient: all blocks are kept."""

        def objective(free: Deltas) -> tuple[mx.array, Loss]:
            result = self.forward(free, contrast=self.contrast)
            rel = self.relevance_loss(result.relevance)
            kl = mx.array(0.0) if reference is None else self.divergence(reference, result.logits)
            return rel + self.options.kl * kl, Loss(result, rel, kl, [])

        (_, loss), gradient = mx.value_and_grad(objective)(deltas)
        result = RelevanceResult(*loss[0])
        return Loss(result, loss[1], loss[2], self._held(gradient))

    def _held(self, gradient: Deltas) -> Deltas:
        """The gradient, 0 at the positions whose entries may not move."""
        movable = self.movable
        if movable is None:
            return gradient
        return [{name: x * movable for name, x in layer.items()} for layer in gradient]

    def checkpointed(self) -> bool:
        """Whether blocks are run again in the backward pass instead of being kept."""
        config, choice = self.decoder.config, self.options.checkpoint
        weights = config.num_hidden_layers * config.num_attention_heads * self.length**2 * 4
        return choice == "on" or (choice == "auto" and not backend.fits(HELD_ATTENTIONS * weights, 1 / 4))

    def last_logits(self, deltas: Moving) -> mx.array:
        memory = overlays([None] * len(deltas), _arrays(deltas))
        embeds = self.session.embeds.astype(mx.float32)
        hidden = self.decoder(embeds, memory, rules=self.rules, positions=self.session.positions)
        return self.decoder.head(hidden[0, -1], self.rules)


def _arrays(deltas: Deltas) -> list[Delta]:
    return [(layer.get("k"), layer.get("v")) for layer in deltas]


def _record(loss: Loss, weight: float, deltas: Moving) -> Trace:
    values = {
        "logits": loss.result.logits,
        "relevance": loss.result.relevance,
        "kl": loss.kl,
        "rel_loss": loss.rel,
        "total_loss": loss.rel + weight * loss.kl,
        "grad_norm": norm(loss.gradient),
        "delta_norm": norm(deltas),
    }
    return {key: np.array(value) for key, value in values.items()}


def _gathered(records: Sequence[Trace], reference: mx.array, last: mx.array) -> Trace:
    stacked = {key: np.stack([record[key] for record in records]) for key in records[0]}
    stacked["logits"] = np.concatenate([stacked["logits"], np.array(last)[None]])
    return {**stacked, "ref_logits": np.array(reference)}
