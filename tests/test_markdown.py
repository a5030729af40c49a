"""Answers in Markdown: objects in emphasis, lists, headings and tables are found, and words are without its marks."""

import numpy as np
import pytest

from lime_mlx.evaluate.scorers import amber, baseforms
from lime_mlx.evaluate.scorers.chair import MODES, ObjectFinder
from lime_mlx.evaluate.scorers.scenes import kinds_named
from lime_mlx.scenes import PICTURES
from lime_mlx.support.content import content_tokens
from lime_mlx.support.grammars import ENGLISH
from lime_mlx.words import Token, Word, grouped, ranked, without_flagged, words

LINES = [["dog", "puppy"], ["cat"], ["wine glass"], ["dining table", "table"], ["traffic light"], ["person", "man"]]
ANSWERS = {
    "emphasis": "A **Dog** and a ***cat***, *beside* the **dining table**.",
    "list": "* **Dog**: brown\n* **Cat:** grey\n- a *table*",
    "heading": "## Objects\n\n### **Dogs**\nTwo.\n### Cats\n1. **Tables**",
    "table": "| Object | Place |\n|---|---|\n| **dog** | left |\n| cat | on the table |",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ANSWERS)
def test_objects_are_found_in_every_mode(form, mode):
    assert ObjectFinder(LINES, mode).find(ANSWERS[form]).names == {"dog", "cat", "dining table"}


@pytest.mark.parametrize(
    "text",
    ["_Dog_ and __cat__", "`dog`/`cat`", "|dog|cat|", "~~dog~~ > cat", "dog\u2014cat", "#dog #cat", "<b>dog</b>\\cat"],
)
def test_ours_reads_all_marks(text):
    assert ObjectFinder(LINES).find(text).names == {"dog", "cat"}


def test_names_of_several_words_may_be_emphasised_in_part():
    assert ObjectFinder(LINES).find("a **wine** glass, a **traffic light**").names == {"wine glass", "traffic light"}


def test_marks_change_nothing_else():
    plain = "A dog sits. It's a man's dog, 3.5 m away; the cat can't see it."
    assert baseforms.tokens(f"**{plain}**")[2:-2] == baseforms.tokens(plain)
    assert len(baseforms.unmarked(ANSWERS["table"])) == len(ANSWERS["table"])


def test_stars_are_tokens_of_their_own_as_in_nltk():
    assert baseforms.tokens("a **dog's** tail*") == ["a", "*", "*", "dog", "'s", "*", "*", "tail", "*"]


def test_named_objects_have_the_index_of_their_word():
    said = ["A", " **Dog**", " and", " **wine", " glass**,", " |cat|"]
    assert ObjectFinder(LINES).named(said) == [(1, "dog"), (3, "wine glass"), (5, "cat")]


def test_nouns_of_amber():
    assert amber.nouns("A **dog** and *trees*", {"dog": [], "tree": []}) == ["dog", "tree"]


def test_kinds_of_scenes():
    assert kinds_named("A **dog**, a _ball_ and a __cat__.", PICTURES) == ["dog", "ball", "cat"]


def said(*pieces: str) -> list[Token]:
    """Tokens whose relevance is 1 at each position before them; content tokens have statistics."""
    content = content_tokens(pieces, ENGLISH)
    return [
        Token(text=piece, token=n, relevance=np.ones(4 + n, np.float32), statistics={"positive": -n} if names else None)
        for n, (piece, names) in enumerate(zip(pieces, content, strict=True))
    ]


def test_words_are_without_marks():
    listed = list(words(said("A", " **", "Dog", "**", ",", " and", " a", " __", "cat", "__")))
    assert [word.name for word in listed] == ["A", "Dog", "and", "a", "cat"]
    assert [word.name for word in listed if word.names_something] == ["Dog", "cat"]
    assert [word.rank for word in ranked(listed)] == [None, 2, None, None, 1]


def test_the_relevance_of_a_word_is_that_of_its_letters():
    (word,) = words(said(" **", "Dog", "**"))
    assert word.relevance is not None and word.relevance.tolist() == [1.0] * 5


def test_the_cells_of_a_table_are_words():
    assert ["".join(t.text for t in group) for group in grouped(said("|", "dog", "|", "cat", "|"))] == [
        "|dog", "|cat", "|",
    ]  # fmt: skip


def test_what_stands_behind_a_mark_is_looked_up():
    pieces = ["*the", "**the", "_a", "(the", "*dog", "|the", "-like", "the"]
    assert content_tokens(pieces, ENGLISH).tolist() == [False] * 4 + [True, False, True, True]


def test_a_flagged_word_in_bold_leaves_its_list():
    flagged = Word(text=" **ball**", flagged=True)
    assert without_flagged("I see a dog, a **ball** and a cat.", [flagged]) == ("I see a dog and a cat.", ["ball"])
