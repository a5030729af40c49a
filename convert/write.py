"""Safetensors files written tensor by tensor: memory holds one of them, and equal tensors give equal bytes."""

import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np

from lime_mlx.checkpoint.load import TYPE_NAMES, finite
from lime_mlx.errors import ConversionError

ALIGNMENT = 8
Progress = Callable[[int], None]


def write_shard(
    path: Path, names: list[str], tensors: dict[str, mx.array], modes: Mapping[str, str], progress: Progress
) -> None:
    """Take the `names` out of `tensors` and write them; the file appears under its name when it is whole and on disk.

    `modes`: of quantised layers, by the names of their scales. `progress` gets the bytes of each tensor. Raises
    `ConversionError` for a tensor that is not finite.
    """
    unfinished = path.with_name(f"{path.name}.part")
    head = safetensors_header({name: tensors[name] for name in names})
    with unfinished.open("wb") as file:
        file.write(head)
        for name in names:
            array = tensors.pop(name)
            if not finite(array, modes.get(name)):
                raise ConversionError(
                    f"{name} holds NaN or infinity: the source is damaged, or --dtype float16 is too narrow for it "
                    "(take bfloat16)."
                )
            file.write(np.asarray(array.reshape(-1).view(mx.uint8)).data)
            progress(array.nbytes)
            del array
            mx.clear_cache()
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)


def safetensors_header(tensors: Mapping[str, mx.array]) -> bytes:
    """What a safetensors file starts with: the length of the rest, and where each tensor stands."""
    entries: dict[str, dict[str, object]] = {"__metadata__": {"format": "mlx"}}
    position = 0
    for name, array in tensors.items():
        offsets = [position, position := position + array.nbytes]
        entries[name] = {"dtype": TYPE_NAMES[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON object in the form of the Hub's files."""
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
