"""An answer as JSON values for the script of the pages: words with their shares, verdicts and maps, and the media.

`answer.js` shows it: `LimeAnswer.show(container, view)`. What may be left out is left out or None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from lime_mlx.maps import coarse, picture_map, where
from lime_mlx.methods.base import Rejected
from lime_mlx.prompt import Span
from lime_mlx.words import Word

# Cells along a side of a map, and of all maps of an answer together: what keeps a page small.
SIDE, CELLS = 64, 200_000
# The values of a map are whole numbers of its unit up to this size.
LEVELS = 127


class MapView(TypedDict, total=False):
    """The relevance of one word over one picture or sound.

    values: rows * columns numbers, from left to right and from top to bottom, signed; times `unit` they are relevance.
    The cells divide the whole picture evenly; a sound has one row. share: of the word's relevance, 0 to 1, that lies
    here. where: the map in words. interval: of a sound, in seconds, where the word was heard.
    """

    rows: int
    columns: int
    values: Sequence[float]
    unit: float
    share: float | None
    where: str
    interval: Sequence[float] | None


class RejectedView(TypedDict):
    """A word that the method `choose` did not take. why: the reason in words."""

    text: str
    why: str


class ContrastView(TypedDict):
    """The relevance of a word less that of another in its place, for each medium. margin: of the logits."""

    word: str
    margin: float
    maps: Sequence[MapView | None]


class CheckView(TypedDict):
    """Whether a map of a word is faithful: see `lime_mlx.probes.faithful.MapCheck`.

    map: its kind. covered (points): shares of the cells; most, least, random (points): the probability of the word with
    so many cells covered, in these orders.
    """

    map: str
    outcome: str
    sentence: str
    covered: Sequence[float]
    most: Sequence[float]
    least: Sequence[float]
    random: Sequence[float]


class WordView(TypedDict, total=False):
    """A word; the fields of `lime_mlx.words.Word` have its meaning.

    text: with the white space before it. maps: one for each medium of the answer, in its order, or None. mark: on the
    page of a run, "invented", "again" or "differs".
    """

    text: str
    name: str
    shares: dict[str, float] | None
    p_unsupported: float | None
    flagged: bool
    rank: int | None
    maps: Sequence[MapView | None]
    rejected: Sequence[RejectedView]
    contrast: ContrastView | None
    mark: str
    checks: list[CheckView]


class MediumView(TypedDict, total=False):
    """A picture or a sound.

    kind: "image" or "audio". name: what it is called. src: a data: or blob: address of the picture, upright, or of the
    sound. width, height: of the picture, in any unit. seconds: of the sound; mapped: of that, what the maps cover.
    wave: heights, 0 to 1, evenly over the sound; mel: a data: address of a picture of its log-mel spectrogram, time to
    the right. problem: why it cannot be shown.
    """

    kind: str
    name: str
    src: str
    width: int
    height: int
    seconds: float
    mapped: float
    wave: Sequence[float]
    mel: str
    problem: str


class AnswerView(TypedDict, total=False):
    """An answer to show. title: what stands over it, such as its method. cautions: sentences in a frame above it.

    text: the whole answer, shown where `words` is empty. measured: how faithful such maps were on known scenes.
    """

    title: str
    text: str
    words: Sequence[WordView]
    media: Sequence[MediumView]
    cautions: Sequence[str]
    measured: str


def media_spans(spans: Sequence[Span]) -> list[list[Span]]:
    """The spans of each picture, then those of each sound, in their order: that of the media of a view."""
    keys = sorted({(span.kind, span.source) for span in spans}, key=lambda key: (key[0] != "image", key[1]))
    return [[span for span in spans if (span.kind, span.source) == key] for key in keys]


def word_view(word: Word, spans: Sequence[Span], side: int = SIDE) -> WordView:
    """A word of an answer whose prompt has these spans. side: its maps have at most so many cells along a side."""
    view = WordView(
        text=word.text,
        name=word.name or word.text.strip(),
        shares=_shares(word),
        p_unsupported=_rounded(word.p_unsupported),
        flagged=word.flagged,
        rank=word.rank,
    )
    if word.rejected:
        by_text = {each.text: RejectedView(text=each.text, why=_why(each)) for each in reversed(word.rejected)}
        view["rejected"] = list(reversed(by_text.values()))
    if word.relevance is not None and np.isfinite(word.relevance).all():
        view["maps"] = [_medium_map(word, spans, part, side) for part in media_spans(spans)]
    return view


def words_views(words: Sequence[Word], spans: Sequence[Span]) -> list[WordView]:
    """The words of an answer, with maps that are together no larger than a page may carry."""
    maps = sum(word.relevance is not None for word in words) * len(media_spans(spans))
    side = min(SIDE, math.isqrt(CELLS // max(maps, 1)))
    return [word_view(word, spans, max(side, 1)) for word in words]


def contrast_view(
    rival: str, margin: float, relevance: NDArray[np.floating], spans: Sequence[Span], side: int = SIDE // 2
) -> ContrastView:
    """A word against another one. relevance (T,): of the margin of their logits."""
    maps = [map_view(relevance, part, side) for part in media_spans(spans)]
    return ContrastView(word=rival, margin=round(margin, 3), maps=maps)


def check_view(check: Mapping[str, object]) -> CheckView:
    """From the JSON values of a `MapCheck`."""
    curves = cast(Mapping[str, Sequence[float]], check["curves"])
    return CheckView(
        map=str(check["map"]),
        outcome=str(check["outcome"]),
        sentence=str(check["sentence"]),
        covered=curves["covered"],
        most=curves["most"],
        least=curves["least"],
        random=curves["random"],
    )


def map_view(relevance: NDArray[np.floating], spans: Sequence[Span], side: int = SIDE) -> MapView | None:
    """The map of relevance (T,) over the picture or the sound that these spans are; None where no place is known."""
    if spans[0].kind == "audio":
        if any(span.seconds is None for span in spans):
            return None
        row = np.concatenate([relevance[span.start : span.stop] for span in spans])[None]
        return _levels(coarse(row, side * side), "")
    if any(span.grid is None for span in spans):
        return None
    whole = picture_map(relevance, spans)
    return _levels(coarse(whole, side), where(whole))


def _medium_map(word: Word, spans: Sequence[Span], part: Sequence[Span], side: int) -> MapView | None:
    assert word.relevance is not None
    view = map_view(word.relevance, part, side)
    if view is None:
        return None
    size = np.abs(word.relevance)
    alike = sum(float(size[span.start : span.stop].sum()) for span in spans if span.kind == part[0].kind)
    here = sum(float(size[span.start : span.stop].sum()) for span in part)
    if (shares := _shares(word)) is not None:
        view["share"] = round(shares[part[0].kind] * here / alike, 4) if alike > 0 else 0.0
    if part[0].kind == "audio":
        sounds = [span for span in spans if span.kind == "audio" and span.seconds]
        interval = word.seconds[sounds.index(part[0])] if word.seconds else None
        view["interval"] = interval
        view["where"] = "" if interval is None else f"heard from {interval[0]:.1f} to {interval[1]:.1f} s"
    return view


def _why(rejected: Rejected) -> str:
    """Why a word was not taken."""
    return "named before" if rejected.repeated else f"{100 * rejected.p_unsupported:.0f} % unsupported"


def _shares(word: Word) -> dict[str, float] | None:
    """The shares of a word; None where they are not known, or are no numbers."""
    if word.shares is None or not all(map(math.isfinite, word.shares)):
        return None
    return {kind: round(share, 4) for kind, share in word.shares._asdict().items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)


def _levels(values: NDArray[np.float32], words: str) -> MapView:
    unit = float(np.abs(values).max(initial=0.0)) / LEVELS
    levels = np.rint(values / unit).astype(int) if unit > 0 else np.zeros(values.shape, int)
    return MapView(
        rows=values.shape[0],
        columns=values.shape[1],
        values=[int(level) for level in levels.ravel()],
        unit=float(f"{unit:.4g}"),
        where=words,
    )
