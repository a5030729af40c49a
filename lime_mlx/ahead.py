"""Plain decoding one token ahead: the next token is on its way to the device while the last one is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx

from lime_mlx.sampling import Sampler
from lime_mlx.session import Session


class Token(NamedTuple):
    """A token and the logits (V,) that it was picked by; finite: whether all of these are."""

    token: int
    logits: mx.array
    finite: bool


def tokens_ahead(session: Session, max_tokens: int, sampler: Sampler | None, stop: frozenset[int]) -> Iterator[Token]:
    """The tokens of plain decoding, as the loop of `generation` gives them, for a session that nobody observes.

    Each is appended to the session before it is given, but the last one where it ends the answer. Whether its logits
    are finite is computed on the device and read together with it.
    """
    session.prefill()
    session.cache.trim(session.cache.offset - (session.embeds.shape[1] - 1))
    coming = _next(session, session.newest, sampler)
    while True:
        token, logits, finite = coming
        last = len(session.generated) + 1 >= max_tokens
        if not last:
            coming = _next(session, session.decoder.embed(token[None]), sampler)
        read = Token(int(token), logits, bool(finite))
        ends = read.token in stop
        if not ends and read.finite:
            session.append(read.token)
            mx.async_eval(session.embeds)
        else:
            session.cache.trim(session.cache.offset - session.embeds.shape[1])
        yield read
        if last or ends or not read.finite:
            return


def _next(session: Session, embed: mx.array, sampler: Sampler | None) -> tuple[mx.array, mx.array, mx.array]:
    """The token () after the position with this embedding (1, 1, D), its logits (V,), and whether they are finite."""
    decoder, cache = session.decoder, session.cache
    hidden = decoder(embed, cache.layers, cache.offset, positions=session.positions)
    logits = decoder.head(hidden[0, -1])
    token = mx.argmax(logits) if sampler is None else sampler((logits - mx.logsumexp(logits))[None])[0]
    finite = mx.isfinite(logits).all()
    mx.async_eval(token, finite)
    return token, logits, finite
