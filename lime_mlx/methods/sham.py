"""Sham controls: what shifts, cuts and shorter answers reach by themselves, without a look at the picture.

They are no methods against hallucination. A method that gains no more than its control gains it by the same means.
arXiv 2504.10020 shows how much of the gain of contrastive decoding on yes/no questions is a shift towards one answer
and the plausibility cut; FLB's own ablation (arXiv 2604.00455) boosts the word "the" alone, with which the captions of
its models begin ("a" is the one for models whose captions begin with that); and the hallucinations of a caption grow
with its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import mlx.core as mx

from lime_mlx.errors import MethodError
from lime_mlx.models.base import Model
from lime_mlx.prompt import Language
from lime_mlx.session import Session
from lime_mlx.spec import Range

from .base import Forward, Prepared, Rescoring, nan_unless_finite, rescored
from .contrastive import plausible

SENTENCE_ENDS, PAUSES = (".", "!", "?"), (",", ";", ":")


@dataclass(frozen=True)
class Sham(Rescoring):
    """`sham:yes=1`, `sham:no=1`, `sham:the=1`, `sham:a=1`, `sham:beta=0.1`, `sham:length=20`, or several of them.

    yes, no, the, a: what is added to the logits of every token that says this word, in any case. beta: the plausibility
    cut, tokens of at least beta times the largest probability. length: the answer ends at the first comma or end of a
    sentence behind so many tokens.
    """

    name = "sham"

    yes: Annotated[float, Range(0)] | None = None
    no: Annotated[float, Range(0)] | None = None
    the: Annotated[float, Range(0)] | None = None
    a: Annotated[float, Range(0)] | None = None
    beta: Annotated[float, Range(0, 1)] | None = None
    length: Annotated[int, Range(1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shifts and self.beta is None and self.length is None:
            raise MethodError("sham needs one of its options yes, no, the, a, beta, length, as in sham:the=1.")

    def prepare(self, model: Model) -> Control:
        return Control(self, self.inner.prepare(model))

    @property
    def shifts(self) -> dict[str, float]:
        """What is added to the logits of each word."""
        given = {"yes": self.yes, "no": self.no, "the": self.the, "a": self.a}
        return {word: amount for word, amount in given.items() if amount is not None}


@dataclass(frozen=True)
class Control(Prepared):
    """A sham control made ready for a model."""

    options: Sham
    inner: Prepared

    @property
    def caches(self) -> bool:
        return self.inner.caches

    def step(self, session: Session) -> Forward:
        return rescored(self.inner, session, lambda logits: self._changed(logits, session))

    def _changed(self, logits: mx.array, session: Session) -> mx.array:
        options, scores = self.options, logits
        for word, amount in options.shifts.items():
            scores = mx.where(_says(word, session, len(logits)), scores + amount, scores)
        if options.beta is not None:
            scores = plausible(scores, logits, options.beta)
        if options.length is not None and len(session.generated) >= options.length:
            scores = nan_unless_finite(self._ended(scores, session), scores)
        return scores

    def _ended(self, scores: mx.array, session: Session) -> mx.array:
        """Only the end behind a sentence; elsewhere a pause is one."""
        language, never = _language("length", session), mx.finfo(scores.dtype).min
        ends = _mask(sorted(language.ends), len(scores))
        if session.generated[-1] in _tokens(language, SENTENCE_ENDS):
            return mx.where(ends, scores, never)
        pauses = _mask(_tokens(language, PAUSES), len(scores))
        best = mx.where(pauses | ends, scores, never).max()
        return mx.where(ends, best, mx.where(pauses, never, scores))


def _language(option: str, session: Session) -> Language:
    language = session.prompt.language
    if language is None:
        raise MethodError(f"sham: {option} needs a prompt that a processor made, which knows its words.")
    return language


def _says(word: str, session: Session, size: int) -> mx.array:
    """(V,) bool: the tokens that say a word."""
    tokens = _language(word, session).tokens(word)
    if not tokens:
        raise MethodError(f"sham: {word} has no token of its own in this model; leave the option out.")
    return _mask(tokens, size)


def _tokens(language: Language, words: Sequence[str]) -> list[int]:
    return [token for word in words for token in language.tokens(word)]


def _mask(tokens: Sequence[int], size: int) -> mx.array:
    """(V,) bool, True for the tokens."""
    chosen = mx.zeros(size, mx.bool_)
    return chosen.at[mx.array(list(tokens))].add(True) if tokens else chosen
