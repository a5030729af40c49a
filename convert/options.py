"""What a conversion was asked for, checked before anything is read."""

from dataclasses import dataclass, field
from typing import Annotated

from lime_mlx import spec
from lime_mlx.errors import ConversionError
from lime_mlx.spec import Choice, Range

from .schemes import BITS, RECIPES, Scheme
from .tensors import DTYPES, SHARD


@dataclass(frozen=True)
class RelevanceRecipe:
    """`relevance:bits=3.5,samples=16,weight=1`: bits go to the layers that logits and reliance depend on.

    bits: average for each quantised weight, scales not counted. samples: how many pictures or sounds are run. weight:
    of the reliance, where the logits have 1. data: a folder of pictures, else drawn scenes. Raises `ConversionError`.
    """

    bits: Annotated[float, Range(BITS[0], BITS[-1])]
    samples: Annotated[int, Range(1)] = 16
    weight: Annotated[float, Range(0)] = 1.0
    data: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        spec.check(self, "relevance", ConversionError)


@dataclass(frozen=True)
class Options:
    """The flags of mlx-lm and mlx-vlm, and ours. Raises `ConversionError` for what does not go together.

    calibration_data: a folder of pictures for the predicate relevance, which else measures on drawn scenes.
    shard_bytes: the most that a file of weights has.
    """

    quantize: bool = False
    q_bits: int | None = None
    q_group_size: int | None = None
    q_mode: str = "affine"
    quant_predicate: str | None = None
    calibration_data: str | None = None
    quantize_vision: bool = False
    dequantize: bool = False
    dtype: Annotated[str, Choice(*DTYPES)] | None = None
    shard_bytes: int = SHARD

    def __post_init__(self) -> None:
        spec.check(self, "convert", ConversionError)
        if self.quantize and self.dequantize:
            raise ConversionError("Choose either --quantize or --dequantize, not both.")
        self._check_flags_of_quantize()
        if self.quant_predicate is not None and self.q_mode != "affine":
            raise ConversionError(f"--quant-predicate goes with --q-mode affine, not with {self.q_mode}.")
        if self.calibration_data is not None and self.relevance_recipe is None:
            raise ConversionError("--calibration-data goes with --quant-predicate relevance:bits=...")
        if self.relevance_recipe is not None and self.q_bits is not None:
            raise ConversionError("The average of --quant-predicate relevance:bits=... takes the place of --q-bits.")
        _ = self.scheme

    def _check_flags_of_quantize(self) -> None:
        flags = {
            "quant-predicate": self.quant_predicate is not None,
            "quantize-vision": self.quantize_vision,
            "q-bits": self.q_bits is not None,
            "q-group-size": self.q_group_size is not None,
        }
        for flag, given in flags.items():
            if given and not self.quantize:
                raise ConversionError(f"--{flag} goes with --quantize.")

    @property
    def scheme(self) -> Scheme | None:
        """How layers are quantised where no predicate says otherwise."""
        return Scheme.of(self.q_bits, self.q_group_size, self.q_mode) if self.quantize else None

    @property
    def relevance_recipe(self) -> RelevanceRecipe | None:
        """What the predicate `relevance:...` says; None for another one."""
        if self.quant_predicate is None or self.quant_predicate in RECIPES:
            return None
        name = self.quant_predicate.partition(":")[0]
        if name != "relevance":
            raise ConversionError(
                f"There is no quant predicate {self.quant_predicate!r}; choose {', '.join(RECIPES)}, or "
                "relevance:bits=3.5 (with samples=16 and weight=1, if you like)."
                + spec.suggestion(name, [*RECIPES, "relevance"])
            )
        kinds = {name: RelevanceRecipe}
        return spec.parse(self.quant_predicate, kinds, "quant predicate", ConversionError, data=self.calibration_data)
