"""Choosing words by their support: a word that is flagged, or named again, gives way to a better one.

For each content token the k best candidates are scored by log p + weight * log(1 - p_unsupported) - repeat * [named
before]. p_unsupported comes from relevance, from asking the model back whether the thing is there (`lime_mlx.asking`),
or from both, as the model was calibrated. Where the best candidate is still flagged, the answer goes back to the place
before the word where it could have taken another turn, and takes that.

The question without the answer so far is that of Self-Validation (arXiv 2601.22451), which asks about whole captions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal
from warnings import warn

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.errors import MethodError, PromptError
from lime_mlx.models.base import Model
from lime_mlx.prompt import Noun, Place, Prompt
from lime_mlx.session import Session
from lime_mlx.spec import Range
from lime_mlx.support.detector import Detector
from lime_mlx.support.grammars import GRAMMARS
from lime_mlx.support.statistics import log_softmax

from .base import Forward, Prepared, Rejected, Wrapper
from .candidates import SENTENCE_ENDS, Candidate, Judge, relevance_of, support_penalty
from .yes_no import YesNo

# A candidate, and another turn of the answer, need at least this probability; a full stop may always be the turn.
LEAST = 1e-3
FULL_STOPS = (".", "\u3002")
# Of a model that was not calibrated: its denial must be clear, a margin of -2.9. At 0.5 it spoilt free answers.
CLEAR = 0.95


@dataclass(frozen=True)
class Choose(Wrapper):
    """`choose:k=8,weight=12,repeat=6,threshold=...,back=6,ask=flagged`.

    k: how many candidates. weight: of the support of a word. repeat: what a noun costs that the sentence named before.
    threshold: words with this p_unsupported or more are flagged; None takes the detector's own, 0.95 without one. back:
    how often an answer may go back; 0 never does. ask: the model is asked about every noun (always), about nouns of
    which relevance alone is not sure (flagged) or never. A model that was not calibrated has only the question: a word
    is flagged where the model itself clearly says no.
    """

    name = "choose"

    k: Annotated[int, Range(1)] = 8
    weight: Annotated[float, Range(0)] = 12.0
    repeat: Annotated[float, Range(0)] = 6.0
    threshold: Annotated[float, Range(0)] | None = None
    back: Annotated[int, Range(0)] = 6
    ask: Literal["always", "flagged", "never"] = "flagged"

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
        threshold = self.value(model, "threshold", CLEAR if detector is None else detector.threshold)
        if detector is not None and detector.asking is not None and self.ask == "always":
            detector = replace(detector, asking=replace(detector.asking, lowest=0.0))
        judge = Judge(detector, self.ask != "never", self.yes_threshold(model))
        return PreparedChoose(self.inner.prepare(model), self, float(threshold or 0.0), judge)

    def yes_threshold(self, model: Model) -> float:
        """The margin above which the model's answer counts as yes: as `yesno` has it for this model, else 0."""
        return float(YesNo().value(model, "threshold", 0.0) or 0.0)


@dataclass
class Turns:
    """What `choose` remembers of an answer, by positions counted from 0 in it.

    banned: the tokens that are not taken at a position; what is taken there names nothing. scores (V,): those by which
    the newest tokens that name nothing were picked. backs: how often the answer went back.
    """

    banned: dict[int, set[int]] = field(default_factory=dict)
    scores: dict[int, mx.array] = field(default_factory=dict)
    backs: int = 0

    def fork(self) -> Turns:
        banned = {position: set(tokens) for position, tokens in self.banned.items()}
        return Turns(banned, dict(self.scores), self.backs)

    def truncate(self, count: int) -> None:
        self.banned = {position: tokens for position, tokens in self.banned.items() if position <= count}
        self.scores = {position: scores for position, scores in self.scores.items() if position < count}


