"""Buildings, furniture, toys and food."""

from __future__ import annotations

import math

from .draw import INK, RGB, WHITE, Sketch, shade

WOOD: RGB = (170, 112, 60)
GLASS: RGB = (176, 222, 246)


def house(s: Sketch, color: RGB) -> None:
    roof = (158, 62, 48) if color[0] < 200 else (86, 80, 104)
    s.rect(72, 2, 86, 34, (150, 96, 84))
    s.rect(12, 42, 92, 98, color)
    s.poly((-2, 46, 52, 0, 106, 46), roof)
    for y in (18, 30, 40):
        half = (y - 4) * 1.12
        s.line((52 - half, y, 52 + half, y), shade(roof, 0.7), 2, edge=False)
    s.rect(42, 62, 62, 97, (104, 62, 38), edge=False)
    s.oval(58, 80, 2, 2, (250, 210, 70), edge=False)
    for x in (19, 69):
        s.rect(x, 56, x + 17, 74, WHITE, edge=False)
        s.rect(x + 2, 58, x + 15, 72, (120, 190, 230), edge=False)
        s.line((x + 8.5, 57, x + 8.5, 73), WHITE, 2, edge=False)


def chair(s: Sketch, color: RGB) -> None:
    dark = shade(WOOD, 0.65)
    s.line((30, 58, 30, 94), dark, 6)
    s.line((76, 58, 76, 94), dark, 6)
    s.line((12, 2, 14, 60), WOOD, 7)
    s.line((14, 60, 12, 106), WOOD, 7)
    s.line((62, 68, 62, 106), WOOD, 7)
    s.poly((9, 4, 22, -2, 24, 42, 13, 50), color)
    s.poly((8, 62, 26, 48, 80, 48, 68, 62), color)
    s.rect(8, 62, 68, 70, WOOD)
    s.line((14, 88, 60, 88), WOOD, 4)


def table(s: Sketch, color: RGB) -> None:
    for x in (30, 92):
        s.rect(x - 4, 20, x + 4, 62, shade(color, 0.6))
    s.rect(12, 24, 110, 34, shade(color, 0.75))
    for x in (12, 110):
        s.rect(x - 5, 24, x + 5, 78, shade(color, 0.9))
    s.poly((20, 2, 102, 2, 124, 20, -2, 20), shade(color, 1.3))
    s.rect(-2, 20, 124, 27, color)
    s.line((22, 8, 86, 8), color, 2, edge=False)
    s.line((24, 14, 104, 14), color, 2, edge=False)


def lamp(s: Sketch, color: RGB) -> None:
    s.line((40, 42, 40, 96), (120, 100, 70), 6)
    s.blob((14, 104, 22, 95, 40, 92, 58, 95, 66, 104, 40, 106), (120, 100, 70))
    s.line((58, 44, 58, 62), (90, 80, 70), 1.6, edge=False)
    s.oval(58, 64, 3, 3, (90, 80, 70), edge=False)
    s.oval(40, 44, 10, 10, (255, 252, 210))
    s.poly((24, 0, 56, 0, 80, 44, 0, 44), color)
    s.poly((28, 2, 38, 2, 32, 42, 8, 42), shade(color, 1.5), edge=False)
    s.line((3, 40, 77, 40), shade(color, 0.7), 3, edge=False)


def clock(s: Sketch, color: RGB) -> None:
    s.line((24, 84, 14, 98), color, 8)
    s.line((76, 84, 86, 98), color, 8)
    s.oval(22, 12, 17, 12, (236, 190, 60), turn=-38)
    s.oval(78, 12, 17, 12, (236, 190, 60), turn=38)
    s.line((50, 12, 50, 2), INK, 5, edge=False)
    s.oval(50, 52, 42, 42, color)
    s.oval(50, 52, 33, 33, WHITE, edge=False)
    for hour in range(12):
        a = math.radians(30 * hour)
        c, d = math.cos(a), math.sin(a)
        inner = 25 if hour % 3 else 21
        s.line((50 + inner * c, 52 + inner * d, 50 + 29 * c, 52 + 29 * d), INK, 2.6, edge=False)
    s.line((50, 52, 50, 30), INK, 4, edge=False)
    s.line((50, 52, 66, 60), INK, 4, edge=False)
    s.oval(50, 52, 4, 4, (214, 48, 49), edge=False)


def cup(s: Sketch, color: RGB) -> None:
    s.curve((72, 48, 94, 44, 98, 62, 88, 76, 70, 78), color, 8)
    for x in (24, 42, 60):
        s.curve((x, 22, x - 5, 14, x + 5, 6, x, -4), (236, 240, 244), 4)
    s.blob((4, 32, 80, 32, 78, 74, 68, 96, 42, 99, 16, 96, 6, 74), color)
    s.oval(42, 32, 39, 8, shade(color, 1.45))
    s.oval(42, 33, 33, 5, (92, 54, 30), edge=False)
    s.blob((14, 48, 22, 50, 24, 80, 18, 78), shade(color, 1.5), edge=False)


