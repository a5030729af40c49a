"""A tiny vector pen: a drawing is a list of filled outlines and strokes, stamped anywhere at any size.

Coordinates of a drawing are free (about 0 to 100, y down); `Sketch.freeze` fits it to its own box, so that a
stamped drawing touches all four sides of the box it was asked to fill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import ImageDraw

RGB = tuple[int, int, int]

INK: RGB = (38, 34, 44)
WHITE: RGB = (250, 250, 248)
_ANGLE = 2 * np.pi * (np.arange(28) + 0.5) / 28
_CIRCLE = np.stack([np.cos(_ANGLE), np.sin(_ANGLE)])
EDGE = 1.6  # half width of the dark contour, in drawing units

COLORS: dict[str, RGB] = {
    "red": (214, 48, 49),
    "blue": (36, 98, 204),
    "green": (34, 150, 72),
    "yellow": (250, 206, 40),
    "orange": (242, 130, 26),
    "purple": (132, 68, 178),
    "pink": (238, 110, 160),
    "brown": (136, 84, 44),
    "chestnut": (122, 56, 34),
    "tan": (208, 154, 88),
    "gray": (128, 134, 144),
    "black": (58, 56, 66),
    "white": WHITE,
    "teal": (16, 150, 156),
}


def shade(color: RGB, factor: float) -> RGB:
    """Darken (factor below 1) or lighten towards white (factor between 1 and 2)."""
    if factor <= 1:
        red, green, blue = (round(c * factor) for c in color)
    else:
        red, green, blue = (round(c + (255 - c) * (factor - 1)) for c in color)
    return red, green, blue


def spline(points: np.ndarray, closed: bool, steps: int = 6) -> np.ndarray:
    """Catmull-Rom curve through points (n, 2); returns (m, 2)."""
    n = len(points)
    ends = np.arange(n if closed else n - 1)
    indices = [(ends + k) % n if closed else np.clip(ends + k, 0, n - 1) for k in (-1, 0, 1, 2)]
    p0, p1, p2, p3 = (points[index][:, None] for index in indices)
    t = (np.arange(steps) / steps)[None, :, None]
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    curve = curve.reshape(-1, 2)
    return curve if closed else np.vstack([curve, points[-1:]])


@dataclass(frozen=True)
class Stroke:
    """One shape: `first:last` rows of the drawing's points; width 0 means a filled outline."""

    first: int
    last: int
    fill: RGB
    width: float
    edge: bool


@dataclass(frozen=True)
class Drawing:
    """A finished drawing: points (n, 2) from the top left of its box, size (width, height), same units."""

    points: np.ndarray
    strokes: tuple[Stroke, ...]
    width: float
    height: float


