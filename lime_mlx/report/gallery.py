"""The questions on which cells disagree most, with their pictures and sounds as data URIs."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lime_mlx.errors import DataError
from lime_mlx.evaluate.records import Material, Record
from lime_mlx.evaluate.store import Cell
from lime_mlx.evaluate.tasks import Item
from lime_mlx.render.media import peaks, picture_uri, sound_uri
from lime_mlx.render.view import MediumView, WordView

from .results import CAPTIONS, QUESTIONS, Names, TaskResult

# Pictures on the page, and questions about each.
EXHIBITS, SHOWN = 8, 4
PIXELS, QUALITY = 360, 80
# The marks of words: it names what is not there, it names a thing again, another answer lacks it.
INVENTED, AGAIN, DIFFERS = "invented", "again", "differs"
SECONDS, PEAKS = 12, 120


# From words with the white space before them to the marks of those that are in question: what names an object, with
# "" where it is there and new; in an answer to a question, what other answers lack.
Marker = Callable[[Sequence[str]], dict[int, str]]


@dataclass
class GivenAnswer:
    """An answer as words, each with its mark: INVENTED, AGAIN, DIFFERS or "".

    by: the cells that gave it. judgement: what is wrong with it, if anything. cell, id: one record of it. views: the
    words with shares and maps, where the model read them again.
    """

    words: list[tuple[str, str]]
    by: str
    judgement: str
    wrong: bool
    cell: Cell
    id: str
    marker: Marker = field(repr=False)
    views: list[WordView] | None = None


class ExhibitQuestion(NamedTuple):
    """A question and its answers. truth: what would have been right, as far as it is known."""

    prompt: str
    split: str
    truth: str
    answers: list[GivenAnswer]


@dataclass
class Exhibit:
    """A picture or sound.

    shows: it in words. more: questions that are not shown. problem: why it cannot be shown. wave: peaks, 0 to 1. media:
    what maps of it need.
    """

    medium: str
    questions: list[ExhibitQuestion]
    more: int
    shows: str = ""
    picture: str = ""
    sound: str = ""
    wave: list[float] = field(default_factory=list)
    problem: str = ""
    media: list[MediumView] = field(default_factory=list)


class Gallery(NamedTuple):
    """The exhibits, of `split` pictures or sounds on which cells were not equally right, among `total`."""

    exhibits: list[Exhibit]
    split: int
    total: int


class Spread(NamedTuple):
    """How much the cells disagree: the most less the least that was wrong, and the number of different answers."""

    wrong: float
    texts: int


def gallery(result: TaskResult, names: Names, data: Path | None, material: Material) -> Gallery:
    """The pictures or sounds on which some cells had more wrong than others; the largest differences come first.

    material: what finding objects in captions needs.
    """
    media = {name: record["medium"] for by_id in result.answers.values() for name, record in by_id.items()}
    spreads = _spreads(result, media)

    def total(medium: str) -> tuple[float, int]:
        return -sum(part.wrong for part in spreads[medium].values()), -sum(p.texts for p in spreads[medium].values())

    ranked = sorted(spreads, key=total)[:EXHIBITS]
    exhibits = [
        _with_medium(_exhibit(result, names, medium, spreads[medium], material), result, data) for medium in ranked
    ]
    return Gallery(exhibits, len(spreads), len(set(media.values())))


def _spreads(result: TaskResult, media: Mapping[str, str]) -> dict[str, dict[str, Spread]]:
    """The disagreement on each question, by picture or sound; without the questions that all had equally right."""
    spreads: dict[str, dict[str, Spread]] = {}
    for kind in (CAPTIONS, QUESTIONS):
        cells = result.errors.get(kind, {})
        for name in dict.fromkeys(name for errors in cells.values() for name in errors):
            wrong = [errors[name].wrong for errors in cells.values() if name in errors]
            texts = {result.answers[cell][name]["text"] for cell, errors in cells.items() if name in errors}
            if max(wrong) > min(wrong):
                spreads.setdefault(media[name], {})[name] = Spread(max(wrong) - min(wrong), len(texts))
    return spreads


def _exhibit(
    result: TaskResult, names: Names, medium: str, spreads: Mapping[str, Spread], material: Material
) -> Exhibit:
    """The questions about one picture or sound; of those with the same words only the first."""
    with_model = len({cell.model for cell in result.answers}) > 1
    order = sorted(spreads, key=lambda name: (-spreads[name].wrong, -spreads[name].texts))
    by_prompt: dict[str, ExhibitQuestion] = {}
    for name in order:
        question = _question(result, name, names, with_model, material)
        by_prompt.setdefault(question.prompt, question)
    questions = list(by_prompt.values())
    shows = next((question.truth for question in questions if question.truth.startswith("in it")), "")
    return Exhibit(medium, questions[:SHOWN], len(questions[SHOWN:]), shows.replace("in it: ", "with "))


def _question(result: TaskResult, name: str, names: Names, with_model: bool, material: Material) -> ExhibitQuestion:
    by_text: dict[str, list[Cell]] = {}
    for cell, by_id in result.answers.items():
        if name in by_id:
            by_text.setdefault(by_id[name]["text"], []).append(cell)
    record = next(by_id[name] for by_id in result.answers.values() if name in by_id)
    answers = []
    for words, (_, cells) in zip(marked(list(by_text)), by_text.items(), strict=True):
        judgement, wrong = _judgement(result, cells[0], name)
        marker = _differing(list(by_text))
        if record["label"] is None and (objects := _objects(result, record, material)) is not None:
            marker = objects
            marks = marker([f" {word}" for word, _ in words])
            words = [(word, marks.get(index, "")) for index, (word, _) in enumerate(words)]
            again = dict.fromkeys(_plain(word) for word, mark in words if mark == AGAIN)
            judgement += f", {' and '.join(again)} named again" if again else ""
        answers.append(GivenAnswer(words, names.all(cells, with_model), judgement, wrong, cells[0], name, marker))
    return ExhibitQuestion(record["prompt"], record["split"], _truth(record), answers)


def _objects(result: TaskResult, record: Record, material: Material) -> Marker | None:
    """What marks the words of captions that name objects; None for a task without objects in its captions."""
    item = Item(record["id"], record["medium"], record["prompt"], 0, truth=record["truth"])
    try:
        there = set(result.benchmark.true_objects(item))
        result.benchmark.objects([], material)
    except DataError:
        return None

    def marker(words: Sequence[str]) -> dict[int, str]:
        marks, named = dict[int, str](), set[str]()
        for index, name in result.benchmark.objects(list(words), material):
            marks[index] = INVENTED if name not in there else AGAIN if name in named else ""
            named.add(name)
        return marks

    return marker


def _differing(texts: Sequence[str]) -> Marker:
    """What marks the words that not all of the texts have."""
    sets = [{_plain(word) for word in text.split()} for text in texts]
    common = set.intersection(*sets) if sets else set()
    return lambda words: {
        index: DIFFERS for index, word in enumerate(words) if any(_plain(part) not in common for part in word.split())
    }


def _judgement(result: TaskResult, cell: Cell, name: str) -> tuple[str, bool]:
    """What is wrong with an answer, in words, and whether something is."""
    if errors := result.errors.get(CAPTIONS, {}).get(cell, {}).get(name):
        text = f"{errors.wrong:g} of {errors.total:g} objects made up" if errors.wrong else "nothing made up"
        return text, bool(errors.wrong)
    if errors := result.errors.get(QUESTIONS, {}).get(cell, {}).get(name):
        return ("wrong" if errors.wrong else "right"), bool(errors.wrong)
    return "", False


def _truth(record: Record) -> str:
    if record["label"]:
        return f"right: {record['label']}"
    truth = record["truth"]
    plain = isinstance(truth, list) and truth and all(isinstance(part, str) for part in truth)
    return f"in it: {', '.join(truth)}" if plain and truth else ""


def marked(texts: Sequence[str]) -> list[list[tuple[str, str]]]:
    """The words of each text, each with DIFFERS where another of the texts lacks it, else ""."""
    sets = [{_plain(word) for word in text.split()} for text in texts]
    common = set.intersection(*sets) if sets else set()
    marks = ("", DIFFERS)
    return [
        [(word, marks[_plain(word) not in common]) for word in text.split()] or [("(nothing)", DIFFERS)]
        for text in texts
    ]


def _plain(word: str) -> str:
    return re.sub(r"\W+", "", word).casefold() or word


def _with_medium(exhibit: Exhibit, result: TaskResult, data: Path | None) -> Exhibit:
    """The exhibit with its picture or sound, or with the reason why that cannot be shown."""
    try:
        media = result.benchmark.opened(data, exhibit.medium)
        for image in media.get("images", ()):
            exhibit.picture = picture_uri(image, PIXELS, QUALITY)[0]
        for opened in media.get("audio", ()):
            exhibit.wave = peaks(opened.samples[: SECONDS * opened.rate], PEAKS)
            exhibit.sound = sound_uri(opened, SECONDS)
    except Exception as error:  # the answers are worth showing without it
        exhibit.problem = " ".join(str(error).split()) or type(error).__name__
    return exhibit


def view_of(exhibit: Exhibit) -> Mapping[str, object] | None:
    """The exhibit as JSON values for the script: its media, and the words of each answer in the order of the page."""
    words = [answer.views for question in exhibit.questions for answer in question.answers]
    return {"media": exhibit.media, "answers": words} if any(words) and exhibit.media else None
