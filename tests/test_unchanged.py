"""Answers, verdicts and losses of the bundled models are those of version 0.1.0, by every method."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import unchanged  # noqa: E402

CLOSE = {"shares": 1e-4, "p_unsupported": 1e-4, "grad_norm": 1e-2}


@pytest.mark.parametrize("world", unchanged.MODELS)
def test_the_answers_are_those_of_0_1_0(world):
    comparison, count = unchanged.Comparison(world), 0
    for method, seed, answer in unchanged.stored(world, scenes=2):
        comparison.check(method, seed, answer)
        count += 1
    assert count == 52
    assert comparison.largest.keys() == {
        "shares", "p_unsupported", "kl", "rel_loss", "total_loss", "grad_norm", "delta_norm"
    }  # fmt: skip
    for name, difference in comparison.largest.items():
        assert difference < CLOSE.get(name, 1e-3), name
