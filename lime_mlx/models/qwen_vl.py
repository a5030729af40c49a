"""What Qwen2-VL, Qwen2.5-VL and Qwen3-VL share outside the tower: positions of pictures, and names of weights."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lime_mlx.errors import CheckpointError, PromptError
from lime_mlx.files import Json
from lime_mlx.media.patches import Patches
from lime_mlx.positions import Positions
from lime_mlx.processor import AnyMedium, Medium, Prepared, Settings
from lime_mlx.prompt import Grid, Part, Prompt

from .base import Features, Inputs, Model, Renames, media_array, merge
from .config import DecoderConfig, token_id
from .decoder import Decoder
from .towers.qwen_vision import QwenTower, VisionConfig

VIDEO = ("pixel_values_videos", "video_grid_thw")


class QwenVL(Model):
    """A family sets `tower`, and the `sections` of M-RoPE and whether they are `interleaved`, for a silent config.json.

    step: as in `coordinates`.
    """

    renames: ClassVar[Renames] = (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^(model\.)?visual\.", "vision_tower."),
        (r"^model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
    )
    framed = True
    chat_template = "qwen2_vl"

    tower: ClassVar[type[QwenTower]]
    step: int | None = None
    sections: ClassVar[Sequence[int]] = (16, 24, 24)
    interleaved: ClassVar[bool] = False

    def __init__(self, config: Json) -> None:
        super().__init__(config)
        vision, text = self.vision(config), DecoderConfig.from_dict(self.text(config))
        if vision.out_hidden_size != text.hidden_size:
            raise CheckpointError(
                f"The vision tower of config.json gives features of width {vision.out_hidden_size}, "
                f"but the text part takes {text.hidden_size}."
            )
        self.vision_tower = self.tower(vision)
        self.language_model = Decoder(text)

    @classmethod
    def vision(cls, config: Json) -> VisionConfig:
        return cls.tower.config_class.from_dict(config.get("vision_config") or {})

    @classmethod
    def text(cls, config: Json) -> Json:
        """`text_config`, or config.json itself where it is flat, with what the family always does."""
        text = super().text(config)
        rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
        return {
            **text,
            "model_type": f"{config['model_type']}_text",
            "tie_word_embeddings": config.get("tie_word_embeddings", text.get("tie_word_embeddings")),
            "rope_scaling": {"mrope_section": list(cls.sections), **rope, "mrope_interleaved": cls.interleaved},
        }

    @classmethod
    def tokens(cls, config: Json) -> dict[str, int]:
        return {"image": token_id(config, ("image_token_id",), 151655, "image")}

    @classmethod
    def media(cls, config: Json, settings: Settings) -> Sequence[AnyMedium]:
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

        def prepare(images: Sequence[Image.Image]) -> Prepared:
            arrays = patches(images)
            return Prepared(arrays, patches.tokens(arrays["image_grid_thw"]))

        return [Medium("image", cls.tokens(config)["image"], prepare)]

    def parts(self, kind: str, media: Mapping[str, object]) -> Sequence[Part]:
        grids, merge = np.asarray(media.get("image_grid_thw", ())), self.vision_tower.config.spatial_merge_size
        if grids.ndim != 2 or grids.shape[1] != 3:
            return ()
        shapes = [(time, rows // merge, columns // merge) for time, rows, columns in grids.tolist()]
        return [
            Part(time * rows * columns, source, Grid(rows, columns) if time == 1 else None)
            for source, (time, rows, columns) in enumerate(shapes)
        ]

    def embed(self, prompt: Prompt, features: Features | None = None) -> mx.array:
        if any(prompt.media.get(key) is not None for key in VIDEO):
            raise PromptError("Videos are not supported; give pictures instead.")
        return super().embed(prompt, features)

    def inputs(self, prompt: Prompt, features: Features | None = None) -> Inputs:
        if prompt.media.get("pixel_values") is None:
            return Inputs(self.embed(prompt, features))
        ids, grids = prompt.input_ids, self.grids(prompt.media)
        features = dict(features or {})
        if "image" not in features:
            features["image"] = self.encode("image", prompt)
        embeds, positions = self.embed(prompt, features), np.flatnonzero(ids == self.image_token)
        added = [merge(mx.zeros_like(embeds), feature, positions, "image") for feature in features["image"][1:]]
        tokens = grids // (1, self.vision_tower.config.spatial_merge_size, self.vision_tower.config.spatial_merge_size)
        return Inputs(embeds, Positions(coordinates(ids, self.image_token, tokens, self.step), features=added))

    def encode(self, kind: str, prompt: Prompt) -> Sequence[mx.array]:
        return self.vision_tower(*self.patches(prompt.media)) if kind == "image" else super().encode(kind, prompt)

    def patches(self, media: Mapping[str, object]) -> tuple[mx.array, NDArray[np.intp]]:
        """Patches and grids of a prompt. Raises `PromptError` when they do not fit each other or the tower."""
        config, grids = self.vision_tower.config, self.grids(media)
        pixels = media_array(media["pixel_values"], self.vision_tower.dtype)
        wanted = int(grids.prod(axis=1).sum()), config.in_channels * int(np.prod(config.kernel))
        if pixels.shape != wanted:
            raise PromptError(f"pixel_values must have shape {wanted} by image_grid_thw, got {pixels.shape}.")
        return pixels, grids

    def grids(self, media: Mapping[str, object]) -> NDArray[np.intp]:
        """Time, rows and columns of every picture, in patches. Raises `PromptError` where they do not fit the tower."""
        merges, grids = self.vision_tower.config.spatial_merge_size, np.asarray(media.get("image_grid_thw", ()))
        rows = grids.ndim == 2 and grids.shape[1] == 3 and grids.dtype.kind in "iu" and (grids > 0).all()
        if not rows or (grids[:, 1:] % merges).any():
            raise PromptError(
                "image_grid_thw must have time, rows and columns of every picture, "
                f"rows and columns being multiples of {merges}, got {grids.tolist()}."
            )
        return grids


def coordinates(
    ids: NDArray[np.int32], token: int, grids: NDArray[np.intp], step: int | None = None
) -> NDArray[np.intp]:
    """M-RoPE positions (3, T): text moves on in all three; a picture of `grids` (time, rows, columns) is a box of them.

    What follows a picture starts behind its longer side. With `step`, as far as its frames stand apart in time, it
    starts behind the last of them, too (TMRoPE). Raises `PromptError` where `token` does not stand so often in
    a row as a picture needs.
    """
    rest, pieces, stop, position = np.flatnonzero(ids == token), [], 0, 0
    for grid in grids:
        count = grid.prod()
        picture, rest = rest[:count], rest[count:]
        if len(picture) < count or picture[-1] - picture[0] != count - 1:
            raise PromptError(f"A picture needs {count} image tokens in a row, one for each of its cells.")
        behind = position + picture[0] - stop
        box = np.indices(grid).reshape(3, -1) * [[1 if step is None else step], [1], [1]]
        pieces += [_count(position, behind), box + behind]
        stop, position = picture[-1] + 1, behind + (max(grid[1:]) if step is None else box.max() + 1)
    return np.concatenate([*pieces, _count(position, position + len(ids) - stop)], axis=1)


def _count(start: int, stop: int) -> NDArray[np.intp]:
    return np.tile(np.arange(start, stop), (3, 1))
