"""The command line from the outside: what is printed where, and with which exit code."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import checkpoints as tiny
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lime_mlx.cli import main
from lime_mlx.explain import mean, words
from lime_mlx.lrp.relevance import Shares


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "model"
    tiny.write(folder, tiny.LLAVA, tiny.random_weights(tiny.LLAVA))
    tiny.write_tokenizer(folder)
    return str(folder)


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    file = tmp_path / "picture.png"
    Image.fromarray(pixels).save(file)
    return str(file)


def run(*arguments, **options):
    return CliRunner().invoke(main, ["generate", *arguments], **options)


def refused(result):
    """The one line of an error; nothing else was printed."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_answer_on_stdout_and_the_rest_on_stderr(model, picture):
    result = run("--model", model, "--image", picture, "--max-tokens", "5")
    assert result.exit_code == 0, result.output
    assert "tokens" not in result.stdout
    lines = result.stderr.splitlines()
    assert lines[0].startswith("Prompt: ")
    assert lines[0].endswith(" tokens-per-sec")
    assert lines[1].startswith("Generation: 5 tokens, ")
    assert lines[2].startswith("Peak memory: ")
    assert lines[3].startswith("LIME: ")
    assert " x plain decode, +" in lines[3]


def test_quiet_prints_the_answer_alone(model, picture):
    loud, quiet = (run("--model", model, "--image", picture, "--max-tokens", "5", *q) for q in ((), ("--quiet",)))
    assert quiet.stderr == ""
    assert quiet.stdout == loud.stdout


def test_explain_without_a_terminal_gives_numbers(model, picture):
    result = run("--model", model, "--image", picture, "--max-tokens", "6", "--explain", "--quiet")
    *answer, total = result.stdout.splitlines()
    assert "%]" in "".join(answer)
    parts = [int(part.split()[-2]) for part in total.split(",")]
    assert total.startswith("picture ")
    assert "own text" in total
    assert 99 <= sum(parts) <= 101


def test_json_is_one_object(model, picture):
    result = run("--model", model, "--image", picture, "--max-tokens", "4", "--json", "--quiet", "--method", "none")
    answer = json.loads(result.stdout)
    assert len(answer["tokens"]) == len(answer["reliance"]) == 4
    assert answer["method"] == "none"
    assert answer["finish_reason"] == "length"
    for word in answer["words"]:
        assert word["media"] + word["prompt"] + word["own"] == pytest.approx(1)


def test_picture_and_prompt_from_standard_input(model, picture):
    piped = run("--model", model, "--image", "-", "--max-tokens", "3", input=Path(picture).read_bytes())
    filed = run("--model", model, "--image", picture, "--max-tokens", "3")
    assert piped.exit_code == 0
    assert piped.stdout == filed.stdout
    asked = run("--model", model, "--image", picture, "-p", "-", "--max-tokens", "3", input="Is there a cat?")
    assert asked.exit_code == 0


def test_sampling_is_seeded(model, picture):
    said = [
        run("--model", model, "--image", picture, "--method", "none", "--temp", "2", "--max-tokens", "8", "--seed", s)
        for s in ("1", "1", "2")
    ]
    assert said[0].stdout == said[1].stdout != said[2].stdout


def test_text_alone_is_decoded_plainly(model):
    result = run("--model", model, "-p", "Is there a dog?", "--max-tokens", "3")
    assert result.exit_code == 0
    assert "LIME" not in result.stderr


def test_an_animation_is_noted(model, tmp_path):
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    result = run("--model", model, "--image", str(tmp_path / "a.gif"), "--max-tokens", "2")
    assert "first" in result.stderr.splitlines()[0]


def broken(tmp_path, name):
    file = tmp_path / name
    if name == "empty.png":
        file.touch()
    elif name == "text.jpg":
        file.write_text("this is not a picture")
    elif name == "cut.jpg":
        out = io.BytesIO()
        Image.effect_noise((200, 200), 80).convert("RGB").save(out, "JPEG")
        file.write_bytes(out.getvalue()[: len(out.getvalue()) // 2])
    elif name == "dot.png":
        Image.new("RGB", (1, 1)).save(file)
    elif name == "huge.png":
        Image.new("1", (30_000, 30_000)).save(file)
    elif name == "folder":
        file.mkdir()
    return str(file)


@pytest.mark.parametrize("name", ["missing.png", "folder", "empty.png", "cut.jpg", "text.jpg", "dot.png", "huge.png"])
def test_a_picture_that_cannot_be_used(model, tmp_path, name):
    message = refused(run("--model", model, "--image", broken(tmp_path, name)))
    assert name in message


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--max-tokens", "0"], "--max-tokens is 0"),
        (["--max-tokens", "-3"], "--max-tokens is -3"),
        (["-p", ""], "prompt is empty"),
        (["-p", "  "], "prompt is empty"),
        (["--method", "lemon"], "choose one of none, lime"),
        (["--method", "lime:stops=3"], "options are key=value: mode, steps"),
        (["--method", "lime:steps=many"], "a whole number"),
        (["--method", "none:steps=2"], "it has none"),
        (["--method", "lime:layers=0-99"], "the model has 2 layers"),
        (["--temperature", "-1"], "must not be negative"),
        (["--image", "ftp://x/y.png"], "ftp"),
        (["--image", "http://127.0.0.1:9/x.png"], "127.0.0.1:9"),
        (["--audio", "x.wav"], "takes no sound"),
    ],
)
def test_a_wrong_option_is_one_line(model, picture, arguments, part):
    assert part in refused(run("--model", model, "--image", picture, *arguments))


def test_no_prompt_and_no_picture(model):
    assert "prompt is empty" in refused(run("--model", model))


def test_lime_needs_a_picture(model):
    assert "--method none" in refused(run("--model", model, "-p", "hello", "--method", "lime"))


def test_unknown_model_folder(picture):
    assert "./nowhere" in refused(run("--model", "./nowhere", "--image", picture))


def test_damaged_checkpoint(model, picture, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in Path(model).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "model.safetensors" in refused(run("--model", str(folder), "--image", picture))


def test_a_stray_file_is_wrong_usage(model, picture):
    result = run("--model", model, "--image", picture, "second.png")
    assert result.exit_code == 2
    assert "repeat --image for each file" in result.stderr


def test_debug_shows_where(model):
    result = CliRunner().invoke(main, ["--debug", "generate", "--model", model, "--image", "missing.png"])
    assert result.exception is not None
    assert not isinstance(result.exception, SystemExit)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from lime_mlx.cli import main; "
        "r = CliRunner().invoke(main, ['--help']); assert 'generate' in r.output; "
        "print([m for m in ('mlx', 'mlx_lm', 'transformers', 'huggingface_hub', 'PIL', 'rich', 'numpy') "
        "if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_interrupted_keeps_the_text_so_far(model, picture):
    command = [sys.executable, "-c", "from lime_mlx.cli import main; main()", "generate", "--model", model]
    command += ["--image", picture, "--max-tokens", "100000", "--method", "none"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ})
    assert process.stdout.read(1)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.endswith(b"\n")
    assert b"Traceback" not in err


def test_pieces_become_words():
    a, b = Shares(0.2, 0.3, 0.5), Shares(0.4, 0.4, 0.2)
    merged = list(words([(" A", a), (" um", a), ("brel", b), ("la", None), (".", None)]))
    assert [word.text for word in merged] == [" A", " umbrella."]
    assert merged[1].shares == pytest.approx((0.3, 0.35, 0.35))
    assert mean([None, None]) is None
    assert list(words([])) == []
