"""Attention that is differentiated goes over long prompts in blocks of queries."""

import mlx.core as mx
import numpy as np
import pytest
from helpers import distance, small_model, small_prompt

from lime_mlx.attention import in_blocks, weighted
from lime_mlx.decoding import decode
from lime_mlx.lrp import rules as rule_sets
from lime_mlx.lrp.relevance import relevance

LENGTH = 44


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32))


@pytest.fixture
def blocks_of(monkeypatch):
    def set_size(size):
        monkeypatch.setattr("lime_mlx.attention.QUERIES", size)
        monkeypatch.setattr(rule_sets, "QUERIES", size)

    return set_size


def operands():
    return normal(1, 4, LENGTH, 8), normal(1, 2, LENGTH, 8, seed=1), normal(1, 2, LENGTH, 8, seed=2)


@pytest.mark.parametrize("size", [1, 7, 11, 44, 100])
def test_values_and_gradients_are_those_of_the_whole(blocks_of, size):
    blocks_of(size)
    weights, mask = normal(1, 4, LENGTH, 8, seed=3), mx.arange(LENGTH)[:, None] >= mx.arange(LENGTH)[None]
    stages: list[mx.array] = []

    def value(function, *more):
        return lambda q, k, v: (weights * function(q, k, v, 0.3, mask, *more)).sum()

    pairs = [
        mx.value_and_grad(run, argnums=[0, 1, 2])(*operands()) for run in (value(in_blocks, stages), value(weighted))
    ]
    assert distance(pairs[0][0], pairs[1][0]) < 1e-5
    for ours, wanted in zip(pairs[0][1], pairs[1][1], strict=True):
        assert distance(ours, wanted) < 1e-5
    assert len(stages) == 4 * -(-LENGTH // size)


@pytest.mark.parametrize("changes", [{}, {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": 1}])
@pytest.mark.parametrize("rules", ["attnlrp", "cplrp", "plain"])
def test_exact_relevance_is_that_of_the_whole(blocks_of, rules, changes):
    model, prompt = small_model(**changes), small_prompt(LENGTH, 4, 30)
    wanted = relevance(model, prompt, rules)
    blocks_of(7)
    assert distance(relevance(model, prompt, rules), wanted) < 1e-5


def test_second_derivatives_are_not_cut_off(blocks_of):
    """Exact LIME differentiates its gradients: there the attention is whole."""
    model, prompt = small_model(), small_prompt(LENGTH, 4, 30)
    spec = "lime:mode=exact,steps=3,lr=0.05,checkpoint=on"
    wanted = list(decode(model, prompt, spec, 2, trace=True))
    blocks_of(7)
    for ours, step in zip(decode(model, prompt, spec, 2, trace=True), wanted, strict=True):
        assert distance(ours.trace["grad_norm"], step.trace["grad_norm"]) < 1e-4
        assert distance(ours.logits, step.logits) < 1e-3


def test_blocks_take_their_share_of_the_memory(blocks_of):
    """Relevance of a long prompt: with the weights of all queries in memory it takes more than thrice as much."""
    model, prompt = small_model(num_hidden_layers=1, num_attention_heads=8, num_key_value_heads=4), small_prompt(900)
    peaks = []
    for size in (900, 64):
        blocks_of(size)
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        relevance(model, prompt)
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[1] < peaks[0] / 3
