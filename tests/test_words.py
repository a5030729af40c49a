import numpy as np
import pytest

from lime_mlx.support.content import content_tokens
from lime_mlx.support.grammars import ENGLISH


def content(*pieces):
    return [piece for piece, names in zip(pieces, content_tokens(pieces, ENGLISH), strict=True) if names]


def test_words_that_name_something():
    pieces = [" dog", " Dog", " DOG", " red", " running", " umbrella", " New", " ice", " t", "\n house"]
    assert content(*pieces) == pieces


@pytest.mark.parametrize(
    "words",
    [
        "a an the this those",
        "it they something each",
        "in on under beside with between",
        "and or but because",
        "is are was have does can would",
        "some many several two ten",
        "yes no not there here when why",
        "picture image photo scene shows depicts contains see visible",
    ],
)
def test_closed_classes_name_nothing(words):
    for word in words.split():
        assert content(f" {word}", f" {word.capitalize()}", f" {word.upper()}", word.capitalize()) == []


def test_what_has_no_letters_names_nothing():
    assert content(" ", "", "\n", ".", ",", " (", " 42", "7", " 3.5", "...", "\ufffd", "\u2581", " \u20ac", None) == []


def test_a_piece_that_continues_a_word_is_content_though_it_looks_like_a_word():
    assert content("the", "in", "s", "is", "ella", "ing") == ["the", "in", "s", "is", "ella", "ing"]


def test_a_capitalised_piece_starts_a_line():
    assert content("The", "There", "A", "Yes", "Dog") == ["Dog"]


def test_contractions():
    assert content(" don't", " there's", " it\u2019s", "'s", "\u2019re", " '", "n't") == []
    assert content(" dog's", " o'clock") == [" dog's", " o'clock"]


def test_punctuation_around_a_word_is_left_out():
    assert content(' "the', " (dog", " and,", ' "Tree"') == [" (dog", ' "Tree"']


def test_words_of_other_languages_are_not_closed_in_english():
    pieces = [" der", " Hund", " le", "\u732b", " \u0441\u043e\u0431\u0430\u043a\u0430", " \u00e9t\u00e9"]
    assert content(*pieces) == pieces


def test_the_result_is_a_mask():
    mask = content_tokens([" dog", None], ENGLISH)
    assert mask.dtype == np.bool_
    assert mask.tolist() == [True, False]
    assert content_tokens([], ENGLISH).shape == (0,)


def test_the_list_is_clean():
    assert all(word.isalpha() and word.islower() for word in ENGLISH.closed)
    things = "dog cat person car tree table chair door window water light glass watch ring plane orange kitchen street"
    assert not ENGLISH.closed & set(things.split())
