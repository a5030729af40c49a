"""The page of the paper's tables: scorers exist, output folders are not shared, and every row has all its cells."""

import re
import shlex
from pathlib import Path

import pytest

from lime_mlx.cli import main
from lime_mlx.convert.schemes import Scheme
from lime_mlx.evaluate.tasks import parse_task
from lime_mlx.methods import parse_method

PAGE = (Path(__file__).parents[1] / "benchmarks/paper.md").read_text(encoding="utf-8")
LINES = re.findall(r"^    (lime-mlx .+)$", PAGE, re.MULTILINE)
TABLES = re.findall(r"(?:^\|.*\n?)+", PAGE, re.MULTILINE)


def chosen(line: str) -> dict:
    """The values of a command's options. Raises click's errors for what the command does not know."""
    _, *words = shlex.split(line)
    command = main
    while hasattr(command, "get_command"):
        name, *words = words
        command = command.get_command(None, name)
        assert command is not None, f"no command {name}"
    return command.make_context(command.name, words).params


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_valid(line):
    options = chosen(line)
    methods = options.get("method") or ()
    for spec in [methods] if isinstance(methods, str) else methods:
        parse_method(spec)
    if options.get("quantize"):
        Scheme.of(options["q_bits"], options["q_group_size"], options["q_mode"])
    if "evaluate" in line:
        assert options["task"] and options["method"] and options["model"]
        assert all(options["scorer"] in parse_task(spec).scorers for spec in options["task"])


def test_runs_do_not_share_a_folder_and_use_the_models_that_were_converted():
    options = [chosen(line) for line in LINES]
    folders = [found["output_dir"] for found in options if "output_dir" in found]
    assert len(folders) == len(set(folders)) > 5
    converted = {found["mlx_path"] for found in options if "mlx_path" in found}
    used = {name for found in options if "output_dir" in found for name in found["model"]}
    assert used == {str(path) for path in converted}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.split("|")[1].strip()[:30])
def test_a_table_has_whole_rows(table):
    assert len({row.count("|") for row in table.strip().splitlines()}) == 1
