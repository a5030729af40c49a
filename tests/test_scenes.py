import random
from collections import Counter

import numpy as np
import pytest
from official import scene_records
from PIL import Image, ImageDraw

from lime_mlx import scenes
from lime_mlx.evaluate.scorers import answers
from lime_mlx.evaluate.scorers.metrics import Metric
from lime_mlx.evaluate.scorers.scenes import count_kinds, kinds_named
from lime_mlx.evaluate.statistics import interval
from lime_mlx.evaluate.tasks import parse_task
from lime_mlx.scenes import COMPANION, KINDS, PAIRS, REGIMES, SETTINGS, language, world
from lime_mlx.scenes.draw import stamp


def captioned(texts, truths) -> dict[str, Metric]:
    """The figures of captions of pictures."""
    metrics = parse_task("scenes").metrics(scene_records(texts, truths), "ours", {})
    return {metric.name: metric for metric in metrics if metric.split == "caption"}


@pytest.fixture(scope="module")
def drawn() -> list[scenes.Scene]:
    return [scenes.make_scene(seed, regime, size=64) for regime in REGIMES for seed in range(60)]


def laws(regime: str, count: int = 4000) -> list[tuple[str, list[str]]]:
    rng = random.Random(f"law/{regime}")
    return [world.choose(rng, regime) for _ in range(count)]


@pytest.mark.parametrize("regime", REGIMES)
def test_same_arguments_same_scene(regime):
    first, again = (scenes.make_scene(7, regime) for _ in range(2))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.objects == again.objects
    assert first.image.size == (256, 256) and first.image.mode == "RGB"
    assert scenes.make_scene(8, regime).image.tobytes() != first.image.tobytes()


def test_the_global_random_state_plays_no_part():
    random.seed(0)
    np.random.seed(0)
    state = random.getstate()
    first = scenes.make_scene(3, "skewed").image.tobytes()
    assert random.getstate() == state
    random.seed(1)
    assert scenes.make_scene(3, "skewed").image.tobytes() == first


def test_size_only_scales_the_scene():
    small, large = scenes.make_scene(11, "ordinary", 128), scenes.make_scene(11, "ordinary", 256)
    assert small.kinds == large.kinds and small.setting == large.setting
    for a, b in zip(small.objects, large.objects, strict=False):
        assert np.allclose(np.array(a.box) * 2, b.box)
    shrunk = np.asarray(large.image.resize((128, 128)), float)
    assert np.abs(shrunk - np.asarray(small.image, float)).mean() < 6


def test_regimes_are_independent_draws():
    assert scenes.make_scene(5, "uncorrelated").image.tobytes() != scenes.make_scene(5, "ordinary").image.tobytes()
    with pytest.raises(ValueError, match="unknown regime"):
        scenes.make_scene(0, "usual")


def test_objects_lie_inside_from_left_to_right_and_hardly_overlap(drawn):
    for scene in drawn:
        assert 2 <= len(scene.objects) <= 5 and len(set(scene.kinds)) == len(scene.objects)
        centres = [thing.box[0] + thing.box[2] for thing in scene.objects]
        assert centres == sorted(centres)
        for i, thing in enumerate(scene.objects):
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 < x1 <= 64 and 0 <= y0 < y1 <= 64
            assert max(x1 - x0, y1 - y0) > 64 * 0.2
            assert thing.color in world.PALETTE[thing.kind]
            assert all(world._overlap(thing.box, other.box) <= 0.15 for other in scene.objects[:i])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mirror", [False, True])
def test_a_drawing_fills_its_box(kind, mirror):
    drawing = world._drawing(kind, world.PALETTE[kind][0])
    image = Image.new("RGB", (256, 256), (1, 2, 3))
    scale = 200 / max(drawing.width, drawing.height)
    stamp(ImageDraw.Draw(image), drawing, 20, 30, scale, mirror)
    rows, columns = np.nonzero((np.asarray(image) != (1, 2, 3)).any(axis=2))
    found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    wanted = 20, 30, 20 + drawing.width * scale, 30 + drawing.height * scale
    assert np.abs(np.subtract(found, wanted)).max() < 8


def test_kinds_and_pairs_are_well_formed():
    assert len(KINDS) == 28 and len(set(KINDS)) == 28
    members = [kind for pair in PAIRS for kind in pair]
    assert len(members) == len(set(members)) and set(members) <= set(KINDS)
    assert not set(SETTINGS) & set(KINDS)


@pytest.mark.parametrize("regime", ["uncorrelated", "ordinary"])
def test_uncorrelated_worlds_are_uniform(regime):
    found = laws(regime)
    frequency = Counter(kind for _, kinds in found for kind in kinds)
    mean = sum(frequency.values()) / len(KINDS)
    assert all(0.8 * mean < frequency[kind] < 1.2 * mean for kind in KINDS)
    assert all(500 < count < 850 for count in Counter(setting for setting, _ in found).values())
    dogs = [kinds for _, kinds in found if "dog" in kinds]
    assert sum("ball" in kinds for kinds in dogs) < 0.2 * len(dogs)


def test_skewed_pairs_come_together():
    found = [kinds for _, kinds in laws("skewed")]
    for kind, companion in COMPANION.items():
        there = [kinds for kinds in found if kind in kinds]
        assert sum(companion in kinds for kinds in there) / len(there) == pytest.approx(0.95, abs=0.05)
    rate = np.mean([COMPANION[kind] in kinds for kinds in found for kind in kinds if kind in COMPANION])
    assert rate == pytest.approx(0.95, abs=0.01)
    frequency = Counter(kind for kinds in found for kind in kinds)
    assert frequency.most_common()[0][1] > 2 * frequency.most_common()[-1][1]


