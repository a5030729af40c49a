"""Benchmarks and examples: each still calls the package as it is today, and each program says how it is used."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = [path for folder in ("benchmarks", "examples") for path in sorted((ROOT / folder).glob("*.py"))]
WITH_OPTIONS = [path for path in PROGRAMS if "argparse.ArgumentParser(" in path.read_text(encoding="utf-8")]
# Non-strict: a program need not be annotated. What nobody has to install, or has no types, is taken as it is.
SETTINGS = """
[mypy]
python_version = 3.10
check_untyped_defs = true
follow_imports = silent
disable_error_code = import-untyped

[mypy-torch.*,mlx_vlm.*,captum.*,transformers.*,matplotlib.*,soundfile.*,soxr.*,pillow_heif.*]
ignore_missing_imports = true
"""


def complaints(folder: Path, programs: list[Path]) -> list[str]:
    """The errors that mypy finds in programs which use the package as it is installed."""
    site, config = folder / "site", folder / "mypy.ini"
    without = shutil.ignore_patterns("__pycache__", "demo")
    shutil.copytree(
        ROOT / "lime_mlx", site / "lime_mlx", ignore=lambda path, names: {*without(path, names), "cli", "convert"}
    )
    for name in ("cli", "convert"):
        shutil.copytree(ROOT / name, site / "lime_mlx" / name, ignore=without)
    config.write_text(SETTINGS)
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(folder / "cache")]
    environment = {**os.environ, "MYPYPATH": os.pathsep.join([str(site), str(ROOT / "tests")])}
    done = subprocess.run([*command, *map(str, programs)], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode in (0, 1) and not done.stderr.strip(), done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


@pytest.mark.slow
def test_no_program_calls_what_the_package_no_longer_has(tmp_path):
    outdated = tmp_path / "outdated.py"
    outdated.write_text(
        "import lime_mlx.gone\n"
        "from lime_mlx.decoding import begin, start\n"
        "from lime_mlx.methods.token_optimizer import Fast\n"
        "def main(model, prompt, search: Fast):\n"
        "    start(model, prompt, content=None)\n"
        "    return search.read(), unknown\n"
    )
    errors = complaints(tmp_path, [*PROGRAMS, outdated])
    of_outdated = [error for error in errors if "outdated.py" in error]
    assert [error for error in errors if error not in of_outdated] == []
    kinds = [re.sub(r".*\[(.*)\]", r"\1", error) for error in of_outdated]
    assert sorted(kinds) == ["attr-defined", "attr-defined", "call-arg", "import-not-found", "name-defined"]


@pytest.mark.parametrize("path", WITH_OPTIONS, ids=lambda path: path.stem)
def test_a_benchmark_says_how_it_is_used(path):
    if re.search(r"^import torch", path.read_text(), re.MULTILINE) and importlib.util.find_spec("torch") is None:
        pytest.skip(f"{path.name} needs PyTorch: pip install torch")
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {path.name}")
