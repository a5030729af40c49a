import itertools

import mlx.core as mx
import numpy as np
import pytest
from helpers import distance, small_model, small_prompt

from lime_mlx.cache import CHUNK, KVCache, LayerCache, Overlay, overlays
from lime_mlx.lrp.rules import ATTN_LRP, CP_LRP, GRADIENT, PLAIN

LAYERS, HEADS, GROUPS, DIM = 2, 2, 3, 4
SCALE = 0.4


def normal(*shape, seed=0):
    return mx.array(np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32))


def entries(length, seed=0, dim=DIM):
    return normal(1, HEADS, length, dim, seed=seed), normal(1, HEADS, length, dim, seed=seed + 1)


def layered(length, seed=0):
    return [entries(length, seed + 10 * layer) for layer in range(LAYERS)]


def same(ours, wanted):
    for a, b in zip(ours, wanted, strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


def test_empty():
    cache = KVCache(LAYERS)
    assert (len(cache), cache.offset, cache.nbytes, cache.arrays()) == (LAYERS, 0, 0, [])
    assert cache.entries() == [None] * LAYERS


def test_append_and_read():
    cache = KVCache(LAYERS)
    cache.append(layered(3))
    before = cache.entries()
    cache.append(layered(1, seed=5))
    assert cache.offset == cache[1].offset == 4
    for layer, (first, second, old) in enumerate(zip(layered(3), layered(1, seed=5), before, strict=True)):
        same(cache.entries()[layer], (mx.concatenate(pair, axis=2) for pair in zip(first, second, strict=True)))
        same(old, first)


def test_append_wants_every_layer():
    with pytest.raises(ValueError, match="zip"):
        KVCache(LAYERS).append(layered(1)[:1])


def test_extend_returns_all_entries():
    layer = LayerCache()
    same(layer.extend(*entries(2)), entries(2))
    everything = layer.extend(*entries(3, seed=7))
    same(everything, layer.entries())
    assert everything[0].shape == (1, HEADS, 5, DIM)


def test_keys_and_values_may_differ_in_width_and_type():
    layer = LayerCache()
    k, v = normal(1, HEADS, 2, DIM).astype(mx.bfloat16), normal(1, HEADS, 2, 7).astype(mx.bfloat16)
    layer.extend(k, v)
    assert [x.shape for x in layer.entries()] == [k.shape, v.shape]
    assert {x.dtype for x in layer.entries()} == {mx.bfloat16}


@pytest.mark.parametrize("sizes", [(CHUNK - 1, 1, 1), (CHUNK, 1), (CHUNK + 1, CHUNK - 1, 1), (3 * CHUNK + 5, 2)])
def test_buffers_grow_by_chunks(sizes):
    layer, pieces = LayerCache(), []
    for seed, size in enumerate(sizes):
        pieces.append(entries(size, seed))
        layer.extend(*pieces[-1])
        room = -(-layer.offset // CHUNK) * CHUNK
        assert [buffer.shape for buffer in layer.buffers] == [(1, HEADS, room, DIM)] * 2
    same(layer.entries(), (mx.concatenate(kind, axis=2) for kind in zip(*pieces, strict=True)))


def test_nbytes_counts_the_buffers():
    cache = KVCache(LAYERS)
    cache.append(layered(1))
    chunk = LAYERS * 2 * HEADS * CHUNK * DIM * 4
    assert cache.nbytes == chunk
    cache.append(layered(CHUNK - 1))
    assert cache.nbytes == chunk
    cache.append(layered(1))
    assert cache.nbytes == sum(x.nbytes for x in cache.arrays()) == 2 * chunk


def test_overwrite_changes_one_position():
    cache, new = KVCache(LAYERS), layered(1, seed=3)
    cache.append(layered(5))
    before = cache.entries()
    cache.overwrite(2, [new[0], (None, new[1][1])])
    (k0, v0), (k1, v1) = cache.entries()
    same([k1], [before[1][0]])
    for ours, (layer, kind) in ((k0, (0, 0)), (v0, (0, 1)), (v1, (1, 1))):
        old = before[layer][kind]
        same([ours[:, :, 2:3], ours[:, :, :2], ours[:, :, 3:]], [new[layer][kind], old[:, :, :2], old[:, :, 3:]])
    assert cache.offset == 5


@pytest.mark.parametrize("position", [-1, 5, CHUNK - 1])
def test_overwrite_refuses_a_position_that_is_not_cached(position):
    layer = LayerCache()
    layer.extend(*entries(5))
    with pytest.raises(IndexError, match=f"position {position} is outside the 5 cached ones"):
        layer.overwrite(position, *entries(1))


def test_trim_forgets_the_newest():
    cache = KVCache(LAYERS)
    cache.append(layered(5))
    held = cache.nbytes
    cache.trim(2)
    assert (cache.offset, cache.nbytes) == (3, held)
    cache.append(layered(1, seed=9))
    for layer, (old, new) in enumerate(zip(layered(5), layered(1, seed=9), strict=True)):
        same(cache.entries()[layer], (mx.concatenate([a[:, :, :3], b], axis=2) for a, b in zip(old, new, strict=True)))
    cache.trim(100)
    assert cache.offset == 0
    assert cache.entries() == [None] * LAYERS


def reference(q, k, v, delta=(None, None), mask=None):
    """Attention in double precision with every head's entries written out, deltas added to them."""
    heads = q.shape[1]
    q, k, v = (np.array(x, dtype=np.float64) for x in (q, k, v))
    k, v = (
        np.repeat(x, heads // x.shape[1], axis=1)
        + (0 if d is None else np.repeat(np.array(d, dtype=np.float64), heads // d.shape[1], axis=1))
        for x, d in zip((k, v), delta, strict=True)
    )
    scores = SCALE * q @ k.swapaxes(-1, -2)
    if mask is not None:
        scores = np.where(np.array(mask), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def causal(length, past):
    return None if length == 1 else mx.arange(past, past + length)[:, None] >= mx.arange(past + length)[None]


def case(past, length):
    q = normal(1, HEADS * GROUPS, length, DIM, seed=20)
    old = entries(past, seed=30) if past else None
    new = entries(length, seed=40)
    everything = new if old is None else tuple(mx.concatenate(pair, axis=2) for pair in zip(old, new, strict=True))
    return q, old, new, everything


def deltas(which, heads, length):
    return tuple(
        0.5 * normal(1, heads, length, DIM, seed=50 + i) if letter in which else None for i, letter in enumerate("kv")
    )


@pytest.mark.parametrize("which", ["", "k", "v", "kv"])
@pytest.mark.parametrize("heads", [HEADS, HEADS * GROUPS])
@pytest.mark.parametrize(("past", "length"), [(0, 1), (0, 4), (5, 1), (5, 3)])
def test_overlay_adds_deltas_to_all_entries(past, length, heads, which):
    q, old, new, everything = case(past, length)
    delta, mask = deltas(which, heads, past + length), causal(length, past)
    layer = Overlay(old, delta)
    out = layer.attention(q, *new, SCALE, mask, GRADIENT)
    np.testing.assert_allclose(np.array(out), reference(q, *everything, delta, mask), rtol=1e-5, atol=1e-6)
    same(layer.fresh, new)


def test_overlay_with_gates_of_zero_changes_nothing():
    q, old, new, everything = case(5, 3)
    gates = [mx.zeros((5,)), mx.zeros((5,))]
    delta, mask = deltas("kv", HEADS, 8), causal(3, 5)
    out = Overlay(old, delta, gates).attention(q, *new, SCALE, mask, GRADIENT)
    np.testing.assert_allclose(np.array(out), reference(q, *everything, delta, mask), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("which", ["", "kv"])
def test_slope_of_a_gate_is_entry_times_gradient(which):
    q, old, new, _ = case(5, 3)
    delta, mask = deltas(which, HEADS * GROUPS, 8), causal(3, 5)
    c = normal(1, HEADS * GROUPS, 3, DIM, seed=60)

    def gated(gates):
        return (c * Overlay(old, delta, gates).attention(q, *new, SCALE, mask, GRADIENT)).sum()

    def scaled(past):
        return (c * Overlay(past, delta).attention(q, *new, SCALE, mask, GRADIENT)).sum()

    slopes = mx.grad(gated)([mx.zeros((5,)), mx.zeros((5,))])
    for slope, entry, gradient in zip(slopes, old, mx.grad(scaled)(list(old)), strict=True):
        np.testing.assert_allclose(np.array(slope), np.array((entry * gradient).sum((0, 1, 3))), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("heads", [HEADS, HEADS * GROUPS])
@pytest.mark.parametrize("past", [0, 5])
@pytest.mark.parametrize("rule", [ATTN_LRP, CP_LRP], ids=lambda rule: rule.name)
def test_deltas_stand_behind_the_rule(rule, past, heads):
    """Their own gradient is the plain one: the rule divides what reaches the entries under them."""
    q, old, new, _ = case(past, 3)
    mask, c = causal(3, past), normal(1, HEADS * GROUPS, 3, DIM, seed=60)

    def loss(delta, k, v, rule):
        return (c * Overlay(old, delta).attention(*rule.operands(q, k, v), SCALE, mask, rule)).sum()

    start = list(deltas("kv", heads, past + 3))
    gradients = {r: mx.grad(loss, argnums=[0, 1, 2])(start, *new, r) for r in (rule, GRADIENT)}
    for ours, plain in zip(gradients[rule][0], gradients[GRADIENT][0], strict=True):
        np.testing.assert_allclose(np.array(ours), np.array(plain), rtol=1e-5, atol=1e-6)
    shares = rule.key_share, rule.value_share
    for ours, plain, share in zip(gradients[rule][1:], gradients[GRADIENT][1:], shares, strict=True):
        np.testing.assert_allclose(np.array(ours), share * np.array(plain), rtol=1e-5, atol=1e-6)


def test_query_head_deltas_that_agree_are_key_head_deltas():
    q, old, new, _ = case(5, 3)
    shared = deltas("kv", HEADS, 8)
    repeated = tuple(mx.repeat(x, GROUPS, axis=1) for x in shared)
    for past, length in itertools.product((None, old), (3,)):
        first, second = (
            Overlay(past, [x[:, :, -(8 if past else length) :] for x in delta]).attention(
                q, *new, SCALE, causal(length, 5 if past else 0), GRADIENT
            )
            for delta in (shared, repeated)
        )
        np.testing.assert_allclose(np.array(first), np.array(second), rtol=1e-5, atol=1e-6)


def test_overlays_are_one_per_layer_and_share_gates():
    gates = [mx.zeros((5,)), mx.zeros((5,))]
    memory = overlays([entries(5), None], None, gates)
    assert [layer.delta for layer in memory] == [(None, None)] * 2
    assert all(layer.gates is gates for layer in memory)
    with pytest.raises(ValueError, match="zip"):
        overlays([None, None], [(None, None)])


@pytest.mark.parametrize("rule", [PLAIN, GRADIENT, ATTN_LRP], ids=["fused", "plain", "attnlrp"])
@pytest.mark.parametrize("pieces", [(12,), (1,) * 12, (5, 1, 1, 4, 1), (7, 5)], ids=str)
def test_cached_decoding_equals_the_whole_forward(pieces, rule):
    model, prompt = small_model(), small_prompt(12)
    decoder, embeds = model.language_model, model.embed(prompt)
    cache, out = KVCache(len(decoder.layers)), []
    for size in pieces:
        start = cache.offset
        out.append(decoder(embeds[:, start : start + size], cache, start, rule))
    assert cache.offset == 12
    assert distance(decoder.head(mx.concatenate(out, axis=1))[0], model.logits(prompt)) < 2e-6


def test_decoding_against_overlays_keeps_the_cache_as_it_is():
    model, prompt = small_model(), small_prompt(12)
    decoder, embeds = model.language_model, model.embed(prompt)
    cache = KVCache(len(decoder.layers))
    decoder(embeds[:, :11], cache)
    before, memory = cache.entries(), overlays(cache.entries())
    hidden = decoder(embeds[:, 11:], memory, 11)
    assert distance(decoder.head(hidden)[0, -1], model.logits(prompt)[-1]) < 2e-6
    assert cache.offset == 11
    for old, now in zip(before, cache.entries(), strict=True):
        same(now, old)
    cache.append([layer.fresh for layer in memory])
    whole = KVCache(len(decoder.layers))
    decoder(embeds, whole)
    for ours, wanted in zip(cache.entries(), whole.entries(), strict=True):
        for a, b in zip(ours, wanted, strict=True):
            assert distance(a, b) < 2e-6
