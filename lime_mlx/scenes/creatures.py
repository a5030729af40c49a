"""Animals and plants, all facing right."""

from __future__ import annotations

from .draw import INK, RGB, WHITE, Sketch, shade

PINK: RGB = (244, 160, 170)
BEAK: RGB = (244, 140, 30)
LEAF: RGB = (46, 140, 58)


def _eye(s: Sketch, x: float, y: float, r: float = 2.6) -> None:
    s.oval(x, y, r, r, INK, edge=False)
    s.oval(x + r / 3, y - r / 3, r / 3, r / 3, WHITE, edge=False)


def dog(s: Sketch, color: RGB) -> None:
    dark = shade(color, 0.45)
    s.curve((14, 54, 4, 44, 2, 28), color, 7)
    for x, tone in ((30, 0.75), (66, 0.75), (20, 1.0), (76, 1.0)):
        s.line((x, 66, x, 92), shade(color, tone), 9)
        s.line((x + 1, 93, x + 5, 93), shade(color, tone), 8)
    s.blob((12, 56, 24, 48, 50, 48, 70, 42, 82, 52, 80, 70, 66, 74, 44, 70, 24, 76, 13, 70), color)
    s.blob((66, 22, 80, 14, 94, 20, 98, 30, 112, 34, 112, 44, 96, 48, 84, 54, 68, 50, 63, 36), color)
    s.blob((98, 36, 112, 34, 113, 44, 97, 48), shade(color, 1.6), edge=False)
    s.blob((68, 16, 77, 20, 78, 40, 70, 54, 61, 48, 61, 28), dark)
    s.oval(111, 35, 5, 4, INK)
    _eye(s, 90, 28, 3.2)
    s.line((68, 55, 82, 57), (214, 48, 49), 5, edge=False)
    s.blob((38, 50, 58, 48, 54, 60, 42, 62), dark, edge=False)
    s.blob((102, 47, 108, 46, 107, 55, 103, 55), (226, 84, 96), edge=False)


def cat(s: Sketch, color: RGB) -> None:
    dark = shade(color, 0.6)
    s.curve((70, 92, 92, 92, 96, 74, 86, 60, 92, 50), color, 8)
    s.blob((50, 46, 70, 58, 76, 82, 72, 98, 28, 98, 24, 82, 30, 58), color)
    s.poly((24, 34, 24, -2, 48, 16), color)
    s.poly((76, 34, 76, -2, 52, 16), color)
    s.poly((29, 22, 28, 8, 39, 16), PINK, edge=False)
    s.poly((71, 22, 72, 8, 61, 16), PINK, edge=False)
    s.blob((50, 12, 70, 17, 80, 34, 72, 50, 50, 56, 28, 50, 20, 34, 30, 17), color)
    for x in (42, 50, 58):
        s.line((x, 15, x, 24), dark, 3, edge=False)
    for y in (68, 78):
        s.line((27, y, 36, y + 1), dark, 3, edge=False)
        s.line((73, y, 64, y + 1), dark, 3, edge=False)
    s.oval(50, 78, 10, 16, shade(color, 1.6), edge=False)
    s.oval(40, 94, 9, 6, shade(color, 1.6))
    s.oval(60, 94, 9, 6, shade(color, 1.6))
    for x in (38, 62):
        s.oval(x, 34, 6, 7, (170, 220, 70), edge=False)
        s.oval(x, 34, 2, 6, INK, edge=False)
    s.poly((46, 42, 54, 42, 50, 47), (230, 90, 110), edge=False)
    for y in (42, 47):
        s.line((36, 45, 14, y - 2 if y < 45 else y + 3), INK, 1.4, edge=False)
        s.line((64, 45, 86, y - 2 if y < 45 else y + 3), INK, 1.4, edge=False)


