"""Entries of 8 and 4 bits, in mlx-lm's layout: the same tokens, and all methods on them."""

import mlx.core as mx
import numpy as np
import pytest
from helpers import distance, small_model, small_prompt
from mlx_lm.models.cache import QuantizedKVCache

from lime_mlx.decoding import decode, start
from lime_mlx.entries import Held, LayerCache, Packing
from lime_mlx.errors import PromptError
from lime_mlx.kv import KVOptions
from lime_mlx.lrp.rules import PLAIN
from lime_mlx.methods import parse_method
from lime_mlx.prefixes import Prefixes
from lime_mlx.prompt import Prompt

SPECS = [
    "none",
    "lime:words=all,lr=0.05",
    "lime:words=all,update=normalised,steps=3",
    "lime:mode=exact,steps=2",
    "kvsmooth:window=3,ref=0.5",
    "dleaf",
    "pai",
    "only:beta=0",
]
WIDE = {"head_dim": 32, "hidden_size": 64}


def options(bits=8, begin=0, **more):
    return KVOptions(kv_bits=bits, kv_group_size=32, quantized_kv_start=begin, **more)


@pytest.fixture(scope="module")
def model():
    return small_model(**WIDE)


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("bits", [8, 4])
def test_the_layout_is_that_of_mlx_lm(bits):
    theirs, ours = QuantizedKVCache(32, bits), LayerCache(options(bits))
    ours.extend(normal(1, 2, 3, 64), normal(1, 2, 3, 64, seed=1))
    theirs.update_and_fetch(normal(1, 2, 3, 64), normal(1, 2, 3, 64, seed=1))
    for count in (1, 300):
        new = normal(1, 2, count, 64), normal(1, 2, count, 64, seed=2)
        wanted = theirs.update_and_fetch(*new)
        ours.extend(*new)
        arrays = [x for kind in wanted for x in kind]
        for mine, their in zip(ours.piece(0, ours.offset), arrays, strict=True):
            assert mine.dtype == their.dtype and (np.array(mine) == np.array(their)).all()


def test_entries_are_quantised_from_the_start_that_is_said(model):
    session = start(model, small_prompt(12), kv=options(8, 15))
    packed = []
    for token in range(6):
        session.extend()
        session.append(token)
        packed.append(session.cache[0].packing is not None)
    assert packed == [False] * 4 + [True] * 2
    assert isinstance(session.cache.entries()[0], Held)
    session.rewind(6)
    session.cache.trim(100)
    session.extend()
    assert session.cache[0].packing is None


@pytest.mark.parametrize(("bits", "share"), [(8, 0.32), (4, 0.20)])
def test_a_quantised_cache_takes_its_share_of_the_memory(model, bits, share):
    """Of float32 entries: the bits, and two float32 numbers for each 32."""
    whole, small = (start(model, small_prompt(300, 4, 40), kv=kv) for kv in (KVOptions(), options(bits)))
    for session in (whole, small):
        session.extend()
        session.cache.pack()
    assert small.cache.nbytes < share * whole.cache.nbytes


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.04), (4, 0.5)])
def test_all_methods_read_and_write_a_quantised_cache(model, spec, bits, tolerance):
    """The values that they read are near those of the whole cache, for one token whose past is quantised."""
    results = []
    for kv in (KVOptions(), options(bits)):
        session, method = start(model, small_prompt(30, 4, 20), kv=kv), parse_method(spec).prepare(model)
        for token in (3, 9, 12):
            method.step(session)
            session.append(token)
        forward = method.step(session)
        results.append((np.array(forward.logits), forward.relevance))
    (logits, relevance), (ours, our_relevance) = results
    tolerance *= 3 if spec.startswith("only") else 1  # which leaves heads out by a rank
    assert 0 < distance(ours, logits) < tolerance or spec.startswith("lime:mode=exact")
    if relevance is not None:
        assert distance(our_relevance, relevance) < 10 * tolerance


