"""MME's questions on objects: existence, count, position, color (Fu et al. 2023, arXiv 2306.13394).

DATA/mme/<part>/ has pictures and, for each, a text file of its name with two lines: question, tab, Yes or No. The
official reading takes an answer that is "yes" or "no", else either word in its first four characters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lime_mlx.errors import DataError
from lime_mlx.evaluate import answers
from lime_mlx.evaluate.answers import NO, UNKNOWN, YES
from lime_mlx.evaluate.metrics import MORE, Metric, by_medium, by_split, yes_no

from .base import Item, Task, drawn, folder

PARTS = ("existence", "count", "position", "color")
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Mme(Task):
    """`mme:part=all`: one part, or all four. The score of a part is 100 (accuracy + accuracy+), 200 at most.

    accuracy+ is the share of pictures of which both questions are answered rightly.
    """

    name = "mme"
    scorers = ("ours", "official")

    part: str = "all"

    def __post_init__(self):
        if self.part not in ("all", *PARTS):
            raise DataError(f"mme: part is {self.part!r}; choose one of all, {', '.join(PARTS)}.")

    def items(self, data, limit=None, seed=0):
        parts = PARTS if self.part == "all" else (self.part,)
        home, found = folder(data, self.name, parts), []
        for part in parts:
            files = sorted((home / part).glob("*.txt"))
            if not files:
                raise DataError(f"There is no text file with questions in {home / part}: lime-mlx data get mme.")
            for file in files:
                pictures = [path.name for path in (file.with_suffix(ending) for ending in SUFFIXES) if path.is_file()]
                medium = f"{part}/{pictures[0] if pictures else file.with_suffix('.jpg').name}"
                pair = list(_questions(file))
                if len(pair) != 2:
                    raise DataError(f"{file}: expected two questions, not {len(pair)}.")
                found += [
                    Item(f"{part}/{file.stem}/{number}", medium, question, 16, part, label)
                    for number, (question, label) in enumerate(pair, start=1)
                ]
        return drawn(found, limit, seed)

    def source(self, data, medium):
        return folder(data, self.name, PARTS) / medium

    def metrics(self, records, scorer, material):
        read = official if scorer == "official" else answers.ours

        def figures(part, split):
            verdicts = [read(record["text"]) for record in part]
            right = [said == record["label"] for said, record in zip(verdicts, part, strict=True)]
            accuracy, *others = yes_no(part, verdicts, split)
            plus = by_medium("accuracy+", split, part, right, goal=MORE, binary=True)
            return [score(accuracy, plus), accuracy, plus, *others]

        return by_split(records, figures)


def _questions(file: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = file.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text ({error}).") from None
    for number, line in enumerate(lines, start=1):
        question, tab, label = line.rpartition("\t")
        if not tab or not question.strip() or label.strip().lower() not in (YES, NO):
            raise DataError(f"{file}:{number}: expected a question, a tab, and Yes or No.")
        yield question.strip(), label.strip().lower()


def score(accuracy: Metric, plus: Metric) -> Metric:
    """100 (accuracy + accuracy+); each picture adds its part of both."""
    share = len(plus.ids) / len(accuracy.ids)
    right = dict.fromkeys(plus.ids, 0.0)
    for medium, hit in zip(accuracy.media, accuracy.top, strict=True):
        right[medium] += share * hit
    top = 100 * (np.array([right[name] for name in plus.ids]) + plus.top)
    return Metric("score", plus.split, plus.ids, plus.media, top, plus.bottom, MORE, "points")


def official(text: str) -> str:
    """The reading of MME's own program."""
    said = text.lower()
    return YES if YES in said[:4] else NO if NO in said[:4] else UNKNOWN
