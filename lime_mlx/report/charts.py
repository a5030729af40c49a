"""The plots of a run. Rows and points are labelled where they stand; colours are methods, shapes are models."""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from lime_mlx.evaluate.statistics import paired_bootstrap
from lime_mlx.evaluate.store import Cell
from lime_mlx.evaluate.summary import Figure, baseline
from lime_mlx.render.svg import LIGHT, SERIES, inline

from .results import CAPTIONS, COVERAGE, HALLUCINATION, QUESTIONS, Names, Result, Share, clipped
from .verdicts import points

WIDTH, ROW, LETTER = 3.75, 0.24, 0.07  # inches
SHAPES = "os^DvPX"
# Columns of a title, and of a label beside a plot.
TITLE, LABEL = 36, 25
BINS = 24
SCORES = ("accuracy", "F1")


class Section(NamedTuple):
    """Charts that are read together; note: how."""

    title: str
    note: str
    charts: list[Markup]


class Look:
    """The colour, shape and name of each cell of a task."""

    def __init__(self, result: Result, settings: Mapping[str, Any], names: Names):
        self.names, self.cells = names, list(result.answers)
        self.models = list(dict.fromkeys(cell.model for cell in self.cells))
        methods = list(settings["methods"])
        plain = (baseline(self.cells[0], settings) or self.cells[0]).method
        order = [plain, *(method for method in methods if method != plain)]
        self.colours = {
            method: SERIES[place and 1 + (place - 1) % (len(SERIES) - 1)] for place, method in enumerate(order)
        }

    def colour(self, cell: Cell) -> str:
        return self.colours[cell.method]

    def shape(self, cell: Cell) -> str:
        return SHAPES[self.models.index(cell.model) % len(SHAPES)]

    def name(self, cell: Cell) -> str:
        return self.names.of(cell, len(self.models) > 1)

    def rows(self, cells: Sequence[Cell]) -> list[Cell | str]:
        """The cells by model, the name of each model before its cells where there are several."""
        if len(self.models) < 2:
            return list(cells)
        listed: list[Cell | str] = []
        for model in self.models:
            own = [cell for cell in cells if cell.model == model]
            listed += [self.names.models[model], *own] if own else []
        return listed


def sections(result: Result, look: Look, name: str) -> list[Section]:
    """All plots of a task; name: its own on the page."""
    found = []
    if splits := result.splits(*SCORES):
        charts = [scores(result, look, split, f"{name}-s{place}") for place, split in enumerate(splits)]
        note = "Filled: accuracy. Open: F1. Lines: 95 % intervals by picture or sound."
        found.append(Section("Accuracy and F1", note, charts))
    if charts := list(_against(result, look, name)):
        note = "Lines: 95 % intervals by picture or sound. Labels stand in the order of their points."
        found.append(Section("Hallucination, and what it costs", note, charts))
    charts = [
        reliance(result, look, kind, f"{name}-r{place}") for place, kind in enumerate(_relied(result)) if len(kind)
    ]
    if charts:
        note = (
            "How much of an answer came from the picture or sound, the mean of its tokens. Up: right answers (captions "
            "with nothing made up). Down: wrong ones. Bars are shares of each; ticks are means. At the right, mean of "
            "right less mean of wrong in points, with its 95 % interval by picture: where that is far from 0, reliance "
            "tells right from wrong."
        )
        found.append(Section("Reliance of right and wrong answers", note, charts))
    return found


