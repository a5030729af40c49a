"""How layers are quantised: bits and groups, and the recipes that give some layers more bits than others."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypedDict

import mlx.core as mx
import mlx.nn as nn

from lime_mlx.checkpoint.files import MODES
from lime_mlx.checkpoint.load import modules
from lime_mlx.errors import ConversionError
from lime_mlx.models.base import Model

BITS, GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)  # of mode affine; every other mode has one of each
RECIPES = {
    "mixed_2_6": (2, 6),
    "mixed_3_4": (3, 4),
    "mixed_3_6": (3, 6),
    "mixed_4_6": (4, 6),
    "mixed_4_8": (4, 8),
}
LAYER = re.compile(r"^language_model\.model\.layers\.(\d+)\.")


class SchemeOptions(TypedDict):
    """A scheme as MLX and config.json write it."""

    bits: int
    group_size: int
    mode: str


@dataclass(frozen=True)
class Scheme:
    """Bits of each weight, how many weights share a scale, and MLX's mode. Raises `ConversionError` for no such."""

    bits: int
    group_size: int
    mode: str = "affine"

    def __post_init__(self) -> None:
        group, bits = _defaults(self.mode)
        all_bits, groups = (BITS, GROUPS) if self.mode == "affine" else ((bits,), (group,))
        if self.bits not in all_bits or self.group_size not in groups:
            raise ConversionError(
                f"Mode {self.mode} has {_listed(all_bits)} bits in groups of {_listed(groups)}; "
                f"asked for {self.bits} bits in groups of {self.group_size}."
            )

    @classmethod
    def of(cls, bits: int | None, group_size: int | None, mode: str) -> "Scheme":
        """What is None takes the default of the mode."""
        group, default = _defaults(mode)
        return cls(default if bits is None else bits, group if group_size is None else group_size, mode)

    @property
    def options(self) -> SchemeOptions:
        """As MLX and config.json name them."""
        return {"bits": self.bits, "group_size": self.group_size, "mode": self.mode}

    @property
    def overhead(self) -> float:
        """Bits that the scales, and in mode affine the biases, add to each weight, when they have 16 bits."""
        return (32 if self.mode == "affine" else 8) / self.group_size


@dataclass(frozen=True)
class Layers:
    """Module paths, by our names, to how they are quantised; `kept` stay float, their width not being divisible."""

    schemes: Mapping[str, Scheme]
    kept: tuple[str, ...] = ()


def _defaults(mode: str) -> tuple[int, int]:
    """Group size and bits of a mode."""
    if mode not in MODES:
        raise ConversionError(f"There is no quantization mode {mode!r}; choose one of {', '.join(MODES)}.")
    return MODES[mode]


def quantized_layers(model: Model, scheme: Scheme, vision: bool = False) -> Layers:
    """The layers of a model that are quantised: those of the decoder, and with `vision` the tower and the connector."""
    schemes: dict[str, Scheme] = {}
    kept: list[str] = []
    for path, module in modules(model).items():
        if not eligible(path, module, vision):
            continue
        if module["weight"].shape[-1] % scheme.group_size:
            kept.append(path)
        else:
            schemes[path] = scheme
    return Layers(dict(sorted(schemes.items())), tuple(sorted(kept)))


def eligible(path: str, module: nn.Module, vision: bool) -> bool:
    """Whether a module can be quantised and should be: tables of positions in a tower never are."""
    text = path.startswith("language_model.")
    return hasattr(module, "to_quantized") and (text or (vision and not isinstance(module, nn.Embedding)))


def recipe(name: str, model: Model, scheme: Scheme) -> Callable[[str], Scheme]:
    """The recipe of mlx-lm and mlx-vlm of that name.

    More bits for v_proj and down_proj in the first and last eighth of the layers and in every third one between, and
    for the embeddings and the head.
    """
    low, high = (Scheme(bits, scheme.group_size) for bits in RECIPES[name])
    count = len(model.language_model.layers)

    def choose(path: str) -> Scheme:
        layer = LAYER.match(path)
        if not layer:
            return high if path.startswith("language_model.") else low
        index = int(layer[1])
        more = index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2
        return high if more and path.endswith(("v_proj", "down_proj")) else low

    return choose


def quantize(weight: mx.array, scheme: Scheme) -> dict[str, mx.array]:
    """The arrays of a quantised layer: weight, scales, and in mode affine biases."""
    arrays = mx.quantize(weight, **scheme.options)
    return dict(zip(("weight", "scales", "biases")[: len(arrays)], arrays, strict=True))


def dequantize(arrays: Mapping[str, mx.array], scheme: Scheme) -> mx.array:
    """The weights of a quantised layer, as floats."""
    return mx.dequantize(arrays["weight"], arrays["scales"], arrays.get("biases"), **scheme.options)


def _listed(numbers: tuple[int, ...]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}" if first else last
