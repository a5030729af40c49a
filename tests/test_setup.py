"""lime-mlx setup, end to end against a Hub of our own: proposal, question, download, check, settings, second run."""

import json
import shutil
from collections import namedtuple
from functools import partial
from pathlib import Path

import click
import huggingface_hub
import pytest
from checkpoints import LLAVA, TEXT, merged, random_weights, write, write_tokenizer
from click.testing import CliRunner
from hubs import MAIN, NOWHERE, Hub, fetched, files_of, running
from PIL import Image

from lime_mlx import backend, cli
from lime_mlx.checkpoint.proposals import Proposal, proposals, proposed
from lime_mlx.checkpoint.published import licence
from lime_mlx.cli import main
from lime_mlx.cli import setup as setup_command
from lime_mlx.evaluate.calibrate import caption_seconds
from lime_mlx.evaluate.data.folder import DataFolder
from lime_mlx.evaluate.runner import RunConfig
from lime_mlx.scenes import make_scene
from lime_mlx.settings import default_model, settings_file

Usage = namedtuple("Usage", "total used free")
WEIGHTS = "model.safetensors"
FIRST, SECOND = proposals()[0].name, proposals()[1].name
GB = 10**9
SCAN = huggingface_hub.scan_cache_dir


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> dict[str, bytes]:
    folder = write(tmp_path_factory.mktemp("r"), LLAVA, random_weights(LLAVA))
    write_tokenizer(folder)
    return files_of(folder) | {"README.md": b"x" * 1000, "consolidated.safetensors": b"x" * 1000}


@pytest.fixture
def hub(checkpoint, tmp_path, monkeypatch):
    """A Hub with the first proposals as tiny checkpoints, an empty cache, and a machine of 64 GB with 100 GB free."""
    other = {"config.json": json.dumps(merged(TEXT, model_type="mamba")).encode(), WEIGHTS: b"x"}
    names = {FIRST: checkpoint, SECOND: checkpoint, "me/tiny": checkpoint, "me/mamba": other}
    monkeypatch.setenv("LIME_MLX_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LIME_MLX_MODEL", raising=False)
    monkeypatch.setattr(backend, "memory_total", lambda: 64 * GB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(500 * GB, 400 * GB, 100 * GB))
    with running({name: {MAIN: files} for name, files in names.items()}) as address:
        Hub.cards = {FIRST: {"license": "apache-2.0"}, "me/tiny": {"license": "other", "license_name": "tiny-1.0"}}
        Hub.said = {"me/mamba": {"config": {"model_type": "mamba"}}}
        point_at(address, tmp_path / "cache", monkeypatch)
        yield address


def point_at(address: str, cache: Path, monkeypatch) -> None:
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", partial(SCAN, cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture
def doctor(monkeypatch):
    """A doctor that says what the test wants, and keeps what it was asked about."""
    seen: list[str] = []

    def says(code: int) -> list[str]:
        @click.command()
        @click.argument("model")
        @click.pass_context
        def command(context: click.Context, model: str) -> None:
            seen.append(model)
            click.echo("The doctor was here.")
            context.exit(code)

        find = type(main).get_command
        monkeypatch.setattr(
            type(main),
            "get_command",
            lambda self, context, name: command if name == "doctor" else find(self, context, name),
        )
        return seen

    return says


def run(*arguments: str, command: str = "setup", **options):
    return CliRunner().invoke(main, [command, *arguments], **options)


def refused(result) -> str:
    """The one sentence of an error; the line before it may say that the same command goes on."""
    assert result.exit_code == 1, result.output
    *_, line = result.stderr.splitlines()
    assert line.startswith("Error: ") and line.endswith("."), result.stderr
    assert "Unexpected" not in line
    return line


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(setup_command, "interactive", lambda: True)


