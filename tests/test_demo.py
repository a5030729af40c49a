"""The bundled checkpoint: what it is, that transformers computes the same, that it sees, and that LIME helps it."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from lime_mlx import decode, generate, load
from lime_mlx.checkpoint import locate
from lime_mlx.scenes import PROMPTS, chair, make_scene, mentions

FIXTURE = Path(__file__).parent / "fixtures" / "demo.npz"
SCENES = range(230_000, 230_024)


@pytest.fixture(scope="module")
def demo():
    return load("demo")


def captions(demo, regime, method):
    scenes = [make_scene(seed, regime) for seed in SCENES]
    texts = [
        generate(*demo, PROMPTS[0], image=scene.image, method=method, max_tokens=48, reliance=False).text
        for scene in scenes
    ]
    return chair(texts, scenes)


def test_is_small_and_in_the_ordinary_layout():
    folder = locate("demo")
    assert sum(file.stat().st_size for file in folder.rglob("*")) <= 8e6
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llava"
    assert not [file for file in folder.rglob("*") if file.suffix in (".py", ".bin", ".pt", ".pth")]


@pytest.mark.parametrize("index", range(3))
def test_transformers_computes_the_same(demo, index):
    model, processor = demo
    stored = np.load(FIXTURE)
    seed, regime, text = json.loads(str(stored["asked"]))[index]
    prompt = processor.prompt(text, images=[make_scene(seed, regime).image])
    assert prompt.input_ids.tolist() == stored[f"ids_{index}"].tolist()
    np.testing.assert_allclose(prompt.media["pixel_values"][0, :, ::8, ::8], stored[f"pixels_{index}"], atol=2 / 255)
    logits, expected = np.array(model.logits(prompt)[-1]), stored[f"logits_{index}"]
    assert np.linalg.norm(logits - expected) <= 2e-4 * np.linalg.norm(expected)
    stop = frozenset(processor.eos_token_ids)
    said = [step.token for step in decode(model, prompt, "none", 24, reliance=False, stop=stop)]
    assert said == stored[f"tokens_{index}"].tolist()


def test_sees_well(demo):
    assert captions(demo, "ordinary", "none")["recall"] >= 0.8


def test_lies_by_habit_and_lime_lowers_it(demo):
    plain, lime = captions(demo, "adversarial", "none"), captions(demo, "adversarial", "lime")
    assert plain["chair_i"] > 0.05
    assert lime["chair_i"] < plain["chair_i"]
    assert lime["recall"] >= plain["recall"] - 0.05


def test_a_named_thing_rests_on_the_picture(demo):
    model, processor = demo
    scene = make_scene(SCENES[0], "ordinary")
    answer = generate(model, processor, PROMPTS[0], image=scene.image, method="none", max_tokens=48)
    named = [r for piece, r in zip(answer.pieces, answer.reliance, strict=True) if mentions(piece)]
    assert len(answer.reliance) == len(answer.tokens)
    assert min(named) > 0.3


def test_its_vision_is_used(demo):
    model, processor = demo
    first, second = (processor.prompt(PROMPTS[0], images=[make_scene(s, "ordinary").image]) for s in SCENES[:2])
    assert not mx.allclose(model.logits(first)[-1], model.logits(second)[-1], atol=1e-2).item()
