"""Types: what a checker refuses in the program of a user, and how few exceptions the package itself asks for."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tokenize
import zipfile
from pathlib import Path

import pytest

import lime_mlx

ROOT = Path(__file__).parents[1]
MOST_IGNORES = 15
# An ignored error has a code, and a reason after it.
IGNORE = re.compile(r"# (type|pyright): ?ignore\[[a-zA-Z-]+(, [a-zA-Z-]+)*\]  # \S+ .*")
PACKAGED = [path for folder in ("lime_mlx", "cli", "convert") for path in sorted((ROOT / folder).rglob("*.py"))]

RIGHT = """
from pathlib import Path

import lime_mlx
from lime_mlx import generate, load
from lime_mlx.convert import Report, convert

model, processor = load("demo")
answer = generate(model, processor, "What is in the picture?", image="scene.png", max_tokens=8)
report: Report = convert("owner/name", Path("out"), quantize=True, q_bits=4)
size: int = report.size
"""
EXPLAINED = """
from lime_mlx import explain, generate, load

model, processor = load("demo")
answer = generate(model, processor, "What?", image="scene.png", temperature=0.0, seed=1, stop=["."])
text: str = answer.text
explanation = explain(model, processor, "What?", image="scene.png")
for word in explanation.words:
    share: float = word.shares.image if word.shares else 0.0
explanation.save("page.html")
"""
# What is put at the end of a right program, and what both checkers then name.
WRONG = {"report.sise": "sise", 'convert("owner/name", revison="main")': "revison"}
WRONG_EXPLAINED = {
    "answer.txt": "txt",
    'generate(model, processor, "What?", temprature=0)': "temprature",
    'generate(model, processor, "What?", max_tokens="8")': "max_tokens",
    'explain(model, processor, "What?", imge="scene.png")': "imge",
    "explanation.words[0].sharez": "sharez",
    "explanation.wordz": "wordz",
    "import lime_mlx\nlime_mlx.explane": "explane",
}
explains = pytest.mark.skipif("explain" not in lime_mlx.__all__, reason="this version has no lime_mlx.explain")
needs_pyright = pytest.mark.skipif(
    importlib.util.find_spec("basedpyright") is None, reason='basedpyright is missing: pip install "lime-mlx[types]"'
)
CHECKERS = ["mypy", pytest.param("basedpyright", marks=needs_pyright)]


def complaints(checker: str, script: Path, *, path: Path | None = None, python: str = sys.executable) -> str:
    """What a type checker says of a program that finds the package under `path`, or where `python` finds it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if checker == "mypy":
        cache = str(script.parents[1] / "mypy")
        command = [
            "mypy",
            "--strict",
            "--follow-imports",
            "silent",
            "--cache-dir",
            cache,
            "--python-executable",
            python,
        ]
        environment["MYPYPATH"] = str(path or "")
    else:
        settings = {"extraPaths": [str(path)] if path else [], "typeCheckingMode": "standard", "include": [script.name]}
        script.with_name("pyrightconfig.json").write_text(json.dumps(settings))
        command = ["basedpyright", "--pythonpath", python, "--level", "error"]
    arguments = [script.name] if checker == "mypy" else ["--project", "pyrightconfig.json"]
    done = subprocess.run(
        [sys.executable, "-m", *command, *arguments], capture_output=True, text=True, cwd=script.parent, env=environment
    )
    assert done.returncode in (0, 1) and not done.stderr.strip(), done.stderr
    return done.stdout if done.returncode else ""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The folder of an unpacked wheel of the package."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    for name in ("lime_mlx", "cli", "convert"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as opened:
        opened.extractall(folder / "site")
    return folder / "site"


def write(folder: Path, text: str) -> Path:
    script = folder / "user" / "program.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(text.lstrip())
    return script


@pytest.mark.slow
def test_the_wheel_holds_every_module_once(wheel):
    packed = {path.relative_to(wheel / "lime_mlx") for path in (wheel / "lime_mlx").rglob("*.py")}
    stored = {path.relative_to(ROOT) for path in PACKAGED}
    assert packed == {Path(*path.parts[path.parts[0] == "lime_mlx" :]) for path in stored}
    assert (wheel / "lime_mlx" / "py.typed").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize(
    ("program", "wrong"),
    [
        pytest.param(RIGHT, WRONG, id="generate and convert"),
        pytest.param(EXPLAINED, WRONG_EXPLAINED, marks=explains, id="explain"),
    ],
)
def test_a_wrong_program_is_refused_and_a_right_one_passes(wheel, tmp_path, checker, program, wrong):
    assert complaints(checker, write(tmp_path, program), path=wheel) == ""
    for line, name in wrong.items():
        said = complaints(checker, write(tmp_path, f"{program}{line}\n"), path=wheel)
        assert f'"{name}"' in said and len(re.findall(r"\berror\b:?", said)) <= 3, (line, said)


@pytest.mark.slow
@pytest.mark.parametrize("checker", CHECKERS)
def test_an_editable_install_is_found_and_so_are_new_files(tmp_path, checker):
    source, python = tmp_path / "source", tmp_path / "venv" / "bin" / "python"
    for name in ("lime_mlx", "cli", "convert"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", *"cli convert".split())
        )
    shutil.copy(ROOT / "Makefile", source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    subprocess.run(["make", "--silent", "links", f"PY={python}"], cwd=source, check=True)
    (source / "cli" / "newer.py").write_text("answer: int = 42\n")
    (source / "lime_mlx" / "newest.py").write_text("question: int = 6 * 9\n")
    imports = "from lime_mlx.cli import newer\nfrom lime_mlx import convert, newest\n"
    script = write(tmp_path, f"{imports}print(newer.answer + newest.question, convert.Report)\n")
    assert complaints(checker, script, python=str(python)) == ""
    script = write(tmp_path, f'{imports}newer.answer + ""\nnewest.question + ""\nconvert.Reprt\n')
    said = complaints(checker, script, python=str(python))
    assert len(re.findall(r"\berror: ", said)) == 3 and "Reprt" in said, said


def test_few_errors_are_ignored_and_each_has_a_code_and_a_reason():
    ignores = []
    for path in PACKAGED:
        with tokenize.open(path) as file:
            for token in tokenize.generate_tokens(file.readline):
                if token.type == tokenize.COMMENT and re.search(r"(type|pyright): ?ignore|mypy:", token.string):
                    ignores.append((path.relative_to(ROOT), token.start[0], token.string))
    assert not [ignore for ignore in ignores if not IGNORE.fullmatch(ignore[2])]
    assert len(ignores) <= MOST_IGNORES, ignores


def public(tree: ast.Module):
    """The functions that a module offers: its own and those of its classes, no name with an underscore in front."""
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")]
    for node in (node for body in bodies for node in body):
        if isinstance(node, ast.FunctionDef) and (node.name[0] != "_" or node.name == "__init__"):
            yield node


# The rooms whose public signatures have no Any.
ROOMS = ("cli", "convert", "lime_mlx")


@pytest.mark.parametrize("room", ROOMS)
def test_no_public_signature_says_any(room):
    paths = [path for path in PACKAGED if str(path.relative_to(ROOT)).removesuffix(".py").startswith(room)]
    assert paths
    vague = []
    for path in paths:
        for function in public(ast.parse(path.read_text())):
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            arguments += [argument for argument in (function.args.vararg, function.args.kwarg) if argument]
            hints = [function.returns, *(argument.annotation for argument in arguments)]
            if any(re.search(r"\bAny\b", ast.unparse(hint)) for hint in hints if hint):
                vague.append(f"{path.relative_to(ROOT)}: {function.name}")
    assert not vague
