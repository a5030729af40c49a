"""LIME: optimise deltas on the keys and values of one token so that its logit rests on the picture or the sound.

Allouche and Keshet, arXiv 2605.01766. For every token, L = L_rel + lambda * L_KL is lowered, starting at zero:
L_rel = -mean over the modality positions of log softmax(R / tau), R the relevance of the token that would be picked;
L_KL keeps the distribution near the undisturbed one. `exact` computes the official code's numbers over the whole
sequence; `fast` runs the newest token only and reads R at the cache entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial

import mlx.core as mx
import numpy as np

from lime_mlx.errors import MethodError
from lime_mlx.lrp.relevance import RelevanceResult, reliance
from lime_mlx.models.base import Model
from lime_mlx.session import Session
from lime_mlx.support.detector import Detector
from lime_mlx.support.statistics import from_logits, from_relevance

from .base import Forward, Method, Prepared, layer_range, needs_media, parse_layers
from .token_optimizer import Exact, Fast, Options
from .updates import UPDATES

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

    def __post_init__(self) -> None:
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

    def prepare(self, model: Model) -> PreparedLime:
        """Fill in what was left out: the checkpoint's own values ("lime" in config.json), else the family's."""
        values = {**self._defaults(model), **_stored(model.config.get("lime"), self.mode)}
        filled = replace(self, **{key: value for key, value in values.items() if getattr(self, key) is None})
        layers = layer_range("lime", self.layers, len(model.language_model.layers))
        detector = Detector.from_config(model.config)
        if filled.words == "doubtful" and detector is None:
            raise MethodError("lime: words=doubtful needs a model that was calibrated; take words=content.")
        options = {field.name: getattr(filled, field.name) for field in fields(Options)}
        return PreparedLime(
            Options(**{**options, "layers": layers}), str(filled.words), filled.gate, filled.doubt, detector
        )

    def _defaults(self, model: Model) -> dict[str, object]:
        steps, lr, kl, tau = OFFICIAL.get(model.config.get("model_type", ""), OFFICIAL["llava"])
        if self.mode == "exact":
            return {"steps": steps, "lr": lr, "kl": kl, "tau": tau, "heads": "query", "words": "all"}
        fast = {"steps": FAST_STEPS, "lr": FAST_STRETCH * lr, "kl": kl, "tau": tau}
        return {**fast, "heads": "kv", "words": "content"}


@dataclass(frozen=True)
class PreparedLime(Prepared):
    """LIME made ready for a model, with the gates that leave a token alone.

    words, gate, threshold: the options of `Lime`; threshold None takes the detector's own.
    """

    options: Options
    words: str
    gate: float | None
    threshold: float | None
    detector: Detector | None

    @property
    def caches(self) -> bool:
        return self.options.mode == "fast"

    def step(self, session: Session) -> Forward:
        needs_media("lime", session)
        if self.caches:
            return Fast(self.options, session, partial(self.skips, session)).run()
        if self.words == "content" and session.content is not None and not session.want_relevance:
            # One plain forward tells whether the token names anything.
            session.prefill()
            logits = session.extend()
            if self.names_nothing(session, int(mx.argmax(session.scores(logits)))):
                return Forward(logits)
        return Exact(self.options, session, partial(self.skips, session)).run()

    def names_nothing(self, session: Session, token: int) -> bool:
        """Whether `token` can name nothing, and so is left as it is."""
        return self.words != "all" and session.content is not None and not session.content[token]

    def skips(self, session: Session, result: RelevanceResult) -> bool:
        """The gates: by content token, then by the detector or by reliance."""
        token = int(result.target)
        if self.names_nothing(session, token):
            return True
        relevance = np.array(result.relevance)
        if self.words == "doubtful" and self.detector is not None:
            threshold = self.detector.threshold if self.threshold is None else self.threshold
            statistics = from_relevance(relevance, session.modality) | from_logits(np.array(result.logits), token)
            if self.detector.p_unsupported(statistics) < threshold:
                return True
        return self.gate is not None and reliance(relevance, session.modality) >= self.gate


def _stored(values: object, mode: str) -> dict[str, object]:
    """A checkpoint's own values for a mode, from "lime" in config.json."""
    of_mode = values.get(mode, {}) if isinstance(values, Mapping) else {} if values is None else None
    if not isinstance(of_mode, dict) or not all(_storable(key, value) for key, value in of_mode.items()):
        raise MethodError(
            f'config.json has values for lime that are unknown or of the wrong kind: "lime": {{"{mode}": {{...}}}} '
            f"takes {', '.join(STORED)}."
        )
    return of_mode


def _storable(key: object, value: object) -> bool:
    if key == "words":
        return value in CHOICES["words"]
    return key in STORED and isinstance(value, int if key == "steps" else int | float)
