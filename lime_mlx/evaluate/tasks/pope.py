"""POPE: is there a ... in the image? On pictures of COCO, A-OKVQA and GQA (Li et al. 2023, arXiv 2305.10355).

A question file has JSON lines, or one JSON array, of {question_id, image, text, label}.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from lime_mlx.errors import DataError
from lime_mlx.evaluate.data.layout import POPE, POPE_SETS, POPE_SPLITS, picture_path, pope_file, task_folder
from lime_mlx.evaluate.records import Material, Record
from lime_mlx.evaluate.scorers.answers import NO, UNKNOWN, YES
from lime_mlx.evaluate.scorers.metrics import Metric, by_split
from lime_mlx.files import parse_json, read_regular
from lime_mlx.spec import Choice, Range

from .base import Item, Task, drawn

KEYS = ("question_id", "image", "text", "label")


@dataclass(frozen=True)
class Question:
    """One line of a question file. label: "yes" or "no"."""

    id: str
    image: str
    text: str
    label: str


@dataclass(frozen=True)
class Pope(Task):
    """`pope:set=coco,split=all,tokens=16`: the questions as they stand in the files.

    set: repope has COCO's questions with mended labels, without the ambiguous ones (arXiv 2504.15707); yes and no are
    not balanced there. Its official program looks for yes, then for no, anywhere in an answer, and leaves out answers
    with neither (YanNeu/RePOPE at bcf22e5, src/eval_utils.py). split: all, or one of the three.
    """

    name = POPE
    scorers: ClassVar = {"ours": "ours", "official": "pope", "vcd": "vcd"}

    set: Annotated[str, Choice(*POPE_SETS)] = "coco"
    split: Annotated[str, Choice("all", *POPE_SPLITS)] = "all"
    tokens: Annotated[int, Range(1)] = 16

    def items(self, data: Path | None, limit: int | None = None, seed: int = 0) -> list[Item]:
        home = task_folder(data, self.name, [self.set])
        items = []
        for split in POPE_SPLITS if self.split == "all" else (self.split,):
            names = [(home / pope_file(self.set, split)).with_suffix(ending) for ending in (".json", ".jsonl")]
            file = next((name for name in names if name.is_file()), None)
            if file is None:
                raise DataError(f"There is no {names[0]}: lime-mlx data get pope brings the files.")
            items += [
                Item(f"{split}/{question.id}", question.image, question.text, self.tokens, split, question.label)
                for question in read_questions(file)
            ]
        return drawn(items, limit, seed)

    def source(self, data: Path | None, medium: str) -> Path:
        return picture_path(data, self.name, medium)

    def metrics(self, records: Sequence[Record], scorer: str, material: Material) -> list[Metric]:
        return by_split(records, lambda part, split: self._figures(part, split, scorer))

    def _figures(self, part: list[Record], split: str, scorer: str) -> list[Metric]:
        metrics = self.judged(part, split, scorer)
        if self.parser(scorer) != "anywhere":
            return metrics
        read = zip(part, self.verdicts(part, scorer), strict=True)
        decided = [record for record, verdict in read if verdict != UNKNOWN]
        return [*self.judged(decided, split, scorer)[:-1], metrics[-1]]

    def parser(self, scorer: str) -> str:
        return "anywhere" if self.set == "repope" and scorer == "official" else super().parser(scorer)


def read_questions(path: str | Path) -> list[Question]:
    """The questions of a file, in its order.

    Raises `DataError`, with file and line, for a line that is no question, an unknown label or an id given twice.
    """
    questions: list[Question] = []
    seen: dict[str, str] = {}
    for where, row in _rows(Path(path)):
        question = _question(where, row)
        if question.id in seen:
            raise DataError(f"{where}: question_id {question.id} was used before, at {seen[question.id]}")
        seen[question.id] = where
        questions.append(question)
    if not questions:
        raise DataError(f"{path}: no questions in the file")
    return questions


def _question(where: str, row: object) -> Question:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with question_id, image, text and label")
    if missing := [name for name in KEYS if row.get(name) in (None, "")]:
        raise DataError(f"{where}: {' and '.join(missing)} missing")
    label = str(row["label"]).strip().lower()
    if label not in (YES, NO):
        raise DataError(f"{where}: label {row['label']!r} is neither yes nor no")
    return Question(str(row["question_id"]), str(row["image"]), str(row["text"]), label)


def _rows(path: Path) -> Iterator[tuple[str, object]]:
    """Where each entry stands, and the entry."""
    try:
        text = read_regular(path).removeprefix("\ufeff")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({getattr(error, 'strerror', None) or error})") from None
    if text.lstrip().startswith("["):
        try:
            rows = parse_json(text)
        except ValueError as error:
            line = getattr(error, "lineno", 1)
            raise DataError(f"{path}:{line}: not valid JSON ({getattr(error, 'msg', error)})") from None
        yield from ((f"{path}: entry {number}", row) for number, row in enumerate(rows, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = parse_json(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not valid JSON ({getattr(error, 'msg', error)})") from None
            yield f"{path}:{number}", row
