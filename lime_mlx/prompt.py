"""What a model is asked: token ids, media inputs, and which positions came from where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lime_mlx.errors import PromptError

MODALITIES = ("image", "audio")


@dataclass(frozen=True)
class Grid:
    """How the positions of a span lie on its picture: `rows` rows of `columns` places each, from left to right.

    row_end: positions at the end of each row that stand for no place. box: the part of the picture that the places
    cover (left, top, right, bottom), as fractions of its width and height.
    """

    rows: int
    columns: int
    row_end: int = 0
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Span:
    """Positions `start` to `stop` (half-open) of one picture or sound, or of a part of it.

    source: which picture or sound of its kind, from 0. grid: how the positions lie on the picture, where that is known.
    seconds: the time that one position of a sound stands for, where that is known.
    """

    kind: str
    start: int
    stop: int
    source: int = 0
    grid: Grid | None = None
    seconds: float | None = None

    def __post_init__(self):
        if self.kind not in MODALITIES:
            raise PromptError(f"Unknown span kind {self.kind!r}; choose one of {', '.join(MODALITIES)}.")
        if not 0 <= self.start < self.stop:
            raise PromptError(f"A span must be half-open and not empty, got {self.start} to {self.stop}.")

    def __len__(self) -> int:
        return self.stop - self.start


class Question(NamedTuple):
    """A yes/no question about the pictures and sounds of another prompt; both begin with the same `shared` tokens.

    All pictures and sounds lie in the shared tokens, or `shared` is 0. At least one token of each prompt is not shared.
    """

    prompt: "Prompt"
    shared: int


class Language(Protocol):
    """What methods need to know of language, from the processor that made a prompt. All is worked out when asked for.

    content (V,) bool: the content tokens, which can name something. prompted (V,) bool: the content tokens that the
    user's text and the system prompt brought in, in any spelling; earlier answers of the model do not count.
    """

    @property
    def content(self) -> NDArray[np.bool_]: ...

    @property
    def prompted(self) -> NDArray[np.bool_]: ...

    def question(self, noun: str) -> Question:
        """The question whether `noun` is in the picture or the sound, about the same media, which stay prepared."""
        ...


@dataclass(frozen=True)
class Prompt:
    """Token ids (T,), media arrays under the names and layouts of the transformers processors, and spans.

    `spans` None means: computed by the model from its config's token ids. language: what a processor knows of the text;
    None for token ids alone. Raises `PromptError` when empty.
    """

    input_ids: Sequence[int]
    media: Mapping[str, Any] = field(default_factory=dict)
    spans: Sequence[Span] | None = None
    language: Language | None = None

    def __post_init__(self):
        ids = np.asarray(self.input_ids)
        if ids.ndim == 2 and ids.shape[0] == 1:
            ids = ids[0]
        if ids.ndim != 1 or ids.size == 0:
            raise PromptError("The prompt is empty: give at least one token.")
        object.__setattr__(self, "input_ids", ids.astype(np.int32))
        for span in self.spans or ():
            if span.stop > ids.size:
                raise PromptError(f"The span {span.start} to {span.stop} ends after the prompt's {ids.size} tokens.")

    def __len__(self) -> int:
        return len(self.input_ids)


def runs(ids: np.ndarray, token: int, kind: str) -> tuple[Span, ...]:
    """One span for each unbroken run of `token`."""
    hits = np.concatenate([[0], (np.asarray(ids) == token).astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(hits))
    return tuple(Span(kind, int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def modality_mask(spans: Sequence[Span], length: int) -> np.ndarray:
    """(length,) bool: True where a position came from a picture or a sound."""
    mask = np.zeros(length, dtype=bool)
    for span in spans:
        mask[span.start : span.stop] = True
    return mask


NOUNS = {"image": ("picture", "pictures"), "audio": ("sound", "sounds")}
