"""It covers the cells of a map one after another, and measures the probability of the word each time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lime_mlx.errors import PromptError
from lime_mlx.maps import picture_map
from lime_mlx.models.base import Model
from lime_mlx.probes.cells import Cells, PictureCells, SoundCells
from lime_mlx.probes.faithful import ORDERS, SHARES, Floats, MapCheck, masks, order, random_orders
from lime_mlx.probes.kinds import check_kind, relevances
from lime_mlx.processor import Processor
from lime_mlx.prompt import NOUNS, Prompt, Span
from lime_mlx.session import Session
from lime_mlx.support.statistics import log_softmax
from lime_mlx.words import Word

# How many positions run together at most: the memory of a batch.
BATCH = 1024
# The map that is shown beside an answer.
SHOWN = "cached"

Medium = tuple[str, int]
Relevance = NDArray[np.float32] | None


def forced(model: Model, prompts: Iterable[Prompt], tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
    """For each prompt, the logits (N, V) before each of N tokens that the model is made to say.

    The prompts differ in their media alone, and all have as many positions.
    """
    rest = iter(prompts)
    while first := list(islice(rest, 1)):
        size = max(1, BATCH // (len(first[0]) + len(tokens)))
        sessions = [Session.open(model, prompt) for prompt in (*first, *islice(rest, size - 1))]
        decoder, answer = model.language_model, mx.array([*tokens])
        embeds = mx.concatenate([session.embeds for session in sessions])
        said = mx.repeat(decoder.embed(answer), len(sessions), axis=0)
        layers = zip(*(session.positions.features for session in sessions), strict=True)
        positions = replace(sessions[0].positions, features=[mx.concatenate(list(layer)) for layer in layers])
        hidden = decoder(mx.concatenate([embeds, said.astype(embeds.dtype)], axis=1), positions=positions)
        yield from np.array(decoder.head(hidden[:, len(first[0]) - 1 : -1]))


def probabilities(logits: NDArray[np.float32], tokens: Sequence[int], places: Sequence[Sequence[int]]) -> Floats:
    """(words,): the probability of each word, from logits (N, V) before each of N tokens: the product of its tokens'.

    places: for each word, the indices of its tokens.
    """
    logs = np.array([log_softmax(row)[token] for row, token in zip(logits, tokens, strict=True)])
    return np.array([np.exp(logs[list(word)].sum()) for word in places])


class Curves:
    """The probabilities of the words of an answer, while cells of one picture or sound are covered.

    All words are measured in one pass, so what was covered for one word is never run again for another.
    """

    def __init__(self, model: Model, cells: Cells, tokens: Sequence[int], places: Sequence[Sequence[int]]) -> None:
        self.cells, self._model, self._tokens, self._places = cells, model, tokens, places
        self._measured: dict[bytes, Floats] = {}

    def __call__(self, covered: NDArray[np.bool_]) -> Floats:
        """(points, words) for masks (points, cells)."""
        new = {mask.tobytes(): mask for mask in covered if mask.tobytes() not in self._measured}
        prompts = (self.cells.covered(mask.reshape(self.cells.shape)) for mask in new.values())
        logits = forced(self._model, prompts, self._tokens)
        for key, values in zip(new, logits, strict=True):
            self._measured[key] = probabilities(values, self._tokens, self._places)
        return np.array([self._measured[mask.tobytes()] for mask in covered])


def letters(words: Sequence[Word], text: Callable[[Sequence[int]], str]) -> list[list[int]]:
    """For each word, the indices in the answer of its tokens with letters or digits; of all where none has any.

    text: of tokens.
    """
    places, start = [], 0
    for word in words:
        every = list(range(start, start + len(word.tokens)))
        lettered = [index for index in every if any(map(str.isalnum, text([word.tokens[index - start]])))]
        places.append(lettered or every)
        start += len(word.tokens)
    return places


def chosen(words: Sequence[Word], names: Sequence[str] = ()) -> list[int]:
    """Which words are checked: those of these names, each the first of its name; all that name something by default.

    Raises `PromptError` for a name that no word has, a word without a map, and an answer without words to check.
    """
    if not names:
        numbers = [number for number, word in enumerate(words) if word.names_something and word.relevance is not None]
        if not numbers:
            raise PromptError("No word of this answer names something, so there is no map to check.")
        return numbers
    numbers = []
    for name in names:
        alike = [number for number, word in enumerate(words) if word.name.casefold() == name.strip().casefold()]
        if not alike:
            listed = ", ".join(word.name for word in words if word.names_something) or "no word that names something"
            raise PromptError(f"The answer has no word {name!r}, so there is no map to check; it has {listed}.")
        mapped = [number for number in alike if words[number].relevance is not None]
        if not mapped or not any(map(str.isalnum, words[mapped[0]].name)):
            raise PromptError(f"The word {name!r} has no map to check: its relevance is not known.")
        numbers.append(mapped[0])
    return list(dict.fromkeys(numbers))


def passes(maps: int, orders: int = ORDERS) -> int:
    """How many forwards `check_maps` takes at most, over one picture or sound."""
    return 2 + (len(SHARES) - 2) * (orders + 2 * maps)


def check_maps(
    model: Model,
    processor: Processor,
    prompt: Prompt,
    pictures: Sequence[Image.Image],
    words: Sequence[Word],
    names: Sequence[str] = (),
    kinds: Sequence[str] = (SHOWN,),
    orders: int = ORDERS,
) -> list[MapCheck]:
    """Check the maps of words of an answer, over the picture or the sound on which each rests most.

    names: of the words; all that name something by default. kinds: of maps, see `lime_mlx.probes.kinds`; the map
    "cached" is the one that the words have. `passes` says how many forwards it takes.
    Raises `PromptError` where there is no map to check, and `MethodError` for an unknown kind.
    """
    for kind in kinds:
        check_kind(kind)
    spans = model.spans(prompt)
    numbers = chosen(words, names)
    tokens = [token for word in words for token in word.tokens]
    places = letters(words, lambda ids: processor.tokenizer.decode(ids))
    rows: dict[str, Sequence[Relevance]] = {SHOWN: [words[number].relevance for number in numbers]}
    others = [kind for kind in kinds if kind != SHOWN]
    rows |= relevances(model, prompt, tokens, [places[number] for number in numbers], others) if others else {}
    curves: dict[Medium, Curves] = {}
    checks = []
    for index, number in enumerate(numbers):
        shown = words[number].relevance
        assert shown is not None
        medium = strongest(shown, spans)
        for kind in kinds:
            relevance = rows[kind][index]
            assert relevance is not None
            values = medium_map(relevance, spans, medium)
            if medium not in curves:
                cells = cells_of(model, processor, prompt, pictures, medium, values.shape)
                curves[medium] = Curves(model, cells, tokens, places)
            checks.append(_checked(words[number].name, kind, medium, values, curves[medium], number, orders))
    return checks


def _checked(
    name: str, kind: str, medium: Medium, values: NDArray[np.float32], curves: Curves, number: int, orders: int
) -> MapCheck:
    cells = order(values)
    most, least = (curves(masks(each))[:, number] for each in (cells, cells[::-1]))
    random = [curves(masks(each))[:, number] for each in random_orders(cells.size, orders)]
    shape = (values.shape[0], values.shape[1])
    return MapCheck(name, kind, *medium, shape, most, least, np.array(random), SHARES, number)


def strongest(relevance: NDArray[np.floating], spans: Sequence[Span]) -> Medium:
    """The picture or sound, as kind and number, with the largest absolute relevance (T,)."""
    sizes: dict[Medium, float] = {}
    for span in spans:
        key = span.kind, span.source
        sizes[key] = sizes.get(key, 0.0) + float(np.abs(relevance[span.start : span.stop]).sum())
    if not sizes:
        raise PromptError("There is no picture or sound whose map could be checked: give one.")
    return max(sizes, key=lambda key: sizes[key])


def medium_map(relevance: NDArray[np.floating], spans: Sequence[Span], medium: Medium) -> NDArray[np.float32]:
    """The map (rows, columns) of relevance (T,) over one picture, or (1, times) over one sound.

    Raises `PromptError` where it is not known how the positions lie on it.
    """
    kind, number = medium
    parts = [span for span in spans if (span.kind, span.source) == medium]
    if kind == "audio":
        return np.concatenate([relevance[span.start : span.stop] for span in parts])[None].astype(np.float32)
    if any(span.grid is None for span in parts):
        raise PromptError(f"The map of {NOUNS[kind][0]} {number + 1} cannot be checked: its rows are not known.")
    return picture_map(relevance, parts)


def cells_of(
    model: Model,
    processor: Processor,
    prompt: Prompt,
    pictures: Sequence[Image.Image],
    medium: Medium,
    shape: tuple[int, ...],
) -> Cells:
    """Cells of this shape over a picture or a sound of the prompt."""
    kind, number = medium
    rows, columns = shape
    if kind == "audio":
        return SoundCells(model, prompt, number, (rows, columns))
    return PictureCells(processor, prompt, pictures, number, (rows, columns))


def removed(curves: Curves) -> Floats:
    """(cells, words): by how much the log-probability of each word falls where one cell alone is covered."""
    count = int(np.prod(curves.cells.shape))
    covered = np.concatenate([np.zeros((1, count), dtype=bool), np.eye(count, dtype=bool)])
    logs = np.log(np.maximum(curves(covered), 1e-30))
    return logs[:1] - logs[1:]
