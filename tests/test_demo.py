"""The bundled checkpoints: what they are, that transformers computes the same, that they perceive, that LIME helps."""

import json
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from official import scene_records, values

from lime_mlx import decode, generate, load
from lime_mlx.checkpoint.load import locate
from lime_mlx.evaluate.scorers.scenes import mentions
from lime_mlx.evaluate.tasks import parse_task
from lime_mlx.media.audio import Sound
from lime_mlx.scenes import PROMPTS, SOUND_PROMPTS, SOUNDS, make_scene, make_sound
from lime_mlx.words import heard_interval

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = {"picture": "demo", "sound": "demo-sound"}
LIMITS = {"picture": 8e6, "sound": 6e6}
FAMILY = {"picture": "llava", "sound": "qwen2_audio"}
SCENES = range(230_000, 230_024)

models = cache(lambda kind: load(NAMES[kind]))


def scene_of(kind, seed, regime):
    return make_scene(seed, regime) if kind == "picture" else make_sound(seed, regime)


def media(kind, scene):
    return {"images": [scene.image]} if kind == "picture" else {"audio": [Sound(scene.samples, scene.rate)]}


@cache
def captions(kind, regime, method):
    model, processor = models(kind)
    scenes = [scene_of(kind, seed, regime) for seed in SCENES]
    asked = PROMPTS[0] if kind == "picture" else SOUND_PROMPTS[0]
    prompts = [processor.prompt(asked, **media(kind, scene)) for scene in scenes]
    texts = [generate(model, processor, p, method=method, max_tokens=48, reliance=False).text for p in prompts]
    task = parse_task({"picture": "scenes", "sound": "sounds"}[kind])
    records = scene_records(texts, [scene.kinds for scene in scenes])
    return values(task.metrics(records, "ours", {}), "caption")


@pytest.fixture(scope="module")
def demo():
    return models("picture")


@pytest.mark.parametrize("kind", NAMES)
def test_is_small_and_in_the_ordinary_layout(kind):
    folder = locate(NAMES[kind])
    assert sum(file.stat().st_size for file in folder.rglob("*")) <= LIMITS[kind]
    assert json.loads((folder / "config.json").read_text())["model_type"] == FAMILY[kind]
    assert not [file for file in folder.rglob("*") if file.suffix in (".py", ".bin", ".pt", ".pth")]


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("kind", NAMES)
def test_transformers_computes_the_same(kind, index):
    model, processor = models(kind)
    stored = np.load(FIXTURES / f"demo_{kind}.npz")
    seed, regime, text = json.loads(str(stored["asked"]))[index]
    prompt = processor.prompt(text, **media(kind, scene_of(kind, seed, regime)))
    assert prompt.input_ids.tolist() == stored[f"ids_{index}"].tolist()
    if kind == "picture":
        part, close = prompt.media["pixel_values"][0, :, ::8, ::8], 2 / 255
    else:
        part, close = prompt.media["input_features"][0, :, ::8], 1e-4
    np.testing.assert_allclose(part, stored[f"media_{index}"], atol=close)
    logits, expected = np.array(model.logits(prompt)[-1]), stored[f"logits_{index}"]
    assert np.linalg.norm(logits - expected) <= 2e-4 * np.linalg.norm(expected)
    stop = frozenset(processor.eos_token_ids)
    said = [step.token for step in decode(model, prompt, "none", 24, reliance=False, stop=stop)]
    assert said == stored[f"tokens_{index}"].tolist()


@pytest.mark.parametrize("kind", NAMES)
def test_perceives_well(kind):
    assert captions(kind, "ordinary", "none")["recall"] >= 0.8


@pytest.mark.parametrize("kind", NAMES)
def test_lies_by_habit_and_lime_lowers_it(kind):
    plain, lime = captions(kind, "adversarial", "none"), captions(kind, "adversarial", "lime")
    assert plain["CHAIR_I"] > 0.05
    assert lime["CHAIR_I"] < plain["CHAIR_I"]
    assert lime["recall"] >= plain["recall"] - 0.05


def test_words_are_heard_when_they_sound():
    """The moments of the words of a sound that is described rightly lie in the intervals of its events."""
    model, processor = models("sound")
    inside, total = 0, 0
    for seed in SCENES:
        scene = make_sound(seed, "ordinary")
        prompt = processor.prompt(SOUND_PROMPTS[0], **media("sound", scene))
        answer = generate(model, processor, prompt, method="none", max_tokens=40, relevance=True)
        (span,) = model.spans(prompt)
        for piece, relevance in zip(answer.pieces, answer.relevance, strict=True):
            for event in scene.events:
                if event.kind in mentions(piece, SOUNDS):
                    start, stop = heard_interval(relevance, span)
                    inside += event.start - 0.2 <= (start + stop) / 2 <= event.stop + 0.2
                    total += 1
    assert total > 40
    assert inside / total > 0.75


def test_a_named_thing_rests_on_the_picture(demo):
    model, processor = demo
    scene = make_scene(SCENES[0], "ordinary")
    answer = generate(model, processor, PROMPTS[0], image=scene.image, method="none", max_tokens=48)
    # What the model invents rests on the picture less.
    there = {*scene.kinds}
    named = [r for piece, r in zip(answer.pieces, answer.reliance, strict=True) if {*mentions(piece)} & there]
    assert len(answer.reliance) == len(answer.tokens) and len(named) >= 2
    assert min(named) > 0.3


def test_its_vision_is_used(demo):
    model, processor = demo
    first, second = (processor.prompt(PROMPTS[0], images=[make_scene(s, "ordinary").image]) for s in SCENES[:2])
    assert not mx.allclose(model.logits(first)[-1], model.logits(second)[-1], atol=1e-2).item()
