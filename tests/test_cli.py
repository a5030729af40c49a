"""The command line from the outside: what is printed where, and with which exit code."""

import http.server
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path

import checkpoints as tiny
import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lime_mlx.checkpoint import hub
from lime_mlx.checkpoint import load as checkpoint
from lime_mlx.cli import common, display, main
from lime_mlx.cli.common import METHOD_NAMES
from lime_mlx.lrp.relevance import Shares
from lime_mlx.methods import METHODS
from lime_mlx.scenes import make_sound, write_wav
from lime_mlx.stopping import loops
from lime_mlx.words import Word

COMMAND = [sys.executable, "-c", "from lime_mlx.cli import main; main()", "generate"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "model"
    tiny.write(folder, tiny.LLAVA, tiny.random_weights(tiny.LLAVA))
    tiny.write_tokenizer(folder)
    return str(folder)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    file = tmp_path_factory.mktemp("cli") / "picture.png"
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
    result = run("--model", model, "--image", picture, "--max-tokens", "5", "--measure")
    assert result.exit_code == 0, result.output
    assert "tokens" not in result.stdout
    calibrate, cut, prompt, generation, memory, cost = result.stderr.splitlines()
    assert calibrate.startswith("Note: this model was not calibrated")
    assert cut == "Note: the answer was cut after 5 tokens; --max-tokens allows more."
    assert prompt.startswith("Prompt: ")
    assert prompt.endswith(" tokens-per-sec")
    assert generation.startswith("Generation: 5 tokens, ")
    assert memory.startswith("Peak memory: ")
    assert cost.startswith("choose: a token takes ") and " times as long as in plain decoding" in cost


def test_standard_input_needs_a_medium():
    result = run("-", input=b"x")
    assert result.exit_code == 2 and "--image - or --audio -" in result.stderr


def test_nothing_of_quiet_is_on_stderr(picture):
    for options in (("--flag",), ("--on-unsupported", "drop"), ("--on-unsupported", "mark", "--explain")):
        assert run("--image", picture, "--method", "none", "--quiet", *options).stderr == ""


def test_no_library_warns_of_a_long_prompt(picture):
    result = run("--image", picture, "-p", "dog " * 2000, "--quiet")
    assert "holds 512" in refused(result)


def test_the_cost_is_measured_only_when_asked(model, picture):
    result = run("--model", model, "--image", picture, "--max-tokens", "3")
    assert len(result.stderr.splitlines()) == 5 and "plain decod" not in result.stderr


def test_quiet_prints_the_answer_alone(model, picture):
    loud, quiet = (run("--model", model, "--image", picture, "--max-tokens", "5", *q) for q in ((), ("--quiet",)))
    assert quiet.stderr == ""
    assert quiet.stdout == loud.stdout


def test_explain_without_a_terminal_gives_numbers(model, picture):
    result = run("--model", model, "--image", picture, "--max-tokens", "6", "--explain", "--quiet")
    *answer, total = result.stdout.splitlines()
    assert "%]" in "".join(answer)
    parts = [int(part.split()[-2]) for part in total.split(",")]
    assert total.startswith("image ")
    assert ", own " in total
    assert 99 <= sum(parts) <= 101


def test_explain_on_a_terminal_gives_colours(model, picture):
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": "", "NO_COLOR": None}
    arguments = ("--model", model, "--image", picture, "--max-tokens", "6", "--explain", "--quiet")
    coloured = run(*arguments, env=terminal, color=True)
    assert "\x1b[38;5;" in coloured.stdout
    assert "%]" in coloured.stdout
    assert "share of picture in %:" in coloured.stdout
    for change in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": "xterm"}):
        assert "%]" in run(*arguments, env={**terminal, **change}, color=True).stdout


def test_a_word_with_its_number():
    shares = Shares(0.618, 0.0, 0.2, 0.182)
    assert display.numbered(Word(text=" dog,", shares=shares)) == " dog[62%],"
    assert display.numbered(Word(text=" ...", shares=shares)) == " ..."
    assert display.numbered(Word(text="dog")) == "dog"


def test_json_is_one_object(model, picture):
    result = run("--model", model, "--image", picture, "--max-tokens", "4", "--json", "--method", "none")
    answer = json.loads(result.stdout)
    assert len(answer["tokens"]) == len(answer["reliance"]) == answer["generation_tokens"] == 4
    assert (answer["model"], answer["method"], answer["finish_reason"]) == (model, "none", "length")
    assert "".join("".join(word["text"] for word in answer["words"]).split()) == "".join(answer["text"].split())
    for word in answer["words"]:
        assert sum(word["shares"].values()) == pytest.approx(1)
    assert answer["format"] == 2 and answer["cost"] is None
    measured = run("--model", model, "--image", picture, "--max-tokens", "4", "--json", "--measure")
    assert json.loads(measured.stdout)["cost"]


def test_picture_and_prompt_from_standard_input(model, picture):
    piped = run("--model", model, "--image", "-", "--max-tokens", "3", input=Path(picture).read_bytes())
    filed = run("--model", model, "--image", picture, "--max-tokens", "3")
    assert piped.exit_code == 0, piped.output
    assert piped.stdout == filed.stdout
    asked = run("--model", model, "--image", picture, "-p", "-", "--max-tokens", "3", input="Is there a cat?")
    assert asked.exit_code == 0, asked.output
    assert "only once" in refused(run("--model", model, "--image", "-", "-p", "-", input="x"))
    assert "UTF-8" in refused(run("--model", model, "--image", picture, "-p", "-", input=b"caf\xe9"))


def test_sampling_is_seeded(model, picture):
    said = [
        run("--model", model, "--image", picture, "--method", "none", "--temp", "2", "--max-tokens", "8", "--seed", s)
        for s in ("1", "1", "2")
    ]
    assert said[0].stdout == said[1].stdout != said[2].stdout


def test_top_k_beyond_the_vocabulary_restricts_nothing(model, picture):
    result = run("--model", model, "--image", picture, "--temp", "1", "--top-k", "99999", "--max-tokens", "2")
    assert result.exit_code == 0, result.output


def test_text_alone_is_decoded_plainly(model):
    result = run("--model", model, "-p", "Is there a dog?", "--max-tokens", "3")
    assert result.exit_code == 0
    assert "LIME" not in result.stderr


def test_an_animation_is_noted(model, tmp_path):
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    loud, quiet = (run("--model", model, "--image", str(tmp_path / "a.gif"), "--max-tokens", "2", *q)
                   for q in ((), ("--quiet",)))  # fmt: skip
    assert "only the first" in loud.stderr.splitlines()[0]
    assert quiet.stderr == ""


def test_the_demo_model_is_announced_only_when_all_went_well(model, picture, monkeypatch):
    monkeypatch.delenv("LIME_MLX_MODEL", raising=False)
    monkeypatch.setattr(hub, "demos", lambda: {"picture": Path(model)})
    result = run("--image", picture, "--max-tokens", "2")
    assert "demo model" in result.stderr.splitlines()[0]
    assert "mlx-community/Qwen2.5-VL-3B-Instruct-4bit" in result.stderr.splitlines()[0]
    refused(run("--image", "missing.png"))
    refused(run("-p", "hello", "--method", "lime"))


def test_the_model_from_the_environment(model, picture):
    result = run("--image", picture, "--max-tokens", "2", env={"LIME_MLX_MODEL": model})
    assert "demo" not in result.stderr


def unusable(tmp_path, name):
    """A file that is no picture that can be used."""
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
        header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
        file.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
                         + struct.pack(">I", 99) + b"IDAT")  # fmt: skip
    elif name == "folder":
        file.mkdir()
    return str(file)


