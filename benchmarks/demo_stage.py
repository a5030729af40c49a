"""A stage of the training of a demo checkpoint, and its progress."""

from dataclasses import dataclass

from rich.progress import Progress, TextColumn, TimeRemainingColumn


@dataclass(frozen=True)
class Stage:
    """`asked` questions go beside one caption for every scene of a batch; `unseen`: a companion that is not there."""

    name: str
    regime: str
    scenes: int
    steps: int
    batch: int
    lr: float
    asked: int
    unseen: float = 0.0


def progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), TextColumn("{task.completed:.0f}/{task.total:.0f}"), TimeRemainingColumn()
    )


def track(items, description: str):
    with progress() as shown:
        yield from shown.track(items, description=description)
