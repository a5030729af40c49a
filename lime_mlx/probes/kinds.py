"""Kinds of maps of a word: what is shown beside an answer, and what others would show in its place.

cached: AttnLRP at the entries of the cache, which `explain` shows. exact: AttnLRP at the embeddings, one pass over the
whole sequence for each token. gradient: plain gradient x input. attention: the mean over all layers and heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.errors import MethodError
from lime_mlx.lrp.relevance import cached, exact
from lime_mlx.lrp.rules import ATTN_LRP, GRADIENT, Rules
from lime_mlx.models.base import Model
from lime_mlx.prompt import Prompt
from lime_mlx.session import Session

Row = NDArray[np.float32]


def _cached(session: Session, token: int) -> Row:
    entries = session.cache.entries()
    result = cached(session.decoder, entries, session.newest, ATTN_LRP, target=token, positions=session.positions)
    return np.array(result.relevance)


def _exact(rules: Rules, session: Session, token: int) -> Row:
    result = exact(session.decoder, session.embeds, rules, target=token, positions=session.positions)
    return np.array(result.relevance)


def _attention(session: Session, token: int) -> Row:
    rows: dict[int, mx.array] = {}
    with session.observing({layer: partial(rows.__setitem__, layer) for layer in range(len(session.decoder.layers))}):
        mx.eval(session.extend())
    weights = [row.reshape(-1, row.shape[-1]).astype(mx.float32).mean(axis=0) for row in rows.values()]
    return np.array(mx.stack(weights).mean(axis=0))


KINDS: Mapping[str, Callable[[Session, int], Row]] = {
    "cached": _cached,
    "exact": partial(_exact, ATTN_LRP),
    "gradient": partial(_exact, GRADIENT),
    "attention": _attention,
}


def check_kind(kind: str) -> None:
    """Raises `MethodError` for a kind of map that there is not."""
    if kind not in KINDS:
        raise MethodError(f"There is no map {kind!r}; choose one of {', '.join(KINDS)}.")


def relevances(
    model: Model, prompt: Prompt, tokens: Sequence[int], places: Sequence[Sequence[int]], kinds: Sequence[str]
) -> dict[str, list[Row]]:
    """For each kind, a row (T,) for each word: its relevance at the positions of the prompt.

    tokens: of the answer, which the plain model is made to say. places: for each word, the indices of its tokens there;
    their rows are added. Raises `MethodError` for an unknown kind.
    """
    for kind in kinds:
        check_kind(kind)
    session, length = Session.open(model, prompt), len(prompt)
    rows = {kind: [np.zeros(length, dtype=np.float32) for _ in places] for kind in kinds}
    for index, token in enumerate(tokens[: max((place for word in places for place in word), default=-1) + 1]):
        words = [number for number, word in enumerate(places) if index in word]
        if words:
            session.prefill()
            for kind in kinds:
                row = KINDS[kind](session, token)[:length]
                for number in words:
                    rows[kind][number] += row
        session.append(token)
    return rows
