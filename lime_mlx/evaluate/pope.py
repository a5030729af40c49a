"""POPE: yes/no questions about objects (Li et al., "Evaluating Object Hallucination in LVLMs", 2023).

A question file has JSON lines, or one JSON array, of {question_id, image, text, label}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from . import answers
from .answers import NO, UNKNOWN, YES

SCORERS = ("pope", "vcd", "ours")


@dataclass(frozen=True)
class Question:
    id: str
    image: str
    text: str
    label: str  # "yes" or "no"


def read(path: str | Path) -> list[Question]:
    """The questions of a file, in its order.

    Raises DataError, with file and line, for a line that is no question, an unknown label or an id given twice.
    """
    questions, seen = [], {}
    for where, row in _rows(Path(path)):
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object with question_id, image, text and label")
        if missing := [name for name in ("question_id", "image", "text", "label") if row.get(name) in (None, "")]:
            raise DataError(f"{where}: {' and '.join(missing)} missing")
        label = str(row["label"]).strip().lower()
        if label not in (YES, NO):
            raise DataError(f"{where}: label {row['label']!r} is neither yes nor no")
        key = str(row["question_id"])
        if key in seen:
            raise DataError(f"{where}: question_id {key} was used before, at {seen[key]}")
        seen[key] = where
        questions.append(Question(key, str(row["image"]), str(row["text"]), label))
    if not questions:
        raise DataError(f"{path}: no questions in the file")
    return questions


def _rows(path: Path):
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({getattr(error, 'strerror', None) or error})") from None
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
        yield from ((f"{path}: entry {number}", row) for number, row in enumerate(rows, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number}: not valid JSON ({error.msg})") from None
            yield f"{path}:{number}", row


def verdicts(texts: Sequence[str], labels: Sequence[str], scorer: str = "ours") -> list[str]:
    """(n,) "yes", "no" or, by our scorer only, "unknown". VCD's reading of an answer depends on its label.

    Raises ValueError for an unknown scorer, label or length.
    """
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} answers for {len(labels)} labels")
    if unknown := set(labels) - {YES, NO}:
        raise ValueError(f"label {unknown.pop()!r} is neither yes nor no")
    if scorer == "vcd":
        return [
            (YES if answers.contains(text, YES) else NO)
            if label == YES
            else (NO if answers.contains(text, NO) else YES)
            for text, label in zip(texts, labels, strict=True)
        ]
    if scorer not in SCORERS:
        raise ValueError(f"unknown scorer {scorer!r}: one of {', '.join(SCORERS)}")
    return [answers.PARSERS[scorer](text) for text in texts]


def score(texts: Sequence[str], labels: Sequence[str], scorer: str = "ours") -> dict:
    """Accuracy, precision, recall, F1 and yes ratio (fractions; yes is the positive class) and the counts.

    An unknown verdict is wrong: a miss where the label is yes, and neither a yes nor a right no where it is no.
    """
    read = verdicts(texts, labels, scorer)
    pairs = list(zip(read, labels, strict=True))
    tp, fp, tn, fn = (pairs.count(pair) for pair in ((YES, YES), (YES, NO), (NO, NO), (NO, YES)))
    unknown = read.count(UNKNOWN)
    precision, recall = ratio(tp, tp + fp), ratio(tp, sum(label == YES for label in labels))
    return {
        "n": len(pairs),
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "unknown": unknown,
        "accuracy": ratio(tp + tn, len(pairs)),
        "precision": precision,
        "recall": recall,
        "f1": ratio(2 * precision * recall, precision + recall),
        "yes_ratio": ratio(tp + fp, len(pairs)),
    }


def ratio(numerator: float, denominator: float) -> float:
    """A fraction; 0.0 where nothing was counted."""
    return numerator / denominator if denominator else 0.0
