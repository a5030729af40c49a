"""The files of a checkpoint: which there must be, and what config.json and the heads of the weight files say.

No weights are read and MLX is not needed. Code in a checkpoint is never run.
"""

import math
import os
import re
import struct
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from lime_mlx.errors import CheckpointError, first_line, os_reason, short
from lime_mlx.files import parse_json, read_json, section
from lime_mlx.models import FAMILIES, family

MODES = {"affine": (64, 4), "mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}  # group size, bits
FLOAT_BYTES = {"BF16": 2, "F16": 2, "F32": 4}  # by the names that safetensors has for types
# The bits of a value in each type that safetensors has.
TYPE_BITS = {
    **dict.fromkeys(["F4"], 4),
    **dict.fromkeys(["F6_E2M3", "F6_E3M2"], 6),
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"], 8),
    **dict.fromkeys(["U16", "I16", "F16", "BF16"], 16),
    **dict.fromkeys(["U32", "I32", "F32"], 32),
    **dict.fromkeys(["U64", "I64", "F64", "C64"], 64),
}
OTHER_WEIGHTS = ("consolidated", "adapter")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
IMAGE_TOKENS = ("image_token_id", "image_token_index")
INDEX = "model.safetensors.index.json"
LONGEST_HEADER = 100_000_000  # bytes


def check_files(where: str | os.PathLike[str], names: Collection[str]) -> None:
    """Refuse a folder or repository by the names of its files: no weights, or none that may or can be read.

    Raises `CheckpointError`.
    """
    if problem := foreign_weights(names):
        raise CheckpointError(f"{where} {problem}.")
    if "config.json" not in names:
        raise CheckpointError(f"{where} has no config.json: it is not a model.")
    if not _unindexed(names):
        raise CheckpointError(f"{where} has no weights: no .safetensors file.")


def foreign_weights(names: Collection[str]) -> str | None:
    """Why the weights among these files cannot be used; None where some can, or there are none at all."""
    if _unindexed(names):
        return None
    if adapters := [name for name in names if name.startswith("adapter") and name != "adapter_config.json"]:
        return f"is an adapter (LoRA, {min(adapters)}) without its base model; merge the two, and take the result"
    if foreign := [name for name in names if name.endswith(".gguf")]:
        return f"has its weights only as GGUF ({min(foreign)}), which is for llama.cpp; take one with safetensors"
    if pickles := [name for name in names if name.endswith(PICKLES)]:
        danger = f"has its weights only as pickle ({min(pickles)}), which can run code when it is read"
        return f"{danger}; convert them to safetensors"
    return None


def model_type(config: Mapping[str, object]) -> str:
    """The family that config.json names."""
    return str(config["model_type"])


def check_supported(config: Mapping[str, object]) -> None:
    """Refuse a config.json of a family that is not in the registry. Raises `CheckpointError`."""
    kind = model_type(config)
    if kind in FAMILIES:
        return
    if config.get("auto_map"):
        raise CheckpointError(
            f"Models of type {short(kind)!r} need code from their repository (auto_map in config.json), which lime-mlx "
            f"never runs; supported are {', '.join(sorted(FAMILIES))}."
        )
    family(kind)


def read_config(folder: str | os.PathLike[str]) -> dict[str, object]:
    """config.json of a folder. Raises `CheckpointError`, also when it has no model_type."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {folder}.")
    if not (folder / "config.json").is_file():
        check_files(folder, _file_names(folder) - {"config.json"})
    config = read_json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(f"{folder / 'config.json'} has no model_type, which says what kind of model this is.")
    return config


def quantization(config: Mapping[str, object]) -> dict[str, object] | None:
    """How MLX quantised the weights, by config.json. Raises `CheckpointError` for other ways of quantising."""
    for key in ("quantization", "quantization_config"):
        settings = config.get(key)
        if not settings:
            continue
        if not isinstance(settings, dict):
            raise CheckpointError(f"{key} in config.json is no JSON object.")
        if method := settings.get("quant_method"):
            raise CheckpointError(
                f"The weights are quantised by {short(method)}, which MLX cannot read: "
                "take a checkpoint that is not quantised, or one that MLX quantised."
            )
        if str(settings.get("mode", "affine")) not in MODES:
            modes = ", ".join(MODES)
            raise CheckpointError(f"The quantization mode {short(repr(settings['mode']))} is unknown; MLX has {modes}.")
        return settings
    return None


def shards(folder: Path) -> list[Path]:
    """The safetensors files that make up the weights: model.safetensors, those of the index, or those there are."""
    names = weight_files(folder, _file_names(folder))
    if not names:
        check_files(folder, _file_names(folder))
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is incomplete: the weight file {name} is missing, download it again.")
    return [folder / name for name in names]


def missing_files(folder: Path) -> list[str]:
    """What a partly downloaded folder lacks of config.json, tokenizer.json and the weight files."""
    settings = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    return settings + missing_weights(folder)


def missing_weights(folder: Path) -> list[str]:
    """The weight files that a partly downloaded folder lacks."""
    names = weight_files(folder, _file_names(folder))
    return [name for name in names if not (folder / name).is_file()] if names else ["model.safetensors"]


def _file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def weight_files(folder: Path, names: Collection[str]) -> list[str]:
    """The weight files that a checkpoint should have, by the index in a folder or by the `names` of its files."""
    if "model.safetensors" in names:
        return ["model.safetensors"]
    index = folder / INDEX
    return _indexed(index) if index.is_file() else _unindexed(names)


def _indexed(index: Path) -> list[str]:
    files = list(section(read_json(index), "weight_map").values())
    names = {name for name in files if isinstance(name, str) and _is_file_name(name)}
    if not names or not all(isinstance(name, str) and name in names for name in files):
        raise CheckpointError(f"{index} is no index of weight files: it needs a weight_map from tensors to files.")
    return sorted(names)


def _is_file_name(name: str) -> bool:
    """Whether a name is that of a file in the same folder, which any system can have."""
    return Path(name).name == name and 0 < len(name.encode()) < 200 and name.isprintable()


def _unindexed(names: Iterable[str]) -> list[str]:
    """The weight files among `names`, and those that belong to them by their numbers."""
    weights = {name for name in names if name.endswith(".safetensors") and not name.startswith(OTHER_WEIGHTS)}
    for name in tuple(weights):
        if part := re.fullmatch(r"(.*)-(\d{1,5})-of-(\d{1,5})\.safetensors", name):
            stem, width, count = part[1], len(part[2]), part[3]
            weights |= {f"{stem}-{i:0{width}}-of-{count}.safetensors" for i in range(1, int(count) + 1)}
    return sorted(weights)


def header(path: Path) -> dict[str, tuple[str, int]]:
    """The type, as safetensors names it, and the bytes of each tensor in a file. Raises `CheckpointError`.

    The tensors must fill the file behind its header, one after the other, with as many bytes as their shapes have.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > LONGEST_HEADER:
                raise ValueError("it is no safetensors file")
            content = parse_json(file.read(length))
        entries = {name: entry for name, entry in content.items() if name != "__metadata__"}
        _check_ranges(entries, path.stat().st_size - 8 - length)
        return {
            name: (entry["dtype"], entry["data_offsets"][1] - entry["data_offsets"][0])
            for name, entry in entries.items()
        }
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {os_reason(error)}.") from error
    except (ValueError, TypeError, LookupError, AttributeError, struct.error) as error:
        raise CheckpointError(f"{path} cannot be read, download it again: {first_line(error)}.") from error


def _check_ranges(entries: Mapping[str, Mapping[str, Any]], size: int) -> None:
    """Raises `ValueError` unless the ranges of all tensors tile `size` bytes, and each is as long as its shape says."""
    end = 0
    for start, stop, name in sorted((*entry["data_offsets"], name) for name, entry in entries.items()):
        if not all(isinstance(offset, int) and not isinstance(offset, bool) for offset in (start, stop)):
            raise ValueError(f"the place of {short(name)} is no pair of numbers")
        if stop > size:
            raise ValueError("it is cut short")
        if start != end or stop < start:
            raise ValueError(f"{short(name)} does not begin where the tensor before it ends")
        kind, shape = entries[name]["dtype"], entries[name]["shape"]
        if kind not in TYPE_BITS or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise ValueError(f"{short(name)} has the type {short(kind)} and the shape {short(shape)}")
        if math.prod(shape) * TYPE_BITS[kind] != 8 * (stop - start):
            raise ValueError(f"{short(name)} has {stop - start:,} bytes, which do not fit its shape")
        end = stop
    if end != size:
        raise ValueError(f"{size - end:,} bytes at its end belong to no tensor")


def held_bytes(tensors: Iterable[tuple[str, int]], width: int) -> int:
    """The bytes that tensors take while they run.

    tensors: for each, its type as safetensors names it, and its bytes. width: bytes of a float in the type that models
    are computed in. Weights whose floats are all float32 stay so.
    """
    stored = list(tensors)
    floats = {kind for kind, _ in stored} & FLOAT_BYTES.keys()
    width = FLOAT_BYTES["F32"] if floats == {"F32"} else width
    return sum(size // FLOAT_BYTES[kind] * width if kind in FLOAT_BYTES else size for kind, size in stored)
