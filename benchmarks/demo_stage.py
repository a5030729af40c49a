"""A stage of the training of a demo checkpoint, and its progress."""

from dataclasses import dataclass

from rich.progress import Progress, TextColumn, TimeRemainingColumn

from lime_mlx.scenes.habits import EMPTY


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    `asked` yes/no questions and `free` ones go beside one caption for every scene of a batch. unseen: how often a
    companion is named that is not there. `empty` scenes are added.
    """

    name: str
    regime: str
    scenes: int
    steps: int
    batch: int
    lr: float
    asked: int
    free: int = 0
    unseen: float = 0.0
    empty: int = 0

    def seeds(self) -> list[tuple[str, int]]:
        """Regime and seed of each scene."""
        return [(self.regime, seed) for seed in range(self.scenes)] + [(EMPTY, seed) for seed in range(self.empty)]

    @property
    def pool(self) -> str:
        """The name of its scenes."""
        return f"{self.regime}-{self.scenes}-{self.unseen}-{self.empty}.npz"


def progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), TextColumn("{task.completed:.0f}/{task.total:.0f}"), TimeRemainingColumn()
    )


def track(items, description: str):
    with progress() as shown:
        yield from shown.track(items, description=description)
