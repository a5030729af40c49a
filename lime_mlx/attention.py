"""Attention of grouped queries, step by step: scores, mask, softmax, values. G queries share each of K key heads."""

from __future__ import annotations

from typing import Protocol

import mlx.core as mx


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
