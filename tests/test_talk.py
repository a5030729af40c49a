"""Free questions about scenes: what is asked, and that the right answers are right."""

import random

import pytest

from lime_mlx.evaluate.scorers.free import fault
from lime_mlx.scenes import PICTURES, SOUNDS, make_scene, make_sound
from lime_mlx.scenes.habits import EMPTY
from lime_mlx.scenes.language import caption
from lime_mlx.scenes.soundscape import SoundEvent, SoundScene
from lime_mlx.scenes.talk import CLASSES, NUMBERS, TALKS, Talk, ask, chat, named
from lime_mlx.scenes.world import Object, Scene

SEEDS = range(100_000, 100_040)


def picture(*things: tuple[str, str], unseen: str | None = None) -> Scene:
    """Things of a kind and a colour from left to right, on a beach of 100 pixels."""
    image = make_scene(0, EMPTY, 100).image
    placed = [Object(kind, (20 * i, 40, 20 * i + 15, 60), colour) for i, (kind, colour) in enumerate(things)]
    return Scene(0, "ordinary", "beach", tuple(placed), image, unseen)


def sound(*kinds: str) -> SoundScene:
    events = tuple(SoundEvent(kind, start, start + 1.0) for start, kind in enumerate(kinds))
    return SoundScene(0, "ordinary", "quiet", events, make_sound(0, EMPTY, 2).samples)


def all_of(scene: Scene | SoundScene, kind: str, draws: int = 2000) -> dict[str, Talk]:
    """The questions of a kind that can be asked about a scene, by their text."""
    rng = random.Random(0)
    talks = [talk for talk in (ask(scene, kind, rng) for _ in range(draws)) if talk]
    return {talk.text: talk for talk in talks}


DOG_BALL_CAR = picture(("dog", "tan"), ("ball", "red"), ("car", "blue"))
BELL_RAIN_DOG = sound("bell", "rain", "dog")


@pytest.mark.parametrize(
    ("scene", "kind", "text", "answer"),
    [
        (DOG_BALL_CAR, "yesno", "Is there a dog in the picture?", "Yes, there is a dog."),
        (DOG_BALL_CAR, "yesno", "Is there a cat in the picture?", "No, there is no cat."),
        (DOG_BALL_CAR, "yesno", "Is there a beach in the picture?", "Yes, there is a beach."),
        (DOG_BALL_CAR, "yesno", "Do you see a park?", "No, there is no park."),
        (BELL_RAIN_DOG, "yesno", "Do you hear rain?", "Yes, there is rain."),
        (DOG_BALL_CAR, "beside", "What is beside the ball?", "A dog and a car."),
        (DOG_BALL_CAR, "beside", "What is next to the dog?", "A ball."),
        (picture(("dog", "tan")), "beside", "What is beside the dog?", "Nothing."),
        (BELL_RAIN_DOG, "beside", "What comes after the bell?", "Rain."),
        (BELL_RAIN_DOG, "beside", "What comes before the bell?", "Nothing."),
        (DOG_BALL_CAR, "count", "How many things do you see?", "There are three things."),
        (picture(("dog", "tan")), "count", "How many things do you see?", "There is one thing."),
        (BELL_RAIN_DOG, "count", "How many sounds are there?", "There are three sounds."),
        (DOG_BALL_CAR, "colour", "What colour is the car?", "The car is blue."),
        (BELL_RAIN_DOG, "order", "Which comes first, the dog or the rain?", "The rain comes first."),
        (DOG_BALL_CAR, "either", "Is it a dog or a bird?", "It is a dog."),
        (DOG_BALL_CAR, "form", "Answer in one word: is there a dog in the picture?", "Yes."),
        (DOG_BALL_CAR, "form", "List the things.", "dog, ball, car"),
        (BELL_RAIN_DOG, "form", "List the sounds.", "bell, rain, dog"),
        (DOG_BALL_CAR, "apart", "Is a dog an animal?", "Yes, a dog is an animal."),
        (DOG_BALL_CAR, "apart", "Is a car an animal?", "No, a car is no animal."),
        (BELL_RAIN_DOG, "apart", "Is a piano an instrument?", "Yes, a piano is an instrument."),
        (DOG_BALL_CAR, "leading", "Describe the car.", "The car is blue."),
        (DOG_BALL_CAR, "leading", "Tell me about the cat.", "There is no cat."),
        (BELL_RAIN_DOG, "leading", "Describe the bell.", "The bell comes first."),
        (BELL_RAIN_DOG, "leading", "Describe the rain.", "The rain comes after the bell."),
        (DOG_BALL_CAR, "name", "What is on the left?", "A dog."),
        (DOG_BALL_CAR, "name", "What is on the right?", "A car."),
        (BELL_RAIN_DOG, "name", "What comes last?", "A dog."),
        (
            DOG_BALL_CAR,
            "twice",
            "What is on the left, and what is beside it?",
            "On the left is a dog. Beside the dog is a ball.",
        ),
        (
            BELL_RAIN_DOG,
            "twice",
            "What comes first, and what comes next?",
            "First comes a bell. After the bell comes rain.",
        ),
    ],
)
def test_answers_of_known_scenes(scene: Scene | SoundScene, kind: str, text: str, answer: str) -> None:
    assert all_of(scene, kind)[text].answer == answer