@pytest.mark.parametrize("name", ["missing.png", "folder", "empty.png", "cut.jpg", "text.jpg", "dot.png", "huge.png"])
def test_a_picture_that_cannot_be_used(model, tmp_path, name):
    message = refused(run("--model", model, "--image", unusable(tmp_path, name)))
    assert name in message
    assert name != "huge.png" or "120,000,000 pixels, the limit" in message


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = {"/gone.png": 404, "/loop.png": 302}.get(self.path, 200)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.path)
        if self.path == "/big.png":
            self.send_header("Content-Length", str(10**12))
        self.end_headers()
        self.wfile.write(b"<html>" if status == 200 else b"")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "part"),
    [("gone.png", "404"), ("loop.png", "loop"), ("page.png", "web page"), ("big.png", "larger than 100 MiB")],
)
def test_an_address_that_gives_no_picture(model, site, path, part):
    assert part in refused(run("--model", model, "--image", f"{site}/{path}"))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--max-tokens", "0"], "--max-tokens is 0; it must be at least 1"),
        (["--max-tokens", "-3"], "--max-tokens is -3"),
        (["-p", ""], "prompt is empty"),
        (["-p", "  "], "prompt is empty"),
        (["--method", "lemon"], "choose one of none, choose, lime"),
        (["--method", "lime:stops=3"], "options are key=value: mode, steps"),
        (["--method", "lime:steps=many"], "a whole number"),
        (["--method", "none:steps=2"], "has no options"),
        (["--method", "lime:layers=0-99"], "the model has 2 layers"),
        (["--temperature", "-1"], "--temperature is -1.0; it must be at least 0"),
        (["--temp", "nan"], "--temperature is nan"),
        (["--top-p", "1.5"], "--top-p is 1.5; it must be from 0 to 1"),
        (["--top-k", "-1"], "--top-k is -1"),
        (["--min-p", "2"], "--min-p is 2.0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--image", "ftp://x/y.png"], "ftp"),
        (["--image", "http://127.0.0.1:9/x.png"], "127.0.0.1:9"),
        (["--audio", "x.wav"], "x.wav: there is no such file"),
    ],
)
def test_a_wrong_option_is_one_line(model, picture, arguments, part):
    assert part in refused(run("--model", model, "--image", picture, *arguments))


