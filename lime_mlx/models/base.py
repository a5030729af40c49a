"""What every family shares: the interface that methods and the generation loop see."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from lime_mlx.errors import PromptError
from lime_mlx.lrp.rules import PLAIN, Rules
from lime_mlx.prompt import Pictures, Prompt, Span

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


class Model(nn.Module):
    """A family: tower and connector (its own), and `language_model`, the one decoder.

    A subclass sets `renames` (weight spellings to ours, applied in order), and, when it takes media, overrides
    `embed`, `spans` and `pictures`. `chat_template` serves checkpoints that have none.
    """

    renames: Renames = ()
    drop = ("position_ids", "rotary_emb.inv_freq")
    chat_template: str | None = None

    language_model: Decoder

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self._config = config

    @property
    def config(self) -> dict[str, Any]:
        """config.json as it was read."""
        return self._config

    @classmethod
    def pictures(cls, config: dict[str, Any], settings: dict[str, Any]) -> Pictures | None:
        """How pictures are taken, by config.json and preprocessor_config.json; None when they are not."""
        return None

    @classmethod
    def rename(cls, name: str) -> str:
        """Our name of one weight or module path."""
        return next(iter(rename({name: None}, cls.renames)))

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

    def spans(self, prompt: Prompt) -> tuple[Span, ...]:
        """Which positions came from a picture or a sound."""
        return tuple(prompt.spans or ())

    def ids(self, prompt: Prompt) -> mx.array:
        ids, vocabulary = prompt.input_ids, self.language_model.config.vocab_size
        outside = ids[(ids < 0) | (ids >= vocabulary)]
        if outside.size:
            raise PromptError(f"Token id {outside[0]} is outside the model's vocabulary of {vocabulary}.")
        return mx.array(ids)

    def logits(self, prompt: Prompt, rules: Rules = PLAIN) -> mx.array:
        """Logits (T, V) in float32 at all positions."""
        decoder = self.language_model
        return decoder.head(decoder(self.embed(prompt), rules=rules))[0]


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
