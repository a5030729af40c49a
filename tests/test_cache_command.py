"""The options of the cache on the command line: what they do, and what is refused."""

import json

import pytest
from click.testing import CliRunner

from lime_mlx.cli import main
from lime_mlx.scenes import make_scene

SMALL = ["--kv-group-size", "32", "--quantized-kv-start", "0"]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    file = tmp_path_factory.mktemp("cache") / "scene.png"
    make_scene(100_000, "ordinary").image.save(file)
    return str(file)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    file = tmp_path_factory.mktemp("cache") / "other.png"
    make_scene(100_001, "ordinary").image.save(file)
    return str(file)


def run(*arguments):
    return CliRunner().invoke(main, [*arguments])


def refused(*arguments) -> str:
    result = run(*arguments)
    assert result.exit_code == 1 and not result.stdout, result.output
    (line,) = result.stderr.strip().splitlines()[-1:]
    assert line.startswith("Error: ")
    return line


@pytest.mark.parametrize(
    "options", [["--kv-bits", "8", *SMALL], ["--max-kv-size", "200"], ["--prefill-step-size", "16"]]
)
def test_answers_with_options_of_the_cache(picture, options):
    plain = json.loads(run("generate", picture, "--method", "none", "--json", "--max-tokens", "6").stdout)
    result = run("generate", picture, "--method", "none", "--json", "--max-tokens", "6", *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["text"] == plain["text"]


def test_explain_takes_them(picture):
    result = run("explain", picture, "--kv-bits", "8", *SMALL, "--max-tokens", "6", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["words"]


def test_a_prompt_cache_is_written_and_read(picture, other, tmp_path):
    file = str(tmp_path / "scene.safetensors")
    options = ["--method", "none", "--max-tokens", "4", "--prompt-cache-file", file]
    first, second = run("generate", picture, *options), run("generate", picture, *options)
    assert f"Wrote {file}" in first.stderr and first.stdout == second.stdout
    assert f"tokens of the prompt came from {file}." in second.stderr
    assert "was made for" in refused("generate", other, *options)
    assert "holds a cache" not in first.stderr
    assert "another model" in refused("generate", "-p", "Hello", "--model", "demo-sound", *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kv-bits", "3"], "--kv-bits is 3; give 8 or 4."),
        (["--kv-bits", "8"], "give --kv-group-size 32."),
        (["--kv-group-size", "7"], "--kv-group-size is 7; give 32, 64 or 128."),
        (["--max-kv-size", "20"], "--max-kv-size is 20, but the pictures and sounds of this prompt end at position"),
        (["--prefill-step-size", "0"], "--prefill-step-size is 0; give 1 or more."),
        (["--prompt-cache-file", "x.npz"], "x.npz does not end in .safetensors"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(picture, options, message):
    assert message in refused("generate", picture, *options)
