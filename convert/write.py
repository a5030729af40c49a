"""Safetensors files written tensor by tensor: memory holds one of them, and equal tensors give equal bytes."""

import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from lime_mlx.checkpoint.load import finite
from lime_mlx.errors import ConversionError

NAMES = {
    mx.float32: "F32",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.uint32: "U32",
    mx.uint8: "U8",
}
ALIGNMENT = 8
Progress = Callable[[int], None]


def write_shard(
    path: Path, names: list[str], tensors: dict[str, mx.array], modes: Mapping[str, str], progress: Progress
) -> None:
    """Take the `names` out of `tensors` and write them; the file appears under its name when it is whole and on disk.

    `modes`: of quantised layers, by the names of their scales. `progress` is told the bytes of each tensor. Raises
    `ConversionError` for a tensor that is not finite.
    """
    unfinished = path.with_name(f"{path.name}.part")
    head = header({name: tensors[name] for name in names})
    with unfinished.open("wb") as file:
        file.write(head)
        for name in names:
            array = tensors.pop(name)
            if not finite(array, modes.get(name)):
                raise ConversionError(
                    f"{name} holds NaN or infinity: the source is damaged, or --dtype float16 is too narrow for it "
                    "(take bfloat16)."
                )
            file.write(memoryview(array.reshape(-1).view(mx.uint8)))
            progress(array.nbytes)
            del array
            mx.clear_cache()
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)


def header(tensors: Mapping[str, mx.array]) -> bytes:
    """What a safetensors file starts with: the length of the rest, and where each tensor stands."""
    entries: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    position = 0
    for name, array in tensors.items():
        place = [position, position := position + array.nbytes]
        entries[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape), "data_offsets": place}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
