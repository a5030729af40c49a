"""MME's questions on objects: existence, count, position, color (Fu et al. 2023, arXiv 2306.13394).

DATA/mme/<part>/ has pictures and, for each, a text file of the same name with two lines: question, tab, Yes or No. The
official parser looks for yes or no in the first four characters of an answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np

from lime_mlx.errors import DataError
from lime_mlx.evaluate.data.layout import MME, MME_PARTS, task_folder
from lime_mlx.evaluate.records import Material, Record
from lime_mlx.evaluate.scorers.answers import NO, YES
from lime_mlx.evaluate.scorers.metrics import MORE, Metric, by_medium, by_split
from lime_mlx.media.formats import PICTURE_SUFFIXES, is_picture_name
from lime_mlx.spec import Choice

from .base import Item, Task, drawn


@dataclass(frozen=True)
class Mme(Task):
    """`mme:part=all`: one part, or all four. The score of a part is 100 (accuracy + accuracy+), 200 at most.

    accuracy+ is the share of pictures with right answers to both questions.
    """

    name = MME
    scorers: ClassVar = {"ours": "ours", "official": "mme"}

    part: Annotated[str, Choice("all", *MME_PARTS)] = "all"

    def items(self, data: Path | None, limit: int | None = None, seed: int = 0) -> list[Item]:
        parts = MME_PARTS if self.part == "all" else (self.part,)
        home = task_folder(data, self.name, parts)
        return drawn([item for part in parts for item in _part(home, part)], limit, seed)

    def source(self, data: Path | None, medium: str) -> Path:
        return task_folder(data, self.name, MME_PARTS) / medium

    def metrics(self, records: Sequence[Record], scorer: str, material: Material) -> list[Metric]:
        def figures(part: list[Record], split: str) -> list[Metric]:
            accuracy, *others = self.judged(part, split, scorer)
            plus = by_medium("accuracy+", split, part, [bool(hit) for hit in accuracy.top])
            return [mme_score(accuracy, plus), accuracy, plus, *others]

        return by_split(records, figures)


def _part(home: Path, part: str) -> Iterator[Item]:
    """The questions of one part."""
    files = sorted((home / part).glob("*.txt"))
    if not files:
        raise DataError(f"There is no text file with questions in {home / part}: lime-mlx data get mme.")
    pictures = pictures_of(home / part)
    for file in files:
        medium = f"{part}/{pictures.get(file.stem, file.with_suffix('.jpg')).name}"
        pair = list(_questions(file))
        if len(pair) != 2:
            raise DataError(f"{file}: expected two questions, not {len(pair)}.")
        for number, (question, label) in enumerate(pair, start=1):
            yield Item(f"{part}/{file.stem}/{number}", medium, question, 16, part, label)


def pictures_of(folder: Path) -> dict[str, Path]:
    """The pictures of a part by their names without ending; of several, the one whose ending is listed first."""
    pictures = [path for path in folder.glob("*") if is_picture_name(path) and path.is_file()]
    pictures.sort(key=lambda path: PICTURE_SUFFIXES.index(path.suffix.lower()), reverse=True)
    return {path.stem: path for path in pictures}


def _questions(file: Path) -> Iterator[tuple[str, str]]:
    """The questions of a picture with their labels."""
    try:
        lines = file.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text ({error}).") from None
    for number, line in enumerate(lines, start=1):
        question, tab, label = line.rpartition("\t")
        if not tab or not question.strip() or label.strip().lower() not in (YES, NO):
            raise DataError(f"{file}:{number}: expected a question, a tab, and Yes or No.")
        yield question.strip(), label.strip().lower()


def mme_score(accuracy: Metric, plus: Metric) -> Metric:
    """100 (accuracy + accuracy+); each picture adds its part of both."""
    share = len(plus.ids) / len(accuracy.ids)
    right = dict.fromkeys(plus.ids, 0.0)
    for medium, hit in zip(accuracy.media, accuracy.top, strict=True):
        right[medium] += share * float(hit)
    top = 100 * (np.array([right[name] for name in plus.ids]) + plus.top)
    return Metric("score", plus.split, plus.ids, plus.media, top, plus.bottom, MORE, "points")
