"""A map as text: blocks for a terminal, and a few words that say where on the picture a word rests."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.style import Style
from rich.text import Text

SHADES = " ░▒▓█"
# From no relevance to the most of the map.
DARK, BRIGHT = (16, 20, 32), (255, 196, 64)
COLUMNS = 32
ROW_NAMES, COLUMN_NAMES = ("upper", "middle", "lower"), ("left", "centre", "right")
# A third of the picture, or a ninth, is named where it holds so much of the positive relevance.
THIRD, NINTH = 1 / 2, 2 / 5


def blocks(relevance: NDArray[np.floating], colours: bool = False, columns: int = COLUMNS) -> Text:
    """Positive relevance (rows, columns) as lines of text; brighter is more, and cells are about square on a terminal.

    Maps with more columns are made coarser. colours: half a character for a cell, larger ones in a coarse map; else a
    cell is two characters wide and shaded.
    """
    levels = coarser(np.maximum(relevance, 0), columns)
    most = float(levels.max())
    levels = levels / most if most > 0 else levels
    if not colours:
        shades = np.ceil(levels * (len(SHADES) - 1)).astype(int)
        return Text("\n".join("".join(SHADES[shade] * 2 for shade in row).rstrip() for row in shades))
    size = max(1, columns // levels.shape[1])
    levels = levels.repeat(size, axis=0).repeat(size, axis=1)
    levels = np.pad(levels, [(0, len(levels) % 2), (0, 0)])
    text = Text()
    for upper, lower in zip(levels[::2], levels[1::2], strict=True):
        text.append("\n" if text else "")
        for top, bottom in zip(upper, lower, strict=True):
            text.append("▀", Style(color=_colour(top), bgcolor=_colour(bottom)))
    return text


def whereabouts(relevance: NDArray[np.floating]) -> str:
    """Where most of the positive relevance (rows, columns) lies: "mostly upper left", "mostly right", or all over."""
    positive = np.maximum(relevance, 0).astype(np.float64)
    if not positive.sum() > 0:
        return "nowhere"
    ninths = _thirds(len(positive)) @ (positive / positive.sum()) @ _thirds(positive.shape[1]).T
    row, column = np.unravel_index(int(ninths.argmax()), ninths.shape)
    if ninths[row, column] >= NINTH:
        middle = (int(row), int(column)) == (1, 1)
        return "mostly in the middle" if middle else f"mostly {ROW_NAMES[row]} {COLUMN_NAMES[column]}"
    rows, columns = ninths.sum(axis=1), ninths.sum(axis=0)
    if max(rows.max(), columns.max()) < THIRD:
        return "all over the picture"
    name = ROW_NAMES[int(rows.argmax())] if rows.max() >= columns.max() else COLUMN_NAMES[int(columns.argmax())]
    return f"mostly {name}"


def coarser(cells: NDArray[np.floating], columns: int) -> NDArray[np.floating]:
    """The sums of neighbouring cells, so many that no more than `columns` are left in a row."""
    size = math.ceil(cells.shape[1] / columns)
    if size == 1:
        return cells
    padded = np.pad(cells, [(0, -side % size) for side in cells.shape])
    summed: NDArray[np.floating] = padded.reshape(padded.shape[0] // size, size, padded.shape[1] // size, size).sum(
        axis=(1, 3)
    )
    return summed


def _thirds(count: int) -> NDArray[np.float64]:
    """(3, count): which share of each of `count` cells lies in each third of the side."""
    low = np.maximum(np.arange(3)[:, None] / 3, np.arange(count) / count)
    high = np.minimum(np.arange(1, 4)[:, None] / 3, np.arange(1, count + 1) / count)
    shares: NDArray[np.float64] = np.maximum(high - low, 0) * count
    return shares


def _colour(level: float) -> Color:
    red, green, blue = (round(low + level * (high - low)) for low, high in zip(DARK, BRIGHT, strict=True))
    return Color.from_rgb(red, green, blue)
