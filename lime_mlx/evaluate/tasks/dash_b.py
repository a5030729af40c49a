"""DASH-B: can you see a ...? Pictures that trigger hallucinations, and pictures with the object (arXiv 2503.23573).

Fields and scorer are those of YanNeu/DASH-B at 1538d01: images/dash_benchmark_{neg,pos}.json hold {dataset: {object:
[file]}}, src/data/dash_b.py makes the question, src/eval_utils.py scores the answers.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from lime_mlx.errors import DataError
from lime_mlx.evaluate.data.layout import DASH_B, DASH_B_FILES, task_folder
from lime_mlx.evaluate.records import Material, Record
from lime_mlx.evaluate.scorers.metrics import Metric, harmonic
from lime_mlx.spec import Range

from .base import Item, Task, drawn


@dataclass(frozen=True)
class DashB(Task):
    """`dash-b:tokens=15`: 1,341 pictures without an object and as many with one, of 70 objects.

    The headline is the harmonic mean of the rates of true positives and true negatives. tokens: of the longest answer,
    as the official program's own models have it. Pictures lie in DATA/dash-b/neg and pos/<dataset>/<object>.
    """

    name = DASH_B
    scorers: ClassVar = {"ours": "ours", "official": "anywhere"}

    tokens: Annotated[int, Range(1)] = 15

    def items(self, data: Path | None, limit: int | None = None, seed: int = 0) -> list[Item]:
        home = task_folder(data, self.name, list(DASH_B_FILES.values()))
        items = []
        for label, name in DASH_B_FILES.items():
            for dataset, thing, file in _entries(home / name):
                medium = f"{'pos' if label == 'yes' else 'neg'}/{dataset}/{thing}/{file}"
                question = f"Can you see a {thing} in this image? Please answer only with yes or no."
                items.append(Item(medium, medium, question, self.tokens, label=label))
        return drawn(items, limit, seed)

    def source(self, data: Path | None, medium: str) -> Path:
        return task_folder(data, self.name, list(DASH_B_FILES.values())) / medium

    def metrics(self, records: Sequence[Record], scorer: str, material: Material) -> list[Metric]:
        return [*harmonic(records, self.verdicts(records, scorer), "all"), *self.judged(records, "all", scorer)]


def _entries(file: Path) -> Iterator[tuple[str, str, str]]:
    """The dataset, object and file of each picture."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        for dataset, things in table.items():
            for thing, names in things.items():
                for name in names:
                    yield dataset, thing, str(name)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{file} cannot be read as pictures by dataset and object ({error}).") from None
