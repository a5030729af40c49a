"""D-LEAF, PAI's attention and Heads: weights of the newest query, against their equations written out in NumPy."""

from itertools import product

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import distance, small_model, small_prompt
from stepwise import Stepwise, boosted, forced, furthest, led, logits_of, plain

from lime_mlx.decoding import start
from lime_mlx.lrp.rules import GRADIENT
from lime_mlx.methods import parse_method
from lime_mlx.methods.attention import Heads, PaiAttention
from lime_mlx.methods.dleaf import DLeaf, diagnosis
from lime_mlx.prompt import Prompt, Span

DEPTH = 4
TOKENS = np.random.default_rng(6).integers(0, 64, 6).tolist()
PROMPT = small_prompt()
WINDOWS = {
    "use_sliding_window": True,
    "sliding_window": 9,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}


@pytest.fixture(scope="module")
def model():
    return small_model(num_hidden_layers=DEPTH)


def looking(alpha, layers="all"):
    return PaiAttention(alpha, layers)


@pytest.mark.parametrize(
    "options",
    [
        *(
            {"heads": heads, "aggregate": aggregate, "threshold": threshold, "k": 2}
            for heads, aggregate, threshold in product(
                ("below-mean", "bottom-k"), ("mean", "max"), ("running-best", "mean")
            )
        ),
        {"gamma": 1},
        {"gamma": 0.3, "heads": "bottom-k", "k": 1},
        {"heads": "bottom-k", "k": 99999999999999999999},
        {"layers": "1-"},
        {"layers": "2-3", "heads": "bottom-k", "k": 3},
    ],
    ids=lambda options: ",".join(map(str, options.values())),
)
def test_dleaf_is_that_of_the_equations(model, options):
    layers = {"1-": range(1, DEPTH), "2-3": (2, 3), None: range(DEPTH)}[options.get("layers")]
    log = []
    wanted = plain(model, PROMPT.input_ids, TOKENS, led(**{**options, "layers": layers, "log": log}))
    spec = "dleaf:" + ",".join(f"{key}={value}" for key, value in options.items())
    assert furthest(logits_of(model, PROMPT, spec, TOKENS), wanted) < 1e-5
    assert distance(wanted, plain(model, PROMPT.input_ids, TOKENS)) > 1e-3
    assert {flagged for index, flagged in log if index == layers[0]} == {False}
    assert {flagged for _, flagged in log} == {True, False}


@pytest.mark.parametrize(
    ("method", "edit"),
    [
        (looking(0.2), boosted(0.2)),
        (looking(1.5, "1-2"), boosted(1.5, layers=(1, 2))),
        (parse_method("heads:layers=all"), boosted(strength=0.5)),
        (parse_method("heads:strength=2,layers=2-"), boosted(strength=2, layers=(2, 3))),
        (parse_method("heads"), boosted(strength=0.5, layers=(1, 2))),
        (PaiAttention(0.4), boosted(0.4, layers=(2, 3))),
    ],
)
def test_boosts_are_those_of_the_equations(model, method, edit):
    """By default PAI starts at layer 2, and Heads takes 5 to 18 of 32: 1 and 2 of 4."""
    wanted = plain(model, PROMPT.input_ids, TOKENS, edit)
    assert furthest(logits_of(model, PROMPT, method, TOKENS), wanted) < 1e-5
    assert distance(wanted, plain(model, PROMPT.input_ids, TOKENS)) > 1e-3


EVERY = [
    (DLeaf(), led()),
    (DLeaf(threshold="mean", heads="bottom-k", k=2), led(threshold="mean", heads="bottom-k", k=2)),
    (looking(0.7), boosted(0.7)),
    (Heads(0.7, "all"), boosted(strength=0.7)),
]
NAMES = ["dleaf", "dleaf-mean", "pai", "heads"]


@pytest.mark.parametrize(("method", "edit"), EVERY, ids=NAMES)
def test_windows_that_hide_a_part_of_the_picture(method, edit):
    """A window of 9 hides 1, 2 and 3 of the 4 positions in the first steps, then all."""
    model = small_model(num_hidden_layers=DEPTH, **WINDOWS)
    wanted = plain(model, PROMPT.input_ids, TOKENS, edit)
    assert furthest(logits_of(model, PROMPT, method, TOKENS), wanted) < 1e-5
    assert distance(wanted, plain(model, PROMPT.input_ids, TOKENS)) > 1e-3


@pytest.mark.parametrize(("method", "edit"), EVERY, ids=NAMES)
def test_quantised_weights(method, edit):
    model = small_model(num_hidden_layers=DEPTH)
    nn.quantize(model, group_size=32, bits=4)
    assert furthest(logits_of(model, PROMPT, method, TOKENS), plain(model, PROMPT.input_ids, TOKENS, edit)) < 1e-5


@pytest.mark.parametrize(("method", "edit"), EVERY, ids=NAMES)
def test_what_is_asked_of_relevance_changes_nothing(model, method, edit):
    ours, read = (forced(model, PROMPT, method, TOKENS, reliance=wanted) for wanted in (False, True))
    assert furthest(*(np.stack([step.logits for step in run]) for run in (ours, read))) < 1e-5
    assert all(np.isfinite(step.relevance).all() for step in read)


