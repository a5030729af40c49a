"""Questions about objects in sounds (Kuan et al., Interspeech 2024 and ICASSP 2025), read from the set's TSV files."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from . import answers
from .answers import NO, UNKNOWN, YES
from .pope import ratio

COLUMNS = ("entry_id", "audio_index", "prompt_text", "object", "attribute", "label", "sampling")
SCORERS = ("interspeech2024", "icassp2025", "ours")


@dataclass(frozen=True)
class Question:
    id: str
    audio: str
    text: str
    object: str
    label: str  # "yes" or "no"
    sampling: str


def read(path: str | Path) -> list[Question]:
    """The questions of a TSV file. Raises DataError, with file and line, for a wrong line, label or repeated id."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
        raise DataError(f"{path}:1: no column {missing[0]}; expected the columns {', '.join(COLUMNS)}")
    questions, seen = [], {}
    for row in rows:
        where = f"{path}:{rows.line_num}"
        if None in row or None in row.values():
            raise DataError(f"{where}: expected {len(rows.fieldnames)} columns")
        label = row["label"].strip().lower()
        if label not in (YES, NO):
            raise DataError(f"{where}: label {row['label']!r} is neither yes nor no")
        if row["entry_id"] in seen:
            raise DataError(f"{where}: entry_id {row['entry_id']} was used before, at {seen[row['entry_id']]}")
        seen[row["entry_id"]] = where
        fields = ("entry_id", "audio_index", "prompt_text", "object")
        questions.append(Question(*(row[name] for name in fields), label, row["sampling"]))
    if not questions:
        raise DataError(f"{path}: no questions in the file")
    return questions


def score(texts: Sequence[str], labels: Sequence[str], scorer: str = "interspeech2024") -> dict:
    """Accuracy, precision, recall and F1 in percent with two decimals; "no" is the positive class.

    F1 is computed from the rounded percentages, as the official program does. Unread answers are counted in unknown.
    """
    if scorer not in SCORERS:
        raise ValueError(f"unknown scorer {scorer!r}: one of {', '.join(SCORERS)}")
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} answers for {len(labels)} labels")
    read = [answers.PARSERS[scorer](text) for text in texts]
    pairs = list(zip(read, labels, strict=True))
    right = pairs.count((NO, NO))
    precision = round(100 * ratio(right, read.count(NO)), 2)
    recall = round(100 * ratio(right, sum(label == NO for label in labels)), 2)
    return {
        "n": len(pairs),
        "accuracy": round(100 * ratio(right + pairs.count((YES, YES)), len(pairs)), 2),
        "precision": precision,
        "recall": recall,
        "f1": round(ratio(2 * precision * recall, precision + recall), 2),
        "yes_ratio": round(100 * ratio(read.count(YES), len(pairs)), 2),
        "unknown": sum(verdict in ("", UNKNOWN) for verdict in read),
    }


def chair(named: Collection[str], truth: Collection[str]) -> dict:
    """CHAIR (-1 where nothing was named), cover and hal of one description, as fractions."""
    named, truth = set(named), set(truth)
    wrong = 1 - len(named & truth) / len(named) if named else -1
    return {"chair": wrong, "cover": ratio(len(named & truth), len(truth)), "hal": int(bool(named - truth))}
