"""The thinker of Qwen2.5-Omni: pictures as in Qwen2.5-VL, and sounds in windows. The part that speaks is not built.

Paper: Xu et al. 2025, "Qwen2.5-Omni Technical Report" (arXiv 2503.20215).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from lime_mlx.errors import CheckpointError
from lime_mlx.files import Json
from lime_mlx.lrp.rules import PLAIN
from lime_mlx.media.mel import Mel
from lime_mlx.processor import AnyMedium, Settings
from lime_mlx.products import product
from lime_mlx.prompt import Part, Prompt

from .base import Renames, Weights, media_array
from .layers import LayerNorm, Tower
from .qwen2_5_vl import Qwen25VL
from .qwen2_audio import audio_token, frames, hearing, sound_parts
from .towers.whisper import EPS, Block, WhisperConfig, laid_out, positions, sinusoids

if TYPE_CHECKING:
    from typing_extensions import Self

POSITIONS_PER_SECOND = 25


@dataclass(frozen=True)
class OmniAudioConfig(WhisperConfig):
    """n_window: half the mel frames of an attention window. output_dim: width of a feature."""

    n_window: int = 100
    output_dim: int = 3584

    @classmethod
    def from_dict(cls, values: Json) -> Self:
        kind = values.get("model_type", "qwen2_5_omni_audio_encoder")
        if kind != "qwen2_5_omni_audio_encoder":
            raise CheckpointError(f"The sound tower is {kind!r}; only qwen2_5_omni_audio_encoder is supported.")
        config = super().from_dict(values)
        if not 1 <= config.n_window <= config.max_source_positions:
            raise CheckpointError(
                f"n_window of audio_config is {config.n_window}; 1 to {config.max_source_positions} "
                "(max_source_positions) fit."
            )
        return config


class AudioTower(Tower):
    """Whisper's layers on windows of a sound, each with positions of its own."""

    def __init__(self, config: OmniAudioConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.d_model, 3, padding=1)
        self.conv2 = nn.Conv1d(config.d_model, config.d_model, 3, stride=2, padding=1)
        self.layers = [Block(config) for _ in range(config.encoder_layers)]
        self.ln_post = LayerNorm(config.d_model, EPS)
        self.proj = nn.Linear(config.d_model, config.output_dim)
        self._positions = sinusoids(config.max_source_positions, config.d_model)

    def __call__(self, sounds: list[mx.array]) -> mx.array:
        """Features of all sounds one after the other, (tokens, D); a sound is mel (bins, frames)."""
        window = 2 * self.config.n_window
        parts = [sound[:, start : start + window] for sound in sounds for start in range(0, sound.shape[1], window)]
        lengths = np.array([part.shape[1] for part in parts])
        mel = mx.stack([mx.pad(part, [(0, 0), (0, int(lengths.max()) - part.shape[1])]) for part in parts])
        frames = mx.arange(mel.shape[2])[None, :, None] < mx.array(lengths)[:, None, None]
        h = PLAIN.activation(self.conv1(mel.swapaxes(1, 2)), "gelu") * frames
        h = PLAIN.activation(self.conv2(h), "gelu")
        h = h + self._positions[: h.shape[1]].astype(h.dtype)
        valid = positions(lengths)
        mask = (mx.arange(h.shape[1]) < mx.array(valid)[:, None])[:, None, None]
        for layer in self.layers:
            h = layer(h, mask)
        rows, features = iter(zip(h, valid.tolist(), strict=True)), []
        for sound in sounds:
            count = -(-sound.shape[1] // window)
            states = mx.concatenate([row[:length] for row, length in (next(rows) for _ in range(count))])
            pairs = states[: states.shape[0] // 2 * 2].reshape(-1, 2, states.shape[1])
            features.append(pairs.mean(axis=1))
        return product(self.proj, self.ln_post(mx.concatenate(features)))

    def sanitize(self, weights: Weights, prefix: str) -> Weights:
        return laid_out(weights, prefix, self.config)


class Qwen25Omni(Qwen25VL):
    renames: ClassVar[Renames] = (
        (r"^thinker\.", ""),
        (r"^model\.(audio_tower|visual)\.", r"\1."),
        *Qwen25VL.renames[:2],
        (r"^model\.", "language_model.model."),
        *Qwen25VL.renames[3:],
    )
    drop = (*Qwen25VL.drop, "talker.", "token2wav.", "audio_bos_eos_token")
    published = ((r"^", "thinker."),)
    chat_template = "qwen2_5_omni"

    def __init__(self, config: Json) -> None:
        inner = thinker(config)
        super().__init__(inner)
        self._config = config
        audio, width = hearing_config(inner), self.language_model.config.hidden_size
        if audio.output_dim != width:
            raise CheckpointError(
                f"The audio tower of config.json gives features of width {audio.output_dim}, "
                f"but the text part takes {width}."
            )
        self.step = step(inner)
        self.audio_tower = AudioTower(audio)

    @classmethod
    def text(cls, config: Json) -> Json:
        inner = thinker(config)
        return {**super().text(inner), "tie_word_embeddings": inner.get("tie_word_embeddings", False)}

    @classmethod
    def tokens(cls, config: Json) -> dict[str, int]:
        inner = thinker(config)
        return {**super().tokens(inner), "audio": audio_token(inner)}

    @classmethod
    def media(cls, config: Json, settings: Settings) -> Sequence[AnyMedium]:
        inner = thinker(config)
        mel = Mel.from_dict({"feature_size": hearing_config(inner).num_mel_bins, **settings.audio})
        return [*super().media(inner, settings), hearing(audio_token(inner), mel)]

    def parts(self, kind: str, media: Mapping[str, object]) -> Sequence[Part]:
        return sound_parts(media) if kind == "audio" else super().parts(kind, media)

    def sanitize(self, weights: Weights) -> Weights:
        weights = super().sanitize(weights)
        for index in range(len(self.vision_tower.blocks)):
            path = f"vision_tower.blocks.{index}.attn"
            for kind in ("weight", "bias", "scales", "biases"):
                parts = [f"{path}.{part}.{kind}" for part in "qkv"]
                if all(name in weights for name in parts):
                    weights[f"{path}.qkv.{kind}"] = mx.concatenate([weights.pop(name) for name in parts])
        return weights

    def sounds(self, prompt: Prompt) -> mx.array:
        return self.audio_tower(self.spectra(prompt))

    def spectra(self, prompt: Prompt) -> list[mx.array]:
        """The mel frames (bins, frames) of each sound, without padding."""
        mel, mask = frames(prompt.media, self.audio_tower.config.num_mel_bins)
        dtype = self.audio_tower.conv1.weight.dtype
        return [media_array(sound[:, real], dtype) for sound, real in zip(mel, mask, strict=True)]


def thinker(config: Json) -> Json:
    """The thinker's part of config.json, with the names of Qwen2.5-VL for the same keys."""
    inner = config.get("thinker_config") or config
    image = inner.get("image_token_id")
    image = inner.get("image_token_index") if image is None else image
    return {**inner, "model_type": "qwen2_5_omni", "image_token_id": image}


def hearing_config(inner: Json) -> OmniAudioConfig:
    return OmniAudioConfig.from_dict(inner.get("audio_config") or {})


def step(inner: Json) -> int:
    """The distance in positions between two frames of a picture, which are a second apart."""
    count = inner.get("position_id_per_seconds")
    count = POSITIONS_PER_SECOND if count is None else count
    if not isinstance(count, int) or count < 1:
        raise CheckpointError(f"position_id_per_seconds of config.json is {count!r}; a number from 1 on is needed.")
    return count
