"""The machine under MLX: what the device is, and a fast BLAS for the CPU backend on Linux."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

from lime_mlx.errors import BackendError


def require_mlx() -> ModuleType:
    """Return `mlx.core`.

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
    return _device_info().get("device_name", "unknown device")


def is_cpu() -> bool:
    """Whether the default device is the CPU."""
    mx = require_mlx()
    return mx.default_device() == mx.Device(mx.cpu)


def memory_total() -> int:
    """Memory of the default device in bytes; on a Mac and on the CPU this is the memory of the machine."""
    info = _device_info()
    size = info.get("memory_size") or info.get("total_memory")
    return size or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory() -> int:
    """Most bytes MLX has held at once, since the start or the last `mx.reset_peak_memory()`."""
    return require_mlx().get_peak_memory()


def compute_dtype() -> Any:
    """Type of the activations: bfloat16 on a GPU, float32 on the CPU."""
    mx = require_mlx()
    return mx.float32 if is_cpu() else mx.bfloat16


def _device_info() -> dict[str, Any]:
    return require_mlx().device_info()