@pytest.mark.parametrize("windows", [{}, WINDOWS], ids=["full", "windows"])
@pytest.mark.parametrize(("method", "edit"), EVERY, ids=NAMES)
def test_relevance_goes_through_the_changed_weights(method, edit, windows):
    model = small_model(num_hidden_layers=DEPTH, **windows)
    session = start(model, PROMPT)
    session.prefill()
    reading = session.relevance(rules=GRADIENT, edits=method.prepare(model).edits(session))
    past = [tuple(np.array(x[0], dtype=np.float64) for x in pair) for pair in session.cache.entries()]
    embed = np.array(session.newest[0, 0], dtype=np.float64)
    wanted = Stepwise(model, edit).relevance(embed, past, int(reading.target))
    assert distance(reading.relevance, wanted) < 1e-4
    assert distance(session.relevance(rules=GRADIENT).relevance, wanted) > 1e-3


@pytest.mark.parametrize("method", ["dleaf:gamma=0", "heads:strength=0,layers=all", looking(0)])
def test_no_strength_is_no_method(model, method):
    ours, none = (logits_of(model, PROMPT, name, TOKENS) for name in (method, "none"))
    assert furthest(ours, none) < 1e-6


@pytest.mark.parametrize(("method", "_"), EVERY, ids=NAMES)
def test_a_prompt_of_one_token_has_one_weight(model, method, _):
    prompt = Prompt([3], spans=[Span("image", 0, 1)])
    for reliance in (False, True):
        ours = logits_of(model, prompt, method, [], reliance)
        assert furthest(ours, logits_of(model, prompt, "none", [])) < 1e-5


@pytest.mark.parametrize("method", [method for method, _ in EVERY], ids=NAMES)
def test_masked_scores_stay_masked_in_gemma(method):
    """Windows of 5, local rotary embeddings, norms on queries and keys; every third layer sees all."""
    windows = {"sliding_window": 5, "sliding_window_pattern": 3, "query_pre_attn_scalar": 16}
    model = small_model(model_type="gemma3_text", num_hidden_layers=6, **windows)
    rows = {index: [] for index in range(6)}
    session = start(model, PROMPT, reliance=False)
    session.observers = {index: lambda weights, index=index: rows[index].append(np.array(weights)) for index in rows}
    ready = method.prepare(model)
    for token in TOKENS:
        assert np.isfinite(np.array(ready.step(session).logits)).all()
        session.append(token)
    for index, shown in rows.items():
        for weights in shown:
            hidden = max(0, weights.shape[-1] - 5) if (index + 1) % 3 else 0
            assert (weights[..., :hidden] == 0).all()
            assert (weights[..., hidden:] > 0).all()
            np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_layers_that_do_not_see_the_picture_are_passed_over():
    """Behind a window LIAE is not 0: it would be the best of all, and every layer after it flagged."""
    focus, entropy = diagnosis(mx.array([[0, 0, 0.5, 0.5]]), mx.array([1.0, 1, 0, 0]), 2)
    assert focus.tolist() == [0]
    assert np.isnan(entropy.item())
    model = small_model()
    walk = next(iter(DLeaf().prepare(model).edits(start(model, small_prompt(5, 0, 2))).values()))
    blind, even = mx.array([-1e38, -1e38, 0, 0, 0]), mx.array([1.0, 1, 0, 0, 0])
    uneven = mx.array([1.0, -4, 0, 0, 0])
    scores = [mx.stack([row, 2 * row])[None, :, None, None] for row in (blind, even, blind, uneven, even)]
    changed = [not mx.allclose(walk(x), mx.softmax(x, axis=-1), atol=1e-6).item() for x in scores]
    assert changed == [False, False, False, False, True]


def test_diagnosis_by_hand():
    rows = mx.array([[0.1, 0.3, 0.6], [0.3, 0.3, 0.4]])
    seen = mx.array([1.0, 1, 0]), 2
    focus, entropy = diagnosis(rows, *seen)
    np.testing.assert_allclose(np.array(focus), [0.4, 0.6], rtol=1e-6)
    p = np.array([0.4, 0.6])
    assert entropy.item() == pytest.approx(-(p * np.log(p)).sum() / np.log(2))
    assert diagnosis(rows, *seen, "max")[1].item() == pytest.approx(1)
    assert diagnosis(rows, mx.array([1.0, 0, 0]), 1)[1].item() == 0
    assert diagnosis(mx.full((2, 3), 1 / 3), *seen)[1].item() == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 12, 32])
def test_default_layers_are_there(count):
    class Deep:
        config = {}
        language_model = type("Decoder", (), {"layers": [None] * count})

    known = {1: (0, 0), 2: (0, 1), 3: (0, 2), 4: (1, 2), 12: (2, 7), 32: (5, 18)}
    first, last = known[count]
    assert Heads().prepare(Deep).layers == range(first, last + 1)
    assert PaiAttention().prepare(Deep).layers == range(min(2, count - 1), count)
