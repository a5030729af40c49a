"""lime-mlx models: the supported families, the models in the local cache, and which of them fit in memory."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import click

from lime_mlx.errors import BackendError, CheckpointError, LimeError

OVERHEAD = 2 * 10**9  # bytes beside the weights: KV cache, activations and the buffers that MLX keeps
COMFORTABLE = 0.7
RULE = (
    f"Fits: the weights as they are held while running, and {OVERHEAD / 1e9:.0f} GB for cache and activations, take up "
    f"to {100 * COMFORTABLE:.0f} % of the memory (yes), up to all of it (tight), or more (no)."
)
FLOATS = {"BF16": "bf16", "F16": "float16", "F32": "float32"}
BYTES = {"BF16": 2, "F16": 2, "F32": 4}
TOWERS = re.compile(r"vision|visual|audio")
WIDE = 160


class Machine(NamedTuple):
    """Memory in bytes, and the bytes of a float in the type that models are computed in."""

    memory: int
    width: int


@click.command(epilog=RULE)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def command(as_json):
    """The supported families, what is in the local cache of the Hub, and what fits in memory.

    Nothing is downloaded. The cache is where HF_HUB_CACHE or HF_HOME say.
    """
    from lime_mlx.checkpoint.hub import demos
    from lime_mlx.models import FAMILIES, takes

    machine = this_machine()
    entries = [describe(f"demo ({name})", folder, size_of(folder), machine) for name, folder in demos().items()]
    entries += cached(machine)
    families = {name: ["text", *takes(name)] for name in FAMILIES}
    if as_json:
        memory = machine and machine.memory
        click.echo(json.dumps({"families": families, "memory": memory, "models": entries}, ensure_ascii=False))
    else:
        show(families, entries, machine)


def this_machine() -> Machine | None:
    """None, and a note, where MLX is missing."""
    from lime_mlx import backend

    try:
        return Machine(backend.memory_total(), backend.compute_dtype().size)
    except BackendError as error:
        click.echo(f"Note: what fits is not known. {error}", err=True)
        return None


def cached(machine: Machine | None) -> list[dict]:
    """An entry for each model of the cache that has a config.json, by name."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir()
    except (CacheNotFound, ValueError, OSError):
        return []
    for warning in cache.warnings:
        if "models--" in str(warning):
            click.echo(f"Note: left out, damaged in the cache. {' '.join(str(warning).split())}", err=True)
    entries = []
    for repository in sorted(cache.repos, key=lambda repository: repository.repo_id.lower()):
        revisions = sorted(repository.revisions, key=lambda revision: ("main" in revision.refs, revision.last_modified))
        if repository.repo_type == "model" and revisions and (revisions[-1].snapshot_path / "config.json").is_file():
            folder = revisions[-1].snapshot_path
            entries.append(describe(repository.repo_id, folder, repository.size_on_disk, machine))
    return entries


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def describe(name: str, folder: Path, size: int, machine: Machine | None) -> dict:
    """What --json prints for one model; `problem` says why it cannot be used. Reads no weights."""
    from lime_mlx.checkpoint import files
    from lime_mlx.models import FAMILIES

    entry = {"name": name, "path": str(folder), "size": size, "family": None, "supported": False, "weights": None}
    entry |= {"complete": False, "missing": [], "text_only": False, "needs": None, "fits": None, "problem": None}
    try:
        config = files.read_config(folder)
        entry["family"] = config["model_type"]
        entry["supported"] = config["model_type"] in FAMILIES
        entry["missing"] = files.missing(folder)
        files.check_supported(config)
        if foreign := files.foreign_weights([path.name for path in folder.iterdir()]):
            raise CheckpointError(f"{name} {foreign}.")
        settings = files.quantization(config)
        tensors = (
            {} if entry["missing"] else {k: v for path in files.shards(folder) for k, v in files.header(path).items()}
        )
        entry["weights"] = spelled(settings, tensors)
        if tensors:
            entry["complete"] = True
            entry["text_only"] = takes_media(config) and not any(TOWERS.search(tensor) for tensor in tensors)
            if machine:
                entry["needs"] = held(tensors, machine.width) + OVERHEAD
                entry["fits"] = fits(entry["needs"], machine.memory)
    except (LimeError, OSError) as error:
        entry["problem"] = str(error)
    return entry


def takes_media(config: dict) -> bool:
    """Whether a model is one of pictures or sounds, by its config.json."""
    from lime_mlx.checkpoint.files import IMAGE_TOKENS
    from lime_mlx.models import takes

    return bool(takes(config["model_type"])) or any(config.get(key) is not None for key in IMAGE_TOKENS)


def spelled(settings: dict | None, tensors: dict) -> str | None:
    """The kind of weights, as in "4-bit affine g64" or "bf16"; of floats, the kind that takes the most room."""
    if settings is None:
        room = {kind: sum(size for other, size in tensors.values() if other == kind) for kind, _ in tensors.values()}
        kind = max(room, key=room.get, default=None)
        return FLOATS.get(kind, kind)
    from lime_mlx.checkpoint.files import MODES

    mode = settings.get("mode", "affine")
    group, bits = MODES[mode]
    layers = [layer["bits"] for layer in settings.values() if isinstance(layer, dict) and "bits" in layer]
    all_bits = sorted({str(number) for number in [settings.get("bits", bits), *layers]})
    return f"{'/'.join(all_bits)}-bit {mode} g{settings.get('group_size', group)}"


def held(tensors: dict, width: int) -> int:
    """Bytes of the weights while they run: all-float32 ones stay so, other floats take the type of the machine."""
    floats = {kind for kind, _ in tensors.values()} & BYTES.keys()
    width = BYTES["F32"] if floats == {"F32"} else width
    return sum(size // BYTES[kind] * width if kind in BYTES else size for kind, size in tensors.values())


def fits(needed: float, memory: int) -> str:
    return "yes" if needed <= COMFORTABLE * memory else "tight" if needed <= memory else "no"


def show(families: dict[str, list[str]], entries: list[dict], machine: Machine | None) -> None:
    """Both tables, and the rule under them."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDE
    supported = Table("Family", "Takes", box=None, pad_edge=False)
    for name, kinds in families.items():
        supported.add_row(name, ", ".join(kinds))
    console.print(supported)
    console.print()
    models = Table("Model", "Size", "Family", "Weights", "Fits", "State", box=None, pad_edge=False)
    models.columns[1].justify = "right"
    models.columns[0].overflow = models.columns[-1].overflow = "fold"
    for entry in entries:
        cells = (entry["family"] or "?", entry["weights"] or "?", entry["fits"] or "?", state(entry))
        models.add_row(entry["name"], readable(entry["size"]), *cells)
    console.print(models)
    console.print()
    console.print(f"Memory: {machine.memory / 1e9:.1f} GB. {RULE}" if machine else RULE)


def readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def state(entry: dict) -> str:
    if entry["family"] and not entry["supported"]:
        return "not supported"
    if entry["problem"]:
        return entry["problem"].replace(f"{entry['path']}/", "")
    if entry["missing"]:
        return f"incomplete: {', '.join(entry['missing'])} missing"
    return "text-only conversion" if entry["text_only"] else "complete"
