"""AMBER (Wang et al., 2023): generative scores with words compared exactly, and the discriminative questions.

The official generative score also accepts words by spaCy's vectors (similarity > 0.8); without them those words count
as hallucinated, so `generative` compares runs with each other but not with published numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from . import baseforms
from .answers import NO, YES
from .answers import amber as verdict

_SELDOM_NOUNS = frozenset("can hot sailing painting".split())  # mostly a verb or an adjective
_ARTICLES = frozenset("a the trash garbage soda beer oil spray".split())
_START = 0.001  # the official denominators start here, not at 0


def nouns(text: str, relation: Mapping[str, Collection[str]]) -> list[str]:
    """The words of a text, in base form, that AMBER's vocabulary (relation.json) knows; every mention counts."""
    known = vocabulary(relation)
    words = baseforms.tokens(text)
    bases = [baseforms.wordnet(token, known) for token in words]
    return [
        base
        for place, base in enumerate(bases)
        if base in known and (base not in _SELDOM_NOUNS or (place and words[place - 1].lower() in _ARTICLES))
    ]


def vocabulary(relation: Mapping[str, Collection[str]]) -> set[str]:
    return set(relation).union(*relation.values())


def caption(
    text: str,
    truth: Sequence[str],
    hallu: Sequence[str],
    relation: Mapping[str, Collection[str]],
    safe: Collection[str],
) -> dict:
    """The counts of one caption: chair_score of chair_num nouns unsafe, cover_score of cover_num, cog_score of
    cog_num, and non_hallu (1 without an unsafe noun)."""
    said = nouns(text, relation)
    return counts(said, truth, hallu, relation, safe)


def counts(
    said: Sequence[str],
    truth: Sequence[str],
    hallu: Sequence[str],
    relation: Mapping[str, Collection[str]],
    safe: Collection[str],
) -> dict:
    """`caption` for nouns that were found already."""
    there, dreamt = _owners(truth, relation), _owners(hallu, relation)
    covered, imagined, wrong = set(), set(), 0
    for noun in said:
        if noun in safe:
            continue
        if noun in there:
            covered.add(there[noun])
        else:
            wrong += 1
            if noun in dreamt:
                imagined.add(dreamt[noun])
    return {
        "chair_score": wrong,
        "chair_num": len(said),
        "cover_score": len(covered),
        "cover_num": len(truth),
        "cog_score": len(imagined),
        "cog_num": len(hallu),
        "non_hallu": int(not wrong),
    }


def _owners(objects: Sequence[str], relation: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Every word that stands for an object, with the place of that object: an association's first owner wins."""
    owners: dict[str, int] = {}
    for place, word in enumerate(objects):
        for name in relation.get(word, ()):
            owners.setdefault(name, place)
    for place, word in enumerate(objects):
        owners.setdefault(word, place)
    return owners


def generative(rows: Sequence[Mapping[str, int]]) -> dict:
    """CHAIR, Cover, Hal and Cog of captions' counts, in percent with one decimal, as the official program prints."""

    def share(name: str) -> float:
        return round(100 * sum(r[f"{name}_score"] for r in rows) / (_START + sum(r[f"{name}_num"] for r in rows)), 1)

    hal = round(100 - 100 * sum(row["non_hallu"] for row in rows) / (_START + len(rows)), 1)
    return {"CHAIR": share("chair"), "Cover": share("cover"), "Hal": hal, "Cog": share("cog")}


def discriminative(texts: Sequence[str], labels: Sequence[str], existence: bool = False) -> dict:
    """Accuracy, precision, recall and F1 in percent; "no" is the positive class.

    An answer that is not exactly "Yes" or "No" is wrong. `existence`: the F1 denominator that this split has.
    """
    read = [verdict(text) for text in texts]
    pairs = list(zip(read, (label.lower() for label in labels), strict=True))
    right_no = pairs.count((NO, NO))
    precision = round(100 * right_no / (_START + read.count(NO)), 1)
    recall = round(100 * right_no / (_START + sum(label == NO for _, label in pairs)), 1)
    return {
        "Accuracy": round(100 * (right_no + pairs.count((YES, YES))) / (_START + len(pairs)), 1),
        "Precision": precision,
        "Recall": recall,
        "F1": round(2 * precision * recall / (precision + recall + (0.001 if existence else 0.0001)), 1),
    }
