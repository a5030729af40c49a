"""Every rule against its closed formula, with first and second derivatives.

A rule's constants are those of the point where the gradient is taken. So a rule must have the first and second
derivatives, at that point, of an ordinary function in which they are frozen; here they are written in NumPy and
differentiated by finite differences, in double precision.
"""

import math

import mlx.core as mx
import numpy as np
import pytest
from helpers import distance, small_model, small_prompt

from lime_mlx.attention import masked_scores, softmax
from lime_mlx.errors import MethodError
from lime_mlx.lrp.rules import ATTN_LRP, CP_LRP, GRADIENT, MLP_LRP, PLAIN, RATIOS, divide, rules

EPS = 1e-3
RULES = {"attnlrp": ATTN_LRP, "cplrp": CP_LRP, "mlplrp": MLP_LRP, "plain": GRADIENT}
ALL = {**RULES, "fused": PLAIN}
SCALE = 0.4

erf = np.vectorize(math.erf)
KINDS = {
    "silu": lambda z: 1 / (1 + np.exp(-z)),
    "gelu": lambda z: (1 + erf(z / math.sqrt(2))) / 2,
    "gelu_pytorch_tanh": lambda z: (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2,
    "quick_gelu": lambda z: 1 / (1 + np.exp(-1.702 * z)),
    "relu": lambda z: (z > 0) * 1.0,
}


@pytest.fixture(autouse=True)
def double_precision():
    """MLX computes in float64 on the CPU only; its exp and erf are good to 1e-7 there."""
    with mx.stream(mx.cpu):
        yield


def draw(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def double(*arrays):
    return [mx.array(x, dtype=mx.float64) for x in arrays]


def score(y, c):
    """A scalar with curvature of its own, so that second derivatives also pass through the value of `y`."""
    return (c * y + 0.3 * y * y).sum()


def derivatives(function, inputs, directions, c):
    """Gradient of `score(function)`, and its Hessian times `directions`, by MLX."""
    c, *directions = double(c, *directions)
    gradient = mx.grad(lambda xs: score(function(*xs), c))

    def along(xs):
        return sum((g * d).sum() for g, d in zip(gradient(xs), directions, strict=True))

    inputs = double(*inputs)
    return [np.array(x) for x in gradient(inputs)], [np.array(x) for x in mx.grad(along)(inputs)]


def differences(function, inputs, directions, c, small=1e-4):
    """The same by finite differences of a NumPy function."""
    value = lambda steps: score(function(*(x + s for x, s in zip(inputs, steps, strict=True))), c)  # noqa: E731
    first, second = [], []
    for index, x in enumerate(inputs):
        first.append(np.zeros_like(x))
        second.append(np.zeros_like(x))
        for place in np.ndindex(x.shape):
            unit = [np.zeros_like(y) for y in inputs]
            unit[index][place] = small
            v = [small * d for d in directions]
            at = lambda a, b: value([a * u + b * w for u, w in zip(unit, v, strict=True)])  # noqa: B023, E731
            first[-1][place] = (at(1, 0) - at(-1, 0)) / (2 * small)
            second[-1][place] = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / (4 * small**2)
    return first, second


def check(function, frozen, inputs, tolerance=1e-6):
    """`function` in MLX has the value and the derivatives of `frozen` in NumPy."""
    y = frozen(*inputs)
    c, *directions = draw(y.shape, *(x.shape for x in inputs), seed=1)
    np.testing.assert_allclose(np.array(function(*double(*inputs))), y, rtol=tolerance, atol=tolerance)
    ours = derivatives(function, inputs, directions, c)
    wanted = differences(frozen, inputs, directions, c)
    for order, allowed in ((0, tolerance), (1, 10 * tolerance)):
        for a, b in zip(ours[order], wanted[order], strict=True):
            np.testing.assert_allclose(a, b, rtol=allowed, atol=allowed * max(1, np.abs(b).max()))


def rms(x):
    return 1 / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)


def deviation(x):
    return 1 / np.sqrt(x.var(-1, keepdims=True) + EPS)


def centred(x):
    return x - x.mean(-1, keepdims=True)


def attended(q, k, v, mask):
    """Softmax attention of grouped queries, (B, H, L, d)."""
    groups = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, groups, axis=1), np.repeat(v, groups, axis=1)
    scores = np.where(mask, SCALE * q @ k.swapaxes(-1, -2), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def blend(x0, x, share):
    """`x0` in value, of which only `share` moves with x."""
    return (1 - share) * x0 + share * x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RULES)
