"""What pictures show and questions ask for: a colour, a side, a digit, a word; and what faults make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from PIL import Image

from . import pictures, reading, sounds
from .findings import Fault
from .vocabulary import ACHROMATIC

STALE = "answers belong to the picture before"


@dataclass(frozen=True)
class Subject:
    """A kind of question with few possible answers.

    question: with {} for "the picture", "the second picture", ... options: of which the truth of each trial is drawn.
    trials: how many. draw: makes the picture of an option. turned: for each fault, what it makes of each option.
    """

    name: str
    question: str
    options: Sequence[str]
    trials: int
    read: reading.Reader
    draw: Callable[[str], Image.Image | sounds.Samples]
    lacks: str
    turned: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    noun: str = "picture"

    def asks(self, about: str | None = None) -> str:
        """The text of the question."""
        return self.question.format(about or f"the {self.noun}")

    @property
    def faults(self) -> dict[str, Fault]:
        """What each fault would make of the truth of a trial."""
        return {fault: partial(_turned, turn) for fault, turn in self.turned.items()}


def _turned(turn: Mapping[str, frozenset[str]], trial: int, truth: str) -> frozenset[str]:
    return turn[truth]


def _exchanged(order: str) -> dict[str, frozenset[str]]:
    """The primary colours where the channels red, green and blue are read from those that `order` names."""
    names = {"r": "red", "g": "green", "b": "blue"}
    return {names[channel]: frozenset({names["rgb"[place]]}) for place, channel in enumerate(order)}


def _sides(left: str, top: str) -> dict[str, frozenset[str]]:
    """Where the sides come to lie when left and top lie at these."""
    across = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    return {
        name: frozenset({to}) for name, to in zip(pictures.PLACES, (left, across[left], top, across[top]), strict=True)
    }


CHANNELS = {
    "red and blue are exchanged (BGR)": _exchanged("bgr"),
    "red and green are exchanged": _exchanged("grb"),
    "green and blue are exchanged": _exchanged("rbg"),
    "the channels are turned (GBR)": _exchanged("gbr"),
    "the channels are turned (BRG)": _exchanged("brg"),
    "the colours are inverted": {
        "red": frozenset({"cyan"}),
        "green": frozenset({"magenta"}),
        "blue": frozenset({"yellow"}),
    },
}
TURNS = {
    "the picture is rotated by 90 degrees": _sides("top", "right"),
    "the picture is rotated by 180 degrees": _sides("right", "bottom"),
    "the picture is rotated by 270 degrees": _sides("bottom", "left"),
    "the picture is mirrored": _sides("right", "top"),
    "the picture is upside down": _sides("left", "bottom"),
    "the picture is transposed": _sides("top", "left"),
    "the picture is transposed and rotated": _sides("bottom", "right"),
}
GREY = "the colours are lost (grey)"
DIGITS = tuple("23456789")
COLOUR = Subject(
    "colours",
    "What colour is {}? Answer with one word.",
    ("red", "green", "blue"),
    12,
    reading.colour,
    lambda option: pictures.solid(pictures.RGB[option]),
    "to name plain colours",
    CHANNELS,
)
SHADE = Subject("shades", COLOUR.question, tuple(pictures.RGB), 5, reading.colour, COLOUR.draw, COLOUR.lacks)
PLACE = Subject(
    "orientation",
    "At which side of {} is the black dot: left, right, top or bottom? Answer with one word.",
    tuple(pictures.PLACES),
    8,
    reading.side,
    pictures.place,
    "to say at which side a dot is",
    TURNS,
)
NUMBER = Subject(
    "large digits",
    "Which digit is shown in {}? Answer with the digit only.",
    DIGITS,
    5,
    reading.number,
    partial(pictures.text, height=280),
    "to read large digits",
)
WORD = Subject(
    "words",
    "Which word is written in {}? Answer with this word only.",
    pictures.WORDS,
    4,
    reading.word_of(pictures.WORDS),
    partial(pictures.text, height=110),
    "to read a large word",
)
COUNT = Subject(
    "counting",
    "How many black dots are in {}? Answer with a number.",
    tuple("123456"),
    5,
    reading.number,
    lambda option: pictures.dots(int(option), [(4 * i + 3 * int(option)) % 9 for i in range(9)]),
    "to count dots",
)


BEEPS = Subject(
    "counting beeps",
    "How many beeps are in {}? Answer with a number.",
    tuple("12345"),
    6,
    reading.number,
    lambda option: sounds.beeps(int(option)),
    "to count beeps",
    noun="sound",
)
PITCH = Subject(
    "pitch",
    "Is the tone in {} high or low? Answer with one word.",
    ("high", "low"),
    12,
    reading.pitch,
    lambda option: sounds.tone({"high": sounds.HIGH, "low": sounds.LOW}[option], 2.0),
    "to tell a high tone from a low one",
    noun="sound",
)
SILENCE = Subject(
    "silence",
    "Is there any tone in {}, or only silence? Answer with one word: tone or silence.",
    ("tone", "silence"),
    12,
    reading.heard,
    lambda option: sounds.tone(440, 2.0) if option == "tone" else sounds.silence(2.0),
    "to tell a tone from silence",
    noun="sound",
)


def achromatic(readings: Sequence[str | None]) -> bool:
    """Whether every answer names black, white or a grey."""
    return all(reading in ACHROMATIC for reading in readings)
