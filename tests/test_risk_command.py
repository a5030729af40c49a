"""--risk of evaluate and of generate: what is printed, kept, promised and refused."""

import json
import shutil
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_risk import PROMISE

import lime_mlx
from lime_mlx._version import __version__
from lime_mlx.checkpoint.files import read_config
from lime_mlx.checkpoint.hub import locate
from lime_mlx.cli import main
from lime_mlx.errors import CheckpointError
from lime_mlx.evaluate.fitting import STATISTICS, fitted
from lime_mlx.evaluate.store import slug
from lime_mlx.evaluate.tasks import Scenes, parse_task
from lime_mlx.files import WEIGHTS, fingerprint
from lime_mlx.scenes import PICTURES, make_scene
from lime_mlx.support.detector import Detector
from lime_mlx.support.promise import Promise
from lime_mlx.support.store import detector_file

TASK = "scenes:part=validation,count=500,ask=captions"
PICTURES_OF_A_RUN = 400


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LIME_MLX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


SCENE = cache(partial(make_scene, regime="adversarial"))


@pytest.fixture
def truths(monkeypatch) -> list[tuple[str, list[str]]]:
    """The pictures of the task with the kinds in them; each scene is drawn once for all tests."""
    monkeypatch.setattr(Scenes, "scene", lambda _, number: SCENE(number))
    return [(item.id, item.truth) for item in parse_task(TASK).items(None, PICTURES_OF_A_RUN)]


def captions(truths, imagined: float, strength: float) -> list[dict]:
    """Captions that name all that is there and, in a share of the pictures, one more kind at the end."""
    rng, records = np.random.default_rng(0), []
    for name, truth in truths:
        kinds = [*truth, next(kind for kind in PICTURES.kinds if kind not in truth)]
        kinds = kinds if rng.random() < imagined else kinds[:-1]
        words, spoken = [], [{"text": "A", "statistics": None}, {"text": " room", "statistics": None}]
        for index, kind in enumerate(kinds):
            there = kind in truth
            values = rng.normal(loc=strength * there, size=4) * (0.1, 2.0, 1.0, 0.3) + (0.5, 5, 0, -1)
            statistics = dict(zip(STATISTICS, values.tolist(), strict=True))
            words.append({"object": kind, "there": there, **statistics})
            link = " with a" if not index else " and a" if index == len(kinds) - 1 else " a"
            end = "." if index == len(kinds) - 1 else "," if index < len(kinds) - 2 else ""
            spoken += [*({"text": f" {word}", "statistics": None} for word in link.split())]
            spoken.append({"text": f" {kind}{end}", "statistics": statistics})
        text = "".join(word["text"] for word in spoken)
        records.append({"id": name, "medium": name.split("/")[0], "text": text, "words": words, "caption": spoken})
    return records


