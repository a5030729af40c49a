"""The tasks, one file for each benchmark, and the spec that chooses one: `pope:set=aokvqa`."""

from lime_mlx.errors import DataError
from lime_mlx.spec import parse

from .amber import Amber
from .audio import AudioQuestions
from .base import Item, Task
from .chair import Chair
from .dash_b import DashB
from .free import Free, FreeSounds
from .hallusion import HallusionBench
from .mme import Mme
from .naturalbench import NaturalBench
from .pope import Pope
from .scenes import Scenes, Sounds

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        Scenes,
        Sounds,
        Free,
        FreeSounds,
        Pope,
        Chair,
        Amber,
        Mme,
        AudioQuestions,
        DashB,
        HallusionBench,
        NaturalBench,
    )
}


def parse_task(spec: "str | Task") -> Task:
    """The task of a spec `name` or `name:key=value,...`. Raises `DataError` that lists what is valid."""
    return spec if isinstance(spec, Task) else parse(spec, TASKS, "task", DataError)


__all__ = ["TASKS", "Item", "Task", "parse_task"]
