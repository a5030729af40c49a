"""Deletion and insertion without a model: orders, curves, areas and outcomes."""

import numpy as np
import pytest

from lime_mlx.probes.faithful import LEAST_RISE, ORDERS, SHARES, MapCheck, area, masks, order, random_orders

CELLS = 64
# A model that sees the word as long as these cells are not all covered.
THING = np.array([9, 10, 17, 18])


def probability(covered: np.ndarray) -> np.ndarray:
    """(points,) for masks (points, cells)."""
    return 0.05 + 0.9 * (~covered[:, THING]).mean(axis=1)


def check(relevance: np.ndarray, model=probability, word: str = "dog", kind: str = "image") -> MapCheck:
    cells = order(relevance)
    most, least = (model(masks(each)) for each in (cells, cells[::-1]))
    random = np.array([model(masks(each)) for each in random_orders(CELLS)])
    return MapCheck(word, "cached", kind, 0, (8, 8), most, least, random)


@pytest.fixture
def true_map() -> np.ndarray:
    values = np.random.default_rng(1).normal(size=CELLS) * 0.1
    values[THING] = [1.0, 2.0, 3.0, 4.0]
    return values


def test_a_true_map_holds_and_its_reverse_does_not(true_map):
    right, wrong = check(true_map), check(-true_map)
    assert right.outcome == "held" and right.faithfulness > 0.7
    assert wrong.outcome == "failed" and "points away" in wrong.sentence
    assert wrong.faithfulness == pytest.approx(-right.faithfulness)
    assert "held" in right.sentence and "did not hold" in wrong.sentence


def test_a_map_of_noise_does_not_hold():
    generator = np.random.default_rng(3)
    outcomes = [check(generator.normal(size=CELLS)).outcome for _ in range(40)]
    assert outcomes.count("held") <= 40 / (ORDERS + 1) + 2
    assert "unclear" not in outcomes


def test_half_a_map_does_worse_than_a_whole_one(true_map):
    half = np.zeros(CELLS)
    half[THING[:2]] = true_map[THING[:2]]
    assert 0 < check(half).faithfulness < check(true_map).faithfulness


def test_a_word_that_the_input_does_not_decide_is_unclear(true_map):
    sure = check(true_map, lambda covered: np.full(len(covered), 0.97))
    assert sure.outcome == "unclear" and "97 %" in sure.sentence and "sound" not in sure.sentence
    falling = check(-true_map, lambda covered: 1 - probability(covered))
    assert falling.rise < 0 and falling.outcome == "unclear"
    assert "sound" in check(true_map, lambda covered: np.full(len(covered), 0.97), kind="audio").sentence


def test_the_least_rise_decides_what_can_be_told(true_map):
    below, above = (check(true_map, lambda c, r=rise: r * (~c[:, THING]).mean(axis=1)) for rise in (0.09, 0.11))
    assert below.rise < LEAST_RISE < above.rise
    assert (below.outcome, above.outcome) == ("unclear", "held")


def test_insertion_shows_what_deletion_covers(true_map):
    """To insert the most relevant cells first is to delete the least relevant first, read from the end."""
    cells = order(true_map)
    inserted = [~covered for covered in masks(cells)]
    curve = probability(np.array(inserted))
    one = check(true_map)
    np.testing.assert_allclose(curve, one.least[::-1])
    assert one.insertion == pytest.approx(area(curve))


def test_points_of_a_curve_are_alike_from_both_ends():
    np.testing.assert_allclose(SHARES, [1 - share for share in SHARES[::-1]])
    covered = masks(np.arange(CELLS)[::-1])
    assert covered.sum(axis=1).tolist() == [0, 4, 8, 16, 32, 48, 56, 60, 64]
    assert covered[1].nonzero()[0].tolist() == [60, 61, 62, 63]


def test_the_area_is_a_mean_of_the_curve():
    assert area(np.ones(len(SHARES))) == pytest.approx(1)
    assert area([1 - share for share in SHARES]) == pytest.approx(0.5)
    assert area([0.0, 0.0, 1.0], [0.0, 0.5, 1.0]) == pytest.approx(0.25)


def test_alike_cells_come_in_random_order():
    values = np.zeros(CELLS)
    values[5] = 1
    cells = order(values)
    assert cells[0] == 5 and sorted(cells) == list(range(CELLS))
    assert cells[1:].tolist() != sorted(cells[1:])
    assert not np.array_equal(cells, order(values, seed=1))


def test_json_holds_the_curves_and_areas(true_map):
    values = check(true_map).to_dict()
    assert values["outcome"] == "held" and values["cells"] == [8, 8]
    assert values["deletion"]["most"] == values["insertion"]["least"]
    assert (
        values["deletion"]["random_range"][0] <= values["deletion"]["random"] <= values["deletion"]["random_range"][1]
    )
    assert len(values["curves"]["most"]) == len(values["curves"]["covered"]) == len(SHARES)
