"""What Qwen2-VL, Qwen2.5-VL and Qwen3-VL share outside the tower: places, positions and names of the weights."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from lime_mlx.errors import CheckpointError, PromptError
from lime_mlx.media.patches import Patches
from lime_mlx.models.towers.qwen_vision import Tower, VisionConfig
from lime_mlx.positions import Positions
from lime_mlx.processor import Medium
from lime_mlx.prompt import Prompt, Span, runs

from .base import Inputs, Model, media_array, merge
from .decoder import Decoder, DecoderConfig

IMAGE_PAD = 151655
VIDEO = ("pixel_values_videos", "video_grid_thw")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class QwenVL(Model):
    """A family sets `tower`, and which of the three coordinates each frequency follows where config.json is silent.

    step: see `coordinates`.
    """

    renames = (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^(model\.)?visual\.", "vision_tower."),
        (r"^model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
    )
    framed = True
    chat_template = CHATML

    tower: type[Tower]
    step: int | None = None
    sections = (16, 24, 24)
    interleaved = False

    def __init__(self, config: dict[str, Any]):
        super().__init__(config)
        vision, text = self.vision(config), DecoderConfig.from_dict(self.text(config))
        if vision.out_hidden_size != text.hidden_size:
            raise CheckpointError(
                f"The vision tower of config.json gives features of width {vision.out_hidden_size}, "
                f"but the text part takes {text.hidden_size}."
            )
        self.image_token = image_token(config)
        self.vision_tower = self.tower(vision)
        self.language_model = Decoder(text)

    @classmethod
    def vision(cls, config: dict[str, Any]) -> VisionConfig:
        return cls.tower.config_class.from_dict(config.get("vision_config") or {})

    @classmethod
    def text(cls, config):
        """`text_config`, or the whole where it is flat; what a family always does stands in neither."""
        text = super().text(config)
        rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
        return {
            **text,
            "model_type": f"{config['model_type']}_text",
            "tie_word_embeddings": config.get("tie_word_embeddings", text.get("tie_word_embeddings")),
            "rope_scaling": {"mrope_section": list(cls.sections), **rope, "mrope_interleaved": cls.interleaved},
        }

    @classmethod
    def media(cls, config, settings):
        vision, given = cls.vision(config), {k: v for k, v in settings.image.items() if v is not None}
        sizes = {
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "merge_size": vision.spatial_merge_size,
        }
        patches = Patches.from_dict({**sizes, **given})
        for key, size in sizes.items():
            if given.get(key, size) != size:
                raise CheckpointError(
                    f"{key} is {given[key]} in preprocessor_config.json, but the vision tower takes {size}."
                )

        def prepare(images):
            arrays = patches(images)
            return arrays, patches.tokens(arrays["image_grid_thw"])

        return [Medium("image", image_token(config), prepare)]

    def sanitize(self, weights):
        weights = super().sanitize(weights)
        name, config = "vision_tower.patch_embed.proj.weight", self.vision_tower.config
        kernel = weights.get(name)
        if kernel is not None and kernel.shape[1:] == (config.in_channels, *config.kernel):
            weights[name] = kernel.transpose(0, 2, 3, 4, 1)
        return weights

    def inputs(self, prompt: Prompt) -> Inputs:
        if any(prompt.media.get(key) is not None for key in VIDEO):
            raise PromptError("Videos are not supported; give pictures instead.")
        ids, embeds = prompt.input_ids, self.language_model.embed(self.ids(prompt))
        positions = np.flatnonzero(ids == self.image_token)
        if prompt.media.get("pixel_values") is None:
            if positions.size:
                raise PromptError("The prompt has a place for a picture, but no picture was given.")
            return Inputs(embeds)
        pixels, grids = self.pictures(prompt.media)
        features, *later = self.vision_tower(pixels, grids)
        embeds = merge(embeds, features, positions, "image")
        added = [merge(mx.zeros_like(embeds), feature, positions, "image") for feature in later]
        tokens = grids // (1, self.vision_tower.config.spatial_merge_size, self.vision_tower.config.spatial_merge_size)
        return Inputs(embeds, Positions(coordinates(ids, self.image_token, tokens, self.step), features=added))

    def embed(self, prompt: Prompt) -> mx.array:
        return self.inputs(prompt).embeds

    def pictures(self, media: Mapping[str, Any]) -> tuple[mx.array, np.ndarray]:
        """Patches and grids of a prompt, if they fit each other and the tower."""
        config, grids = self.vision_tower.config, np.asarray(media.get("image_grid_thw", ()))
        rows = grids.ndim == 2 and grids.shape[1] == 3 and grids.dtype.kind in "iu" and (grids > 0).all()
        if not rows or (grids[:, 1:] % config.spatial_merge_size).any():
            raise PromptError(
                "image_grid_thw must have time, rows and columns of every picture, "
                f"rows and columns being multiples of {config.spatial_merge_size}, got {grids.tolist()}."
            )
        pixels = media_array(media["pixel_values"], self.vision_tower.dtype)
        wanted = int(grids.prod(axis=1).sum()), config.in_channels * int(np.prod(config.kernel))
        if pixels.shape != wanted:
            raise PromptError(f"pixel_values must have shape {wanted} by image_grid_thw, got {pixels.shape}.")
        return pixels, grids

    def spans(self, prompt: Prompt) -> tuple[Span, ...]:
        if prompt.spans is not None:
            return tuple(prompt.spans)
        return runs(prompt.input_ids, self.image_token, "image")


def coordinates(ids: np.ndarray, token: int, grids: np.ndarray, step: int | None = None) -> np.ndarray:
    """M-RoPE positions (3, T): text moves on in all three; a picture of `grids` (time, rows, columns) is a box of them.

    What follows a picture starts behind its longer side. With `step`, as far as its frames stand apart in time, it
    starts behind the last of them, too (TMRoPE). Raises `PromptError` where `token` does not stand so often in
    a row as a picture needs.
    """
    places, found, stop, position = np.flatnonzero(ids == token), [], 0, 0
    for grid in grids:
        count = grid.prod()
        here, places = places[:count], places[count:]
        if len(here) < count or here[-1] - here[0] != count - 1:
            raise PromptError(f"A picture needs {count} image tokens in a row, one for each of its places.")
        behind = position + here[0] - stop
        box = np.indices(grid).reshape(3, -1) * [[1 if step is None else step], [1], [1]]
        found += [_count(position, behind), box + behind]
        stop, position = here[-1] + 1, behind + (max(grid[1:]) if step is None else box.max() + 1)
    return np.concatenate([*found, _count(position, position + len(ids) - stop)], axis=1)


def _count(start: int, stop: int) -> np.ndarray:
    return np.tile(np.arange(start, stop), (3, 1))


def image_token(config: dict[str, Any]) -> int:
    token = config.get("image_token_id")
    token = IMAGE_PAD if token is None else token
    if not isinstance(token, int) or token < 0:
        raise CheckpointError(f"The image_token_id of config.json is {token!r}, which is no token id.")
    return token
