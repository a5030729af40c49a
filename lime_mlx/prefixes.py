"""What is kept of the beginnings of prompts, for later ones that begin alike: features of media, and cache entries.

A prompt is cut into the chunks of its prefill, see `Session.border`. The entries of each chunk are kept under a hash of
all that they depend on: the tokens up to the end of the chunk, their positions, and the pictures and sounds among
them. A later prompt takes the chunks that it shares with an earlier one, and computes the others as it would have done
anyway. So the logits are the same to the last bit. What methods and answers do to the cache is never kept.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby

import mlx.core as mx
import numpy as np

from lime_mlx.errors import PromptError
from lime_mlx.kv import DEFAULT, KVOptions
from lime_mlx.models.base import Features, Model, encoded
from lime_mlx.prompt import Prompt, Source
from lime_mlx.session import LogitsProcessor, Session

LIMIT = 2 << 30


class Prefixes:
    """The beginnings of prompts to one model, at most `limit` bytes of them; the least recently used go first.

    Token ids and prepared media are what counts, so processor and chat template need no key of their own. Whoever
    changes the weights of the model must `clear` it. It belongs to the thread that computes, and locks nothing.
    """

    def __init__(self, model: Model, limit: int = LIMIT) -> None:
        """limit: in bytes; 0 keeps nothing. Raises `PromptError` for a negative one."""
        if limit < 0:
            raise PromptError(f"The limit of kept prefixes is {limit:,} bytes; it must be 0 or more.")
        self.model, self.limit = model, limit
        self._kept: OrderedDict[bytes, list[mx.array]] = OrderedDict()

    def __len__(self) -> int:
        """How many chunks and pictures or sounds are kept."""
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """The bytes that are kept."""
        return sum(array.nbytes for arrays in self._kept.values() for array in arrays)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def open(self, prompt: Prompt, processors: Sequence[LogitsProcessor] = (), kv: KVOptions = DEFAULT) -> Session:
        """A session at the end of the prompt, prefilled up to its last whole chunk; `session.reused` tells how much
        of that was kept from earlier prompts. Raises as `Session.open`.
        """
        session = Session.open(self.model, prompt, processors, partial(self.features, prompt), kv)
        session.opener = partial(self.open, kv=kv)
        chunks = list(self._chunks(session))
        self._take(session, chunks)
        for key, stop in chunks:
            if stop > session.cache.offset:
                start = session.cache.offset
                session.prefill(stop)
                self._keep(key, session.cache.piece(start, stop))
        self._touch([*(key for key, _ in reversed(chunks)), *self._media_keys(prompt)])
        return session

    def features(self, prompt: Prompt) -> Features:
        """The features of the pictures and sounds of a prompt; of those that are kept, nothing is computed."""

        def encode(kind: str, source: Source) -> Sequence[mx.array]:
            key = _media_key(kind, source)
            if key not in self._kept:
                self._keep(key, self.model.encode(kind, Prompt(prompt.input_ids, source.arrays)))
            return self._kept[key]

        return encoded(prompt, self.model, encode)

    def _chunks(self, session: Session) -> Iterator[tuple[bytes, int]]:
        """The key and the end of each whole chunk of the prefill."""
        kv, positions = session.kv, session.positions
        form = (kv.kv_bits, kv.kv_group_size, kv.quantized_kv_start) if kv.kv_bits else None
        start, key, last = 0, repr((form, positions.recent, positions.pinned)).encode(), session.embeds.shape[1] - 1
        while (stop := session.border(start)) <= last:
            key = _chunk_key(key, session, start, stop)
            yield key, stop
            start = stop

    def _take(self, session: Session, chunks: Sequence[tuple[bytes, int]]) -> None:
        """Give a session the entries of the chunks at its beginning that are kept."""
        kept: list[list[mx.array]] = []
        for key, stop in chunks:
            if key not in self._kept:
                break
            kept.append(self._kept[key])
            session.reused = stop
        # Chunks from before the entries were quantised have fewer arrays than those that follow.
        for _, alike in groupby(kept, len):
            session.cache.put([mx.concatenate(list(arrays), axis=2) for arrays in zip(*alike, strict=True)])

    def _keep(self, key: bytes, arrays: Sequence[mx.array]) -> None:
        """Keep copies, which hold no more than their own bytes."""
        copies = [mx.contiguous(array) + 0 for array in arrays]
        mx.eval(copies)
        self._kept[key] = copies

    def _touch(self, keys: Sequence[bytes]) -> None:
        """Note what was used, the beginning of the prompt last, and forget the oldest beyond the limit.

        A chunk is never older than those that follow it, so that none is left behind that no prompt can reach.
        """
        for key in keys:
            if key in self._kept:
                self._kept.move_to_end(key)
        excess = self.nbytes - self.limit
        while excess > 0:
            _, arrays = self._kept.popitem(last=False)
            excess -= sum(array.nbytes for array in arrays)

    def _media_keys(self, prompt: Prompt) -> list[bytes]:
        return [_media_key(kind, source) for kind in self.model.kinds(prompt) for source in prompt.each(kind)]


def _media_key(kind: str, source: Source) -> bytes:
    return hashlib.sha256(kind.encode() + source.digest).digest()


def _chunk_key(before: bytes, session: Session, start: int, stop: int) -> bytes:
    """A hash of all that the entries of a chunk depend on. before: that of the chunks before it."""
    key, positions = hashlib.sha256(before), session.positions
    key.update(np.ascontiguousarray(session.prompt.input_ids[start:stop]).data)
    for part in (positions.coordinates, positions.blocks):
        if part is not None:
            key.update(np.ascontiguousarray(part[..., start:stop], dtype=np.int64).data)
    for media_key in media_keys(session, start, stop):
        key.update(media_key)
    return key.digest()


def media_keys(session: Session, start: int, stop: int) -> list[bytes]:
    """The hashes of the pictures and sounds among positions; of all, where the prompt does not tell where they lie."""
    prompt = session.prompt
    if not prompt.sources or prompt.spans is not None:
        return [prompt.whole.digest] if prompt.media else []
    spans = session.model.spans(prompt)
    numbers = sorted({(span.kind, span.source) for span in spans if span.start < stop and span.stop > start})
    return [_media_key(kind, prompt.each(kind)[number]) for kind, number in numbers]
