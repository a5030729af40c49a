"""Answers, verdicts and losses of the bundled models are those that were stored, by every method."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import free_yes_no  # noqa: E402
import unchanged  # noqa: E402

from lime_mlx import generate, load  # noqa: E402

CLOSE = {"shares": 1e-4, "p_unsupported": 1e-4, "grad_norm": 1e-2}


@pytest.mark.parametrize("world", unchanged.MODELS)
def test_the_answers_are_those_that_were_stored(world):
    comparison, count = unchanged.Comparison(world), 0
    for method, seed, answer in unchanged.stored(world, scenes=1):
        comparison.check(method, seed, answer)
        count += 1
    assert count == 2 * (len(unchanged.METHODS) + 1)
    assert comparison.largest.keys() == {
        "shares", "p_unsupported", "kl", "rel_loss", "total_loss", "grad_norm", "delta_norm"
    }  # fmt: skip
    for name, difference in comparison.largest.items():
        assert difference < CLOSE.get(name, 1e-3), name


def test_free_answers_to_questions_are_not_spoilt():
    """The default method leaves the words of the question alone; a version before it spoilt 114 of 120 answers."""
    model, processor = load("demo")
    asked = free_yes_no.pictures_and_questions(8)
    assert len(asked) == 32
    for image, question in asked:
        plain, default = (
            generate(model, processor, question.text, image, method=method, max_tokens=24).text
            for method in ("none", None)
        )
        assert not free_yes_no.spoilt(plain, question.kind)
        assert not free_yes_no.spoilt(default, question.kind), (question.text, default)