def test_proposed_agreed_downloaded_checked_and_the_default_from_then_on(hub, doctor, terminal, tmp_path):
    seen = doctor(0)
    result = run(input="y\n")
    assert result.exit_code == 0, result.output
    weight = sum(len(body) for name, body in Hub.files[FIRST][MAIN].items() if name.endswith("json")) + len(
        Hub.files[FIRST][MAIN][WEIGHTS]
    )
    lines = result.stdout.splitlines()
    assert "64.0 GB of memory, 100.0 GB free in " in lines[0]
    assert f"Proposed: {FIRST}" in lines
    assert f"  Size: {weight / 1e6:.1f} MB" in lines
    assert "  Licence: apache-2.0" in lines
    assert result.stdout.count("?") == 1
    assert "cannot be asked" not in result.stdout
    assert [name for name, _ in fetched() if name == WEIGHTS] == [WEIGHTS]
    assert seen == [FIRST]
    assert lines.index("The doctor was here.") < len(lines) - 1
    assert lines[-1] == "Now try it on a file of yours: lime-mlx explain photo.jpg --open"
    assert json.loads(settings_file().read_text()) == {"model": FIRST}
    picture = tmp_path / "photo.png"
    Image.new("RGB", (40, 40), "red").save(picture)
    answer = run(str(picture), "--max-tokens", "1", command="generate")
    assert answer.exit_code == 0, answer.output
    assert f"Using {FIRST}, as your settings say ({settings_file()})." in answer.stderr
    fetched()
    again = run("--yes")
    assert again.exit_code == 0, again.output
    assert "all of it is here" in again.stdout
    assert f"{FIRST} (" in again.stdout.splitlines()[1]
    assert "  Licence: apache-2.0" in again.stdout
    assert fetched() == []


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_without_a_yes_nothing_happens(hub, doctor, terminal, answer):
    doctor(0)
    result = run(input=answer)
    assert result.exit_code == 1
    assert fetched() == []
    assert not settings_file().exists()


def test_a_dry_run_and_a_pipe_download_nothing(hub, doctor):
    seen = doctor(0)
    dry = run("--dry-run")
    assert dry.exit_code == 0
    assert f"Proposed: {FIRST}" in dry.stdout
    line = refused(run(input="y\n"))
    assert "no terminal" in line and "--yes" in line
    assert fetched() == [] and seen == []
    assert not settings_file().exists()


def test_a_broken_download_goes_on_with_the_same_command(hub, doctor, checkpoint):
    doctor(0)
    Hub.lies[WEIGHTS] = "GET"
    result = run("--yes", "--model", "me/tiny")
    assert "me/tiny" in refused(result)
    assert "The same command goes on where it stopped." in result.stderr
    assert not settings_file().exists()
    Hub.lies.clear()
    fetched()
    result = run("--yes", "--model", "me/tiny")
    assert result.exit_code == 0, result.output
    assert "of it are still to come" in result.stdout
    assert "  Licence: tiny-1.0" in result.stdout
    assert default_model() == "me/tiny"
    names = [name for name, _ in fetched()]
    assert WEIGHTS in names and "config.json" not in names


def test_what_the_doctor_finds_decides(hub, doctor):
    doctor(1)
    assert "me/tiny does not work here" in refused(run("--yes", "--model", "me/tiny"))
    assert not settings_file().exists()
    doctor(3)
    result = run("--yes", "--model", "me/tiny")
    assert result.exit_code == 0
    assert "cannot tell whether me/tiny works here" in result.stderr
    assert default_model() == "me/tiny"


def test_the_variable_decides_before_the_settings_and_is_named(hub, doctor, monkeypatch):
    doctor(0)
    monkeypatch.setenv("LIME_MLX_MODEL", "me/tiny")
    assert "Chosen, as $LIME_MLX_MODEL says: me/tiny" in run("--dry-run").stdout
    result = run("--yes", "--model", SECOND)
    assert "$LIME_MLX_MODEL names me/tiny, and decides before your settings" in result.stderr
    assert default_model() == SECOND


