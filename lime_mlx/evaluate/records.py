"""The record of one answer, as a run's folder keeps it."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

# The names of the objects in a picture or sound; several lists of them, by key; None for a yes/no question.
Truth = Sequence[str] | Mapping[str, Sequence[str]] | None
# What the scorers of a task need beside the records, by name: JSON.
Material = Mapping[str, object]


class _Identity(TypedDict):
    id: str
    medium: str


class AnswerFields(TypedDict, total=False):
    """An answer and what it took; see `Record`."""

    text: str
    tokens: list[int]
    steps: int
    reliance: list[float | None] | None
    seconds: float | None
    memory: float
    numerical_faults: int


class WordFields(TypedDict):
    """A word of a caption with the white space before it, and the statistics that the detector reads, if it has any."""

    text: str
    statistics: dict[str, float] | None


class Record(_Identity, AnswerFields, total=False):
    """A question, and the answer to it or the reason why there is none. The keys are those of the stored files.

    id: of the question, unique in its task. medium: the picture or sound. split: the part of the task. prompt: the
    question as it was put. history: the turns before it, if any: what the user and what the model said. label: "yes"
    or "no" for yes/no questions, else None. truth: see `Truth`. text, tokens: the answer. steps: decoding steps.
    reliance: one share per token. numerical_faults: the tokens at which values were not finite, where there are such.
    seconds, memory (GB): of answers that were timed. error: why there is no answer.
    words, caption: the object words and all words of a caption (calibration); features: of its pictures or sounds, see
    `support.domain`; margin: the logit of yes less that of no.
    """

    split: str
    prompt: str
    history: list[list[str]]
    label: str | None
    truth: Truth
    error: str
    words: list[dict[str, float | str | bool]]
    caption: list[WordFields]
    margin: float
    features: list[list[float]]


def names(truth: Truth, key: str = "", fallback: str = "") -> list[str]:
    """The object names of a truth: the list itself, or the list under `key`, else that under `fallback`."""
    if isinstance(truth, Mapping):
        return list(truth.get(key, truth.get(fallback, ())))
    return list(truth or ())
