"""Attention of grouped queries, step by step: scores, mask, softmax, values. G queries share each of K key heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import mlx.core as mx

# From more queries than this on, attention that is differentiated once goes in blocks of so many.
QUERIES = 128


class AttentionRule(Protocol):
    """How attention treats the gradient: the part of a rule set that a memory needs."""

    def attention(self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None) -> mx.array:
        """(B, H, L, d) from queries (B, H, L, d) and keys, values (B, K, T, d)."""


class Memory(Protocol):
    """What one layer of the decoder attends to: it takes the new positions in, in its own way."""

    def attention(
        self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None, rules: AttentionRule
    ) -> mx.array:
        """(B, H, L, d) for new queries (B, H, L, d), keys and values (B, K, L, d)."""


def group_queries(q: mx.array, key_heads: int, scale: float) -> mx.array:
    """Scaled queries (B, K, G, L, d) of queries (B, H, L, d)."""
    batch, _, length, dim = q.shape
    return (q * scale).reshape(batch, key_heads, -1, length, dim)


def score(grouped: mx.array, k: mx.array) -> mx.array:
    """Scores (B, K, G, L, T) of grouped queries (B, K, G, L, d) and keys (B, K, T, d)."""
    return grouped @ k[:, :, None].swapaxes(-1, -2)


def hide(scores: mx.array, mask: mx.array | None) -> mx.array:
    """Scores with those that the boolean mask leaves out at the least number of their type."""
    return scores if mask is None else mx.where(mask, scores, mx.finfo(scores.dtype).min)


def softmax(scores: mx.array) -> mx.array:
    """Attention weights of masked scores."""
    return mx.softmax(scores, axis=-1, precise=True)


def masked_scores(q: mx.array, k: mx.array, scale: float, mask: mx.array | None) -> mx.array:
    """Scores (B, K, G, L, T) of queries (B, H, L, d) and keys (B, K, T, d), masked."""
    return hide(score(group_queries(q, k.shape[1], scale), k), mask)


def attend(weights: mx.array, v: mx.array) -> mx.array:
    """(B, H, L, d) from weights (B, K, G, L, T) and values (B, K, T, d)."""
    batch, key_heads, groups, length, _ = weights.shape
    return (weights @ v[:, :, None]).reshape(batch, key_heads * groups, length, v.shape[-1])


def weighted(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None) -> mx.array:
    """Attention (B, H, L, d) from queries (B, H, L, d) and keys, values (B, K, T, d), with plain gradients."""
    return attend(softmax(masked_scores(q, k, scale, mask)), v)


def in_blocks(
    q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None, stages: list[mx.array]
) -> mx.array:
    """`weighted`, one block of `QUERIES` queries after the other, forward and back: nothing holds the weights (L, T).

    stages: gets what is to be computed first, in this order. What is returned has a gradient, and no second one.
    """
    blocks = [slice(start, start + QUERIES) for start in range(0, q.shape[2], QUERIES)]

    def block(rows: slice) -> Callable[[mx.array, mx.array, mx.array], mx.array]:
        hidden = None if mask is None else mask[..., rows, :]
        return lambda q, k, v: weighted(q, k, v, scale, hidden)

    @mx.custom_function
    def run(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        parts = [block(rows)(q[:, :, rows], k, v) for rows in blocks]
        stages.extend(parts)
        return mx.concatenate(parts, axis=2)

    @run.vjp
    def back(
        primals: tuple[mx.array, mx.array, mx.array], arriving: mx.array, __: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        q, k, v = primals
        parts: list[mx.array] = []
        at_k, at_v = mx.zeros_like(k), mx.zeros_like(v)
        for rows in blocks:
            _, (part, more_k, more_v) = mx.vjp(block(rows), [q[:, :, rows], k, v], [arriving[:, :, rows]])
            parts.append(part)
            at_k, at_v = at_k + more_k, at_v + more_v
            stages.extend([part, at_k, at_v])
        return mx.concatenate(parts, axis=2), at_k, at_v

    return cast(mx.array, run(q, k, v))
