"""A chat: several questions about the same pictures and sounds, of which nothing is computed twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lime_mlx.answer import Answer, Response, collect
from lime_mlx.decoding import resolve_method
from lime_mlx.errors import LimeError, PromptError
from lime_mlx.explanation import Explanation
from lime_mlx.files import write
from lime_mlx.generation import open_images, open_sounds, stream_generate
from lime_mlx.kv import DEFAULT, KVOptions
from lime_mlx.lrp.relevance import Shares
from lime_mlx.media.audio import AudioSource, Sound
from lime_mlx.media.image import ImageSource
from lime_mlx.methods import Method
from lime_mlx.models.base import Model
from lime_mlx.prefixes import Prefixes
from lime_mlx.processor import PreparedMedia, Processor, check_text
from lime_mlx.prompt import NOUNS, Conversation, Prompt, Turn
from lime_mlx.render.answer import FORMATS
from lime_mlx.words import Interval, Word

TEXTS, VALUES = (".md", ".txt"), ".json"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One turn of a chat: what was asked, shown and answered.

    method: its spec. prompt: the whole chat up to the question. pictures, sounds: those that came with the question.
    """

    question: str
    answer: Answer
    method: str
    prompt: Prompt = field(repr=False)
    pictures: Sequence[Image.Image] = ()
    sounds: Sequence[Sound] = ()

    @property
    def turn(self) -> Turn:
        """The turn as the prompts of later questions hold it."""
        media = ("image",) * len(self.pictures) + ("audio",) * len(self.sounds)
        return Turn(self.question, self.answer.text, media)

    def to_dict(self) -> dict[str, object]:
        """JSON values: the question, how many pictures and sounds came with it, the method, and the answer's."""
        shown = {"pictures": len(self.pictures), "sounds": len(self.sounds)}
        return {"question": self.question, **shown, "method": self.method, **self.answer.to_dict()}


@dataclass(frozen=True, kw_only=True)
class Why:
    """Where a word of an answer came from.

    maps: its relevance over each picture of the chat, the oldest first, (rows, columns) float32, signed; None for a
    picture whose rows are not known.
    """

    word: Word
    maps: Sequence[NDArray[np.float32] | None] = ()

    @property
    def shares(self) -> Shares | None:
        """The parts of the absolute relevance that came from pictures, sounds, the prompt and the answer's own text."""
        return self.word.shares

    @property
    def seconds(self) -> Sequence[Interval | None]:
        """For each sound, when the word was heard in it."""
        return self.word.seconds


