"""Figures of one answer: where each word came from in the picture or the sound, and D-LEAF's two diagnostics."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from lime_mlx.errors import LimeError
from lime_mlx.files import write_bytes
from lime_mlx.render.svg import LIGHT, drawing

if TYPE_CHECKING:
    from lime_mlx.probes.attention import Focus

FORMATS = (".png", ".svg", ".pdf", ".html")
DOTS = 160
COLUMNS, SHARES = 5, 2.2
LONGEST = 1024  # pixels of a picture under a map
PARTS = (("media", "series1"), ("prompt", "series0"), ("own text", "line"))
PUNCTUATION = ".,;:!?()\"'"


class Panel(NamedTuple):
    """A part of the drawing: width and height in inches, and what draws it into a figure or subfigure."""

    width: float
    height: float
    draw: Callable[[Any], None]


@dataclass(frozen=True)
class Told:
    """A word to draw. shares: of the input, the prompt and the own text; flagged: without support.

    heat: relevance at the positions of the picture (rows, columns) or of the sound (n,), for words that name something.
    """

    text: str
    shares: Sequence[float] | None = None
    flagged: bool = False
    heat: np.ndarray | None = None


def check(path: Path) -> None:
    """Raise `LimeError`, before anything is computed, for a file that could not be written."""
    if path.suffix.lower() not in FORMATS:
        raise LimeError(f"--output is {path}; its name must end in one of {', '.join(FORMATS)}.")
    if not path.parent.is_dir():
        raise LimeError(f"There is no folder {path.parent} for --output; make it, or name another file.")
    with drawing():
        pass


def picture(image: Image.Image, box: Sequence[float], words: Sequence[Told], medium: str = "picture") -> Panel:
    """The picture, a map for each word that names something, and the shares of all words.

    box: left, top, right, bottom of what the positions stand for, in pixels of the image.
    """
    named = [word for word in words if word.heat is not None]
    image = image.convert("RGB")
    scale = min(1.0, LONGEST / max(image.size))
    image = image.resize([max(1, round(side * scale)) for side in image.size])
    left, top, right, bottom = (scale * side for side in box)
    rows = math.ceil((1 + len(named)) / COLUMNS)
    columns = math.ceil((1 + len(named)) / rows)
    strongest = max((float(word.heat.max()) for word in named), default=0.0)

    def draw(grid: Any) -> None:
        for place in range(rows * columns):
            axis = grid.figure.add_subplot(grid[place // columns, place % columns])
            axis.set_axis_off()
            if place > len(named):
                continue
            axis.imshow(image, extent=(0, image.width, image.height, 0))
            axis.set_title(medium if not place else _label(named[place - 1]), **_title(place and named[place - 1]))
            if place:
                heat = np.maximum(named[place - 1].heat, 0) / max(strongest, 1e-12)
                veil = np.zeros((*heat.shape, 4))
                veil[..., 3] = 0.82 * (1 - np.sqrt(heat))
                axis.imshow(veil, extent=(left, right, bottom, top), interpolation="bilinear")
            axis.set(xlim=(0, image.width), ylim=(image.height, 0))

    return _sheet(rows, columns, 2.0, min(3.5, 2.0 * image.height / image.width), words, medium, draw)


def sound(words: Sequence[Told], seconds: float, events: Sequence[tuple[float, float] | None]) -> Panel:
    """For each word that names something, its relevance over the sound, and the shares of all words.

    seconds: of one position; events: when each of them was heard, marked by a line.
    """
    named = [word for word in words if word.heat is not None]

    def draw(grid: Any) -> None:
        axis = grid.figure.add_subplot(grid[0, 0])
        if named:
            heat = np.stack([np.maximum(word.heat, 0) for word in named])
            heat /= np.maximum(heat.max(axis=1, keepdims=True), 1e-12)
            axis.imshow(heat, aspect="auto", cmap="Blues", extent=(0, heat.shape[1] * seconds, len(named), 0), vmax=1.2)
            for place, when in enumerate(events):
                if when:
                    axis.plot(when, [place + 0.92] * 2, color=LIGHT["bad"], linewidth=2, solid_capstyle="butt")
            axis.set_yticks(np.arange(len(named)) + 0.5, [_label(word) for word in named])
            for tick, word in zip(axis.get_yticklabels(), named, strict=True):
                tick.set_color(LIGHT["bad"] if word.flagged else LIGHT["ink"])
        axis.set_xlabel("seconds; the line is the shortest time with half of the relevance")
        axis.grid(False)

    return _sheet(1, 1, 9.0, 0.32 * max(1, len(named)) + 0.3, words, "sound", draw)


def plain(words: Sequence[Told], medium: str) -> Panel:
    """The shares alone, where no map can be drawn."""
    width = max(4.0, 0.55 * len(words) + 1.5)
    return Panel(width, 2.4, lambda figure: _shares(figure.add_subplot(), words, medium))


def diagnosis(words: Sequence[str], found: "Sequence[Focus]") -> Panel:
    """LIAE of every word and layer, and IAF of every layer and head, its mean over the words."""
    liae = np.stack([focus.liae for focus in found], axis=1)
    iaf = np.mean([focus.iaf for focus in found], axis=0)

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[max(len(words), 3), max(iaf.shape[1], 3)])
        for axis, values, title in ((left, liae, "LIAE"), (right, iaf, "IAF, mean of the words")):
            drawn = axis.imshow(values, aspect="auto", cmap="cividis", interpolation="nearest")
            figure.colorbar(drawn, ax=axis, fraction=0.05)
            axis.set_title(title, fontsize=9, loc="left", color=LIGHT["ink"])
            axis.set_yticks(range(0, len(values), max(1, len(values) // 16)))
            axis.set_ylabel("layer")
            axis.grid(False)
        left.set_xticks(range(len(words)), words, rotation=90)
        right.set_xticks(range(0, iaf.shape[1], max(1, iaf.shape[1] // 16)))
        right.set_xlabel("head")

    width = max(5.0, 0.42 * len(words) + 0.3 * iaf.shape[1] + 3)
    return Panel(width, max(2.6, 0.24 * len(liae) + 1.4), draw)


def save(path: Path, panels: Sequence[Panel], text: str, notes: Sequence[str] = ()) -> None:
    """Draw the panels, inside `drawing`, into one file at once: an image, or a page that needs no network."""
    form = path.suffix.lower()[1:]
    if form != "html":
        write_bytes(path, _rendered(panels, form))
        return
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    images = [base64.b64encode(_rendered([panel], "png")).decode() for panel in panels]
    write_bytes(path, environment.get_template("answer.html").render(text=text, images=images, notes=notes).encode())


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
    rows: int, columns: int, width: float, height: float, words: Sequence[Told], medium: str, maps: Callable
) -> Panel:
    """Maps, drawn into a grid of cells of this size, and the shares of all words below them."""
    above = rows * (height + 0.3)

    def draw(figure: Any) -> None:
        outer = figure.add_gridspec(2, 1, height_ratios=[above, SHARES])
        maps(outer[0].subgridspec(rows, columns))
        _shares(figure.add_subplot(outer[1]), words, medium)

    return Panel(max(columns * width + 0.4, 0.55 * len(words) + 1.5), above + SHARES, draw)


def _shares(axis: Any, words: Sequence[Told], medium: str) -> None:
    """Stacked bars: how much of each word came from where."""
    places, below = np.arange(len(words)), np.zeros(len(words))
    for part, (name, colour) in enumerate(PARTS):
        sizes = np.array([100 * word.shares[part] if word.shares else 0.0 for word in words])
        axis.bar(places, sizes, bottom=below, color=LIGHT[colour], width=0.8, label=medium if name == "media" else name)
        below += sizes
    axis.set_xticks(places, [_label(word) for word in words], rotation=45, ha="right", rotation_mode="anchor")
    for tick, word in zip(axis.get_xticklabels(), words, strict=True):
        tick.set_color(LIGHT["bad"] if word.flagged else LIGHT["ink"])
    axis.set(ylim=(0, 100), ylabel="share in %", xlim=(-0.6, max(len(words), 1) - 0.4))
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)


def _label(word: Told) -> str:
    bare = word.text.strip(PUNCTUATION) or word.text
    return f"{bare} ?" if word.flagged else bare


def _title(word: Told | int) -> dict[str, Any]:
    return {"fontsize": 9, "color": LIGHT["bad"] if word and word.flagged else LIGHT["ink"]}