def book(s: Sketch, color: RGB) -> None:
    paper = (252, 248, 232)
    s.poly((-4, 12, 56, 20, 116, 12, 116, 80, 56, 88, -4, 80), color)
    s.poly((2, 8, 16, 5, 30, 5, 44, 9, 56, 16, 56, 82, 44, 75, 30, 71, 16, 71, 2, 74), paper)
    s.poly((110, 8, 96, 5, 82, 5, 68, 9, 56, 16, 56, 82, 68, 75, 82, 71, 96, 71, 110, 74), paper)
    for y in (20, 31, 42, 53, 62):
        s.curve((10, y, 28, y - 2, 48, y + 6), (110, 110, 124), 2.6, edge=False)
        s.curve((102, y, 84, y - 2, 64, y + 6), (110, 110, 124), 2.6, edge=False)
    s.line((56, 16, 56, 84), INK, 2.4, edge=False)
    s.poly((88, 4, 96, 5, 96, 34, 92, 28, 88, 33), (214, 48, 49), edge=False)


def umbrella(s: Sketch, color: RGB) -> None:
    s.line((54, 0, 54, 92), (110, 74, 48), 4.5)
    s.curve((54, 90, 52, 100, 43, 101, 39, 92), (110, 74, 48), 5)
    s.blob((0, 50, 8, 26, 28, 10, 54, 4, 80, 10, 100, 26, 108, 50, 90, 44, 72, 52, 54, 45, 36, 52, 18, 44), color)
    s.blob((36, 51, 38, 26, 53, 6, 53, 6, 46, 47), WHITE, edge=False)
    s.poly((54, 5, 70, 26, 73, 50, 54, 45), shade(color, 0.8), edge=False)
    s.poly((54, 5, 86, 22, 106, 48, 90, 44, 73, 50, 70, 26), WHITE, edge=False)
    s.poly((54, 5, 37, 26, 35, 51, 44, 48, 54, 45), color, edge=False)
    s.poly((54, 5, 22, 22, 2, 48, 18, 44, 35, 50, 38, 26), WHITE, edge=False)


def ball(s: Sketch, color: RGB) -> None:
    s.oval(50, 50, 48, 48, WHITE)
    for first in (-90, 30, 150):
        edge = [(50 + 48 * math.cos(math.radians(first + a)), 50 + 48 * math.sin(math.radians(first + a)))
                for a in range(0, 61, 6)]  # fmt: skip
        s.poly([v for point in [(46, 46), *edge] for v in point], color, edge=False)
    s.oval(46, 46, 7, 7, (250, 206, 40), edge=False)
    s.oval(28, 22, 8, 5, WHITE, edge=False, turn=-40)


def kite(s: Sketch, color: RGB) -> None:
    s.curve((50, 84, 42, 92, 30, 90, 20, 98, 8, 96), INK, 2.4, edge=False)
    for x, y in ((36, 91), (22, 97), (6, 96)):
        s.poly((x, y, x - 7, y - 6, x - 6, y + 6), (214, 48, 49))
        s.poly((x, y, x + 7, y - 6, x + 6, y + 6), (214, 48, 49))
    other = (250, 206, 40) if color[2] > 100 or color[1] < 100 else (36, 98, 204)
    s.poly((58, -6, 92, 30, 52, 86, 20, 22), color)
    s.poly((58, -6, 92, 30, 54, 32), other, edge=False)
    s.poly((20, 22, 54, 32, 52, 86), other, edge=False)
    s.line((58, -6, 54, 32, 52, 86), INK, 2, edge=False)
    s.line((20, 22, 54, 32, 92, 30), INK, 2, edge=False)


def banana(s: Sketch, color: RGB) -> None:
    s.blob((8, 20, 12, 6, 18, 4, 24, 8, 26, 30, 44, 54, 70, 64, 96, 58, 102, 62, 100, 72, 76, 88, 44, 84,
            18, 60, 8, 36), color)  # fmt: skip
    s.curve((15, 20, 19, 42, 38, 66, 66, 76, 92, 68), shade(color, 0.75), 3, edge=False)
    s.poly((11, 10, 10, -6, 20, -7, 23, 8), (120, 86, 40))
    s.oval(100, 66, 5, 6, (84, 60, 36))
    for x, y in ((34, 58), (50, 68), (62, 70)):
        s.oval(x, y, 2.2, 1.6, (140, 96, 36), edge=False)


def pizza(s: Sketch, color: RGB) -> None:
    s.poly((6, 18, 94, 18, 50, 104), (250, 204, 80))
    s.blob((-2, 16, 10, 4, 50, -2, 90, 4, 102, 16, 94, 26, 50, 20, 6, 26), (196, 128, 62))
    for x, y, r in ((36, 36, 11), (66, 38, 11), (50, 62, 10), (50, 84, 6)):
        s.oval(x, y, r, r, shade(color, 0.75), edge=False)
        s.oval(x, y, r - 2, r - 2, color, edge=False)
    for x, y in ((50, 44), (42, 52), (62, 54), (24, 30), (80, 30)):
        s.line((x - 3, y - 1, x + 2, y + 2), (46, 130, 56), 3, edge=False)
