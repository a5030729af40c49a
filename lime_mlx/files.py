"""Small files read with an error that says what is wrong, and files written at once or not at all."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, TypeAlias

from lime_mlx.errors import CheckpointError, line

# What a JSON file holds: any value under any name.
Json: TypeAlias = dict[str, Any]
# Files longer than the first are fingerprinted by as much of both ends as the second.
WHOLE, EDGE = 1 << 26, 1 << 20


def read_json(path: Path) -> Json:
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


def write(path: Path, text: str) -> None:
    """Replace a file at once, or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