def _canvas(height: float, left: float, right: float, top: float = 0.34, bottom: float = 0.42) -> tuple[Any, Any]:
    """A figure and its axes; all in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    box = (left / WIDTH, bottom / height, 1 - (left + right) / WIDTH, 1 - (top + bottom) / height)
    return figure, figure.add_axes(box)


def _title(figure: Any, text: str, beside: str = "", below: str = "") -> None:
    height = figure.get_size_inches()[1]
    figure.text(0.06 / WIDTH, 1 - 0.06 / height, clipped(text, TITLE), weight="bold", va="top")
    figure.text(1 - 0.06 / WIDTH, 1 - 0.06 / height, beside, color=LIGHT["muted"], va="top", ha="right")
    figure.text(0.06 / WIDTH, 1 - 0.24 / height, below, color=LIGHT["muted"], va="top")


def _listed(axes: Any, rows: Sequence[Cell | str], look: Look) -> None:
    """Rows from top to bottom, their names at the left."""
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), ["" if isinstance(row, str) else look.names.methods[row.method] for row in rows])
    for label in axes.get_yticklabels():
        label.set(color=LIGHT["ink"])
    left = -axes.get_position().x0 / axes.get_position().width + 0.02
    for y, row in enumerate(rows):
        if isinstance(row, str):
            axes.text(left, y, row, transform=axes.get_yaxis_transform(), va="center", color=LIGHT["muted"])
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)


def _gutter(rows: Sequence[Cell | str], look: Look) -> float:
    """Inches for the names of methods."""
    return 0.14 + LETTER * max(len(look.names.methods[row.method]) for row in rows if not isinstance(row, str))


def scores(result: Result, look: Look, split: str, name: str) -> Markup:
    """Accuracy and F1 of one split."""
    figures = {(f.cell, f.metric.name): f for f in result.figures if f.metric.split == split}
    rows = look.rows([cell for cell in look.cells if any((cell, score) in figures for score in SCORES)])
    figure, axes = _canvas(0.76 + ROW * len(rows) * 1.15, _gutter(rows, look), 0.16)
    count = max(f.n for (_, score), f in figures.items() if score in SCORES)
    _title(figure, split, f"{count:,} questions")
    for y, row in enumerate(rows):
        for score, shift, shape, filled in (("accuracy", -0.17, "o", True), ("F1", 0.17, "D", False)):
            if not isinstance(row, str) and (row, score) in figures:
                found, colour = figures[row, score], look.colour(row)
                axes.plot([100 * found.low, 100 * found.high], [y + shift] * 2, color=colour, lw=1.3)
                face = colour if filled else LIGHT["paper"]
                axes.plot(100 * found.value, y + shift, shape, ms=4.2, color=colour, mfc=face, mew=1.1, zorder=3)
    _listed(axes, rows, look)
    every = [bound for f in result.figures if f.metric.name in SCORES for bound in (f.low, f.high) if bound == bound]
    low, high = 100 * min(every), 100 * max(every)
    margin = max(0.5, 0.04 * (high - low))
    axes.set_xlim(low - margin, high + margin)
    axes.set_xlabel("%")
    return inline(figure, name, f"Accuracy and F1 with 95 % intervals, {split}")


class Point(NamedTuple):
    cell: Cell
    x: Share
    y: Share


def _against(result: Result, look: Look, name: str) -> Iterator[Markup]:
    for place, split in enumerate(result.splits(*HALLUCINATION)):
        figures = {(f.cell, f.metric.name): f for f in result.figures if f.metric.split == split}
        pick = lambda cell, known, figures=figures: next(  # noqa: E731
            (figures[cell, score] for score in known if (cell, score) in figures), None
        )
        pairs = [(cell, pick(cell, COVERAGE), pick(cell, HALLUCINATION)) for cell in look.cells]
        known = [(cell, x, y) for cell, x, y in pairs if x and y and not isnan(x.value + y.value)]
        if known:
            points = [Point(cell, _share(x, 100), _share(y, 100)) for cell, x, y in known]
            found, cover = known[0][2].metric.name, known[0][1].metric.name
            title = f"{found} against {cover}"
            yield scatter(points, look, f"{name}-c{place}", title, f"{cover}, %, more is better", found)
    rate = result.rate
    for metric, what in (("time", "time per token"), ("memory", "memory")):
        figures = {cell: result.figure(cell, metric) for cell in result.hallucination}
        known = {cell: figure for cell, figure in figures.items() if figure}
        unit, factor = result.scale(next(iter(known.values())).metric.unit) if known else ("", 1.0)
        points = [
            Point(cell, _share(figure, factor), Share(*(100 * number for number in result.hallucination[cell])))
            for cell, figure in known.items()
        ]
        if points:
            across = f"{metric}, {unit}, less is better"
            yield scatter(points, look, f"{name}-{metric}", f"{rate} against {what}", across, rate)


def _share(figure: Figure, factor: float) -> Share:
    return Share(factor * figure.value, factor * figure.low, factor * figure.high)


def scatter(points: Sequence[Point], look: Look, name: str, title: str, across: str, rate: str) -> Markup:
    """Points with both intervals; their names at the right, in the order of the points, where these are not too long.

    Else the methods are, and under the plot which shape is which model.
    """
    from matplotlib.lines import Line2D

    labels, key = [look.name(point.cell) for point in points], []
    if max(map(len, labels)) > LABEL:
        labels, key = [look.names.methods[point.cell.method] for point in points], look.models
    right, below = 0.34 + LETTER * max(map(len, labels)), 0.42 + 0.17 * len(key)
    inside = max(1.85, 0.15 * len(points))
    figure, axes = _canvas(0.52 + inside + below, 0.4, right, 0.52, below)
    _title(figure, title, below=f"{rate}, %, less is better")
    for place, model in enumerate(key):
        x, y = 0.08 / WIDTH, (below - 0.5 - 0.17 * place) / (0.52 + inside + below)
        shape = SHAPES[place % len(SHAPES)]
        figure.add_artist(Line2D([x], [y], marker=shape, color=LIGHT["muted"], ms=4, mew=0))
        figure.text(x + 0.1 / WIDTH, y, look.names.models[model], va="center_baseline", color=LIGHT["muted"])
    values = [point.x.value for point in points]
    if min(values) > 0 and max(values) > 5 * min(values):
        _logarithmic(axes, values)
    for point in points:
        colour = look.colour(point.cell)
        axes.plot([point.x.low, point.x.high], [point.y.value] * 2, color=colour, lw=1, alpha=0.75)
        axes.plot([point.x.value] * 2, [point.y.low, point.y.high], color=colour, lw=1, alpha=0.75)
        edge = {"ms": 5.5, "mec": LIGHT["paper"], "mew": 0.6}
        axes.plot(point.x.value, point.y.value, look.shape(point.cell), color=colour, **edge)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]) if axes.get_ylim()[0] < 2 else None)
    axes.set_xlabel(across)
    _beside(axes, points, labels, look, 0.15 / inside)
    return inline(figure, name, title)


def _logarithmic(axes: Any, values: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _beside(axes: Any, points: Sequence[Point], labels: Sequence[str], look: Look, gap: float) -> None:
    """Names at the right of the axes as near to the height of their points as there is room, with a line to each."""
    low, high = axes.get_ylim()
    heights = [(point.y.value - low) / (high - low) for point in points]
    order = sorted(range(len(points)), key=lambda i: heights[i])
    places: list[float] = []
    for i in order:
        places.append(max(heights[i], places[-1] + gap) if places else heights[i])
    top = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], top)
        top = places[i] - gap
    blend = axes.get_yaxis_transform()
    for i, place in zip(order, places, strict=True):
        point, y = points[i], low + place * (high - low)
        colour = look.colour(point.cell)
        axes.annotate(
            "",
            xy=(point.x.value, point.y.value),
            xycoords="data",
            xytext=(1.03, y),
            textcoords=blend,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.55, "shrinkA": 0, "shrinkB": 3},
        )
        axes.plot(1.05, y, look.shape(point.cell), color=colour, ms=4, mew=0, transform=blend, clip_on=False)
        axes.text(1.085, y, labels[i], transform=blend, va="center_baseline", color=LIGHT["ink"])


class Relied(NamedTuple):
    """Reliance of the answers of one kind, of each cell: of right ones, of wrong ones, and the difference of means."""

    kind: str
    rows: dict[Cell, tuple[np.ndarray, np.ndarray, str]]


def _relied(result: Result) -> list[Relied]:
    found = []
    for kind in (QUESTIONS, CAPTIONS):
        rows = {}
        for cell, counted in result.errors.get(kind, {}).items():
            known = []
            for name, (top, _) in counted.items():
                record = result.answers[cell][name]
                tokens = [value for value in record.get("reliance") or () if value is not None]
                if tokens:
                    known.append((float(np.mean(tokens)), top > 0, record["medium"]))
            if known:
                values, wrong, media = map(np.array, zip(*known, strict=True))
                rows[cell] = values[~wrong], values[wrong], _difference(values, wrong, media)
        if rows:
            found.append(Relied(kind, rows))
    return found


def _difference(values: np.ndarray, wrong: np.ndarray, media: np.ndarray) -> str:
    weight = wrong.astype(float)
    found = paired_bootstrap((values * weight, weight), (values * (1 - weight), 1 - weight), media.tolist())
    if np.isnan(found["difference"]):
        return "none right" if wrong.all() else "none wrong"
    return points(*(found[key] for key in ("difference", "low", "high"))).replace(" points", "")


def reliance(result: Result, look: Look, relied: Relied, name: str) -> Markup:
    """Histograms of right answers upwards, of wrong ones downwards."""
    rows = look.rows(list(relied.rows))
    figure, axes = _canvas(0.76 + 1.9 * ROW * len(rows), _gutter(rows, look), 1.42)
    _title(figure, {QUESTIONS: "yes or no", CAPTIONS: "captions"}[relied.kind], "right less wrong")
    every = np.concatenate([part for row in relied.rows.values() for part in row[:2]])
    edges = np.linspace(min(0, every.min()), max(every.max(), 1e-6), BINS + 1)
    shares = {
        cell: [np.histogram(part, edges)[0] / max(1, len(part)) for part in row[:2]]
        for cell, row in relied.rows.items()
    }
    tallest = max(share.max() for pair in shares.values() for share in pair) or 1
    blend = axes.get_yaxis_transform()
    for y, row in enumerate(rows):
        if isinstance(row, str):
            continue
        right, wrong, difference = relied.rows[row]
        for part, share, sign, colour in ((right, shares[row][0], -1, "good"), (wrong, shares[row][1], 1, "bad")):
            if len(part):
                heights = 0.42 * sign * share / tallest
                axes.stairs(y + heights, 100 * edges, baseline=y, fill=True, color=LIGHT[colour], alpha=0.75, lw=0)
                axes.plot([100 * part.mean()] * 2, [y, y + 0.46 * sign], color=LIGHT["ink"], lw=1)
        axes.axhline(y, color=LIGHT["line"], lw=0.6)
        axes.text(1.03, y - 0.17, difference, transform=blend, va="center")
        counts = f"{len(right):,} right, {len(wrong):,} wrong"
        axes.text(1.03, y + 0.21, counts, transform=blend, va="center", color=LIGHT["muted"], size=7)
    _listed(axes, rows, look)
    axes.set_xlim(100 * edges[0], 100 * edges[-1])
    axes.set_xlabel("reliance, %")
    return inline(figure, name, f"Reliance of right and wrong answers, {relied.kind}")
