"""KVSmooth against arXiv 2602.04268 written out in NumPy over whole caches."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import distance, small_model, small_prompt
from stepwise import forced, furthest, logits_of, plain, smoothed

from lime_mlx.decoding import start, steps
from lime_mlx.errors import MethodError
from lime_mlx.methods import parse_method
from lime_mlx.methods.base import PlainDecoding
from lime_mlx.methods.kvsmooth import KVSmooth
from lime_mlx.prompt import Prompt

DEPTH = 5
TOKENS = np.random.default_rng(5).integers(0, 64, 12).tolist()
PROMPT = small_prompt()


@pytest.fixture(scope="module")
def model():
    return small_model(num_hidden_layers=DEPTH)


def spec(options):
    return "kvsmooth:" + ",".join(f"{key}={value}" for key, value in options.items())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ref": 0.5, "window": 4},
        {"ref": 0.3, "clip": 1, "window": 3},
        {"ref": 1, "clip": 0.5, "window": 2},
        {"ref": 0.9, "clip": 0},
        {"ref": 0.4, "window": 1},
        {"ref": 0.5, "window": 5, "normalise": True},
        {"ref": 0.5, "window": 4, "warmup": 5},
        {"smooth": "k"},
        {"smooth": "v", "window": 3},
        {"layers": "2"},
        {"layers": "1-", "window": 4},
        {"layers": "all", "ref": 0.5, "window": 100},
    ],
    ids=spec,
)
def test_decoding_is_that_of_the_equations(model, options):
    layers = {"2": [2], "1-": range(1, DEPTH), "all": range(DEPTH), None: range(DEPTH - 1)}[options.get("layers")]
    wanted, _, slow = smoothed(model, PROMPT.input_ids, TOKENS, **{**options, "layers": layers})
    ours = logits_of(model, PROMPT, spec(options), TOKENS)
    assert furthest(ours, wanted) < 1e-5
    unchanged = plain(model, PROMPT.input_ids, TOKENS)
    if not options.get("warmup"):
        assert distance(ours[2:], unchanged[2:]) > 1e-3
        assert furthest(ours[:2], unchanged[:2]) < 1e-5  # the first entry is smoothed when its own step is over
    assert slow.past[0][0].shape[1] == len(PROMPT) + len(TOKENS)


def test_lam_runs_from_one_end_of_the_clip_to_the_other(model):
    _, lams, _ = smoothed(model, PROMPT.input_ids, TOKENS, ref=0.5, window=4)
    assert {round(lam, 6) for lam in lams} == {0.3, 0.5, 0.7}
    _, lams, _ = smoothed(model, PROMPT.input_ids, TOKENS, ref=0.3, clip=1, window=3)
    assert {round(lam, 6) for lam in lams} == {0, 0.333333, 0.666667}


def test_normalising_changes_ranks(model):
    ways = [smoothed(model, PROMPT.input_ids, TOKENS, ref=0.5, window=5, normalise=on)[1] for on in (False, True)]
    assert ways[0] != ways[1]


def test_warmup_counts_generated_tokens(model):
    ours = logits_of(model, PROMPT, "kvsmooth:warmup=5", TOKENS)
    unchanged = plain(model, PROMPT.input_ids, TOKENS)
    assert furthest(ours[:7], unchanged[:7]) < 1e-5
    assert distance(ours[7], unchanged[7]) > 1e-4
    assert furthest(logits_of(model, PROMPT, "kvsmooth:warmup=99999999999999999999", TOKENS), unchanged) < 1e-5


def test_windows_that_hide_positions():
    windows = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}
    model = small_model(**windows)
    assert model.language_model.config.windows == [None, 6, 6]
    wanted, *_ = smoothed(model, PROMPT.input_ids, TOKENS, ref=0.5, window=4, layers=range(3))
    assert furthest(logits_of(model, PROMPT, "kvsmooth:ref=0.5,window=4,layers=all", TOKENS), wanted) < 1e-5


def test_quantised_weights():
    model = small_model()
    nn.quantize(model, group_size=32, bits=4)
    wanted, *_ = smoothed(model, PROMPT.input_ids, TOKENS, ref=0.5, window=4, layers=range(2))
    assert furthest(logits_of(model, PROMPT, "kvsmooth:ref=0.5,window=4", TOKENS), wanted) < 1e-5


def test_text_alone_is_smoothed_too(model):
    wanted, *_ = smoothed(model, PROMPT.input_ids, TOKENS)
    assert furthest(logits_of(model, Prompt(PROMPT.input_ids), "kvsmooth", TOKENS), wanted) < 1e-5


def test_no_strength_is_no_method(model):
    ours, none = (logits_of(model, PROMPT, name, TOKENS) for name in ("kvsmooth:ref=0,clip=0", "none"))
    assert furthest(ours, none) < 1e-6


def test_half_precision_has_entropies():
    """1e-12, below which attention counts as none, is itself zero there."""
    model = small_model(dtype=mx.float16, sliding_window=4, use_sliding_window=True, max_window_layers=0)
    session = start(model, PROMPT, reliance=False)
    for step, _ in zip(steps(session, parse_method("kvsmooth"), 5), range(5), strict=True):
        assert np.isfinite(step.logits).all()
    assert all(np.isfinite(np.array(entropies)).all() for entropies in session.state["kvsmooth"].rows)
    assert len(session.state["kvsmooth"].rows) == 4


def test_what_is_asked_of_relevance_changes_nothing(model):
    ours, read = (forced(model, PROMPT, "kvsmooth:window=4", TOKENS, reliance=wanted) for wanted in (False, True))
    assert furthest(*(np.stack([step.logits for step in run]) for run in (ours, read))) < 1e-5
    assert [len(step.relevance) for step in read] == [len(PROMPT) + n for n in range(len(TOKENS) + 1)]
    assert all(step.relevance is None for step in ours)


@pytest.mark.parametrize(("count", "layers"), [(1, "0-0"), (2, "0-0"), (5, "0-3"), (6, "3-4"), (32, "3-30")])
def test_first_and_last_layers_are_left_alone(count, layers):
    class Deep:
        config, language_model = {"model_type": "llava"}, type("Decoder", (), {"layers": [None] * count})

    ready, (first, last) = KVSmooth().prepare(Deep), map(int, layers.split("-"))
    assert (ready.layers, ready.ref) == (range(first, last + 1), 0.9)
    assert isinstance(ready.inner, PlainDecoding)
    Deep.config = {"model_type": "qwen2_vl"}
    assert KVSmooth().prepare(Deep).ref == 0.7
    chosen = KVSmooth(ref=0.1, layers="0").prepare(Deep)
    assert (chosen.ref, chosen.layers) == (0.1, range(1))


def test_a_method_without_a_cache_is_refused(model):
    with pytest.raises(MethodError, match="^kvsmooth changes the cache, which lime:mode=exact does not use"):
        parse_method("kvsmooth+lime:mode=exact").prepare(model)


def test_lime_leaves_what_is_smoothed_alone(model):
    """The entries and the entropies are those of the undisturbed forward: the cache is that of kvsmooth alone."""
    caches, entropies = [], []
    for name in ("kvsmooth:window=4", "kvsmooth:window=4+lime:lr=0.005,steps=3,words=all", "lime:words=all"):
        session, said = start(model, PROMPT), iter(TOKENS)
        sampler = lambda _, said=said: mx.array([next(said)])  # noqa: E731
        changed = [step.optimised for step in steps(session, parse_method(name), len(TOKENS), sampler)]
        assert all(changed) == ("lime" in name)
        caches.append([np.array(x) for pair in session.cache.entries() for x in pair])
        entropies.append([np.array(x) for x in getattr(session.state.get("kvsmooth"), "rows", ())])
    for ours, wanted in zip(caches[1], caches[0], strict=True):
        assert distance(ours, wanted) < 1e-5
    assert distance(caches[2][0], caches[0][0]) > 1e-3
    assert distance(entropies[1], entropies[0]) < 1e-5


def test_lime_without_a_step_is_kvsmooth(model):
    both, alone = (
        logits_of(model, PROMPT, name, TOKENS)
        for name in ("lime:lr=0,words=all+kvsmooth:ref=0.5,window=4", "kvsmooth:ref=0.5,window=4")
    )
    assert furthest(both, alone) < 1e-5
    moved = logits_of(model, PROMPT, "lime:lr=0.05,words=all+kvsmooth:ref=0.5,window=4", TOKENS)
    assert furthest(moved, alone) > 1e-3
