"""The domain of a calibration: the test on features, and what users see of an input that is outside of it."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lime_mlx import explain, generate, load
from lime_mlx.checkpoint.files import read_config
from lime_mlx.checkpoint.hub import locate
from lime_mlx.cli import main
from lime_mlx.decoding import start
from lime_mlx.errors import CheckpointError
from lime_mlx.media.audio import Sound
from lime_mlx.methods import Plain
from lime_mlx.methods.retry import Retry
from lime_mlx.scenes import PROMPTS, SOUND_PROMPTS, make_scene, make_sound
from lime_mlx.support.domain import ALARMS, LEAST, Domain, features

MIXING = np.random.default_rng(7).normal(size=(6, 6))


def drawn(seed: int, count: int) -> np.ndarray:
    """Gaussian features with correlations, and one that never changes."""
    rows = np.random.default_rng(seed).normal(size=(count, 6)) @ MIXING + np.arange(6)
    return np.c_[rows, np.full(count, 3.0)]


@pytest.fixture(scope="module")
def fitted() -> Domain:
    return Domain.fit(drawn(0, 600), "drawn scenes")


def test_alarms_are_about_as_frequent_as_stated(fitted):
    alarms = np.mean([not fitted.inside(row) for row in drawn(1, 4000)])
    assert ALARMS / 4 < alarms < 2.5 * ALARMS


def test_the_distance_is_that_of_mahalanobis(fitted):
    rows = drawn(0, 600)
    standard = (rows - rows.mean(axis=0)) / np.where(rows.std(axis=0) > 0, rows.std(axis=0), 1)
    covariance = 0.9 * np.cov(standard.T, bias=True) + 0.1 * np.eye(7)
    expected = np.sqrt(standard[5] @ np.linalg.solve(covariance, standard[5]) / 7)
    assert fitted.distance(rows[5]) == pytest.approx(expected, rel=1e-6)


def test_far_points_are_outside_also_against_a_correlation(fitted):
    row = drawn(2, 1)[0]
    assert fitted.inside(row)
    assert not fitted.inside(row + 100)
    assert not fitted.inside(np.r_[row[:6], 4.0])  # what never changed has changed


def test_a_correlation_counts():
    one, other = np.random.default_rng(0).normal(size=(2, 500))
    domain = Domain.fit(np.c_[one, one + 0.1 * other], "pairs")
    assert domain.inside(np.array([2.0, 2.0])) and not domain.inside(np.array([2.0, -2.0]))


@pytest.mark.parametrize("row", [np.zeros(3), np.full(7, np.nan), np.full(7, np.inf)])
def test_features_of_another_model_or_without_a_value_are_outside(row, fitted):
    assert not fitted.inside(row)


def test_too_few_inputs_make_no_claim():
    with pytest.raises(ValueError, match=str(LEAST)):
        Domain.fit(drawn(0, LEAST - 1), "scenes")
    assert Domain.fit(drawn(0, LEAST), "scenes").inside(drawn(0, LEAST)[0])


def test_a_domain_comes_back_from_json(fitted):
    text = json.dumps(fitted.to_dict())
    again = Domain.parse(json.loads(text), "here")
    assert again.to_dict() == fitted.to_dict() and again.inputs == "drawn scenes"
    for row in drawn(3, 50):
        assert again.distance(row) == pytest.approx(fitted.distance(row), rel=1e-3)
    assert Domain.from_config({"lime": {"domain": json.loads(text)}}).to_dict() == fitted.to_dict()
    assert Domain.from_config({}) is None and Domain.from_config({"lime": {"detector": {}}}) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"mean": [1.0]},
        {"mean": []},
        {"mean": "1234567"},
        {"mean": None},
        {"scales": [0.0] * 7},
        {"scales": [True] * 7},
        {"whitening": ["1"] * 28},
        {"whitening": [float("nan")] * 28},
        {"whitening": [[1.0]]},
        {"threshold": -1},
        {"threshold": "2"},
        {"threshold": [2]},
        {"inputs": 3},
    ],
)
def test_a_damaged_domain_is_refused(damage, fitted):
    with pytest.raises(CheckpointError, match='"domain" in config.json'):
        Domain.from_config({"lime": {"domain": {**fitted.to_dict(), **damage}}})


@pytest.mark.parametrize("values", [[], "yes", 3, {}])
def test_what_is_no_domain_is_refused(values):
    with pytest.raises(CheckpointError, match="domain"):
        Domain.parse(values, "here")


def test_features_are_means_and_deviations_along_fixed_directions():
    embeds = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    found = features(embeds)
    assert found.shape == features(embeds[:2]).shape
    assert features(embeds[::-1]) == pytest.approx(found)
    half = len(found) // 2
    assert features(2 * embeds + 0)[:half] == pytest.approx(2 * found[:half])
    # The directions are a part of what detector files mean: they may never change.
    sums = [2.0, -2.0, 0.0, -2.0, 0.0, 0.0, -4.0, 2.0]
    assert features(np.eye(8))[:8] * 8**1.5 == pytest.approx(sums)


@pytest.fixture(scope="module")
def demo():
    return load("demo")


@pytest.fixture(scope="module")
def noise() -> Image.Image:
    """A picture that is as little a drawn scene as a photograph is."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))


