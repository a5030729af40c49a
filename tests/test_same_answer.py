"""Greedy answers are the same in every run, process, cache and cut of the prompt; with --seed, so are sampled ones."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lime_mlx.decoding import start

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import same_answer  # noqa: E402
from same_answer import CHUNKS, TOLERANCE, WAYS, Answers, Asked  # noqa: E402

SCENES = 1
WEIGHTS = [*TOLERANCE]


@cache
def answers(weights: str, method: str = "none") -> Answers:
    return Answers(Asked(*same_answer.loaded(weights), method), SCENES)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_nothing_differs(weights):
    assert dict(answers(weights).differing()) == dict.fromkeys(WAYS, 0)


@pytest.mark.parametrize("method", ["choose", "lime:steps=1"])
def test_nothing_differs_with_a_method(method):
    assert dict(answers("float32", method).differing()) == dict.fromkeys(WAYS, 0)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_chunks_differ_only_where_two_logits_are_close(weights):
    for size in CHUNKS:
        gaps = answers(weights).chunk_gaps(size)
        assert not gaps or max(gaps) < TOLERANCE[weights]


def test_another_process_gives_the_same():
    assert same_answer.elsewhere("4 bits", SCENES, "none") == answers("4 bits").all


@pytest.mark.slow
def test_a_resumed_evaluation_gives_the_same(tmp_path):
    differ, count = same_answer.resumed(4, 1, tmp_path)
    assert differ == 0 and count >= 10


def test_the_comparison_sees_other_answers(monkeypatch):
    """Chunks do change the logits, and another seed changes the answers."""
    one = answers("4 bits")
    asked, prompt = one.asked, one.prompts[0]
    whole, cut = (start(asked.model, prompt, reliance=False) for _ in range(2))
    for end in range(CHUNKS[0], len(prompt) - 1, CHUNKS[0]):
        cut.prefill(end)
    apart = np.abs(np.array(whole.extend()) - np.array(cut.extend())).max()
    assert 0 < apart < TOLERANCE["4 bits"] / 2
    monkeypatch.setattr(same_answer, "SEED", 8)
    assert dict(one.differing())["--seed, another run"] == SCENES
