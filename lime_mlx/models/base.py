"""What every family shares: the interface that methods and the generation loop see."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from lime_mlx.errors import PromptError
from lime_mlx.lrp.rules import PLAIN, Rules
from lime_mlx.positions import SEQUENCE, Positions
from lime_mlx.processor import Medium, Settings
from lime_mlx.prompt import MODALITIES, Prompt, Span, modality_mask

from .decoder import Decoder

Renames = Sequence[tuple[str, str]]


def rename(weights: dict[str, mx.array], renames: Renames, drop: Iterable[str] = ()) -> dict[str, mx.array]:
    """Apply (regex, replacement) pairs in order to every name; drop names that contain one of `drop`."""
    out = {}
    for name, value in weights.items():
        if any(part in name for part in drop):
            continue
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        out[name] = value
    return out


class Inputs(NamedTuple):
    """What the decoder starts from: merged embeddings (1, T, D), and where their positions stand."""

    embeds: mx.array
    positions: Positions = SEQUENCE


class Model(nn.Module):
    """A family: tower and connector (its own), and `language_model`, the one decoder.

    A subclass sets `renames` (weight spellings to ours, applied in order), and, when it takes media, overrides
    `embed` or `inputs`, `spans` and `media`. `chat_template` serves checkpoints that have none. `framed`: a token of
    its own stands before and after each picture or sound and belongs to it. `published`: from our names to those under
    which MLX checkpoints are shared (mlx-vlm, mlx-lm), where they differ; `published_head`: a tied head is among them.
    """

    renames: Renames = ()
    published: Renames = ()
    published_head = False
    drop = ("position_ids", "rotary_emb.inv_freq")
    chat_template: str | None = None
    framed = False

    language_model: Decoder

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self._config = config

    @property
    def config(self) -> dict[str, Any]:
        """config.json as it was read, with the detector that the user calibrated, if any."""
        return self._config

    @classmethod
    def media(cls, config: dict[str, Any], settings: Settings) -> Sequence[Medium]:
        """How pictures and sounds are taken, by config.json and the settings of the processor."""
        return ()

    @classmethod
    def text(cls, config: dict[str, Any]) -> dict[str, Any]:
        """The part of config.json that describes the decoder."""
        return config.get("text_config") or config

    @classmethod
    def template(cls, config: dict[str, Any]) -> str | None:
        """The chat template of checkpoints that have none."""
        return cls.chat_template

    @classmethod
    def rename(cls, name: str) -> str:
        """Our name of one weight or module path."""
        return next(iter(rename({name: None}, cls.renames)))

    @classmethod
    def publish(cls, name: str) -> str:
        """The name of one weight or module path in MLX checkpoints, of which `rename` makes ours again."""
        return next(iter(rename({name: None}, cls.published)))

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """Names and layouts of this module tree, from any known spelling. Idempotent."""
        weights = rename(weights, self.renames, self.drop)
        if "lm_head" not in self.language_model:
            weights = {k: v for k, v in weights.items() if not k.startswith("language_model.lm_head.")}
        return weights

    def embed(self, prompt: Prompt) -> mx.array:
        """Merged input embeddings (1, T, D): text, with media features in their places."""
        if prompt.media:
            raise PromptError("This model reads text only; leave the picture or sound out, or choose another model.")
        return self.language_model.embed(self.ids(prompt))

    def inputs(self, prompt: Prompt) -> Inputs:
        """Merged input embeddings, and where the positions stand and what they see."""
        return Inputs(self.embed(prompt))

    def spans(self, prompt: Prompt) -> tuple[Span, ...]:
        """Which positions came from a picture or a sound."""
        return tuple(prompt.spans or ())

    @property
    def context(self) -> int | None:
        """The most positions that config.json states for the decoder; None where it states none."""
        stated = self.text(self._config).get("max_position_embeddings")
        return stated if isinstance(stated, int) and not isinstance(stated, bool) and stated > 0 else None

    def modalities(self, prompt: Prompt) -> dict[str, np.ndarray]:
        """(T,) bool for "image" and "audio": positions that count as picture and as sound.

        Spans that the prompt itself gives count as they are.
        """
        spans = self.spans(prompt)
        if self.framed and prompt.spans is None:
            spans = [Span(s.kind, max(s.start - 1, 0), min(s.stop + 1, len(prompt))) for s in spans]
        return {kind: modality_mask([s for s in spans if s.kind == kind], len(prompt)) for kind in MODALITIES}

    def modality(self, prompt: Prompt) -> np.ndarray:
        """(T,) bool: positions that count as picture or sound."""
        return np.any(list(self.modalities(prompt).values()), axis=0)

    def ids(self, prompt: Prompt) -> mx.array:
        ids, vocabulary = prompt.input_ids, self.language_model.config.vocab_size
        outside = ids[(ids < 0) | (ids >= vocabulary)]
        if outside.size:
            raise PromptError(f"Token id {outside[0]} is outside the model's vocabulary of {vocabulary}.")
        return mx.array(ids)

    def logits(self, prompt: Prompt, rules: Rules = PLAIN) -> mx.array:
        """Logits (T, V) in float32 at all positions."""
        decoder, (embeds, positions) = self.language_model, self.inputs(prompt)
        return decoder.head(decoder(embeds, rules=rules, positions=positions), rules)[0]


def merge(embeds: mx.array, features: mx.array, positions: np.ndarray, what: str) -> mx.array:
    """Put `features` (N, D) at `positions` (N,) of `embeds` (1, T, D)."""
    if len(positions) != features.shape[0]:
        raise PromptError(
            f"The prompt has room for {len(positions)} {what} tokens, but the {what} gives {features.shape[0]}; "
            f"the placeholder must be repeated once for every {what} token."
        )
    index = np.zeros(embeds.shape[1], dtype=np.int32)
    index[positions] = np.arange(len(positions))
    place = np.zeros((1, embeds.shape[1], 1), dtype=bool)
    place[0, positions] = True
    return mx.where(mx.array(place), features[mx.array(index)][None].astype(embeds.dtype), embeds)


def media_array(value: Any, dtype: mx.Dtype) -> mx.array:
    return (value if isinstance(value, mx.array) else mx.array(np.ascontiguousarray(value))).astype(dtype)