def test_activation(name, kind):
    (z0,) = draw((3, 4))
    ratio = KINDS[kind]
    frozen = (lambda z: z * ratio(z)) if name == "plain" else (lambda z: z * ratio(z0))
    check(lambda z: RULES[name].activation(z, kind), frozen, [z0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["attnlrp", "cplrp"])
def test_activation_gradient_is_the_ratio_and_constant(name, kind):
    (z,) = double(np.array([-30, -2.5, -1e-10, 0, 1e-10, 0.7, 30]))
    slope = mx.grad(lambda z: RULES[name].activation(z, kind).sum())
    np.testing.assert_allclose(np.array(slope(z)), KINDS[kind](np.array(z)), rtol=1e-6, atol=1e-7)
    assert not np.array(mx.grad(lambda z: slope(z).sum())(z)).any()


def test_activation_spellings():
    assert RATIOS["swish"] is RATIOS["silu"]
    assert RATIOS["gelu_new"] is RATIOS["gelu_fast"] is RATIOS["gelu_pytorch_tanh"]
    assert set(RATIOS) == {*KINDS, "swish", "gelu_new", "gelu_fast"}


@pytest.mark.parametrize("name", RULES)
def test_rms_norm(name):
    x0, w = draw((2, 5), (5,))
    size = (lambda x: rms(x)) if name == "plain" else (lambda x: rms(x0))
    check(lambda x, w: RULES[name].rms_norm(x, w, EPS), lambda x, w: x * size(x) * w, [x0, w])


@pytest.mark.parametrize("name", RULES)
def test_layer_norm(name):
    x0, w, b = draw((2, 5), (5,), (5,))
    size = (lambda x: deviation(x)) if name == "plain" else (lambda x: deviation(x0))
    frozen = lambda x, w, b: centred(x) * size(x) * w + b  # noqa: E731
    check(lambda x, w, b: RULES[name].layer_norm(x, w, b, EPS), frozen, [x0, w, b])


@pytest.mark.parametrize("name", ["attnlrp", "cplrp"])
def test_norms_are_linear_to_the_second_derivative(name):
    x, w, b, c = double(*draw((2, 5), (5,), (5,), (2, 5)))
    wanted = np.array(c * w) * rms(np.array(x))
    slope = mx.grad(lambda x: (c * RULES[name].rms_norm(x, w, EPS)).sum())
    np.testing.assert_allclose(np.array(slope(x)), wanted, rtol=1e-12)
    assert not np.array(mx.grad(lambda x: slope(x).square().sum())(x)).any()
    wanted = centred(np.array(c * w) * deviation(np.array(x)))
    slope = mx.grad(lambda x: (c * RULES[name].layer_norm(x, w, b, EPS)).sum())
    np.testing.assert_allclose(np.array(slope(x)), wanted, rtol=1e-12, atol=1e-14)
    assert not np.array(mx.grad(lambda x: slope(x).square().sum())(x)).any()


FROZEN_GATES = {
    "attnlrp": lambda a0, u0: lambda a, u: blend(a0 * u0, a * u, 1 / 2),
    "cplrp": lambda a0, u0: lambda a, u: a0 * u,
    "mlplrp": lambda a0, u0: lambda a, u: blend(a0 * u0, a * u, 1 / 2),
    "plain": lambda a0, u0: lambda a, u: a * u,
}


@pytest.mark.parametrize("name", RULES)
def test_gate(name):
    a, u = draw((3, 4), (3, 4))
    check(RULES[name].gate, FROZEN_GATES[name](a, u), [a, u])


def test_attnlrp_gate_halves_the_product_rule():
    a, u, c, d = double(*draw((3, 4), (3, 4), (3, 4), (3, 4)))
    slopes = mx.grad(lambda a, u: (c * ATTN_LRP.gate(a, u)).sum(), argnums=[0, 1])
    for ours, wanted in zip(slopes(a, u), (c * u / 2, c * a / 2), strict=True):
        np.testing.assert_allclose(np.array(ours), np.array(wanted), rtol=1e-12)
    mixed = mx.grad(lambda u: (d * slopes(a, u)[0]).sum())(u)
    np.testing.assert_allclose(np.array(mixed), np.array(c * d / 2), rtol=1e-12)
    assert not np.array(mx.grad(lambda a: (d * slopes(a, u)[0]).sum())(a)).any()


SHARES = {"attnlrp": (1 / 4, 1 / 4, 1 / 2), "cplrp": (0, 0, 1), "mlplrp": (1, 1, 1), "plain": (1, 1, 1)}
CAUSAL = np.tril(np.ones((3, 5), dtype=bool), 2)


def heads():
    """Three queries of four heads to five positions of two heads."""
    return draw((1, 4, 3, 2), (1, 2, 5, 2), (1, 2, 5, 3))


def attention(name):
    rule = ALL[name]
    return lambda q, k, v: rule.attention(*rule.operands(q, k, v), SCALE, mx.array(CAUSAL))


@pytest.mark.parametrize("name", RULES)
def test_attention(name):
    start = heads()

    def frozen(*qkv):
        return attended(*map(blend, start, qkv, SHARES[name]), CAUSAL)

    check(attention(name), frozen, start, tolerance=2e-6)


@pytest.mark.parametrize("name", ["attnlrp", "cplrp"])
def test_attention_blocks_of_the_hessian_are_divided(name):
    """The softmax keeps its second-order term: each block is the plain one times the shares of its two operands."""
    start = double(*heads())
    c, *directions = double(*draw((1, 4, 3, 3), *(x.shape for x in start), seed=2))

    def blocks(name, row):
        slope = mx.grad(lambda *xs: (c * attention(name)(*xs)).sum(), argnums=row)
        along = lambda *xs: (slope(*xs) * directions[row]).sum()  # noqa: E731
        return [np.array(x) for x in (slope(*start), *mx.grad(along, argnums=[0, 1, 2])(*start))]

    for row, share in enumerate(SHARES[name]):
        factors = (share, *(share * other for other in SHARES[name]))
        for ours, plain, factor in zip(blocks(name, row), blocks("plain", row), factors, strict=True):
            np.testing.assert_allclose(ours, factor * plain, rtol=1e-10, atol=1e-14)
    assert np.abs(blocks("plain", 0)[1]).max() > 1e-3


def test_shares_are_what_operands_divide_by():
    for rule, (_, k, v) in zip(RULES.values(), SHARES.values(), strict=True):
        assert (rule.key_share, rule.value_share) == (k, v)


def test_attention_weights_are_one_distribution_per_query():
    q, k, _ = double(*heads())
    weights = np.array(softmax(masked_scores(q, k, SCALE, mx.array(CAUSAL))))
    assert weights.shape == (1, 2, 2, 3, 5)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    assert not weights[..., ~CAUSAL].any()


@pytest.mark.parametrize("name", RULES)
def test_tangents_agree_with_gradients(name):
    """<c, J v> = <J'c, v> for every operation: exact LIME sends a tangent forward through the same rules."""
    rule = RULES[name]
    operations = [
        (lambda z: rule.activation(z, "silu"), [(3, 4)]),
        (lambda x, w: rule.rms_norm(x, w, EPS), [(3, 4), (4,)]),
        (lambda x, w, b: rule.layer_norm(x, w, b, EPS), [(3, 4), (4,), (4,)]),
        (rule.gate, [(3, 4), (3, 4)]),
        (attention(name), [x.shape for x in heads()]),
    ]
    for operation, shapes in operations:
        primals, tangents = double(*draw(*shapes)), double(*draw(*shapes, seed=3))
        (out,), (forward,) = mx.jvp(lambda *xs, f=operation: f(*xs), primals, tangents)
        (c,) = double(*draw(out.shape, seed=4))
        _, back = mx.vjp(lambda *xs, f=operation: f(*xs), primals, [c])
        backward = sum((g * t).sum() for g, t in zip(back, tangents, strict=True))
        assert (c * forward).sum().item() == pytest.approx(backward.item(), rel=1e-12)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
@pytest.mark.parametrize("by", [2, 3, 4])
def test_divide_keeps_the_value_to_the_last_bit(dtype, by):
    x = mx.array(np.random.default_rng(0).uniform(-6, 6, 1000) * 10.0 ** (np.arange(1000) % 5)).astype(dtype)
    assert mx.array_equal(divide(x, by), x)
    assert mx.array_equal(mx.grad(lambda x: divide(x, by).sum())(x), mx.full(x.shape, 1 / by, dtype))
    assert not mx.grad(lambda x: mx.grad(lambda y: divide(y, by).sum())(x).sum())(x).any()


@pytest.mark.parametrize("name", ALL)
def test_forward_values_are_equal(name):
    rule = ALL[name]
    single = lambda *shapes: [mx.array(x.astype(np.float32)) for x in draw(*shapes)]  # noqa: E731
    x, w, b = single((7, 64), (64,), (64,))
    q, k, v = single((1, 4, 3, 32), (1, 2, 5, 32), (1, 2, 5, 32))
    operations = [
        lambda r: r.rms_norm(x, w, 1e-6),
        lambda r: r.layer_norm(x, w, b, 1e-5),
        lambda r: r.gate(r.activation(x, "silu"), b),
        *(lambda r, kind=kind: r.activation(x, kind) for kind in RATIOS),
        lambda r: r.attention(*r.operands(q, k, v), 0.2, mx.array(CAUSAL)),
        lambda r: r.attention(*r.operands(q, k, v), 0.2, None),
    ]
    for operation in operations:
        np.testing.assert_allclose(np.array(operation(rule)), np.array(operation(GRADIENT)), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ALL)
def test_a_whole_model_computes_the_same_under_every_rule_set(name):
    model, prompt = small_model(), small_prompt()
    assert distance(model.logits(prompt, ALL[name]), model.logits(prompt)) < 2e-6


def test_rules_by_name():
    assert [rules(name) for name in RULES] == list(RULES.values())
    assert [rule.name for rule in RULES.values()] == list(RULES)
    with pytest.raises(MethodError, match="Unknown rules 'lrp'; choose one of attnlrp, cplrp, mlplrp, plain."):
        rules("lrp")
