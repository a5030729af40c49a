"""The threshold of yes: fitted on margins, and used by `yesno`."""

import numpy as np
import pytest

from lime_mlx import generate, load
from lime_mlx.decoding import start
from lime_mlx.errors import MethodError
from lime_mlx.evaluate.yes_no import LEAST, fitted_threshold
from lime_mlx.methods import parse_method
from lime_mlx.prompt import YesNo
from lime_mlx.scenes import make_scene


def records(margins, labels):
    return [{"margin": margin, "label": label} for margin, label in zip(margins, labels, strict=True)]


def test_the_threshold_with_the_most_right_answers():
    rng = np.random.default_rng(0)
    margins = np.concatenate([rng.normal(5, 1, 200), rng.normal(2, 1, 200)])
    fitted = fitted_threshold(records(margins, ["yes"] * 200 + ["no"] * 200))
    assert 3 < fitted.threshold < 4
    assert fitted.accuracy_before == pytest.approx(((margins > 0) == (np.arange(400) < 200)).mean())
    assert fitted.accuracy == pytest.approx(((margins > fitted.threshold) == (np.arange(400) < 200)).mean())
    assert fitted.questions == 400


def test_a_model_that_is_right_keeps_0():
    fitted = fitted_threshold(records([3.0] * LEAST + [-2.0] * LEAST, ["yes"] * LEAST + ["no"] * LEAST))
    assert (fitted.threshold, fitted.accuracy) == (0.0, 1.0)


def test_too_few_questions_fit_nothing():
    assert fitted_threshold(records([1.0] * LEAST + [-1.0], ["yes"] * LEAST + ["no"])) is None


def test_the_margin_of_the_best_spellings():
    assert YesNo([0, 2], [1]).margin(np.array([1.0, 4.0, 3.0])) == -1.0


@pytest.fixture(scope="module")
def demo():
    return load("demo")


def test_answers_follow_the_threshold_and_nothing_else_does(demo):
    image = make_scene(100_000, "ordinary").image
    question = "Is there a dog in the picture?"
    for threshold, word in ((-50, "Yes"), (50, "No")):
        assert generate(*demo, question, image, method=f"yesno:threshold={threshold}").text.startswith(word)
        caption = generate(*demo, "Describe the picture.", image, method=f"yesno:threshold={threshold}").text
        assert caption == generate(*demo, "Describe the picture.", image, method="none").text


def test_it_composes_and_text_alone_is_left(demo):
    model, processor = demo
    method = parse_method("yesno:threshold=2+lime")
    assert method.name == "yesno" and method.inner.name == "lime"
    prompt = processor.prompt("Is a dog an animal?")
    plain, shifted = (
        parse_method(spec).prepare(model).step(start(model, prompt)).logits for spec in ("none", "yesno:threshold=5")
    )
    np.testing.assert_array_equal(np.array(plain), np.array(shifted))


def test_a_model_without_a_threshold_says_what_to_do(demo):
    model, _ = demo
    bare = type(model)({key: value for key, value in model.config.items() if key != "lime"})
    with pytest.raises(MethodError, match="evaluate --calibrate"):
        parse_method("yesno").prepare(bare)
    with pytest.raises(MethodError, match="at least -1000|from -1000"):
        parse_method("yesno:threshold=1e9")
