"""A Penn tagger: the part of speech of each token, by an averaged perceptron with published weights.

The weights are NLTK's `averaged_perceptron_tagger_eng`: JSON files in a zip, under the MIT licence, which
`lime-mlx data get chair` or `amber` brings. The reference programs of CHAIR and AMBER tag with the same weights.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from lime_mlx.errors import DataError
from lime_mlx.evaluate.records import Material
from lime_mlx.evaluate.scorers.baseforms import ADJECTIVE, ADVERB, NOUN, VERB

Weights = Mapping[str, Mapping[str, float]]
NAME, PARTS = "tagger", ("weights", "tagdict", "classes")
_NOTHING: Mapping[str, float] = {}
_START, _END = ("-START-", "-START2-"), ("-END-", "-END2-")


class Tagger:
    """Tags tokens from left to right, each with a look at the two tags before it.

    weights: of each tag, by feature. sure: the tags of words that have only one. tags: all tags.
    """

    def __init__(self, weights: Weights, sure: Mapping[str, str], tags: Collection[str]) -> None:
        self._weights, self._sure, self._none = weights, sure, dict.fromkeys(tags, 0.0)

    @classmethod
    def of(cls, parts: object) -> Tagger:
        """From what `read` gives. Raises `DataError` where it is damaged."""
        if not isinstance(parts, dict) or [type(parts.get(name)) for name in PARTS] != [dict, dict, list]:
            raise DataError("The weights of the tagger are damaged; lime-mlx data get chair brings them again.")
        return cls(*(parts[name] for name in PARTS))

    def tag(self, tokens: Sequence[str]) -> list[str]:
        """The Penn tag of each token; tokens: those of a whole text, in the case in which they stand there."""
        before, last = _START
        context = [*_START, *map(_plain, tokens), *_END]
        tags = []
        for index, token in enumerate(tokens):
            tag = self._sure.get(token) or self._best(_features(token, context[index : index + 5], before, last))
            tags.append(tag)
            before, last = tag, before
        return tags

    def _best(self, features: Iterator[str]) -> str:
        scores = self._none.copy()
        for feature in features:
            for tag, weight in self._weights.get(feature, _NOTHING).items():
                scores[tag] += weight
        best = max(scores.values())
        return max(tag for tag, score in scores.items() if score == best)


def part_of(tag: str) -> str:
    """The part of speech of a Penn tag, as the reference programs map it for WordNet; all others are nouns."""
    return {"J": ADJECTIVE, "V": VERB, "R": ADVERB}.get(tag[:1], NOUN)


def of_material(material: Material) -> Tagger | None:
    """The tagger that is kept with answers; None where there is none."""
    parts = material.get(NAME)
    return None if parts is None else Tagger.of(parts)


def material_of(path: Path | None) -> Material:
    """What `of_material` reads, from NLTK's zip; empty without one."""
    return {} if path is None else {NAME: read(path)}


def read(path: Path) -> dict[str, object]:
    """The parts of a tagger, as JSON, from NLTK's zip. Raises `DataError` where it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rsplit(".", 2)[-2]: name for name in archive.namelist() if name.endswith(".json")}
            return {part: json.loads(archive.read(names[part])) for part in PARTS}
    except (OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as the weights of a tagger ({error}): get it again.") from None


def _plain(token: str) -> str:
    """A token as the features know it: lower-case, and one word for all numbers, years and compounds."""
    if "-" in token and token[0] != "-":
        return "!HYPHEN"
    if token[:1].isdigit():
        return "!YEAR" if token.isdigit() and len(token) == 4 else "!DIGITS"
    return token.lower()


def _features(token: str, near: Sequence[str], before: str, last: str) -> Iterator[str]:
    """The features of a token. near: two plain tokens before it, itself, two behind. before, last: the tags before."""
    first, previous, word, following, second = near
    yield "bias"
    yield f"i suffix {token[-3:]}"
    yield f"i pref1 {token[:1]}"
    yield f"i-1 tag {before}"
    yield f"i-2 tag {last}"
    yield f"i tag+i-2 tag {before} {last}"
    yield f"i word {word}"
    yield f"i-1 tag+i word {before} {word}"
    yield f"i-1 word {previous}"
    yield f"i-1 suffix {previous[-3:]}"
    yield f"i-2 word {first}"
    yield f"i+1 word {following}"
    yield f"i+1 suffix {following[-3:]}"
    yield f"i+2 word {second}"
