"""NaturalBench: two questions on two pictures, with answers that swap (Li et al. 2024, arXiv 2410.14669).

Fields and scorer are those of Baiqi-Li/NaturalBench at 9967605: dataset_split_for_finetuning/test_set.json holds
[question, picture, answer, kind], four in a row for a group, and evaluation.py beside it scores them. That program
stops at the kind "mcq", as the file calls multiple choice; here it is read as such.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from lime_mlx.errors import DataError
from lime_mlx.evaluate.data.layout import NATURALBENCH, NATURALBENCH_FILE, picture_path, task_folder
from lime_mlx.evaluate.records import Material, Record, names
from lime_mlx.evaluate.scorers.answers import NO, UNKNOWN, YES, first_word, ours
from lime_mlx.evaluate.scorers.metrics import LESS, MORE, Metric, all_right, ratio
from lime_mlx.spec import Range

from .base import Item, Task, drawn

ANSWERS = {"Yes": YES, "No": NO, "A": "A", "B": "B"}
KINDS = {"yes_no": (YES, NO), "mcq": ("A", "B"), "multiple_choice": ("A", "B")}
# The places in a group: question and picture.
PLACES = ("q0_i0", "q0_i1", "q1_i0", "q1_i1")
_LETTER = re.compile(
    r"^\W*(?:(?:the )?(?:correct )?(?:answer|option)(?: is)?\W*)?(?:option )?\(?([AB])\b(?!\s+[a-z])", re.IGNORECASE
)


@dataclass(frozen=True)
class NaturalBench(Task):
    """`naturalbench:tokens=16`: 950 groups of two questions on two pictures, the published test split.

    The whole set, 1,900 groups, is published as Parquet only, and is not read here. tokens: as lmms-eval has it.
    """

    name = NATURALBENCH
    scorers: ClassVar = {"ours": "ours", "official": "first"}

    tokens: Annotated[int, Range(1)] = 16

    def items(self, data: Path | None, limit: int | None = None, seed: int = 0) -> list[Item]:
        file = task_folder(data, self.name, [NATURALBENCH_FILE]) / NATURALBENCH_FILE
        items = []
        for number, row in enumerate(_rows(file)):
            if not isinstance(row, list) or len(row) != 4 or row[3] not in KINDS or row[2] not in ANSWERS:
                raise DataError(f"{file}: entry {number + 1} is no question, picture, answer and kind.")
            text, picture, answer, kind = map(str, row)
            given = ANSWERS[answer]
            if given not in KINDS[kind]:
                raise DataError(f"{file}: entry {number + 1} has the answer {answer} to a question of kind {kind}.")
            name = f"{number // 4}/{PLACES[number % 4]}"
            label = given if kind == "yes_no" else None
            items.append(Item(name, picture, text, self.tokens, "all", label, None if label else [given]))
        return drawn(items, limit, seed)

    def source(self, data: Path | None, medium: str) -> Path:
        return picture_path(data, self.name, medium)

    def metrics(self, records: Sequence[Record], scorer: str, material: Material) -> list[Metric]:
        read = _official if scorer == "official" else _ours
        verdicts = [read(record["text"], record["label"] is None) for record in records]
        wanted = [record["label"] or names(record["truth"])[0] for record in records]
        hits = [verdict == label for verdict, label in zip(verdicts, wanted, strict=True)]
        keys = [record["id"].split("/") for record in records]

        def grouped(name: str, part: slice) -> Metric:
            return all_right(name, "all", [f"{group}/{place[part]}" for group, place in keys], hits)

        return [
            ratio("accuracy", "all", records, hits, goal=MORE, binary=True),
            grouped("Q_Acc", slice(0, 2)),
            grouped("I_Acc", slice(3, 5)),
            grouped("G_Acc", slice(0)),
            ratio("unknown", "all", records, [verdict == UNKNOWN for verdict in verdicts], goal=LESS),
        ]


def _ours(text: str, choice: bool) -> str:
    """Yes or no, or the letter with which an answer begins."""
    if not choice:
        return ours(text)
    match = _LETTER.match(text.strip())
    return match.group(1).upper() if match else UNKNOWN


def _official(text: str, choice: bool) -> str:
    """The one of the two words that comes first as a word, in any case: the article a is an A."""
    return first_word(text, ("A", "B") if choice else (YES, NO))


def _rows(file: Path) -> list[object]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON ({error}): lime-mlx data get {NATURALBENCH}.") from None
    if not isinstance(rows, list) or not rows or len(rows) % 4:
        raise DataError(f"{file} is no list of groups of four questions.")
    return rows
