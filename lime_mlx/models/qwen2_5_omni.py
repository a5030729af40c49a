"""The thinker of Qwen2.5-Omni: pictures as in Qwen2.5-VL and sounds in windows, in one prompt. Its voice is left out.

Paper: Xu et al. 2025, "Qwen2.5-Omni Technical Report" (arXiv 2503.20215).
"""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from lime_mlx.errors import PromptError
from lime_mlx.lrp.rules import PLAIN
from lime_mlx.media.mel import Mel
from lime_mlx.prompt import Medium, Prompt, Span, runs

from .base import Inputs, media_array, merge
from .layers import LayerNorm, linear
from .qwen2_5_vl import Qwen25VL
from .qwen2_audio import samples
from .whisper import EPS, Block, WhisperConfig, pooled, positions, sinusoids

AUDIO, IMAGE = 151646, 151655
CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% elif part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class OmniAudioConfig(WhisperConfig):
    """n_window: half the mel frames of a window, in which positions see each other. output_dim: width of a feature."""

    n_window: int = 100
    output_dim: int = 3584


class AudioTower(nn.Module):
    """Whisper's layers on windows of a sound, each with positions of its own."""

    def __init__(self, config: OmniAudioConfig):
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
        rows, found = iter(zip(h, valid.tolist(), strict=True)), []
        for sound in sounds:
            count = -(-sound.shape[1] // window)
            states = mx.concatenate([row[:length] for row, length in (next(rows) for _ in range(count))])
            pairs = states[: states.shape[0] // 2 * 2].reshape(-1, 2, states.shape[1])
            found.append(pairs.mean(axis=1))
        return linear(self.proj, self.ln_post(mx.concatenate(found)))


class Qwen25Omni(Qwen25VL):
    renames = (
        (r"^thinker\.", ""),
        (r"^model\.(audio_tower|visual)\.", r"\1."),
        *Qwen25VL.renames[:2],
        (r"^model\.", "language_model.model."),
        *Qwen25VL.renames[3:],
    )
    drop = (*Qwen25VL.drop, "talker.", "token2wav.", "audio_bos_eos_token")
    published = ((r"^", "thinker."),)
    chat_template = CHATML

    def __init__(self, config: dict[str, Any]):
        super().__init__(thinker(config))
        self._config = config
        self.audio_token = token_of(config, "audio", AUDIO)
        self.audio_tower = AudioTower(OmniAudioConfig.from_dict(thinker(config).get("audio_config") or {}))

    @classmethod
    def text(cls, config):
        inner = thinker(config)
        text = {**super().text(inner), "model_type": "qwen2_5_omni_text"}
        return {**text, "tie_word_embeddings": inner.get("tie_word_embeddings", False)}

    @classmethod
    def media(cls, config, settings):
        (pictures,) = super().media(thinker(config), settings)
        tower = OmniAudioConfig.from_dict(thinker(config).get("audio_config") or {})
        mel = Mel.from_dict({"feature_size": tower.num_mel_bins, **settings.audio})

        def prepare(sounds):
            heard = [mel(samples(sound, mel)) for sound in sounds]
            features, masks = (np.stack(arrays) for arrays in zip(*heard, strict=True))
            return {"input_features": features, "feature_attention_mask": masks}, pooled(masks.sum(axis=1)).tolist()

        audio = Medium("audio", token_of(config, "audio", AUDIO), prepare, 4 * mel.hop_length / mel.rate)
        return [Medium("image", token_of(config, "image", IMAGE), pictures.prepare), audio]

    def sanitize(self, weights):
        weights = super().sanitize(weights)
        weights = {name: weight for name, weight in weights.items() if not name.startswith(("talker.", "token2wav."))}
        for index in range(len(self.vision_tower.blocks)):
            path = f"vision_tower.blocks.{index}.attn"
            for kind in ("weight", "bias", "scales", "biases"):
                parts = [f"{path}.{part}.{kind}" for part in "qkv"]
                if all(name in weights for name in parts):
                    weights[f"{path}.qkv.{kind}"] = mx.concatenate([weights.pop(name) for name in parts])
        config = self.audio_tower.config
        for name, channels in (("conv1", config.num_mel_bins), ("conv2", config.d_model)):
            kernel = weights.get(f"audio_tower.{name}.weight")
            if kernel is not None and channels != 3 and kernel.shape[1:] == (channels, 3):
                weights[f"audio_tower.{name}.weight"] = kernel.swapaxes(1, 2)
        return weights

    def inputs(self, prompt: Prompt) -> Inputs:
        inputs = super().inputs(prompt)
        places = np.flatnonzero(prompt.input_ids == self.audio_token)
        if prompt.media.get("input_features") is None:
            if places.size:
                raise PromptError("The prompt has a place for a sound, but no sound was given.")
            return inputs
        return inputs._replace(embeds=merge(inputs.embeds, self.audio_tower(self.sounds(prompt)), places, "audio"))

    def sounds(self, prompt: Prompt) -> list[mx.array]:
        """The mel frames (bins, frames) of each sound, without what fills them up."""
        bins, mel = self.audio_tower.config.num_mel_bins, np.asarray(prompt.media["input_features"])
        if mel.ndim != 3 or mel.shape[1] != bins or not mel.shape[2]:
            raise PromptError(f"input_features must have shape (N, {bins}, frames), got {mel.shape}.")
        mask = np.asarray(prompt.media.get("feature_attention_mask", np.ones((len(mel), mel.shape[2]))))
        if mask.shape != (len(mel), mel.shape[2]):
            raise PromptError(
                f"feature_attention_mask must have shape {(len(mel), mel.shape[2])}, as the frames, got {mask.shape}."
            )
        dtype = self.audio_tower.conv1.weight.dtype
        return [media_array(sound[:, seen.astype(bool)], dtype) for sound, seen in zip(mel, mask, strict=True)]

    def spans(self, prompt: Prompt) -> tuple[Span, ...]:
        if prompt.spans is not None:
            return tuple(prompt.spans)
        found = super().spans(prompt) + runs(prompt.input_ids, self.audio_token, "audio")
        return tuple(sorted(found, key=lambda span: span.start))


def thinker(config: dict[str, Any]) -> dict[str, Any]:
    """The thinker's part of a whole config.json, under the names that Qwen2.5-VL has for the same things."""
    inner = config.get("thinker_config") or config
    return {**inner, "model_type": "qwen2_5_omni", "image_token_id": token_of(config, "image", IMAGE)}


def token_of(config: dict[str, Any], kind: str, default: int) -> int:
    inner = config.get("thinker_config") or config
    found = (inner.get(f"{kind}_token_id"), inner.get(f"{kind}_token_index"), default)
    return next(token for token in found if token is not None)
