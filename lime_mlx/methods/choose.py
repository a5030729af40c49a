"""Choosing words by their support: a word that is flagged, or named again, gives way to a better one.

For each content token the k best candidates are scored by log p + weight * log(1 - p_unsupported) - repeat * [named
before]. p_unsupported comes from relevance, from asking the model back whether the thing is there (`lime_mlx.asking`),
or from both, as the model was calibrated. Where the best candidate is still flagged, the answer goes back to the place
before the word where it could have taken another turn, and takes that.

The question without the answer so far is that of Self-Validation (arXiv 2601.22451), which asks about whole captions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.asking import completions, margins
from lime_mlx.errors import MethodError
from lime_mlx.models.base import Model
from lime_mlx.prompt import Noun, Place, Prompt
from lime_mlx.session import Session
from lime_mlx.spec import Range
from lime_mlx.support.content import APOSTROPHES
from lime_mlx.support.detector import Detector
from lime_mlx.support.grammars import GRAMMARS
from lime_mlx.support.statistics import from_logits, from_relevance, log_softmax

from .base import Forward, PlainDecoding, Prepared, Wrapper

# A candidate, and another turn of the answer, need at least this probability; a full stop may always be the turn.
LEAST = 1e-3
FULL_STOPS = (".", "\u3002")
SENTENCE_ENDS = ".!?\n"


@dataclass(frozen=True)
class Choose(Wrapper):
    """`choose:k=8,weight=12,repeat=6,threshold=...,back=6,ask=flagged`.

    k: how many candidates. weight: of the support of a word. repeat: what a noun costs that the sentence named before.
    threshold: words with this p_unsupported or more are flagged; None takes the detector's own, 0.5 without one. back:
    how often an answer may go back; 0 never does. ask: the model is asked about nouns of which relevance alone is not
    sure (flagged), about every noun (always) or never. A model that was not calibrated has only the question: the word
    is flagged where the model itself says no. In a language that we have no grammar of, no word is judged.
    """

    name = "choose"

    k: Annotated[int, Range(1)] = 8
    weight: Annotated[float, Range(0)] = 12.0
    repeat: Annotated[float, Range(0)] = 6.0
    threshold: Annotated[float, Range(0)] | None = None
    back: Annotated[int, Range(0)] = 6
    ask: Literal["never", "flagged", "always"] = "flagged"

    def notes(self, prompt: Prompt) -> list[str]:
        notes = super().notes(prompt)
        if prompt.language is not None and not prompt.language.judges:
            *names, last = (grammar.name for grammar in GRAMMARS)
            notes.append(
                f"Note: words are judged in {', '.join(names)} and {last} only; choose leaves this answer as it is."
            )
        return notes

    def prepare(self, model: Model) -> PreparedChoose:
        if self.k > model.language_model.config.vocab_size:
            raise MethodError(
                f"choose: k is {self.k:,}, but the vocabulary has {model.language_model.config.vocab_size:,} tokens."
            )
        detector = Detector.from_config(model.config)
        if detector is None and self.ask == "never":
            raise MethodError(
                "choose: ask=never needs a model that was calibrated: lime-mlx evaluate --calibrate; "
                "or let the model be asked."
            )
        return PreparedChoose(self.inner.prepare(model), self, detector)


@dataclass(frozen=True)
class Candidate:
    """A token that could come next. p_unsupported is 0 and repeated is False for one that is not judged."""

    token: int
    logp: float
    p_unsupported: float = 0.0
    repeated: bool = False


@dataclass
class Turns:
    """What `choose` remembers of an answer.

    banned: the tokens that are not taken at a position, counted from 0 in the answer; what is taken there names
    nothing. turns: whether another token could have been taken there, for each position. backs: how often the answer
    went back.
    """

    banned: dict[int, set[int]] = field(default_factory=dict)
    turns: list[bool] = field(default_factory=list)
    backs: int = 0

    def fork(self) -> Turns:
        return Turns({position: set(tokens) for position, tokens in self.banned.items()}, list(self.turns), self.backs)

    def truncate(self, count: int) -> None:
        self.banned = {position: tokens for position, tokens in self.banned.items() if position <= count}
        del self.turns[count:]


@dataclass(frozen=True)
class PreparedChoose(Prepared):
    """`choose` made ready for a model."""

    inner: Prepared
    options: Choose
    detector: Detector | None

    @property
    def threshold(self) -> float:
        if self.options.threshold is not None:
            return self.options.threshold
        return 0.5 if self.detector is None else self.detector.threshold_for(self.options.ask != "never")

    @property
    def caches(self) -> bool:
        return self.inner.caches

    def settled(self, session: Session) -> int:
        """What stands before the newest run of tokens that name nothing: back goes no further than to its start."""
        length = self.inner.settled(session)
        turns = session.state.get(self.options.name)
        if session.content is None or not isinstance(turns, Turns) or turns.backs >= self.options.back:
            return length
        return min(length, _run_start(session.generated, session.content))

    def step(self, session: Session) -> Forward:
        turns = session.state.setdefault(self.options.name, Turns())
        assert isinstance(turns, Turns)
        while True:
            forward = self._forward(session)
            banned = [*turns.banned.get(len(session.generated), ())]
            scores = session.scores(forward.logits)
            likeliest = int(mx.argmax(scores))
            possible = self._turns(session, scores, banned)
            if banned:
                scores = mx.where(mx.array(possible), scores, mx.finfo(mx.float32).min)
            logp = log_softmax(np.array(scores))
            picked = session.pick(scores)
            best = self._best(session, forward, logp, picked, likeliest)
            if (best.repeated or self._flagged(best)) and (position := self._turn(session, turns)) is not None:
                self._go_back(session, turns, position)
                continue
            possible[best.token] = False
            turns.turns.append(bool(possible.any()))
            relevance = None
            if session.want_relevance:
                kept = forward.relevance is not None and best.token == likeliest
                relevance = forward.relevance if kept else self._relevance(session, [best.token])[0]
            return replace(forward, relevance=relevance, token=best.token, optimised=best.token != picked)

    def _forward(self, session: Session) -> Forward:
        """The forward of the method inside, with the relevance of the likeliest token if that is to be judged."""
        language = session.prompt.language
        judging = session.judging
        session.judging = self.detector is not None and (language is None or language.judges)
        try:
            return self.inner.step(session)
        finally:
            session.judging = judging

    def _best(
        self, session: Session, forward: Forward, logp: NDArray[np.float64], picked: int, likeliest: int
    ) -> Candidate:
        """The picked token, or where that is flagged or named again, the best of the candidates."""
        place = self._place(session, picked)
        if place is None:
            return Candidate(picked, float(logp[picked]))
        known = None if forward.relevance is None or picked != likeliest else forward.relevance
        first = self._judged(session, forward, logp, [picked], place, known)[0]
        if not first.repeated and not self._flagged(first):
            return first
        tokens = [int(token) for token in np.argsort(-logp)[: self.options.k] if logp[token] >= math.log(LEAST)]
        rest = [token for token in tokens if token != picked]
        judged = [token for token in rest if session.may_judge(token)]
        others = [Candidate(token, float(logp[token])) for token in rest if token not in judged]
        candidates = [first, *self._judged(session, forward, logp, judged, place, None), *others]
        return max(candidates, key=self._score)

    def _score(self, candidate: Candidate) -> float:
        support = math.log(max(1 - candidate.p_unsupported, 1e-6))
        return candidate.logp + self.options.weight * support - self.options.repeat * candidate.repeated

    def _flagged(self, candidate: Candidate) -> bool:
        return candidate.p_unsupported >= self.threshold

    def _place(self, session: Session, token: int) -> Place | None:
        """The place in the answer, where the token begins the name of a thing that may be judged there."""
        language = session.prompt.language
        if not session.may_judge(token) or not session.modality.any():
            return None
        if language is None:
            return Place(False)
        before = language.text(session.generated)
        piece = language.text([*session.generated, token])[len(before) :]
        if piece[:1] in APOSTROPHES:
            before += piece[:1]
        if before and not piece[:1].isspace() and before[-1:].isalnum():
            return None
        return language.noun_place(before)

    def _judged(
        self,
        session: Session,
        forward: Forward,
        logp: NDArray[np.float64],
        tokens: list[int],
        place: Place,
        relevance: NDArray[np.float32] | None,
    ) -> list[Candidate]:
        """Candidates with their support; those that name nothing are not judged.

        relevance (T,): of the only token, where it is known.
        """
        names = self._names(session, tokens)
        naming = [token for token in tokens if names[token] or session.prompt.language is None]
        supports = self._supports(session, forward, naming, [place.noun(names[token]) for token in naming], relevance)
        said = set() if place.definite else self._said(session)
        return [
            Candidate(token, float(logp[token]), supports.get(token, 0.0), names[token].casefold() in said)
            for token in tokens
        ]

    def _supports(
        self,
        session: Session,
        forward: Forward,
        tokens: list[int],
        nouns: list[Noun],
        relevance: NDArray[np.float32] | None,
    ) -> dict[int, float]:
        """p_unsupported of each token, which begins the name of a thing."""
        if not tokens:
            return {}
        p_unsupported = [0.0] * len(tokens)
        detector = self.detector
        if detector is not None:
            rows = [relevance] if relevance is not None else self._relevance(session, tokens)
            logits = np.array(forward.logits)
            p_unsupported = [
                detector.p_unsupported(from_relevance(row, session.modality) | from_logits(logits, token))
                for row, token in zip(rows, tokens, strict=True)
            ]
        asked = [index for index, p in enumerate(p_unsupported) if self._asks(p)]
        for index, margin in zip(asked, margins(session, [nouns[index] for index in asked]), strict=True):
            if margin is not None:
                p = p_unsupported[index]
                p_unsupported[index] = _sigmoid(-margin) if detector is None else detector.asked(p, margin)
        return dict(zip(tokens, p_unsupported, strict=True))

    def _asks(self, p_unsupported: float) -> bool:
        """Whether the model is asked about a word."""
        if self.options.ask == "never":
            return False
        if self.detector is None or (self.detector.asking is not None and self.options.ask == "always"):
            return True
        return self.detector.asks(p_unsupported)

    def _names(self, session: Session, tokens: list[int]) -> dict[int, str]:
        """The name that each token begins; empty where it names nothing, and for a prompt that no processor made."""
        language = session.prompt.language
        if language is None:
            return dict.fromkeys(tokens, "")
        session.prefill(session.embeds.shape[1])
        words = completions(session, tokens)
        return {token: language.noun_phrase(language.text(word)) for token, word in zip(tokens, words, strict=True)}

    def _said(self, session: Session) -> set[str]:
        """The names of things in the sentence so far."""
        language, content = session.prompt.language, session.content
        if language is None or content is None:
            return set()
        said: set[str] = set()
        run: list[int] = []
        for token in [*session.generated, -1]:
            if token >= 0 and content[token]:
                run.append(token)
                continue
            if run:
                said.add(language.noun_phrase(language.text(run)).casefold())
                run = []
            if token >= 0 and any(end in language.text([token]) for end in SENTENCE_ENDS):
                said.clear()
        return said - {""}

    def _relevance(self, session: Session, tokens: list[int]) -> list[NDArray[np.float32]]:
        session.prefill()
        edits = self.inner.edits(session) if isinstance(self.inner, PlainDecoding) else None
        return list(np.array(session.relevance_of(tokens, edits=edits)))

    def _turns(self, session: Session, scores: mx.array, banned: list[int]) -> NDArray[np.bool_]:
        """(V,) bool: tokens that name nothing, are not banned, and are likely enough or end the sentence."""
        language = session.prompt.language
        if language is None:
            return np.zeros(scores.shape[0], dtype=bool)
        likely = log_softmax(np.array(scores)) >= math.log(LEAST)
        likely[[token for stop in FULL_STOPS for token in language.tokens(stop)]] = True
        likely[banned] = False
        possible: NDArray[np.bool_] = likely & ~language.content
        return possible

    def _turn(self, session: Session, turns: Turns) -> int | None:
        """The position of the newest run of tokens that name nothing at which another token is likely enough."""
        if session.content is None or turns.backs >= self.options.back:
            return None
        start = _run_start(session.generated, session.content)
        places = [position for position in range(start, len(session.generated)) if position > 0]
        possible = [position for position in places if turns.turns[position]]
        return possible[0] if possible else None

    def _go_back(self, session: Session, turns: Turns, position: int) -> None:
        taken = session.generated[position]
        session.rewind(len(session.generated) - position)
        turns.banned = {at: tokens for at, tokens in turns.banned.items() if at <= position}
        turns.banned.setdefault(position, set()).add(taken)
        turns.backs += 1


def _run_start(tokens: list[int], content: NDArray[np.bool_]) -> int:
    """Where the tokens at the end that name nothing begin."""
    start = len(tokens)
    while start > 0 and not content[tokens[start - 1]]:
        start -= 1
    return start


def _sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(value, -60, 60))))
