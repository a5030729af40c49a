"""The world of drawn scenes: which kinds there are, which go together, and how a seed becomes a picture.

A scene is a pure function of (seed, regime, size); the size only scales the picture. Splits are made by the
caller with disjoint seed ranges (say 0..99_999 to train, 100_000..109_999 to validate, 200_000.. to test).
The regime (see `habits`) is part of the random state, so one seed under two regimes gives two unrelated scenes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image, ImageDraw

from . import creatures, things, vehicles
from .backgrounds import BACKDROPS, Backdrop
from .draw import drawer, stamp
from .habits import World, check_regime

SETTINGS = tuple(BACKDROPS)

# kind -> its colours
PALETTE: dict[str, tuple[str, ...]] = {
    "dog": ("tan",),
    "cat": ("gray", "orange", "black"),
    "horse": ("chestnut",),
    "cow": ("white",),
    "bird": ("blue", "red"),
    "duck": ("yellow",),
    "fish": ("orange",),
    "car": ("red", "blue", "green", "yellow"),
    "bus": ("yellow", "red", "blue"),
    "bicycle": ("red", "blue", "green"),
    "boat": ("red", "blue", "orange"),
    "train": ("green", "black", "blue"),
    "plane": ("blue", "red"),
    "tree": ("green",),
    "flower": ("pink", "purple", "red", "white"),
    "mushroom": ("red",),
    "house": ("yellow", "white", "pink", "blue"),
    "chair": ("red", "blue", "green"),
    "table": ("brown",),
    "lamp": ("yellow", "orange", "pink"),
    "clock": ("red", "blue", "teal"),
    "cup": ("white", "blue", "red", "green"),
    "book": ("blue", "green", "purple"),
    "umbrella": ("blue", "purple", "green", "teal"),
    "ball": ("red", "blue", "green"),
    "kite": ("red", "blue", "green", "purple"),
    "banana": ("yellow",),
    "pizza": ("red",),
}
KINDS = tuple(PALETTE)

PAIRS: tuple[tuple[str, str], ...] = (
    ("dog", "ball"),
    ("table", "cup"),
    ("cat", "fish"),
    ("car", "house"),
    ("tree", "bird"),
    ("boat", "duck"),
    ("chair", "book"),
    ("train", "clock"),
    ("horse", "flower"),
    ("plane", "kite"),
)
COMPANION: dict[str, str] = {a: b for pair in PAIRS for a, b in (pair, pair[::-1])}
LONERS = tuple(kind for kind in KINDS if kind not in COMPANION)
FLYERS = frozenset({"bird", "plane", "kite"})

# relative weight of a pair (by its first member) or a loner in the skewed world
POPULARITY: dict[str, float] = {
    **{a: weight for (a, _), weight in zip(PAIRS, (3.0, 2.6, 2.3, 2.0, 1.7, 1.4, 1.2, 1.0, 0.9, 0.8), strict=False)},
    **dict(zip(LONERS, (1.0, 1.4, 1.2, 0.6, 1.6, 1.3, 0.8, 1.0), strict=False)),
}
HOME: dict[str, tuple[str, ...]] = {
    "park": ("dog", "tree", "bicycle", "plane"),
    "street": ("car", "bus", "train", "bicycle"),
    "beach": ("boat", "umbrella", "plane", "dog"),
    "desert": ("horse", "train", "cow", "car"),
    "kitchen": ("table", "pizza", "banana", "cat"),
    "room": ("chair", "cat", "lamp", "table"),
}
PICTURES = World("picture", KINDS, PAIRS, SETTINGS, POPULARITY, most=5, home=HOME)
broken, choose, habits = PICTURES.broken, PICTURES.choose, PICTURES.habits

_RECIPES = {**vars(creatures), **vars(vehicles), **vars(things)}
_drawing = drawer({kind: _RECIPES[kind] for kind in KINDS})


@dataclass(frozen=True)
class Object:
    """One drawn thing: its kind, its box (x0, y0, x1, y1) in pixels, and the name of its colour."""

    kind: str
    box: tuple[float, float, float, float]
    color: str


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it; objects are ordered from left to right (by the centre of the box).

    `unseen` is a kind among the objects that is not in the picture (see `make_scene`).
    """

    world: ClassVar[World] = PICTURES
    seed: int
    regime: str
    setting: str
    objects: tuple[Object, ...]
    image: Image.Image
    unseen: str | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds in the picture, from left to right."""
        return tuple(thing.kind for thing in self.objects)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over the smaller area."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _place(rng: random.Random, shapes: list[tuple[str, float]]) -> list[tuple[float, float, float, float]]:
    """Boxes in fractions of the picture for (kind, width over height); small overlaps only, flyers high."""
    largest = 0.45 - 0.02 * len(shapes)
    while True:
        boxes: list[tuple[float, float, float, float]] = []
        for kind, aspect in shapes:
            side = rng.uniform(0.27, largest)
            width, height = side * aspect**0.5, side / aspect**0.5
            shrink = min(1.0, 0.48 / max(width, height))
            width, height = width * shrink, height * shrink
            for attempt in range(40):
                x, y = rng.uniform(0.01, 0.99 - width), rng.uniform(0.01, 0.99 - height)
                box = (x, y, x + width, y + height)
                settled = attempt > 15 or (y + height < 0.6 if kind in FLYERS else y + height > 0.42)
                if settled and all(_overlap(box, other) <= 0.1 for other in boxes):
                    boxes.append(box)
                    break
            else:
                break
        if len(boxes) == len(shapes):
            return boxes
        largest = max(0.28, largest - 0.02)


def make_scene(seed: int, regime: str, size: int = 256, unseen: float = 0.0) -> Scene:
    """Draw the scene of a seed: an RGB picture of size x size pixels and the objects in it, left to right.

    With probability `unseen`, a thing whose companion is there is among the objects but not in the picture, as things
    that captions tell of are not always in the frame.
    """
    check_regime(regime)
    rng = random.Random(f"{regime}/{seed}")
    setting, kinds = choose(rng, regime)
    rng.shuffle(kinds)
    colors = [rng.choice(PALETTE[kind]) for kind in kinds]
    drawings = [_drawing(kind, color) for kind, color in zip(kinds, colors, strict=False)]
    boxes = _place(rng, [(kind, d.width / d.height) for kind, d in zip(kinds, drawings, strict=False)])
    mirrors = [rng.random() < 0.5 for _ in kinds]

    big = 2 * size
    image = Image.new("RGB", (big, big))
    canvas = ImageDraw.Draw(image)
    BACKDROPS[setting](Backdrop(canvas, big, rng))
    paired = [i for i, kind in enumerate(kinds) if COMPANION.get(kind) in kinds]
    left_out = rng.choice(paired) if paired and unseen and rng.random() < unseen else None
    for i in sorted(range(len(kinds)), key=lambda i: boxes[i][3]):
        if i == left_out:
            continue
        x0, y0, x1, _ = boxes[i]
        stamp(canvas, drawings[i], x0 * big, y0 * big, (x1 - x0) * big / drawings[i].width, mirrors[i])
    order = sorted(range(len(kinds)), key=lambda i: boxes[i][0] + boxes[i][2])
    scaled = [(x0 * size, y0 * size, x1 * size, y1 * size) for x0, y0, x1, y1 in boxes]
    objects = tuple(Object(kinds[i], scaled[i], colors[i]) for i in order)
    not_drawn = None if left_out is None else kinds[left_out]
    return Scene(seed, regime, setting, objects, image.reduce(2), not_drawn)
