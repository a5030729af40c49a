"""Hostile inputs: those that once were finds, and some new ones in every run. `make fuzz` tries more."""

import time

import pytest
from fuzz.attempt import attempt
from fuzz.run import Kept, one_target
from fuzz.targets import SEEDS, TARGETS, stored_seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FAST = [name for name, target in TARGETS.items() if not target.slow]
COUNTS = {"tokenizer": 12, "tokenizer-settings": 12, "response": 6, "model": 3, "command": 30, "request": 10}


@pytest.mark.parametrize("name", TARGETS)
def test_valid_inputs_pass(name):
    for data in TARGETS[name].seeds[: 12 if name != "model" else 1]:
        outcome = attempt(TARGETS[name], data)
        assert outcome.find is None, outcome.find
        assert outcome.passed


@pytest.mark.parametrize("path", [path for name in TARGETS for path in stored_seeds(name)], ids=lambda path: path.name)
def test_what_once_was_a_find_is_none(path):
    outcome = attempt(TARGETS[path.parent.name], path.read_bytes())
    assert outcome.find is None, outcome.find


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_inputs_are_sentences(name):
    target = TARGETS[name]

    @settings(
        max_examples=COUNTS.get(name, 60),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[*HealthCheck],
    )
    @given(st.data())
    def tried(drawn):
        data = target.drawn(lambda count: drawn.draw(st.integers(0, count - 1)))
        outcome = attempt(target, data)
        assert outcome.find is None, f"{data[:2000]!r}: {outcome.find}"

    tried()


def test_the_run_goes_on_where_it_stopped(tmp_path):
    for count in (30, 20):
        assert not one_target("spec", Kept(tmp_path / "spec"), 30, count, False)
    state = Kept(tmp_path / "spec").state
    assert state["inputs"] == 50 and 0.2 <= state["passed"] / 50 <= 1 and state["finds"] == {}


def test_a_find_is_kept_once(tmp_path):
    kept = Kept(tmp_path / "x")
    for number in range(3):
        kept.find(bytes([number]), f'KeyError: {number}\n  File "a.py", line 3, in f\n    x')
    assert len(kept.state["finds"]) == 1 and len(list((tmp_path / "x" / "finds").iterdir())) == 1


def test_a_hang_is_a_find(monkeypatch):
    import fuzz.attempt as attempts

    def endless(data):
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(attempts, "SECONDS", 0.1)
    target = type(TARGETS["spec"])("x", lambda: [b"x"], endless, ())
    assert attempt(target, b"x").find == "hang"


def test_seeds_belong_to_targets():
    assert {path.name for path in SEEDS.iterdir() if path.is_dir()} <= {*TARGETS}
