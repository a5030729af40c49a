"""LIME: optimise deltas on the keys and values of one token so that its logit rests on the picture or the sound.

Allouche and Keshet, arXiv 2605.01766. For every token, L = L_rel + lambda * L_KL is lowered, starting at zero:
L_rel = -mean over the modality positions of log softmax(R / tau), R the relevance of the token that would be picked;
L_KL keeps the distribution near the undisturbed one. `exact` computes the official code's numbers over the whole
sequence; `fast` runs the newest token only and reads R at the cache entries.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np

from lime_mlx.backend import memory_total
from lime_mlx.cache import overlays
from lime_mlx.errors import MethodError, NumericalError
from lime_mlx.lrp.relevance import RelevanceResult, exact, exact_slope, reliance
from lime_mlx.lrp.rules import rules
from lime_mlx.methods.base import Forward, Method, layer_range, needs_media, parse_layers
from lime_mlx.session import Session
from lime_mlx.support.detector import Detector
from lime_mlx.support.statistics import from_logits, from_relevance

from .updates import UPDATES, norm

# steps, lr, kl, tau of the official code (arXiv 2605.01766), by model_type; anything else takes "llava"'s.
OFFICIAL = {
    "llava": (7, 3e-4, 0.1, 0.1),
    "qwen2_5_vl": (7, 3e-4, 0.1, 0.1),
    "qwen2_audio": (7, 5e-4, 0.007, 0.1),
}
# One update instead of six, six times as long: Adam's updates have about the length lr each. Not tuned on 7B models.
FAST_STEPS, FAST_STRETCH = 2, 6

CHOICES = {
    "mode": ("fast", "exact"),
    "rules": ("attnlrp", "cplrp", "mlplrp", "plain"),
    "objective": ("uniform", "mass", "share"),
    "target": ("argmax", "contrast"),
    "update": tuple(UPDATES),
    "kl_direction": ("code", "paper"),
    "deltas": ("kv", "k", "v"),
    "heads": ("kv", "query"),
    "words": ("content", "doubtful", "all"),
    "checkpoint": ("auto", "on", "off"),
}
# Exact without checkpoints holds about this many times the attention weights of all layers (measured: 9).
HELD_ATTENTIONS = 12
# What config.json of a checkpoint may say for itself.
STORED = ("steps", "lr", "kl", "tau", "gate", "words", "doubt")


@dataclass(frozen=True)
class Lime(Method):
    """`lime:key=value,...`.

    steps: forwards per token, the last of which gives the token (7 means 6 updates, as in the official code).
    lr, kl (lambda), tau: None takes the checkpoint's own value or its family's.
    objective: what is lowered, see `relevance_loss`. target: explained is the logit of the token that would be picked,
    or its margin over the runner-up's. update: the step rule, see `updates`.
    layers: "all", "3", "0-15" (inclusive) or "3-". deltas: on keys, values or both. heads: one delta per key-value head
    or per query head (exact: always query). kl_direction: KL(reference || perturbed) as in the code, or the paper's.
    gate: only tokens whose reliance is below it. words: only tokens that name something, when the tokenizer is known,
    or of these only those that the checkpoint's detector doubts: by its own threshold, or from the probability `doubt`.
    checkpoint: exact runs every block again instead of keeping it; auto does so when all would not fit in a quarter of
    the memory.
    """

    name = "lime"

    mode: str = "fast"
    steps: int | None = None
    lr: float | None = None
    kl: float | None = None
    tau: float | None = None
    layers: str = "all"
    rules: str = "attnlrp"
    objective: str = "uniform"
    target: str = "argmax"
    update: str = "adam"
    kl_direction: str = "code"
    deltas: str = "kv"
    heads: str | None = None
    gate: float | None = None
    words: str | None = None
    doubt: float | None = None
    checkpoint: str = "auto"

    @property
    def caches(self) -> bool:
        return self.mode == "fast"

    def __post_init__(self):
        for key, allowed in CHOICES.items():
            value = getattr(self, key)
            if value is not None and value not in allowed:
                raise MethodError(f"lime: {key} is {value!r}; choose one of {', '.join(allowed)}.")
        for key in ("lr", "kl", "tau", "gate", "doubt"):
            value = getattr(self, key)
            if value is not None and not (value >= 0 and np.isfinite(value)):
                raise MethodError(f"lime: {key} is {value}; it must be a number that is not negative.")
        if self.tau == 0:
            raise MethodError("lime: tau is 0; it divides the relevance and must be positive.")
        if self.steps is not None and self.steps < 1:
            raise MethodError(f"lime: steps is {self.steps}; it must be at least 1.")
        if self.mode == "exact" and self.heads == "kv":
            raise MethodError("lime: heads=kv goes with mode=fast; exact puts deltas on query heads as the code does.")
        parse_layers("lime", self.layers)

    def prepare(self, model: Any) -> "Lime":
        """Fill in what was left out: the checkpoint's own values ("lime" in config.json), else the family's."""
        steps, lr, kl, tau = OFFICIAL.get(model.config.get("model_type"), OFFICIAL["llava"])
        if self.mode == "fast":
            steps, lr = FAST_STEPS, FAST_STRETCH * lr
        family = {"steps": steps, "lr": lr, "kl": kl, "tau": tau}
        own = _stored(model.config.get("lime"), self.mode)
        rest = {
            "heads": "query" if self.mode == "exact" else "kv",
            "words": "all" if self.mode == "exact" else "content",
        }
        known = {**family, **rest, **own}
        layer_range("lime", self.layers, len(model.language_model.layers))
        filled = replace(self, **{k: v for k, v in known.items() if getattr(self, k) is None})
        if filled.words == "doubtful" and Detector.from_config(model.config) is None:
            raise MethodError("lime: words=doubtful needs a model that was calibrated; take words=content.")
        return filled

    def step(self, session: Session) -> Forward:
        needs_media("lime", session)
        search = (Exact if self.mode == "exact" else Fast)(self, session)
        return search.run()

    def skips(self, session: Session, token: int) -> bool:
        """Whether `token` names nothing, and so is left as it is."""
        return self.words != "all" and session.content is not None and not session.content[token]


class TokenOptimizer(ABC):
    """The optimisation of one token. Modes differ in how a forward and its relevance are computed."""

    heads: int
    length: int

    def __init__(self, method: Lime, session: Session):
        self.method, self.session, self.decoder = method, session, session.decoder
        self.rules = rules(method.rules)
        self.length = session.embeds.shape[1]
        mask = np.zeros(self.length, dtype=np.float32)
        mask[: len(session.modality)] = session.modality
        self.weights = mx.array(mask / mask.sum())
        self.contrast = method.target == "contrast"

    @abstractmethod
    def run(self) -> Forward:
        """Logits and what belongs to them."""

    @abstractmethod
    def read(self, deltas: list, target: mx.array | None = None, contrast: bool = False) -> RelevanceResult:
        """Logits, target and relevance under the deltas; `target` None is the token that would be picked."""

    def gradient(self, deltas: list, reference: mx.array | None) -> tuple[RelevanceResult, mx.array, mx.array, list]:
        """A reading under the deltas, L_rel, L_KL and the gradient of the whole objective; all lazy."""

        def loss(free):
            reading = self.read(free, contrast=self.contrast)
            rel = self.relevance_loss(reading.relevance)
            kl = mx.array(0.0) if reference is None else self.divergence(reference, reading.logits)
            return rel + self.method.kl * kl, rel, kl, tuple(reading)

        (_, rel, kl, reading), gradient = mx.value_and_grad(loss)(deltas)
        return RelevanceResult(*reading), rel, kl, gradient

    @abstractmethod
    def last(self, deltas: list) -> mx.array:
        """Logits (V,) under the deltas."""

    def relevance_loss(self, relevance: mx.array) -> mx.array:
        """uniform: cross-entropy of softmax(R / tau) to a uniform one over the picture or sound M, as published;
        mass: minus the logarithm of its sum over M; share: minus sum over M of R_i, over sum over all of |R_k|.
        """
        if self.method.objective == "share":
            return -mx.where(self.weights > 0, relevance, 0).sum() / mx.maximum(mx.abs(relevance).sum(), 1e-30)
        scaled = relevance / self.method.tau
        if self.method.objective == "mass":
            inside = mx.where(self.weights > 0, scaled, mx.finfo(scaled.dtype).min)
            return mx.logsumexp(scaled) - mx.logsumexp(inside)
        return -(self.weights * (scaled - mx.logsumexp(scaled))).sum()

    def divergence(self, reference: mx.array, logits: mx.array) -> mx.array:
        first, second = (x - mx.logsumexp(x) for x in (reference, logits))
        if self.method.kl_direction == "paper":
            first, second = second, first
        return (mx.exp(first) * (first - second)).sum()

    def zeros(self) -> list[dict[str, mx.array]]:
        """One dict a layer, {"k": (1, H, T, d), "v": ...}, with what the options let move."""
        config, count = self.decoder.config, len(self.decoder.layers)
        heads = config.num_attention_heads if self.method.heads == "query" else config.key_heads
        shape = (1, heads, self.length, config.dim)
        chosen = layer_range("lime", self.method.layers, count)
        return [
            {which: mx.zeros(shape) for which in self.method.deltas} if index in chosen else {}
            for index in range(count)
        ]

    def optimise(self, first: Callable | None = None, watch: Callable | None = None) -> tuple[Forward, list]:
        """Run all steps; returns the forward and the undisturbed entries of the newest position.

        `first`, given the first reading, may say that this token is left alone; `watch` sees each step's gradient and
        the deltas after it.
        """
        method, session = self.method, self.session
        deltas, rule = self.zeros(), UPDATES[method.update](method.lr)
        reference, opening, trace = None, None, []
        for step in range(method.steps - 1):
            reading, rel, kl, gradient = self.gradient(deltas, reference)
            if step == 0:
                # Gates and reports are about the token's own logit.
                opening = self.read(deltas) if self.contrast else reading
                reference = mx.stop_gradient(reading.logits)
                if first is not None and first(opening):
                    return Forward(opening.logits, self._relevance(opening)), opening.entries
            deltas = rule.update(gradient, deltas)
            mx.eval(deltas, reading.logits, reading.relevance, rel, kl)
            if session.want_trace:
                trace.append(_record(reading, rel, kl, method.kl, gradient, deltas))
            if watch is not None:
                watch(gradient, deltas)
        if opening is None:
            opening = self.read(deltas)
            return Forward(opening.logits, self._relevance(opening)), opening.entries
        logits = self.last(deltas)
        mx.eval(logits)
        if not mx.isfinite(logits).all().item():
            raise NumericalError(f"lime gave logits that are not finite at lr {method.lr:g}; use a smaller lr.")
        recorded = _gathered(trace, reference, logits) if session.want_trace else None
        # The next token's arrays are one position longer: what the pool holds would not be used again.
        del deltas, rule
        mx.clear_cache()
        said = mx.argmax(session.scores(logits))
        same = said.item() == opening.target.item()
        relevance = np.array(opening.relevance) if same else self._relevance(self.read(self.zeros(), said))
        return Forward(logits, relevance, recorded, optimised=True), opening.entries

    def _relevance(self, reading: RelevanceResult) -> np.ndarray | None:
        return np.array(reading.relevance) if self.session.want_relevance else None

    def leave(self, reading: RelevanceResult) -> bool:
        """The gates: by word, then by the detector or by reliance."""
        token, gate = int(reading.target), self.method.gate
        if self.method.skips(self.session, token):
            return True
        if self.method.words == "doubtful":
            detector = Detector.from_config(self.session.model.config)
            found = from_relevance(np.array(reading.relevance), self.session.modality)
            least = detector.threshold if self.method.doubt is None else self.method.doubt
            if detector.p_unsupported({**found, **from_logits(np.array(reading.logits), token)}) < least:
                return True
        return gate is not None and reliance(np.array(reading.relevance), self.session.modality) >= gate


class Fast(TokenOptimizer):
    """The newest token against the cache; relevance read at the cache entries."""

    def run(self) -> Forward:
        session = self.session
        session.prefill()
        forward, entries = self.optimise(self.leave)
        mx.eval(forward.logits, entries)
        session.cache.append(entries)
        return forward

    def read(self, deltas, target=None, contrast=False):
        return self.session.relevance(_pairs(deltas), self.rules, target, contrast=contrast)

    def last(self, deltas):
        memory = overlays(self.session.cache.entries(), _pairs(deltas))
        session = self.session
        hidden = self.decoder(session.newest, memory, self.length - 1, self.rules, session.positions)
        return self.decoder.head(hidden[0, -1], self.rules)


class Exact(TokenOptimizer):
    """The whole sequence at every step, block by block, as the official code computes it."""

    def run(self) -> Forward:
        session, method = self.session, self.method
        plain = None
        if method.words == "content" and session.content is not None:
            session.prefill()
            plain = session.extend()
            if not session.want_relevance and method.skips(session, int(mx.argmax(session.scores(plain)))):
                return Forward(plain)
        return self.optimise(self.leave)[0]

    def read(self, deltas, target=None, contrast=False):
        session, pairs = self.session, _pairs(deltas)
        how = {"checkpoint": self.checkpointed(), "positions": session.positions, "contrast": contrast}
        return exact(self.decoder, session.embeds, self.rules, pairs, session.process, target, **how)

    def gradient(self, deltas, reference):
        if not self.checkpointed():
            return super().gradient(deltas, reference)
        embeds, positions = self.session.embeds, self.session.positions
        reading = self.read(deltas, contrast=self.contrast)
        rel, weights = mx.value_and_grad(self.relevance_loss)(reading.relevance)

        def loss(free):
            logits, slope = exact_slope(self.decoder, embeds, weights, self.rules, _pairs(free), positions)
            kl = mx.array(0.0) if reference is None else self.divergence(reference, logits)
            explained = slope[reading.target]
            if self.contrast:
                explained = explained - slope[reading.rival]
            return explained + self.method.kl * kl, kl

        (_, kl), gradient = mx.value_and_grad(loss)(deltas)
        return reading, rel, kl, gradient

    def checkpointed(self) -> bool:
        config, choice = self.decoder.config, self.method.checkpoint
        weights = config.num_hidden_layers * config.num_attention_heads * self.length**2 * 4
        return choice == "on" or (choice == "auto" and HELD_ATTENTIONS * weights > memory_total() / 4)

    def last(self, deltas):
        memory = overlays([None] * len(deltas), _pairs(deltas))
        hidden = self.decoder(self.session.embeds, memory, rules=self.rules, positions=self.session.positions)
        return self.decoder.head(hidden[0, -1], self.rules)


def _pairs(deltas: Sequence[dict]) -> list[tuple]:
    return [(layer.get("k"), layer.get("v")) for layer in deltas]


def _stored(values: Any, mode: str) -> dict[str, Any]:
    """A checkpoint's own values for a mode, from "lime" in config.json."""
    own = values.get(mode, {}) if isinstance(values, dict) else {} if values is None else None
    if not isinstance(own, dict) or not all(_storable(key, value) for key, value in own.items()):
        raise MethodError(
            f'config.json has values for lime that are unknown or of the wrong kind: "lime": {{"{mode}": {{...}}}} '
            f"takes {', '.join(STORED)}."
        )
    return own


def _storable(key: str, value: Any) -> bool:
    if key == "words":
        return value in CHOICES["words"]
    return key in STORED and isinstance(value, int if key == "steps" else int | float)


def _record(reading, rel, kl, weight, gradient, deltas) -> dict[str, np.ndarray]:
    values = {
        "logits": reading.logits,
        "relevance": reading.relevance,
        "kl": kl,
        "rel_loss": rel,
        "total_loss": rel + weight * kl,
        "grad_norm": norm(gradient),
        "delta_norm": norm(deltas),
    }
    return {key: np.array(value) for key, value in values.items()}


def _gathered(trace: list[dict], reference: mx.array, last: mx.array) -> dict[str, np.ndarray]:
    stacked = {key: np.stack([record[key] for record in trace]) for key in trace[0]}
    stacked["logits"] = np.concatenate([stacked["logits"], np.array(last)[None]])
    return {**stacked, "ref_logits": np.array(reference)}
