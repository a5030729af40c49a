"""Words without support: verdicts, and answers without them."""

import pytest

from lime_mlx.support.detector import Detector
from lime_mlx.words import Token, ranked, without_item, words

DETECTOR = Detector({"share": -10.0, "certainty": -1.0}, 4.0, 0.5)


def answer(detector, **statistics):
    tokens = (Token(text=f" {text}", statistics=values) for text, values in statistics.items())
    return ranked([*words(tokens, detector)])


def test_a_calibrated_model_flags_by_its_threshold():
    dog, boat = {"share": 0.8, "certainty": 0.0}, {"share": 0.1, "certainty": -1.0}
    nothing, dog, _, boat = answer(DETECTOR, a=None, dog=dog, **{"and": None}, boat=boat)
    assert (nothing.names_something, nothing.rank, nothing.p_unsupported, nothing.flagged) == (False, None, None, False)
    assert (dog.name, dog.rank, dog.flagged) == ("dog", 2, False)
    assert (boat.name, boat.rank, boat.flagged) == ("boat", 1, True)
    assert boat.p_unsupported == pytest.approx(1 / (1 + 2.718281828459045**-4))
    assert dog.p_unsupported == pytest.approx(1 / (1 + 2.718281828459045**4))


def test_another_model_gives_ranks_only():
    named = answer(None, dog={"positive": 3.0}, cat={"positive": 1.0}, cup={"positive": 2.0})
    assert [(word.rank, word.p_unsupported, word.flagged) for word in named] == [
        (3, None, False),
        (1, None, False),
        (2, None, False),
    ]


@pytest.mark.parametrize(
    ("text", "noun", "rest"),
    [
        ("A street with a dog, a boat and a cup.", "boat", "A street with a dog and a cup."),
        ("A street with a dog, a boat and a cup.", "cup", "A street with a dog and a boat."),
        ("A street with a dog and an umbrella.", "umbrella", "A street with a dog."),
        ("A street with a dog and an umbrella.", "dog", "A street with an umbrella."),
        ("There is rain, a bell, and thunder.", "bell", "There is rain and thunder."),
        ("There is a dog. I see a cat and a dog.", "dog", "There is a dog. I see a cat."),
    ],
)
def test_a_listed_noun_can_be_left_out(text, noun, rest):
    assert without_item(text, noun) == rest


@pytest.mark.parametrize(
    ("text", "noun"), [("A dog stands on a boat.", "boat"), ("There is a dog.", "dog"), ("a dog and a cat", "bird")]
)
def test_what_the_grammar_needs_stays(text, noun):
    assert without_item(text, noun) is None