def horse(s: Sketch, color: RGB) -> None:
    mane = (34, 24, 24) if sum(color) > 200 else (60, 40, 34)
    s.curve((12, 52, 2, 60, 2, 78, -3, 90), mane, 10)
    for x, tone in ((30, 0.7), (62, 0.7), (20, 1.0), (72, 1.0)):
        s.line((x, 66, x - 1, 108), shade(color, tone), 8)
        s.line((x - 1, 108, x + 2, 109), mane, 8)
    s.blob((10, 54, 26, 46, 48, 50, 66, 44, 80, 50, 78, 68, 64, 74, 40, 72, 20, 76, 11, 68), color)
    s.poly((60, 52, 74, 8, 92, 14, 88, 34, 82, 62), color)
    s.blob((74, 6, 88, 2, 98, 12, 112, 26, 110, 36, 100, 36, 88, 28, 78, 22), color)
    s.poly((78, 6, 80, -10, 88, 3), color)
    s.blob((82, 2, 76, -4, 66, 6, 58, 22, 52, 40, 54, 52, 64, 46, 70, 26), mane)
    s.poly((95, 12, 100, 14, 108, 27, 103, 28), WHITE, edge=False)
    s.oval(108, 30, 2, 2, INK, edge=False)
    _eye(s, 89, 13, 2.8)


def cow(s: Sketch, color: RGB) -> None:
    spot = (44, 42, 48)
    s.curve((10, 42, 3, 54, 5, 70), color, 4)
    s.oval(5, 74, 4, 6, spot)
    for x in (16, 30, 66, 80):
        s.rect(x - 5, 64, x + 5, 90, color if x in (16, 80) else shade(color, 0.8))
        s.rect(x - 5, 88, x + 5, 95, spot)
    s.oval(40, 76, 10, 7, PINK)
    s.blob((8, 40, 16, 34, 50, 36, 80, 32, 92, 40, 92, 68, 80, 76, 50, 74, 16, 76, 8, 70), color)
    s.blob((18, 36, 36, 36, 40, 50, 28, 60, 16, 52), spot, edge=False)
    s.blob((50, 52, 62, 46, 72, 56, 66, 72, 50, 70), spot, edge=False)
    s.blob((54, 36, 68, 35, 64, 44, 56, 44), spot, edge=False)
    s.curve((88, 24, 82, 16, 84, 8), (222, 204, 160), 5)
    s.curve((104, 24, 112, 16, 110, 8), (222, 204, 160), 5)
    s.oval(80, 30, 9, 5, spot, turn=20)
    s.oval(114, 30, 9, 5, spot, turn=-20)
    s.blob((84, 26, 96, 20, 108, 26, 110, 46, 104, 58, 90, 58, 84, 46), color)
    s.blob((96, 21, 108, 26, 110, 42, 100, 40), spot, edge=False)
    s.oval(97, 57, 15, 10, PINK)
    s.oval(92, 56, 2.4, 3, INK, edge=False)
    s.oval(102, 56, 2.4, 3, INK, edge=False)
    _eye(s, 91, 38, 3)
    s.oval(104, 38, 3, 3, WHITE, edge=False)


def bird(s: Sketch, color: RGB) -> None:
    s.poly((22, 62, -8, 62, -2, 72, -10, 80, 26, 78), shade(color, 0.7))
    s.blob((20, 62, 40, 50, 62, 46, 76, 36, 92, 38, 98, 52, 92, 68, 70, 82, 40, 82), color)
    s.blob((44, 76, 66, 70, 88, 64, 80, 78, 62, 83), shade(color, 1.75), edge=False)
    s.blob((40, 66, 26, 42, 22, 10, 40, 22, 54, 24, 60, 38, 70, 50, 66, 66, 52, 72), shade(color, 0.72))
    s.line((32, 26, 46, 56), shade(color, 1.3), 3, edge=False)
    s.line((44, 30, 56, 56), shade(color, 1.3), 3, edge=False)
    s.poly((97, 46, 114, 53, 96, 59), BEAK)
    _eye(s, 86, 48, 4)


