"""Detectors of others that read the attention before a word, to compare with.

svar: the summed visual attention ratio of Jiang et al. 2024, arXiv 2411.16724: attention to the picture, mean over the
heads, sum over layers 5 to 18 of 32, here scaled to the model's depth. pas: the prelim attention score of Hoang-Xuan et
al. 2025, arXiv 2511.11502: attention in the first layer to what the answer has said, mean over the heads. dispersion:
after the attention dispersion score of Nguyen et al. 2026, arXiv 2604.04863. That paper groups the positions with the
most attention into connected blobs and combines the mass of the blobs with the entropy of the rest; how it does so is
our reading. entropy: that of the attention over the picture, as in D-LEAF's LIAE, arXiv 2509.07864.

A query is the newest position, whose output is the first token of the word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.prompt import Span
from lime_mlx.session import Session

Rows = NDArray[np.float32]
# Of 32 layers: where attention to the picture tells most, by the authors of svar.
MIDDLE = (5, 18)
# The share of the positions that counts as those with the most attention.
MOST = 0.1


@dataclass(frozen=True, eq=False)
class Step:
    """A plain forward of the newest position: logits (V,), and of all layers attention (L, H, T) and hidden (L, D)."""

    logits: Rows
    attention: Rows
    hidden: Rows


def observed(session: Session) -> Step:
    """The plain forward of the newest position. It leaves the position's entries in the cache, as `extend` does."""
    rows: dict[int, mx.array] = {}
    states: dict[int, mx.array] = {}
    layers = range(len(session.decoder.layers))
    session.prefill()
    before = session.hidden_observers
    session.hidden_observers = {**before, **{i: partial(states.__setitem__, i) for i in layers}}
    try:
        with session.observing({i: partial(rows.__setitem__, i) for i in layers}):
            logits = session.extend().astype(mx.float32)
    finally:
        session.hidden_observers = before
    attention = mx.stack([rows[i].reshape(-1, rows[i].shape[-1]) for i in layers]).astype(mx.float32)
    hidden = mx.stack([states[i].reshape(-1) for i in layers]).astype(mx.float32)
    mx.eval(logits, attention, hidden)
    return Step(np.array(logits), np.array(attention), np.array(hidden))


def attention_signals(attention: Rows, modality: NDArray[np.bool_], spans: Sequence[Span]) -> dict[str, float]:
    """svar, pas, entropy, dispersion, and `last`, the last layer's attention to the picture or sound.

    attention (L, H, T) of the newest position; modality (T0,) bool and spans are those of the prompt. entropy and
    dispersion are means over the middle layers, 0 for one position.
    """
    heads = np.asarray(attention, dtype=np.float64).mean(axis=1)
    prompt = len(modality)
    seen = heads[:, :prompt][:, modality]
    middle = middle_layers(len(heads))
    maps = [np.concatenate([row[span.start : span.stop] for span in spans]) for row in heads[middle]]
    return {
        "svar": float(seen[middle].sum()),
        "pas": float(heads[0, prompt:].sum()),
        "entropy": float(np.mean([_entropy(row) for row in maps])),
        "dispersion": float(np.mean([_dispersion(row, spans) for row in maps])),
        "last": float(seen[-1].sum()),
    }


def middle_layers(count: int) -> slice:
    """Layers 5 to 18 of 32, scaled to `count` layers; at least one."""
    first, last = (round(layer * count / 32) for layer in MIDDLE)
    return slice(first, min(last, count - 1) + 1)


def _entropy(row: NDArray[np.float64]) -> float:
    """Of attention (P,) as a distribution, divided by log P: 0 one position, 1 all alike."""
    total = row.sum()
    if not total > 0 or len(row) < 2:
        return 0.0
    share = row[row > 0] / total
    return float(-(share * np.log(share)).sum() / np.log(len(row)))


def _dispersion(row: NDArray[np.float64], spans: Sequence[Span]) -> float:
    """The attention (P,) outside of the largest blob, as a share, times one plus the entropy of the rest, halved."""
    total = row.sum()
    if not total > 0:
        return 1.0
    share = row / total
    most = np.zeros(len(share), dtype=bool)
    most[np.argsort(share)[::-1][: max(1, round(MOST * len(share)))]] = True
    blobs = _blobs(most, spans)
    heaviest = max(blobs, key=lambda blob: float(share[blob].sum()))
    rest = np.delete(share, heaviest)
    return float(rest.sum() * (1 + _entropy(rest)) / 2)


def _blobs(chosen: NDArray[np.bool_], spans: Sequence[Span]) -> list[list[int]]:
    """The chosen positions in groups of neighbours: along the rows and columns of a picture, or in time."""
    waiting = set(np.flatnonzero(chosen).tolist())
    blobs = []
    neighbours = _neighbours(spans)
    while waiting:
        blob, edge = [], [waiting.pop()]
        while edge:
            position = edge.pop()
            blob.append(position)
            near = waiting & neighbours[position]
            waiting -= near
            edge += near
        blobs.append(blob)
    return blobs


def _neighbours(spans: Sequence[Span]) -> list[set[int]]:
    """For each position of the spans in a row, those next to it."""
    neighbours: list[set[int]] = []
    for span in spans:
        start, count = len(neighbours), len(span)
        width = count if span.grid is None else span.grid.columns + span.grid.row_end
        for i in range(count):
            near = {i - width, i + width}
            near |= {i - 1} if i % width else set()
            near |= {i + 1} if (i + 1) % width else set()
            neighbours.append({start + j for j in near if 0 <= j < count})
    return neighbours
