"""What a model is asked: token ids, media inputs, and which positions came from where."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lime_mlx.errors import PromptError
from lime_mlx.files import Json

MODALITIES = ("image", "audio")
NOUNS = {"image": ("picture", "pictures"), "audio": ("sound", "sounds")}
# The content of a message of a chat: its text, or a list of parts.
Content = TypeVar("Content", str, list[Json])
# Left, top, right and bottom of a part of a picture, as fractions of its width and height.
Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Grid:
    """How positions lie on a picture: `rows` rows of `columns` cells each, from left to right and from top to bottom.

    row_end: positions behind the cells of each row that stand for no cell. box: the part of the picture that the cells
    cover (left, top, right, bottom), as fractions of its width and height; below 0 or above 1 outside the picture.
    """

    rows: int
    columns: int
    row_end: int = 0
    box: Box = WHOLE

    @classmethod
    def square(cls, side: int, box: Box = WHOLE, covered: float = 1.0) -> "Grid":
        """side x side cells on a box of the picture, of which they cover the first `covered` of each side."""
        left, top, right, bottom = box
        return cls(side, side, box=(left, top, left + covered * (right - left), top + covered * (bottom - top)))

    def __len__(self) -> int:
        return self.rows * (self.columns + self.row_end)


@dataclass(frozen=True)
class Part:
    """What `count` placeholders in a row stand for: a picture or sound, or a part of it.

    source, grid, seconds: as in `Span`.
    """

    count: int
    source: int = 0
    grid: Grid | None = None
    seconds: float | None = None


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

    def __post_init__(self) -> None:
        if self.kind not in MODALITIES:
            raise PromptError(f"Unknown span kind {self.kind!r}; choose one of {', '.join(MODALITIES)}.")
        if not 0 <= self.start < self.stop:
            raise PromptError(f"A span must be half-open and not empty, got {self.start} to {self.stop}.")

    def __len__(self) -> int:
        return self.stop - self.start


class Turn(NamedTuple):
    """An earlier question of a conversation and the model's answer to it.

    media: the kinds of the pictures and sounds that came with the question, in their order, as ("image", "image");
    None where that is not known.
    """

    user: str
    assistant: str
    media: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Conversation:
    """What is said to a model: the newest text of the user, a system prompt, and the earlier turns.

    Each turn shows its pictures and sounds, and the newest text shows those that are left. Where no turn knows which
    were shown, the first text of the user shows all.
    """

    text: str
    system: str | None = None
    history: Sequence[Turn] = ()

    @property
    def users(self) -> list[str]:
        """The texts of the user, the oldest first."""
        return [*(turn.user for turn in self.history), self.text]

    @property
    def texts(self) -> list[str]:
        """All texts."""
        return [*filter(None, [self.system]), *self.users, *(turn.assistant for turn in self.history)]

    def shown(self, counts: Mapping[str, int]) -> list[list[str]]:
        """The kinds of what each text of the user shows, the oldest first, of so many pictures and sounds.

        Raises `PromptError` where the turns show more than there are.
        """
        if all(turn.media is None for turn in self.history):
            return [[kind for kind, count in counts.items() for _ in range(count)], *([] for _ in self.history)]
        turns = [list(turn.media or ()) for turn in self.history]
        earlier = Counter(kind for kinds in turns for kind in kinds)
        for kind, count in earlier.items():
            if count > counts.get(kind, 0):
                nouns = NOUNS[kind][1] if kind in NOUNS else kind
                raise PromptError(
                    f"The turns show {count} {nouns}, but there are {counts.get(kind, 0)}; give them all."
                )
        return [*turns, [kind for kind, count in counts.items() for _ in range(count - earlier[kind])]]

    def messages(self, content: Callable[[str], Content], media: Sequence[Content]) -> list[Json]:
        """Messages as chat templates take them, with `media` in front of each text of the user, the oldest first."""
        messages: list[Json] = [{"role": "system", "content": content(self.system)}] if self.system else []
        for turn, shown in zip(self.history, media, strict=False):
            messages.append({"role": "user", "content": shown + content(turn.user)})
            messages.append({"role": "assistant", "content": content(turn.assistant)})
        messages.append({"role": "user", "content": media[-1] + content(self.text)})
        return messages


class Noun(NamedTuple):
    """The name of a thing. article: it takes one, as "a dog" does and "rain" does not.

    determiner: the indefinite one that the question takes ("un", "eine"); English has a or an instead, by the article.
    """

    text: str
    article: bool = True
    determiner: str = ""


class Place(NamedTuple):
    """A place where a noun may begin. definite: it was introduced before ("the dog"). opening: a statement of its own
    begins with it ("there is a dog"), which may say again what an earlier one said. The others as in `Noun`.
    """

    article: bool
    definite: bool = False
    determiner: str = ""
    opening: bool = False

    def noun(self, text: str) -> Noun:
        """The noun of this name that stands here."""
        return Noun(text, self.article, self.determiner)


class YesNo(NamedTuple):
    """The tokens with which an answer begins that says yes, or no; none where the vocabulary has no such token."""

    yes: Sequence[int]
    no: Sequence[int]

    def margin(self, logits: NDArray[np.floating]) -> float:
        """The logit of the best token for yes less that of the best for no, from logits (V,)."""
        return float(logits[list(self.yes)].max() - logits[list(self.no)].max())


class Question(NamedTuple):
    """A yes/no question about the pictures and sounds of another prompt; both begin with the same `shared` tokens.

    All pictures and sounds lie in the shared tokens, or `shared` is 0. At least one token of each prompt is not shared.
    yes_no: the tokens with which either answer begins, at least one each.
    """

    prompt: "Prompt"
    shared: int
    yes_no: YesNo


class Sibling(NamedTuple):
    """A prompt of another text about the pictures and sounds of a prompt; both begin with the same `shared` tokens.

    All pictures and sounds lie in the shared tokens, or `shared` is 0. At least one token of each prompt is not shared.
    """

    prompt: "Prompt"
    shared: int


class Language(Protocol):
    """What methods need to know of language, from the processor that made a prompt. All is worked out when asked for.

    The language is that of the user's newest text, or of the earlier ones where that does not tell. judges: whether it
    is one that we know well enough to judge words, see `lime_mlx.support.grammars`. content (V,) bool: the content
    tokens, which can name something. prompted (V,) bool: the content tokens that the user's text and the system prompt
    brought in, in any spelling; earlier answers of the model do not count. ends: the tokens that end an answer.
    """

    @property
    def judges(self) -> bool: ...

    @property
    def content(self) -> NDArray[np.bool_]: ...

    @property
    def prompted(self) -> NDArray[np.bool_]: ...

    @property
    def ends(self) -> frozenset[int]: ...

    def tokens(self, word: str) -> Sequence[int]:
        """The tokens that say `word` alone, in any case, with or without a leading space; empty where none does."""
        ...

    @property
    def yes_no(self) -> YesNo:
        """The tokens for yes and no, in English where we have no grammar of the language."""
        ...

    def noun_place(self, before: str) -> Place | None:
        """Whether a content word behind the text `before` of an answer begins the name of a thing, said to be there.

        None in a language that we do not judge, and where the text is rather in another language than the prompt.
        """
        ...

    def agrees(self, before: str, name: str) -> bool:
        """Whether a name, or its beginning, may stand right behind the text `before`: not "umbrella" behind "a"."""
        ...

    def noun_phrase(self, text: str) -> str:
        """The name of a thing, a part of the content words `text` that say it; empty where they name nothing."""
        ...

    def nouns(self, text: str) -> list[Noun]:
        """The things that a text names, in its order; none in a language that we do not know."""
        ...

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens of an answer, without special tokens."""
        ...

    def encode(self, text: str) -> Sequence[int]:
        """The tokens of a text, with none in front."""
        ...

    def sibling(self, text: str) -> Sibling:
        """The prompt of another text about the same media, which stay prepared. Raises `PromptError` as a processor."""
        ...

    def question(self, noun: Noun) -> Question:
        """The question whether a thing is in the picture or the sound, about the same media, which stay prepared.

        It stands in English where we have no grammar of the language.
        Raises `PromptError` where the model cannot be asked.
        """
        ...


