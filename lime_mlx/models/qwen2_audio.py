"""Qwen2-Audio: Whisper features of the sound, through one linear layer, at the positions of the audio token.

Paper: Chu et al. 2024, "Qwen2-Audio Technical Report" (arXiv 2407.10759).
"""

import math
from collections.abc import Mapping, Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from lime_mlx.errors import CheckpointError, MediaError, PromptError
from lime_mlx.files import Json
from lime_mlx.media.audio import Sound, open_audio
from lime_mlx.media.mel import Mel
from lime_mlx.processor import AnyMedium, Medium, Prepared, Settings
from lime_mlx.products import product
from lime_mlx.prompt import Part, Prompt

from .base import Model, media_array, shape_of
from .config import TEXTS, DecoderConfig, check_type, token_id
from .decoder import Decoder
from .layers import Module
from .towers.whisper import WhisperConfig, WhisperTower, pooled, positions


class Projector(Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, width)

    def __call__(self, x: mx.array) -> mx.array:
        return product(self.linear, x)


class Qwen2Audio(Model):
    renames = (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.(audio_tower|multi_modal_projector)\.", r"\1."),
    )
    chat_template = "qwen2_audio"
    framed = True

    def __init__(self, config: Json) -> None:
        super().__init__(config)
        audio = audio_config(config)
        # As in transformers 5: `tie_word_embeddings` alone does not tie the head when the weights have one.
        text = DecoderConfig.from_dict({**self.text(config), "tie_word_embeddings": False})
        check_type(config, "text part", text.model_type, TEXTS)
        self.audio_tower = WhisperTower(audio)
        self.multi_modal_projector = Projector(audio.d_model, text.hidden_size)
        self.language_model = Decoder(text)

    @classmethod
    def text(cls, config: Json) -> Json:
        return {"model_type": "qwen2", **(config.get("text_config") or {})}

    @classmethod
    def tokens(cls, config: Json) -> dict[str, int]:
        return {"audio": audio_token(config)}

    @classmethod
    def media(cls, config: Json, settings: Settings) -> Sequence[AnyMedium]:
        return [hearing(audio_token(config), spectrogram(config, settings))]

    def parts(self, kind: str, media: Mapping[str, object]) -> Sequence[Part]:
        return sound_parts(media)

    def features(self, mel: mx.array, valid: mx.array) -> mx.array:
        """Projected features (N, T, D) of mel (N, bins, frames), of which the first `valid` (N,) frames are sound.

        The first `pooled(valid)` of each are the sound's; T is frames / 4, rounded down. Leaving out the frames behind
        2 * `positions(valid)` + 1 of the longest sound changes nothing.
        """
        return self.multi_modal_projector(self.audio_tower(mel, valid))

    def sounds(self, prompt: Prompt) -> mx.array:
        mel, mask = frames(prompt.media, self.audio_tower.config.num_mel_bins, self.audio_tower.config.frames)
        valid = mask.sum(axis=1).astype(np.int32)
        counts = pooled(valid)
        mel = mel[..., : 2 * positions(int(valid.max())) + 1]
        features = self.features(media_array(mel, self.audio_tower.dtype), mx.array(valid))
        return mx.concatenate([feature[:count] for feature, count in zip(features, counts.tolist(), strict=True)])


def audio_config(config: Json) -> WhisperConfig:
    audio = config.get("audio_config") or {}
    check_type(config, "tower", audio.get("model_type", "qwen2_audio_encoder"), ["qwen2_audio_encoder"])
    return WhisperConfig.from_dict(audio)


def spectrogram(config: Json, settings: Settings) -> Mel:
    tower = audio_config(config)
    mel = Mel.from_dict({"feature_size": tower.num_mel_bins, **settings.audio})
    given, wanted = (mel.n_mels, mel.n_samples // mel.hop_length), (tower.num_mel_bins, tower.frames)
    if given != wanted:
        raise CheckpointError(
            f"preprocessor_config.json makes {given[0]} bands and {given[1]} frames of a sound, "
            f"but the model of config.json takes {wanted[0]} and {wanted[1]}."
        )
    return mel


def hearing(token: int, mel: Mel) -> Medium[Sound]:
    """How sounds are prepared for a tower that makes one feature of four frames."""
    seconds = 4 * mel.hop_length / mel.rate

    def prepare(sounds: Sequence[Sound]) -> Prepared:
        spectra = [mel(samples(sound, mel)) for sound in sounds]
        features, masks = (np.stack(arrays) for arrays in zip(*spectra, strict=True))
        arrays = {"input_features": features, "feature_attention_mask": masks}
        return Prepared(arrays, pooled(masks.sum(axis=1)).tolist(), sound_parts(arrays, seconds))

    return Medium("audio", token, prepare)


def sound_parts(media: Mapping[str, object], seconds: float | None = None) -> list[Part]:
    """One part for each sound of a prompt. seconds: the time that one position stands for."""
    shape = shape_of(media.get("input_features"))
    if len(shape) != 3:
        return []
    mask = np.asarray(media.get("feature_attention_mask", np.ones((shape[0], shape[2]))))
    counts = pooled(mask.astype(bool).sum(axis=-1)).ravel().tolist()
    return [Part(count, source, seconds=seconds) for source, count in enumerate(counts)]


def frames(
    media: Mapping[str, object], bins: int, most: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Mel frames (N, bins, frames) of a prompt's sounds, and a mask (N, frames) bool: False is padding."""
    mel = np.asarray(media["input_features"])
    if mel.ndim != 3 or mel.shape[1] != bins or not 0 < mel.shape[2] <= (most or mel.shape[2]):
        raise PromptError(f"input_features must have shape (N, {bins}, {most or 'frames'}), got {mel.shape}.")
    mask = np.asarray(media.get("feature_attention_mask", np.ones((len(mel), mel.shape[2]))))
    if mask.shape != (len(mel), mel.shape[2]):
        raise PromptError(
            f"feature_attention_mask must have shape {(len(mel), mel.shape[2])}, as the frames, got {mask.shape}."
        )
    mask = mask.astype(bool)
    if not pooled(mask.sum(axis=1)).all():
        raise PromptError("feature_attention_mask leaves less than 3 frames of a sound; give longer sounds.")
    return mel, mask


def samples(sound: Sound, mel: Mel) -> NDArray[np.float32]:
    """Samples (N,) at the rate of `mel`. Raises `MediaError` for a sound longer than its chunk."""
    if sound.seconds > mel.seconds:
        raise MediaError(
            f"The sound is {math.ceil(100 * sound.seconds) / 100:g} s long, and this model hears at most "
            f"{mel.seconds:g} s; cut it."
        )
    return open_audio(sound, mel.rate).samples


def audio_token(config: Json) -> int:
    return token_id(config, ("audio_token_id", "audio_token_index"), 151646, "audio")
