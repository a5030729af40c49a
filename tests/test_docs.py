"""The docs agree with the code: commands, help texts, Python blocks, examples, links and the tree of modules.

`python tests/test_docs.py --write` writes the help texts into docs/cli.md and the tree into CONTRIBUTING.md again.
"""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import lime_mlx
from lime_mlx.cli import main
from lime_mlx.evaluate.bound import Wish
from lime_mlx.evaluate.tasks import parse_task
from lime_mlx.methods import parse_method

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md")))
EXAMPLES = sorted(path.name for path in ROOT.glob("examples/*.py"))
HELP, TREE = ROOT / "docs/cli.md", ROOT / "CONTRIBUTING.md"
# Each page of docs opens with a line for each of these.
OPENING = ("What it is for", "The command", "What you get")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def unfenced(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def commands() -> list[str]:
    """Lines of the pages' code that call lime-mlx, without comments; A, B and MODEL stand for any model."""
    calls = []
    for page in PAGES:
        for line in re.findall(
            r"^    (.*lime-mlx [a-z].*)$", re.sub(r"```.*?```", "", read(page), flags=re.DOTALL), re.M
        ):
            for part in re.split(r" && |\|", re.sub(r"\s+#.*", "", line)):
                if "lime-mlx " in part and "pip install" not in part:
                    calls.append(part[part.index("lime-mlx ") :].strip())
    return calls


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the examples and with the files that the pages name, from which the commands are read."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "pics").mkdir()
    for name, like in (("photo.jpg", "scene.png"), ("pics/a.jpg", "scene.png"), ("street.wav", "sounds.wav")):
        shutil.copy(ROOT / "examples" / like, tmp_path / name)
    shutil.copy(ROOT / "examples/sounds.wav", tmp_path / "street.mp3")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", dict.fromkeys(commands()))
def test_a_command_of_the_docs_is_valid(line, folder):
    _, *words = [name for word in shlex.split(line) for name in (_expanded(word, folder) if "*" in word else [word])]
    command, context = main, click.Context(main, **main.context_settings)
    while isinstance(command, click.Group):
        name, *words = words
        command = command.get_command(context, name)
        assert command is not None, f"no command {name}"
    chosen = command.make_context(command.name or "lime-mlx", words, context).params
    promised = chosen.get("risk") is not None
    for spec in _listed(chosen.get("method")):
        Wish(0.02, procedure=spec).check() if promised else parse_method(spec)
    if "skip_missing" in chosen:
        for spec in _listed(chosen.get("task")):
            parse_task(spec)


def _expanded(pattern: str, folder: Path) -> list[str]:
    """What a shell makes of a pattern."""
    return sorted(str(path.relative_to(folder)) for path in folder.glob(pattern))


def _listed(value) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def test_the_pages_have_commands():
    assert len(commands()) > 15


def blocks(page: str) -> list[tuple[int, str]]:
    """The line number and the text of each Python block of a page."""
    text = read(page)
    matches = re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text[: block.start(1)].count("\n"), block[1]) for block in matches]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_python_of_a_page_runs_as_printed(page, folder):
    names = {"__name__": "__main__"}
    for line, block in blocks(page):
        exec(compile("\n" * line + block, page, "exec"), names)


def test_the_pages_have_python():
    assert {"README.md", "docs/explain.md", "docs/evaluate.md"} <= {page for page in PAGES if blocks(page)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    for written in re.findall(r"^wrote (.+)$", done.stdout, re.MULTILINE):
        assert (tmp_path / written).stat().st_size > 0


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_the_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page} links to {target}: no such heading"


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", unfenced(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_a_page_opens_with_three_lines(page):
    title, blank, *rest = read(page).splitlines()
    assert title.startswith("# ") and not blank
    opening = "\n".join(rest[: rest.index("")])
    assert tuple(re.findall(r"^- \*\*(.+?):\*\* ", opening, re.MULTILINE)) == OPENING


def test_the_glossary_names_everything_public():
    glossary = read("docs/glossary.md").lower()
    missing = [name for name in lime_mlx.__all__ if name[0].isupper() and name.lower() not in glossary]
    assert not missing, f"docs/glossary.md lacks {', '.join(missing)}"


def every_command(group: click.Group = main) -> list[tuple[str, ...]]:
    """The words of every command, each group before its commands: (), ("convert",), ("data",), ("data", "get"), ..."""
    names: list[tuple[str, ...]] = [()]
    context = click.Context(group, **group.context_settings)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = every_command(command) if isinstance(command, click.Group) else [()]
        names += [(name, *rest) for rest in inner]
    return names


def help_sections() -> str:
    """One section for each command with its help text, 80 columns wide."""
    sections = []
    for names in every_command():
        shown = CliRunner().invoke(main, [*names, "--help"], prog_name="lime-mlx", terminal_width=80)
        assert shown.exit_code == 0, shown.output
        sections.append(f"## {' '.join(('lime-mlx', *names))}\n\n```\n{shown.output.strip()}\n```\n")
    return "\n".join(sections)


def test_the_help_texts_stand_in_the_docs():
    text = read("docs/cli.md")
    written = text[text.index("\n## ") + 1 :]
    assert written == help_sections(), "Run python tests/test_docs.py --write"


