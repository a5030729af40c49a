"""Qwen2-Audio: Whisper features of the sound, through one linear layer, in the places of the audio token.

Paper: Chu et al. 2024, "Qwen2-Audio Technical Report" (arXiv 2407.10759).
"""

import math
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from lime_mlx.errors import CheckpointError, MediaError, PromptError
from lime_mlx.media.audio import Sound, open_audio
from lime_mlx.media.mel import Mel
from lime_mlx.models.towers.whisper import WhisperConfig, WhisperTower, pooled, positions
from lime_mlx.processor import Medium, Settings
from lime_mlx.prompt import Prompt, Span, runs

from .base import Model, media_array, merge
from .decoder import Decoder, DecoderConfig
from .layers import linear

TEXTS = ("llama", "mistral", "qwen2", "qwen3")
AUDIO_TOKEN = 151646
CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% set sounds = namespace(count=0) %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'audio' %}{% set sounds.count = sounds.count + 1 %}"
    "Audio {{ sounds.count }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Projector(nn.Module):
    def __init__(self, features: int, width: int):
        super().__init__()
        self.linear = nn.Linear(features, width)

    def __call__(self, x):
        return linear(self.linear, x)


class Qwen2Audio(Model):
    renames = (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.(audio_tower|multi_modal_projector)\.", r"\1."),
    )
    chat_template = CHATML
    framed = True

    def __init__(self, config: dict[str, Any]):
        super().__init__(config)
        audio = audio_config(config)
        # A head of its own whenever the weights have one, as in transformers 5: `tie_word_embeddings` alone ties none.
        text = DecoderConfig.from_dict({**self.text(config), "tie_word_embeddings": False})
        if text.model_type not in TEXTS:
            raise CheckpointError(
                f"This qwen2_audio checkpoint has a {text.model_type!r} text part; supported: {', '.join(TEXTS)}."
            )
        self.audio_token = audio_token(config)
        self.audio_tower = WhisperTower(audio)
        self.multi_modal_projector = Projector(audio.d_model, text.hidden_size)
        self.language_model = Decoder(text)

    @classmethod
    def text(cls, config):
        return {"model_type": "qwen2", **(config.get("text_config") or {})}

    @classmethod
    def media(cls, config, settings):
        return [hearing(audio_token(config), spectrogram(config, settings))]

    def sanitize(self, weights):
        return self.audio_tower.sanitize(super().sanitize(weights), "audio_tower.")

    def features(self, mel: mx.array, valid: mx.array) -> mx.array:
        """Projected features (N, T, D) of mel (N, bins, frames), of which the first `valid` (N,) frames are sound.

        The first `pooled(valid)` of each are the sound's; T is frames / 4, rounded down. Leaving out the frames behind
        2 * `positions(valid)` + 1 of the longest sound changes nothing.
        """
        return self.multi_modal_projector(self.audio_tower(mel, valid))

    def sounds(self, prompt: Prompt) -> mx.array:
        """What stands in the places of the prompt's sounds, (places, D)."""
        mel, mask = frames(prompt.media, self.audio_tower.config.num_mel_bins, self.audio_tower.config.frames)
        valid = mask.sum(axis=1).astype(np.int32)
        counts = pooled(valid)
        mel = mel[..., : 2 * positions(int(valid.max())) + 1]
        features = self.features(media_array(mel, self.audio_tower.dtype), mx.array(valid))
        return mx.concatenate([feature[:count] for feature, count in zip(features, counts.tolist(), strict=True)])

    def embed(self, prompt: Prompt) -> mx.array:
        ids = self.ids(prompt)
        places = np.flatnonzero(prompt.input_ids == self.audio_token)
        embeds = self.language_model.embed(ids)
        if "input_features" not in prompt.media:
            if places.size:
                raise PromptError("The prompt has a place for a sound, but no sound was given.")
            return embeds
        return merge(embeds, self.sounds(prompt), places, "audio")

    def spans(self, prompt: Prompt) -> tuple[Span, ...]:
        if prompt.spans is not None:
            return tuple(prompt.spans)
        return runs(prompt.input_ids, self.audio_token, "audio")


def audio_config(config: dict[str, Any]) -> WhisperConfig:
    audio = config.get("audio_config") or {}
    kind = audio.get("model_type", "qwen2_audio_encoder")
    if kind != "qwen2_audio_encoder":
        raise CheckpointError(
            f"This qwen2_audio checkpoint has a {kind!r} tower; only qwen2_audio_encoder is supported."
        )
    return WhisperConfig.from_dict(audio)


def spectrogram(config: dict[str, Any], settings: Settings) -> Mel:
    tower = audio_config(config)
    mel = Mel.from_dict({"feature_size": tower.num_mel_bins, **settings.audio})
    found, wanted = (mel.n_mels, mel.n_samples // mel.hop_length), (tower.num_mel_bins, tower.frames)
    if found != wanted:
        raise CheckpointError(
            f"preprocessor_config.json makes {found[0]} bands and {found[1]} frames of a sound, "
            f"but the model of config.json takes {wanted[0]} and {wanted[1]}."
        )
    return mel


def hearing(token: int, mel: Mel) -> Medium:
    """How sounds are taken of which the tower makes one feature of each four frames."""

    def prepare(sounds):
        heard = [mel(samples(sound, mel)) for sound in sounds]
        features, masks = (np.stack(arrays) for arrays in zip(*heard, strict=True))
        return {"input_features": features, "feature_attention_mask": masks}, pooled(masks.sum(axis=1)).tolist()

    return Medium("audio", token, prepare, 4 * mel.hop_length / mel.rate)


def frames(media: Mapping[str, Any], bins: int, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mel frames (N, bins, frames) of a prompt's sounds, and which of them are sound, (N, frames) bool."""
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


def samples(sound: Sound, mel: Mel) -> np.ndarray:
    """Samples (N,) at the rate of `mel`, and no more of them than it hears."""
    if sound.seconds > mel.seconds:
        raise MediaError(
            f"The sound is {math.ceil(100 * sound.seconds) / 100:g} s long, and this model hears at most "
            f"{mel.seconds:g} s; cut it."
        )
    return open_audio(sound, mel.rate).samples


def audio_token(config: dict[str, Any]) -> int:
    ids = (config.get("audio_token_id"), config.get("audio_token_index"), AUDIO_TOKEN)
    token = next(token for token in ids if token is not None)
    if not isinstance(token, int) or token < 0:
        raise CheckpointError(f"The audio token of config.json is {token!r}, which is no token id.")
    return token