@pytest.fixture
def run(home, tmp_path, truths):
    """evaluate --calibrate on captions that were given already; the model is not asked."""

    def call(*arguments, pictures=PICTURES_OF_A_RUN, imagined=0.25, strength=6.0):
        folder = tmp_path / "run" / "calibration" / f"{fingerprint(locate('demo'))}-{__version__}"
        folder.mkdir(parents=True, exist_ok=True)
        records = captions(truths, imagined, strength)[:pictures]
        (folder / f"{slug(TASK)}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        given = ["--task", TASK, "--limit", str(pictures), "--output-dir", str(tmp_path / "run"), *arguments]
        return CliRunner().invoke(main, ["evaluate", "--calibrate", *given])

    return call


def test_a_promise_is_printed_and_kept(run, home, truths):
    result = run("--risk", "0.02", "--method", "mark")
    assert result.exit_code == 0, result.output
    (file,) = home.rglob("*.json")
    stored = json.loads(file.read_text())
    promise = Promise.parse(stored["promise"], "here")
    assert (promise.risk, promise.confidence, promise.procedure, promise.pictures) == (0.02, 0.95, "mark", 200)
    assert promise.loss < 0.02 and promise.kept > 0.9 and promise.task == TASK
    assert promise.weights == fingerprint(locate("demo"), (WEIGHTS,))
    half = captions(truths, 0.25, 6.0)[::2]
    detector = fitted([{**word, "medium": ""} for record in half for word in record["words"]])
    assert stored["detector"] == asdict(detector) and promise.detector == detector.digest
    for shown in ("risk promised     0.02", "mark", f"{promise.loss:.4f}", f"{promise.recall:.3f}", "200"):
        assert shown in result.stdout
    assert "fitted on half" in result.stdout and f"Kept in {file}" in result.stderr
    (entry,) = json.loads(run("--risk", "0.02", "--method", "mark", "--json", "--quiet").stdout)
    assert entry["promise"] == stored["promise"]
    assert run().exit_code == 0 and json.loads(file.read_text())["promise"] is None


def test_drop_is_the_procedure_without_a_method(run, home):
    assert run("--risk", "0.05", "--confidence", "0.9").exit_code == 0
    (file,) = home.rglob("*.json")
    promise = Promise.parse(json.loads(file.read_text())["promise"], "here")
    assert (promise.procedure, promise.confidence) == ("drop", 0.9)


def test_too_few_pictures_say_how_many_are_needed(run, home):
    result = run("--risk", "0.02", "--method", "mark", pictures=200)
    assert result.exit_code == 1 and not home.exists() and "risk promised" in result.stdout
    assert "Nothing was kept for demo: 100 pictures cannot show a risk of 0.02 for demo (mark)" in result.stderr
    limit = int(result.stderr.rpartition("--limit ")[2].split(")")[0])
    assert 300 <= limit <= PICTURES_OF_A_RUN and result.stderr.count("Error:") == 1
    assert run("--risk", "0.02", "--method", "mark", pictures=limit + 40).exit_code == 0


def test_a_risk_that_is_out_of_reach_names_one_that_is_not(run, home):
    result = run("--risk", "0.02", "--method", "drop", imagined=0.9, strength=0.8)
    assert result.exit_code == 1 and not home.exists() and "risk promised     none" in result.stdout
    assert "do not support a risk of 0.02 for demo (drop)" in result.stderr and "is within reach" in result.stderr


def test_less_than_the_goal_is_said(run):
    result = run("--risk", "0.03", "--method", "mark", strength=1.4, imagined=0.5)
    assert result.exit_code == 0, result.output
    assert "90% of the true objects that plain decoding names would be kept from a risk of about 0." in result.stderr


def test_chance_is_no_detector(run, home):
    result = run("--risk", "0.02", strength=0.0)
    assert result.exit_code == 1 and "better than chance" in result.stderr and not home.exists()


def test_captions_of_an_earlier_version_are_refused(run, home):
    assert run("--risk", "0.02", "--json").exit_code == 0
    for stored in home.parent.rglob("*.jsonl"):
        lines = [json.loads(line) for line in stored.read_text().splitlines()]
        earlier = [{key: value for key, value in line.items() if key != "caption"} for line in lines]
        stored.write_text("".join(json.dumps(line) + "\n" for line in earlier))
        given = ["--task", TASK, "--limit", str(PICTURES_OF_A_RUN), "--output-dir", str(home.parent / "run")]
        result = CliRunner().invoke(main, ["evaluate", "--calibrate", "--risk", "0.02", *given])
    assert result.exit_code == 1 and "choose another --output-dir" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        *(
            (["--calibrate", "--risk", value], 2, f"--risk is {value}; it must be above 0 and below 1")
            for value in ("0", "1", "-1", "nan")
        ),
        (["--calibrate", "--risk", "0.1", "--confidence", "1"], 2, "--confidence is 1; it must be above 0"),
        (["--calibrate", "--confidence", "0.9"], 2, "say which one with --risk"),
        (["--risk", "0.1"], 2, "add --calibrate"),
        (["--calibrate", "--risk", "0.1", "--method", "mark", "--method", "drop"], 2, "give one --method"),
        (["--calibrate", "--risk", "0.1", "--method", "m3id"], 1, "m3id has no threshold"),
        (["--calibrate", "--risk", "0.1", "--method", "lime:threshold=0.1"], 1, "leave threshold= out"),
        (["--calibrate", "--risk", "0.1", "--scorer", "ours"], 2, "leave --scorer out"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, code, problem, home, tmp_path):
    result = CliRunner().invoke(main, ["evaluate", "--output-dir", str(tmp_path / "run"), *arguments])
    assert result.exit_code == code and problem in result.stderr and result.stderr.count("Error:") == 1
    assert not home.exists() and not list(tmp_path.rglob("*.jsonl"))


@pytest.fixture
def answer(home, tmp_path):
    """generate with a stored promise of the demo, about a picture to whose list plain decoding adds something."""
    model = lime_mlx.load("demo")[0]
    detector = Detector.from_config(model.config)
    file = detector_file(locate("demo"))
    picture = tmp_path / "scene.png"
    make_scene(100_001, "adversarial").image.save(picture)

    def call(*arguments, source=str(picture), **changes):
        weights = fingerprint(locate("demo"), (WEIGHTS,))
        promise = replace(PROMISE, **{"weights": weights, "detector": detector.digest, **changes})
        file.parent.mkdir(parents=True, exist_ok=True)
        domain = model.config["lime"]["domain"]
        file.write_text(json.dumps({"detector": asdict(detector), "domain": domain, "promise": asdict(promise)}))
        return CliRunner().invoke(main, ["generate", source, "--risk", "0.02", *arguments])

    return call


def test_generate_says_what_it_promises_and_drops(answer):
    result = answer(threshold=0.0)
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("Promise"))
    for part in ("drop at 0.000", "probability 0.95", "at most 2 %", "the 250 of scenes:part=validation,count=500"):
        assert part in line
    assert "Left out, without support:" in result.stderr
    values = json.loads(answer("--json", "--quiet", threshold=0.0).stdout)
    assert values["promise"]["threshold"] == 0 and values["dropped"] and values["method"] == "none"
    assert all(word["flagged"] == (word["p_unsupported"] is not None) for word in values["words"])
    assert not json.loads(answer("--json", "--quiet", threshold=1.0).stdout)["dropped"]


