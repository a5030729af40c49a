"""What a target is: valid inputs, how they change, and what must hold of each input.

A target's `attempt` takes one input. It returns whether the input came past the first check, and raises `LimeError` for
what is refused. Anything else that it raises is a find, and so is one that takes longer than `SECONDS` or more memory
than `BYTES`.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from fuzz.mutate import Choose, changed_bytes, changed_json, changed_text
from lime_mlx.checkpoint.hub import demos

SECONDS, BYTES = 5.0, 2 << 30
ROOT = Path(__file__).parent.parent.parent
SEEDS = Path(__file__).parent / "seeds"


@dataclass(frozen=True)
class Target:
    """seeds: makes the valid inputs. change: from a seed's index to an input. modules: whose branches count.

    slow: an input needs a process or a model.
    """

    name: str
    make_seeds: Callable[[], list[bytes]]
    attempt: Callable[[bytes], bool]
    modules: tuple[str, ...]
    kind: str = "json"
    words: tuple[str, ...] = ()
    slow: bool = False
    grown: list[bytes] = field(default_factory=list)

    @cached_property
    def seeds(self) -> list[bytes]:
        return self.make_seeds()

    def drawn(self, choose: Choose) -> bytes:
        """An input near a seed, or near one that reached a new branch; the seed where that cannot be changed so."""
        seeds = self.seeds + self.grown
        seed = seeds[choose(len(seeds))]
        if self.kind == "json":
            try:
                return changed_json(json.loads(seed), _parsed(tuple(self.seeds)), choose)
            except (ValueError, RecursionError):
                return changed_bytes(seed, self.seeds, choose)
        if self.kind == "text":
            text = changed_text(seed.decode(errors="replace"), self.words, choose)
            return text.encode(errors="replace")
        return changed_bytes(seed, self.seeds, choose)


@cache
def _parsed(seeds: tuple[bytes, ...]) -> list[object]:
    return [json.loads(seed) for seed in seeds]


def dumped(*values: object) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


@cache
def room() -> Path:
    """A folder in memory, where there is one, for what must be a file."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="lime-fuzz-", dir=memory if memory.is_dir() else None))


@cache
def own_room(name: str, copied: str | None = None) -> Path:
    folder = room() / name
    if copied:
        shutil.copytree(demos()[copied], folder)
    else:
        folder.mkdir()
    return folder
