"""lime-mlx chat from the outside: lines through a pipe, and once on a terminal."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import click
import numpy as np
import pytest
from click.testing import CliRunner
from rich.text import Text

from lime_mlx.cli import main
from lime_mlx.cli.dropped import dropped, unquoted
from lime_mlx.render.terminal import blocks, coarser, whereabouts
from lime_mlx.scenes import make_scene, make_sound, write_wav

COMMAND = [sys.executable, "-c", "from lime_mlx.cli import main; main()", "chat"]
WHAT, DOG = "What is in the picture?", "Is there a dog in the picture?"


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    make_scene(100_000, "adversarial").image.save(folder / "a scene.png")
    make_scene(100_001, "adversarial").image.save(folder / "b.png")
    write_wav(make_sound(100_000, "adversarial"), folder / "sound.wav")
    (folder / "text.png").write_text("no picture")
    return folder


def run(lines, *arguments, **options):
    typed = lines if isinstance(lines, bytes) else "\n".join(lines) + "\n"
    return CliRunner().invoke(main, ["chat", *map(str, arguments)], input=typed, **options)


def errors(result) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("Error: ")]


# --- questions


def test_questions_and_answers(media):
    result = run([WHAT, "", DOG], media / "b.png")
    assert result.exit_code == 0 and not errors(result)
    assert len(result.stdout.splitlines()) == 2 and "\x1b" not in result.output
    assert "bundled demo model" in result.stderr
    alone = CliRunner().invoke(main, ["generate", str(media / "b.png"), "-p", WHAT])
    assert result.stdout.splitlines()[0] == alone.stdout.strip()
    quiet = run([WHAT], media / "b.png", "--quiet")
    assert (quiet.stdout, quiet.stderr) == (alone.stdout, "")


def test_a_note_is_printed_once(media):
    result = run([WHAT, DOG, WHAT], media / "b.png", "--max-tokens", "2")
    assert result.stderr.count("--max-tokens allows more") == 1


def test_no_picture_and_no_line():
    assert run([]).exit_code == 0
    assert run([], "--quiet").output == "\n" or run([], "--quiet").output == ""


@pytest.mark.parametrize(
    "line",
    ["'{0}/a scene.png' {1}", '"{0}/a scene.png" {1}', "{0}/a\\ scene.png {1}", "file://{0}/a%20scene.png {1}"],
)
def test_a_dropped_picture_belongs_to_the_question(media, line):
    shown = run([line.format(media, WHAT)])
    assert shown.stdout == run([f"/image {media}/a scene.png", WHAT]).stdout
    assert shown.stdout == run([WHAT], media / "a scene.png").stdout
    assert shown.exit_code == 0


def test_a_dropped_sound(media):
    result = run([f"'{media}/sound.wav'", "What do you hear?", "/why"], "--model", "demo-sound")
    assert not errors(result) and "audio" in result.stdout
    assert result.stdout == run(["What do you hear?", "/why"], media / "sound.wav").stdout


def test_a_picture_of_a_later_turn(media):
    result = run([WHAT, f"/image '{media}/b.png'", WHAT, "/undo", WHAT], media / "a scene.png")
    assert not errors(result) and len(result.stdout.splitlines()) == 3
    assert "Took back: What is in the picture?" in result.stderr


# --- commands


def test_why_prints_the_map_of_a_word(media):
    result = run([WHAT, "/why", "/why banana", "/why zebra"], media / "a scene.png")
    assert errors(result) == [line for line in errors(result) if "no word 'zebra'" in line] and errors(result)
    first, *rest = result.stdout.splitlines()
    assert "banana" in first
    listed = [line for line in rest if re.match(r"\w+: image \d+ %, prompt \d+ %, own \d+ %; \d+ % unsupported", line)]
    assert {line.split(":")[0] for line in listed} <= set(re.findall(r"\w+", first)) and len(listed) > 3
    (place,) = [number for number, line in enumerate(rest) if line.startswith("picture: ")]
    assert len(rest[place + 1 :]) == 8 and "██" in "".join(rest[place + 1 :])


def test_why_opens_a_page(media, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)
    result = run([WHAT, "/why --open"], media / "b.png")
    (page,) = opened
    assert f"Wrote {page}" in result.stderr and os.path.getsize(page) > 1000


def test_save(media, tmp_path):
    result = run([WHAT, f"/save {tmp_path}/my chat.md", f"/save {media}/b.png", "/save x.docx"], media / "b.png")
    assert result.stdout.strip() in (tmp_path / "my chat.md").read_text()
    assert [line.split(":")[0] for line in errors(result)] == ["Error"] * 2
    assert "was shown in this chat" in result.stderr and "none of the endings" in result.stderr


def test_methods(media):
    result = run(["/method", "/method lime:steps=2", WHAT, "/method limo", "/method"], media / "b.png")
    assert "Method: choose with a picture or a sound, else none" in result.stderr
    assert result.stderr.count("Method: lime:steps=2") == 2
    (error,) = errors(result)
    assert "Did you mean lime" in error


def test_clear_and_help_and_quit(media):
    result = run([WHAT, "/clear", "/why a", "/help", "/quit", "Never asked"], media / "b.png")
    assert "no turn yet" in result.stderr and "Never asked" not in result.output
    assert all(name in result.stdout for name in ("/image", "/audio", "/method", "/why", "/save", "/undo", "/clear"))


# --- bad input: each error is one sentence, and the chat goes on


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/imagine x.png", "There is no command /imagine. Did you mean /image?"),
        ("/image", "Say which file, as in: /image photo.jpg"),
        ("/image none.png", "none.png"),
        ("/image {}/text.png", "it is text, not a picture"),
        ("/audio {}/b.png", "it is a picture"),
        ("{}/none.png", "There is no file"),
        ("{}/text.png what?", "it is text, not a picture"),
        ("/why two words", "/why takes one word"),
        ("/why 'a", "no turn yet"),
        ("/save", "Say where to, as in: /save chat.md"),
        ("/save chat.md", "no turn yet"),
        ("/undo", "no turn yet"),
        ("/why dog", "no turn yet"),
        ("/method lime:steps=no", "steps"),
        ("Is <image> red?", "<image>"),
    ],
)
def test_errors(media, line, words):
    result = run([line.format(media), WHAT], "--max-tokens", "3")
    (error,) = errors(result)
    assert words in error and "Traceback" not in result.output
    assert result.exit_code == 1 and len(result.stdout.splitlines()) == 1


def test_a_picture_that_the_model_does_not_take_is_not_asked_for_again(media):
    result = run([f"/audio {media}/sound.wav", WHAT], media / "b.png")
    (error,) = errors(result)
    assert "no sounds" in error and len(result.stdout.splitlines()) == 1
    result = run([WHAT], media / "sound.wav", media / "b.png", "--model", "demo-sound")
    assert "no pictures" in result.stderr and not result.stdout and result.exit_code == 1


def test_lines_that_are_no_text():
    result = run(b"What\xff?\n")
    assert (errors(result), result.exit_code) == (["Error: The lines on standard input are not UTF-8 text."], 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.png"], "There is no file"),
        (["--image", "-"], "The questions come from standard input"),
        (["--method", "limo"], "Did you mean lime"),
        (["--max-tokens", "0"], "--max-tokens"),
        (["--temperature", "-1"], "--temperature"),
        (["--model", "/none"], "/none"),
    ],
)
def test_options_that_are_wrong(arguments, words):
    result = run(["What?"], *arguments)
    assert words in result.stderr and result.exit_code in (1, 2) and not result.stdout


# --- parts


@pytest.mark.parametrize(
    ("line", "files", "question"),
    [
        ("What's this?", [], "What's this?"),
        ("'a b' is here", [], "'a b' is here"),
        ("a.png b.png both?", ["a.png", "b.png"], "both?"),
        ("file is red", [], "file is red"),
        ("./file", ["./file"], ""),
        ("it\\ is.png", ["it is.png"], ""),
        ('"it is.png" "it is.png"', ["it is.png", "it is.png"], ""),
    ],
)
def test_dropped(line, files, question, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "file", "it is.png"):
        (tmp_path / name).touch()
    assert dropped(line) == (files, question)
    assert unquoted("'it is.png'") == unquoted("it is.png") == unquoted("it\\ is.png") == "it is.png"


def peak(row: int, column: int, shape=(9, 9)) -> np.ndarray:
    cells = np.full(shape, -0.5, np.float32)
    cells[row, column] = 2
    return cells


def test_where_a_word_rests():
    names = {(0, 0): "upper left", (0, 8): "upper right", (8, 4): "lower centre", (4, 0): "middle left"}
    for cell, name in names.items():
        assert whereabouts(peak(*cell)) == f"mostly {name}"
    assert whereabouts(peak(4, 4)) == "mostly in the middle"
    assert whereabouts(np.ones((5, 7))) == "all over the picture"
    assert whereabouts(np.pad(np.ones((9, 2)), [(0, 0), (0, 7)])) == "mostly left"
    assert whereabouts(-np.ones((3, 3))) == "nowhere"
    assert whereabouts(np.ones((1, 1))) == "all over the picture"


def test_a_map_as_text():
    lines = blocks(peak(1, 2, (3, 4))).plain.split("\n")
    assert lines == ["", "    ██", ""]
    coloured = blocks(peak(1, 2, (3, 4)), colours=True, columns=4)
    assert isinstance(coloured, Text) and coloured.plain == "▀▀▀▀\n▀▀▀▀"
    assert blocks(peak(1, 2, (3, 4)), colours=True).plain.split("\n") == ["▀" * 32] * 12
    assert blocks(np.zeros((2, 2))).plain.strip() == ""
    assert coarser(np.ones((50, 70)), 32).shape == (17, 24) and coarser(np.ones((50, 70)), 32).sum() == 3500


# --- a terminal


# The editor draws its mark, and shows the cursor behind it.
READY = ">\x08\x1b[2C\x1b[?7h\x1b[0m\x1b[?12l\x1b[?25h"


class Terminal:
    """A chat in a pseudo-terminal."""

    def __init__(self, *arguments: str, home) -> None:
        variables = {**os.environ, "TERM": "xterm-256color", "LIME_MLX_HOME": str(home), "COLUMNS": "100"}
        variables |= {"OMP_NUM_THREADS": "1", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.own, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], stdin=other, stdout=other, stderr=other, env=variables, start_new_session=True
        )
        os.close(other)
        self.text, self.read = "", 0

    def wait(self, words: str, seconds: float = 60) -> None:
        """Read until the words come, behind those that were waited for before."""
        end = time.monotonic() + seconds
        while words not in self.text[self.read :]:
            assert time.monotonic() < end, f"no {words!r} in {self.text[self.read :]!r}"
            if select.select([self.own], [], [], 0.2)[0]:
                self.text += os.read(self.own, 65536).decode(errors="replace")
        self.read = self.text.index(words, self.read) + len(words)

    def type(self, text: str) -> None:
        os.write(self.own, text.encode())


def test_a_terminal(media, tmp_path):
    pytest.importorskip("prompt_toolkit")
    terminal = Terminal(str(media / "a scene.png"), home=tmp_path)
    try:
        terminal.wait(READY)
        assert "Picture: a scene.png, 256 x 256" in terminal.text and "/help lists" in terminal.text
        terminal.type(f"{WHAT}\r")
        terminal.wait("image ")
        assert "\x1b[38;5;" in terminal.text or "\x1b[1;38;" in terminal.text
        terminal.wait(READY)
        terminal.type("/why banana\r")
        terminal.wait("▀")
        terminal.wait(READY)
        terminal.type("half a line")
        terminal.wait("half a line")
        terminal.type("\x03")  # gives up the line
        terminal.wait(READY)
        terminal.type("\x1b[A\r")  # the line before
        terminal.wait("▀")
        terminal.wait(READY)
        terminal.type("\x04")
        assert terminal.process.wait(20) == 0
        assert f"+{WHAT}" in (tmp_path / "chat-history").read_text()
        assert (tmp_path / "chat-history").stat().st_mode & 0o077 == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.own)


def test_ctrl_c_stops_the_answer_and_not_the_chat(media, tmp_path):
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = ["--method", "lime:mode=exact,steps=40,words=all", "--max-tokens", "400"]
    process = subprocess.Popen(
        [*COMMAND, str(media / "b.png"), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=variables,
        bufsize=0,
    )
    try:
        process.stdin.write(f"{WHAT}\n".encode())
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        process.stdin.write(b"/method none\nWhat else?\n/help\n")
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert b"Stopped." in err and b"Traceback" not in err and b"/undo" in out
