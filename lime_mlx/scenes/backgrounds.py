"""Where a scene happens: pale backdrops with small marks, none of which is a named kind.

A backdrop is painted in fractions of the picture (0 to 1) on a canvas of any size, so the same random
numbers give the same picture at every size.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from PIL import ImageDraw

from .draw import RGB, shade


class Backdrop:
    """A square canvas addressed in fractions, with a random source for clutter."""

    def __init__(self, canvas: ImageDraw.ImageDraw, size: int, rng: random.Random) -> None:
        self.canvas, self.size, self.rng = canvas, size, rng

    def _scaled(self, points: tuple[float, ...]) -> list[float]:
        return [v * self.size for v in points]

    def band(self, top: float, bottom: float, fill: RGB) -> None:
        """Full-width strip."""
        self.canvas.rectangle(self._scaled((0, top, 1, bottom)), fill=fill)

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: RGB) -> None:
        """Upright rectangle."""
        self.canvas.rectangle(self._scaled((x0, y0, x1, y1)), fill=fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: RGB) -> None:
        """Ellipse about (x, y)."""
        self.canvas.ellipse(self._scaled((x - rx, y - ry, x + rx, y + ry)), fill=fill)

    def poly(self, points: tuple[float, ...], fill: RGB) -> None:
        """Filled outline x0, y0, x1, y1, ..."""
        self.canvas.polygon(self._scaled(points), fill=fill)

    def line(self, points: tuple[float, ...], fill: RGB, width: float) -> None:
        """Straight strokes, width as a fraction of the picture."""
        self.canvas.line(self._scaled(points), fill=fill, width=max(1, round(width * self.size)))

    def scatter(self, low: int, high: int, top: float, bottom: float) -> list[tuple[float, float]]:
        """Between low and high random places (x, y) with y in top..bottom."""
        uniform = self.rng.uniform
        return [(uniform(0, 1), uniform(top, bottom)) for _ in range(self.rng.randint(low, high))]

    def tone(self, color: RGB, spread: float = 0.06) -> RGB:
        """The colour, a little lighter or darker at random."""
        return shade(color, 1 + self.rng.uniform(-spread, spread))


def _clouds(b: Backdrop, bottom: float, color: RGB = (244, 248, 252)) -> None:
    for x, y in b.scatter(0, 3, 0.05, bottom):
        for dx, r in ((-0.06, 0.03), (0, 0.045), (0.06, 0.03)):
            b.oval(x + dx, y, r * 1.3, r, color)


def park(b: Backdrop) -> None:
    horizon = b.rng.uniform(0.36, 0.48)
    b.band(0, 1, b.tone((190, 224, 246)))
    _clouds(b, horizon - 0.12)
    for x, y in b.scatter(2, 4, horizon, horizon + 0.04):
        b.oval(x, y + 0.08, 0.32, b.rng.uniform(0.12, 0.2), (176, 214, 158))
    grass = b.tone((158, 206, 122))
    b.band(horizon, 1, grass)
    x = b.rng.uniform(0.2, 0.7)
    b.poly((x, horizon, x + 0.05, horizon, x + 0.3, 1, x - 0.1, 1), (226, 212, 174))
    for x, y in b.scatter(8, 26, horizon + 0.03, 0.98):
        for dx in (-0.012, 0, 0.012):
            b.line((x, y, x + dx, y - 0.025), shade(grass, 0.78), 0.006)


def street(b: Backdrop) -> None:
    horizon = b.rng.uniform(0.46, 0.58)
    b.band(0, 1, b.tone((212, 220, 230)))
    x = -0.05
    while x < 1:
        width, top = b.rng.uniform(0.1, 0.2), b.rng.uniform(0.08, horizon - 0.1)
        wall = b.tone((188, 190, 202))
        b.rect(x, top, x + width, horizon, wall)
        for row in range(int((horizon - top) / 0.08)):
            for column in range(int(width / 0.05)):
                wx, wy = x + 0.015 + column * 0.05, top + 0.02 + row * 0.08
                b.rect(wx, wy, wx + 0.022, wy + 0.035, shade(wall, 1.35))
        x += width + b.rng.uniform(0, 0.03)
    b.band(horizon, horizon + 0.14, (204, 200, 192))
    for k in range(9):
        b.line((k / 8, horizon, k / 8 - 0.04, horizon + 0.14), (184, 180, 172), 0.006)
    road = b.tone((138, 140, 148))
    b.band(horizon + 0.14, 1, road)
    start = b.rng.uniform(-0.2, 0)
    for k in range(6):
        x, y = start + 0.22 * k, horizon + 0.28
        b.rect(x, y, x + 0.12, y + 0.022, (226, 224, 214))
    for x, y in b.scatter(3, 14, horizon + 0.16, 1):
        b.oval(x, y, 0.012, 0.006, shade(road, 0.86))


def beach(b: Backdrop) -> None:
    horizon, shore = b.rng.uniform(0.24, 0.32), b.rng.uniform(0.5, 0.62)
    b.band(0, 1, b.tone((206, 234, 250)))
    if b.rng.random() < 0.6:
        b.oval(b.rng.uniform(0.1, 0.9), 0.12, 0.06, 0.06, (255, 240, 176))
    _clouds(b, horizon - 0.1)
    sea = b.tone((112, 190, 216))
    b.band(horizon, shore, sea)
    for x, y in b.scatter(6, 16, horizon + 0.03, shore - 0.03):
        b.line((x - 0.04, y, x - 0.015, y - 0.01, x + 0.015, y, x + 0.04, y - 0.008), shade(sea, 1.5), 0.007)
    b.band(shore - 0.012, shore + 0.012, (240, 248, 250))
    sand = b.tone((242, 222, 172))
    b.band(shore + 0.012, 1, sand)
    for x, y in b.scatter(14, 50, shore + 0.03, 1):
        b.oval(x, y, 0.007, 0.005, shade(sand, 0.82))


def desert(b: Backdrop) -> None:
    horizon = b.rng.uniform(0.4, 0.5)
    b.band(0, horizon, b.tone((252, 226, 196)))
    b.band(0, horizon * 0.4, b.tone((250, 212, 180)))
    b.oval(b.rng.uniform(0.1, 0.9), b.rng.uniform(0.1, 0.25), 0.07, 0.07, (255, 246, 206))
    for k in range(3):
        x, y = b.rng.uniform(0, 1), horizon + 0.02
        w, h = b.rng.uniform(0.12, 0.22), b.rng.uniform(0.08, 0.2)
        b.poly((x - w, y, x - w * 0.7, y - h, x + w * 0.5, y - h, x + w, y), shade((212, 150, 122), 1 + 0.1 * k))
    sand = b.tone((230, 180, 128))
    b.band(horizon, 1, sand)
    for x, y in b.scatter(3, 7, horizon + 0.1, 1):
        b.oval(x, y, b.rng.uniform(0.2, 0.4), 0.05, shade(sand, b.rng.choice((0.92, 1.2))))
    for x, y in b.scatter(4, 16, horizon + 0.06, 0.98):
        b.poly((x - 0.018, y, x - 0.006, y - 0.018, x + 0.012, y - 0.014, x + 0.02, y), shade(sand, 0.7))


def kitchen(b: Backdrop) -> None:
    floor = b.rng.uniform(0.64, 0.74)
    tile = b.tone(b.rng.choice(((214, 232, 230), (232, 226, 236), (236, 230, 214))))
    b.band(0, floor, tile)
    step = b.rng.choice((0.1, 0.125))
    for k in range(1, int(1 / step) + 1):
        b.line((k * step, 0, k * step, floor), shade(tile, 1.6), 0.008)
        if k * step < floor:
            b.line((0, k * step, 1, k * step), shade(tile, 1.6), 0.008)
    for x, y in b.scatter(3, 9, 0, floor - step):
        x, y = int(x / step) * step, int(y / step) * step
        b.rect(x + 0.008, y + 0.008, x + step - 0.008, y + step - 0.008, shade(tile, 0.9))
    counter = b.tone((206, 178, 150))
    b.band(floor - 0.16, floor, counter)
    b.band(floor - 0.18, floor - 0.15, shade(counter, 0.78))
    for k in range(4):
        b.rect(0.02 + 0.25 * k, floor - 0.13, 0.23 + 0.25 * k, floor - 0.01, shade(counter, 1.25))
        b.rect(0.1 + 0.25 * k, floor - 0.11, 0.15 + 0.25 * k, floor - 0.1, shade(counter, 0.6))
    pale, deep = (236, 236, 232), b.tone((176, 186, 192))
    b.band(floor, 1, pale)
    for row in range(3):
        top = floor + row * 0.125
        for column in range(row % 2, 9, 2):
            b.rect(column / 8, top, (column + 1) / 8, top + 0.125, deep)


def room(b: Backdrop) -> None:
    floor = b.rng.uniform(0.58, 0.68)
    wall = b.tone(b.rng.choice(((244, 224, 214), (220, 226, 244), (232, 238, 214), (240, 230, 200))))
    b.band(0, floor, wall)
    step = b.rng.uniform(0.09, 0.14)
    for k in range(int(1 / step) + 1):
        b.rect(k * step, 0, k * step + step * 0.4, floor, shade(wall, 0.95))
    x = b.rng.uniform(0.05, 0.65)
    b.rect(x, 0.08, x + 0.3, 0.4, (250, 250, 246))
    b.rect(x + 0.02, 0.1, x + 0.14, 0.38, (198, 226, 242))
    b.rect(x + 0.16, 0.1, x + 0.28, 0.38, (198, 226, 242))
    for px, py in b.scatter(0, 3, 0.1, 0.3):
        b.rect(px, py, px + 0.1, py + 0.08, (196, 170, 140))
        b.rect(px + 0.012, py + 0.012, px + 0.088, py + 0.068, b.tone((214, 206, 222), 0.1))
    b.band(floor - 0.03, floor, (250, 246, 240))
    wood = b.tone((206, 164, 122))
    b.band(floor, 1, wood)
    for k in range(1, 5):
        y = floor + k * 0.085
        b.line((0, y, 1, y), shade(wood, 0.86), 0.006)
        for x, _ in b.scatter(2, 4, 0, 1):
            b.line((x, y - 0.085, x, y), shade(wood, 0.86), 0.006)
    if b.rng.random() < 0.6:
        x, rug = b.rng.uniform(0.3, 0.7), b.rng.choice(((196, 132, 136), (132, 152, 190), (150, 176, 140)))
        b.oval(x, floor + 0.2, 0.28, 0.09, rug)
        b.oval(x, floor + 0.2, 0.22, 0.065, shade(rug, 1.3))


BACKDROPS: dict[str, Callable[[Backdrop], None]] = {
    painter.__name__: painter for painter in (park, street, beach, desert, kitchen, room)
}