@dataclass(frozen=True)
class PreparedChoose(Prepared):
    """`choose` made ready for a model."""

    inner: Prepared
    options: Choose
    threshold: float
    judge: Judge

    @property
    def caches(self) -> bool:
        return self.inner.caches

    def settled(self, session: Session) -> int:
        """What stands before the newest run of tokens that name nothing: back goes no further than to its start."""
        settled, turns = self.inner.settled(session), self._turns(session)
        if session.content is None or turns.backs >= self.options.back or session.in_domain is False:
            return settled
        return min(settled, _run_start(session.generated, session.content))

    def step(self, session: Session) -> Forward:
        if session.in_domain is False:
            return self.inner.step(session)
        self._check(session)
        turns = self._turns(session)
        rejected: list[Rejected] = []
        while True:
            may_name = self.judge.may_name(session)
            forward = self._forward(session, may_name)
            scores, position = session.scores(forward.logits), len(session.generated)
            likeliest = int(mx.argmax(scores))
            if banned := turns.banned.get(position):
                scores = mx.where(
                    _possible(session, scores, banned, session.generated), scores, mx.finfo(mx.float32).min
                )
            picked = session.pick(scores)
            best = Candidate(picked, 0.0)
            place = self.judge.place(session, picked) if may_name else None
            if place is not None:
                known = forward.relevance if picked == likeliest else None
                best, wrong = self._best(session, forward, scores, picked, place, known)
                rejected += _rejected(session, wrong)
            last = _rejected(session, [best] if self._wrong(best) else [])
            if self._wrong(best) and self._go_back(session, turns):
                rejected += last
                continue
            self._remember(session, turns, scores, best.token)
            relevance = None
            if session.want_relevance:
                kept = forward.relevance if best.token == likeliest else None
                relevance = relevance_of(session, self.inner, [best.token])[0] if kept is None else kept
            return replace(
                forward,
                relevance=relevance,
                token=best.token,
                optimised=best.token != picked,
                rejected=tuple(dict.fromkeys(rejected)),
            )

    def _turns(self, session: Session) -> Turns:
        turns = session.state.setdefault(self.options.name, Turns())
        assert isinstance(turns, Turns)
        return turns

    def _check(self, session: Session) -> None:
        """Raise `MethodError` where the model is always to be asked, and cannot be; say so where that is no must."""
        if session.generated or self.options.ask == "never" or not session.modality.any():
            return
        if self.options.ask != "always":
            if session.prompt.language is None:
                warn("choose cannot ask about token ids that no processor made: it uses relevance alone.", stacklevel=2)
            return
        if session.prompt.language is None:
            raise MethodError("choose: ask=always needs a prompt that a processor made, not token ids alone.")
        try:
            session.prompt.language.question(Noun("thing"))
        except PromptError as error:
            raise MethodError(f"choose: ask=always does not work here: {error}") from error

    def _forward(self, session: Session, may_name: bool) -> Forward:
        """The forward of the method inside, with the relevance of the likeliest token if that is to be judged."""
        judging = session.judging
        session.judging = session.greedy and may_name and self.judge.detector is not None
        try:
            return self.inner.step(session)
        finally:
            session.judging = judging

    def _best(
        self,
        session: Session,
        forward: Forward,
        scores: mx.array,
        picked: int,
        place: Place,
        relevance: NDArray[np.float32] | None,
    ) -> tuple[Candidate, list[Candidate]]:
        """The picked token, or where that is flagged or named again, the best of the candidates; and the wrong ones."""
        logp = log_softmax(np.array(scores))
        first = Candidate(picked, float(logp[picked]))
        (first,) = self.judge.judged(session, self.inner, forward, [first], place, relevance)
        if not self._wrong(first):
            return first, []
        best = np.argsort(-logp)[: self.options.k]
        rest = [Candidate(int(token), float(logp[token])) for token in best if token != picked]
        rest = [candidate for candidate in rest if candidate.logp >= math.log(LEAST)]
        begins = [candidate for candidate in rest if self._may_replace(session, candidate.token)]
        judged = self.judge.judged(session, self.inner, forward, begins, place)
        # A word of the question is no better word: beside those that are judged stand tokens that name nothing.
        content = session.content
        others = [candidate for candidate in rest if content is not None and not content[candidate.token]]
        taken = max([first, *judged, *others], key=self._score)
        return taken, [each for each in (first, *judged) if each is not taken and self._wrong(each)]

    def _may_replace(self, session: Session, token: int) -> bool:
        return self.judge.place(session, token) is not None and self.judge.agrees(session, token)

    def _score(self, candidate: Candidate) -> float:
        support = self.options.weight * support_penalty(candidate)
        return candidate.logp + support - self.options.repeat * candidate.repeated

    def _wrong(self, candidate: Candidate) -> bool:
        """Whether a token is flagged, or names a thing again."""
        return candidate.repeated or candidate.p_unsupported >= self.threshold

    def _go_back(self, session: Session, turns: Turns) -> bool:
        """Go back to the last place where the answer could have taken another turn; False where there is none."""
        if session.content is None or turns.backs >= self.options.back:
            return False
        generated = session.generated
        for position in range(max(1, _run_start(generated, session.content)), len(generated)):
            banned = turns.banned.get(position, set()) | {generated[position]}
            if position not in turns.scores:
                continue
            if bool(_possible(session, turns.scores[position], banned, generated[:position]).any()):
                session.rewind(len(generated) - position)
                turns.banned[position] = banned
                turns.backs += 1
                return True
        return False

    def _remember(self, session: Session, turns: Turns, scores: mx.array, token: int) -> None:
        """Keep the scores of a token that names nothing, until one comes that does."""
        if session.content is None or session.content[token]:
            turns.scores = {}
        elif turns.backs < self.options.back:
            turns.scores[len(session.generated)] = scores


def _rejected(session: Session, candidates: Sequence[Candidate]) -> list[Rejected]:
    """Candidates that are not taken, as words."""
    language = session.prompt.language
    if language is None:
        return []
    return [
        Rejected(each.name or language.text([each.token]).strip(), each.p_unsupported, each.repeated)
        for each in candidates
    ]


def _possible(session: Session, scores: mx.array, banned: set[int], before: list[int]) -> mx.array:
    """(V,) bool: tokens that name nothing, are not banned, and are likely enough or end the sentence, or the answer.

    before: the answer in front of them. A sentence ends once it has named something, the answer behind a full stop.
    """
    language = session.prompt.language
    assert language is not None
    likely = log_softmax(np.array(scores)) >= math.log(LEAST)
    stops = {token for stop in FULL_STOPS for token in language.tokens(stop)}
    sentence = re.split(f"[{SENTENCE_ENDS}]", language.text(before))[-1].split()
    if stops & banned or not sentence:
        likely[list(stops)] = False
    elif any(language.noun_phrase(word) for word in sentence):
        likely[list(stops)] = True
    likely[list(language.ends)] |= not sentence
    likely[list(banned)] = False
    return mx.array(likely & ~language.content)


def _run_start(tokens: list[int], content: NDArray[np.bool_]) -> int:
    """Where the tokens at the end that name nothing begin."""
    start = len(tokens)
    while start > 0 and not content[tokens[start - 1]]:
        start -= 1
    return start