def test_memory_and_space_choose_the_proposal(hub, monkeypatch):
    monkeypatch.setattr(backend, "memory_total", lambda: 8 * GB)
    assert f"Proposed: {SECOND}" in run("--dry-run").stdout
    monkeypatch.setattr(backend, "memory_total", lambda: 2 * GB)
    assert "No proposed model finds enough memory here (2.0 GB" in refused(run("--dry-run"))
    monkeypatch.setattr(backend, "memory_total", lambda: 64 * GB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(500 * GB, 495 * GB, 5 * GB))
    assert f"Proposed: {SECOND}" in run("--dry-run").stdout
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(500 * GB, 499 * GB, GB))
    assert "No proposed model finds enough space on the disk here" in refused(run("--yes"))
    assert "There is no space for me/tiny: the download takes" in refused(run("--yes", "--model", "me/tiny"))
    assert fetched() == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("me/none", "no such repository on the Hub"),
        ("me/mamba", "'mamba' are not supported"),
        ("me/down", "The Hub says nothing of me/down now"),
        ("./nothing", "neither a folder nor the name of a Hub repository"),
        ("demoo", "neither a folder nor the name of a Hub repository"),
    ],
)
def test_a_model_that_cannot_be_had(hub, name, words):
    assert words in refused(run("--yes", "--model", name))
    assert fetched() == []


