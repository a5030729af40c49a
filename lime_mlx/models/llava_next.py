"""LLaVA-1.6: the whole picture made small, then tiles of it at the resolution that fits best, each row with a line end.

Liu et al. 2024, "LLaVA-NeXT: Improved reasoning, OCR, and world knowledge".
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from lime_mlx.errors import CheckpointError, PromptError
from lime_mlx.media.anyres import RESOLUTIONS, AnyResolution, best_resolution, resolutions, unpadded
from lime_mlx.models.towers.clip import ClipConfig
from lime_mlx.processor import Medium
from lime_mlx.prompt import Prompt

from .base import media_array
from .llava import Llava, image_token, tower_config

MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'user' %}[INST] {% endif %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% if message['role'] == 'user' %} [/INST]{% else %}\n{% endif %}{% endfor %}"
)


class LlavaNext(Llava):
    renames = ((r"^model\.image_newline$", "image_newline"), *Llava.renames)

    def __init__(self, config: dict[str, Any]):
        super().__init__(config)
        if self.strategy != "default":
            raise CheckpointError(
                f"vision_feature_select_strategy is {self.strategy!r}, but the rows of a llava_next picture have no "
                "place for a class token; only default is supported."
            )
        self._tiling = Tiling(config)
        self.image_newline = mx.zeros((self.language_model.config.hidden_size,))

    @classmethod
    def text(cls, config):
        """The head is tied where the root of config.json says so: transformers does not look in `text_config`."""
        return {**super().text(config), "tie_word_embeddings": config.get("tie_word_embeddings", False)}

    @classmethod
    def template(cls, config):
        return MISTRAL if cls.text(config).get("model_type") == "mistral" else super().template(config)

    @classmethod
    def media(cls, config, settings):
        tiling = Tiling(config)
        # The model reads the tiles by config.json, so they are cut by it, whatever preprocessor_config.json offers.
        cut = AnyResolution.from_dict({**settings.image, "image_grid_pinpoints": tiling.resolutions}, tiling.side)

        def prepare(images):
            return cut(images), [cut.tokens((image.height, image.width), tiling.edge) for image in images]

        return [Medium("image", image_token(config), prepare)]

    def pictures(self, prompt: Prompt) -> mx.array:
        sizes = np.asarray(prompt.media.get("image_sizes", ()))
        if sizes.ndim != 2 or sizes.shape[1] != 2 or not (sizes > 0).all():
            raise PromptError("image_sizes must say the height and width in pixels of each picture, shape (N, 2).")
        sizes = sizes.tolist()
        counts = [1 + rows * columns for rows, columns in map(self._tiling.grid, sizes)]
        pixels = media_array(prompt.media["pixel_values"], self.vision_tower.dtype)
        if pixels.ndim == 5 and len(pixels) == len(sizes) and pixels.shape[1] >= max(counts):
            pixels = mx.concatenate([part[:count] for part, count in zip(pixels, counts, strict=True)])
        if pixels.ndim != 4 or len(pixels) != sum(counts):
            raise PromptError(
                f"Pictures of the sizes {sizes} have {counts} tiles, which pixel_values of shape "
                f"{tuple(pixels.shape)} does not fit."
            )
        features = self.features(pixels).flatten(0, 1)
        rows = mx.concatenate([features, self.image_newline[None].astype(features.dtype)])
        starts = np.cumsum([0, *counts[:-1]]) * self.vision_tower.config.patches
        places = [self._tiling.places(size) for size in sizes]
        order = [np.where(each < 0, len(features), start + each) for start, each in zip(starts, places, strict=True)]
        return rows[mx.array(np.concatenate(order))]


class Tiling:
    """The tiles of a picture, `side` pixels and `edge` features long, as config.json says."""

    def __init__(self, config: dict[str, Any]):
        tower, offered = ClipConfig.from_dict(tower_config(config)), config.get("image_grid_pinpoints")
        self.side, self.edge = tower.image_size, tower.image_size // tower.patch_size
        self.resolutions = resolutions(RESOLUTIONS if offered is None else offered, self.side)

    def grid(self, size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of tiles for a picture (height, width)."""
        height, width = best_resolution(size, self.resolutions)
        return height // self.side, width // self.side

    def places(self, size: Sequence[int]) -> np.ndarray:
        """What stands where for a picture (height, width): numbers of its tiles' features, -1 for a line end."""
        (rows, columns), edge = self.grid(size), self.edge
        base = edge * edge
        tiled = np.arange(base, base * (1 + rows * columns)).reshape(rows, columns, edge, edge)
        whole = tiled.swapaxes(1, 2).reshape(rows * edge, columns * edge)
        top, left = unpadded(whole.shape, size)
        kept = whole[top : len(whole) - top, left : whole.shape[1] - left]
        return np.concatenate([np.arange(base), np.pad(kept, [(0, 0), (0, 1)], constant_values=-1).ravel()])
