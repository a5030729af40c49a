"""The commands in the docs exist, with options, methods and tasks that are valid."""

import re
import shlex
from pathlib import Path

import pytest

from lime_mlx.cli import main
from lime_mlx.evaluate.tasks import parse_task
from lime_mlx.methods import parse_method

PAGES = ("docs/explain.md", "docs/evaluate.md", "docs/methods.md", "README.md")
HERE = Path(__file__).parents[1]


def commands() -> list[str]:
    """Lines of the pages' code that call lime-mlx, without comments; A and B stand for any model."""
    found = []
    for page in PAGES:
        for line in re.findall(r"^    (.*lime-mlx [a-z].*)$", (HERE / page).read_text(), re.MULTILINE):
            for part in re.split(r" && |\|", re.sub(r"\s+#.*", "", line)):
                if "lime-mlx " in part and "pip install" not in part:
                    found.append(part[part.index("lime-mlx ") :].strip())
    return found


@pytest.mark.parametrize("line", dict.fromkeys(commands()))
def test_a_command_of_the_docs_is_valid(line):
    _, *words = shlex.split(line)
    command, context = main, None
    while hasattr(command, "get_command"):
        name, *words = words
        command = command.get_command(context, name)
        assert command is not None, f"no command {name}"
    chosen = command.make_context(command.name or "lime-mlx", words).params
    for spec in _listed(chosen.get("method")):
        parse_method(spec)
    if "skip_missing" in chosen:
        for spec in _listed(chosen.get("task")):
            parse_task(spec)


def _listed(value) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def test_the_pages_have_commands():
    assert len(commands()) > 15
