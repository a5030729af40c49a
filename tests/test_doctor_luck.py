"""The chances of luck, against counting and against guesses."""

import itertools
import random

import numpy as np
import pytest

from lime_mlx.doctor.findings import BROKEN, WORKS, Answers, compared, explained
from lime_mlx.doctor.luck import LIMIT, agreement, at_least, at_most, by_lot, matching, pairing, pairings, signs
from lime_mlx.doctor.subjects import COLOUR, NUMBER, PLACE, STALE


def test_the_binomial_tails_are_those_of_counting():
    outcomes = list(itertools.product((0, 1), repeat=5))
    right = sum(0.2 ** sum(o) * 0.8 ** (5 - sum(o)) for o in outcomes if sum(o) >= 3)
    assert at_least(3, 5, 0.2) == pytest.approx(right)
    assert at_most(1, 5, 0.8) == pytest.approx(0.2**5 + 5 * 0.8 * 0.2**4)


def test_agreement_is_the_share_of_orders():
    truths = "aabbcc"
    readings = "aabbcb"
    orders = set(itertools.permutations(truths))
    hits = sum(a == b for a, b in zip(truths, readings, strict=True))
    exact = sum(sum(a == b for a, b in zip(order, readings, strict=True)) >= hits for order in orders) / len(orders)
    fits = [[reading == option for option in "abc"] for reading in readings]
    assert agreement(fits, hits) == pytest.approx(exact, abs=0.01)


def test_a_constant_guess_is_never_more_than_luck():
    for subject in (COLOUR, PLACE, NUMBER):
        truths = by_lot(random.Random(0), subject.options, subject.trials)
        for option in subject.options:
            answers = Answers(subject.options, truths, [option] * len(truths))
            assert answers.luck > 0.5


@pytest.mark.parametrize("subject", [COLOUR, PLACE, NUMBER], ids=lambda subject: subject.name)
def test_guesses_are_decided_in_at_most_one_percent(subject):
    rng, decided, runs = random.Random(5), {WORKS: 0, BROKEN: 0}, 120
    for _ in range(runs):
        truths = by_lot(rng, subject.options, subject.trials)
        guesses = [rng.choice(subject.options) for _ in truths]
        finding = explained("x", Answers(subject.options, truths, guesses), subject.faults, "", STALE)
        if finding.status in decided:
            decided[finding.status] += 1
    assert max(decided.values()) <= LIMIT * runs + 3


def test_there_are_105_ways_to_pair_eight():
    ways = list(pairings(range(8)))
    assert len(ways) == len({tuple(sorted(pairs)) for pairs in ways}) == 105


def test_pairs_that_are_closest_are_no_luck():
    values = np.repeat(np.arange(4.0), 2)
    apart = np.abs(values[:, None] - values)
    assert pairing(apart) == pytest.approx(1 / 105)
    assert pairing(np.ones((8, 8)) - np.eye(8)) == 1


def test_matching_and_signs():
    assert matching(np.eye(8)) < 0.001
    assert matching(np.ones((8, 8))) == 1
    assert signs([1.0] * 7) == pytest.approx(1 / 128)
    assert signs([0.0, 0.0]) == 1


def test_failures_count_only_where_an_able_model_would_not_fail():
    truths = list("abcd")
    assert compared("x", Answers("abcd", truths, [None] * 4), "lost").status == BROKEN
    assert compared("x", Answers("abcd", truths, ["a", "b", None, None]), "lost").status == "cannot tell"