def test_a_folder_and_a_bundled_model(hub, doctor, checkpoint, tmp_path):
    seen = doctor(0)
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, body in checkpoint.items():
        (folder / name).write_bytes(body)
    (folder / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    result = run("--yes", "--model", str(folder))
    assert result.exit_code == 0, result.output
    assert "  Licence: mit" in result.stdout
    assert default_model() == str(folder.resolve())
    assert run("--yes", "--model", "demo-sound").stdout.endswith("lime-mlx explain street.wav --open\n")
    assert seen == [str(folder.resolve()), "demo-sound"]
    (folder / WEIGHTS).unlink()
    assert "is incomplete: model.safetensors missing" in refused(run("--yes", "--model", str(folder)))


def test_the_table_stands_in_where_the_hub_cannot_be_asked(hub, monkeypatch, tmp_path):
    point_at(NOWHERE, tmp_path / "cache", monkeypatch)
    result = run("--dry-run")
    assert f"Proposed: {FIRST}" in result.stdout
    assert f"  Size: {proposals()[0].size / 1e9:.1f} GB" in result.stdout
    assert f"Size and licence are those of {proposals()[0].on}: the Hub cannot be asked now" in result.stdout
    assert "The Hub says nothing of me/tiny now" in refused(run("--dry-run", "--model", "me/tiny"))


def test_a_page_in_the_place_of_the_hub_is_no_answer(hub, monkeypatch):
    monkeypatch.setattr(Hub, "do_HEAD", lambda self: self.answer(b"<html>Please log in</html>"))
    monkeypatch.setattr(Hub, "do_GET", Hub.do_HEAD)
    assert f"Size and licence are those of {proposals()[0].on}" in run("--dry-run").stdout
    assert "The Hub says nothing of me/tiny now" in refused(run("--dry-run", "--model", "me/tiny"))


@pytest.mark.parametrize(
    ("text", "words"), [("{", "is not JSON"), ("[]", "no JSON object"), ('{"model": 7}', "no name")]
)
def test_broken_settings_are_one_sentence(hub, text, words, tmp_path):
    settings_file().parent.mkdir(parents=True)
    settings_file().write_text(text)
    line = refused(run("--yes"))
    assert words in line and str(settings_file()) in line and "run lime-mlx setup" in line
    assert fetched() == []
    picture = tmp_path / "photo.png"
    Image.new("RGB", (40, 40), "red").save(picture)
    assert words in refused(run(str(picture), command="generate"))
    assert run(str(picture), "--model", "demo", "--max-tokens", "1", command="generate").exit_code == 0


def test_other_settings_stay(hub, doctor):
    doctor(0)
    settings_file().parent.mkdir(parents=True)
    settings_file().write_text('{"colour": "blue", "model": "demo"}')
    assert run("--yes", "--model", "me/tiny").exit_code == 0
    assert json.loads(settings_file().read_text()) == {"colour": "blue", "model": "me/tiny"}


def test_a_calibration_says_how_long_it_takes_before_it_starts(hub, doctor, monkeypatch):
    from lime_mlx.cli import calibrate
    from lime_mlx.evaluate import calibrate as fitting

    doctor(0)
    steps: list[object] = []
    monkeypatch.setattr(DataFolder, "get", lambda self, task, limit: steps.append((task, limit)))
    monkeypatch.setattr(fitting, "caption_seconds", lambda config, model: 6.0)
    monkeypatch.setattr(calibrate, "run", lambda config, *rest, **options: steps.append((config.models, config.limit)))
    result = run("--yes", "--model", "me/tiny", "--calibrate")
    assert result.exit_code == 0, result.output
    assert steps == [("chair", 500), (["me/tiny"], 500)]
    assert "The calibration takes about 50 minutes." in result.stderr
    assert "how long it takes is measured" in result.stdout
    run("--yes", "--model", "me/tiny", "--calibrate", "40")
    assert steps[-1] == (["me/tiny"], 40)


def test_a_calibration_goes_over_the_pictures_that_it_got(hub, doctor, monkeypatch, tmp_path):
    """Two pictures are too few, and the error says how many more are needed; the default is set all the same."""
    doctor(0)
    (tmp_path / "chair").mkdir()
    (tmp_path / "pope" / "coco").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    (tmp_path / "chair" / "synonyms.txt").write_text("clock\ncow\ntrain\nbird\nbicycle\n")
    for name, places in (("pattern", [0]), ("ours_overrides", [1])):
        table = {"objects": ["clock", "cow"], "images": {"1": places, "2": places}}
        (tmp_path / "chair" / f"coco2014_gt_objects.{name}.json").write_text(json.dumps(table))
    questions = []
    for number, seed in ((1, 100_001), (2, 100_017)):
        picture = f"COCO_val2014_{number:012}.jpg"
        make_scene(seed, "adversarial").image.save(tmp_path / "images" / picture)
        questions.append({"question_id": number, "image": picture, "text": "Is there a cow?", "label": "yes"})
    lines = "".join(json.dumps(each) + "\n" for each in questions)
    (tmp_path / "pope" / "coco" / "coco_pope_random.json").write_text(lines)
    monkeypatch.setenv("LIME_MLX_DATA", str(tmp_path))
    monkeypatch.setattr(DataFolder, "get", lambda self, task, limit: None)
    result = run("--yes", "--model", "demo", "--calibrate", "2")
    assert "The calibration takes about a minute." in result.stderr
    assert "more pictures are needed" in refused(result)
    assert default_model() == "demo"


def test_the_time_of_a_caption_is_measured():
    config = RunConfig(["demo"], ("none",), ["scenes:part=validation,count=2"])
    assert 0 < caption_seconds(config, "demo") < 60


def test_the_table_of_proposals():
    for row in proposals():
        assert "/" in row.name and row.size > GB and row.licence
    table = [Proposal(name, size, "x", "pictures", "y") for name, size in (("a/large", 90), ("a/small", 10))]
    assert proposed(lambda size: size < 50, lambda row: True, table).name == "a/small"
    assert proposed(lambda size: True, lambda row: True, table).name == "a/large"
    assert proposed(lambda size: True, lambda row: False, table) is None


def test_how_a_card_states_its_licence():
    card = huggingface_hub.ModelCardData
    assert licence(card(license="mit"), []) == "mit"
    assert licence(card(license="other", license_name="own-1.0"), []) == "own-1.0"
    assert licence(card(license_name="qwen-research"), []) == "qwen-research"
    assert licence(None, ["mlx", "license:gemma"]) == "gemma"
    assert licence(None, []) == "none is stated"


def test_the_command_is_listed():
    assert "setup" in cli.COMMANDS
