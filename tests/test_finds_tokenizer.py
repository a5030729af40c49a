"""tokenizer.json that is broken in ways that only show when it is read, or when it sees a text."""

import base64
import json
import shutil

import pytest
from click.testing import CliRunner

from lime_mlx.checkpoint.hub import demos
from lime_mlx.checkpoint.load import load_processor
from lime_mlx.cli import main
from lime_mlx.errors import CheckpointError, LimeError

BASE = demos()["picture"]
STORED = json.loads((BASE / "tokenizer.json").read_text())


def charsmap(content: bytes) -> dict:
    return {"normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}}


def split(regex: str) -> dict:
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"pre_tokenizer": split}


CHANGES = {
    "a charsmap that ends early": charsmap(b"\x08\0\0\0aaaaaaaa"),
    "a charsmap that is none": charsmap(b"\xff\xff\xff\xffaaaaaaaa"),
    "an empty charsmap": charsmap(b""),
    "a regex that never ends": split("(x+x+)+y"),
    "another": split("^(a*)*$(?!b)\\1|(.+.+)+!!"),
    "no unknown token": {"model": {"type": "WordPiece", "vocab": {}, "unk_token": "?", "max_input_chars_per_word": 9}},
    "no vocabulary": {"model": {"type": "BPE", "vocab": {}, "merges": []}},
    "an empty word list": {"model": {"type": "WordLevel", "vocab": {}, "unk_token": "?"}},
    "unigram": {"model": {"type": "Unigram", "unk_id": None, "vocab": []}},
    "unigram with another unknown": {"model": {"type": "Unigram", "unk_id": 7, "vocab": [["a", -1.0]]}},
    "a decoder of nothing": {"decoder": {"type": "Sequence", "decoders": []}},
    "a template without tokens": {
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "no", "type_id": 0}}],
                           "pair": [], "special_tokens": {}}
    },
    "a padding of 4 GB": {"padding": {"strategy": {"Fixed": 1 << 32}, "direction": "Right", "pad_to_multiple_of": None,
                                      "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}},
    "a version": {"version": 7},
    "a list": {"model": []},
}  # fmt: skip


def changed(folder, change):
    shutil.copytree(BASE, folder)
    (folder / "tokenizer.json").write_text(json.dumps({**STORED, **change}))
    return folder


@pytest.mark.parametrize("name", CHANGES)
def test_a_broken_tokenizer_is_a_sentence(tmp_path, name, capfd):
    message = ""
    try:
        processor = load_processor(changed(tmp_path / "model", CHANGES[name]))
        processor.prompt("x" * 60 + " aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab What is there?")
        processor.tokenizer.decode([5, 6, 7])
        _ = processor.content
    except LimeError as error:
        message = str(error)
    assert "\n" not in message and len(message) < 600
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["a charsmap that ends early", "a charsmap that is none", "a regex that never ends"])
def test_a_panic_ends_the_command_with_one_line(tmp_path, name, capfd):
    folder = changed(tmp_path / "model", CHANGES[name])
    result = CliRunner().invoke(main, ["generate", "examples/scene.png", "--model", str(folder), "-p", "x" * 60 + " z"])
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("Error: The tokenizer in ") and result.stderr.count("\n") == 1
    assert capfd.readouterr().err == ""


def test_an_evaluation_records_a_panic_and_goes_on(tmp_path):
    folder = changed(tmp_path / "model", CHANGES["a charsmap that ends early"])
    run = ["evaluate", "--model", str(folder), "--model", "demo", "--limit", "1", "--method", "none", "--quiet"]
    result = CliRunner().invoke(main, [*run, "--output-dir", str(tmp_path / "run")])
    assert result.exit_code == 1 and "The tokenizer in " in result.stderr
    assert "caption" in result.stdout and "please report" not in result.stderr


def test_a_panic_while_reading_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_processor(changed(tmp_path / "model", CHANGES["a charsmap that is none"]))
