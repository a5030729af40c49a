"""Words without support: verdicts, and answers without them."""

import pytest

from lime_mlx.support.detector import Detector
from lime_mlx.words import Piece, drop, judge, words

DETECTOR = Detector({"share": -10.0, "certainty": -1.0}, 4.0, 0.5)


def said(**evidence):
    return [*words(Piece(f" {text}", None, None, found and dict(found)) for text, found in evidence.items())]


def test_a_calibrated_model_flags_by_its_threshold():
    answer = said(a=None, dog={"share": 0.8, "certainty": 0.0}, boat={"share": 0.1, "certainty": -1.0})
    nothing, dog, boat = judge(answer, DETECTOR)
    assert nothing is None
    assert (dog.text, dog.rank, dog.flagged) == ("dog", 2, False)
    assert (boat.text, boat.rank, boat.flagged) == ("boat", 1, True)
    assert boat.doubt == pytest.approx(1 / (1 + 2.718281828459045**-4))
    assert dog.doubt == pytest.approx(1 / (1 + 2.718281828459045**4))


def test_another_model_gives_ranks_only():
    verdicts = judge(said(dog={"positive": 3.0}, cat={"positive": 1.0}, cup={"positive": 2.0}), None)
    assert [(v.rank, v.doubt, v.flagged) for v in verdicts] == [(3, None, False), (1, None, False), (2, None, False)]


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
    assert drop(text, noun) == rest


@pytest.mark.parametrize(
    ("text", "noun"), [("A dog stands on a boat.", "boat"), ("There is a dog.", "dog"), ("a dog and a cat", "bird")]
)
def test_what_the_grammar_needs_stays(text, noun):
    assert drop(text, noun) is None
