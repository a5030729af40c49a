"""From the relevance of positions to a map over the picture, whichever tiles, crops or squares the model sees of it."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lime_mlx.errors import PromptError
from lime_mlx.prompt import Grid, Span

FINEST = 1024
# The thirds of a picture, and the share of the relevance that names one of them.
ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")
HALF = 0.5


def picture_map(relevance: ArrayLike, spans: Sequence[Span]) -> NDArray[np.float32]:
    """The relevance (T,) of one picture's spans as a map (rows, columns) float32 over the whole picture.

    Each cell of a span's grid spreads its relevance evenly over the area that it covers. The map is as fine as the
    finest grid, and where one grid covers the whole picture alone, the map is its relevance. The map sums to the
    relevance of all cells: what lies outside the picture counts at its nearest edge. Positions that stand for no place
    (ends of rows, spans without a grid) are left out. Raises `PromptError` when no span has a grid.
    """
    values = np.asarray(relevance)
    grids = [(span, span.grid) for span in spans if span.grid is not None]
    if not grids:
        raise PromptError("No span says how its positions lie on the picture.")
    rows = _cells((grid.rows, grid.box[3] - grid.box[1]) for _, grid in grids)
    columns = _cells((grid.columns, grid.box[2] - grid.box[0]) for _, grid in grids)
    canvas = np.zeros((rows, columns))
    for span, grid in grids:
        left, top, right, bottom = grid.box
        down, across = _spread(grid.rows, top, bottom, rows), _spread(grid.columns, left, right, columns)
        canvas += down.T @ _laid(values, span, grid) @ across
    return canvas.astype(np.float32)


def coarse(relevance: ArrayLike, side: int) -> NDArray[np.float32]:
    """A map (rows, columns) with at most `side` cells along each side; it sums to the same."""
    values = np.asarray(relevance, dtype=np.float64)
    down, across = (_spread(count, 0, 1, min(count, side)) for count in values.shape)
    smaller: NDArray[np.float32] = (down.T @ values @ across).astype(np.float32)
    return smaller


def where(relevance: ArrayLike) -> str:
    """In words, where on a picture the positive relevance of a map (rows, columns) lies.

    It names the third of the height and of the width, or one of the two, that holds at least half of it.
    """
    values = np.maximum(np.asarray(relevance, dtype=np.float64), 0)
    if not values.sum() > 0:
        return "nowhere"
    down, across = (_spread(count, 0, 1, 3) for count in values.shape)
    thirds = down.T @ (values / values.sum()) @ across
    row, column = divmod(int(thirds.argmax()), 3)
    if thirds[row, column] >= HALF:
        middle = (row, column) == (1, 1)
        return "mostly in the middle" if middle else f"mostly {ROWS[row]} {COLUMNS[column]}"
    rows, columns = thirds.sum(axis=1), thirds.sum(axis=0)
    if max(rows.max(), columns.max()) < HALF:
        return "spread over the picture"
    if rows.max() >= columns.max():
        return f"mostly in the {ROWS[int(rows.argmax())]} third"
    return f"mostly in the {COLUMNS[int(columns.argmax())]} third"


def _laid(values: NDArray[np.generic], span: Span, grid: Grid) -> NDArray[np.float64]:
    """The relevance of a span's cells, (grid.rows, grid.columns)."""
    if len(grid) != len(span):
        raise PromptError(f"A span of {len(span)} positions has a grid of {len(grid)}.")
    part = values[span.start : span.stop].astype(np.float64)
    return part.reshape(grid.rows, grid.columns + grid.row_end)[:, : grid.columns]


def _cells(grids: Iterable[tuple[int, float]]) -> int:
    """How many cells along a side of the picture are as small as the smallest of grids: (cells, share of the side)."""
    return min(max(1, *(round(count / length) for count, length in grids)), FINEST)


def _spread(count: int, start: float, stop: float, cells: int) -> NDArray[np.float64]:
    """(count, cells): which share of each of `count` cells from `start` to `stop` lies in each cell of the picture."""
    edges = cells * start + cells * (stop - start) * np.arange(count + 1) / count
    edges = np.clip(edges, 0, cells)
    low, high = edges[:-1, None], edges[1:, None]
    ends = np.arange(cells + 1)
    overlap: NDArray[np.float64] = np.clip(np.minimum(high, ends[1:]) - np.maximum(low, ends[:-1]), 0, None)
    outside = (high - low)[:, 0] <= 0
    overlap[outside, np.minimum(edges[:-1].astype(int), cells - 1)[outside]] = 1
    overlap /= overlap.sum(axis=1, keepdims=True)
    return overlap