def test_no_prompt_and_no_picture(model):
    result = run("--model", model)
    assert result.exit_code == 2 and "Give a picture or a sound" in result.stderr
    assert "prompt is empty" in refused(run("--model", model, "-p", " "))
    assert run("--model", model, "-p", "hello", "--max-tokens", "3").exit_code == 0


def test_lime_needs_a_picture(model):
    assert "--method none" in refused(run("--model", model, "-p", "hello", "--method", "lime"))


def rewrite_config(folder, **changes):
    (folder / "config.json").write_text(json.dumps(tiny.merged(tiny.LLAVA, **changes)))


def change_weights(folder, change):
    file = folder / "model.safetensors"
    weights = mx.load(str(file))
    mx.eval(weights)
    mx.save_safetensors(str(file), change(weights))


def cut_short(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def lose_a_shard(folder):
    (folder / "model.safetensors").unlink()
    tiny.write(folder, tiny.LLAVA, tiny.random_weights(tiny.LLAVA), shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()


HEAD = "language_model.lm_head.weight"
NORM = "language_model.model.norm.weight"
DAMAGES = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "unknown type": (lambda folder: rewrite_config(folder, model_type="parrot"), "parrot"),
    "cut short": (cut_short, "model.safetensors"),
    "missing shard": (lose_a_shard, "model-00002-of-00003.safetensors"),
    "missing weight": (lambda f: change_weights(f, lambda w: {k: v for k, v in w.items() if k != NORM}), NORM),
    "wrong shape": (lambda f: change_weights(f, lambda w: {**w, NORM: mx.ones(7)}), "(7,)"),
    "text alone": (lambda f: change_weights(f, tiny.text_only), "text-only conversion"),
    "NaN": (lambda f: change_weights(f, lambda w: {**w, NORM: w[NORM] * mx.nan}), "NaN"),
    "overflow": (
        lambda f: change_weights(f, lambda w: {**w, NORM: w[NORM] * 1e38, HEAD: w[HEAD] * 99}),
        "generated token 1",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_checkpoint_that_cannot_be_used(model, picture, tmp_path, name):
    damage, part = DAMAGES[name]
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    damage(folder)
    assert part in refused(run("--model", str(folder), "--image", picture, "--method", "none"))


def test_unknown_model_folder(picture):
    assert "./nowhere" in refused(run("--model", "./nowhere", "--image", picture))


def test_a_stray_file_is_wrong_usage(model, picture):
    result = run("--model", model, "--image", picture, "second.png")
    assert result.exit_code == 2
    assert "There is no file 'second.png'" in result.stderr and "put the prompt in quotes" in result.stderr
    assert run("--max-tokens", "many").exit_code == 2


def test_an_unexpected_error_asks_to_be_reported(monkeypatch, picture):
    def fails(*_, **__):
        raise KeyError("a\nb")

    monkeypatch.setattr(checkpoint, "load", fails)
    message = refused(run("--image", picture))
    assert "KeyError" in message
    assert "--debug" in message
    monkeypatch.setattr(
        checkpoint, "load", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("Unable to allocate 9"))
    )
    assert "Not enough memory" in refused(run("--image", picture))


def test_debug_shows_where(model):
    result = CliRunner().invoke(main, ["--debug", "generate", "--model", model, "--image", "missing.png"])
    assert result.exception is not None
    assert not isinstance(result.exception, SystemExit)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from lime_mlx.cli import main; "
        "r = CliRunner().invoke(main, ['--help']); assert 'generate' in r.output; "
        "r = CliRunner().invoke(main, ['generate', '-h']); assert '--image' in r.output; "
        "print([m for m in ('mlx', 'mlx_lm', 'transformers', 'huggingface_hub', 'PIL', 'rich', 'numpy') "
        "if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("output", [[], ["--json"]])
def test_interrupted_keeps_what_was_said(model, picture, output):
    arguments = ["--model", model, "--image", picture, "--max-tokens", "100000", "--method", "none", *output]
    environment = {**os.environ, "LIME_MLX_BLAS": "none"}
    for _ in range(3):
        process = subprocess.Popen(COMMAND + arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        assert process.stderr.readline().startswith(b"Note: ")
        seen = b"" if output else process.stdout.read(1)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        if b"repeated itself" not in err:  # else the answer ended before the signal came, on a busy machine
            break
    assert process.returncode == 130
    assert (seen + out).endswith(b"\n")
    assert err == b""
    if output:
        assert json.loads(out)["finish_reason"] is None


@pytest.mark.parametrize("where", ["computing", "printing"])
def test_an_interrupt_ends_the_stream_and_loses_nothing(where):
    def responses():
        for number in range(1, 9):
            if number == 3 and where == "computing":
                os.kill(os.getpid(), signal.SIGINT)
            yield number

    before, stream, printed = signal.getsignal(signal.SIGINT), common.Stream(responses()), []
    for number in stream:
        if number == 2 and where == "printing":
            os.kill(os.getpid(), signal.SIGINT)
        printed.append(number)
    assert printed == stream.kept == [1, 2] and stream.interrupted
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_ends_what_is_printed():
    def impatient():
        for _ in common.Stream(iter([1, 2])):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        impatient()
    stream = common.Stream(iter([1, 2]))
    assert list(stream) == [1, 2] and not stream.interrupted


def test_a_reader_that_goes_away_is_no_error(model, picture):
    arguments = ["--model", model, "--image", picture, "--max-tokens", "100000", "--method", "none", "--quiet"]
    process = subprocess.Popen(COMMAND + arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


def test_no_library_prints_beside_the_error(model, tmp_path):
    arguments = ["--model", "./nowhere", "--image", "picture.png"]
    Image.new("RGB", (30, 30)).save(tmp_path / "picture.png")
    environment = {**os.environ, "LIME_MLX_BLAS": "nothing.so"}
    done = subprocess.run(COMMAND + arguments, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: There is no folder './nowhere'")
    assert done.stderr.count("\n") == 1


def test_files_may_stand_alone(model, picture, tmp_path):
    """A picture is known by its content, whatever it is called; several of them are several pictures."""
    other = tmp_path / "picture.wav"
    other.write_bytes(Path(picture).read_bytes())
    named = run("--model", model, "--image", picture, "--max-tokens", "4", "--quiet")
    for file in (picture, str(other)):
        assert run("--model", model, file, "--max-tokens", "4", "--quiet").stdout == named.stdout
    twice = run("--model", model, "--image", picture, "--image", picture, "--max-tokens", "4", "--quiet")
    assert run("--model", model, picture, str(other), "--max-tokens", "4", "--quiet").stdout == twice.stdout


def test_a_sound_may_stand_alone(tmp_path):
    write_wav(make_sound(1, "ordinary"), tmp_path / "sound.png")
    result = run(str(tmp_path / "sound.png"), "--method", "none", "--max-tokens", "3", "--explain", "--quiet")
    assert result.exit_code == 0 and "audio " in result.stdout.splitlines()[1]


def test_one_newline_at_the_end_of_a_prompt_does_not_count(model, picture):
    asked = ["--model", model, picture, "--max-tokens", "6", "--quiet", "--method", "none"]
    plain = run(*asked, "-p", "Is there a cat?").stdout
    for ending in ("", "\n", "\r\n"):
        assert run(*asked, "-p", "-", input=f"Is there a cat?{ending}").stdout == plain


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [(["genrate"], "generate"), (["EXPLAIN"], "explain"), (["generate", "--methd", "lime", "x"], "--method")],
)
def test_a_misspelt_word_is_suggested(arguments, suggestion):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and re.search(f"Did you mean .*{suggestion}", result.stderr)


@pytest.mark.parametrize(
    ("spec", "suggestion"), [("lmie", "lime"), ("LIME", "lime"), ("lime:step=3", "steps"), ("lime:mode=exat", "exact")]
)
def test_a_misspelt_method_is_suggested(picture, spec, suggestion):
    assert f"Did you mean {suggestion}?" in refused(run(picture, "--method", spec))


def test_the_help_names_every_method():
    assert tuple(METHODS) == METHOD_NAMES
    assert all(name in run("--help").stdout for name in METHODS)


def test_a_prompt_longer_than_the_context_is_refused_before_anything_runs(tmp_path):
    """And an answer that would not fit is cut, with a note; a context that nobody states holds everything."""
    folder = tiny.write(tmp_path / "model", tiny.LLAVA, tiny.random_weights(tiny.LLAVA))
    tiny.write_tokenizer(folder)
    text = tiny.LLAVA["text_config"]
    asked = ["--model", str(folder), "-p", "dog " * 40, "--method", "none", "--max-tokens", "20"]
    for context, code in ((30, 1), (100, 0), (None, 0)):
        rewrite_config(folder, text_config={**text, "max_position_embeddings": context})
        result = run(*asked)
        assert result.exit_code == code, result.output
        assert ("the context of this model holds 30: shorten" in result.stderr) == (context == 30)
        assert ("the context of this model holds 100." in result.stderr) == (context == 100)
    generated = json.loads(run(*asked, "--json").stdout)["generation_tokens"]
    assert generated == 20


def test_a_loop_is_ended_and_its_words_are_named_once():
    assert loops([7] * 24) and loops([1, 2, 3, *[4, 5, 6] * 8]) and not loops([7] * 23)
    assert not loops([1, 2, 3, *range(40)]) and not loops([*[4, 5, 6] * 7, 4, 5])
    word = Word(text=" dog,", p_unsupported=0.9, flagged=True, rank=1)
    line = display.unsupported([word, replace(word, rank=2), replace(word, text=" cat", rank=3)], True)
    assert line == "Probably without support: dog (90 %), cat (90 %)"


def test_a_text_can_end_the_answer(model, picture):
    whole = run("--model", model, picture, "--max-tokens", "12", "--method", "none", "--quiet").stdout.strip()
    middle = whole[len(whole) // 2 : len(whole) // 2 + 3]
    cut = run("--model", model, picture, "--max-tokens", "12", "--method", "none", "--quiet", "--stop", middle)
    assert cut.stdout.strip() == whole[: whole.index(middle)].strip()