def test_second_turns_follow_a_caption_or_a_name() -> None:
    rng = random.Random(1)
    talks = [talk for talk in (ask(DOG_BALL_CAR, "second", rng) for _ in range(200)) if talk]
    assert {talk.kind for talk in talks} == {"second"}
    for talk in talks:
        ((user, said),) = talk.history
        if talk.text == "What else is there?":
            assert talk.answer == {"A dog.": "A ball and a car.", "A car.": "A dog and a ball."}[said]
        else:
            assert said == caption(DOG_BALL_CAR)
    assert any(talk.text == "What else is there?" for talk in talks)


def test_what_is_not_in_a_plain_order_is_not_asked() -> None:
    close = Scene(
        0,
        "ordinary",
        "beach",
        tuple(Object(kind, (x, 0, x + 10, 10), "red") for kind, x in (("dog", 0), ("ball", 2), ("car", 50))),
        make_scene(0, EMPTY, 100).image,
    )
    assert not all_of(close, "twice")
    assert set(all_of(close, "beside")) == {"What is beside the car?", "What is next to the car?"}
    assert set(all_of(close, "name")) == {"What is on the right?"}


def test_an_unseen_kind_is_never_asked_about() -> None:
    scene = picture(("dog", "tan"), ("ball", "red"), ("car", "blue"), unseen="ball")
    for kind in TALKS["picture"]:
        if kind == "apart":  # this is not about the picture
            continue
        for talk in all_of(scene, kind).values():
            assert "ball" not in named(f"{talk.text} {talk.answer}", PICTURES), talk
    assert all_of(scene, "count")["How many things do you see?"].answer == "There are two things."
    assert not all_of(scene, "second")


@pytest.mark.parametrize("make", [make_scene, make_sound])
def test_empty_scenes(make) -> None:
    scenes = [make(seed, EMPTY) for seed in range(6)]
    for scene in scenes:
        assert not scene.kinds
        for talk in chat(scene, random.Random(0), 20):
            assert talk.kind == EMPTY
            assert talk.answer.startswith(("No,", "Yes, there is a", "An empty", "There is nothing."))
        assert ask(scene, "count", random.Random(0)) is None
    assert ask(make(0, "ordinary"), EMPTY, random.Random(0)) is None


def test_empty_scenes_hold_only_the_background() -> None:
    scene = make_scene(3, EMPTY, 128)
    assert len(scene.image.getcolors(128 * 128)) > 3
    assert caption(scene) == f"An empty {scene.setting}."
    quiet = make_sound(3, EMPTY)
    assert 0 < abs(quiet.samples).max() < 0.05  # the sounds of other scenes reach 0.5 and more
    assert caption(quiet) == "There is nothing."


@pytest.mark.parametrize(("make", "world"), [(make_scene, PICTURES), (make_sound, SOUNDS)])
def test_every_right_answer_is_right_for_the_scorer(make, world) -> None:
    kinds = set()
    for seed in SEEDS:
        for scene in (make(seed, "adversarial"), make(seed, EMPTY)):
            for talk in chat(scene, random.Random(seed), 20):
                kinds.add(talk.kind)
                assert fault(talk.answer, talk.truth, world) == "", talk
    assert kinds == {*TALKS[world.medium], EMPTY}


def test_questions_follow_from_the_seed() -> None:
    scene = make_scene(100_000, "ordinary", 64)
    assert chat(scene, random.Random(5), 9) == chat(scene, random.Random(5), 9)
    assert len(chat(scene, random.Random(5), 4)) == 4
    first = [chat(scene, random.Random(seed), 1, {"count": 50.0})[0].kind for seed in range(40)]
    assert first.count("count") > 20


def test_the_classes_are_of_the_world() -> None:
    for world in (PICTURES, SOUNDS):
        for members, others in CLASSES[world.medium].values():
            assert set(members) | set(others) <= set(world.kinds)
            assert not set(members) & set(others)
        assert world.most <= len(NUMBERS)


def test_named_finds_words_of_the_world() -> None:
    assert named("No, there isn't a Dog; 2 cats, one grey.", PICTURES) == [
        "no",
        "no",
        "dog",
        "two",
        "cat",
        "one",
        "gray",
    ]
    assert named("First comes rain.", SOUNDS) == ["first", "rain"]
