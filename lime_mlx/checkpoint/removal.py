"""Models leave the cache of the Hub: what goes, how large it is, and the removal itself."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lime_mlx.checkpoint.hub import DEMOS
from lime_mlx.errors import CheckpointError, os_reason, short
from lime_mlx.spec import suggestion

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo


@dataclass(frozen=True)
class Removal:
    """A model in the cache. folder: all of it. size: bytes on the disk, with what broken downloads left."""

    name: str
    folder: Path
    size: int
    files: int
    revisions: int


def removal(name: str) -> Removal:
    """What `remove` takes away. Raises `CheckpointError` for a model that is not in the cache of the Hub."""
    if name in DEMOS:
        raise CheckpointError(f"{name} is a part of lime-mlx and stays; name a model of the cache of the Hub.")
    repositories = {entry.repo_id: entry for entry in _cache().repos if entry.repo_type == "model"}
    if name not in repositories:
        raise CheckpointError(
            f"{short(name)!r} is not in the cache of the Hub, so nothing is deleted.{suggestion(name, repositories)}"
        )
    found = repositories[name]
    sizes = [path.stat().st_size for path in found.repo_path.rglob("*") if path.is_file() and not path.is_symlink()]
    return Removal(name, found.repo_path, sum(sizes), len(sizes), len(found.revisions))


def remove(chosen: Removal) -> None:
    """Delete the folder of a model. Raises `CheckpointError` where something of it stays.

    The client of the Hub deletes by commits, which two repositories can share.
    """
    try:
        shutil.rmtree(chosen.folder)
    except OSError as error:
        raise CheckpointError(f"{chosen.folder} could not be deleted whole: {os_reason(error)}.") from error


def _cache() -> "HFCacheInfo":
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return scan_cache_dir()
    except (CacheNotFound, ValueError, OSError) as error:
        raise CheckpointError("There is no cache of the Hub here, so nothing is deleted.") from error
