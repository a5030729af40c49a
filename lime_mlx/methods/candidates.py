"""The words that could come next, each with its support: by relevance, by asking the model back, or by both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lime_mlx.asking import completions, margins
from lime_mlx.errors import NumericalError
from lime_mlx.prompt import Place
from lime_mlx.session import Session
from lime_mlx.support.content import APOSTROPHES
from lime_mlx.support.detector import Detector
from lime_mlx.support.statistics import from_logits, from_relevance

from .base import Forward, PlainDecoding, Prepared

SENTENCE_ENDS = ".!?\n"
# Log-odds at which a probability counts as 0 or 1.
CERTAIN = 1e-6


@dataclass(frozen=True)
class Candidate:
    """A token that could come next. p_unsupported is 0 and repeated is False for one that is not judged.

    logp: natural logarithm of its probability. repeated: the sentence named the thing before. name: the one that it
    begins, where that was worked out.
    """

    token: int
    logp: float
    p_unsupported: float = 0.0
    repeated: bool = False
    name: str = ""


@dataclass(frozen=True)
class Judge:
    """Gives candidates their support.

    detector: None for a model that was not calibrated, which only has its own answer. asking: the model may be asked.
    yes: the margin above which an answer is yes for a model without detector.
    """

    detector: Detector | None
    asking: bool
    yes: float = 0.0

    def may_name(self, session: Session) -> bool:
        """Whether the name of a thing may begin at the end of the answer so far."""
        language = session.prompt.language
        if language is None or not session.modality.any():
            return bool(session.modality.any())
        before = language.text(session.generated)
        return any(language.noun_place(before + end) is not None for end in ("", "'"))

    def place(self, session: Session, token: int) -> Place | None:
        """The place at the end of the answer so far, where a token begins the name of a thing that may be judged."""
        language = session.prompt.language
        if language is None:
            return Place(False)
        if not session.may_judge(token):
            return None
        before = language.text(session.generated)
        piece = language.text([*session.generated, token])[len(before) :]
        if piece[:1] in APOSTROPHES:
            before += piece[:1]
        elif before[-1:].isalnum() and not piece[:1].isspace():
            return None
        return language.noun_place(before)

    def agrees(self, session: Session, token: int) -> bool:
        """Whether a token that begins a name may stand behind the answer so far: not "umbrella" behind "a"."""
        language = session.prompt.language
        if language is None:
            return True
        before = language.text(session.generated)
        return language.agrees(before, language.text([*session.generated, token])[len(before) :])

    def judged(
        self,
        session: Session,
        inner: Prepared,
        forward: Forward,
        candidates: list[Candidate],
        place: Place,
        relevance: NDArray[np.float32] | None = None,
    ) -> list[Candidate]:
        """Candidates that begin a word, with their support. relevance (T,): of the only one, where it is known."""
        if not candidates:
            return []
        tokens = [candidate.token for candidate in candidates]
        statistics: list[dict[str, float]] = [{} for _ in tokens]
        if self.detector is not None:
            rows = relevance_of(session, inner, tokens) if relevance is None else [relevance]
            logits = np.array(forward.logits)
            statistics = [
                from_relevance(row, session.modality) | from_logits(logits, token)
                for row, token in zip(rows, tokens, strict=True)
            ]
        again = set() if place.definite or place.opening else set(tokens) & set(session.generated)
        asked = [index for index, values in enumerate(statistics) if self._asks(values)]
        named = sorted({*asked, *(index for index, token in enumerate(tokens) if token in again)})
        names = dict(zip(named, self._names(session, [tokens[index] for index in named]), strict=True))
        asked = [index for index in asked if names[index]]
        for index, margin in zip(asked, margins(session, [place.noun(names[index]) for index in asked]), strict=True):
            statistics[index] |= {} if margin is None else {"margin": margin}
        if not np.isfinite([value for values in statistics for value in values.values()]).all():
            raise NumericalError("choose: the support of a word is not finite.")
        said = _said(session) if again else set()
        return [
            Candidate(
                candidate.token,
                candidate.logp,
                self._p_unsupported(statistics[index]) if names.get(index, "named") else 0.0,
                names.get(index, "").casefold() in said,
                names.get(index, ""),
            )
            for index, candidate in enumerate(candidates)
        ]

    def _p_unsupported(self, statistics: dict[str, float]) -> float:
        if self.detector is not None:
            return self.detector.p_unsupported(statistics)
        margin = statistics.get("margin", math.inf)
        return float(1 / (1 + np.exp(np.clip(margin - self.yes, -60, 60))))

    def _asks(self, statistics: dict[str, float]) -> bool:
        """Whether the model is asked about a word with these statistics."""
        return self.asking and (self.detector is None or self.detector.asks(statistics))

    def _names(self, session: Session, tokens: list[int]) -> list[str]:
        """The names that the tokens begin; empty for a prompt that no processor made."""
        language = session.prompt.language
        if language is None or not tokens:
            return [""] * len(tokens)
        session.prefill(session.embeds.shape[1])
        return [language.noun_phrase(language.text(word)) for word in completions(session, tokens)]


def relevance_of(session: Session, inner: Prepared, tokens: list[int]) -> list[NDArray[np.float32]]:
    """Relevance (T,) of each of the tokens, under the attention that the method inside gives."""
    session.prefill()
    edits = inner.edits(session) if isinstance(inner, PlainDecoding) else None
    return list(np.array(session.relevance_of(tokens, edits=edits)))


def support_penalty(candidate: Candidate) -> float:
    """log(1 - p_unsupported), at least log(CERTAIN)."""
    return math.log(max(1 - candidate.p_unsupported, CERTAIN))


def _said(session: Session) -> set[str]:
    """The names of things in the sentence so far, without case."""
    language = session.prompt.language
    if language is None:
        return set()
    said: set[str] = set()
    run: list[int] = []
    for token in session.generated:
        if language.content[token]:
            run.append(token)
            continue
        said.add(language.noun_phrase(language.text(run)).casefold())
        run = []
        if any(end in language.text([token]) for end in SENTENCE_ENDS):
            said.clear()
    return (said | {language.noun_phrase(language.text(run)).casefold()}) - {""}