def test_generate_marks(answer):
    assert "[?]" in answer(procedure="mark", threshold=0.0).stdout
    assert "[?]" not in answer(procedure="mark", threshold=1.0).stdout


def test_generate_takes_the_method_and_its_limit(answer):
    procedure = "lime:words=flagged,threshold=0.1"
    values = json.loads(answer("--json", "--quiet", procedure=procedure, tokens=4).stdout)
    assert values["method"] == procedure and values["generation_tokens"] == 4


@pytest.mark.parametrize(
    ("arguments", "changes", "problem"),
    [
        ([], {"risk": 0.05}, "demo has a promise of 0.05, which is weaker than 0.02: lime-mlx evaluate --calibrate"),
        ([], {"weights": "0"}, "about other weights or another detector"),
        ([], {"detector": "0"}, "about other weights or another detector"),
        (["-p", "Is there a dog?"], {}, "is about the question 'What is in the picture?'"),
        (["--image", "examples/scene.png"], {}, "about one picture in a question"),
        ([], {"medium": "audio"}, "about one sound in a question"),
    ],
)
def test_what_was_not_promised_is_refused(answer, arguments, changes, problem):
    result = answer(*arguments, **changes)
    assert result.exit_code == 1 and problem in result.stderr and result.stderr.count("Error:") == 1
    assert not result.stdout


def test_nothing_is_promised_of_inputs_outside_of_the_calibration(answer, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    result = answer(source=str(tmp_path / "noise.png"))
    assert result.exit_code == 1 and "Nothing is promised here: the picture is unlike those" in result.stderr
    assert not result.stdout


@pytest.mark.parametrize(
    "arguments",
    [["--method", "none"], ["--temp", "0.5"], ["--on-unsupported", "mark"], ["--max-tokens", "9"], ["--stop", "a"]],
)
def test_other_answers_than_those_of_the_calibration_are_refused(answer, arguments):
    result = answer(*arguments)
    assert result.exit_code == 2 and "--risk is about answers as they were calibrated: leave --" in result.stderr


@pytest.mark.parametrize("value", ["0", "1", "-1", "nan"])
def test_generate_takes_a_share(answer, value):
    result = answer("--risk", value)
    assert result.exit_code == 2 and f"--risk is {value}; it must be above 0 and below 1" in result.stderr


def test_without_a_promise_it_says_what_to_run(home, tmp_path):
    model = copied(tmp_path / "model", lambda lime: lime.pop("promise"))
    result = CliRunner().invoke(main, ["generate", "examples/scene.png", "--risk", "0.02", "--model", str(model)])
    assert result.exit_code == 1 and f"No promise is stored for {model}: lime-mlx evaluate --calibrate" in result.stderr
    assert f"--risk 0.02 --model {model} --task scenes" in result.stderr


def copied(folder, change):
    """The picture demo with another "lime" in its config.json."""
    shutil.copytree(locate("demo"), folder)
    config = json.loads((folder / "config.json").read_text())
    change(config["lime"])
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("medium", "model"), [("scene.png", "demo"), ("sounds.wav", "demo-sound")])
def test_the_bundled_models_have_promises(home, medium, model):
    answer = CliRunner().invoke(main, ["generate", f"examples/{medium}", "--risk", "0.01"])
    assert answer.exit_code == 0 and answer.stdout and "at most 1 % of the object words" in answer.stderr
    result = CliRunner().invoke(main, ["generate", f"examples/{medium}", "--risk", "0.001"])
    assert result.exit_code == 1 and f"{model} has a promise of 0.01, which is weaker than 0.001" in result.stderr


def test_without_a_picture_nothing_is_promised(home):
    result = CliRunner().invoke(main, ["generate", "-p", "Hello", "--risk", "0.02"])
    assert result.exit_code == 1 and "about a picture or a sound" in result.stderr


def test_a_model_without_a_detector_says_what_to_run(home, tmp_path):
    folder = shutil.copytree(locate("demo"), tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({**read_config(folder), "lime": {}}))
    given = ["generate", "examples/scene.png", "--risk", "0.02", "--model", str(folder)]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 1 and "was not calibrated" in result.stderr and "--calibrate --risk" in result.stderr


def test_the_users_detector_ends_the_checkpoints_own_promise(home, tmp_path):
    folder = shutil.copytree(locate("demo"), tmp_path / "model")
    config = read_config(folder)
    lime = {**config["lime"], "promise": asdict(PROMISE)}
    (folder / "config.json").write_text(json.dumps({**config, "lime": lime}))
    assert Promise.from_config(lime_mlx.load(folder)[0].config) == PROMISE
    file = detector_file(folder)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"detector": lime["detector"], "promise": None}))
    assert Promise.from_config(lime_mlx.load(folder)[0].config) is None
    file.write_text(json.dumps({"detector": lime["detector"], "promise": {"risk": 0.1}}))
    with pytest.raises(CheckpointError, match=f"{file.name} .delete it. cannot be used"):
        lime_mlx.load(folder)