@pytest.fixture
def noise_file(noise, tmp_path) -> str:
    noise.save(tmp_path / "noise.png")
    return str(tmp_path / "noise.png")


def test_the_demos_know_scenes_and_nothing_else(demo, noise):
    def inside(loaded, request, **media):
        return start(loaded[0], loaded[1].prompt(request, **media)).in_domain

    scene = make_scene(100_001, "ordinary").image
    assert inside(demo, PROMPTS[0], images=[scene]) is True
    assert inside(demo, "Is there a dog in the picture?", images=[scene]) is True  # whatever is asked
    assert inside(demo, PROMPTS[0], images=[noise]) is False
    assert inside(demo, PROMPTS[0], images=[scene, noise]) is False
    assert inside(demo, "Hello?") is None
    listener = load("demo-sound")
    scene = make_sound(100_001, "ordinary")
    rustle = Sound(np.random.default_rng(0).normal(0, 0.1, 96_000).astype(np.float32), 16_000)
    assert inside(listener, SOUND_PROMPTS[0], audio=[Sound(scene.samples, scene.rate)]) is True
    assert inside(listener, SOUND_PROMPTS[0], audio=[rustle]) is False


def test_words_outside_are_not_judged(demo, noise):
    notices = []
    answer = generate(*demo, PROMPTS[0], noise, notice=notices.append)
    assert answer.calibrated_for_input is False and answer.to_dict()["calibrated_for_input"] is False
    assert any(word.names_something for word in answer.words)
    assert {(word.p_unsupported, word.flagged) for word in answer.words} == {(None, False)}
    (notice,) = [notice for notice in answer.notices if "not calibrated for such input" in notice]
    assert notices == answer.notices and "drawn scenes" in notice and "picture" in notice
    explanation = explain(*demo, PROMPTS[0], noise)
    assert explanation.warnings == [notice]
    assert all(word.p_unsupported is None for word in explanation.words)


def test_words_inside_are_judged(demo):
    answer = generate(*demo, PROMPTS[0], make_scene(100_001, "ordinary").image)
    assert answer.calibrated_for_input is True and answer.notices == []
    assert any(word.p_unsupported is not None for word in answer.words)


@pytest.mark.parametrize("method", ["lime", "lime:words=flagged,threshold=0", "lime:mode=exact,words=flagged", Retry()])
def test_methods_do_not_act_by_the_detector_there(demo, noise, method):
    plain = generate(*demo, PROMPTS[0], noise, method="none", max_tokens=12)
    assert generate(*demo, PROMPTS[0], noise, method=method, max_tokens=12).tokens == plain.tokens


def test_a_model_without_a_domain_claims_nothing(demo, noise, tmp_path):
    folder = shutil.copytree(locate("demo"), tmp_path / "model")
    config = read_config(folder)
    own = {key: value for key, value in config["lime"].items() if key != "domain"}
    (folder / "config.json").write_text(json.dumps({**config, "lime": own}))
    answer = generate(*load(folder), PROMPTS[0], noise, method=Plain())
    assert answer.calibrated_for_input is None and answer.notices == []
    assert any(word.p_unsupported is not None for word in answer.words)


def test_the_commands_say_it_once(noise_file, tmp_path):
    def run(*arguments):
        result = CliRunner().invoke(main, [*arguments, noise_file, "--max-tokens", "12"])
        assert result.exit_code == 0, result.output
        return result

    note = "not calibrated for such input: the picture is unlike the drawn scenes"
    assert run("generate").stderr.count(note) == 1
    flagged = run("generate", "--flag")
    assert flagged.stderr.count(note) == 1 and "[?]" not in flagged.stdout
    assert "by rank in this answer (the model is not calibrated for such input)" in flagged.stderr
    dropped = run("generate", "--on-unsupported", "drop")
    assert dropped.stderr.count(note) == 1 and "Left out" not in dropped.stderr
    values = json.loads(run("generate", "--json").stdout)
    assert values["calibrated_for_input"] is False and note in values["warnings"][0]
    table = run("explain", "--output", str(tmp_path / "page.html"))
    assert (
        table.stderr.count(note) == 1 and "not calibrated for such input" in table.stdout and "rank 1" in table.stdout
    )
    assert note in (tmp_path / "page.html").read_text()
    values = json.loads(run("explain", "--json").stdout)
    assert values["calibrated_for_input"] is False and note in values["warnings"][0]
