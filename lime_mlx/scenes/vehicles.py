"""Things that ride, sail and fly, all heading right."""

from __future__ import annotations

from .draw import INK, RGB, WHITE, Sketch, shade

GLASS: RGB = (176, 222, 246)
TYRE: RGB = (46, 46, 52)
STEEL: RGB = (200, 204, 210)


def _wheel(s: Sketch, x: float, y: float, r: float) -> None:
    s.oval(x, y, r, r, TYRE)
    s.oval(x, y, r * 0.5, r * 0.5, STEEL, edge=False)


def car(s: Sketch, color: RGB) -> None:
    s.blob((24, 34, 36, 12, 60, 8, 80, 14, 94, 34), color)
    s.poly((33, 33, 40, 17, 58, 14, 58, 33), GLASS, edge=False)
    s.poly((63, 33, 63, 14, 77, 18, 86, 33), GLASS, edge=False)
    s.blob((2, 40, 10, 32, 40, 32, 80, 32, 108, 36, 117, 44, 117, 58, 108, 62, 60, 62, 10, 62, 2, 56), color)
    s.rect(6, 54, 113, 60, shade(color, 0.7), edge=False)
    s.line((60, 34, 60, 56), shade(color, 0.55), 1.8, edge=False)
    s.line((65, 41, 72, 41), INK, 2.4, edge=False)
    s.oval(111, 44, 5, 4, (255, 240, 150), edge=False)
    s.rect(2, 41, 7, 48, (150, 20, 30), edge=False)
    _wheel(s, 29, 62, 13)
    _wheel(s, 91, 62, 13)


def bus(s: Sketch, color: RGB) -> None:
    s.tile(0, 0, 122, 67, 7, color)
    for x in (8, 30, 52, 74):
        s.rect(x, 12, x + 17, 32, GLASS, edge=False)
    s.rect(0, 40, 122, 46, WHITE, edge=False)
    s.rect(97, 12, 111, 64, shade(color, 0.6), edge=False)
    s.rect(99, 14, 109, 46, GLASS, edge=False)
    s.rect(115, 10, 121, 34, GLASS, edge=False)
    s.oval(117, 55, 3, 4, (255, 244, 170), edge=False)
    _wheel(s, 28, 66, 12)
    _wheel(s, 84, 66, 12)


def bicycle(s: Sketch, color: RGB) -> None:
    for x in (22, 94):
        s.ring(x, 58, 23, TYRE, 5, edge=False)
        for dx, dy in ((21, 0), (10, 18), (-10, 18)):
            s.line((x - dx, 58 - dy, x + dx, 58 + dy), (170, 174, 180), 1.2, edge=False)
    s.line((22, 58, 52, 58, 82, 26, 40, 26, 22, 58), color, 4.5)
    s.line((36, 14, 52, 58), color, 4.5)
    s.line((94, 58, 80, 16, 90, 8), color, 4.5)
    s.line((74, 6, 92, 8), INK, 5, edge=False)
    s.blob((24, 10, 46, 8, 48, 14, 36, 17, 24, 15), (60, 40, 34))
    s.oval(52, 58, 7, 7, STEEL)
    s.line((52, 58, 58, 72, 64, 72), INK, 3.5, edge=False)


def boat(s: Sketch, color: RGB) -> None:
    s.line((50, 2, 50, 78), (110, 70, 40), 4)
    s.poly((54, 4, 94, 66, 54, 66), WHITE)
    s.poly((46, 14, 46, 66, 14, 66), color)
    s.line((60, 36, 73, 36), color, 5, edge=False)
    s.line((60, 50, 82, 50), color, 5, edge=False)
    s.poly((0, 74, 108, 74, 92, 98, 18, 98), (146, 88, 46))
    s.poly((2, 77, 106, 77, 103, 83, 6, 83), WHITE, edge=False)
    s.poly((50, 0, 64, -6, 50, -11), (214, 48, 49))


def train(s: Sketch, color: RGB) -> None:
    dark = (52, 52, 60)
    s.oval(92, -6, 8, 6, (232, 232, 236))
    s.oval(80, -14, 9, 7, (232, 232, 236))
    s.poly((82, 26, 84, 10, 80, 4, 100, 4, 96, 10, 98, 26), dark)
    s.oval(62, 26, 8, 9, (230, 180, 50))
    s.rect(40, 26, 106, 54, color)
    s.oval(106, 40, 5, 14, dark)
    for x in (56, 78):
        s.rect(x, 26, x + 4, 54, (230, 180, 50), edge=False)
    s.rect(6, 10, 42, 60, shade(color, 0.8))
    s.rect(0, 4, 48, 11, (190, 44, 44))
    s.rect(13, 17, 35, 35, GLASS, edge=False)
    s.rect(4, 54, 108, 64, (190, 44, 44))
    s.poly((106, 56, 122, 76, 104, 76), dark)
    for x, r in ((20, 13), (50, 13), (76, 9), (96, 9)):
        s.oval(x, 78 - r, r, r, (190, 44, 44))
        s.oval(x, 78 - r, r * 0.62, r * 0.62, dark, edge=False)
        s.oval(x, 78 - r, r * 0.25, r * 0.25, STEEL, edge=False)
    s.line((20, 65, 50, 65), STEEL, 3.5, edge=False)


def plane(s: Sketch, color: RGB) -> None:
    body = (236, 240, 246)
    s.poly((52, 38, 44, 6, 56, 6, 78, 38), shade(color, 0.75))
    s.poly((6, 42, -6, 4, 10, 4, 30, 38), color)
    s.blob((0, 40, 30, 32, 80, 30, 106, 34, 121, 46, 106, 57, 70, 60, 30, 56, 6, 48), body)
    s.blob((4, 46, 40, 52, 80, 54, 116, 50, 104, 57, 70, 60, 30, 56), color, edge=False)
    for x in (36, 48, 60, 72, 84):
        s.oval(x, 41, 3.4, 4, (46, 96, 160), edge=False)
    s.poly((100, 36, 110, 38, 116, 43, 102, 43), (46, 96, 160), edge=False)
    s.poly((50, 50, 78, 50, 44, 88, 30, 88), color)
    s.poly((8, 44, 24, 46, 6, 58, -4, 58), color)
    s.oval(54, 68, 9, 5, (90, 96, 108))
