"""What reaches the terminal, figures and pages: no controls of others, no long values, no noise of libraries."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import lime_mlx
from lime_mlx.answer import Answer
from lime_mlx.checkpoint.hub import demos
from lime_mlx.cli import main
from lime_mlx.convert import convert, pipeline, staging
from lime_mlx.errors import ConversionError, LimeError, plain_text, short
from lime_mlx.explanation import Explanation
from lime_mlx.lrp.relevance import Shares
from lime_mlx.prompt import Grid, Span
from lime_mlx.words import Word

# Moves the cursor, changes the title, rings, ends a string, turns text around, C1, NUL.
HOSTILE = "dog\x1b[2J\x1b]0;title\x07\x00\x9b31m\u202e\x7f\x85\u2028"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2028]")


def test_plain_text_keeps_what_is_text():
    text = "A cät\n\tof 12 \N{EURO SIGN}, \u4e2d\u6587 \N{DOG FACE} \u0627\u0644"
    assert plain_text(text) == text
    assert not CONTROL.search(plain_text(HOSTILE)) and plain_text(HOSTILE).startswith("dog\ufffd[2J")
    assert plain_text("\ud800") == "\ufffd"
    assert len(short("x" * 5000)) <= 120 and short("a\nb  c") == "a b c"
    assert str(LimeError("a\x1b[2J" + "x" * 5000)).startswith("a\ufffd[2J") and len(str(LimeError("x" * 5000))) <= 1500


@pytest.fixture(scope="module")
def hostile_model(tmp_path_factory):
    """The demo with a tokenizer whose words are hostile."""
    folder = tmp_path_factory.mktemp("hostile") / "model\x1b[31m"
    shutil.copytree(demos()["picture"], folder)
    path = folder / "tokenizer.json"
    stored = json.loads(path.read_text())
    # In the alphabet of byte-level tokenizers, U+0100 and on stand for the bytes 0 to 32.
    stored["model"]["vocab"] = {
        (f"{word}\u011b[2J\u0107\u0100" if word.startswith("\u0120") and len(word) > 2 else word): number
        for word, number in stored["model"]["vocab"].items()
    }
    stored["model"]["merges"] = []
    path.write_text(json.dumps(stored))
    return folder


COMMANDS = [
    ["generate"], ["generate", "--explain", "--flag"], ["generate", "--json"], ["generate", "--on-unsupported", "drop"],
    ["explain"], ["explain", "--diagnose"], ["explain", "--json"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_answer_with_escapes_does_not_reach_the_terminal(hostile_model, command):
    run = [*command, "examples/scene.png", "-p", "x", "--model", str(hostile_model), "--max-tokens", "24"]
    result = CliRunner().invoke(main, run)
    assert result.exit_code == 0, result.output
    assert not CONTROL.search(result.stdout) and not CONTROL.search(result.stderr)
    if "--json" in command:
        assert "\x1b" in json.loads(result.stdout)["text"]
    else:
        assert "\ufffd[2J" in result.stdout


def explanation():
    shares = Shares(0.5, 0.0, 0.3, 0.2)
    relevance = np.arange(12, dtype=np.float32)
    words = [Word(text=f" {HOSTILE}", tokens=(1,), shares=shares, relevance=relevance, rank=1)]
    answer = Answer(text=HOSTILE, words=words, tokens=[1])
    pictures = [Image.new("RGB", (32, 32))]
    spans = [Span("image", 0, 4, grid=Grid(2, 2))]
    return Explanation(question="?", method="none", answer=answer, spans=spans, pictures=pictures, warnings=[HOSTILE])


def test_an_svg_of_hostile_words_is_well_formed(tmp_path):
    file = explanation().save(tmp_path / "page.svg")
    ElementTree.parse(file)
    assert not CONTROL.search(file.read_text())


def test_a_page_of_hostile_words_has_no_controls(tmp_path):
    page = explanation().save(tmp_path / "page.html").read_text()
    assert "dog" in page and not CONTROL.search(page)
    assert not CONTROL.search(explanation()._repr_html_())


def test_a_report_of_hostile_names_is_a_page(tmp_path):
    folder = tmp_path / "run"
    evaluate = ["evaluate", "--limit", "1", "--method", "none", "--quiet", "--no-reliance", "--output-dir", str(folder)]
    assert CliRunner().invoke(main, evaluate).exit_code == 0
    settings = json.loads((folder / "settings.json").read_text())
    settings["models"] = {f"demo{HOSTILE}": settings["models"]["demo"]}
    (folder / "settings.json").write_text(json.dumps(settings))
    from lime_mlx.evaluate.store import slug

    (folder / "answers" / "demo").rename(folder / "answers" / slug(f"demo{HOSTILE}"))
    for file in (folder / "answers").rglob("*.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps({**line, "text": line["text"] + HOSTILE}) + "\n" for line in lines))
    for command in (["report", str(folder)], ["score", str(folder)], ["score", str(folder), "--markdown"]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0 and not CONTROL.search(result.stdout), result.output
    assert not CONTROL.search((folder / "report.html").read_text())


LONG = "x" * 5000


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "-p", "x", "--method", LONG],
        ["generate", "-p", "x", "--method", f"lime:{LONG}=1"],
        ["generate", "-p", "x", "--method", f"lime:steps={LONG}"],
        ["generate", "-p", "x", "--model", LONG],
        ["generate", "--image", LONG],
        ["evaluate", "--task", LONG],
        ["evaluate", "--task", f"pope:set={LONG}"],
        ["score", LONG],
        ["report", LONG],
        ["inspect", LONG],
        ["convert", "--hf-path", LONG, "--mlx-path", "out"],
        ["convert", "--hf-path", "demo", "--mlx-path", "~nobody-of-this-name/x"],
    ],
)
def test_a_long_value_is_not_echoed(arguments):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (1, 2) and result.stdout == ""
    assert len(result.stderr) < 1600 and "please report" not in result.stderr and "x" * 600 not in result.stderr


def test_a_home_that_cannot_be_written_makes_no_paragraph(tmp_path):
    page = tmp_path / "page.png"
    homeless = {**os.environ, "HOME": "/proc/nowhere", "XDG_CONFIG_HOME": "/proc/no", "XDG_CACHE_HOME": "/proc/no"}
    homeless.pop("MPLCONFIGDIR", None)
    code = "from lime_mlx.cli import main; main()"
    command = [sys.executable, "-c", code, "explain", "examples/scene.png", "--quiet", "--max-tokens", "2", "--method"]
    done = subprocess.run([*command, "none", "--output", str(page)], env=homeless, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "atplotlib" not in done.stderr and page.exists()


def test_a_refused_conversion_leaves_no_plan(tmp_path, monkeypatch):
    def full(out, needed):
        raise ConversionError("no room")

    monkeypatch.setattr(pipeline, "check_space", full)
    with pytest.raises(ConversionError, match="no room"):
        convert("demo", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_that_another_process_finished_meanwhile_is_refused(tmp_path, monkeypatch):
    """The other process ends between the look at the target and the lock."""
    real = staging.Staging.__enter__

    def entered(self):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "config.json").write_text("theirs")
        return real(self)

    monkeypatch.setattr(staging.Staging, "__enter__", entered)
    with pytest.raises(ConversionError, match="exists already"):
        convert("demo", tmp_path / "out", compare_logits=False)
    assert (tmp_path / "out" / "config.json").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_lock_on_a_folder_that_was_moved_is_none(tmp_path, monkeypatch):
    """The other process renames its folder after this one opened it, and before it has the lock."""
    out = tmp_path / "out"

    def flock(handle, how):
        Path(tmp_path / ".out.unfinished").rename(out)

    monkeypatch.setattr(staging.fcntl, "flock", flock)
    with pytest.raises(ConversionError, match="Another process"), staging.Staging(out):
        pass
    assert lime_mlx.__name__
