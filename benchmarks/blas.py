"""Time float32 products on the CPU with the BLAS that `blas.load_blas` finds.

python benchmarks/blas.py
LIME_MLX_BLAS=off python benchmarks/blas.py
OPENBLAS_NUM_THREADS=2 python benchmarks/blas.py
"""

import time

import mlx.core as mx
import numpy as np

from lime_mlx import blas

SHAPES = [(600, 512, 1536), (128, 128, 512), (1, 512, 1536)]


def measure(rows: int, inner: int, columns: int, seconds: float = 1.0) -> tuple[float, float]:
    """(median milliseconds of one product, largest difference from numpy in float64)."""
    random = np.random.default_rng(0)
    a = random.standard_normal((rows, inner), np.float32)
    b = random.standard_normal((inner, columns), np.float32)
    left, right = mx.array(a), mx.array(b)
    difference = np.abs(np.array(left @ right) - a.astype(np.float64) @ b).max()
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        mx.eval(left @ right)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times)), float(difference)


def main() -> None:
    mx.set_default_device(mx.cpu)
    print(blas.load_blas() or "the BLAS of MLX")
    for shape in SHAPES:
        milliseconds, difference = measure(*shape)
        print(f"{'x'.join(map(str, shape)):>14} {milliseconds:9.3f} ms   off by {difference:.1e}")


if __name__ == "__main__":
    main()