def duck(s: Sketch, color: RGB) -> None:
    s.line((44, 88, 44, 100, 54, 101), BEAK, 5)
    s.line((58, 88, 58, 100, 68, 101), BEAK, 5)
    s.blob((0, 46, 14, 56, 36, 54, 54, 56, 62, 44, 58, 30, 62, 14, 76, 6, 90, 14, 92, 30, 84, 44, 92, 62,
            88, 80, 66, 92, 36, 92, 14, 82, 4, 64), color)  # fmt: skip
    s.blob((24, 62, 44, 60, 64, 64, 58, 78, 40, 82, 28, 76), shade(color, 0.82), edge=False)
    s.curve((24, 64, 32, 80, 48, 82, 62, 70), shade(color, 0.55), 2.5, edge=False)
    s.blob((88, 22, 102, 22, 114, 30, 104, 35, 88, 34), BEAK)
    _eye(s, 79, 20, 4)


def fish(s: Sketch, color: RGB) -> None:
    s.poly((24, 42, -4, 14, 4, 42, -4, 72), shade(color, 0.8))
    s.blob((40, 24, 54, 4, 76, 12, 76, 26), shade(color, 0.8))
    s.blob((50, 62, 56, 78, 70, 74, 70, 60), shade(color, 0.8))
    s.blob((18, 42, 36, 24, 62, 16, 88, 24, 104, 42, 88, 60, 62, 68, 36, 60), color)
    s.blob((40, 24, 49, 20, 54, 42, 49, 64, 40, 61, 44, 42), WHITE, edge=False)
    s.blob((68, 17, 78, 19, 82, 42, 78, 64, 68, 67, 72, 42), WHITE, edge=False)
    s.oval(91, 35, 5, 5, WHITE, edge=False)
    _eye(s, 92, 35, 3)
    s.curve((102, 46, 97, 49, 92, 48), INK, 1.8, edge=False)
    s.poly((66, 42, 54, 34, 54, 52), shade(color, 0.7), edge=False)


def tree(s: Sketch, color: RGB) -> None:
    s.poly((42, 60, 44, 96, 36, 104, 66, 104, 58, 96, 60, 60), (118, 76, 42))
    s.blob((50, -4, 68, 2, 76, 14, 92, 22, 94, 42, 82, 56, 66, 60, 50, 68, 34, 60, 18, 58, 6, 42, 10, 22,
            24, 14, 32, 2), color)  # fmt: skip
    for x, y in ((34, 18), (60, 14), (24, 38), (48, 36), (72, 34), (40, 52), (64, 50)):
        s.curve((x - 6, y, x, y + 4, x + 6, y), shade(color, 0.68), 2.6, edge=False)
    s.curve((22, 26, 30, 16, 38, 8), shade(color, 1.3), 4, edge=False)


def flower(s: Sketch, color: RGB) -> None:
    s.curve((40, 40, 41, 70, 39, 104), LEAF, 5)
    s.blob((40, 92, 52, 76, 72, 70, 64, 88), LEAF)
    s.blob((40, 98, 28, 84, 8, 80, 18, 96), LEAF)
    for turn, x, y in ((0, 62, 32), (60, 51, 51), (120, 29, 51), (180, 18, 32), (240, 29, 13), (300, 51, 13)):
        s.oval(x, y, 16, 11, color, turn=turn)
        s.oval(x, y, 9, 3, shade(color, 1.35), edge=False, turn=turn)
    s.oval(40, 32, 12, 12, (252, 212, 60))
    s.oval(40, 32, 5, 5, (176, 110, 30), edge=False)


def mushroom(s: Sketch, color: RGB) -> None:
    s.blob((36, 48, 64, 48, 64, 74, 70, 92, 50, 97, 30, 92, 36, 74), (246, 234, 212))
    s.blob((2, 46, 10, 22, 30, 6, 50, 2, 70, 6, 90, 22, 98, 46, 76, 54, 50, 57, 24, 54), color)
    s.blob((30, 55, 50, 52, 70, 55, 50, 61), (214, 190, 160), edge=False)
    for x, y, r in (
        (50, 16, 8),
        (24, 28, 7),
        (76, 28, 7),
        (46, 39, 8),
        (12, 43, 4),
        (70, 46, 5),
        (88, 44, 4),
    ):
        s.oval(x, y, r, r * 0.9, WHITE, edge=False)
