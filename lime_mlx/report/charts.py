"""The plots of a run. Rows and points have their labels beside them; colours are methods, shapes are models."""

from collections.abc import Iterator, Sequence
from math import isnan
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from lime_mlx.evaluate.statistics import paired_bootstrap
from lime_mlx.evaluate.store import Cell, Settings
from lime_mlx.evaluate.summary import Figure, baseline
from lime_mlx.render.svg import LIGHT, SERIES, inline

from .conclusions import points
from .results import CAPTIONS, COVERAGE, HALLUCINATION, QUESTIONS, Errors, Names, Records, Share, TaskResult, clipped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

WIDTH, ROW, LETTER = 3.75, 0.24, 0.07  # inches
SHAPES = "os^DvPX"
# Columns of a title, and of a label beside a plot.
TITLE, LABEL = 36, 25
BINS = 24
# The scores of one plot: name, how far its points are moved up, shape, whether they are filled.
SCORES = (("accuracy", -0.17, "o", True), ("F1", 0.17, "D", False))
# Hallucination, and beside it what a method may cost: repeats, and what is there but is named no more.
HARM = (
    ("CHAIR_S", -0.25, "o", True),
    ("Hal", -0.25, "o", True),
    ("spoilt", -0.25, "v", True),
    ("repeats", 0.0, "s", False),
    ("recall", 0.25, "D", False),
    ("Cover", 0.25, "D", False),
)
# What the marks of each of these say.
HARM_KEYS = {
    "CHAIR_S": "Filled circles: captions with invented objects.",
    "Hal": "Filled circles: captions with invented objects.",
    "spoilt": "Triangles: right answers of plain decoding that are spoilt.",
    "repeats": "Squares: things that are named again.",
    "recall": "Diamonds: what is there and is named, where more is better.",
    "Cover": "Diamonds: what is there and is named, where more is better.",
}
Marks = Sequence[tuple[str, float, str, bool]]
Floats = NDArray[np.float64]
ByName = dict[tuple[Cell, str], Figure]


class Section(NamedTuple):
    """Charts that belong together. note: how to read them."""

    title: str
    note: str
    charts: list[Markup]


class CellStyles:
    """The colour, shape and name of each cell of a task."""

    def __init__(self, result: TaskResult, settings: Settings, names: Names) -> None:
        self.names, self.cells = names, list(result.answers)
        self.models = list(dict.fromkeys(cell.model for cell in self.cells))
        plain = (baseline(self.cells[0], settings) or self.cells[0]).method
        order = [plain, *(method for method in settings["methods"] if method != plain)]
        self.colours = {
            method: SERIES[number and 1 + (number - 1) % (len(SERIES) - 1)] for number, method in enumerate(order)
        }

    def colour(self, cell: Cell) -> str:
        return self.colours[cell.method]

    def shape(self, cell: Cell) -> str:
        return SHAPES[self.models.index(cell.model) % len(SHAPES)]

    def name(self, cell: Cell) -> str:
        return self.names.of(cell, len(self.models) > 1)

    def rows(self, cells: Sequence[Cell]) -> list[Cell | str]:
        """The cells by model. Where there are several models, the name of each stands before its cells."""
        if len(self.models) < 2:
            return list(cells)
        listed: list[Cell | str] = []
        for model in self.models:
            part = [cell for cell in cells if cell.model == model]
            listed += [self.names.models[model], *part] if part else []
        return listed


def sections(result: TaskResult, styles: CellStyles, name: str) -> list[Section]:
    """All plots of a task. name: unique on the page."""
    listed = []
    harmed = result.splits("CHAIR_S", "Hal") + [split for split in result.splits("spoilt") if split == "all"]
    if harmed:
        charts = [scores(result, styles, split, f"{name}-h{number}", HARM) for number, split in enumerate(harmed)]
        listed.append(Section("Hallucination, repeats and harm", _harm_note(result, harmed), charts))
    if splits := result.splits(*(score for score, *_ in SCORES)):
        charts = [scores(result, styles, split, f"{name}-s{number}") for number, split in enumerate(splits)]
        note = "Filled: accuracy. Open: F1. Lines: 95 % intervals by picture or sound."
        listed.append(Section("Accuracy and F1", note, charts))
    if charts := [*_against_coverage(result, styles, name), *_against_costs(result, styles, name)]:
        note = "Lines: 95 % intervals by picture or sound. Labels stand in the order of their points."
        listed.append(Section("Hallucination, and what it costs", note, charts))
    kinds = [kind for kind in (QUESTIONS, CAPTIONS) if kind in result.errors]
    histograms = [Histograms(kind, rows) for kind in kinds if (rows := _histogram_rows(result, kind))]
    if histograms:
        charts = [reliance(part, styles, f"{name}-r{number}") for number, part in enumerate(histograms)]
        note = (
            "How much of an answer came from the picture or sound: the mean of its tokens. Up: right answers, and "
            "captions without invented objects. Down: wrong ones. Bars are shares of each; ticks are means. At the "
            "right: the mean of right answers less that of wrong ones, in points, with its 95 % interval by picture. "
            "Where that is far from 0, reliance tells right from wrong."
        )
        listed.append(Section("Reliance of right and wrong answers", note, charts))
    return listed


