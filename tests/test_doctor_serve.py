"""Faults in front of `lime-mlx serve`, whose demos know no digits: by log-probabilities and by scenes."""

import random

import pytest
from faulty import FAULTS, forwarded, serving
from serving import live

from lime_mlx.doctor.asking import Asker
from lime_mlx.doctor.client import Client
from lime_mlx.doctor.findings import BROKEN, WORKS
from lime_mlx.doctor.likeness import Likeness
from lime_mlx.doctor.scenic import Scenes


@pytest.fixture(scope="module")
def upstream():
    with live() as (url, _):
        yield forwarded(url)


def asking(url: str, model: str = "demo") -> Asker:
    return Asker(Client(url, model), random.Random(2))


def likeness(asker: Asker, noun: str = "picture") -> Likeness:
    return Likeness(asker, Scenes(asker, noun).questions()[:4], noun)


ROWS = {
    "drop the picture": Likeness.used,
    "answer from a cache": Likeness.kept,
    "ignore the second picture": Likeness.second,
    "lose the system prompt": Likeness.system,
    "shrink to 100 px": Likeness.shrunk,
}


@pytest.mark.parametrize("fault", ROWS)
def test_a_fault_is_told_by_log_probabilities(fault, upstream):
    inject, words = FAULTS[fault]
    with serving(upstream) as url:
        asker = likeness(asking(url))
        assert asker.offered
        assert ROWS[fault](asker).status == WORKS
    with serving(inject(upstream)) as url:
        finding = ROWS[fault](likeness(asking(url)))
    assert finding.status == BROKEN and words in finding.fault


def test_exchanged_colours_are_told_by_scenes(upstream):
    for inject, status in ((lambda same: same, WORKS), (FAULTS["swap channels"][0], BROKEN)):
        with serving(inject(upstream)) as url:
            scenes = Scenes(asking(url), "picture")
            used, fits = scenes.used()
            assert used.status == WORKS
            assert scenes.undone("colours", fits).status == status


def test_the_demo_for_sounds_hears(upstream):
    with serving(upstream) as url:
        assert likeness(asking(url, "demo-sound"), "sound").used().status == WORKS
