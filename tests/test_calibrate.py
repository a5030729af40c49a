"""Calibration: the fit against a slow reference, what is measured, where a detector is kept and who uses it."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import lime_mlx
from lime_mlx._version import __version__
from lime_mlx.checkpoint.files import read_config
from lime_mlx.checkpoint.hub import locate
from lime_mlx.cli import main
from lime_mlx.errors import CheckpointError, DataError
from lime_mlx.evaluate.calibrate import SPECS, FittedDetector, calibrate, keep
from lime_mlx.evaluate.fitting import STATISTICS, auroc, auroc_interval, fitted, logistic, measured
from lime_mlx.evaluate.runner import RunConfig
from lime_mlx.evaluate.runner import run as evaluate
from lime_mlx.evaluate.scorers.chair import ObjectFinder
from lime_mlx.evaluate.scorers.scenes import mentions
from lime_mlx.evaluate.store import slug
from lime_mlx.evaluate.tasks import Scenes
from lime_mlx.evaluate.tasks.chair import Chair
from lime_mlx.files import fingerprint
from lime_mlx.scenes import PROMPTS, make_scene
from lime_mlx.support import store as detectors
from lime_mlx.support.detector import Detector
from lime_mlx.support.domain import Domain
from lime_mlx.support.statistics import from_logits, from_relevance

PLAN = RunConfig(["demo"], ["none"], ["scenes:part=validation"], limit=14)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LIME_MLX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def words(count: int = 240, strength: float = 3.0, seed: int = 0) -> list[dict]:
    """Object words with evidence that tells as much as `strength` says; four of each picture, a quarter imagined."""
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        there = bool(rng.random() < 0.75)
        statistics = rng.normal(loc=strength * there, size=4) * (0.1, 2.0, 1.0, 0.3) + (0.5, 5, 0, -1)
        found.append(
            {"medium": f"{number // 4:03}", "there": there, **dict(zip(STATISTICS, statistics.tolist(), strict=True))}
        )
    return found


def descent(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Gradient descent on the same loss."""
    weights, intercept = np.zeros(x.shape[1]), 0.0
    for _ in range(40_000):
        error = 1 / (1 + np.exp(-(x @ weights + intercept))) - y
        weights, intercept = weights - 0.3 * (x.T @ error / len(y) + penalty * weights), intercept - 0.3 * error.mean()
    return np.r_[weights, intercept]


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_the_fit_is_that_of_gradient_descent(strength):
    rng = np.random.default_rng(1)
    y = rng.random(150) < 0.3
    x = rng.normal(size=(150, 3)) + strength * np.outer(y, (1, -2, 0))
    np.testing.assert_allclose(logistic(x, y, penalty=0.01), descent(x, y, 0.01), atol=1e-6)


def test_the_fit_holds_where_one_statistic_tells_everything():
    y = np.arange(40) % 4 == 0
    found = logistic(np.c_[np.where(y, 1e3, -1e3), np.zeros(40)], y)
    assert np.isfinite(found).all() and found[0] > 0
    assert ((np.c_[np.where(y, 1e3, -1e3), np.zeros(40), np.ones(40)] @ found > 0) == y).all()


def test_the_detector_does_not_depend_on_the_units_of_a_statistic():
    rows = words(80, strength=1.0)
    scaled = [{**row, "peak": 1000 * row["peak"] + 7, "share": 0.25} for row in rows]
    plain = [{**row, "share": 0.5} for row in rows]
    doubts = [[fitted(each).p_unsupported(row) for row in each] for each in (plain, scaled)]
    np.testing.assert_allclose(*doubts, atol=1e-9)


def test_the_threshold_has_the_best_f1():
    rows = words(strength=1.0)
    detector = fitted(rows)
    wrong = np.array([not row["there"] for row in rows])
    doubts = np.array([detector.p_unsupported(row) for row in rows])

    def f1(threshold):
        return 2 * (wrong & (doubts >= threshold)).sum() / (wrong.sum() + (doubts >= threshold).sum())

    assert f1(detector.threshold) == max(map(f1, np.linspace(0, 1, 2001)))
    quality = measured(detector, rows, [row["medium"] for row in rows])
    flagged = doubts >= detector.threshold
    assert quality.precision == wrong[flagged].mean() and quality.recall == flagged[wrong].mean()
    assert quality.low < quality.auroc < quality.high


def test_auroc_counts_pairs_and_its_interval_draws_pictures():
    rng = np.random.default_rng(2)
    scores, positive = rng.integers(0, 5, 60).astype(float), rng.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs))
    alone = auroc_interval(scores, positive, np.arange(60))
    tenfold = auroc_interval(np.tile(scores, 10), np.tile(positive, 10), np.tile(np.arange(60), 10))
    np.testing.assert_allclose(alone, tenfold, atol=1e-12)