def _harm_note(result: TaskResult, splits: Sequence[str]) -> str:
    """What the marks of a plot of harm say, without those that it does not have."""
    drawn = {figure.metric.name for figure in result.figures if figure.metric.split in splits}
    keys = dict.fromkeys(text for name, text in HARM_KEYS.items() if name in drawn)
    return " ".join([*keys, "Lines: 95 % intervals."])


def _canvas(height: float, left: float, right: float, top: float = 0.34, bottom: float = 0.42) -> "tuple[Canvas, Axes]":
    """A figure and its axes; all in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    box = (left / WIDTH, bottom / height, 1 - (left + right) / WIDTH, 1 - (top + bottom) / height)
    return figure, figure.add_axes(box)


def _title(figure: "Canvas", text: str, beside: str = "", below: str = "") -> None:
    height = figure.get_size_inches()[1]
    figure.text(0.06 / WIDTH, 1 - 0.06 / height, clipped(text, TITLE), weight="bold", va="top")
    figure.text(1 - 0.06 / WIDTH, 1 - 0.06 / height, beside, color=LIGHT["muted"], va="top", ha="right")
    figure.text(0.06 / WIDTH, 1 - 0.24 / height, below, color=LIGHT["muted"], va="top")


def _label_rows(axes: "Axes", rows: Sequence[Cell | str], styles: CellStyles) -> None:
    """Place rows from top to bottom, with their names at the left."""
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(
        range(len(rows)), ["" if isinstance(row, str) else styles.names.methods[row.method] for row in rows]
    )
    for label in axes.get_yticklabels():
        label.set(color=LIGHT["ink"])
    left = -axes.get_position().x0 / axes.get_position().width + 0.02
    for y, row in enumerate(rows):
        if isinstance(row, str):
            axes.text(left, y, row, transform=axes.get_yaxis_transform(), va="center", color=LIGHT["muted"])
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)


def _gutter(rows: Sequence[Cell | str], styles: CellStyles) -> float:
    """Inches for the names of methods."""
    return 0.14 + LETTER * max(len(styles.names.methods[row.method]) for row in rows if not isinstance(row, str))


def scores(result: TaskResult, styles: CellStyles, split: str, name: str, marks: Marks = SCORES) -> Markup:
    """Some figures of one split, by default accuracy and F1."""
    figures = _by_name(result, split)
    cells = [cell for cell in styles.cells if any((cell, score) in figures for score, *_ in marks)]
    rows = styles.rows(cells)
    canvas, axes = _canvas(0.76 + ROW * len(rows) * 1.15, _gutter(rows, styles), 0.16)
    drawn = [figure for (_, metric), figure in figures.items() if metric in [score for score, *_ in marks]]
    _title(canvas, split, f"{max(figure.n for figure in drawn):,} {'questions' if marks is SCORES else 'answers'}")
    for y, row in enumerate(rows):
        for score, shift, shape, filled in marks:
            if not isinstance(row, str) and (figure := figures.get((row, score))):
                _interval(axes, figure, y + shift, shape, styles.colour(row), filled)
    _label_rows(axes, rows, styles)
    axes.set_xlim(*_limits(result, marks))
    axes.set_xlabel("%")
    said = "; ".join(
        f"{styles.name(cell)} {metric} {100 * figure.value:.1f} %"
        for (cell, metric), figure in figures.items()
        if metric in [score for score, *_ in marks]
    )
    return inline(canvas, name, f"Figures with 95 % intervals, {split}: {said}")


def _by_name(result: TaskResult, split: str) -> ByName:
    return {(figure.cell, figure.metric.name): figure for figure in result.figures if figure.metric.split == split}


def _interval(axes: "Axes", figure: Figure, y: float, shape: str, colour: str, filled: bool) -> None:
    axes.plot([100 * figure.low, 100 * figure.high], [y, y], color=colour, lw=1.3)
    face = colour if filled else LIGHT["paper"]
    axes.plot(100 * figure.value, y, shape, ms=4.2, color=colour, mfc=face, mew=1.1, zorder=3)


def _limits(result: TaskResult, marks: Marks) -> tuple[float, float]:
    """The ends of the axis of scores, the same for all splits."""
    names = [score for score, *_ in marks]
    figures = [figure for figure in result.figures if figure.metric.name in names]
    bounds = [bound for figure in figures for bound in (figure.low, figure.high) if not isnan(bound)]
    low, high = 100 * min(bounds), 100 * max(bounds)
    margin = max(0.5, 0.04 * (high - low))
    return low - margin, high + margin


class Point(NamedTuple):
    """A cell in a plot of two figures."""

    cell: Cell
    x: Share
    y: Share


def _against_coverage(result: TaskResult, styles: CellStyles, name: str) -> Iterator[Markup]:
    """Hallucination against the objects that are found, for each split."""
    for number, split in enumerate(result.splits(*HALLUCINATION)):
        figures = _by_name(result, split)
        pairs = [(cell, _first(figures, cell, COVERAGE), _first(figures, cell, HALLUCINATION)) for cell in styles.cells]
        complete = [(cell, x, y) for cell, x, y in pairs if x and y and not isnan(x.value + y.value)]
        if complete:
            points = [Point(cell, _share(x, 100), _share(y, 100)) for cell, x, y in complete]
            cover, rate = (figure.metric.name for figure in complete[0][1:])
            title, across = f"{rate} against {cover}", f"{cover}, %, more is better"
            yield scatter(points, styles, f"{name}-c{number}", title, across, rate)


def _first(figures: ByName, cell: Cell, names: Sequence[str]) -> Figure | None:
    """The first of these figures that a cell has."""
    return next((figures[cell, name] for name in names if (cell, name) in figures), None)


def _against_costs(result: TaskResult, styles: CellStyles, name: str) -> Iterator[Markup]:
    """Hallucination against time and memory."""
    rate = result.rate
    for metric, what in (("time", "time per token"), ("memory", "memory")):
        pairs = [(cell, result.figure(cell, metric)) for cell in result.hallucination]
        measured = [(cell, figure) for cell, figure in pairs if figure]
        if measured and rate:
            unit, factor = result.scale(measured[0][1].metric.unit)
            points = [
                Point(cell, _share(figure, factor), Share(*(100 * number for number in result.hallucination[cell])))
                for cell, figure in measured
            ]
            across = f"{metric}, {unit}, less is better"
            yield scatter(points, styles, f"{name}-{metric}", f"{rate} against {what}", across, rate)


def _share(figure: Figure, factor: float) -> Share:
    return Share(factor * figure.value, factor * figure.low, factor * figure.high)


def scatter(points: Sequence[Point], styles: CellStyles, name: str, title: str, across: str, rate: str) -> Markup:
    """Points with both intervals, and their names at the right, in the order of the points.

    Where the names are long, only the methods are at the right, and the shapes of the models are under the plot.
    """
    from matplotlib.lines import Line2D

    labels, models = [styles.name(point.cell) for point in points], list[str]()
    if max(map(len, labels)) > LABEL:
        labels, models = [styles.names.methods[point.cell.method] for point in points], styles.models
    right, below = 0.34 + LETTER * max(map(len, labels)), 0.42 + 0.17 * len(models)
    inside = max(1.85, 0.15 * len(points))
    figure, axes = _canvas(0.52 + inside + below, 0.4, right, 0.52, below)
    _title(figure, title, below=f"{rate}, %, less is better")
    for number, model in enumerate(models):
        x, y = 0.08 / WIDTH, (below - 0.5 - 0.17 * number) / (0.52 + inside + below)
        shape = SHAPES[number % len(SHAPES)]
        figure.add_artist(Line2D([x], [y], marker=shape, color=LIGHT["muted"], ms=4, mew=0))
        figure.text(x + 0.1 / WIDTH, y, styles.names.models[model], va="center_baseline", color=LIGHT["muted"])
    values = [point.x.value for point in points]
    if min(values) > 0 and max(values) > 5 * min(values):
        _logarithmic(axes, values)
    for point in points:
        colour = styles.colour(point.cell)
        axes.plot([point.x.low, point.x.high], [point.y.value] * 2, color=colour, lw=1, alpha=0.75)
        axes.plot([point.x.value] * 2, [point.y.low, point.y.high], color=colour, lw=1, alpha=0.75)
        shape, paper = styles.shape(point.cell), LIGHT["paper"]
        axes.plot(point.x.value, point.y.value, shape, color=colour, ms=5.5, mec=paper, mew=0.6)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]) if axes.get_ylim()[0] < 2 else None)
    axes.set_xlabel(across)
    _beside(axes, points, labels, styles, 0.15 / inside)
    said = "; ".join(f"{styles.name(point.cell)} {point.y.value:.1f} % at {point.x.value:.3g}" for point in points)
    return inline(figure, name, f"{title}: {said}")


def _logarithmic(axes: "Axes", values: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _beside(axes: "Axes", points: Sequence[Point], labels: Sequence[str], styles: CellStyles, gap: float) -> None:
    """Write names at the right, as near to the height of their points as there is room, with a line to each."""
    low, high = axes.get_ylim()
    heights = [(point.y.value - low) / (high - low) for point in points]
    order = sorted(range(len(points)), key=lambda i: heights[i])
    levels: list[float] = []
    for i in order:
        levels.append(max(heights[i], levels[-1] + gap) if levels else heights[i])
    top = 1.0
    for i in reversed(range(len(levels))):
        levels[i] = min(levels[i], top)
        top = levels[i] - gap
    blend = axes.get_yaxis_transform()
    for i, level in zip(order, levels, strict=True):
        point, y = points[i], low + level * (high - low)
        colour = styles.colour(point.cell)
        axes.annotate(
            "",
            xy=(point.x.value, point.y.value),
            xycoords="data",
            xytext=(1.03, y),
            textcoords=blend,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.55, "shrinkA": 0, "shrinkB": 3},
        )
        axes.plot(1.05, y, styles.shape(point.cell), color=colour, ms=4, mew=0, transform=blend, clip_on=False)
        axes.text(1.085, y, labels[i], transform=blend, va="center_baseline", color=LIGHT["ink"])


class Histograms(NamedTuple):
    """The reliance of answers of one kind: for each cell, of right ones, of wrong ones, and how the means differ."""

    kind: str
    rows: dict[Cell, tuple[Floats, Floats, str]]


def _histogram_rows(result: TaskResult, kind: str) -> dict[Cell, tuple[Floats, Floats, str]]:
    rows = {}
    for cell, errors in result.errors[kind].items():
        entries = _reliance_of(result.answers[cell], errors)
        if entries:
            values, wrong, media = (np.array(column) for column in zip(*entries, strict=True))
            rows[cell] = values[~wrong], values[wrong], _difference(values, wrong, media)
    return rows


def _reliance_of(answers: Records, errors: dict[str, Errors]) -> list[tuple[float, bool, str]]:
    """The mean reliance of each answer that has one, whether it is wrong, and its picture or sound."""
    entries = []
    for name, error in errors.items():
        record = answers[name]
        tokens = [value for value in record.get("reliance") or () if value is not None]
        if tokens:
            entries.append((float(np.mean(tokens)), error.wrong > 0, record["medium"]))
    return entries


def _difference(values: Floats, wrong: NDArray[np.bool_], media: NDArray[np.str_]) -> str:
    weight = wrong.astype(np.float64)
    paired = paired_bootstrap((values * weight, weight), (values * (1 - weight), 1 - weight), media.tolist())
    if np.isnan(paired.difference):
        return "none right" if wrong.all() else "none wrong"
    return points(paired.difference, paired.low, paired.high).replace(" points", "")


def reliance(part: Histograms, styles: CellStyles, name: str) -> Markup:
    """Histograms of right answers upwards, of wrong ones downwards."""
    rows = styles.rows(list(part.rows))
    figure, axes = _canvas(0.76 + 1.9 * ROW * len(rows), _gutter(rows, styles), 1.42)
    _title(figure, {QUESTIONS: "yes or no", CAPTIONS: "captions"}[part.kind], "right less wrong")
    every = np.concatenate([values for row in part.rows.values() for values in row[:2]])
    edges = np.linspace(min(0, every.min()), max(every.max(), 1e-6), BINS + 1)
    shares = {
        cell: [np.histogram(values, edges)[0] / max(1, len(values)) for values in row[:2]]
        for cell, row in part.rows.items()
    }
    tallest = max(share.max() for pair in shares.values() for share in pair) or 1
    blend = axes.get_yaxis_transform()
    for y, row in enumerate(rows):
        if isinstance(row, str):
            continue
        right, wrong, difference = part.rows[row]
        for values, share, sign, colour in ((right, shares[row][0], -1, "good"), (wrong, shares[row][1], 1, "bad")):
            if len(values):
                heights = 0.42 * sign * share / tallest
                axes.stairs(y + heights, 100 * edges, baseline=y, fill=True, color=LIGHT[colour], alpha=0.75, lw=0)
                axes.plot([100 * values.mean()] * 2, [y, y + 0.46 * sign], color=LIGHT["ink"], lw=1)
        axes.axhline(y, color=LIGHT["line"], lw=0.6)
        axes.text(1.03, y - 0.17, difference, transform=blend, va="center")
        counts = f"{len(right):,} right, {len(wrong):,} wrong"
        axes.text(1.03, y + 0.21, counts, transform=blend, va="center", color=LIGHT["muted"], size=7)
    _label_rows(axes, rows, styles)
    axes.set_xlim(100 * edges[0], 100 * edges[-1])
    axes.set_xlabel("reliance, %")
    return inline(figure, name, f"Reliance of right and wrong answers, {part.kind}")
