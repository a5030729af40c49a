"""Words without support in the picture or the sound: which they are, and an answer without them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lime_mlx.explain import Word
from lime_mlx.lrp.support import Detector

# A noun with its article, and a list of such: "a dog, a cat and a ball".
ITEM = r"(?:(?:an?|the|some|no) )?[\w-]+"
LISTED = re.compile(rf"{ITEM}(?:, {ITEM})*(?:,? and {ITEM})")
BETWEEN = re.compile(r",? and |, ")


@dataclass(frozen=True)
class Verdict:
    """doubt: probability, 0 to 1, that the word has no support; of a model that was not calibrated, None.

    rank: 1 is the word of the answer with the least support. flagged: doubted at the detector's threshold.
    """

    word: Word
    rank: int
    doubt: float | None
    flagged: bool

    @property
    def text(self) -> str:
        return self.word.text.strip().strip(".,;:!?()\"'")


def judge(words: Sequence[Word], detector: Detector | None) -> list[Verdict | None]:
    """A verdict on each word that names something and whose evidence is known; None for the others."""
    known = [word for word in words if word.evidence is not None]
    if detector is None:
        doubts, order = [None] * len(known), [-word.evidence["positive"] for word in known]
    else:
        doubts = order = [detector.doubt(word.evidence) for word in known]
    ranks = 1 + np.argsort(np.argsort([-value for value in order], kind="stable"), kind="stable")
    verdicts = iter(
        Verdict(word, int(rank), doubt, doubt is not None and doubt >= detector.threshold)
        for word, rank, doubt in zip(known, ranks, doubts, strict=True)
    )
    return [None if word.evidence is None else next(verdicts) for word in words]


def drop(text: str, noun: str) -> str | None:
    """The text without a noun of a list such as "a dog, a cat and a ball"; None where no list would be left."""
    for found in LISTED.finditer(text):
        items = BETWEEN.split(found.group())
        kept = [item for item in items if item.split()[-1] != noun]
        if kept and len(kept) < len(items):
            listed = " and ".join(filter(None, (", ".join(kept[:-1]), kept[-1])))
            return text[: found.start()] + listed + text[found.end() :]
    return None
