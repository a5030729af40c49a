"""From tokens to words."""

import numpy as np
import pytest

from lime_mlx.lrp.relevance import Shares
from lime_mlx.prompt import Span
from lime_mlx.words import Token, heard_interval, mean_shares, words

HIGH, LOW = Shares(0.8, 0.0, 0.1, 0.1), Shares(0.2, 0.0, 0.2, 0.6)


def merged(*pieces):
    return [(word.text, word.shares) for word in words(Token(text=text, shares=shares) for text, shares in pieces)]


def test_a_piece_that_starts_with_white_space_starts_a_word():
    assert merged(("A", LOW), (" um", HIGH), ("brel", LOW), ("la", None)) == [
        ("A", LOW),
        (" umbrella", pytest.approx((0.5, 0, 0.15, 0.35))),
    ]


def test_punctuation_belongs_to_the_word_but_not_to_its_shares():
    assert merged((" dog", HIGH), (",", LOW), (" cat", LOW), (".", HIGH), ('"', HIGH)) == [
        ("dog,", HIGH),
        (' cat."', LOW),
    ]


def test_punctuation_that_stands_alone_has_its_own_shares():
    assert merged((" dog", HIGH), (" -", LOW), (" cat", HIGH))[1] == (" -", LOW)


def test_white_space_is_no_word():
    assert merged(("Yes", HIGH), ("\n", LOW), ("\n", LOW), ("No", HIGH), (" ", LOW)) == [
        ("Yes", HIGH),
        ("\n\nNo", HIGH),
    ]


def test_an_empty_piece_goes_with_the_next_one():
    assert merged((" cat", HIGH), ("", LOW), (" é", LOW)) == [("cat", HIGH), (" é", LOW)]
    assert merged((" cat", HIGH), ("", LOW)) == [("cat", pytest.approx((0.5, 0, 0.15, 0.35)))]


def test_characters_of_languages_without_spaces_are_words():
    assert [text for text, _ in merged(("一只", HIGH), ("猫", HIGH), ("和", LOW), ("。", LOW))] == [
        "一只",
        "猫",
        "和。",
    ]


def test_words_come_as_soon_as_they_are_whole():
    def pieces():
        yield Token(text=" dog", shares=HIGH)
        yield Token(text=" cat", shares=LOW)
        raise AssertionError("asked for too much")

    assert next(words(pieces())).text == "dog"


def test_nothing_and_unknown_shares():
    assert merged() == []
    assert merged(("dog", None)) == [("dog", None)]
    assert mean_shares([None, None]) is None
    assert mean_shares([HIGH, None, LOW]) == pytest.approx((0.5, 0, 0.15, 0.35))


def test_words_sum_the_relevance_of_their_tokens():
    pieces = [
        Token(text=" um", relevance=np.array([1.0, 2.0])),
        Token(text="brella", relevance=np.array([3.0, 4.0, 9.0])),
        Token(text=" and"),
    ]
    first, second = words(pieces)
    assert first.relevance.tolist() == [4.0, 6.0]
    assert second.relevance is None


@pytest.mark.parametrize(
    ("relevance", "when"),
    [
        ([0, 0, 5, 0, 0], (0.2, 0.3)),
        ([1, 1, 1, 1, 1, 1], (0.0, 0.3)),
        ([1, 0, 0, 2, 3, 1], (0.3, 0.5)),
        ([-9, 1, -9, 2, 2], (0.3, 0.5)),
    ],
)
def test_a_word_is_heard_where_half_of_its_relevance_is(relevance, when):
    padded = [7.0, *relevance, 7.0]
    span = Span("audio", 1, 1 + len(relevance), seconds=0.1)
    assert heard_interval(np.array(padded), span) == pytest.approx(when)


def test_what_rests_on_no_sound_has_no_moment():
    assert heard_interval(np.array([3.0, -1.0, 0.0]), Span("audio", 1, 3, seconds=0.1)) is None
    assert heard_interval(np.array([3.0, 1.0, 1.0]), Span("audio", 1, 3)) is None
