"""What a first run would do: which model, how large, under which licence, and whether it finds space here."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lime_mlx import backend
from lime_mlx.checkpoint.catalog import OVERHEAD, Entry, Machine, describe, how_it_fits, readable
from lime_mlx.checkpoint.hub import DEMOS, REPOSITORY, demos
from lime_mlx.checkpoint.proposals import Proposal, proposed
from lime_mlx.checkpoint.published import NO_LICENCE, licence, published
from lime_mlx.errors import CheckpointError
from lime_mlx.files import expanded

# Bytes that stay free on the disk.
SPARE = 10**9
# Bits a second of the connection that times of downloads are given for.
CONNECTION = 100e6
BUNDLED_LICENCE = "that of lime-mlx"


@dataclass(frozen=True)
class Place:
    """The folder in which the Hub keeps models, and the bytes that are free on its disk."""

    folder: Path
    free: int

    @classmethod
    def this(cls) -> "Place":
        from huggingface_hub import constants

        folder = Path(constants.HF_HUB_CACHE)
        there = next(path for path in (folder, *folder.parents) if path.exists())
        return cls(folder, shutil.disk_usage(there).free)

    def has_room(self, size: int) -> bool:
        return size == 0 or size + SPARE <= self.free


@dataclass(frozen=True)
class Plan:
    """One model and what it takes to have it here.

    size, download: bytes of its files, and those of them that are not here. needs: bytes of memory, about. on: the day
    on which size and licence were as they stand here; None for just now.
    """

    name: str
    size: int
    download: int
    needs: int
    licence: str
    on: str | None = None

    @property
    def fits(self) -> str:
        """ "yes", "tight" or "no"."""
        return how_it_fits(self.needs)

    @property
    def seconds(self) -> float:
        """How long the download takes by a connection of `CONNECTION`."""
        return 8 * self.download / CONNECTION


def plan(name: str, entries: Sequence[Entry], place: Place) -> Plan:
    """The plan for a model that the user names: a repository, a folder or a bundled model.

    entries: the models that are here. Raises `CheckpointError` for a model that is not there, cannot be used, or finds
    no space.
    """
    if here := _here(name, entries):
        return _checked(Plan(here.name, here.size, 0, here.needs or here.size + OVERHEAD, _licence(here)))
    facts = published(name)
    download = max(facts.size - cached(name, place), 0)
    chosen = _checked(Plan(name, facts.size, download, facts.size + OVERHEAD, facts.licence, facts.on))
    if not place.has_room(download):
        raise CheckpointError(
            f"There is no space for {name}: the download takes {readable(download)} and leaves {readable(SPARE)} free, "
            f"and {place.folder} has {readable(place.free)}; free some, name a smaller --model, or set HF_HOME."
        )
    return chosen


def plan_proposed(entries: Sequence[Entry], place: Place) -> Plan:
    """The plan for the first proposal that fits in memory with room to spare, and on the disk.

    Raises `CheckpointError` where none does, and where the Hub no longer has it.
    """

    def memory(size: int) -> bool:
        return how_it_fits(size + OVERHEAD) == "yes"

    def disk(row: Proposal) -> bool:
        return _complete(row.name, entries) is not None or place.has_room(max(row.size - cached(row.name, place), 0))

    if chosen := proposed(memory, disk):
        return plan(chosen.name, entries, place)
    problem = "memory" if not proposed(memory, lambda row: True) else "space on the disk"
    raise CheckpointError(
        f"No proposed model finds enough {problem} here ({readable(backend.memory_total())} of memory, "
        f"{readable(place.free)} free in {place.folder}); name a smaller one with --model."
    )


def cached(name: str, place: Place) -> int:
    """The bytes of a repository that are in the cache of the Hub, also those of a download that broke off."""
    blobs = place.folder / f"models--{name.replace('/', '--')}" / "blobs"
    return sum(path.stat().st_size for path in blobs.iterdir() if path.is_file()) if blobs.is_dir() else 0


def _checked(chosen: Plan) -> Plan:
    if chosen.fits == "no":
        raise CheckpointError(
            f"{chosen.name} needs about {readable(chosen.needs)} of memory, and this machine has "
            f"{readable(backend.memory_total())}; name a smaller --model."
        )
    return chosen


def _complete(name: str, entries: Sequence[Entry]) -> Entry | None:
    """The entry of a model whose files are all here."""
    return next((entry for entry in entries if entry.name == name and not entry.missing), None)


def _here(name: str, entries: Sequence[Entry]) -> Entry | None:
    """The entry of a model that needs no download: a bundled one, one in the cache, or a folder.

    Raises `CheckpointError` for one that cannot be used.
    """
    if name in DEMOS and DEMOS[name] not in demos():
        raise CheckpointError("The demo checkpoint is not part of this installation; name another model.")
    entry, folder = _complete(name, entries), expanded(name)
    if entry is None and folder.is_dir():
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        entry = describe(str(folder.resolve()), folder, size, Machine.this())
        if entry.missing and not entry.problem:
            raise CheckpointError(f"{folder} is incomplete: {', '.join(entry.missing)} missing.")
    if entry is not None and entry.problem:
        raise CheckpointError(entry.problem)
    return entry


def _licence(here: Entry) -> str:
    """The licence of a model that is here: that of its card, else what the Hub or the table of proposals says."""
    from huggingface_hub import ModelCard

    if here.name in DEMOS:
        return BUNDLED_LICENCE
    card = Path(here.path) / "README.md"
    try:
        if card.is_file():
            return licence(ModelCard.load(card).data, [])
        return published(here.name).licence if REPOSITORY.fullmatch(here.name) else NO_LICENCE
    except (CheckpointError, OSError, ValueError):
        return "not known: the Hub cannot be asked now"
