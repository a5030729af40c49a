"""Tokens and their log-probabilities as clients get them."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from lime_mlx.answer import Response
from lime_mlx.methods import Choose, Method, Plain
from lime_mlx.processor import Processor
from lime_mlx.prompt import Prompt
from lime_mlx.server.models import Loaded
from lime_mlx.support.statistics import log_softmax

# What stands for a probability of 0, as JSON has no infinity.
LOWEST = -9999.0


class PlainLogprobs:
    """The plain model's log-probabilities (V,) of each next token, whatever the method does to its logits.

    Where the method leaves the logits as they are, the answer's own are used, else a plain run beside it.
    """

    def __init__(self, loaded: Loaded, prompt: Prompt, method: Method) -> None:
        inner = method.inner if isinstance(method, Choose) else method
        self._session = None if isinstance(inner, Plain) else loaded.prefixes.open(prompt, kv=loaded.kv)

    def of(self, response: Response) -> NDArray[np.floating]:
        """Those from which the token of a response could be taken. To be called for every token, in order."""
        if self._session is None:
            assert response.logprobs is not None
            return response.logprobs
        logits = self._session.extend()
        self._session.append(response.token)
        return log_softmax(np.array(logits))


class Spelling:
    """How the tokens of a model are written: as text and as bytes, of which one may be a part of a character."""

    def __init__(self, processor: Processor) -> None:
        self._tokenizer = processor.tokenizer
        pieces = self._tokenizer.convert_ids_to_tokens(processor.encode(" a"))
        self._bytewise = any(piece is not None and "\u0120" in piece for piece in pieces)

    def entry(self, token: int, logprobs: NDArray[np.floating], top: int) -> dict[str, object]:
        """An entry of `logprobs.content`, with the `top` likeliest tokens in its place. logprobs (V,)."""
        best = np.argsort(-logprobs, kind="stable")[:top]
        likeliest = [self._with_logprob(int(each), logprobs) for each in best]
        return {**self._with_logprob(token, logprobs), "top_logprobs": likeliest}

    def text(self, token: int) -> str:
        return self.data(token).decode("utf-8", "replace")

    def data(self, token: int) -> bytes:
        """The bytes of a token."""
        (piece,) = self._tokenizer.convert_ids_to_tokens([token])
        if piece is None:
            return b""
        if self._bytewise:
            table = byte_of()
            return bytes(table[c] for c in piece) if all(c in table for c in piece) else piece.encode()
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("\u2581", " ").encode()

    def _with_logprob(self, token: int, logprobs: NDArray[np.floating]) -> dict[str, object]:
        data = self.data(token)
        value = max(float(logprobs[token]), LOWEST)
        return {"token": data.decode("utf-8", "replace"), "logprob": round(value, 6), "bytes": list(data)}


@cache
def byte_of() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for.

    Printable bytes of Latin-1 stand for themselves, the others for the characters from U+0100 on, in their order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(rest)}
