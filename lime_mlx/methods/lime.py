"""LIME: optimise deltas on the keys and values of one token so that its logit rests on the picture or the sound.

Allouche and Keshet, arXiv 2605.01766. For every token, L = L_rel + lambda * L_KL is lowered, starting at zero:
L_rel = -mean over the modality positions of log softmax(R / tau), R the relevance of the token that would be picked;
L_KL keeps the distribution near the undisturbed one. `exact` computes the official code's numbers over the whole
sequence; `fast` runs the newest token only and reads R at the cache entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated, Literal

import mlx.core as mx
import numpy as np

from lime_mlx import limits
from lime_mlx.errors import MethodError
from lime_mlx.lrp.relevance import reliance
from lime_mlx.lrp.rules import NAMES
from lime_mlx.models.base import Model
from lime_mlx.session import Session
from lime_mlx.spec import Choice, Range, options, renamed
from lime_mlx.support.detector import Detector
from lime_mlx.support.statistics import from_logits, from_relevance

from .base import Forward, Layers, Method, Prepared, layer_range, needs_media
from .token_optimizer import Exact, Fast, First, Options
from .updates import UPDATES

# steps, lr, kl, tau of the official code (arXiv 2605.01766), by model_type; anything else takes "llava"'s.
OFFICIAL = {
    "llava": (7, 3e-4, 0.1, 0.1),
    "qwen2_5_vl": (7, 3e-4, 0.1, 0.1),
    "qwen2_audio": (7, 5e-4, 0.007, 0.1),
}
# A token that names nothing needs this share of the largest probability to take a word's place.
BETA = 1e-3
# One update instead of six, six times as long: Adam's updates have about the length lr each. Not tuned on 7B models.
FAST_STEPS, FAST_STRETCH = 2, 6

# What config.json of a checkpoint may say for itself.
STORED = ("steps", "lr", "kl", "tau", "positions", "gate", "words", "threshold", "replace", "beta")


@dataclass(frozen=True)
class Lime(Method):
    """`lime:key=value,...`.

    steps: forwards per token, the last of which gives the token (7 means 6 updates, as in the official code).
    lr, kl (lambda), tau: None takes the checkpoint's own value or its family's.
    objective: what is lowered, see `relevance_loss`. target: explained is the logit of the token that would be picked,
    or its margin over the runner-up's. update: the step rule, see `updates`.
    layers: "all", "3", "0-15" (inclusive) or "3-". deltas: on keys, values or both. heads: one delta per key-value head
    or per query head (exact: always query). kl_direction: KL(reference || perturbed) as in the code, or the paper's.
    gate: only tokens whose reliance is below it. words: only content tokens, where the prompt knows them, or of these
    only those that the checkpoint's detector flags: at its own threshold, or at `threshold`. It flags none where the
    input is not like those of its calibration.
    checkpoint: exact runs every block again instead of keeping it; auto does so when all would not fit in a quarter of
    the memory. fast with several updates makes the deltas again wherever they are used; auto does so when memory is
    short. positions: whose entries move: all, as published; those of the prompt, so that the answer's own words
    stay as they are; or those of the picture or sound. replace: which tokens may take a word's place: any; names: those
    that can name something, and plausible ones; or only plausible ones, which have at least beta times the largest
    probability of plain decoding. None: any in the published forms (exact, words=all), else names.
    """

    name = "lime"
    old_spellings = {"doubt": "threshold", "words=doubtful": "words=flagged"}

    mode: Literal["fast", "exact"] = "fast"
    steps: Annotated[int, Range(1, limits.STEPS.most)] | None = None
    lr: Annotated[float, Range(0)] | None = None
    kl: Annotated[float, Range(0)] | None = None
    tau: Annotated[float, Range(0, exclusive=True)] | None = None
    layers: Layers = "all"
    rules: Annotated[str, Choice(*NAMES)] = "attnlrp"
    objective: Literal["uniform", "mass", "share"] = "uniform"
    target: Literal["argmax", "contrast"] = "argmax"
    update: Annotated[str, Choice(*UPDATES)] = "adam"
    kl_direction: Literal["code", "paper"] = "code"
    deltas: Literal["kv", "k", "v"] = "kv"
    heads: Literal["kv", "query"] | None = None
    gate: Annotated[float, Range(0)] | None = None
    words: Literal["content", "flagged", "all"] | None = None
    threshold: Annotated[float, Range(0)] | None = None
    checkpoint: Literal["auto", "on", "off"] = "auto"
    positions: Literal["all", "prompt", "media"] | None = None
    replace: Literal["any", "names", "plausible"] | None = None
    beta: Annotated[float, Range(0, 1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode == "exact" and self.heads == "kv":
            raise MethodError("lime: heads=kv goes with mode=fast; exact puts deltas on query heads as the code does.")

    def prepare(self, model: Model) -> PreparedLime:
        """Fill in what was left out: the checkpoint's own values ("lime" in config.json), else the family's."""
        values = {**self._defaults(model), **_stored(model.config.get("lime"), self.mode)}
        missing = {key: value for key, value in values.items() if getattr(self, key) is None}
        filled = Lime(**{**vars(self), **missing})
        if filled.replace is None:
            published = filled.mode == "exact" or filled.words == "all"
            filled = Lime(**{**vars(filled), "replace": "any" if published else "names"})
        layers = layer_range("lime", self.layers, len(model.language_model.layers))
        detector = Detector.from_config(model.config)
        if filled.words == "flagged" and detector is None:
            raise MethodError("lime: words=flagged needs a model that was calibrated; take words=content.")
        chosen = {field.name: getattr(filled, field.name) for field in fields(Options)}
        return PreparedLime(
            Options(**{**chosen, "layers": layers}), str(filled.words), filled.gate, filled.threshold, detector
        )

    def _defaults(self, model: Model) -> dict[str, object]:
        steps, lr, kl, tau = OFFICIAL.get(model.config.get("model_type", ""), OFFICIAL["llava"])
        if self.mode == "exact":
            values = {"steps": steps, "lr": lr, "heads": "query", "words": "all"}
        else:
            values = {"steps": FAST_STEPS, "lr": FAST_STRETCH * lr, "heads": "kv", "words": "content"}
        return {**values, "kl": kl, "tau": tau, "positions": "all", "beta": BETA}


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
        exact = Exact(self.options, session, partial(self.skips, session))
        if self.words == "content" and session.content is not None:
            # One plain forward tells whether the token names anything.
            logits = session.extend()
            token = mx.argmax(session.scores(logits))
            if self.leaves(session, int(token)):
                wanted = session.wants_relevance_of(int(token))
                return Forward(logits, np.array(exact.relevance_of(token)) if wanted else None)
        return exact.run()

    def leaves(self, session: Session, token: int) -> bool:
        """Whether `token` is left as it is: it names nothing, or a word of the question."""
        return self.words != "all" and not session.may_judge(token)

    def skips(self, session: Session, result: First) -> bool:
        """The gates: by content token, then by the detector or by reliance."""
        token = int(result.target)
        if self.leaves(session, token):
            return True
        if self.words == "flagged" and self.detector is not None:
            if session.in_domain is False:
                return True
            relevance = np.array(result.relevance)
            threshold = self.detector.threshold if self.threshold is None else self.threshold
            statistics = from_relevance(relevance, session.modality) | from_logits(np.array(result.logits), token)
            if self.detector.p_unsupported(statistics) < threshold:
                return True
        return self.gate is not None and reliance(np.array(result.relevance), session.modality) >= self.gate


def _stored(values: object, mode: str) -> dict[str, object]:
    """A checkpoint's own values for a mode, from "lime" in config.json; old spellings are read."""
    of_mode = values.get(mode, {}) if isinstance(values, Mapping) else {} if values is None else None
    if isinstance(of_mode, Mapping):
        stored = dict(renamed(key, value, Lime.old_spellings) for key, value in of_mode.items())
        if all(_storable(key, value) for key, value in stored.items()):
            return stored
    raise MethodError(
        f'config.json has values for lime that are unknown or of the wrong kind: "lime": {{"{mode}": {{...}}}} '
        f"takes {', '.join(STORED)}."
    )


def _storable(key: str, value: object) -> bool:
    return key in STORED and options(Lime)[key].problem(value) is None
