"""Is there the sound of a ...? Object questions on AudioCaps (Kuan et al. 2024, arXiv 2406.08402), from TSV files."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lime_mlx.errors import DataError
from lime_mlx.evaluate.data.layout import AUDIO, task_folder
from lime_mlx.evaluate.records import Material, Record
from lime_mlx.evaluate.scorers.answers import NO, YES
from lime_mlx.evaluate.scorers.metrics import Metric, by_split

from .base import Item, Task, drawn

COLUMNS = ("entry_id", "audio_index", "prompt_text", "object", "attribute", "label", "sampling")


@dataclass(frozen=True)
class Question:
    """One line of a TSV file. audio: the index of the sound. label: "yes" or "no"."""

    id: str
    audio: str
    text: str
    object: str
    label: str
    sampling: str

    @property
    def file(self) -> str:
        """The name of the sound file."""
        return f"{self.audio.removesuffix('.wav')}.wav"


@dataclass(frozen=True)
class AudioQuestions(Task):
    """`audio:file=...`: the TSV files in DATA/audio, or one of them. The sounds are DATA/audio/ID.wav.

    Precision, recall and F1 are those of "no". The official scorer is the first program (interspeech2024), icassp2025
    the second.
    """

    name = AUDIO
    medium = "audio"
    inputs = "sounds"
    scorers: ClassVar = {"ours": "ours", "official": "interspeech2024", "icassp2025": "icassp2025"}

    file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.file and Path(self.file).is_absolute():
            raise DataError(f"audio: file is {self.file}; name it as it stands in the data folder's audio/.")

    def _folder(self, data: Path | None) -> Path:
        return task_folder(data, self.name, [self.file or "*.tsv"])

    def items(self, data: Path | None, limit: int | None = None, seed: int = 0) -> list[Item]:
        home = self._folder(data)
        items = [
            Item(
                f"{path.stem}/{question.id}",
                question.file,
                question.text,
                16,
                question.sampling or path.stem,
                question.label,
            )
            for path in ([home / self.file] if self.file else sorted(home.glob("*.tsv")))
            for question in read_questions(path)
        ]
        if not items:
            raise DataError(f"There is no TSV file with questions in {home}.")
        return drawn(items, limit, seed)

    def source(self, data: Path | None, medium: str) -> Path:
        return self._folder(data) / medium

    def metrics(self, records: Sequence[Record], scorer: str, material: Material) -> list[Metric]:
        return by_split(records, lambda part, split: self.judged(part, split, scorer, positive=NO))


def read_questions(path: str | Path) -> list[Question]:
    """The questions of a TSV file. Raises `DataError`, with file and line, for a wrong line, label or repeated id."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    columns = list(rows.fieldnames or ())
    if missing := [name for name in COLUMNS if name not in columns]:
        raise DataError(f"{path}:1: no column {missing[0]}; expected the columns {', '.join(COLUMNS)}")
    questions: list[Question] = []
    seen: dict[str, str] = {}
    for row in rows:
        where = f"{path}:{rows.line_num}"
        if None in row or None in row.values():
            raise DataError(f"{where}: expected {len(columns)} columns")
        question = _question(where, row)
        if question.id in seen:
            raise DataError(f"{where}: entry_id {question.id} was used before, at {seen[question.id]}")
        seen[question.id] = where
        questions.append(question)
    if not questions:
        raise DataError(f"{path}: no questions in the file")
    return questions


def _question(where: str, row: Mapping[str, str]) -> Question:
    label = row["label"].strip().lower()
    if label not in (YES, NO):
        raise DataError(f"{where}: label {row['label']!r} is neither yes nor no")
    return Question(row["entry_id"], row["audio_index"], row["prompt_text"], row["object"], label, row["sampling"])
