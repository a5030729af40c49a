"""AMBER (Wang et al., 2023): the counts of one description, with words compared exactly.

The official program also accepts words by spaCy's vectors (similarity > 0.8). We do not have these vectors, so such
words count as hallucinated here: the figures compare runs with each other, but not with published numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from lime_mlx.evaluate.scorers import baseforms
from lime_mlx.evaluate.scorers.tagger import Tagger

_SELDOM_NOUNS = frozenset("can hot sailing painting".split())  # mostly a verb or an adjective
_ARTICLES = frozenset("a the trash garbage soda beer oil spray".split())
Relation = Mapping[str, Collection[str]]


class Counts(NamedTuple):
    """The counts of one description, by the names of the official program.

    CHAIR: chair_score of chair_num nouns are not in the picture. Cover: cover_score of cover_num objects are named.
    Cog: cog_score of cog_num typical hallucinations are named. non_hallu: 1 where no noun is wrong.
    """

    chair_score: int
    chair_num: int
    cover_score: int
    cover_num: int
    cog_score: int
    cog_num: int
    non_hallu: int


def nouns(text: str, relation: Relation, tagger: Tagger | None = None) -> list[str]:
    """The nouns of a text, in base form, that are in AMBER's vocabulary (relation.json); every mention counts.

    tagger: says which words are nouns; without one this is guessed.
    """
    words, vocabulary = baseforms.tokens(text), vocabulary_of(relation)
    bases = [baseforms.wordnet(token, vocabulary) for token in words]
    if tagger is not None:
        tagged = zip(bases, tagger.tag(words), strict=True)
        return [base for base, tag in tagged if tag.startswith("NN") and base in vocabulary]
    return [
        base
        for index, base in enumerate(bases)
        if base in vocabulary and (base not in _SELDOM_NOUNS or (index and words[index - 1].lower() in _ARTICLES))
    ]


def vocabulary_of(relation: Relation) -> set[str]:
    """All words of relation.json."""
    return set(relation).union(*relation.values())


def describe(
    text: str,
    truth: Sequence[str],
    hallu: Sequence[str],
    relation: Relation,
    safe: Collection[str],
    tagger: Tagger | None = None,
) -> Counts:
    """The counts of a description. truth, hallu: of its annotation; safe: words that never count as wrong."""
    return count(nouns(text, relation, tagger), truth, hallu, relation, safe)


def count(
    words: Sequence[str], truth: Sequence[str], hallu: Sequence[str], relation: Relation, safe: Collection[str]
) -> Counts:
    """The counts of a description whose nouns are `words`."""
    owners, imagined_owners = _owners(truth, relation), _owners(hallu, relation)
    covered, imagined, wrong = set(), set(), 0
    for noun in words:
        if noun in safe:
            continue
        if noun in owners:
            covered.add(owners[noun])
        else:
            wrong += 1
            if noun in imagined_owners:
                imagined.add(imagined_owners[noun])
    return Counts(wrong, len(words), len(covered), len(truth), len(imagined), len(hallu), int(not wrong))


def _owners(objects: Sequence[str], relation: Relation) -> dict[str, int]:
    """The index of the object that each word stands for; the first object keeps a word that several share."""
    owners: dict[str, int] = {}
    for index, word in enumerate(objects):
        for name in relation.get(word, ()):
            owners.setdefault(name, index)
    for index, word in enumerate(objects):
        owners.setdefault(word, index)
    return owners
