"""The lines of a chat: questions, commands and files, and what is printed for each of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
from rich.console import Console
from rich.text import Text

from lime_mlx.chat import Chat
from lime_mlx.cli import described, display
from lime_mlx.cli.common import Stream, by_content, note, noting
from lime_mlx.cli.dropped import dropped, unquoted
from lime_mlx.cli.lines import interactive
from lime_mlx.errors import LimeError, PromptError
from lime_mlx.media.addresses import Private
from lime_mlx.media.audio import Sound, open_audio
from lime_mlx.media.fetch import is_url, one_line
from lime_mlx.media.image import open_image
from lime_mlx.methods import parse_method
from lime_mlx.prompt import NOUNS
from lime_mlx.render.terminal import blocks, whereabouts
from lime_mlx.spec import suggestion
from lime_mlx.support.detector import Detector
from lime_mlx.words import Word, mean_shares, ranked, words

if TYPE_CHECKING:
    from PIL import Image

    from lime_mlx.answer import Response


class Entry(NamedTuple):
    """A command: what stands behind it, and what it does."""

    argument: str
    help: str


COMMANDS = {
    "/image": Entry("FILE|URL", "Show a picture with the next question."),
    "/audio": Entry("FILE|URL", "Give a sound with the next question."),
    "/method": Entry("[SPEC]", "Decode with this method from now on; without SPEC, say which one it is."),
    "/why": Entry("[WORD] [--open]", "Where a word of the last answer came from; --open shows all words as a page."),
    "/save": Entry("FILE", "Write the chat (.md, .txt, .json) or the last answer's maps (.html, .png, .svg, .pdf)."),
    "/undo": Entry("", "Take back the last question, its pictures and its answer."),
    "/clear": Entry("", "Begin again, without pictures."),
    "/help": Entry("", "List the commands."),
    "/quit": Entry("", "End the chat, as Ctrl-D does."),
}


class Talk:
    """What somebody types, put to a chat. private: what addresses may lead to. failed: a line could not be done."""

    def __init__(self, quiet: bool = False, private: Private = "typed") -> None:
        self.quiet, self.private, self.failed = quiet, private, False
        self.pictures: list[Image.Image] = []
        self.sounds: list[Sound] = []
        self.files: list[str] = []
        self.console = Console(highlight=False)
        self.colours = display.has_colours(self.console)
        self._chat: Chat | None = None
        self._notes: list[str] = []
        self._printed: set[str] = set()

    def begin(self, chat: Chat) -> None:
        """Put the lines that follow to this chat. Raises `PromptError` for what its model does not take."""
        self._chat = chat
        self._check_taken(self.pictures, self.sounds)
        self._print_notes()
        if interactive() and not self.quiet:
            note("Ask a question; /help lists the commands, Ctrl-D ends the chat.")

    @property
    def chat(self) -> Chat:
        """The chat that the lines are put to."""
        assert self._chat is not None, "begin a chat first"
        return self._chat

    def take(self, line: str) -> bool:
        """Do what a line says. Returns whether the chat goes on; an error is one line, and it goes on, too."""
        try:
            return self._take(line.strip())
        except KeyboardInterrupt:
            note("Stopped.")
        except Exception as error:
            if click.get_current_context().find_root().params.get("debug"):
                raise
            note(f"Error: {described(error)}")
            self.failed = True
        finally:
            self._print_notes()
        return True

    def _take(self, line: str) -> bool:
        word, _, rest = line.partition(" ")
        if not line:
            return True
        if word in ("/quit", "/exit"):
            return False
        if word in COMMANDS:
            actions: dict[str, Callable[[str], None]] = {
                "/image": lambda file: self.show("image", self._file(word, file)),
                "/audio": lambda file: self.show("audio", self._file(word, file)),
                "/method": self._method,
                "/why": self._why,
                "/save": self._save,
                "/undo": self._undo,
                "/clear": self._clear,
                "/help": self._help,
            }
            actions[word](rest.strip())
            return True
        files, question = dropped(line)
        if not files and word.startswith("/") and "/" not in word[1:]:
            raise PromptError(f"There is no command {word}.{suggestion(word, COMMANDS)} /help lists them.")
        if not files and word.startswith("/"):
            raise PromptError(f"There is no file {word}; check the path.")
        for file in files:
            self.show(by_content(file), file)
        if question:
            self._answer(question)
        return True

    # --- what is shown

    def show(self, kind: str, file: str) -> None:
        """Open a picture ("image") or a sound ("audio"), which comes with the next question."""
        if kind == "image":
            picture = open_image(file, notice=self.notice, private=self.private)
            self._check_taken([picture], [])
            self.pictures.append(picture)
            size = f"{picture.width} x {picture.height}"
        else:
            sound = open_audio(file, notice=self.notice, private=self.private)
            self._check_taken([], [sound])
            self.sounds.append(sound)
            size = f"{sound.seconds:.1f} s"
        self.files.append(file)
        if interactive() and not self.quiet:
            note(f"{NOUNS[kind][0].capitalize()}: {one_line(os.path.basename(file) or file, 80)}, {size}")

    def _check_taken(self, pictures: list[Image.Image], sounds: list[Sound]) -> None:
        """Refuse at once what the processor would refuse with the next question."""
        kinds = {kind for kind, given in (("image", pictures), ("audio", sounds)) if given}
        if self._chat is not None and kinds - self._chat.processor.takes:
            self._chat.processor.prepare(pictures, sounds)

    def _file(self, command: str, text: str) -> str:
        if not text:
            raise PromptError(f"Say which file, as in: {command} photo.jpg")
        return text if is_url(text) else unquoted(text)

    # --- questions

    def _answer(self, question: str) -> None:
        responses = self.chat.stream(question, image=self.pictures, audio=self.sounds)
        stream: Stream[Response] = Stream(responses)
        count = len(self.chat.turns)
        try:
            with noting(self._notes):
                self._print_words(iter(stream))
        finally:
            responses.close()  # what there is of the answer becomes a turn
            if len(self.chat.turns) > count:
                self.pictures, self.sounds = [], []
        if stream.interrupted:
            note("Stopped.")
        elif self.chat.last.answer.finish_reason == "length":
            tokens = self.chat.last.answer.generation_tokens
            self.notice(f"Note: the answer was cut after {tokens} tokens; --max-tokens allows more.")

    def _print_words(self, responses: Iterator[Response]) -> None:
        """The words as they come, and what there is to say of them."""
        first = next(responses, None)
        if first is None:
            return
        calibrated = Detector.from_config(self.chat.model.config)
        detector = calibrated if first.calibrated_for_input is not False else None
        shown: list[Word] = []
        try:
            for word in words(chain([first], responses), detector):
                shown.append(word)
                if self.colours:
                    self.console.print(display.coloured(word, flag=True, number=False), end="", soft_wrap=True)
                else:
                    click.echo(word.text, nl=False)
        finally:
            click.echo()
        if self.colours and (shares := mean_shares(word.shares for word in shown)):
            self.console.print(Text(", ".join(display.parts(shares)), style="dim"))
        if detector is not None and not self.quiet and (line := display.unsupported(ranked(shown), True)):
            note(line)

    # --- commands

    def _method(self, spec: str) -> None:
        if spec:
            with noting(self._notes):
                parse_method(spec)
            self.chat.method = spec
        note(f"Method: {self.chat.method or 'choose with a picture or a sound, else none'}")

    def _why(self, text: str) -> None:
        arguments = text.split()
        names = [argument for argument in arguments if argument != "--open"]
        if len(names) > 1:
            raise PromptError("/why takes one word of the last answer, as in: /why dog")
        explanation = self.chat.explanation()
        if names:
            self._print_word(names[0])
        else:
            for word in (word for word in explanation.words if word.names_something):
                click.echo(_line(word))
        if len(names) < len(arguments):
            page = explanation.save(Path(tempfile.mkdtemp(prefix="lime-mlx-")) / "answer.html")
            note(f"Wrote {page}")
            click.launch(str(page))

    def _print_word(self, name: str) -> None:
        why = self.chat.why(name)
        click.echo(_line(why.word))
        for number, interval in enumerate(why.seconds, start=1):
            if interval is not None:
                which = f" in sound {number}" if len(why.seconds) > 1 else ""
                click.echo(f"heard{which}: {interval[0]:.1f}-{interval[1]:.1f} s")
        for number, relevance in enumerate(why.maps, start=1):
            if relevance is None:
                continue
            which = f"picture {number}" if len(why.maps) > 1 else "picture"
            click.echo(f"{which}: {whereabouts(relevance)}")
            self.console.print(blocks(relevance, self.colours), soft_wrap=True)

    def _save(self, text: str) -> None:
        if not text:
            raise PromptError("Say where to, as in: /save chat.md")
        file = Path(unquoted(text)).expanduser()
        if any(os.path.exists(shown) and file.exists() and file.samefile(shown) for shown in self.files):
            raise LimeError(f"{file} was shown in this chat; save to another file.")
        note(f"Wrote {self.chat.save(file)}")

    def _undo(self, text: str) -> None:
        taken = self.chat.undo()
        note(f"Took back: {one_line(taken.question, 60)}")

    def _clear(self, text: str) -> None:
        self.chat.clear()
        self.pictures, self.sounds = [], []
        note("The chat is empty.")

    def _help(self, text: str) -> None:
        for name, entry in COMMANDS.items():
            click.echo(f"{f'{name} {entry.argument}':<24} {entry.help}")
        click.echo("A picture or a sound that is dropped on the terminal belongs to the next question.")
        if self.colours:
            self.console.print(display.legend("picture or sound"))

    # --- notes

    def notice(self, sentence: str) -> None:
        """Print a sentence below the answer; each once."""
        self._notes.append(sentence)

    def _print_notes(self) -> None:
        for sentence in self._notes:
            if sentence not in self._printed and not self.quiet:
                note(sentence)
            self._printed.add(sentence)
        self._notes.clear()


def _line(word: Word) -> str:
    """A word with its shares, and the probability that it has no support."""
    parts = [", ".join(display.parts(word.shares))] if word.shares else []
    if word.p_unsupported is not None:
        parts.append(f"{display.percent(word.p_unsupported)} unsupported{' ?' if word.flagged else ''}")
    return f"{word.name}: {'; '.join(parts)}"
