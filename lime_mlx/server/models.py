"""The models that requests may name: those on this machine, loaded on demand, as many in memory as is allowed."""

from __future__ import annotations

import gc
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mlx.core as mx

from lime_mlx.checkpoint.catalog import catalog
from lime_mlx.checkpoint.files import model_type, read_config
from lime_mlx.checkpoint.hub import DEMOS, locate
from lime_mlx.checkpoint.load import load
from lime_mlx.errors import CheckpointError
from lime_mlx.kv import DEFAULT, KVOptions
from lime_mlx.models import takes
from lime_mlx.models.base import Model
from lime_mlx.prefixes import Prefixes
from lime_mlx.processor import Processor
from lime_mlx.server.errors import ApiError
from lime_mlx.server.settings import Settings

# Seconds until the cache of the Hub is looked through again.
FRESH = 30.0


@dataclass(frozen=True)
class Listed:
    """A model that may be named. source: where it is loaded from. takes: "image", "audio". created: seconds of Unix."""

    name: str
    source: str
    folder: Path
    takes: Sequence[str]
    created: int


@dataclass
class Loaded:
    """A model in memory, with what is kept of earlier prompts, and the options of the cache."""

    name: str
    folder: Path
    model: Model
    processor: Processor
    prefixes: Prefixes
    kv: KVOptions = DEFAULT


class Models:
    """The models of a server. `get` belongs to the thread that computes; the others may call the rest."""

    def __init__(self, settings: Settings, notice: Callable[[str], None]) -> None:
        self._settings, self._notice = settings, notice
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._listed: dict[str, Listed] = {}
        self._listed_at = -FRESH

    @cached_property
    def default(self) -> Listed:
        """The model of requests that name none. Raises `CheckpointError`."""
        source = self._settings.model
        folder = locate(source, revision=self._settings.revision)
        is_folder = source not in DEMOS and Path(source).expanduser().is_dir()
        return _listed(folder.resolve().name if is_folder else source, source, folder)

    @property
    def in_memory(self) -> list[str]:
        return list(self._loaded)

    def listed(self) -> dict[str, Listed]:
        """The models by name, the default first; one that is given as a folder has the folder's name."""
        if time.monotonic() - self._listed_at >= FRESH:
            entries = [entry for entry in catalog(lambda sentence: None)[0] if entry.complete and entry.supported]
            usable = [entry for entry in entries if entry.problem is None and not entry.text_only]
            others = [_listed(entry.name, entry.name, Path(entry.path)) for entry in usable]
            self._listed = {model.name: model for model in [self.default, *others, self.default]}
            self._listed_at = time.monotonic()
        return self._listed

    def named(self, name: str | None) -> Listed:
        """The model that a request names; a name is never taken for a path. Raises `ApiError`, 404."""
        if name is None or name == self.default.name:
            return self.default
        if name not in self.listed():
            raise ApiError(404, "This server has no such model; /v1/models lists those it has.", "model", MISSING)
        return self.listed()[name]

    def get(self, name: str) -> Loaded:
        """A model in memory; the least recently used one makes room. Raises `LimeError`."""
        if name not in self._loaded:
            while len(self._loaded) >= self._settings.models:
                self._loaded.popitem(last=False)
                gc.collect()
                mx.clear_cache()
            listed = self.named(name)
            began = time.perf_counter()
            revision = self._settings.revision if listed is self.default else None
            model, processor = load(listed.source if listed is self.default else listed.folder, revision=revision)
            prefixes, kv = Prefixes(model, self._settings.prefixes), self._settings.kv
            self._loaded[name] = Loaded(name, listed.folder, model, processor, prefixes, kv)
            self._notice(f"loaded {name} in {time.perf_counter() - began:.1f} s")
        self._loaded.move_to_end(name)
        return self._loaded[name]


MISSING = "model_not_found"


def _listed(name: str, source: str, folder: Path) -> Listed:
    config = folder / "config.json"
    if not config.is_file():
        raise CheckpointError(f"{folder} has no config.json; give the folder of a model.")
    family = model_type(read_config(folder))
    return Listed(name, source, folder, sorted(takes(family)), int(config.stat().st_mtime))
