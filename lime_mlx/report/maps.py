"""The maps of the words in question: a model reads its stored answers again, and each word says what carried it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mlx.core as mx

from lime_mlx.answer import collect
from lime_mlx.checkpoint.hub import at_hand
from lime_mlx.checkpoint.load import load
from lime_mlx.errors import CheckpointError, LimeError
from lime_mlx.evaluate.records import Record
from lime_mlx.evaluate.store import Settings
from lime_mlx.evaluate.tasks.base import Media
from lime_mlx.generation import stream_generate
from lime_mlx.models.base import Model
from lime_mlx.processor import Processor
from lime_mlx.prompt import Turn
from lime_mlx.render.media import PEAKS, peaks
from lime_mlx.render.view import MediumView, WordView, word_view
from lime_mlx.support.store import identity

from .gallery import Exhibit, GivenAnswer, Marker
from .results import TaskResult

# Cells along a side of a map on the page of a run, which has many.
SIDE = 24
Notice = Callable[[str], None]
# An answer that is to be read again, and where it stands.
Waiting = tuple[TaskResult, Exhibit, GivenAnswer]


def add_maps(
    parts: Sequence[tuple[TaskResult, Sequence[Exhibit]]], settings: Settings, data: Path | None, notice: Notice
) -> None:
    """Give the answers of exhibits their words with maps, model by model; what cannot be read goes to `notice`.

    Nothing is downloaded: a model that is not on this machine, or is another one than in the run, gives no maps.
    """
    try:
        for name, fingerprint in settings["models"].items():
            if waiting := list(_answers_of(name, parts)):
                _read_all(name, fingerprint, waiting, data, notice)
    except KeyboardInterrupt:
        notice("Interrupted: the page is written with the maps that there are.")


def _read_all(name: str, fingerprint: str, waiting: Sequence[Waiting], data: Path | None, notice: Notice) -> None:
    """Let one model read its answers again."""
    try:
        folder = at_hand(name)
        if folder is None or identity(folder).split("+")[0] != fingerprint.split("+")[0]:
            why = "not on this machine" if folder is None else "not the one of this run any more"
            raise CheckpointError(f"{name} is {why}.")
        notice(f"{name} reads {len(waiting)} answers again, for the maps of their words.")
        model, processor = load(folder)
    except LimeError as error:
        notice(f"No maps for {name}: {error}")
        return
    for result, exhibit, answer in waiting:
        try:
            _add(model, processor, result, exhibit, answer, data)
        except (LimeError, OSError, ValueError) as error:
            notice(f"No maps for an answer of {name} about {exhibit.medium}: {error}")
        mx.clear_cache()


def _answers_of(model: str, parts: Sequence[tuple[TaskResult, Sequence[Exhibit]]]) -> Iterator[Waiting]:
    """The answers of a model that have words, with the exhibit that each belongs to."""
    for result, exhibits in parts:
        for exhibit in exhibits:
            answers = [answer for question in exhibit.questions for answer in question.answers]
            for answer in answers if not exhibit.problem else ():
                if answer.cell.model == model and result.answers[answer.cell][answer.id].get("tokens"):
                    yield result, exhibit, answer


def _add(
    model: Model, processor: Processor, result: TaskResult, exhibit: Exhibit, answer: GivenAnswer, data: Path | None
) -> None:
    """Give an answer its words with maps, and its exhibit what these lie on."""
    record = result.answers[answer.cell][answer.id]
    media = result.benchmark.opened(data, exhibit.medium)
    answer.views = read_again(model, processor, record, media, answer.marker)
    if not exhibit.media:
        exhibit.media = list(_media(exhibit, media))


def read_again(
    model: Model, processor: Processor, record: Record, media: Media, marker: Marker
) -> list[WordView] | None:
    """The words of a stored answer, with their shares by a plain reading, and maps where they are marked.

    The model is led through the tokens of the answer, whatever method picked them. None where the prompt has no
    place on a picture or in a sound. Raises `LimeError`.
    """
    history = [Turn(user, assistant) for user, assistant in record.get("history", ())]
    (prompt,) = processor.prompts([record["prompt"]], **media, history=history)
    spans = model.spans(prompt)
    if not spans:
        return None
    tokens = record["tokens"]
    led = _Led(len(prompt), tokens)
    responses = stream_generate(
        model, processor, prompt, method="none", max_tokens=len(tokens), logits_processors=[led], relevance=True
    )
    words = collect(responses, model, prompt).words
    marks = marker([word.text for word in words])
    views = []
    for number, word in enumerate(words):
        view = word_view(word, spans, SIDE)
        if number in marks:
            view["mark"] = marks[number]
        else:
            view.pop("maps", None)
        views.append(view)
    return views


class _Led:
    """A logits processor by which the tokens of a stored answer are picked, one after the other."""

    def __init__(self, start: int, tokens: Sequence[int]) -> None:
        self.start, self.tokens = start, tokens

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        place = min(tokens.size - self.start, len(self.tokens) - 1)
        chosen = mx.arange(logits.shape[-1])[None] == self.tokens[place]
        return mx.where(chosen, logits, -mx.inf)


def _media(exhibit: Exhibit, media: Media) -> Iterator[MediumView]:
    """The pictures and sounds without their data, which stand in the page already."""
    for image in media.get("images", ()):
        yield MediumView(kind="image", name=exhibit.medium, width=image.width, height=image.height)
    for sound in media.get("audio", ()):
        yield MediumView(
            kind="audio", name=exhibit.medium, seconds=round(sound.seconds, 3), wave=peaks(sound.samples, PEAKS)
        )
