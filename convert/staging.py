"""The folder beside the output in which a conversion grows: the output itself is absent or whole, never half."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lime_mlx.errors import ConversionError, first_line

from .write import write_json

STATE = "conversion.json"
SLACK = 64 << 20  # bytes for all files but the weights


class Staging:
    """A folder of unfinished work for `out`, which `with` it no other process has.

    Raises `ConversionError` when another process works there.
    """

    def __init__(self, out: Path):
        self.out = out
        self.folder = out.parent / f".{out.name}.unfinished"
        self._replaced = out.parent / f".{out.name}.replaced"

    def __enter__(self) -> "Staging":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(self._lock), os.stat(self.folder)):
                raise FileNotFoundError("the other process has just finished")
        except OSError:
            os.close(self._lock)
            raise ConversionError(f"Another process is writing {self.out}; wait for it, or end it.") from None
        if self.out.exists() and self._replaced.exists():
            shutil.rmtree(self._replaced)
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
        os.close(self._lock)

    def resume(self, job: Mapping[str, object]) -> dict[str, object]:
        """What was remembered of the same `job` the last time; of another job, everything is removed."""
        try:
            state = json.loads((self.folder / STATE).read_text())
        except (OSError, ValueError):
            state = {}
        if isinstance(state, dict) and state.get("job") == job:
            return state
        self.clear()
        return {"job": dict(job)}

    def remember(self, state: Mapping[str, object]) -> None:
        unfinished = self.folder / f"{STATE}.part"
        write_json(unfinished, state)
        unfinished.rename(self.folder / STATE)

    def clear(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()

    def finish(self, allowed: set[str]) -> None:
        """Put the folder in the place of the output: its own files, and nothing that a broken run left."""
        for path in self.folder.iterdir():
            if path.name not in allowed:
                path.unlink()
        _sync(self.folder)
        if self.out.exists():
            self.out.rename(self._replaced)
        self.folder.rename(self.out)
        _sync(self.out.parent)
        if self._replaced.exists():
            shutil.rmtree(self._replaced)


def check_out(out: Path, source: Path, force: bool) -> None:
    """Refuse an output that would touch the source, or something that is no checkpoint. Raises `ConversionError`."""
    target, origin = out.resolve(), source.resolve()
    if target == origin or origin in target.parents or target in origin.parents:
        raise ConversionError(f"{out} and the source {source} are inside one another; write somewhere else.")
    if not (out.exists() or out.is_symlink()):
        return
    if not force:
        raise ConversionError(f"{out} exists already; choose another --mlx-path, or replace it with --force.")
    if out.is_symlink() or not out.is_dir() or (any(out.iterdir()) and not (out / "config.json").is_file()):
        raise ConversionError(f"{out} is no checkpoint, so --force does not replace it; choose another --mlx-path.")


def check_space(out: Path, needed: int) -> None:
    """Refuse to begin what the disk has no room for; `needed` in bytes."""
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed + SLACK > free:
        raise ConversionError(
            f"{out} takes {(needed + SLACK) / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free: free some, "
            "choose another --mlx-path, or take fewer bits."
        )


@contextmanager
def explain_os_errors(out: Path, staging: Path) -> Iterator[None]:
    """A full disk, or one that may not be written, in one sentence; finished files stay for the next run."""
    try:
        yield
    except OSError as error:
        for path in staging.glob("*.part"):
            path.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        where = f" ({error.filename})" if error.filename else ""
        reason = "the disk is full" if full else f"{error.strerror or first_line(error)}{where}"
        raise ConversionError(
            f"{out} was not written: {reason}. What is finished is in {staging}: run the same command again to go on, "
            "or delete it."
        ) from error


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
