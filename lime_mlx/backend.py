"""The machine under MLX: what the device is, and whether something fits in its memory."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from lime_mlx.errors import BackendError

if TYPE_CHECKING:
    import mlx.core as mx


# The share of the memory that weights may take, with room to spare for all else.
COMFORTABLE = 0.7


def require_mlx() -> ModuleType:
    """`mlx.core`.

    Raises:
        BackendError: MLX, or on Linux its backend, is not installed; the message says what to install.
    """
    try:
        import mlx.core as mx
    except ImportError as error:
        if sys.platform == "linux":
            raise BackendError(
                'MLX has no backend here: pip install "lime-mlx[cpu]", '
                'or with an NVIDIA GPU "lime-mlx[cuda12]" or "lime-mlx[cuda13]"'
            ) from error
        raise BackendError(f"MLX needs a Mac with Apple silicon, or Linux ({error})") from error
    return mx


def device_name() -> str:
    """The default device in words, for example "Apple M3 Max"."""
    return str(_device_info().get("device_name", "unknown device"))


def is_cpu() -> bool:
    """Whether the default device is the CPU."""
    core = require_mlx()
    return bool(core.default_device() == core.Device(core.cpu))


def memory_total() -> int:
    """Memory of the default device in bytes; on a Mac and on the CPU this is the memory of the machine."""
    info = _device_info()
    size = info.get("memory_size") or info.get("total_memory")
    return int(size) if size else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def fits(size: float, share: float = 1.0) -> bool:
    """Whether `size` bytes fit in a `share`, 0 to 1, of the memory of the default device."""
    return size <= share * memory_total()


def peak_memory() -> int:
    """Most bytes MLX has held at once, since the start or the last `mx.reset_peak_memory()`."""
    return int(require_mlx().get_peak_memory())


def compute_dtype() -> mx.Dtype:
    """Type of the activations: bfloat16 on a GPU, float32 on the CPU."""
    core = require_mlx()
    dtype: mx.Dtype = core.float32 if is_cpu() else core.bfloat16
    return dtype


def _device_info() -> dict[str, str | int]:
    return dict(require_mlx().device_info())