class Chat:
    """Questions and answers, one after the other, about pictures and sounds that come with any of the questions.

    A picture is computed once. The prompt of each question is the whole chat in the model's own template; what it
    has in common with the prompts before it is kept in `prefixes`, so an answer is that of a run alone. A method acts
    in every turn, also on what the model itself said before.
    """

    def __init__(
        self,
        model: Model,
        processor: Processor,
        method: str | Method | None = None,
        *,
        system: str | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        reliance: bool = True,
        prefixes: Prefixes | None = None,
        kv: KVOptions = DEFAULT,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        """Options as for `stream_generate`. method: a spec or None, as there; `chat.method` may be set at any time.

        reliance: compute where each word came from, which `why` and flags need. prefixes: those of the model, to be
        shared with other chats; else the chat has its own.
        """
        self.model, self.processor = model, processor
        self.method = method
        self.system, self.reliance, self.notice = system, reliance, notice
        self.max_tokens, self.stop = max_tokens, stop
        self.temperature, self.top_p, self.top_k, self.min_p = temperature, top_p, top_k, min_p
        self.repetition_penalty, self.seed = repetition_penalty, seed
        self.prefixes = Prefixes(model) if prefixes is None else prefixes
        self.kv = kv
        self._turns: list[Exchange] = []
        self._media = PreparedMedia({})

    @property
    def turns(self) -> Sequence[Exchange]:
        """The turns so far, the oldest first."""
        return tuple(self._turns)

    @property
    def pictures(self) -> list[Image.Image]:
        """All pictures of the chat, the oldest first."""
        return [picture for turn in self._turns for picture in turn.pictures]

    @property
    def sounds(self) -> list[Sound]:
        """All sounds of the chat, the oldest first."""
        return [sound for turn in self._turns for sound in turn.sounds]

    def ask(
        self,
        text: str,
        image: ImageSource | Sequence[ImageSource] | None = None,
        audio: AudioSource | Sequence[AudioSource] | None = None,
    ) -> Answer:
        """The answer to a question, with new pictures and sounds if there are any. Raises as `generate`."""
        for _ in self.stream(text, image, audio):
            pass
        return self.last.answer

    def stream(
        self,
        text: str,
        image: ImageSource | Sequence[ImageSource] | None = None,
        audio: AudioSource | Sequence[AudioSource] | None = None,
    ) -> Generator[Response, None, None]:
        """The answer as it comes. Who closes the iterator, or stops it by Ctrl-C, has the answer up to there as a turn.

        The question is checked at once. A question whose answer fails, or does not begin, is no turn. Raises as
        `stream_generate`.
        """
        check_text(text)
        pictures, sounds = open_images(image, self.notice), open_sounds(audio, self.notice)
        media = self._media
        if pictures or sounds:
            media = self.processor.prepare([*self.pictures, *pictures], [*self.sounds, *sounds])
        prompt = self._prompt(text, media)
        method = resolve_method(self.method, prompt, self.model)
        name = self.method if isinstance(self.method, str) else method.name
        asked = Exchange(question=text, answer=Answer(), method=name, prompt=prompt, pictures=pictures, sounds=sounds)
        return self._answered(asked, media)

    @property
    def last(self) -> Exchange:
        """The newest turn. Raises `PromptError` where there is none."""
        if not self._turns:
            raise PromptError("The chat has no turn yet: ask something first.")
        return self._turns[-1]

    def undo(self) -> Exchange:
        """Take back the newest turn, with the pictures and sounds that came with it, and return it."""
        taken = self.last
        self._turns.pop()
        if taken.turn.media:
            self._media = self.processor.prepare(self.pictures, self.sounds)
        return taken

    def clear(self) -> None:
        """Take back all turns. The system prompt stays, and so does what is kept of the pictures."""
        self._turns.clear()
        self._media = PreparedMedia({})

    def explanation(self) -> Explanation:
        """The newest answer explained: its words, their maps and the warnings.

        Raises `PromptError` where there is no answer, no picture or sound, or `reliance` is off.
        """
        if not self.reliance:
            raise PromptError("Words can be explained only in a chat with reliance: make it with reliance=True.")
        turn = self.last
        spans = self.model.spans(turn.prompt)
        if not spans:
            raise PromptError("There is no picture or sound to explain words by: show one.")
        return Explanation(
            question=turn.question,
            method=turn.method,
            answer=turn.answer,
            spans=spans,
            pictures=self.pictures,
            warnings=list(turn.answer.notices),
        )

    def why(self, word: str | int | Word) -> Why:
        """Where a word of the newest answer came from. word: as for `Explanation.map`. Raises as `explanation`."""
        explanation = self.explanation()
        chosen = explanation.word(word)
        maps = [_map_or_none(explanation, chosen, number) for number in range(len(self.pictures))]
        return Why(word=chosen, maps=maps)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the chat to a .json file with all values, or as text to a .md or .txt file.

        A .html, .png, .svg or .pdf file gets the newest answer with its maps. Raises `LimeError` for another suffix.
        """
        file = Path(path)
        suffix, forms = file.suffix.lower(), (*TEXTS, VALUES, *FORMATS)
        if not self._turns:
            raise PromptError("There is nothing to save: the chat has no turn yet.")
        if suffix not in forms:
            raise LimeError(f"{file} has none of the endings {', '.join(forms)}: choose one of them.")
        if suffix in FORMATS:
            return self.explanation().save(file)
        values = json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n"
        write(file, values if suffix == VALUES else self.transcript())
        return file

    def to_dict(self) -> dict[str, object]:
        """JSON values of the whole chat: format 2, as of its answers."""
        return {"format": 2, "system": self.system, "turns": [turn.to_dict() for turn in self._turns]}

    def transcript(self) -> str:
        """The chat as text, with what was shown and which words have no support."""
        lines = [f"System: {self.system}\n"] if self.system else []
        for turn in self._turns:
            shown = ", ".join(_counted(kind, turn.turn.media or ()) for kind in dict.fromkeys(turn.turn.media or ()))
            flagged = ", ".join(dict.fromkeys(word.name for word in turn.answer.words if word.flagged))
            lines.append(f"User: {f'[{shown}] ' if shown else ''}{turn.question}\n")
            lines.append(
                f"Assistant: {turn.answer.text.strip()}{f' [without support: {flagged}]' if flagged else ''}\n"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Chat of {len(self._turns)} turns>"

    def _prompt(self, text: str, media: PreparedMedia) -> Prompt:
        """The chat and the next question. Raises `PromptError` where the context does not hold it."""
        prompt = self.processor.assemble(Conversation(text, self.system, [turn.turn for turn in self._turns]), media)
        context = self.model.context
        if self._turns and context is not None and len(prompt) > context:
            raise PromptError(
                f"The chat has {len(prompt):,} tokens, but the context of this model holds {context:,}: "
                "take turns back, or clear it."
            )
        return prompt

    def _answered(self, asked: Exchange, media: PreparedMedia) -> Generator[Response, None, None]:
        kept: list[Response] = []
        notices: list[str] = []

        def keep(sentence: str) -> None:
            notices.append(sentence)
            if self.notice is not None:
                self.notice(sentence)

        def finish() -> None:
            answer = collect(kept, self.model, asked.prompt)
            for sentence in answer.notices:
                keep(sentence)
            answer.notices = notices
            self._media = media
            self._turns.append(replace(asked, answer=answer))

        responses = stream_generate(
            self.model,
            self.processor,
            asked.prompt,
            method=self.method,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            stop=self.stop,
            reliance=self.reliance,
            relevance=self.reliance,
            notice=keep,
            prefixes=self.prefixes,
            kv=self.kv,
        )
        try:
            for response in responses:
                kept.append(response)
                yield response
        except (GeneratorExit, KeyboardInterrupt):
            if kept:
                finish()
            raise
        finish()


def _map_or_none(explanation: Explanation, word: Word, picture: int) -> NDArray[np.float32] | None:
    try:
        return explanation.map(word, picture)
    except PromptError:
        return None


def _counted(kind: str, kinds: Sequence[str]) -> str:
    """ "1 picture", "2 sounds"."""
    count = kinds.count(kind)
    return f"{count} {NOUNS[kind][count > 1]}"
