"""Small files read with an error that says what is wrong, and files written at once or not at all."""

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from lime_mlx import limits
from lime_mlx.errors import CheckpointError, LimeError, first_line, os_reason

# What a JSON file holds: any value under any name.
Json: TypeAlias = dict[str, Any]
# Any value of JSON, before it is checked.
JsonValue: TypeAlias = Any
# The fingerprint of a file that is longer than the first reads as many bytes of both ends as the second says.
LONGEST_WHOLE, EDGE = 1 << 26, 1 << 20
WEIGHTS = "safetensors"


def read_json(path: Path) -> Json:
    """The JSON object in a file; empty when there is no such file. Raises `CheckpointError`."""
    if not path.is_file():
        return {}
    try:
        content = parse_json(read_text(path, limits.JSON_BYTES))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {first_line(error)}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object.")
    return content


def parse_json(text: str | bytes) -> JsonValue:
    """The value of a JSON text. Raises `ValueError`, also for one that is too deep, or has half a character."""
    try:
        content = json.loads(text)
    except RecursionError:
        raise limits.JSON_DEPTH.error("it is nested too deep", ValueError) from None
    level, depth = [content], 0
    while level:
        depth += 1
        limits.JSON_DEPTH.check(depth, "the depth", ValueError)
        inside: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inside += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                inside += value
            elif isinstance(value, str) and not value.isascii():
                value.encode()  # half of a surrogate pair is a UnicodeEncodeError
        level = inside
    return content


def read_regular(path: Path) -> str:
    """The text of an ordinary file in UTF-8. Raises `OSError` for a pipe, a device or a folder, and `ValueError`."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    return path.read_text(encoding="utf-8")


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with the home of a user in the place of `~`. Raises `LimeError` for a user that is not there."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise LimeError(f"{os.fspath(path)!r} names a user that this machine does not have; check the path.") from error


def section(content: Mapping[str, object], key: str) -> dict[str, object]:
    """The object under a key of a JSON object; empty where there is none."""
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def read_text(path: Path, limit: limits.Limit | None = None) -> str:
    """The text of a file in UTF-8, of at most so many bytes. Raises `CheckpointError` when it cannot be read."""
    try:
        if limit is not None:
            limit.check(path.stat().st_size, f"The size of {path}", CheckpointError)
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {os_reason(error)}.") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}.") from error


def fingerprint(folder: Path, kinds: Sequence[str] = ("json", "jinja", WEIGHTS)) -> str:
    """16 hexadecimal digits that tell a checkpoint from another.

    They are those of the SHA-256 of its settings, templates and weights, or of the files of some kinds; of a large
    file, of its length and both ends.
    """
    digest = hashlib.sha256()
    for file in sorted(file for kind in kinds for file in folder.glob(f"*.{kind}")):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        with file.open("rb") as content:
            if size <= LONGEST_WHOLE:
                digest.update(content.read())
            else:
                digest.update(content.read(EDGE))
                content.seek(-EDGE, os.SEEK_END)
                digest.update(content.read())
    return digest.hexdigest()[:16]


def write(path: Path, text: str) -> None:
    """Replace a file by `text` in UTF-8, at once or not at all. Folders that are missing are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode())


def check_output(path: Path) -> None:
    """Refuse a file that the user wants written where there is something else, or no folder. Raises `LimeError`.

    A link is followed: what it leads to counts.
    """
    if not path.parent.is_dir():
        raise LimeError(f"There is no folder {path.parent} for {path.name}; make it, or name another file.")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise LimeError(f"{path} cannot be written: {os_reason(error)}.") from error
    if not stat.S_ISREG(mode):
        raise LimeError(f"{path} is no ordinary file; name another one.")


def write_output(path: Path, content: bytes) -> None:
    """`write_bytes` for a file that the user named, as `check_output` checks it. A link stays: its target is written.

    Raises `LimeError`.
    """
    check_output(path)
    write_bytes(Path(os.path.realpath(path)), content)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file by `content`, at once or not at all. Raises `LimeError` where that is not possible."""
    try:
        _replace(path, content)
    except OSError as error:
        raise LimeError(f"{path} cannot be written: {os_reason(error)}.") from error


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".unfinished.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
