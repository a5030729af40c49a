"""What the pages say of how faithful maps were measured to be: from one committed file, and of which models."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from helpers import small_model

from lime_mlx import explain, load
from lime_mlx.probes.measured import FILE, fingerprint, measured, measurements
from lime_mlx.scenes import make_scene

WORLDS = [("demo", "image", "picture"), ("demo-sound", "audio", "sound")]


@pytest.mark.parametrize(("name", "medium", "world"), WORLDS)
def test_the_measured_model_is_told_by_its_weights(name, medium, world):
    model, _ = load(name)
    part = measurements()["worlds"][world]
    assert fingerprint(model) == part["model"]
    sentence = measured(model, {medium})
    held = part["kinds"]["cached"]["held"]
    assert f"{100 * held['value']:.0f} % ({100 * held['low']:.0f} to {100 * held['high']:.0f})" in sentence
    assert f"of {held['n']} maps" in sentence and str(part["scenes"]) in sentence
    assert "not on this one" not in sentence and "--check" not in sentence


def test_the_fingerprint_is_that_of_the_model_on_every_device():
    model = small_model()
    single = fingerprint(model)
    assert fingerprint(small_model(dtype=mx.bfloat16)) == single != fingerprint(small_model(seed=1))
    nn.quantize(model, group_size=32, bits=4)
    assert fingerprint(model) != single


def test_of_other_models_it_says_that_nothing_was_measured():
    sentence = measured(small_model(), {"image"})
    assert "not on this one" in sentence and "explain --check" in sentence
    assert measured(small_model(), set()) == ""
    both = measured(small_model(), {"image", "audio"})
    assert "drawn scenes" in both and "synthesised sounds" in both


@pytest.mark.parametrize(("name", "medium", "world"), WORLDS)
def test_the_file_holds_every_kind_with_intervals(name, medium, world):
    part = measurements()["worlds"][world]
    assert {"cached", "exact", "gradient", "attention", "perturbation", "another word"} <= set(part["kinds"])
    for figures in part["kinds"].values():
        for figure in figures.values():
            assert figure["low"] <= figure["value"] <= figure["high"] and figure["n"] > 0
    assert FILE.stat().st_size < 40_000


def test_the_page_says_it():
    model, processor = load("demo")
    explanation = explain(model, processor, "What is in the picture?", image=make_scene(100_001, "ordinary").image)
    assert explanation.measured == measured(model, {"image"}) == explanation.view()["measured"]