class Sketch:
    """Collects shapes; points are flat (x0, y0, x1, y1, ...); `edge=False` leaves out the dark contour."""

    def __init__(self) -> None:
        self._points: list[np.ndarray] = []
        self._strokes: list[Stroke] = []
        self._count = 0

    def _add(self, points: np.ndarray, fill: RGB, width: float, edge: bool) -> None:
        self._points.append(points)
        self._strokes.append(Stroke(self._count, self._count + len(points), fill, width, edge))
        self._count += len(points)

    def poly(self, points: Sequence[float], fill: RGB, edge: bool = True) -> None:
        """Straight-sided outline."""
        self._add(np.reshape(np.asarray(points, float), (-1, 2)), fill, 0, edge)

    def blob(self, points: Sequence[float], fill: RGB, edge: bool = True) -> None:
        """Smooth closed outline through the points."""
        self._add(spline(np.reshape(np.asarray(points, float), (-1, 2)), closed=True), fill, 0, edge)

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: RGB, edge: bool = True) -> None:
        """Upright rectangle."""
        self.poly((x0, y0, x1, y0, x1, y1, x0, y1), fill, edge)

    def tile(self, x0: float, y0: float, x1: float, y1: float, radius: float, fill: RGB) -> None:
        """Upright rectangle with round corners."""
        low, high = np.array([[x0 + radius], [y0 + radius]]), np.array([[x1 - radius], [y1 - radius]])
        self._add((np.where(_CIRCLE > 0, high, low) + radius * _CIRCLE).T, fill, 0, True)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: RGB, edge: bool = True, turn: float = 0) -> None:
        """Ellipse about (x, y), turned clockwise by `turn` degrees."""
        a, b = np.array([[rx], [ry]]) * _CIRCLE
        c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        self._add(np.stack([x + a * c - b * s, y + a * s + b * c], axis=1), fill, 0, edge)

    def line(self, points: Sequence[float], fill: RGB, width: float, edge: bool = True) -> None:
        """Straight strokes with round ends."""
        self._add(np.reshape(np.asarray(points, float), (-1, 2)), fill, width, edge)

    def curve(self, points: Sequence[float], fill: RGB, width: float, edge: bool = True) -> None:
        """Smooth open stroke through the points, round ends."""
        self._add(spline(np.reshape(np.asarray(points, float), (-1, 2)), closed=False), fill, width, edge)

    def ring(self, x: float, y: float, radius: float, fill: RGB, width: float, edge: bool = True) -> None:
        """Circle line."""
        circle = np.append(_CIRCLE, _CIRCLE[:, :1], axis=1)
        self._add(circle.T * radius + (x, y), fill, width, edge)

    def freeze(self) -> Drawing:
        """The drawing, moved so that its contour starts at (0, 0)."""
        low = np.full(2, np.inf)
        high = -low
        for points, stroke in zip(self._points, self._strokes, strict=False):
            margin = stroke.width / 2 + (EDGE if stroke.edge else 0)
            low = np.minimum(low, points.min(axis=0) - margin)
            high = np.maximum(high, points.max(axis=0) + margin)
        width, height = high - low
        return Drawing(np.concatenate(self._points) - low, tuple(self._strokes), float(width), float(height))


def _pen(canvas: ImageDraw.ImageDraw, points: list[float], fill: RGB, width: float) -> None:
    canvas.line(points, fill=fill, width=max(1, round(width)))
    if width > 2.5:
        radius = width / 2 - 0.5
        step = 2 if width > 5 else len(points) - 2
        for i in range(0, len(points), max(2, step)):
            x, y = points[i], points[i + 1]
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def stamp(
    canvas: ImageDraw.ImageDraw, drawing: Drawing, left: float, top: float, scale: float, mirror: bool = False
) -> None:
    """Draw with its box at (left, top) in pixels, `scale` pixels per unit: the contour, then the fills."""
    points = drawing.points
    if mirror:
        points = np.stack([drawing.width - points[:, 0], points[:, 1]], axis=1)
    flat = (points * scale + (left, top)).round(2).tolist()
    shapes = [([v for p in flat[s.first : s.last] for v in p], s) for s in drawing.strokes]
    edge = 2 * EDGE * scale
    for xy, stroke in shapes:
        if not stroke.edge:
            continue
        if stroke.width:
            _pen(canvas, xy, INK, stroke.width * scale + edge)
        else:
            canvas.line(xy + xy[:4], fill=INK, width=max(1, round(edge)))
    for xy, stroke in shapes:
        if stroke.width:
            _pen(canvas, xy, stroke.fill, stroke.width * scale)
        else:
            canvas.polygon(xy, fill=stroke.fill)


def drawer(recipes: dict[str, Callable[[Sketch, RGB], None]]) -> Callable[[str, str], Drawing]:
    """A cached lookup (kind, colour name) -> Drawing over recipes that sketch a kind in a colour."""

    @cache
    def drawing(kind: str, color: str) -> Drawing:
        sketch = Sketch()
        recipes[kind](sketch, COLORS[color])
        return sketch.freeze()

    return drawing