class Source:
    """One picture or sound of a prompt, alone. prepare: gives its media arrays; is called when they are needed."""

    def __init__(self, prepare: Callable[[], Mapping[str, object]]) -> None:
        self._prepare = prepare

    @cached_property
    def arrays(self) -> Mapping[str, object]:
        """The media arrays that a prompt of this source alone has."""
        return self._prepare()

    @cached_property
    def digest(self) -> bytes:
        """A sha256 of the arrays: of the pixels or the mel frames as the model gets them, with their sizes."""
        return digest(self.arrays)


def digest(arrays: Mapping[str, object]) -> bytes:
    """A sha256 of the names, types, shapes and values of arrays."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(cast(ArrayLike, arrays[name]))
        total.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        total.update(array.data)
    return total.digest()


@dataclass(frozen=True, init=False, eq=False)
class Prompt:
    """Token ids (T,), media arrays under the names and layouts of the transformers processors, and spans.

    `spans` None means: computed by the model from its config's token ids. language: what a processor knows of the text;
    None for token ids alone. parts: from a processor, what the placeholders of each kind stand for, in their order.
    sources: from a processor, each picture and sound alone, by kind. Raises `PromptError` when empty.
    """

    input_ids: NDArray[np.int32]
    media: Mapping[str, object]
    spans: Sequence[Span] | None
    language: Language | None
    parts: Mapping[str, Sequence[Part]]
    sources: Mapping[str, Sequence[Source]]

    def __init__(
        self,
        input_ids: ArrayLike,
        media: Mapping[str, object] | None = None,
        spans: Sequence[Span] | None = None,
        language: Language | None = None,
        parts: Mapping[str, Sequence[Part]] | None = None,
        sources: Mapping[str, Sequence[Source]] | None = None,
    ) -> None:
        ids = np.asarray(input_ids)
        if ids.ndim == 2 and ids.shape[0] == 1:
            ids = ids[0]
        if ids.ndim != 1 or ids.size == 0:
            raise PromptError("The prompt is empty: give at least one token.")
        for span in spans or ():
            if span.stop > ids.size:
                raise PromptError(f"The span {span.start} to {span.stop} ends after the prompt's {ids.size} tokens.")
        object.__setattr__(self, "input_ids", ids.astype(np.int32))
        object.__setattr__(self, "media", {} if media is None else media)
        object.__setattr__(self, "spans", spans)
        object.__setattr__(self, "language", language)
        object.__setattr__(self, "parts", {} if parts is None else parts)
        object.__setattr__(self, "sources", {} if sources is None else sources)

    def __len__(self) -> int:
        return len(self.input_ids)

    @cached_property
    def whole(self) -> Source:
        """All media as one source, for a prompt that no processor made."""
        return Source(lambda: self.media)

    def each(self, kind: str) -> Sequence[Source]:
        """Each picture or sound; all together as one where no processor told them apart."""
        return self.sources.get(kind) or [self.whole]


def runs(ids: NDArray[np.int32], token: int, kind: str) -> tuple[Span, ...]:
    """One span for each unbroken run of `token`."""
    hits = np.concatenate([[0], (np.asarray(ids) == token).astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(hits))
    return tuple(Span(kind, int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def divided(spans: Sequence[Span], parts: Sequence[Part]) -> tuple[Span, ...]:
    """Spans cut into the parts that their positions stand for, in order.

    They stay as they are where the parts do not fit them: a part must lie in one span, and no position may be left.
    """
    pieces, rest = [], list(parts)
    for span in spans:
        start = span.start
        while start < span.stop:
            if not rest or not 0 < rest[0].count <= span.stop - start:
                return tuple(spans)
            part = rest.pop(0)
            pieces.append(Span(span.kind, start, start + part.count, part.source, part.grid, part.seconds))
            start += part.count
    return tuple(spans) if rest else tuple(pieces)


def modality_mask(spans: Sequence[Span], length: int) -> NDArray[np.bool_]:
    """(length,) bool: True where a position came from a picture or a sound."""
    mask = np.zeros(length, dtype=bool)
    for span in spans:
        mask[span.start : span.stop] = True
    return mask
