"""The cache of a prompt in a file: mlx-lm's format, with fingerprints of the model, the pictures and the sounds.

A later run takes what the file has in common with its own prompt. Nothing in a file is trusted: what does not fit the
model, the prompt or the options is refused in one sentence.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np

from lime_mlx import backend
from lime_mlx.checkpoint.files import header
from lime_mlx.checkpoint.load import parameters
from lime_mlx.entries import LayerCache, Packing
from lime_mlx.errors import BackendError, CheckpointError, LimeError, PromptError, first_line, os_reason, short
from lime_mlx.files import check_output, expanded, parse_json
from lime_mlx.kv import BITS, GROUPS, KVOptions
from lime_mlx.limits import POSITIONS
from lime_mlx.models.base import Model
from lime_mlx.prefixes import media_keys
from lime_mlx.prompt import Prompt
from lime_mlx.session import LogitsProcessor, Session

SUFFIX = ".safetensors"
# What this program says of the cache, among the metadata of mlx-lm.
KEY = "lime"
# So many numbers of each weight, from its beginning, tell one model from another.
SAMPLED = 16


@dataclass(frozen=True)
class Stored:
    """What a file holds.

    model: the fingerprint of the model. media: those of the pictures and sounds, in hexadecimal digits. tokens: of the
    positions that are cached. max_kv_size: as it was. layers: of each layer the arrays, those of the keys first.
    packing: how they are quantised.
    """

    path: Path
    model: str
    media: Sequence[str]
    tokens: Sequence[int]
    max_kv_size: int | None
    layers: Sequence[Sequence[mx.array]]
    packing: Packing | None


def open_with_file(
    model: Model, prompt: Prompt, processors: Sequence[LogitsProcessor], kv: KVOptions, file: str | os.PathLike[str]
) -> Session:
    """A session at the end of the prompt, with what the file holds of it; where there is no file, it is written.

    Raises `LimeError` where the file does not fit, or cannot be read or written.
    """
    path = cache_path(file)
    if path.exists():
        stored = read(path, model)
        session = Session.open(model, prompt, processors, kv=options_for(stored, kv))
        fill(session, stored)
        return session
    check_output(path)
    session = Session.open(model, prompt, processors, kv=kv)
    session.prefill()
    write(path, session)
    return session


def cache_path(file: str | os.PathLike[str]) -> Path:
    """The file that a user means: mlx-lm's have the ending .safetensors. Raises `PromptError` for another one."""
    path = expanded(file)
    if path.suffix != SUFFIX:
        raise PromptError(f"{short(str(path))} does not end in {SUFFIX}, as a prompt cache does; name such a file.")
    return path


def options_for(stored: Stored, kv: KVOptions) -> KVOptions:
    """The options of a session that goes on with a file: its bits, where none are asked for. Raises `PromptError`."""
    packing = stored.packing
    if stored.max_kv_size != kv.max_kv_size:
        size = stored.max_kv_size
        made, remedy = ("without", "leave it out") if size is None else (f"with {size:,} as", f"give {size}")
        raise PromptError(f"{stored.path} was made {made} --max-kv-size: {remedy}, or name another file.")
    if packing is None:
        return kv
    chosen = kv.kv_bits, kv.kv_group_size
    if kv.kv_bits is not None and chosen != (packing.bits, packing.group_size):
        raise PromptError(
            f"{stored.path} holds entries of {packing.bits} bits in groups of {packing.group_size}: give --kv-bits "
            f"{packing.bits} --kv-group-size {packing.group_size}, or name another file."
        )
    return replace(kv, kv_bits=packing.bits, kv_group_size=packing.group_size)


