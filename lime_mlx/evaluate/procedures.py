"""What a procedure keeps of each answer at each threshold, replayed or run.

From lower thresholds to higher ones a procedure keeps more, or changes less.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lime_mlx.errors import MethodError
from lime_mlx.methods import METHODS, parse_method
from lime_mlx.spec import options
from lime_mlx.support.detector import Detector
from lime_mlx.support.promise import DROP, MARK
from lime_mlx.words import Word, is_flagged, judged, without_flagged

Floats = NDArray[np.float64]
# The objects that the words of a text name, each with the index of the word in which its name begins.
Finder = Callable[[Sequence[str]], list[tuple[int, str]]]
# Thresholds of a procedure that is replayed: 0, and even steps of the log odds from 0.0003 to 0.9997.
REPLAYED = (0.0, *(1 / (1 + np.exp(-np.arange(-8, 8.05, 0.1)))).tolist(), 1.0)
# Thresholds of a procedure that is run.
RUN = (0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.65, 0.9)


@dataclass(frozen=True)
class Caption:
    """A plain answer with the objects that are there. words: with the statistics that the detector reads."""

    words: Sequence[Word]
    truth: frozenset[str]


@dataclass(frozen=True)
class Outcomes:
    """What a procedure keeps at t thresholds of n answers.

    thresholds (t,). losses (t, n) float64: unsupported kept mentions / max(1, kept mentions), and so 0 for an answer in
    which nothing is kept. covered (t, n): the true objects that are kept; again (t, n): those of them that plain
    decoding names, too. present, named (n,): the true objects, and those that plain decoding names.
    """

    thresholds: Floats
    losses: Floats
    covered: Floats
    again: Floats
    present: Floats
    named: Floats

    @property
    def recall(self) -> Floats:
        """(t,) the share of the true objects that are kept."""
        return np.asarray(self.covered.sum(axis=1) / max(1, self.present.sum()), dtype=np.float64)

    @property
    def kept(self) -> Floats:
        """(t,) of the true objects that plain decoding names, the share that is kept."""
        return np.asarray(self.again.sum(axis=1) / max(1, self.named.sum()), dtype=np.float64)

    def of(self, answers: NDArray[np.integer]) -> "Outcomes":
        """Those of some answers, (k,) indices."""
        tables = (self.losses[:, answers], self.covered[:, answers], self.again[:, answers])
        return Outcomes(self.thresholds, *tables, self.present[answers], self.named[answers])

    def safest(self) -> int:
        """The index of the smallest mean loss, of the lowest threshold where several have it."""
        return int(self.losses.mean(axis=1).argmin())

    def since(self, first: int) -> "Outcomes":
        """Those from one threshold on."""
        tables = (self.losses[first:], self.covered[first:], self.again[first:])
        return Outcomes(self.thresholds[first:], *tables, self.present, self.named)


def outcomes(
    thresholds: Sequence[float], kept: Sequence[Sequence[Sequence[str]]], captions: Sequence[Caption], find: Finder
) -> Outcomes:
    """From the object mentions that are kept at each threshold of each caption, with repetitions."""
    truths = [caption.truth for caption in captions]
    plain = [{name for _, name in find(_texts(caption))} & caption.truth for caption in captions]

    def table(value: Callable[[Sequence[str], frozenset[str], set[str]], float]) -> Floats:
        rows = [[value(*one) for one in zip(row, truths, plain, strict=True)] for row in kept]
        return np.array(rows, dtype=np.float64).reshape(len(thresholds), len(captions))

    return Outcomes(
        np.array(thresholds, dtype=np.float64),
        table(lambda mentions, truth, _: sum(name not in truth for name in mentions) / max(1, len(mentions))),
        table(lambda mentions, truth, _: len(truth & set(mentions))),
        table(lambda mentions, truth, named: len(named & set(mentions))),
        np.array([len(truth) for truth in truths], dtype=np.float64),
        np.array([len(names) for names in plain], dtype=np.float64),
    )


def replayed(
    procedure: str, captions: Sequence[Caption], detector: Detector, find: Finder, thresholds: Sequence[float]
) -> Outcomes:
    """What "mark" or "drop" keeps: exactly what generation prints at each threshold."""
    keep = {MARK: _unmarked, DROP: _undropped}[procedure]
    columns = [list(_at_all(keep, caption, detector, find, thresholds)) for caption in captions]
    kept = [[column[index] for column in columns] for index in range(len(thresholds))]
    return outcomes(thresholds, kept, captions, find)


def _at_all(
    keep: Callable[[Sequence[Word], Finder], list[str]],
    caption: Caption,
    detector: Detector,
    find: Finder,
    thresholds: Sequence[float],
) -> Iterator[list[str]]:
    """What is kept of one caption at each threshold; thresholds that flag the same words are worked out once."""
    words = [judged(word, detector) for word in caption.words]
    doubts = sorted(word.p_unsupported for word in words if word.p_unsupported is not None)
    by_unflagged: dict[int, list[str]] = {}
    for threshold in thresholds:
        unflagged = bisect_left(doubts, threshold)
        if unflagged not in by_unflagged:
            by_unflagged[unflagged] = keep([replace(word, flagged=is_flagged(word, threshold)) for word in words], find)
        yield by_unflagged[unflagged]


def _unmarked(words: Sequence[Word], find: Finder) -> list[str]:
    """The mentions whose first word carries no mark."""
    return [name for index, name in find([word.text for word in words]) if not words[index].flagged]


def _undropped(words: Sequence[Word], find: Finder) -> list[str]:
    """The mentions in the text that is left. A flagged word stays where no list allows to leave it out."""
    text, _ = without_flagged("".join(word.text for word in words).lstrip(), words)
    return mentioned(text, find)


def mentioned(text: str, find: Finder) -> list[str]:
    """The object mentions of a text, in order."""
    return [name for _, name in find(text.split())]


def at_threshold(spec: str, threshold: float) -> str:
    """The spec of a method with a value for its option `threshold`.

    Raises `MethodError` where no part of it has that option, or it has a value already.
    """
    parts = re.split(r"\+(?!\d)", spec)
    parse_method(spec)
    for index, part in enumerate(parts):
        name, _, given = part.strip().partition(":")
        if "threshold" in options(METHODS[name]):
            if re.search(r"\b(threshold|doubt)\s*=", given):
                raise MethodError(f"--risk chooses the threshold of {name}: leave threshold= out of {spec}.")
            parts[index] = f"{name}:{given + ',' if given else ''}threshold={threshold:g}"
            return "+".join(parts)
    with_one = ", ".join(name for name, method in METHODS.items() if "threshold" in options(method))
    raise MethodError(f"{spec} has no threshold: --risk takes {MARK}, {DROP}, or a method that has one: {with_one}.")


def _texts(caption: Caption) -> list[str]:
    return [word.text for word in caption.words]
