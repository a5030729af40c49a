"""Where the files of a checkpoint are, and what they say: a folder, a repository of the Hub, or the bundled demo.

No weights are read and MLX is not needed. Code in a checkpoint is never run.
"""

import hashlib
import importlib.resources
import json
import os
import re
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lime_mlx.errors import CheckpointError
from lime_mlx.models import FAMILIES, family

DESCRIPTION = ["*.json", "*.jinja", "*.txt", "tokenizer.model"]
SUBFOLDERS = ["*/*"]
MODES = {"affine": (64, 4), "mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}  # group size, bits
OTHER_WEIGHTS = ("consolidated", "adapter")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
IMAGE_TOKENS = ("image_token_id", "image_token_index")
INDEX = "model.safetensors.index.json"
# What the bundled checkpoints are called.
DEMOS = {"demo": "picture", "demo-sound": "sound"}
LONGEST_HEADER = 100_000_000
# Files longer than the first are fingerprinted by as much of both ends as the second.
WHOLE, EDGE = 1 << 26, 1 << 20


def locate(path_or_repo: str | os.PathLike, *, revision: str | None = None, token: str | None = None) -> Path:
    """The local folder of a checkpoint; a Hub repository is downloaded, as far as it is needed and can be used."""
    name = os.fspath(path_or_repo)
    if name in DEMOS:
        if DEMOS[name] not in demos():
            raise CheckpointError("The demo checkpoint is not part of this installation; name another model.")
        return demos()[DEMOS[name]]
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    if name and folder.exists():
        raise CheckpointError(f"{name} is a file; give the folder that holds config.json.")
    if isinstance(path_or_repo, os.PathLike) or not REPOSITORY.fullmatch(name):
        raise CheckpointError(
            f"There is no folder {name!r}; give a model folder, a Hub repository (owner/name) or demo."
        )
    return _download(name, revision, token)


def demos() -> dict[str, Path]:
    """The bundled checkpoints: "picture", ... to folders."""
    home = Path(str(importlib.resources.files("lime_mlx"))) / "demo"
    return {path.name: path for path in sorted(home.iterdir()) if path.is_dir()} if home.is_dir() else {}


def _download(name: str, revision: str | None, token: str | None) -> Path:
    from huggingface_hub import constants, errors

    try:
        return _fetch(name, revision, token)
    except errors.GatedRepoError as error:
        problem = f"{name} is gated: accept its conditions on {constants.ENDPOINT}/{name}"
        raise CheckpointError(f"{problem} and set HF_TOKEN to a token of that account.") from error
    except errors.RepositoryNotFoundError as error:
        problem = f"There is no folder {name} here and no such repository on the Hub"
        raise CheckpointError(f"{problem}; a private one needs HF_TOKEN.") from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{name} has no revision {revision!r} on the Hub.") from error
    except errors.HFValidationError as error:
        raise CheckpointError(f"{name!r} is neither a folder nor the name of a Hub repository (owner/name).") from error
    except (OSError, RuntimeError, *errors.HfHubHTTPError.__bases__) as error:  # of them, the HTTP library's own error
        raise CheckpointError(_unfinished(name, revision, error)) from error


def _fetch(name: str, revision: str | None, token: str | None) -> Path:
    """Download what describes the model, and then its weights, if it can be used. Nothing comes twice."""
    from huggingface_hub import HfApi, snapshot_download

    def download(files: list[str], revision: str | None) -> Path:
        return Path(
            snapshot_download(name, revision=revision, token=token, allow_patterns=files, ignore_patterns=SUBFOLDERS)
        )

    folder = download(DESCRIPTION, revision)
    if _missing_weights(folder):
        commit = folder.name
        names = [file for file in HfApi(token=token).list_repo_files(name, revision=commit) if "/" not in file]
        check_files(name, names)
        config = read_config(folder)
        check_supported(config)
        quantization(config)
        download([*DESCRIPTION, *_weight_files(folder, names)], commit)
    return folder


def _unfinished(name: str, revision: str | None, error: Exception) -> str:
    """Why a repository could not be downloaded, and what of it the cache lacks."""
    from huggingface_hub import constants, errors, snapshot_download

    what = f"{name} at revision {revision}" if revision else name
    try:
        cached = snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=[])
        lacking = ", ".join(missing(Path(cached))) or "part of its settings"
        state = f"{what} is not wholly in the local cache of the Hub: {lacking} missing"
    except errors.LocalEntryNotFoundError:
        state = f"{what} is no folder here and not in the local cache of the Hub"
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    if constants.HF_HUB_OFFLINE:
        return f"{state}, and HF_HUB_OFFLINE is set; run once online, or give a folder."
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status == 401:
        return f"{name} cannot be downloaded: the token is not valid; set HF_TOKEN to one that is, or unset it."
    if status is None and not isinstance(cause, (OSError, RuntimeError)):
        return f"{state}, and the connection to the Hub failed ({line(cause)}); run once online, or give a folder."
    return f"{name} cannot be downloaded: {line(cause)}."