def fill(session: Session, stored: Stored) -> None:
    """Give a session that has computed nothing the entries that it has in common with a file. Raises `PromptError`."""
    count, ids = len(stored.tokens), session.prompt.input_ids
    media = [key.hex() for key in media_keys(session, 0, min(count, len(ids)))]
    if media != list(stored.media):
        raise PromptError(
            f"{stored.path} was made for {_of(stored.media)}, and this prompt has {_of(media)}: give the same pictures "
            "and sounds, or name another file."
        )
    pairs = zip(ids[:-1].tolist(), stored.tokens, strict=False)
    common = next((n for n, (one, other) in enumerate(pairs) if one != other), min(count, len(ids) - 1))
    try:
        for layer, arrays in zip(session.cache.layers, stored.layers, strict=True):
            layer.restore(arrays, count, stored.packing)
    except ValueError as error:
        raise PromptError(f"{stored.path} is damaged: {_reason(error)}; name another file.") from error
    session.cache.trim(count - common)
    if not session.cache.offset or (media and session.cache.offset < session.media_ends[-1]):
        raise PromptError(
            f"{stored.path} holds {count:,} tokens, of which this prompt begins with {common:,}, too few to go on "
            "with: give the same system prompt and text, or name another file."
        )
    session.reused = session.cache.offset


def write(path: Path, session: Session) -> None:
    """Write the cache of a session, which holds its whole prompt but for the last token.

    With windows, it goes up to the end of the pictures and sounds, so that other texts may follow. Raises `LimeError`.
    """
    from mlx_lm.models.cache import save_prompt_cache

    ends, windows = session.media_ends, any(layer.reach for layer in session.cache.layers)
    cache = session.cache.copy(session.cache.resumable(ends[-1]) if windows and ends else None)
    cache.pack()
    metadata = {
        "format": 1,
        "model": fingerprint(session.model),
        "media": [key.hex() for key in media_keys(session, 0, cache.offset)],
        "tokens": session.prompt.input_ids[: cache.offset].tolist(),
        "max_kv_size": session.kv.max_kv_size,
    }
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".unfinished.", suffix=SUFFIX)
        os.close(handle)
        save_prompt_cache(temporary, [_as_theirs(layer) for layer in cache.layers], {KEY: json.dumps(metadata)})
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else first_line(error)
        raise LimeError(f"{path} cannot be written: {reason}.") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _as_theirs(layer: LayerCache) -> Any:  # noqa: ANN401  (mlx-lm's classes have no types)
    """A layer as mlx-lm's own cache of its kind."""
    from mlx_lm.models import cache as theirs

    arrays = layer.held()
    made: Any
    if layer.packing is not None:
        made = theirs.QuantizedKVCache(layer.packing.group_size, layer.packing.bits)
        made.keys, made.values, made.offset = tuple(arrays[:3]), tuple(arrays[3:]), layer.size
    elif layer.reach is not None:
        made = theirs.RotatingKVCache(layer.reach + layer.pinned, layer.pinned)
        made.keys, made.values = arrays
        made.offset, made._idx = layer.offset, layer.size
    else:
        made = theirs.KVCache()
        made.keys, made.values = arrays
        made.offset = layer.offset
    return made


def read(path: Path, model: Model) -> Stored:
    """The content of a file, checked against a model. Raises `LimeError`."""
    try:
        sizes = header(path)
        needed = sum(size for _, size in sizes.values())
        if not backend.fits(mx.get_active_memory() + needed):
            raise BackendError(
                f"{path} holds {needed / 1e9:.1f} GB, and this machine has {backend.memory_total() / 1e9:.1f} GB of "
                "memory: make it again from a shorter prompt, or with --kv-bits 4."
            )
        loaded = mx.load(str(path), format="safetensors", return_metadata=True)
        arrays, metadata = cast(tuple[dict[str, mx.array], dict[str, str]], loaded)
        stated = _own(metadata)
    except (CheckpointError, RuntimeError, OSError, ValueError) as error:
        raise PromptError(f"{path} is no prompt cache: {_reason(error)}; name another file.") from error
    if stated["model"] != fingerprint(model):
        raise PromptError(
            f"{path} was made for another model ({stated['model'][:8]}, and this one is {fingerprint(model)[:8]}): "
            "load that one, or name another file."
        )
    try:
        return _checked(path, model, stated, arrays)
    except (KeyError, ValueError, TypeError) as error:
        raise PromptError(f"{path} is damaged: {_reason(error)}; name another file.") from error


