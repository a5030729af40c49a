"""Where --output writes: an ordinary file in a folder that is there, and nothing else."""

import os
import stat
import threading

import pytest
from click.testing import CliRunner

from lime_mlx import files
from lime_mlx.cli import main
from lime_mlx.errors import LimeError


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    evaluate = ["evaluate", "--limit", "1", "--method", "none", "--quiet", "--no-reliance", "--output-dir", str(folder)]
    result = CliRunner().invoke(main, evaluate)
    assert result.exit_code == 0, result.output
    return folder


def explain(output):
    return ["explain", "examples/scene.png", "--max-tokens", "3", "--output", str(output)]


@pytest.fixture(params=["explain", "report"])
def writes(request, run_folder):
    """The command that writes a page to a file."""

    def arguments(output):
        return explain(output) if request.param == "explain" else ["report", str(run_folder), "--output", str(output)]

    return lambda output: CliRunner().invoke(main, arguments(output))


def fails(result, words):
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1 and words in result.stderr
    assert "[Errno" not in result.stderr and "please report" not in result.stderr


def test_a_fifo_stays(tmp_path, writes):
    fifo = tmp_path / "page.html"
    os.mkfifo(fifo)
    fails(writes(fifo), "is no ordinary file")
    assert stat.S_ISFIFO(fifo.lstat().st_mode)


def test_a_link_to_a_device_stays(tmp_path, writes):
    link = tmp_path / "page.html"
    link.symlink_to("/dev/null")
    fails(writes(link), "is no ordinary file")
    assert link.is_symlink() and stat.S_ISCHR(link.stat().st_mode)


def test_a_link_is_written_through(tmp_path, writes):
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target.html", tmp_path / "page.html"
    target.write_text("before")
    target.chmod(0o600)
    link.symlink_to(target)
    assert writes(link).exit_code == 0
    assert link.is_symlink() and "<html" in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["target.html"]


def test_a_link_to_nothing_makes_its_target(tmp_path):
    link = tmp_path / "page.html"
    link.symlink_to(tmp_path / "target.html")
    files.write_output(link, b"x")
    assert link.is_symlink() and (tmp_path / "target.html").is_file()


def test_links_in_a_circle(tmp_path, writes):
    link = tmp_path / "page.html"
    link.symlink_to(link)
    fails(writes(link), "cannot be written")


def test_no_folder_is_made(tmp_path, writes):
    fails(writes(tmp_path / "new" / "page.html"), "There is no folder")
    assert not (tmp_path / "new").exists()


def test_a_folder_is_no_file(tmp_path, writes):
    (tmp_path / "page.html").mkdir()
    result = writes(tmp_path / "page.html")
    assert result.exit_code in (1, 2) and "please report" not in result.stderr


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path, writes, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    page = tmp_path / "page.html"
    page.write_text("before")
    monkeypatch.setattr(files.os, "fsync", full)
    fails(writes(page), f"{page} cannot be written: the disk is full")
    assert page.read_text() == "before" and [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_long_name_can_be_written(tmp_path):
    name = tmp_path / f"{'a' * 240}.html"
    files.write_output(name, b"x")
    assert name.read_bytes() == b"x"


def test_two_writers_leave_one_whole_file(tmp_path):
    path = tmp_path / "page.html"
    contents = [bytes([65 + i]) * 100_000 for i in range(4)]
    threads = [threading.Thread(target=files.write_output, args=(path, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents and [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_a_device_is_refused_by_the_function_itself():
    with pytest.raises(LimeError, match="no ordinary file"):
        files.write_output(files.Path("/dev/null"), b"x")
