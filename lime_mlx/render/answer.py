"""Figures of one answer: where each word came from in the picture or the sound, and D-LEAF's two diagnostics."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lime_mlx.errors import LimeError, plain_text
from lime_mlx.files import check_output, write_output
from lime_mlx.methods.dleaf import Focus
from lime_mlx.render.page import is_page
from lime_mlx.render.svg import LIGHT, drawing
from lime_mlx.words import Word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from matplotlib.gridspec import GridSpecBase

FORMATS = (".png", ".svg", ".pdf", ".html")
DOTS = 160
COLUMNS, SHARES = 5, 2.2
LONGEST = 1024  # pixels of a picture under a map
# The colour of each share; that of a kind of input is drawn only where a word rests on it.
COLOURS = {"image": "series1", "audio": "series3", "prompt": "series0", "own": "line"}
INPUTS = ("image", "audio")


class Panel(NamedTuple):
    """A part of the drawing: width and height in inches, and what draws it into a figure or subfigure."""

    width: float
    height: float
    draw: Callable[[SubFigure], None]


@dataclass(frozen=True)
class WordMap:
    """A word to draw, and its relevance over the picture (rows, columns) or the sound (n,), where it has one."""

    word: Word
    map: NDArray[np.float32] | None = None


def check(path: Path) -> None:
    """Raise `LimeError`, before anything is computed, for a file that could not be written."""
    if path.suffix.lower() not in FORMATS:
        raise LimeError(f"{path} cannot be written: its name must end in one of {', '.join(FORMATS)}.")
    check_output(path)
    if not is_page(path):
        with drawing():
            pass


def picture(image: Image.Image, words: Sequence[WordMap], medium: str = "picture") -> Panel:
    """The picture, a map for each word that has one, and the shares of all words. A map covers the whole picture."""
    mapped = [(entry.word, entry.map) for entry in words if entry.map is not None]
    image = image.convert("RGB")
    scale = min(1.0, LONGEST / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    image = image.resize((width, height))
    rows = math.ceil((1 + len(mapped)) / COLUMNS)
    columns = math.ceil((1 + len(mapped)) / rows)
    strongest = max((float(relevance.max()) for _, relevance in mapped), default=0.0)

    def draw(figure: SubFigure, grid: GridSpecBase) -> None:
        for cell in range(rows * columns):
            axis = figure.add_subplot(grid[cell // columns, cell % columns])
            axis.set_axis_off()
            if cell > len(mapped):
                continue
            axis.imshow(image, extent=(0, width, height, 0))
            if cell:
                word, relevance = mapped[cell - 1]
                axis.set_title(_label(word), fontsize=9, color=_colour(word))
                axis.imshow(_veil(relevance, strongest), extent=(0, width, height, 0), interpolation="bilinear")
            else:
                axis.set_title(medium, fontsize=9, color=LIGHT["ink"])
            axis.set(xlim=(0, width), ylim=(height, 0))

    return _sheet(rows, columns, 2.0, min(3.5, 2.0 * height / width), words, draw)


def _veil(relevance: NDArray[np.float32], strongest: float) -> NDArray[np.float64]:
    """A black image (rows, columns, 4) that hides what has little relevance, in a map of which `strongest` is white."""
    visible = np.maximum(relevance, 0) / max(strongest, 1e-12)
    veil = np.zeros((*visible.shape, 4))
    veil[..., 3] = 0.82 * (1 - np.sqrt(visible))
    return veil


def sound(words: Sequence[WordMap], seconds: float, intervals: Sequence[tuple[float, float] | None]) -> Panel:
    """For each word that has a map, its relevance over the sound, and the shares of all words.

    seconds: of one position; intervals: when each of them was heard, marked by a line.
    """
    mapped = [(entry.word, entry.map) for entry in words if entry.map is not None]

    def draw(figure: SubFigure, grid: GridSpecBase) -> None:
        axis = figure.add_subplot(grid[0, 0])
        if mapped:
            rows = np.stack([np.maximum(relevance, 0) for _, relevance in mapped])
            rows /= np.maximum(rows.max(axis=1, keepdims=True), 1e-12)
            axis.imshow(
                rows, aspect="auto", cmap="Blues", extent=(0, rows.shape[1] * seconds, len(mapped), 0), vmax=1.2
            )
            for row, interval in enumerate(intervals):
                if interval:
                    axis.plot(interval, [row + 0.92] * 2, color=LIGHT["bad"], linewidth=2, solid_capstyle="butt")
            axis.set_yticks(np.arange(len(mapped)) + 0.5, [_label(word) for word, _ in mapped])
            for tick, (word, _) in zip(axis.get_yticklabels(), mapped, strict=True):
                tick.set_color(_colour(word))
        axis.set_xlabel("seconds; the line is the shortest time with half of the relevance")
        axis.grid(False)

    return _sheet(1, 1, 9.0, 0.32 * max(1, len(mapped)) + 0.3, words, draw)


def plain(words: Sequence[WordMap]) -> Panel:
    """The shares alone, where no map can be drawn."""
    width = max(4.0, 0.55 * len(words) + 1.5)
    return Panel(width, 2.4, lambda figure: _shares(figure.add_subplot(), words))


def diagnosis(words: Sequence[str], focuses: Sequence[Focus]) -> Panel:
    """LIAE of every word and layer, and IAF of every layer and head, its mean over the words."""
    liae = np.stack([focus.liae for focus in focuses], axis=1)
    iaf = np.mean([focus.iaf for focus in focuses], axis=0)

    def draw(figure: SubFigure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[max(len(words), 3), max(iaf.shape[1], 3)])
        for axis, values, title in ((left, liae, "LIAE"), (right, iaf, "IAF, mean of the words")):
            shown = axis.imshow(values, aspect="auto", cmap="cividis", interpolation="nearest")
            figure.colorbar(shown, ax=axis, fraction=0.05)
            axis.set_title(title, fontsize=9, loc="left", color=LIGHT["ink"])
            axis.set_yticks(range(0, len(values), max(1, len(values) // 16)))
            axis.set_ylabel("layer")
            axis.grid(False)
        left.set_xticks(range(len(words)), list(map(plain_text, words)), rotation=90)
        right.set_xticks(range(0, iaf.shape[1], max(1, iaf.shape[1] // 16)))
        right.set_xlabel("head")

    width = max(5.0, 0.42 * len(words) + 0.3 * iaf.shape[1] + 3)
    return Panel(width, max(2.6, 0.24 * len(liae) + 1.4), draw)


def save(path: Path, panels: Sequence[Panel]) -> None:
    """Draw the panels, inside `drawing`, into one file at once."""
    write_output(path, _rendered(panels, path.suffix.lower()[1:]))


def uri(panel: Panel) -> str:
    """A panel as a PNG in a data URI."""
    with drawing():
        return f"data:image/png;base64,{base64.b64encode(_rendered([panel], 'png')).decode()}"


def _rendered(panels: Sequence[Panel], form: str) -> bytes:
    """The panels under each other."""
    from matplotlib.figure import Figure

    heights = [panel.height for panel in panels]
    figure = Figure(figsize=(max(panel.width for panel in panels), sum(heights)), layout="constrained")
    parts = figure.subfigures(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for panel, part in zip(panels, parts, strict=True):
        panel.draw(part)
    file = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form, {})
    figure.savefig(file, format=form, dpi=DOTS, facecolor="white", metadata=metadata)
    return file.getvalue()


def _sheet(
    rows: int,
    columns: int,
    width: float,
    height: float,
    words: Sequence[WordMap],
    maps: Callable[[SubFigure, GridSpecBase], None],
) -> Panel:
    """Maps, drawn into a grid of cells of this size, and the shares of all words below them."""
    above = rows * (height + 0.3)

    def draw(figure: SubFigure) -> None:
        outer = figure.add_gridspec(2, 1, height_ratios=[above, SHARES])
        maps(figure, outer[0].subgridspec(rows, columns))
        _shares(figure.add_subplot(outer[1]), words)

    return Panel(max(columns * width + 0.4, 0.55 * len(words) + 1.5), above + SHARES, draw)


def _shares(axis: Axes, words: Sequence[WordMap]) -> None:
    """Stacked bars: how much of each word came from where."""
    columns, below = np.arange(len(words)), np.zeros(len(words))
    for name, colour in COLOURS.items():
        sizes = np.array([100 * getattr(entry.word.shares, name, 0.0) for entry in words])
        if sizes.any() or name not in INPUTS:
            axis.bar(columns, sizes, bottom=below, color=LIGHT[colour], width=0.8, label=name)
        below += sizes
    axis.set_xticks(columns, [_label(entry.word) for entry in words], rotation=45, ha="right", rotation_mode="anchor")
    for tick, entry in zip(axis.get_xticklabels(), words, strict=True):
        tick.set_color(_colour(entry.word))
    axis.set(ylim=(0, 100), ylabel="share in %", xlim=(-0.6, max(len(words), 1) - 0.4))
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False)


def _label(word: Word) -> str:
    return f"{plain_text(word.name or word.text.strip())}{' ?' if word.flagged else ''}"


def _colour(word: Word) -> str:
    return LIGHT["bad"] if word.flagged else LIGHT["ink"]
