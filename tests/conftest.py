import os

os.environ.setdefault("MLX_ENABLE_TF32", "0")
# No test reads what the user calibrated, or writes there.
os.environ["LIME_MLX_HOME"] = os.devnull

from lime_mlx import blas  # noqa: E402

blas.load_blas()