def check_files(where: str | os.PathLike, names: Collection[str]) -> None:
    """Refuse a folder or repository by the names of its files: no weights, or none that may or can be read."""
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


def check_supported(config: dict[str, Any]) -> None:
    """Refuse a config.json of a family that is not in the registry."""
    kind = config["model_type"]
    if kind in FAMILIES:
        return
    if config.get("auto_map"):
        raise CheckpointError(
            f"Models of type {kind!r} need code from their repository (auto_map in config.json), which lime-mlx never "
            f"runs; supported are {', '.join(sorted(FAMILIES))}."
        )
    family(kind)


def read_config(folder: str | os.PathLike) -> dict[str, Any]:
    """config.json of a folder. Raises `CheckpointError`, also when it has no model_type."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {folder}.")
    if not (folder / "config.json").is_file():
        check_files(folder, _names(folder) - {"config.json"})
    config = read_json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(f"{folder / 'config.json'} has no model_type, which says what kind of model this is.")
    return config


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty when there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {line(error)}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object.")
    return content


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {line(error)}.") from error


def quantization(config: dict[str, Any]) -> dict[str, Any] | None:
    """How MLX quantised the weights, by config.json. Raises `CheckpointError` for other ways of quantising."""
    for key in ("quantization", "quantization_config"):
        settings = config.get(key)
        if not settings:
            continue
        if not isinstance(settings, dict):
            raise CheckpointError(f"{key} in config.json is no JSON object.")
        if method := settings.get("quant_method"):
            raise CheckpointError(
                f"The weights are quantised by {method}, which MLX cannot read: "
                "take a checkpoint that is not quantised, or one that MLX quantised."
            )
        if settings.get("mode", "affine") not in MODES:
            raise CheckpointError(f"The quantization mode {settings['mode']!r} is unknown; known: {', '.join(MODES)}.")
        return settings
    return None


def shards(folder: Path) -> list[Path]:
    """The safetensors files that make up the weights: model.safetensors, those of the index, or those there are."""
    names = _weight_files(folder, _names(folder))
    if not names:
        check_files(folder, _names(folder))
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is incomplete: the weight file {name} is missing, download it again.")
    return [folder / name for name in names]


def missing(folder: Path) -> list[str]:
    """What a partly downloaded folder lacks of config.json, tokenizer.json and the weight files."""
    described = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    return described + _missing_weights(folder)


def _missing_weights(folder: Path) -> list[str]:
    names = _weight_files(folder, _names(folder))
    return [name for name in names if not (folder / name).is_file()] if names else ["model.safetensors"]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _weight_files(folder: Path, names: Collection[str]) -> list[str]:
    """The weight files that should be, by the index in a folder or by the `names` of files."""
    if "model.safetensors" in names:
        return ["model.safetensors"]
    index = folder / INDEX
    return _indexed(index) if index.is_file() else _unindexed(names)


def _indexed(index: Path) -> list[str]:
    places = read_json(index).get("weight_map")
    names = set(places.values()) if isinstance(places, dict) else set()
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CheckpointError(f"{index} is no index of weight files: it needs a weight_map from tensors to files.")
    return sorted(names)


def _unindexed(names: Collection[str]) -> list[str]:
    names = {name for name in names if name.endswith(".safetensors") and not name.startswith(OTHER_WEIGHTS)}
    for name in tuple(names):
        if part := re.fullmatch(r"(.*)-(\d{1,5})-of-(\d{1,5})\.safetensors", name):
            stem, width, count = part[1], len(part[2]), part[3]
            names |= {f"{stem}-{i:0{width}}-of-{count}.safetensors" for i in range(1, int(count) + 1)}
    return sorted(names)


def header(path: Path) -> dict[str, tuple[str, int]]:
    """The type, as safetensors names it, and the bytes of each tensor in a file. Raises `CheckpointError`."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > LONGEST_HEADER:
                raise ValueError("it is no safetensors file")
            entries = {name: entry for name, entry in json.loads(file.read(length)).items() if name != "__metadata__"}
        ends = [entry["data_offsets"][1] for entry in entries.values()]
        if path.stat().st_size < 8 + length + max(ends, default=0):
            raise ValueError("it is cut short")
        return {
            name: (entry["dtype"], entry["data_offsets"][1] - entry["data_offsets"][0])
            for name, entry in entries.items()
        }
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, struct.error) as error:
        raise CheckpointError(f"{path} cannot be read, download it again: {line(error)}.") from error


def fingerprint(folder: Path) -> str:
    """What tells a checkpoint from another: of its settings and weights; of a large file, its length and both ends."""
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.json"), *folder.glob("*.jinja"), *folder.glob("*.safetensors")]):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        with file.open("rb") as opened:
            if size <= WHOLE:
                digest.update(opened.read())
            else:
                digest.update(opened.read(EDGE))
                opened.seek(-EDGE, 2)
                digest.update(opened.read())
    return digest.hexdigest()[:16]


def line(error: BaseException) -> str:
    """The first line of an error, without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