def _own(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What this program wrote among the metadata. Raises `ValueError`."""
    texts = [metadata[name] for name in (f"0.{KEY}", f"1.{KEY}") if name in metadata]
    if not texts:
        raise ValueError("it does not say which tokens it holds, as those of lime-mlx do")
    values = parse_json(texts[0])
    if not isinstance(values, dict) or values.get("format") != 1:
        raise ValueError("it is of another version")
    tokens, media, model, size = (values.get(name) for name in ("tokens", "media", "model", "max_kv_size"))
    whole = isinstance(tokens, list) and 0 < len(tokens) <= POSITIONS.value and all(type(t) is int for t in tokens)
    texts_only = isinstance(media, list) and all(isinstance(key, str) for key in media) and isinstance(model, str)
    if not whole or not texts_only or not (size is None or type(size) is int):
        raise ValueError("what it says of itself is no prompt")
    return values


def _checked(path: Path, model: Model, stated: Mapping[str, Any], arrays: Mapping[str, mx.array]) -> Stored:
    """Raises `ValueError` or `KeyError` for arrays that are not those of this model."""
    decoder, layers = model.language_model, []
    packed = "0.0.0" in arrays
    packing: Packing | None = None
    for number in range(len(decoder.layers)):
        inside = [f".{part}" for part in range(3)] if packed else [""]
        parts = [arrays[f"{number}.{kind}{part}"] for kind in range(2) for part in inside]
        if any(part.ndim != 4 for part in parts):
            raise ValueError(f"an array of layer {number} has no four axes")
        if packed and packing is None:
            packing = _packing(decoder.config.dim, parts[0].shape[3], parts[1].shape[3])
        _check_layer(number, parts, decoder.config.key_heads, decoder.config.dim, len(stated["tokens"]), packing)
        layers.append(parts)
    return Stored(path, stated["model"], stated["media"], stated["tokens"], stated["max_kv_size"], layers, packing)


def _packing(width: int, numbers: int, groups: int) -> Packing:
    """How heads of this width are quantised, by the widths of the arrays."""
    for bits in BITS:
        for size in GROUPS:
            if numbers * 32 == width * bits and groups * size == width:
                return Packing(bits, size)
    raise ValueError(f"{numbers} and {groups} numbers are no quantised head of {width}")


def _check_layer(
    number: int, parts: Sequence[mx.array], heads: int, width: int, count: int, packing: Packing | None
) -> None:
    size = parts[0].shape[2]
    widths = [width] if packing is None else [width * packing.bits // 32, *[width // packing.group_size] * 2]
    for index, (part, last) in enumerate(zip(parts, widths * 2, strict=True)):
        packed = packing is not None and index % 3 == 0
        if part.shape != (1, heads, size, last) or not 0 < size <= count:
            raise ValueError(f"an array of layer {number} has the shape {part.shape}")
        if (part.dtype == mx.uint32) != packed or not (packed or mx.issubdtype(part.dtype, mx.floating)):
            raise ValueError(f"an array of layer {number} has the type {part.dtype}")
        if not packed and not mx.isfinite(part).all().item():
            raise ValueError(f"layer {number} holds NaN or infinity")


def fingerprint(model: Model) -> str:
    """16 hexadecimal digits that tell a model from others: by the names, types, shapes and beginnings of weights."""
    digest = hashlib.sha256()
    weights = sorted(parameters(model).items())
    begun = [array.reshape(-1)[:SAMPLED].astype(mx.float32) for _, array in weights]
    mx.eval(begun)
    for (name, array), values in zip(weights, begun, strict=True):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.array(values).tobytes())
    return digest.hexdigest()[:16]


def _of(media: Sequence[str]) -> str:
    return " and ".join(key[:8] for key in media) or "no picture or sound"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return os_reason(error)
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else first_line(error)
