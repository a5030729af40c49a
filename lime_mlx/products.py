"""Products with a layer's weights: plain or quantised, forward and back, without a copy of the weights that stays.

Rows in a wider type than the weights (float32 and bfloat16) need the weights in their own type. Such a copy is made for
one product, of one piece of the weights after the other, and no gradient keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn

from lime_mlx.backend import is_cpu

# From this many rows on, the CPU is faster when it unpacks a quantised matrix first.
UNPACK_ROWS = 8
# Bytes of a copy of weights in a wider type: on the CPU for the memory, elsewhere for few kernels.
PIECE_CPU, PIECE = 1 << 21, 1 << 26


def product(layer: nn.Module, x: mx.array, wait: bool = False) -> mx.array:
    """(..., O) of rows (..., I): x @ weight.T, and the bias if there is one; for linear and embedding layers.

    wait: a copy of weights is gone when this returns; then the product is not to be differentiated.
    """
    if "scales" not in layer and x.dtype == layer.weight.dtype:
        y: mx.array = layer.as_linear(x) if isinstance(layer, nn.Embedding) else layer(x)
        return y
    if "scales" in layer:
        y = _quantised(layer, x)
    elif wait:
        y = _in_pieces(layer.weight, x, wait)
    else:
        y = mx.checkpoint(lambda free: _in_pieces(layer.weight, free))(x)
    return y + layer.bias if "bias" in layer else y


def slope(layer: nn.Module, x: mx.array) -> mx.array:
    """x @ weight.T for rows (..., I) of slopes: no bias, and one piece at a time; not to be differentiated."""
    if "scales" in layer:
        return _quantised(layer, x)
    if x.dtype == layer.weight.dtype:
        y: mx.array = x @ layer.weight.T
        return y
    return _in_pieces(layer.weight, x, wait=True)


def turned(layer: nn.Module, y: mx.array, stages: list[mx.array] | None = None) -> mx.array:
    """(..., I) of rows (..., O): y @ weight, by which gradients go back through `product`.

    stages: gets what should be computed first, in this order, so that one piece of a copy is gone before the next.
    """
    if "scales" in layer:
        return _quantised(layer, y, transpose=False)
    if y.dtype == layer.weight.dtype:
        x: mx.array = y @ layer.weight
        return x
    total = mx.zeros((*y.shape[:-1], layer.weight.shape[1]), y.dtype)
    for start, stop in _pieces(layer.weight, y.dtype):
        total = total + y[..., start:stop] @ layer.weight[start:stop].astype(y.dtype)
        if stages is not None:
            stages.append(total)
    return total


def rows(layer: nn.Module, ids: mx.array) -> mx.array:
    """The rows (N, I) of the weights with these numbers (N,), in float32."""
    weight = layer.weight[ids]
    if "scales" in layer:
        biases = layer.get("biases")
        weight = _unpack(layer, weight, layer.scales[ids], None if biases is None else biases[ids])
    wide: mx.array = weight.astype(mx.float32)
    return wide


def unpacked(layer: nn.Module, dtype: mx.Dtype) -> mx.array:
    """The dequantised weight (O, I) of a quantised linear or embedding layer."""
    return _unpack(layer, layer.weight, layer.scales, layer.get("biases")).astype(dtype)


def _unpack(layer: nn.Module, weight: mx.array, scales: mx.array, biases: mx.array | None) -> mx.array:
    return mx.dequantize(weight, scales, biases, group_size=layer.group_size, bits=layer.bits, mode=layer.mode)


def _quantised(layer: nn.Module, x: mx.array, transpose: bool = True) -> mx.array:
    if x.size >= UNPACK_ROWS * x.shape[-1] and (is_cpu() or isinstance(layer, nn.QuantizedEmbedding)):

        def unpacked_first(free: mx.array) -> mx.array:
            weight = unpacked(layer, free.dtype)
            return free @ (weight.T if transpose else weight)

        return mx.checkpoint(unpacked_first)(x)
    return mx.quantized_matmul(
        x,
        layer.weight,
        scales=layer.scales,
        biases=layer.get("biases"),
        transpose=transpose,
        group_size=layer.group_size,
        bits=layer.bits,
        mode=layer.mode,
    )


def _in_pieces(weight: mx.array, x: mx.array, wait: bool = False) -> mx.array:
    parts = []
    for start, stop in _pieces(weight, x.dtype):
        parts.append(x @ weight[start:stop].astype(x.dtype).T)
        if wait and is_cpu():
            mx.eval(parts[-1])
    return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=-1)


def piece_size() -> int:
    """Bytes of the largest copy of weights in a wider type that there is at one time."""
    return PIECE_CPU if is_cpu() else PIECE


def _pieces(weight: mx.array, dtype: mx.Dtype) -> Iterator[tuple[int, int]]:
    """Which rows of the weights make up each piece."""
    count = max(1, piece_size() // (weight.shape[1] * dtype.size))
    for start in range(0, weight.shape[0], count):
        yield start, min(start + count, weight.shape[0])
