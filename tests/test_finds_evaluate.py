"""What evaluate finds wrong before it asks anything, and what it leaves behind; stored files that are damaged."""

import json
import os
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from lime_mlx.checkpoint.hub import demos
from lime_mlx.cli import main
from lime_mlx.errors import DataError
from lime_mlx.evaluate.store import Cell, Store, read_records
from lime_mlx.evaluate.tasks.chair import _table
from lime_mlx.evaluate.tasks.pope import read_questions

RECORD = {"id": "a", "medium": "m", "split": "all", "prompt": "?", "label": "yes", "truth": None, "text": "Yes."}


def evaluate(folder, *arguments):
    run = ["evaluate", "--limit", "1", "--quiet", "--no-reliance", "--output-dir", str(folder), *arguments]
    return CliRunner().invoke(main, run)


def refused(result, words=""):
    assert result.exit_code == 1, result.output
    assert result.stdout == "" and result.stderr.count("\n") == 1
    assert words in result.stderr and "please report" not in result.stderr and "Errno" not in result.stderr


def test_a_scorer_that_no_task_has_is_refused_before_the_run(tmp_path):
    refused(evaluate(tmp_path / "run", "--scorer", "nobody"), "scorer")
    assert not (tmp_path / "run").exists()


LAYERED = [
    "lime:layers=99",
    "pai:layers=99",
    "heads:layers=99",
    "kvsmooth:layers=99",
    "pai:layers=5-99",
    "only:layer=99",
]


@pytest.mark.parametrize("method", [*LAYERED, "acg:layers=99", "iat:layers=99", "vcd+lime:layers=99"])
def test_layers_that_do_not_exist_are_refused_before_the_run(tmp_path, method):
    refused(evaluate(tmp_path / "run", "--method", method), "layer")
    assert not (tmp_path / "run").exists()


def damaged(folder):
    """A demo whose weights load, and hold NaN."""
    shutil.copytree(demos()["picture"], folder)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    data[8 + length : 12 + length] = np.float32("nan").tobytes()
    path.write_bytes(data)
    return folder


def test_a_model_that_cannot_be_used_leaves_nothing_behind(tmp_path):
    refused(evaluate(tmp_path / "run", "--model", str(damaged(tmp_path / "model"))), "NaN")
    assert not (tmp_path / "run").exists()
    (tmp_path / "empty").mkdir()
    refused(evaluate(tmp_path / "run", "--model", str(tmp_path / "empty")), "config.json")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_was_there_stays(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("x")
    refused(evaluate(tmp_path / "run", "--model", str(damaged(tmp_path / "model"))), "NaN")
    assert (tmp_path / "run" / "mine.txt").exists()


def test_a_file_that_may_not_grow_keeps_whole_lines(tmp_path):
    """A write that stops within a record leaves nothing of it, also when the file is closed."""
    code = """
import resource, signal, sys
from pathlib import Path
from lime_mlx.errors import DataError
from lime_mlx.evaluate.store import Answers
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
answers = Answers(Path(sys.argv[1]))
for number in range(99):
    try:
        answers.append({"id": str(number), "medium": "m", "text": "x" * 150})
    except DataError as error:
        print(error)
        break
"""
    file = tmp_path / "a.jsonl"
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    assert 4 <= len(list(read_records(file))) <= 5 and file.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("kind", ["pipe", "folder", "text", "deep", "list", "types"])
def test_settings_that_are_none(tmp_path, kind):
    file = tmp_path / "settings.json"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        types = {"common": [], "models": {"a": 5}, "methods": "none", "tasks": {"t": 1}, "data": 5}
        texts = {"text": "x", "deep": "[" * 500 + "]" * 500, "list": "[]", "types": json.dumps(types)}
        file.write_text(texts[kind])
    for command in ("score", "report"):
        refused(CliRunner().invoke(main, [command, str(tmp_path)]), "holds no evaluation")
    with pytest.raises(DataError):
        Store(tmp_path).settings  # noqa: B018


@pytest.mark.parametrize("key", [key for key in RECORD if key != "truth"])
@pytest.mark.parametrize("change", ["missing", 5, ["a"], {"a": 1}])
def test_a_record_without_a_key_is_named(tmp_path, key, change):
    record = {name: value for name, value in RECORD.items() if name != key}
    record |= {} if change == "missing" else {key: change}
    store = Store(tmp_path)
    file = store.answers(Cell("m", "none", "scenes")).path
    file.parent.mkdir(parents=True)
    file.write_text(f"{json.dumps({**RECORD, 'id': 'b'})}\n{json.dumps(record)}\n")
    with pytest.raises(DataError, match="scenes.jsonl:2: this line is no answer|the record a has no"):
        store.answers(Cell("m", "none", "scenes"))


@pytest.mark.parametrize(
    "line", ["[]", "5", "null", "[" * 5000, '{"id":' * 200 + "1" + "}" * 200, '{"id": "\\ud800"}', "\x00", "{}"]
)
def test_a_line_that_is_no_record(tmp_path, line):
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match="a.jsonl:1: this line is no answer"):
        list(read_records(tmp_path / "a.jsonl"))


def test_numbers_of_a_record_are_finite(tmp_path):
    for key, value in (
        ("reliance", [0.5, float("nan")]),
        ("seconds", "1"),
        ("tokens", ["a"]),
        ("memory", float("inf")),
    ):
        (tmp_path / "a.jsonl").write_text(json.dumps({**RECORD, key: value}) + "\n")
        with pytest.raises(DataError):
            list(read_records(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("read", [read_questions, _table, lambda file: list(read_records(file))])
def test_a_pipe_or_a_folder_does_not_hang(tmp_path, read):
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").mkdir()
    for name in ("a.json", "b.json"):
        with pytest.raises(DataError):
            read(tmp_path / name)


@pytest.mark.parametrize("text", ["[" * 5000, '[{"a": "\\ud800"}]', "[" + '{"a":' * 150 + "1" + "}" * 150 + "]", "5"])
def test_questions_that_are_nested_too_deep(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError):
        read_questions(tmp_path / "a.json")
