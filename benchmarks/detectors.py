"""The detectors that detection_study.py compares: what is measured before a word, and the columns made of it.

A probe is a function of the moment before a word: its session, the word's first token, and the relevance of this token.
It returns numbers by name. A column is a logistic regression on some of these numbers. To compare another detector, add
a probe to `PROBES` and a column to `COLUMNS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from lime_mlx.asking import completions, margins
from lime_mlx.lrp.relevance import RelevanceResult
from lime_mlx.probes.blank import contrast
from lime_mlx.probes.published import attention_signals, observed
from lime_mlx.prompt import Noun, Place
from lime_mlx.session import Session
from lime_mlx.support.statistics import from_logits, from_relevance

Numbers = dict[str, float | list[list[float]]]


@dataclass
class Moment:
    """The moment before a word of a caption.

    session: its newest position gives the word's first token, and its cache lacks this position. token: that token.
    word: the object that is named. blank: the same caption about a blank input, as far as it was needed.
    """

    session: Session
    token: int
    word: str
    blank: Session
    logits: np.ndarray | None = field(default=None, repr=False)
    result: RelevanceResult | None = field(default=None, repr=False)

    def relevance(self) -> RelevanceResult:
        """The relevance of the token, computed once."""
        if self.result is None:
            self.result = self.session.relevance(target=self.token)
            mx.eval(self.result.logits, self.result.relevance)
        return self.result


class Probe(NamedTuple):
    """What is measured, and how many forwards and backwards of the newest position that takes beyond the plain step."""

    measure: Callable[[Moment], Numbers]
    forwards: str
    backwards: int = 0


class Column(NamedTuple):
    """The numbers that a detector is fitted on, and the probes that give them. both: the margin is added to it."""

    features: tuple[str, ...]
    probes: tuple[str, ...]
    both: bool = False


def plain(moment: Moment) -> Numbers:
    moment.logits = np.array(moment.session.extend())
    return {**from_logits(moment.logits, moment.token), "position": float(len(moment.session.generated))}


def relevance(moment: Moment) -> Numbers:
    result = moment.relevance()
    return {**from_relevance(np.array(result.relevance), moment.session.modality)}


def attention(moment: Moment) -> Numbers:
    session = moment.session
    step = observed(session)
    signals = attention_signals(step.attention, session.modality, session.model.spans(session.prompt))
    return {**signals, "hidden": [[round(float(x), 4) for x in layer] for layer in step.hidden]}


def blank(moment: Moment) -> Numbers:
    """The contrast with a blank input, which the answer so far is given to, too."""
    for token in moment.session.generated[len(moment.blank.generated) :]:
        moment.blank.append(token)
    without = np.array(moment.blank.extend())
    assert moment.logits is not None, "the plain step comes first"
    return {"contrast": contrast(moment.logits, without, moment.token)}


def asking(moment: Moment) -> Numbers:
    """The margin of yes over no, as `choose` asks: the name is completed greedily, and read without the answer."""
    session, language = moment.session, moment.session.prompt.language
    assert language is not None
    session.prefill(session.embeds.shape[1])
    place = language.noun_place(language.text(session.generated)) or Place(True)
    name = language.noun_phrase(language.text(completions(session, [moment.token])[0])) or moment.word
    (margin,) = margins(session, [Noun(name, place.article, place.determiner)])
    assert margin is not None, "the demos can be asked"
    return {"yes": margin}


PLAIN = "plain"  # the step that decoding makes anyway, to compare the others with
PROBES: Mapping[str, Probe] = {
    PLAIN: Probe(plain, "0"),
    "relevance": Probe(relevance, "0", 1),
    "asking": Probe(asking, "1 to 2, of a question"),
    "attention": Probe(attention, "0"),
    "blank": Probe(blank, "1, and a prefill"),
}
RELEVANCE = ("share", "positive", "peak", "certainty")
HIDDEN = "linear probe on hidden states"
COLUMNS: Mapping[str, Column] = {
    "relevance and asking back": Column(RELEVANCE, ("relevance", "asking"), both=True),
    "asking back": Column(("yes",), ("asking",)),
    "relevance: four statistics": Column(RELEVANCE, ("relevance",)),
    "relevance: positive": Column(("positive",), ("relevance",)),
    "relevance: signed sum": Column(("signed",), ("relevance",)),
    "relevance: share": Column(("share",), ("relevance",)),
    "relevance: peak": Column(("peak",), ("relevance",)),
    "position in the answer": Column(("position",), ()),
    "probability": Column(("logp",), ()),
    "entropy": Column(("certainty",), ()),
    "contrast with blank": Column(("contrast",), ("blank",)),
    "SVAR": Column(("svar",), ("attention",)),
    "PAS": Column(("pas",), ("attention",)),
    "attention entropy": Column(("entropy",), ("attention",)),
    "attention dispersion": Column(("dispersion",), ("attention",)),
    "attention, last layer": Column(("last",), ("attention",)),
    HIDDEN: Column(("hidden",), ("attention",)),
}
