"""An answer explained: each word with where it came from, its verdict and its map over the picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from os import PathLike, fspath
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lime_mlx.answer import Answer, Response, collect
from lime_mlx.decoding import resolve_method
from lime_mlx.errors import LimeError, PromptError
from lime_mlx.files import write_output
from lime_mlx.generation import open_images, open_prompt, open_sounds, stream_generate
from lime_mlx.kv import DEFAULT, KVOptions
from lime_mlx.maps import picture_map
from lime_mlx.media.audio import AudioSource, Sound
from lime_mlx.media.fetch import source_name
from lime_mlx.media.image import ImageSource
from lime_mlx.methods import Method
from lime_mlx.methods.dleaf import Focus
from lime_mlx.models.base import Model
from lime_mlx.prefixes import Prefixes
from lime_mlx.probes.attention import focus, over_words
from lime_mlx.probes.blank import ignores_media
from lime_mlx.probes.deletion import SHOWN, check_maps
from lime_mlx.probes.faithful import MapCheck
from lime_mlx.probes.measured import measured
from lime_mlx.probes.rival import Contrast, contrasts
from lime_mlx.processor import Processor
from lime_mlx.prompt import NOUNS, Prompt, Span
from lime_mlx.render import answer as figures
from lime_mlx.render.html import words_html
from lime_mlx.render.media import picture_view, sound_view
from lime_mlx.render.page import encoded, is_page, page, piece
from lime_mlx.render.svg import drawing
from lime_mlx.render.view import AnswerView, MediumView, check_view, contrast_view, media_spans, words_views
from lime_mlx.sampling import Sampler
from lime_mlx.session import LogitsProcessor
from lime_mlx.words import Word, grouped, mean_shares

# Share of the input in the answer below which a warning is due.
UNUSED = 0.02
UNCALIBRATED = (
    "This model was not calibrated: words have a rank, but no probability, and none is flagged. "
    "lime-mlx evaluate --calibrate changes that."
)
OUTSIDE = "The model was calibrated on other inputs than this one: no word is judged or flagged."


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")


@dataclass(frozen=True, kw_only=True)
class About:
    """What the head of a page says: the model, the date, the command, and the names of the pictures and sounds."""

    model: str = ""
    date: str = field(default_factory=_now)
    command: str = ""
    pictures: Sequence[str] = ()
    sounds: Sequence[str] = ()


@dataclass(kw_only=True, repr=False)
class Explanation:
    """An answer and where each of its words came from.

    answer: with the relevance of every token. spans: of the prompt; pictures, sounds: as they were opened, where they
    are known. method: its spec. focus: D-LEAF's diagnostics of each word, where they were asked for. contrasts: of
    each word against another one, where that was asked for. checks: of the maps of words, where they were asked for.
    warnings: sentences on what the reader should know, such as a picture that was hardly used. measured: how faithful
    such maps were where they were measured. about: for the head of a page.
    """

    question: str
    method: str
    answer: Answer
    spans: Sequence[Span]
    pictures: Sequence[Image.Image] = ()
    sounds: Sequence[Sound] = ()
    focus: Sequence[Focus] = ()
    contrasts: Sequence[Contrast | None] = ()
    checks: Sequence[MapCheck] = ()
    warnings: list[str] = field(default_factory=list)
    measured: str = ""
    about: About = field(default_factory=About)

    @property
    def words(self) -> list[Word]:
        return self.answer.words

    @property
    def text(self) -> str:
        return self.answer.text

    def map(self, word: str | int | Word, picture: int = 0) -> NDArray[np.float32]:
        """Relevance of a word over a picture, (rows, columns) float32, signed; row 0 is the top.

        word: a word of the answer, its name (the first that has it, in any case), or its index. picture: counts from 0.
        Raises `PromptError` where there is no such word or picture, or the word has no relevance.
        """
        chosen = self.word(word)
        spans = [span for span in self.spans if span.kind == "image" and span.source == picture]
        if not spans or any(span.grid is None for span in spans):
            raise PromptError(f"There is no map of picture {picture}: the prompt has no such picture with known rows.")
        if chosen.relevance is None:
            raise PromptError(f"The word {chosen.name!r} has no relevance; explain the answer to have it.")
        return picture_map(chosen.relevance, spans)

    def to_dict(self) -> dict[str, object]:
        """JSON values: those of the answer (format 2), the method, the diagnostics and the warnings."""
        entries = [word.to_dict() for word in self.words]
        for entry, diagnostics in zip(entries, self.focus, strict=False):
            entry |= {"liae": _rounded(diagnostics.liae), "iaf": _rounded(diagnostics.iaf)}
        for entry, contrast in zip(entries, self.contrasts, strict=False):
            if contrast is not None:
                entry["contrast"] = {"word": contrast.rival, "margin": round(contrast.margin, 4)}
        values = {**self.answer.to_dict(), "words": entries, "method": self.method, "warnings": list(self.warnings)}
        if self.checks:
            values["checks"] = [check.to_dict() for check in self.checks]
        return {**values, "measured": self.measured} if self.measured else values

    def view(self) -> AnswerView:
        """The answer as JSON values for the script of the pages. See `lime_mlx.render.view`."""
        views = words_views(self.words, self.spans)
        for view, contrast in zip(views, self.contrasts, strict=False):
            if contrast is not None:
                view["contrast"] = contrast_view(contrast.rival, contrast.margin, contrast.relevance, self.spans)
        for check in self.checks:
            views[check.index].setdefault("checks", []).append(check_view(check.to_dict()))
        return AnswerView(
            title=f"Method {self.method}" if self.method else "",
            text=self.text,
            words=views,
            media=[self._medium(part) for part in media_spans(self.spans)],
            cautions=self._cautions(),
            measured=self.measured,
        )

    def save(self, path: str | PathLike[str], *others: Explanation) -> Path:
        """Write the maps and shares of the words to a .png, .svg, .pdf or .html file, at once or not at all.

        others: explanations that stand beside this one on a page, .html: of the same question by other methods. Raises
        `LimeError` for another suffix, a folder that is missing, and others beside a figure.
        """
        file = Path(path)
        figures.check(file)
        if not is_page(file):
            if others:
                raise LimeError(f"Several answers stand together on a page only: name a .html file, not {file}.")
            with drawing():
                figures.save(file, list(self._panels()))
            return file
        shown = [self, *others]
        diagnoses = [figures.uri(panel) for each in shown for panel in each._diagnosis()]
        write_output(
            file, encoded(page(self.question, self._facts(others), [each.view() for each in shown], diagnoses))
        )
        return file

    def _facts(self, others: Sequence[Explanation]) -> dict[str, str]:
        """The head of a page."""
        about = self.about
        return {
            "picture" if len(about.pictures) == 1 else "pictures": ", ".join(about.pictures),
            "sound" if len(about.sounds) == 1 else "sounds": ", ".join(about.sounds),
            "model": about.model,
            "methods" if others else "method": ", ".join(each.method for each in (self, *others)),
            "date": about.date,
            "command": about.command,
        }

    def _medium(self, spans: Sequence[Span]) -> MediumView:
        """A picture or a sound of the view, by its spans."""
        kind, number = spans[0].kind, spans[0].source
        names = self.about.pictures if kind == "image" else self.about.sounds
        name = names[number] if number < len(names) else f"{NOUNS[kind][0]} {number + 1}"
        if kind == "image" and number < len(self.pictures):
            return picture_view(self.pictures[number], name)
        if kind == "audio" and number < len(self.sounds):
            return sound_view(self.sounds[number], name, sum(len(span) * (span.seconds or 0) for span in spans) or None)
        return MediumView(kind=kind, name=name, problem=f"The {NOUNS[kind][0]} is not at hand.")

    def _cautions(self) -> list[str]:
        """What the reader of a page must know: the warnings, and what the marks of this model are worth."""
        ranked = any(word.rank is not None for word in self.words)
        judged = any(word.p_unsupported is not None for word in self.words)
        outside = self.answer.calibrated_for_input is False
        if ranked and not judged and not outside:
            return [*self.warnings, UNCALIBRATED]
        return [*self.warnings, *([OUTSIDE] if outside and not self.warnings else [])]

    def _panels(self) -> Iterator[figures.Panel]:
        panels = [*self._picture_panels(), *self._sound_panels()]
        yield from panels or [figures.plain([figures.WordMap(word) for word in self.words])]
        yield from self._diagnosis()

    def _diagnosis(self) -> Iterator[figures.Panel]:
        if self.focus:
            yield figures.diagnosis([word.text.strip() for word in self.words], self.focus)

    def _picture_panels(self) -> Iterator[figures.Panel]:
        for number, image in enumerate(self.pictures):
            spans = [span for span in self.spans if span.kind == "image" and span.source == number]
            if spans and all(span.grid is not None for span in spans):
                yield figures.picture(image, [figures.WordMap(word, _map(word, spans)) for word in self.words])

    def _sound_panels(self) -> Iterator[figures.Panel]:
        for number, span in enumerate(span for span in self.spans if span.kind == "audio" and span.seconds):
            rows = [figures.WordMap(word, _row(word, span)) for word in self.words]
            intervals = [entry.word.seconds[number] for entry in rows if entry.map is not None]
            yield figures.sound(rows, span.seconds or 0.0, intervals)

    def word(self, word: str | int | Word) -> Word:
        """A word of the answer, by its name, its index or itself. Raises `PromptError` where there is none."""
        if isinstance(word, Word):
            return word
        if isinstance(word, int) and -len(self.words) <= word < len(self.words):
            return self.words[word]
        for candidate in self.words:
            if candidate.name.casefold() == str(word).casefold():
                return candidate
        raise PromptError(f"The answer has no word {word!r}; its words are {', '.join(w.name for w in self.words)}.")

    def __repr__(self) -> str:
        return f"<Explanation of {self.text!r}, {len(self.words)} words>"

    def _repr_html_(self) -> str:
        return piece([self.view()], words_html(self.words, self.text))


def explain(
    model: Model,
    processor: Processor,
    prompt: str | Prompt,
    image: ImageSource | Sequence[ImageSource] | None = None,
    audio: AudioSource | Sequence[AudioSource] | None = None,
    *,
    system: str | None = None,
    method: str | Method | None = None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    repetition_penalty: float | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
    sampler: Sampler | None = None,
    logits_processors: Sequence[LogitsProcessor] = (),
    diagnose: bool = False,
    check_input: bool = False,
    prefixes: Prefixes | None = None,
    kv: KVOptions = DEFAULT,
    contrast: str | None = None,
    check: bool | Sequence[str] = False,
    check_kinds: Sequence[str] = (SHOWN,),
) -> Explanation:
    """Generate an answer and explain it; options as for `stream_generate`.

    diagnose: D-LEAF's diagnostics of each word, by one more pass. check_input: warn where the answer to a blank
    picture or sound is the same, by one more prefill. contrast: a word; what speaks for each word of the answer and
    against this one in its place, by one more pass. check: whether the maps are faithful, of all words that name
    something or of the words given, by many more passes; check_kinds: of which kinds of maps. See
    `lime_mlx.probes.deletion.check_maps`. Raises `PromptError` for a prompt without picture or sound, and for a word to
    check that the answer has not.
    """
    notices: list[str] = []
    pictures, sounds = open_images(image, notices.append), open_sounds(audio, notices.append)
    opened = open_prompt(processor, prompt, pictures, sounds, system)
    chosen = resolve_method(method, opened, model)
    responses = stream_generate(
        model,
        processor,
        opened,
        method=chosen,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop,
        sampler=sampler,
        logits_processors=logits_processors,
        relevance=True,
        notice=notices.append,
        prefixes=prefixes,
        kv=kv,
    )
    explanation = explained(
        responses,
        model,
        opened,
        question=prompt if isinstance(prompt, str) else "",
        method=method if isinstance(method, str) else chosen.name,
        pictures=pictures,
        sounds=sounds,
        about=About(pictures=names(image, pictures), sounds=names(audio, sounds)),
        diagnose=diagnose,
        check_input=check_input,
        contrast=contrast,
    )
    explanation.warnings[:0] = notices
    if check:
        explanation.checks = check_maps(
            model, processor, opened, pictures, explanation.words, () if check is True else check, check_kinds
        )
    return explanation


def explained(
    responses: Iterable[Response],
    model: Model,
    prompt: Prompt,
    *,
    question: str = "",
    method: str = "",
    pictures: Sequence[Image.Image] = (),
    sounds: Sequence[Sound] = (),
    about: About | None = None,
    diagnose: bool = False,
    check_input: bool = False,
    contrast: str | None = None,
) -> Explanation:
    """The explanation of responses to a prompt that keep their relevance. See `explain`."""
    spans = model.spans(prompt)
    if not spans:
        raise PromptError("There is no picture or sound to explain words by: give one.")
    kept = list(responses)
    answer = collect(kept, model, prompt)
    by_word: list[Focus] = []
    if diagnose:
        by_word = over_words(focus(model, prompt, answer.tokens), [len(group) for group in grouped(kept)])
    return Explanation(
        question=question,
        method=method,
        answer=answer,
        spans=spans,
        pictures=pictures,
        sounds=sounds,
        focus=by_word,
        contrasts=() if contrast is None else contrasts(model, prompt, answer.words, contrast),
        warnings=[*answer.notices, *input_warnings(model, prompt, answer, check_input)],
        measured=measured(model, {span.kind for span in spans}),
        about=about or About(),
    )


def names(sources: object, media: Sequence[object]) -> list[str]:
    """What the pictures or sounds of one source or of a list are called; none where one has no name."""
    each = sources if isinstance(sources, list | tuple) else [sources]
    named = [short_name(source) for source in each if isinstance(source, str | PathLike)]
    return named if len(named) == len(media) else []


def short_name(source: str | PathLike[str]) -> str:
    """The name of a file without its folders, or an address without its query."""
    name = source_name(fspath(source))
    return name.split("?")[0].split("#")[0] if "://" in name else Path(name).name


def input_warnings(model: Model, prompt: Prompt, answer: Answer, check_input: bool = False) -> Iterator[str]:
    """Signs that the picture or sound was not used, one sentence each."""
    total = mean_shares(answer.shares) if None not in answer.shares else None
    if prompt.media and total is not None and total.reliance < UNUSED:
        yield f"Warning: only {100 * total.reliance:.1f} % of the answer came from the input; was it used at all?"
    if check_input and prompt.media and ignores_media(model, prompt, answer.tokens):
        yield "Warning: the model gives the same answer to a blank input of the same size; this one was not used."


def _map(word: Word, spans: Sequence[Span]) -> NDArray[np.float32] | None:
    return picture_map(word.relevance, spans) if word.names_something and word.relevance is not None else None


def _row(word: Word, span: Span) -> NDArray[np.float32] | None:
    return word.relevance[span.start : span.stop] if word.names_something and word.relevance is not None else None


def _rounded(values: NDArray[np.float32]) -> list[object]:
    """Numbers for JSON; null where nothing was seen."""
    if values.ndim > 1:
        return [_rounded(row) for row in values]
    return [None if np.isnan(value) else round(float(value), 5) for value in values]
