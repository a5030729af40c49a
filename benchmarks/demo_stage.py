"""A stage of the training of a demo checkpoint, and its progress."""

from dataclasses import dataclass

from rich.progress import Progress, TextColumn, TimeRemainingColumn

from lime_mlx.scenes.habits import EMPTY

# How much oftener a kind of free question comes in a stage that is hard.
HARD = {"beside": 6.0, "second": 4.0, "colour": 4.0, "order": 3.0, "twice": 3.0, "name": 3.0, "leading": 2.0}


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    `asked` yes/no questions and `free` ones go beside one caption for every scene of a batch. unseen: how often a
    companion is named that is not there. `empty` scenes are added. hard: free questions that are hard come more often.
    second: how many of the captions are replaced by a conversation of two turns, where there are free questions.
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
    hard: bool = False
    second: float = 0.33

    @property
    def speaks(self) -> bool:
        """Whether sentences are learnt; else what is on each patch, or at each moment."""
        return self.asked + self.free > 0

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
