"""The optimisation of one token by LIME: deltas on its keys and values, moved against the gradient of the objective.

Allouche and Keshet, arXiv 2605.01766. `Fast` runs the newest position against the cache, `Exact` the whole sequence.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx import backend
from lime_mlx.cache import Delta, Entries, overlays
from lime_mlx.errors import NumericalError
from lime_mlx.lrp.relevance import RelevanceResult, Target, exact, exact_slope
from lime_mlx.lrp.rules import rules
from lime_mlx.session import Session

from .base import Forward
from .updates import UPDATES, Deltas, norm

Trace = dict[str, NDArray[np.float32]]
# Exact without checkpoints holds about this many times the attention weights of all layers (measured: 9).
HELD_ATTENTIONS = 12
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


class Loss(NamedTuple):
    """A forward under deltas, L_rel, L_KL, and the gradient of the whole objective; all lazy."""

    result: RelevanceResult
    rel: mx.array
    kl: mx.array
    gradient: Deltas


class TokenOptimizer(ABC):
    """The optimisation of one token. Modes differ in how a forward and its relevance are computed.

    skip: from the first forward, whether this token is left alone.
    """

    def __init__(self, options: Options, session: Session, skip: Callable[[RelevanceResult], bool] | None = None):
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
    def forward(self, deltas: Deltas, target: Target = None, contrast: bool = False) -> RelevanceResult:
        """Logits, target and relevance under the deltas; `target` None is the token that would be picked."""

    def loss(self, deltas: Deltas, reference: mx.array | None) -> Loss:
        """The objective under the deltas. reference: the undisturbed logits (V,); None counts no divergence."""

        def objective(free: Deltas) -> tuple[mx.array, Loss]:
            result = self.forward(free, contrast=self.contrast)
            rel = self.relevance_loss(result.relevance)
            kl = mx.array(0.0) if reference is None else self.divergence(reference, result.logits)
            return rel + self.options.kl * kl, Loss(result, rel, kl, [])

        (_, loss), gradient = mx.value_and_grad(objective)(deltas)
        result = RelevanceResult(*loss[0])
        return Loss(result, loss[1], loss[2], self._held(gradient))

    @abstractmethod
    def last_logits(self, deltas: Deltas) -> mx.array:
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

    def _held(self, gradient: Deltas) -> Deltas:
        """The gradient, 0 at the positions whose entries may not move."""
        movable = self.movable
        if movable is None:
            return gradient
        return [{name: x * movable for name, x in layer.items()} for layer in gradient]

    def optimise(self, watch: Callable[[Deltas, Deltas], None] | None = None) -> tuple[Forward, list[Entries]]:
        """Run all steps; returns the forward and the undisturbed entries of the newest position.

        `watch` is called with each step's gradient and the deltas after it.
        """
        options, session = self.options, self.session
        deltas, rule = self.zeros(), UPDATES[options.update](options.lr)
        first: RelevanceResult | None = None
        reference, records = None, []
        for _ in range(options.steps - 1):
            loss = self.loss(deltas, reference)
            if first is None:
                # Gates and reports are about the token's own logit.
                first = self.forward(deltas) if self.contrast else loss.result
                reference = mx.stop_gradient(loss.result.logits)
                if self.skip is not None and self.skip(first):
                    return self._plain(first), first.entries
            deltas = rule.update(loss.gradient, deltas)
            mx.eval(deltas, loss.result.logits, loss.result.relevance, loss.rel, loss.kl)
            if session.want_trace:
                records.append(_record(loss, options.kl, deltas))
            if watch is not None:
                watch(loss.gradient, deltas)
        if first is None or reference is None:
            first = self.forward(deltas)
            return self._plain(first), first.entries
        logits = self.last_logits(deltas)
        mx.eval(logits)
        if not mx.isfinite(logits).all().item():
            raise NumericalError(f"lime gave logits that are not finite at lr {options.lr:g}; use a smaller lr.")
        trace = _gathered(records, reference, logits) if records else {}
        # The next token's arrays are one position longer: what the pool holds would not be used again.
        del deltas, rule
        mx.clear_cache()
        logits = self._allowed(logits, reference)
        picked = mx.argmax(session.scores(logits))
        same = picked.item() == first.target.item()
        relevance = np.array(first.relevance) if same else self._relevance(self.forward(self.zeros(), picked))
        return Forward(logits, relevance, trace, optimised=True), first.entries

    def _plain(self, result: RelevanceResult) -> Forward:
        return Forward(result.logits, self._relevance(result))

    def _relevance(self, result: RelevanceResult) -> NDArray[np.float32] | None:
        wanted = self.session.wants_relevance_of(int(result.target))
        return np.array(result.relevance) if wanted else None


class Fast(TokenOptimizer):
    """The newest position against the cache; relevance is read at the cache entries."""

    def run(self) -> Forward:
        session = self.session
        session.prefill()
        forward, entries = self.optimise()
        mx.eval(forward.logits, entries)
        session.cache.append(entries)
        return forward

    def forward(self, deltas: Deltas, target: Target = None, contrast: bool = False) -> RelevanceResult:
        return self.session.relevance(_pairs(deltas), self.rules, target, contrast=contrast)

    def last_logits(self, deltas: Deltas) -> mx.array:
        session = self.session
        memory = overlays(session.cache.entries(), _pairs(deltas))
        hidden = self.decoder(session.newest, memory, self.length - 1, self.rules, session.positions)
        return self.decoder.head(hidden[0, -1], self.rules)


class Exact(TokenOptimizer):
    """The whole sequence at every step, block by block, as the official code computes it."""

    def run(self) -> Forward:
        return self.optimise()[0]

    def forward(self, deltas: Deltas, target: Target = None, contrast: bool = False) -> RelevanceResult:
        session = self.session
        return exact(
            self.decoder,
            session.embeds,
            self.rules,
            _pairs(deltas),
            session.scores,
            target,
            checkpoint=self.checkpointed(),
            positions=session.positions,
            contrast=contrast,
        )

    def loss(self, deltas: Deltas, reference: mx.array | None) -> Loss:
        if not self.checkpointed():
            return super().loss(deltas, reference)
        embeds, positions = self.session.embeds, self.session.positions
        result = self.forward(deltas, contrast=self.contrast)
        rel, weights = mx.value_and_grad(self.relevance_loss)(result.relevance)

        def objective(free: Deltas) -> tuple[mx.array, mx.array]:
            logits, slope = exact_slope(self.decoder, embeds, weights, self.rules, _pairs(free), positions)
            kl = mx.array(0.0) if reference is None else self.divergence(reference, logits)
            explained = slope[result.target]
            if result.rival is not None:
                explained = explained - slope[result.rival]
            return explained + self.options.kl * kl, kl

        (_, kl), gradient = mx.value_and_grad(objective)(deltas)
        return Loss(result, rel, kl, self._held(gradient))

    def checkpointed(self) -> bool:
        """Whether blocks are run again in the backward pass instead of being kept."""
        config, choice = self.decoder.config, self.options.checkpoint
        weights = config.num_hidden_layers * config.num_attention_heads * self.length**2 * 4
        return choice == "on" or (choice == "auto" and not backend.fits(HELD_ATTENTIONS * weights, 1 / 4))

    def last_logits(self, deltas: Deltas) -> mx.array:
        memory = overlays([None] * len(deltas), _pairs(deltas))
        hidden = self.decoder(self.session.embeds, memory, rules=self.rules, positions=self.session.positions)
        return self.decoder.head(hidden[0, -1], self.rules)


def _pairs(deltas: Deltas) -> list[Delta]:
    return [(layer.get("k"), layer.get("v")) for layer in deltas]


def _record(loss: Loss, weight: float, deltas: Deltas) -> Trace:
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
