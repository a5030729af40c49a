"""Support of words on the bundled model: the detector, what LIME and a second try do with its doubts, the flags."""

import json

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner

from lime_mlx import generate, load
from lime_mlx.cli import main
from lime_mlx.errors import CheckpointError, MethodError
from lime_mlx.methods import Plain
from lime_mlx.methods.lime import Lime
from lime_mlx.methods.retry import Retry
from lime_mlx.probes.attention import attention
from lime_mlx.probes.blank import blank_logits, ignores_media
from lime_mlx.scenes import PROMPTS, make_scene
from lime_mlx.support.detector import Detector
from lime_mlx.support.statistics import from_logits, from_relevance

SEED = 240_004  # a clock, a mushroom and an umbrella; plain decoding says train


@pytest.fixture(scope="module")
def demo():
    return load("demo")


@pytest.fixture(scope="module")
def scene():
    return make_scene(SEED, "adversarial")


@pytest.fixture
def picture(scene, tmp_path):
    scene.image.save(tmp_path / "scene.png")
    return str(tmp_path / "scene.png")


def run(*arguments):
    return CliRunner().invoke(main, ["generate", *arguments])


def test_statistics_of_relevance():
    modality = np.array([False, True, True, False])
    found = from_relevance(np.array([1.0, 3.0, -2.0, 1.0, 3.0]), modality)
    assert found == {"share": pytest.approx(0.5), "signed": 1.0, "positive": 3.0, "peak": 3.0}


def test_statistics_of_logits():
    found = from_logits(np.log([0.5, 0.25, 0.25]) + 7, 1)
    assert found["logp"] == pytest.approx(np.log(0.25))
    assert found["certainty"] == pytest.approx(0.5 * np.log(0.5) + 0.5 * np.log(0.25))


@pytest.mark.parametrize(
    "values", [{}, {"weights": {"share": "x"}, "intercept": 0, "threshold": 0}, {"weights": 3}, [], "yes"]
)
def test_a_broken_detector_is_refused(values):
    with pytest.raises(CheckpointError, match="detector"):
        Detector.from_config({"lime": {"detector": values}})


def test_an_unknown_statistic_is_refused():
    with pytest.raises(CheckpointError, match="unknown statistic 'colour'"):
        Detector.from_config({"lime": {"detector": {"weights": {"colour": 1}, "intercept": 0, "threshold": 0.5}}})


def test_a_model_without_one_is_not_calibrated():
    assert Detector.from_config({}) is None
    assert Detector.from_config({"lime": {"fast": {"steps": 2}}}) is None


def test_the_habit_is_doubted_and_what_is_there_is_not(demo, scene):
    answer = run_words(demo, scene, "none")
    p_unsupported = {word.name: word.p_unsupported for word in answer if word.names_something}
    assert p_unsupported["train"] > 0.9
    assert p_unsupported["clock"] < 0.1


def run_words(demo, scene, method):
    return generate(*demo, PROMPTS[0], scene.image, method=method, max_tokens=40).words


@pytest.mark.parametrize("method", ["lime:words=flagged,steps=3,lr=0.05", Retry(inner=Plain())], ids=["lime", "retry"])
def test_doubted_words_can_be_mended(demo, scene, method):
    answer = generate(*demo, PROMPTS[0], image=scene.image, method=method, max_tokens=40, reliance=False)
    assert "train" not in answer.text
    assert "clock" in answer.text
    assert answer.relevance == [None] * len(answer.tokens)


def test_a_second_try_leaves_the_rest_as_it_is(demo):
    model, processor = demo
    for seed in range(240_000, 240_012):
        image = make_scene(seed, "ordinary").image
        plain = run_words(demo, make_scene(seed, "ordinary"), "none")
        if any(word.flagged for word in plain):
            continue
        again = generate(model, processor, PROMPTS[0], image=image, method=Retry(), max_tokens=40)
        assert again.text.split() == [word.text.strip() for word in plain]


def test_only_a_calibrated_model_has_doubts(demo):
    class Uncalibrated:
        config = {}
        language_model = demo[0].language_model

    with pytest.raises(MethodError, match="calibrated"):
        Retry().prepare(Uncalibrated())
    with pytest.raises(MethodError, match="calibrated"):
        Lime(words="flagged").prepare(Uncalibrated())


def test_a_picture_that_is_used_is_not_ignored(demo, scene):
    model, processor = demo
    prompt = processor.prompt(PROMPTS[0], images=[scene.image])
    answer = generate(model, processor, prompt, method="none", max_tokens=40, reliance=False)
    assert not ignores_media(model, prompt, answer.tokens)
    empty = model.blank(prompt)
    said = generate(model, processor, empty, method="none", max_tokens=40, reliance=False)
    assert ignores_media(model, empty, said.tokens)


def test_blanked_logits_are_those_of_the_blank_prompt(demo, scene):
    model, processor = demo
    prompt = processor.prompt(PROMPTS[0], images=[scene.image])
    tokens = [269, 438, 407]
    found = blank_logits(model, prompt, tokens)
    first = np.array(model.logits(model.blank(prompt))[-1])
    assert found.shape == (3, len(first))
    np.testing.assert_allclose(found[0], first, atol=1e-4)


def test_attention_statistics_are_shares(demo, scene):
    model, processor = demo
    prompt = processor.prompt(PROMPTS[0], images=[scene.image])
    found = attention(model, prompt, [269, 438, 407])
    assert len(found) == 3
    assert all(0 < value < 1 for statistics in found for value in statistics.values())
    mx.clear_cache()


def test_flags_on_the_command_line(picture):
    marked = run("--image", picture, "--method", "none", "--flag")
    assert "train[?]" in marked.stdout and "clock[?]" not in marked.stdout
    assert "train (" in marked.stderr
    dropped = run("--image", picture, "--method", "none", "--on-unsupported", "drop")
    assert "train" not in dropped.stdout and "clock" in dropped.stdout
    assert "Left out, without support: train" in dropped.stderr
    retried = run("--image", picture, "--method", "none", "--on-unsupported", "retry", "--flag")
    assert "train" not in retried.stdout


def test_flags_in_json(picture):
    found = json.loads(
        run("--image", picture, "--method", "none", "--flag", "--check-input", "--json", "--quiet").stdout
    )
    assert [word["text"].strip(".,") for word in found["words"] if word["flagged"]] == ["train"]
    assert found["input_used"] is True and found["warnings"] == []


def test_an_unused_picture_is_said(picture, monkeypatch):
    monkeypatch.setattr("lime_mlx.explanation.ignores_media", lambda *_: True)
    monkeypatch.setattr("lime_mlx.explanation.UNUSED", 1.1)
    said = run("--image", picture, "--method", "none", "--check-input").stderr
    assert "the same answer to a blank input" in said
    assert "was it used at all?" in run("--image", picture, "--method", "none", "--explain").stderr
