"""LLaVA-1.6: the whole picture made small, then tiles of it at the resolution that fits best, each row with a line end.

Liu et al. 2024, "LLaVA-NeXT: Improved reasoning, OCR, and world knowledge".
"""

from collections.abc import Mapping, Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lime_mlx.errors import CheckpointError, PromptError
from lime_mlx.files import Json
from lime_mlx.media.anyres import RESOLUTIONS, AnyResolution, best_resolution, kept_box, resolutions, unpadded
from lime_mlx.processor import AnyMedium, Medium, Prepared, Settings
from lime_mlx.prompt import Grid, Part, Prompt

from .base import Renames, bundled_template, media_array
from .llava import Llava, tower_config


class LlavaNext(Llava):
    renames: Renames = ((r"^model\.image_newline$", "image_newline"), *Llava.renames)

    def __init__(self, config: Json) -> None:
        super().__init__(config)
        if self.class_tokens:
            raise CheckpointError(
                "vision_feature_select_strategy is 'full', but the rows of a llava_next picture have no place for a "
                "class token; only default is supported."
            )
        self._tiling = Tiling(config)
        self.image_newline = mx.zeros((self.language_model.config.hidden_size,))

    @classmethod
    def text(cls, config: Json) -> Json:
        """The head is tied where the root of config.json says so: transformers does not look in `text_config`."""
        return {**super().text(config), "tie_word_embeddings": config.get("tie_word_embeddings", False)}

    @classmethod
    def template(cls, config: Json) -> str | None:
        mistral = cls.text(config).get("model_type") == "mistral"
        return bundled_template("mistral") if mistral else super().template(config)

    @classmethod
    def media(cls, config: Json, settings: Settings) -> Sequence[AnyMedium]:
        tiling = Tiling(config)
        # The model reads the tiles by config.json, so they are cut by it, whatever preprocessor_config.json offers.
        cut = AnyResolution.from_dict({**settings.image, "image_grid_pinpoints": tiling.resolutions}, tiling.side)

        def prepare(images: Sequence[Image.Image]) -> Prepared:
            return Prepared(cut(images), [cut.tokens((image.height, image.width), tiling.edge) for image in images])

        return [Medium("image", cls.tokens(config)["image"], prepare)]

    def parts(self, kind: str, media: Mapping[str, object]) -> Sequence[Part]:
        sizes = image_sizes(media)
        return [part for i, size in enumerate(sizes or ()) for part in self._tiling.parts(size, i)]

    def pictures(self, prompt: Prompt) -> mx.array:
        sizes = image_sizes(prompt.media)
        if sizes is None:
            raise PromptError("image_sizes must say the height and width in pixels of each picture, shape (N, 2).")
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
        starts = np.cumsum([0, *counts[:-1]]) * self._tiling.edge**2
        orders = [self._tiling.order(size) for size in sizes]
        order = [np.where(each < 0, len(features), start + each) for start, each in zip(starts, orders, strict=True)]
        return rows[mx.array(np.concatenate(order))]


class Tiling:
    """The tiles of a picture, `side` pixels and `edge` features long, as config.json says."""

    def __init__(self, config: Json) -> None:
        self._tower, offered = tower_config(config), config.get("image_grid_pinpoints")
        self.side, self.edge = self._tower.image_size, self._tower.edge
        self.resolutions = resolutions(RESOLUTIONS if offered is None else offered, self.side)

    def grid(self, size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of tiles for a picture (height, width)."""
        height, width = best_resolution(size, self.resolutions)
        return height // self.side, width // self.side

    def order(self, size: Sequence[int]) -> NDArray[np.intp]:
        """The features of a picture (height, width) in the order of the prompt: their numbers, -1 for a line end."""
        (rows, columns), edge = self.grid(size), self.edge
        base = edge * edge
        tiled = np.arange(base, base * (1 + rows * columns)).reshape(rows, columns, edge, edge)
        whole = tiled.swapaxes(1, 2).reshape(rows * edge, columns * edge)
        top, left = unpadded(whole.shape, size)
        kept = whole[top : len(whole) - top, left : whole.shape[1] - left]
        return np.concatenate([np.arange(base), np.pad(kept, [(0, 0), (0, 1)], constant_values=-1).ravel()])

    def parts(self, size: Sequence[int], source: int) -> list[Part]:
        """The whole picture, and the rows of the joined tiles, each with its line end, if any row is left."""
        shape = tuple(count * self.edge for count in self.grid(size))
        top, left = unpadded(shape, size)
        box = kept_box(size, best_resolution(size, self.resolutions), shape)
        rows, columns = shape[0] - 2 * top, shape[1] - 2 * left
        tiles = Grid(rows, columns, row_end=1, box=box)
        parts = [Part(self.edge**2, source, Grid.square(self.edge, covered=self._tower.covered))]
        return parts + [Part(len(tiles), source, tiles if columns else None)] * bool(len(tiles))


def image_sizes(media: Mapping[str, object]) -> list[list[int]] | None:
    """Height and width of each picture, or None where they are not given so."""
    sizes = np.asarray(media.get("image_sizes", ()))
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not (sizes > 0).all():
        return None
    pairs: list[list[int]] = sizes.tolist()
    return pairs
