"""Is there the sound of a ...? Object questions on AudioCaps (Kuan et al. 2024, arXiv 2406.08402)."""

from dataclasses import dataclass
from pathlib import Path

from lime_mlx.errors import DataError
from lime_mlx.evaluate import answers, audio
from lime_mlx.evaluate.answers import NO
from lime_mlx.evaluate.metrics import by_split, yes_no

from .base import Item, Task, drawn, folder


@dataclass(frozen=True)
class AudioQuestions(Task):
    """`audio:file=...`: the TSV files in DATA/audio, or one of them. Figures are of "no"; sounds are DATA/audio/ID.wav.

    The official scorer is the first program (interspeech2024), icassp2025 the second.
    """

    name = "audio"
    medium = "audio"
    scorers = ("ours", "official", "icassp2025")

    file: str | None = None

    def __post_init__(self):
        if self.file and Path(self.file).is_absolute():
            raise DataError(f"audio: file is {self.file}; name it as it stands in the data folder's audio/.")

    def items(self, data, limit=None, seed=0):
        home = folder(data, self.name, [self.file or "*.tsv"])
        files = [home / self.file] if self.file else sorted(home.glob("*.tsv"))
        found = []
        for file in files:
            for question in audio.read(file):
                sound = question.audio if question.audio.endswith(".wav") else f"{question.audio}.wav"
                name, split = f"{file.stem}/{question.id}", question.sampling or file.stem
                found.append(Item(name, sound, question.text, 16, split, question.label))
        if not found:
            raise DataError(f"There is no TSV file with questions in {home}.")
        return drawn(found, limit, seed)

    def source(self, data, medium):
        return folder(data, self.name, [self.file or "*.tsv"]) / medium

    def metrics(self, records, scorer, material):
        reader = answers.PARSERS[{"official": "interspeech2024"}.get(scorer, scorer)]
        return by_split(
            records, lambda part, split: yes_no(part, [reader(r["text"]) for r in part], split, positive=NO)
        )
