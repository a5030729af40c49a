import os

os.environ.setdefault("MLX_ENABLE_TF32", "0")

from lime_mlx import backend  # noqa: E402

backend.load_blas()
