"""Does the map of a word lie on the thing that the word names? A plain study on scenes whose boxes are known.

    python benchmarks/map_study.py --scenes 500

The model describes each scene. For every word that names a thing in the picture: does the brightest cell of its map lie
in the box of the thing (pointing game), and which share of the positive relevance lies inside. Beside them stands what
says nothing about the thing: the area of the box, the maps of the other things that the answer names, and the centre of
the picture (for the share: a bell of a quarter of its side). Intervals are bootstrapped over scenes, at 95 %. It also
counts how often the words for a place, such as "mostly upper left", name the part where the middle of the box is.
"""

import argparse
from typing import cast

import numpy as np
from rich.progress import track

from lime_mlx import blas

blas.load_blas()

from lime_mlx import explain, load  # noqa: E402
from lime_mlx.evaluate.statistics import interval  # noqa: E402
from lime_mlx.maps import COLUMNS, ROWS, where  # noqa: E402
from lime_mlx.scenes import PROMPTS, make_scene  # noqa: E402
from lime_mlx.scenes.world import KINDS  # noqa: E402

FIRST_SEED = 100_000
Box = tuple[float, float, float, float]


def covered(box: Box, rows: int, columns: int) -> np.ndarray:
    """(rows, columns): the part of each cell that a box covers. box: as fractions of the picture."""
    left, top, right, bottom = box
    down, across = (
        np.clip(np.minimum(np.arange(1, n + 1), n * stop) - np.maximum(np.arange(n), n * start), 0, 1)
        for n, start, stop in ((rows, top, bottom), (columns, left, right))
    )
    return np.outer(down, across)


def hit(weights: np.ndarray, box: Box) -> float:
    """1 where the middle of the brightest cell lies in the box, else 0."""
    rows, columns = weights.shape
    row, column = np.unravel_index(int(weights.argmax()), weights.shape)
    x, y = (column + 0.5) / columns, (row + 0.5) / rows
    return float(box[0] <= x <= box[2] and box[1] <= y <= box[3])


def inside(weights: np.ndarray, box: Box) -> float:
    """The share of the positive relevance in the box."""
    positive = np.maximum(weights, 0)
    return float((positive * covered(box, *weights.shape)).sum() / max(positive.sum(), 1e-12))


def bell(rows: int, columns: int) -> np.ndarray:
    """A map of the centre alone."""
    down, across = ((np.arange(n) + 0.5) / n - 0.5 for n in (rows, columns))
    return np.exp(-8 * (down[:, None] ** 2 + across[None] ** 2))


def place_is_right(text: str, box: Box) -> float | None:
    """Whether the words name the third of the picture where the middle of the box is; None where they name none."""
    thirds = [min(2, int(3 * (start + stop) / 2)) for start, stop in ((box[1], box[3]), (box[0], box[2]))]
    named = [[name for name in names if name in text.split()] for names in (ROWS, COLUMNS)]
    if text == "mostly in the middle":
        return float(thirds == [1, 1])
    if not any(named):
        return None
    rows, columns = named
    return float((not rows or ROWS[thirds[0]] in rows) and (not columns or COLUMNS[thirds[1]] in columns))


def study(model, processor, method: str, scenes: int) -> tuple[list[dict[str, float]], list[int], int]:
    """A row of numbers for each named thing, the seed of its scene, and how many words named what is not drawn."""
    rows: list[dict[str, float]] = []
    seeds: list[int] = []
    absent = 0
    for seed in track(range(FIRST_SEED, FIRST_SEED + scenes)):
        scene = make_scene(seed, "ordinary")
        boxes: dict[str, Box] = {
            thing.kind: cast(Box, tuple(edge / scene.image.width for edge in thing.box)) for thing in scene.objects
        }
        answer = explain(model, processor, PROMPTS[0], image=scene.image, method=method, max_tokens=64)
        kinds = [word for word in answer.words if word.name in KINDS]
        maps = {word.name: answer.map(word) for word in kinds if word.name in boxes}
        absent += sum(word.name not in boxes for word in kinds)
        for name, relevance in maps.items():
            box, others = boxes[name], [other for each, other in maps.items() if each != name]
            centre, right = bell(*relevance.shape), place_is_right(where(relevance), box)
            rows.append(
                {
                    "hit": hit(relevance, box),
                    "hit of another map": float(np.mean([hit(other, box) for other in others] or [np.nan])),
                    "hit of the centre": float(box[0] <= 0.5 <= box[2] and box[1] <= 0.5 <= box[3]),
                    "area": (box[2] - box[0]) * (box[3] - box[1]),
                    "inside": inside(relevance, box),
                    "inside of another map": float(np.mean([inside(other, box) for other in others] or [np.nan])),
                    "inside of the centre": inside(centre, box),
                    "place in words is right": np.nan if right is None else right,
                }
            )
            seeds.append(seed)
    return rows, seeds, absent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--method", default="none")
    parser.add_argument("--scenes", type=int, default=500)
    arguments = parser.parse_args()
    rows, seeds, absent = study(*load(arguments.model), arguments.method, arguments.scenes)
    print(f"{len(rows)} named things in {len(set(seeds))} scenes, method {arguments.method}; {absent} words named")
    print("what is not in the picture and have no box")
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        present = ~np.isnan(values)
        low, high = interval(
            values[present], present[present], [seed for seed, each in zip(seeds, present, strict=True) if each]
        )
        print(f"{name:26} {values[present].mean():.3f} ({low:.3f} to {high:.3f}), n={present.sum()}")


if __name__ == "__main__":
    main()
