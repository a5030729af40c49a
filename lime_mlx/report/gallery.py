"""The questions on which cells disagree most, with their pictures and sounds as data URIs."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lime_mlx.evaluate.store import Cell
from lime_mlx.media.audio import Sound, open_audio
from lime_mlx.media.image import open_image

from .results import CAPTIONS, QUESTIONS, Names, Result

EXHIBITS, ASKED = 8, 4
PIXELS, QUALITY = 360, 80
SECONDS, PEAKS = 12, 120


class Said(NamedTuple):
    """An answer, in (word, whether others lack it); by: who gave it; verdict: how it was read."""

    words: list[tuple[str, bool]]
    by: str
    verdict: str
    wrong: bool


class Asked(NamedTuple):
    """truth: what would have been right, as far as it is known."""

    prompt: str
    split: str
    truth: str
    answers: list[Said]


@dataclass
class Exhibit:
    """A picture or sound; problem: why it cannot be shown. wave: peaks from 0 to 1."""

    medium: str
    asked: list[Asked]
    more: int
    picture: str = ""
    sound: str = ""
    wave: list[float] = field(default_factory=list)
    problem: str = ""


class Gallery(NamedTuple):
    """The exhibits, of `split` pictures or sounds on which cells were not equally right, among `total`."""

    exhibits: list[Exhibit]
    split: int
    total: int


def gallery(result: Result, names: Names, data: Path | None) -> Gallery:
    """Pictures in the order of how much more some cells had wrong than others, over all questions about them."""
    several = len({cell.model for cell in result.answers}) > 1
    spread: dict[str, dict[str, tuple[float, int]]] = {}
    media = {name: record["medium"] for known in result.answers.values() for name, record in known.items()}
    for kind in (CAPTIONS, QUESTIONS):
        cells = result.errors.get(kind, {})
        for name in dict.fromkeys(name for counted in cells.values() for name in counted):
            wrong = [counted[name][0] for counted in cells.values() if name in counted]
            texts = {result.answers[cell][name]["text"] for cell, counted in cells.items() if name in counted}
            if max(wrong) > min(wrong):
                spread.setdefault(media[name], {})[name] = (max(wrong) - min(wrong), len(texts))
    ranked = sorted(spread, key=lambda medium: [-sum(column) for column in zip(*spread[medium].values(), strict=True)])
    exhibits = []
    for medium in ranked[:EXHIBITS]:
        order = sorted(spread[medium], key=lambda name: [-amount for amount in spread[medium][name]])
        prompts: dict[str, Asked] = {}
        for name in order:
            asked = _asked(result, name, names, several)
            prompts.setdefault(asked.prompt, asked)
        asked = list(prompts.values())
        exhibits.append(_with_medium(Exhibit(medium, asked[:ASKED], len(asked[ASKED:])), result, data))
    return Gallery(exhibits, len(spread), len(set(media.values())))


def _asked(result: Result, name: str, names: Names, several: bool) -> Asked:
    given: dict[str, list[Cell]] = {}
    for cell, known in result.answers.items():
        if name in known:
            given.setdefault(known[name]["text"], []).append(cell)
    record = next(known[name] for known in result.answers.values() if name in known)
    answers = []
    for words, (_, cells) in zip(marked(list(given)), given.items(), strict=True):
        verdict, wrong = _read(result, cells[0], name)
        answers.append(Said(words, names.all(cells, several), verdict, wrong))
    return Asked(record["prompt"], record["split"], _truth(record), answers)


def _read(result: Result, cell: Cell, name: str) -> tuple[str, bool]:
    for kind in (CAPTIONS, QUESTIONS):
        top, bottom = result.errors.get(kind, {}).get(cell, {}).get(name, (None, None))
        if top is not None and kind == QUESTIONS:
            return ("wrong" if top else "right"), bool(top)
        if top is not None:
            return f"{top:g} of {bottom:g} objects made up" if top else "nothing made up", bool(top)
    return "", False


def _truth(record: Mapping[str, Any]) -> str:
    if record["label"]:
        return f"right: {record['label']}"
    truth = record["truth"]
    plain = isinstance(truth, list) and truth and all(isinstance(part, str) for part in truth)
    return f"in it: {', '.join(truth)}" if plain else ""


def marked(texts: Sequence[str]) -> list[list[tuple[str, bool]]]:
    """The words of each text, and whether any of the other texts lacks them."""
    sets = [{_plain(word) for word in text.split()} for text in texts]
    common = set.intersection(*sets) if sets else set()
    return [[(word, _plain(word) not in common) for word in text.split()] or [("(nothing)", True)] for text in texts]


def _plain(word: str) -> str:
    return re.sub(r"\W+", "", word).casefold() or word


def _with_medium(exhibit: Exhibit, result: Result, data: Path | None) -> Exhibit:
    try:
        source = result.bench.source(data, exhibit.medium)
        if result.bench.medium == "image":
            exhibit.picture = picture(open_image(source))
        else:
            heard = open_audio(source)
            exhibit.wave, exhibit.sound = peaks(heard), sound(heard)
    except Exception as error:  # the answers are worth showing without it
        exhibit.problem = " ".join(str(error).split()) or type(error).__name__
    return exhibit


def picture(image: Any) -> str:
    """A small JPEG as a data URI."""
    small, file = image.copy(), BytesIO()
    small.thumbnail((PIXELS, PIXELS))
    small.save(file, "JPEG", quality=QUALITY)
    return _uri("image/jpeg", file)


def sound(heard: Sound) -> str:
    """The first seconds as MP3, as a data URI."""
    import soundfile

    file = BytesIO()
    soundfile.write(file, heard.samples[: SECONDS * heard.rate], heard.rate, format="MP3")
    return _uri("audio/mpeg", file)


def peaks(heard: Sound) -> list[float]:
    """The loudest sample of each of a number of equal parts of the same seconds, the loudest of all as 1."""
    parts = np.array_split(np.abs(heard.samples[: SECONDS * heard.rate]), PEAKS)
    heights = np.array([part.max() if part.size else 0.0 for part in parts])
    return [round(float(height), 3) for height in heights / (heights.max() or 1)]


def _uri(kind: str, file: BytesIO) -> str:
    return f"data:{kind};base64,{b64encode(file.getvalue()).decode()}"