SAID = [
    "A",
    " hot",
    " dog,",
    " two",
    " men's",
    " \u201ctraffic",
    " lights\u201d",
    " and",
    " a",
    ' "Dining',
    ' table".',
    "\nDogs",
]


@pytest.mark.parametrize("mode", ["ours", "wordnet"])
def test_words_are_mapped_to_the_objects_of_a_caption(mode):
    synonyms = [["person", "man", "men"], ["traffic light"], ["dining table", "table"], ["hot dog"], ["dog"]]
    found = ObjectFinder(synonyms, mode).named(SAID)
    assert found[:1] == [(1, "hot dog")] and found[-1] == (11, "dog")
    assert (4, "person") in found and (5, "traffic light") in found
    assert (9 if mode == "ours" else 10, "dining table") in found
    assert ObjectFinder(synonyms, mode).named([]) == []


def test_real_pictures_have_their_own_objects(tmp_path):
    """The readings of COCO's captions find other objects; the words are read as ours."""
    home = tmp_path / "chair"
    home.mkdir()
    (tmp_path / "images").mkdir()
    (home / "synonyms.txt").write_text("person, man\ndog, puppy\ntree\nball\nhorse\ncat\nbird\nboat\numbrella\nhouse")
    objects = ["dog", "horse"]
    for name, places in (("pattern", [0]), ("ours_overrides", [1])):
        table = {"objects": objects, "images": {"7": places}}
        (home / f"coco2014_gt_objects.{name}.json").write_text(json.dumps(table))
    make_scene(200_000, "ordinary").image.save(tmp_path / "images" / "COCO_val2014_000000000007.png")
    plan = RunConfig(["demo"], ["none"], ["chair:pictures=all,tokens=24"], tmp_path)
    with pytest.raises(DataError, match="more pictures are needed"):
        calibrate(plan, "demo", tmp_path / "run")
    (record,) = (json.loads(file.read_text()) for file in (tmp_path / "run" / "calibration").rglob("*.jsonl"))
    assert record["words"] and all(word["there"] == (word["object"] == "horse") for word in record["words"])
    (item,) = Chair(pictures="all").items(tmp_path)
    assert Chair().true_objects(item) == ["horse"]


@pytest.fixture(scope="module")
def captions(tmp_path_factory) -> tuple[Path, FittedDetector]:
    """A folder with the captions of a few pictures, and what was found in them."""
    folder = tmp_path_factory.mktemp("captions")
    return folder, calibrate(PLAN, "demo", folder, least=1)


def test_evidence_is_that_of_the_first_token_of_each_object(captions):
    (text,) = map(Path.read_text, captions[0].glob("calibration/*/*.jsonl"))
    model, processor = lime_mlx.load("demo")
    for record in map(json.loads, text.splitlines()[:4]):
        scene, expected = make_scene(int(record["medium"]), "adversarial"), []
        prompt = processor.prompt(PROMPTS[0], images=[scene.image])
        for step in lime_mlx.decode(model, prompt, "none", 48, stop=processor.eos_token_ids):
            for kind in mentions(processor.tokenizer.decode([step.token])):
                evidence = from_relevance(step.relevance, model.modality(prompt))
                expected.append({**evidence, **from_logits(step.logits, step.token), "there": kind in scene.kinds})
                assert record["words"][len(expected) - 1]["object"] == kind
        for word, wanted in zip(record["words"], expected, strict=True):
            assert {key: word[key] for key in wanted} == pytest.approx(wanted, abs=1e-5)


def test_what_was_calibrated_is_what_a_model_has_from_then_on(captions, home):
    found = captions[1]
    assert (found.pictures, found.task) == (14, PLAN.tasks[0]) and set(found.detector.weights) == set(STATISTICS)
    own = Detector.from_config(lime_mlx.load("demo")[0].config)
    before = detectors.identity(locate("demo"))
    file = keep(found)
    assert detectors.identity(locate("demo")) != before == file.stem
    assert file == home / "detectors" / f"{fingerprint(locate('demo'))}.json"
    assert list(home.rglob("*")) == [file.parent, file]
    model, _ = lime_mlx.load("demo")
    assert Detector.from_config(model.config) == found.detector != own
    assert model.config["lime"]["fast"] == read_config(locate("demo"))["lime"]["fast"]
    sound = read_config(locate("demo-sound"))
    assert lime_mlx.load("demo-sound")[0].config["lime"] == sound["lime"]


def test_answers_under_another_detector_are_not_mixed(captions, home, tmp_path):
    plan = RunConfig(["demo"], ["none"], ["scenes:count=1,ask=captions"], reliance=False)
    evaluate(plan, tmp_path / "run")
    keep(captions[1])
    with pytest.raises(DataError, match=r"demo \(model\) was"):
        evaluate(plan, tmp_path / "run")