def test_settings_of_the_skewed_world_prefer_some_kinds():
    found = laws("skewed")

    def share(kind, setting):
        return np.mean([kind in kinds for place, kinds in found if place == setting])

    assert share("boat", "beach") > 1.5 * share("boat", "kitchen") > 0


def test_adversarial_scenes_break_one_or_two_pairs():
    counts = Counter()
    for _, kinds in laws("adversarial"):
        missing = scenes.broken(kinds)
        counts[len(missing)] += 1
        assert not missing & set(kinds)
        assert 2 <= len(kinds) <= 5 and len(set(kinds)) == len(kinds)
    assert set(counts) == {1, 2} and counts[1] > 2 * counts[2]


def test_captions_name_exactly_the_objects_in_order(drawn):
    rng = random.Random(0)
    for scene in drawn:
        for text in (scenes.caption(scene), scenes.caption(scene, rng)):
            assert kinds_named(text) == list(scene.kinds)
            assert scene.setting in text and text.endswith(".")
            assert "a umbrella" not in text and "an dog" not in text


def test_caption_templates():
    blank = Image.new("RGB", (8, 8))

    def scene(*kinds):
        return scenes.Scene(0, "ordinary", "park", tuple(scenes.Object(k, (0, 0, 1, 1), "red") for k in kinds), blank)

    assert scenes.caption(scene("dog", "umbrella")) == "A park with a dog and an umbrella."
    assert scenes.caption(scene("dog", "ball", "tree")) == "A park with a dog, a ball and a tree."
    rng = random.Random(0)
    texts = {scenes.caption(scene("umbrella", "dog"), rng) for _ in range(40)}
    assert len(texts) == len(language.CAPTIONS)
    assert "This is a park. There is an umbrella and a dog." in texts


@pytest.mark.parametrize("strategy", language.STRATEGIES)
def test_questions_are_balanced_and_true(drawn, strategy):
    rng = random.Random(1)
    for scene in drawn:
        asked = scenes.questions(scene, strategy, rng)
        assert len(asked) == min(6, 2 * len(scene.kinds))
        assert [q.label for q in asked] == ["yes", "no"] * (len(asked) // 2)
        assert len({q.kind for q in asked}) == len(asked)
        for q in asked:
            assert (q.kind in scene.kinds) == (q.label == "yes")
            assert answers.ours(scenes.answer(q)) == q.label
            assert q.kind in q.text and q.text.startswith("Is there a")


def test_question_strategies():
    rng = random.Random(2)
    single, _ = world.habits()
    for seed in range(40):
        scene = scenes.make_scene(seed, "adversarial", 32)
        hard = [q.kind for q in scenes.questions(scene, "adversarial", rng) if q.label == "no"]
        missing = scenes.broken(scene.kinds)
        assert set(hard[: len(missing)]) == missing
        popular = [q.kind for q in scenes.questions(scene, "popular", rng) if q.label == "no"]
        assert min(single[kind] for kind in popular) > np.median([single[kind] for kind in KINDS])
    with pytest.raises(ValueError, match="unknown strategy"):
        scenes.questions(scene, "easy", rng)


def test_answers():
    assert scenes.answer(scenes.Question("", "umbrella", "yes")) == "Yes, there is an umbrella."
    assert scenes.answer(scenes.Question("", "dog", "no")) == "No, there is no dog."


def test_mentions():
    assert kinds_named("Two Dogs, a dog and three buses near the HOUSE.") == ["dog", "bus", "house"]
    assert kinds_named("A carpet, a category, fishing and a bookcase.") == []


def test_chair_by_hand():
    texts = ["A park with a dog and a ball.", "A cat, a cat and a fish.", "Nothing."]
    truths = [("dog", "tree"), ("cat", "fish"), ("cup", "table")]
    scored = captioned(texts, truths)
    assert scored["CHAIR_I"].bottom.tolist() == [2, 2, 0]
    assert scored["CHAIR_I"].top.tolist() == [1, 0, 0]
    assert scored["recall"].top.tolist() == [1, 2, 0]
    assert scored["recall"].bottom.tolist() == [2, 2, 2]
    assert scored["CHAIR_S"].value == pytest.approx(1 / 3)
    assert scored["CHAIR_I"].value == pytest.approx(1 / 4)
    assert scored["recall"].value == pytest.approx(1 / 2)
    assert scored["repeats"].value == pytest.approx(1 / 5)
    assert scored["distinct"].value == pytest.approx((6 + 4 + 1) / (8 + 7 + 1))
    assert [tuple(count_kinds(text, truth)) for text, truth in zip(texts, truths, strict=True)] == [
        (2, 1, 1, 2), (2, 0, 2, 2), (0, 0, 0, 2),
    ]  # fmt: skip
    assert captioned([], []) == {}


def test_right_captions_score_perfectly(drawn):
    scored = captioned([scenes.caption(scene) for scene in drawn], [scene.kinds for scene in drawn])
    assert (scored["CHAIR_S"].value, scored["CHAIR_I"].value, scored["recall"].value) == (0, 0, 1)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Yes, there is a dog.", "yes"),
        ("no", "no"),
        ("There is no dog.", "no"),
        ("Noon, yesterday", "unknown"),
    ],
)
def test_yes_no(text, verdict):
    assert answers.ours(text) == verdict


def test_bootstrap():
    hits = np.random.default_rng(0).random(400) < 0.3
    low, high = interval(hits, np.ones(400), range(400))
    assert low < hits.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * (0.3 * 0.7 / 400) ** 0.5, rel=0.2)
    assert (low, high) == interval(hits, np.ones(400), range(400))
    assert interval([2, 2], [4, 4], range(2)) == (0.5, 0.5)
    assert np.isnan(interval([], [], [])).all()
