"""What a conversion was asked for, checked before anything is read."""

from dataclasses import dataclass

from lime_mlx.errors import ConversionError

from .calibrate import Calibration
from .schemes import RECIPES, Scheme
from .tensors import DTYPES, SHARD


@dataclass(frozen=True)
class Options:
    """The flags of mlx-lm and mlx-vlm, and ours. Raises `ConversionError` for what does not go together.

    calibration_data: a folder of pictures for the predicate relevance, which else measures on scenes of its own.
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
    dtype: str | None = None
    shard_bytes: int = SHARD

    def __post_init__(self):
        if self.quantize and self.dequantize:
            raise ConversionError("Choose either --quantize or --dequantize, not both.")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConversionError(f"There is no dtype {self.dtype!r} here; choose one of {', '.join(DTYPES)}.")
        needed = {
            "quant-predicate": self.quant_predicate is not None,
            "quantize-vision": self.quantize_vision,
            "q-bits": self.q_bits is not None,
            "q-group-size": self.q_group_size is not None,
        }
        for flag, given in needed.items():
            if given and not self.quantize:
                raise ConversionError(f"--{flag} goes with --quantize.")
        if self.quant_predicate is not None and self.q_mode != "affine":
            raise ConversionError(f"--quant-predicate goes with --q-mode affine, not with {self.q_mode}.")
        if self.calibration_data is not None and self.calibration is None:
            raise ConversionError("--calibration-data goes with --quant-predicate relevance:bits=...")
        if self.calibration is not None and self.q_bits is not None:
            raise ConversionError("The average of --quant-predicate relevance:bits=... takes the place of --q-bits.")
        _ = self.scheme

    @property
    def scheme(self) -> Scheme | None:
        """How layers are quantised where no predicate says otherwise."""
        return Scheme.of(self.q_bits, self.q_group_size, self.q_mode) if self.quantize else None

    @property
    def calibration(self) -> Calibration | None:
        if self.quant_predicate is None or self.quant_predicate in RECIPES:
            return None
        return Calibration.parse(self.quant_predicate, self.calibration_data)
