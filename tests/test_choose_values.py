"""benchmarks/choose_values.py: every point of its grids is a valid spec, and the best point keeps the recall."""

import importlib.util
from pathlib import Path

import pytest

from lime_mlx.methods import METHODS, parse_method

FILE = Path(__file__).parents[1] / "benchmarks/choose_values.py"


@pytest.fixture(scope="module")
def chooser():
    spec = importlib.util.spec_from_file_location("choose_values", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_point_is_a_spec(chooser):
    assert set(chooser.GRIDS) <= set(METHODS)
    points = [spec for method in chooser.GRIDS for spec in chooser.specs(method, Path("statistics.json"))]
    assert len(points) == len(set(points)) > 100
    for spec in points:
        assert parse_method(spec).name == spec.partition(":")[0]
    assert not chooser.fits("vcd:alpha=1", "sound") and chooser.fits("aad:alpha=1", "sound")


def test_the_best_point_keeps_the_recall(chooser):
    def row(name, chair_i, recall):
        return chooser.Row(name, chair_i, 0.3, recall, 0.02, 11.0, 1.0)

    plain = row("none", 0.1, 0.90)
    points = [row("a", 0.01, 0.88), row("b", 0.05, 0.895), row("c", 0.05, 0.91), row("d", 0.06, 0.99)]
    assert chooser.best(points, plain).spec == "c"
    assert chooser.best(points[:2], plain).spec == "b"
    assert chooser.best(points[:1], plain) is None