@pytest.mark.parametrize("spec", SPECS[:3])
def test_a_forward_under_no_deltas_is_the_plain_one(model, spec):
    """Overlays round the newest entry as the cache does: what LIME compares differs by its deltas alone."""
    session = start(model, small_prompt(30, 4, 20), kv=options(4))
    session.extend()
    session.append(3)
    plain, likely = session.extend(), session.likely()
    assert likely == int(mx.argmax(plain))
    assert distance(session.relevance().logits, plain) < 2e-6


def test_relevance_is_that_of_entries_that_are_what_the_cache_reads(model):
    """The same as with a whole cache that holds the dequantised values."""
    session = start(model, small_prompt(30, 4, 20), kv=options(4))
    session.extend()
    session.append(3)
    relevance = np.array(session.relevance_of([5, 9]))
    whole = start(model, small_prompt(30, 4, 20))
    whole.cache.append([tuple(entries) for entries in session.before_newest()])
    whole.append(3)
    assert distance(relevance, whole.relevance_of([5, 9])) < 0.02  # the newest entry itself is not rounded there


@pytest.mark.parametrize("bits", [8, 4])
def test_attention_is_that_of_the_dequantised_entries(bits):
    layer, packing = LayerCache(options(bits)), Packing(bits, 32)
    q, k, v = normal(1, 4, 1, 32), normal(1, 2, 1, 32, seed=1), normal(1, 2, 1, 32, seed=2)
    past = normal(1, 2, 9, 32, seed=3), normal(1, 2, 9, 32, seed=4)
    layer.extend(*past)
    out = layer.attention(q, k, v, 0.2, None, PLAIN)
    keys, values = (
        mx.concatenate([packing.rounded(old), packing.rounded(new)], axis=2)
        for old, new in zip(past, (k, v), strict=True)
    )
    assert distance(out, mx.fast.scaled_dot_product_attention(q, keys, values, scale=0.2)) < 1e-6


def test_kept_chunks_are_quantised_alike(model):
    """Chunks of before and of after the start: the logits are those of a run alone, to the last bit."""
    prefixes, ids = Prefixes(model), np.random.default_rng(0).integers(0, 64, 60)
    kv = options(8, 20, prefill_step_size=8)
    prefixes.open(Prompt(ids), kv=kv)
    for length in (10, 17, 30, 50):
        other = Prompt(np.append(ids[:length], [1, 2, 3]))
        session = prefixes.open(other, kv=kv)
        assert session.reused == length // 8 * 8
        assert (np.array(session.extend()) == np.array(start(model, other, kv=kv).extend())).all()
    assert prefixes.open(Prompt(ids)).reused == 0  # those of other options are others


def test_windows_and_limits_hold_for_quantised_entries():
    model = small_model(**WIDE, sliding_window=12, use_sliding_window=True, max_window_layers=1)
    for kv in (options(8, 0, prefill_step_size=16), options(8, 0, prefill_step_size=16, max_kv_size=40)):
        tokens = [step.token for step in decode(model, small_prompt(40, 4, 20), "none", 12, kv=kv)]
        assert len(tokens) == 12


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kv_bits": 5}, "--kv-bits is 5; give 8 or 4"),
        ({"kv_group_size": 48}, "--kv-group-size is 48; give 32, 64 or 128"),
        ({"quantized_kv_start": -1}, "--quantized-kv-start is -1; give 0 or more"),
        ({"max_kv_size": 0}, "--max-kv-size is 0; give 1 or more"),
        ({"prefill_step_size": 0}, "--prefill-step-size is 0; give 1 or more"),
    ],
)
def test_values_that_cannot_be_are_refused(values, message):
    with pytest.raises(PromptError, match=message):
        KVOptions(**values)


def test_groups_that_do_not_divide_the_heads_are_refused_with_one_that_does(model):
    with pytest.raises(PromptError, match="64 does not divide the 32 numbers of a head .*: give --kv-group-size 32"):
        start(model, small_prompt(), kv=KVOptions(kv_bits=4))
    with pytest.raises(PromptError, match="leave --kv-bits out"):
        start(small_model(head_dim=16), small_prompt(), kv=KVOptions(kv_bits=4, kv_group_size=32))
