"""HallusionBench: questions on figures and on their edited copies (Guan et al. 2024, arXiv 2310.14566).

Fields are those of HallusionBench.json in tianyi-lab/HallusionBench at 744007c, figures those of its utils.py. There a
language model judges each answer as right, wrong or unclear; here yes or no is read from the answer, and an answer that
is neither is unclear.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from lime_mlx.errors import DataError
from lime_mlx.evaluate.data.layout import HALLUSION_BENCH, HALLUSION_FILE, task_folder
from lime_mlx.evaluate.records import Material, Record
from lime_mlx.evaluate.scorers.answers import NO, UNKNOWN, YES
from lime_mlx.evaluate.scorers.metrics import LESS, MORE, Metric, all_right, ratio
from lime_mlx.spec import Range

from .base import Item, MediaSource, Task, drawn

KEYS = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id", "question", "gt_answer")
EDITED = "2"
# Where a question has no figure, what stands for its picture begins so.
TEXT = "text"
Key = tuple[str, ...]


@dataclass(frozen=True)
class HallusionBench(Task):
    """`hallusion-bench:part=image,tokens=128`: yes/no questions, in the splits VD and VS, and all.

    VD questions depend on the figure, VS questions have a figure as a supplement. part: image, the 951 questions with a
    figure; all, also the 178 that are asked without one, where an unclear answer counts as right. tokens: as lmms-eval
    has it; the official program leaves it to its user.
    """

    name = HALLUSION_BENCH
    scorers: ClassVar = {"ours": "ours"}

    part: Literal["image", "all"] = "image"
    tokens: Annotated[int, Range(1)] = 128

    def items(self, data: Path | None, limit: int | None = None, seed: int = 0) -> list[Item]:
        file = task_folder(data, self.name, [HALLUSION_FILE]) / HALLUSION_FILE
        items = [self._item(file, number, row) for number, row in enumerate(_rows(file), start=1)]
        return drawn([item for item in items if self.part == "all" or not _is_text(item.medium)], limit, seed)

    def _item(self, file: Path, number: int, row: dict[str, object]) -> Item:
        if row["gt_answer"] not in ("0", "1") or row["category"] not in ("VD", "VS"):
            raise DataError(f"{file}: entry {number} has an unknown gt_answer or category.")
        category, subcategory, visual, group, figure, question, text, answer = (str(row[key]) for key in KEYS)
        name = "/".join((category, subcategory, group, figure, question, visual))
        stem = f"{category}/{subcategory}/{group}_{figure}"
        medium = f"{TEXT}/{stem}" if row.get("filename") is None else f"{stem}.png"
        return Item(name, medium, text, self.tokens, category, YES if answer == "1" else NO)

    def source(self, data: Path | None, medium: str) -> MediaSource | None:
        if _is_text(medium):
            return None
        home = task_folder(data, self.name, [HALLUSION_FILE])
        # The archive of figures has a folder of that name.
        unpacked = home / "hallusion_bench" / medium
        return unpacked if unpacked.is_file() else home / medium

    def metrics(self, records: Sequence[Record], scorer: str, material: Material) -> list[Metric]:
        verdicts = self.verdicts(records, scorer)
        hits = [_right(record, verdict) for record, verdict in zip(records, verdicts, strict=True)]
        unclear = [verdict == UNKNOWN for verdict in verdicts]
        metrics = []
        for split in ("all", *dict.fromkeys(record["split"] for record in records)):
            part = [index for index, record in enumerate(records) if split in ("all", record["split"])]
            metrics += _figures(split, [records[i] for i in part], [hits[i] for i in part], [unclear[i] for i in part])
        return metrics


def _figures(split: str, records: list[Record], hits: list[bool], unclear: list[bool]) -> list[Metric]:
    """aAcc, fAcc and qAcc of one split, the two parts of qAcc, and the share of unclear answers."""

    def grouped(name: str, of: Callable[[Key], Key], kept: Callable[[Key], bool]) -> Metric:
        chosen = [
            (record, hit) for record, hit in zip(records, hits, strict=True) if kept(tuple(record["id"].split("/")))
        ]
        keys = ["/".join(of(tuple(record["id"].split("/")))) for record, _ in chosen]
        return all_right(name, split, keys, [hit for _, hit in chosen])

    def question(key: Key) -> Key:
        return (*key[:3], key[4])

    return [
        ratio("aAcc", split, records, hits, goal=MORE, binary=True),
        grouped("fAcc", lambda key: key[:4], lambda key: not _without_figure(key)),
        grouped("qAcc", question, lambda key: True),
        grouped("qAcc easy", question, lambda key: key[5] != EDITED),
        grouped("qAcc hard", question, lambda key: key[5] == EDITED),
        ratio("unknown", split, records, unclear, goal=LESS),
    ]


def _right(record: Record, verdict: str) -> bool:
    """Whether an answer is right; who has no figure may be unclear."""
    unclear = verdict == UNKNOWN and _without_figure(tuple(record["id"].split("/")))
    return unclear or verdict == record["label"]


def _without_figure(key: Key) -> bool:
    return key[0] == "VS" and key[3] == "0"


def _is_text(medium: str) -> bool:
    return medium.startswith(f"{TEXT}/")


def _rows(file: Path) -> list[dict[str, object]]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON ({error}): lime-mlx data get {HALLUSION_BENCH}.") from None
    for number, row in enumerate(rows if isinstance(rows, list) and rows else [None], start=1):
        if not isinstance(row, dict) or any(key not in row for key in KEYS):
            raise DataError(f"{file}: entry {number} has no {', '.join(KEYS)}.")
    return list(rows)
