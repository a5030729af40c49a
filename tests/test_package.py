import subprocess
import sys

import pytest


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_nothing_heavy():
    heavy = {
        "mlx",
        "mlx_lm",
        "numpy",
        "PIL",
        "transformers",
        "tokenizers",
        "huggingface_hub",
        "click",
        "rich",
    }
    loaded = run("import sys, lime_mlx; print(*sys.modules)").split()
    assert not heavy & {name.split(".")[0] for name in loaded}


@pytest.mark.parametrize(
    "first",
    [
        "",
        "import lime_mlx.generation",
        "from lime_mlx.generation import stream_generate",
        "from lime_mlx import generate",
        "import lime_mlx; lime_mlx.stream_generate",
        "from lime_mlx import decode; import lime_mlx.generation",
    ],
)
def test_generate_is_the_function_whatever_was_imported_before(first):
    assert run(f"{first}\nfrom lime_mlx import generate; print(type(generate).__name__)") == "function"


def test_every_export_is_there_and_nothing_else():
    code = "import lime_mlx; print(*(n for n in lime_mlx.__all__ if getattr(lime_mlx, n) is None))"
    assert run(code) == ""
    code = "from lime_mlx import *; import lime_mlx; print(set(lime_mlx.__all__) <= set(dir(lime_mlx)))"
    assert run(code) == "True"
    code = "import lime_mlx; print(hasattr(lime_mlx, 'nothing'))"
    assert run(code) == "False"
