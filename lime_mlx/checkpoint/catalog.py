"""The models on this machine, bundled or in the local cache of the Hub: what they are, and whether they fit in memory.

Only config.json and the heads of the weight files are read. MLX is needed for what fits, and for nothing else.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lime_mlx import backend
from lime_mlx.checkpoint import files
from lime_mlx.checkpoint.hub import DEMOS, demos
from lime_mlx.errors import BackendError, CheckpointError, LimeError
from lime_mlx.models import FAMILIES, takes

OVERHEAD = 2 * 10**9  # bytes beside the weights: KV cache, activations and the buffers that MLX keeps
TYPE_WORDS = {"BF16": "bf16", "F16": "float16", "F32": "float32"}
TOWERS = re.compile(r"vision|visual|audio")
Notice = Callable[[str], None]


@dataclass(frozen=True)
class Machine:
    """Memory in bytes, and the bytes of a float in the type that models are computed in."""

    memory: int
    width: int

    @classmethod
    def this(cls) -> "Machine":
        """Raises `BackendError` where MLX is missing."""
        return cls(backend.memory_total(), backend.compute_dtype().size)


@dataclass
class Entry:
    """One model.

    size: bytes of its files. weights: how they are stored, as in "4-bit affine g64" or "bf16". missing: files that are
    not there. text_only: the model takes pictures or sounds, and its weights have no part for them. needs: bytes of
    memory. fits: "yes", "tight" or "no". problem: why the model cannot be used. None stands for what is not known.
    """

    name: str
    path: str
    size: int
    family: str | None = None
    supported: bool = False
    weights: str | None = None
    complete: bool = False
    missing: list[str] = field(default_factory=list)
    text_only: bool = False
    needs: int | None = None
    fits: str | None = None
    problem: str | None = None


def catalog(notice: Notice) -> tuple[list[Entry], Machine | None]:
    """The models of this machine by name, the bundled ones first, and the machine; None where MLX is missing.

    notice: is called with a sentence for each thing that is left out.
    """
    try:
        machine = Machine.this()
    except BackendError as error:
        notice(f"What fits is not known. {error}")
        machine = None
    folders = demos()
    bundled = [(name, folders[kind], _size(folders[kind])) for name, kind in DEMOS.items() if kind in folders]
    return [describe(*model, machine) for model in [*bundled, *_cached(notice)]], machine


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _cached(notice: Notice) -> list[tuple[str, Path, int]]:
    """Name, folder and size of each model in the cache of the Hub that has a config.json, by name."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir()
    except (CacheNotFound, ValueError, OSError):
        return []
    for warning in cache.warnings:
        if "models--" in str(warning):
            notice(f"A model is left out: its files in the cache are damaged. {' '.join(str(warning).split())}")
    models = []
    for repository in sorted(cache.repos, key=lambda repository: repository.repo_id.lower()):
        revisions = sorted(repository.revisions, key=lambda revision: ("main" in revision.refs, revision.last_modified))
        if repository.repo_type == "model" and revisions and (revisions[-1].snapshot_path / "config.json").is_file():
            models.append((repository.repo_id, revisions[-1].snapshot_path, repository.size_on_disk))
    return models


def describe(name: str, folder: Path, size: int, machine: Machine | None) -> Entry:
    """The entry of one model. Reads no weights."""
    entry = Entry(name, str(folder), size)
    try:
        config = files.read_config(folder)
        entry.family = files.model_type(config)
        entry.supported = entry.family in FAMILIES
        entry.missing = files.missing_files(folder)
        files.check_supported(config)
        if foreign := files.foreign_weights([path.name for path in folder.iterdir()]):
            raise CheckpointError(f"{name} {foreign}.")
        settings = files.quantization(config)
        if entry.missing:
            entry.weights = stored_as(settings, {})
        else:
            _describe_weights(entry, folder, config, settings, machine)
    except (LimeError, OSError) as error:
        entry.problem = str(error)
    return entry


def _describe_weights(
    entry: Entry,
    folder: Path,
    config: Mapping[str, object],
    settings: Mapping[str, object] | None,
    machine: Machine | None,
) -> None:
    tensors = {name: kind for path in files.shards(folder) for name, kind in files.header(path).items()}
    entry.weights = stored_as(settings, tensors)
    entry.complete = bool(tensors)
    if tensors:
        entry.text_only = _takes_media(config) and not any(TOWERS.search(name) for name in tensors)
    if tensors and machine:
        entry.needs = files.held_bytes(tensors.values(), machine.width) + OVERHEAD
        entry.fits = how_it_fits(entry.needs)


def _takes_media(config: Mapping[str, object]) -> bool:
    """Whether a model takes pictures or sounds, by its config.json."""
    return bool(takes(files.model_type(config))) or any(config.get(key) is not None for key in files.IMAGE_TOKENS)


def stored_as(settings: Mapping[str, object] | None, tensors: Mapping[str, tuple[str, int]]) -> str | None:
    """How weights are stored, as in "4-bit affine g64" or "bf16": of floats, the type that takes the most bytes.

    settings: of the quantisation, None for floats. tensors: type and bytes of each. None for no tensors.
    """
    if settings is None:
        sizes: dict[str, int] = {}
        for kind, size in tensors.values():
            sizes[kind] = sizes.get(kind, 0) + size
        if not sizes:
            return None
        largest = max(sizes, key=lambda kind: sizes[kind])
        return TYPE_WORDS.get(largest, largest)
    mode = str(settings.get("mode", "affine"))
    group, bits = files.MODES[mode]
    layers = [layer["bits"] for layer in settings.values() if isinstance(layer, dict) and "bits" in layer]
    all_bits = sorted({str(number) for number in [settings.get("bits", bits), *layers]})
    return f"{'/'.join(all_bits)}-bit {mode} g{settings.get('group_size', group)}"


def how_it_fits(size: int) -> str:
    """Whether `size` bytes fit in the memory of this machine: "yes", "tight" or "no"."""
    if backend.fits(size, backend.COMFORTABLE):
        return "yes"
    return "tight" if backend.fits(size) else "no"


def readable(size: int) -> str:
    """Bytes for people: "5.8 GB", "12.0 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