def test_a_model_without_a_detector_has_flags_once_it_is_calibrated(captions, home, tmp_path):
    folder = shutil.copytree(locate("demo"), tmp_path / "model")
    config = read_config(folder)
    detector = Detector.from_config(config)
    (folder / "config.json").write_text(json.dumps({**config, "lime": {}}))
    make_scene(240_044, "adversarial").image.save(tmp_path / "scene.png")  # plain decoding adds a boat

    def dropped(*arguments):
        given = ["--image", str(tmp_path / "scene.png"), "--method", "none", "--on-unsupported", "drop"]
        return CliRunner().invoke(main, ["generate", "--model", str(folder), *given])

    assert "calibrated" in dropped().stderr and dropped().exit_code == 1
    keep(replace(captions[1], model=str(folder), detector=detector))
    assert "Left out, without support: boat" in dropped().stderr


def test_one_who_calibrated_nothing_pays_no_hashing(home, monkeypatch):
    def never(folder):
        raise AssertionError

    monkeypatch.setattr(detectors, "fingerprint", never)
    config = {"model_type": "llava"}
    assert detectors.calibrated(config, Path("anywhere")) is config
    (home / "detectors").mkdir(parents=True)
    (home / "detectors" / "README.txt").write_text("")
    assert detectors.calibrated(config, Path("anywhere")) is config


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"detector": {"weights": {}}}', '{"detector": {"weights": {"colour": 1}}}'],
)
def test_a_damaged_file_is_named(content, home):
    file = detectors.detector_file(locate("demo"))
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.raises(CheckpointError) as caught:
        lime_mlx.load("demo")
    assert str(file) in str(caught.value) and str(caught.value).count(".") <= 3


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"HOME": "/u"}, "/u/.config/lime-mlx"),
        ("linux", {"HOME": "/u", "XDG_CONFIG_HOME": "/x"}, "/x/lime-mlx"),
        ("darwin", {"HOME": "/u", "XDG_CONFIG_HOME": "/x"}, "/u/Library/Application Support/lime-mlx"),
        ("darwin", {"HOME": "/u", "LIME_MLX_HOME": "~/mine"}, "/u/mine"),
    ],
)
def test_the_users_folder(platform, variables, expected, monkeypatch):
    monkeypatch.setattr("sys.platform", platform)
    for name in ("HOME", "XDG_CONFIG_HOME", "LIME_MLX_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert detectors.home() == Path(expected)


@pytest.fixture
def run(home, tmp_path):
    """The command on captions that were given already, with evidence of a strength; the model is not asked."""

    def call(*arguments, strength=3.0, pictures=60):
        folder = tmp_path / "run" / "calibration" / f"{fingerprint(locate('demo'))}-{__version__}"
        folder.mkdir(parents=True, exist_ok=True)
        known = words(4 * pictures, strength)
        records = [
            {"id": f"{100_000 + n}/caption", "medium": f"{n:03}", "text": "", "words": known[4 * n : 4 * n + 4]}
            for n in range(pictures)
        ]
        (folder / f"{slug(SPECS['scenes'])}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        given = ["--limit", str(pictures), "--output-dir", str(tmp_path / "run"), *arguments]
        return CliRunner().invoke(main, ["evaluate", "--calibrate", *given])

    return call


def test_the_command_goes_on_and_keeps_what_tells(run, home):
    result = run("--task", "scenes")
    assert result.exit_code == 0, result.output
    (file,) = home.rglob("*.json")
    assert "hallucinated" in result.stdout and f"Kept in {file}" in result.stderr
    before = file.read_bytes()
    (entry,) = json.loads(run("--json", "--quiet").stdout)
    assert entry["kept"] == str(file) and file.read_bytes() == before
    kept = json.loads(before)
    assert kept["detector"] == entry["detector"] and kept["quality"] == entry["quality"]
    assert entry["quality"]["auroc"] > 0.95 and entry["words"] == 240
    first, second = ([row for row in words(240) if int(row["medium"]) % 2 == half] for half in (0, 1))
    assert entry["quality"] == asdict(measured(fitted(first), second, [row["medium"] for row in second]))
    assert entry["detector"] == asdict(fitted(first + second))


def test_what_tells_nothing_is_not_kept(run, home):
    result = run(strength=0.0)
    assert result.exit_code == 1 and "cannot tell whether its detector is better than chance" in result.stderr
    assert "AUROC" in result.stdout and result.stderr.count("Error:") == 1
    assert not home.exists()


def test_too_few_words_say_how_many_more(run, home):
    result = run(pictures=20)
    assert result.exit_code == 1 and not home.exists()
    assert "hallucinated object words" in result.stderr and "more pictures are needed (--limit " in result.stderr
    asked = int(result.stderr.rpartition("--limit ")[2].split(")")[0])
    assert run(pictures=asked + 10).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["--task", "scenes", "--task", "sounds"], 2, "takes one --task"),
        (["--method", "lime"], 2, "leave --method out"),
        (["--scorer", "ours"], 2, "leave --scorer out"),
        (["--no-reliance"], 2, "leave --reliance out"),
        (["--task", "pope"], 1, "pope has no captions with known objects"),
        (["--task", "scenes:ask=questions"], 1, "has no captions to calibrate on"),
        (["--task", "sounds", "--model", "demo"], 1, "demo takes no sounds"),
        (["--model", "nowhere"], 1, "There is no folder 'nowhere'"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, code, problem, home, tmp_path):
    arguments = ["evaluate", "--calibrate", "--output-dir", str(tmp_path / "run"), "--limit", "1", *arguments]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code and problem in result.stderr and result.stderr.count("Error:") == 1
    assert not home.exists() and not list(tmp_path.rglob("*.jsonl"))


def test_a_picture_that_fails_is_told_and_tried_again(captions, tmp_path, monkeypatch):
    notes, source = [], Scenes.source
    plan = replace(PLAN, limit=3)
    with monkeypatch.context() as patch:
        patch.setattr(Scenes, "source", lambda *given: b"" if given[-1] == "100001" else source(*given))
        with pytest.raises(DataError, match="more pictures are needed"):
            calibrate(plan, "demo", tmp_path, notes=notes)
        patch.setattr(Scenes, "source", lambda *_: b"")
        with pytest.raises(DataError, match="No caption could be given: .*empty"):
            calibrate(plan, "demo", tmp_path / "none")
    assert notes[0].startswith("1 of 3 captions failed, such as 100001/caption: ")
    assert calibrate(PLAN, "demo", shutil.copytree(captions[0], tmp_path / "again"), least=1) == captions[1]
    with pytest.raises(DataError, match="3 pictures gave"):
        calibrate(plan, "demo", tmp_path, notes=(again := []))
    assert not again


def test_a_copy_of_the_model_is_the_same_model_and_another_is_not(home, tmp_path):
    shutil.copytree(locate("demo"), tmp_path / "copy")
    place = detectors.detector_file(tmp_path / "copy")
    assert place == detectors.detector_file(locate("demo"))
    (tmp_path / "copy" / "chat_template.jinja").write_text("other")
    assert detectors.detector_file(tmp_path / "copy") != place


@pytest.mark.parametrize("positive", [np.zeros(6, bool), np.ones(6, bool), np.zeros(0, bool)])
def test_words_of_one_kind_have_no_auroc(positive):
    scores = np.arange(len(positive), dtype=float)
    assert np.isnan(auroc(scores, positive))
    assert np.isnan(auroc_interval(scores, positive, np.arange(len(positive)))).all()


def test_samples_without_a_positive_do_not_count():
    scores, positive = np.arange(40.0), np.arange(40) == 39
    low, high = auroc_interval(scores, positive, np.arange(40))
    assert low == high == 1


def test_what_inputs_are_like_is_fitted_and_kept_with_the_detector(run, home, tmp_path):
    file = tmp_path / "run" / "calibration" / f"{fingerprint(locate('demo'))}-{__version__}"

    def with_features(*arguments, pictures):
        run(*arguments, pictures=pictures)
        (stored,) = file.glob("*.jsonl")
        rng = np.random.default_rng(0)
        records = [json.loads(line) for line in stored.read_text().splitlines()]
        lines = [json.dumps({**record, "features": [rng.normal(size=48).tolist()]}) for record in records]
        stored.write_text("\n".join(lines) + "\n")
        given = ["--task", "scenes", "--limit", str(pictures), "--output-dir", str(tmp_path / "run"), *arguments]
        return CliRunner().invoke(main, ["evaluate", "--calibrate", *given])

    few = with_features(pictures=60)
    assert few.exit_code == 0 and "that needs 100" in few.stderr
    (kept,) = home.rglob("*.json")
    assert json.loads(kept.read_text())["domain"] is None
    assert Domain.from_config(lime_mlx.load("demo")[0].config) is None  # not that of the former detector
    enough = with_features("--json", pictures=120)
    stored = json.loads(kept.read_text())["domain"]
    assert stored["inputs"] == "drawn scenes" and len(stored["mean"]) == 48
    assert json.loads(enough.stdout)[0]["domain"] == stored
    assert Domain.from_config(lime_mlx.load("demo")[0].config).to_dict() == stored
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "domain": {"inputs": "drawn scenes"}}))
    with pytest.raises(CheckpointError, match="domain"):
        lime_mlx.load("demo")