def modules() -> list[str]:
    """Every module of the package by its path, and packages whose modules are listed by their folder."""
    files = [path for room in ("lime_mlx", "convert", "cli") for path in sorted((ROOT / room).rglob("*.py"))]
    return [str(path.relative_to(ROOT)) for path in files if path.name != "__init__.py" and path.name != "_version.py"]


def tree_lines() -> dict[str, str]:
    """The lines of the tree in CONTRIBUTING.md: path of the module to what it is for."""
    folder, lines = "", {}
    for line in fenced("tree").splitlines():
        if not line.startswith(" "):
            folder = line.split()[0]
        else:
            name, purpose = line.split(maxsplit=1)
            lines[folder + name] = purpose
    return lines


def test_the_tree_has_one_line_for_each_module():
    assert sorted(tree_lines()) == sorted(modules()), "Run python tests/test_docs.py --write, and read the new lines"


def floors() -> str:
    """The floors of `[tool.importlinter]`, the top one first."""
    layers = re.search(r"^layers = \[\n(.*?)^\]", read("pyproject.toml"), re.DOTALL | re.MULTILINE)
    return "".join(f"{line}\n" for line in re.findall(r'"(.+)"', layers[1]))


def test_the_floors_stand_in_the_docs():
    assert fenced("floors") == floors(), "Run python tests/test_docs.py --write"


def fenced(kind: str) -> str:
    """The text of a block of CONTRIBUTING.md."""
    return re.search(rf"^```{kind}\n(.*?)^```", read("CONTRIBUTING.md"), re.DOTALL | re.MULTILINE)[1]


def field_tables() -> str:
    """What docs/server.md says of the fields that the server ignores or refuses."""
    from lime_mlx.server.fields import BESIDE_MESSAGES, CHAT, RESPONSES

    ignored, refused = CHAT.ignored | RESPONSES.ignored, dict(CHAT.refused)
    for name, (values, reason) in RESPONSES.refused.items():
        refused[name] = (
            [*refused.get(name, ([], ""))[0], *(v for v in values if v not in refused.get(name, ([],))[0])],
            reason,
        )
    lines = ["Ignored:", "", "| Field | Why it does not matter |", "|---|---|"]
    lines += [f"| `{name}` | {reason} |" for name, reason in sorted(ignored.items())]
    lines += ["", "Ignored beside a message or a part of one, as is every unknown field there that is null:", ""]
    lines += ["| Field | Why it does not matter |", "|---|---|"]
    lines += [f"| `{name}` | {reason} |" for name, reason in sorted(BESIDE_MESSAGES.items())]
    lines += ["", "Refused with 400, except for null and the values that ask for what happens anyway:", ""]
    lines += ["| Field | Not refused | Why |", "|---|---|---|"]
    for name, (values, reason) in sorted(refused.items()):
        taken = ", ".join(f"`{json.dumps(value)}`" for value in values if value != 0.0 or isinstance(value, int))
        lines.append(f"| `{name}` | {taken} | {reason} |")
    return "\n" + "\n".join(lines) + "\n\n"


def test_every_field_of_the_server_stands_in_the_docs():
    text = read("docs/server.md")
    begin, end = "<!-- fields -->\n", "<!-- end of fields -->"
    assert text[text.index(begin) + len(begin) : text.index(end)] == field_tables(), "Run tests/test_docs.py --write"
    pytest.importorskip("pydantic", reason="the server's packages are not installed: pip install 'lime-mlx[server]'")
    from lime_mlx.server.schema import ChatRequest, ResponsesRequest

    honoured = text[text.index("Honoured:") : text.index(begin)]
    for name in {*ChatRequest.model_fields, *ResponsesRequest.model_fields}:
        assert f"`{name}`" in honoured or f"`{name}." in honoured, name


def write_fields() -> None:
    page = ROOT / "docs/server.md"
    text = page.read_text(encoding="utf-8")
    begin, end = "<!-- fields -->\n", "<!-- end of fields -->"
    page.write_text(text[: text.index(begin) + len(begin)] + field_tables() + text[text.index(end) :], encoding="utf-8")


def write_fenced(kind: str, text: str) -> None:
    whole = TREE.read_text(encoding="utf-8")
    TREE.write_text(whole.replace(f"```{kind}\n{fenced(kind)}", f"```{kind}\n{text}"), encoding="utf-8")


def write_help() -> None:
    text = HELP.read_text(encoding="utf-8")
    HELP.write_text(text[: text.index("\n## ") + 1] + help_sections(), encoding="utf-8")


def write_tree() -> None:
    """Keep the lines of modules that exist, drop the others, and add new modules with their docstring's first line."""
    lines = tree_lines()
    about = dict(re.findall(r"^(\S+/)\s+(\S.*)$", fenced("tree"), re.MULTILINE))
    folders: dict[str, list[str]] = {}
    for path in modules():
        folders.setdefault(path.rpartition("/")[0] + "/", []).append(path)
    rows = []
    for folder, paths in folders.items():
        rows.append(f"{folder:28}{about.get(folder, '')}".rstrip())
        rows += [f"    {path.rpartition('/')[2]:24}{lines.get(path) or _summary(path)}" for path in paths]
    write_fenced("tree", "\n".join(rows) + "\n")


def _summary(path: str) -> str:
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or "(has no docstring)"
    return " ".join(docstring.split("\n\n")[0].split())


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_docs.py --write")
    write_help()
    write_tree()
    write_fenced("floors", floors())
    write_fields()
