"""`lime-mlx doctor` over a URL: honest servers in many manners, and faults that a proxy injects."""

import random
from collections.abc import Callable

import pytest
import scripted
from faulty import FAULTS, FURTHER, MINOR, each_picture, serving, shrink
from scripted import MANNERS, UNABLE, Scripted

from lime_mlx.doctor.client import Client
from lime_mlx.doctor.findings import BROKEN, CANNOT_TELL, WORKS
from lime_mlx.doctor.luck import LIMIT
from lime_mlx.doctor.remote import examine
from lime_mlx.doctor.verdict import Report


def examined(answer: Callable[[dict], dict], seed: int = 0, **options) -> Report:
    with serving(answer) as url:
        return examine(Client(url), "the model", marks=random.Random(1), seed=seed, **options)


def test_there_are_as_many_manners_as_promised():
    assert len(MANNERS) >= 20


@pytest.mark.parametrize("manner", MANNERS)
def test_an_honest_server_works_in_every_manner(manner):
    report = examined(Scripted(MANNERS[manner]))
    assert report.status == WORKS and report.exit_code == 0
    assert [one for one in report.findings if one.status == BROKEN] == []
    assert report.nouns == ["picture"]


@pytest.mark.parametrize("manner", UNABLE)
def test_an_honest_model_that_is_unable_is_not_broken(manner):
    report = examined(Scripted(UNABLE[manner]))
    assert [one for one in report.findings if one.status == BROKEN] == []
    sees = manner in ("knows only colours", "knows only sides", "cannot read digits")
    assert report.status == (WORKS if sees else CANNOT_TELL)
    assert report.exit_code == (0 if sees else 3)


@pytest.mark.parametrize("fault", [*FAULTS, *FURTHER])
def test_a_fault_is_named(fault):
    inject, words = (FAULTS | FURTHER)[fault]
    report = examined(inject(Scripted(MANNERS["sentence"])))
    assert report.status == BROKEN and report.exit_code == 1
    assert any(words in named for named in report.faults), report.sentence
    assert words in report.sentence
    assert len(report.faults) == 1


@pytest.mark.parametrize("fault", MINOR)
def test_a_fault_of_some_pictures_is_an_exception(fault):
    inject, words = MINOR[fault]
    report = examined(inject(Scripted(MANNERS["bold"])))
    assert report.status == WORKS and report.faults == []
    assert [words in named for named in report.exceptions] == [True]


@pytest.mark.parametrize(("side", "legible", "status"), [(224, 10, WORKS), (336, 14, WORKS), (100, 10, BROKEN)])
def test_a_model_of_few_pixels_is_told_from_a_shrunk_picture(side, legible, status, monkeypatch):
    monkeypatch.setattr(scripted, "LEGIBLE", legible)
    scripted.looked.cache_clear()
    report = examined(each_picture(shrink(side))(Scripted(MANNERS["one word"])))
    scripted.looked.cache_clear()
    assert report.status == status


@pytest.mark.parametrize("fault", ["shrink to 100 px", "answer from a cache"])
def test_a_fault_is_named_behind_a_manner_that_hides_it(fault):
    inject, words = FAULTS[fault]
    report = examined(inject(Scripted(MANNERS["refuses one of eight"])), seed=3)
    assert words in report.sentence and report.status == BROKEN


def test_luck_is_at_most_one_percent_wherever_something_is_decided():
    for answer in (Scripted(MANNERS["German"]), FAULTS["swap channels"][0](Scripted(MANNERS["one word"]))):
        for finding in examined(answer).findings:
            assert finding.luck is None if finding.status == CANNOT_TELL else finding.luck <= LIMIT, finding


def test_a_model_that_hears_is_judged_on_hearing():
    def deaf_to_pictures(request: dict) -> dict | tuple[int, str, bytes]:
        if "image_url" in str(request["messages"]):
            return 400, "application/json", b'{"error": {"message": "This model takes sounds, but no pictures."}}'
        return hearing(request)

    hearing = Scripted(MANNERS["French"])
    report = examined(deaf_to_pictures)
    assert report.nouns == ["sound"] and report.status == WORKS
    assert {"counting beeps", "pitch", "silence", "sound used"} <= {one.name for one in report.findings}


def test_a_lost_sound_is_named():
    def without(request: dict) -> dict:
        messages = [
            {**m, "content": [part for part in m["content"] if part["type"] != "input_audio"]}
            if isinstance(m["content"], list)
            else m
            for m in request["messages"]
        ]
        return honest({**request, "messages": messages})

    honest = Scripted(MANNERS["sentence"])
    report = examined(without, nouns=["sound"])
    assert report.faults == ["the sound does not reach the model"]
    assert examined(honest, nouns=["sound"]).status == WORKS
