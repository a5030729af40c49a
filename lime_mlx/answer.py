"""A whole answer and the responses that it comes in, with the statistics of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from lime_mlx.lrp.relevance import Shares
from lime_mlx.models.base import Model
from lime_mlx.prompt import NOUNS, Prompt
from lime_mlx.render.html import words_html
from lime_mlx.support.detector import Detector
from lime_mlx.support.domain import Domain
from lime_mlx.words import Token, Word, ranked, words


@dataclass(frozen=True)
class Cost:
    """What a method costs beside plain decoding: time per token as a ratio, and bytes at the peak."""

    ratio: float
    extra_bytes: int


@dataclass(kw_only=True)
class Statistics:
    """Statistics of a run, under mlx-lm's names: tps in tokens per second, peak_memory in GB.

    cached_tokens: how many tokens of the prompt were kept from earlier prompts, see `lime_mlx.prefixes`.
    finish_reason: "stop", "length", "loop" for an answer that repeated itself, None while it goes on. cost: where it
    was measured. calibrated_for_input: whether the input is like those that the model was calibrated on, as
    `Session.in_domain` says; None where nothing can be said. numerical_faults: the tokens at which values of the
    method, or the relevance, were not finite: they were decoded plainly, or have no shares.
    """

    prompt_tokens: int = 0
    cached_tokens: int = field(default=0, compare=False)
    prompt_tps: float = field(default=0.0, compare=False)
    generation_tokens: int = 0
    generation_tps: float = field(default=0.0, compare=False)
    peak_memory: float = field(default=0.0, compare=False)
    finish_reason: str | None = None
    cost: Cost | None = field(default=None, compare=False)
    calibrated_for_input: bool | None = field(default=None, compare=False)
    numerical_faults: int = 0


@dataclass(kw_only=True)
class Response(Token, Statistics):
    """One token of an answer with what it added to the text, and the statistics so far.

    shares, relevance, statistics: see `lime_mlx.words.Token`. optimised: the method changed this token's distribution.
    logprobs (V,): the method's log-probabilities of this place, before sampling, where they were asked for. questions:
    how often the model was asked back so far.
    """

    optimised: bool = False
    logprobs: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    questions: int = field(default=0, compare=False)

    @property
    def reliance(self) -> float | None:
        """Share of the relevance that came from the picture or sound, 0 to 1."""
        return None if self.shares is None else self.shares.reliance


@dataclass(kw_only=True, repr=False)
class Answer(Statistics):
    """A whole answer: its text and words; `tokens`, `pieces`, `shares`, `relevance` have an entry for each token.

    Two answers are equal when their text, tokens, words and shares are; times and memory do not count.
    """

    text: str = ""
    words: list[Word] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    shares: list[Shares | None] = field(default_factory=list)
    relevance: list[NDArray[np.float32] | None] = field(default_factory=list, compare=False)
    notices: list[str] = field(default_factory=list, compare=False)

    @property
    def reliance(self) -> list[float | None]:
        """For each token the share of the relevance that came from the picture or sound, 0 to 1."""
        return [None if share is None else share.reliance for share in self.shares]

    def to_dict(self) -> dict[str, object]:
        """What `--json` prints: format 2."""
        return {
            "format": 2,
            "text": self.text,
            "words": [word.to_dict() for word in self.words],
            "tokens": self.tokens,
            "reliance": self.reliance,
            "calibrated_for_input": self.calibrated_for_input,
            "finish_reason": self.finish_reason,
            "numerical_faults": self.numerical_faults,
            "prompt_tokens": self.prompt_tokens,
            "prompt_tps": self.prompt_tps,
            "generation_tokens": self.generation_tokens,
            "generation_tps": self.generation_tps,
            "peak_memory": self.peak_memory,
            "cost": self.cost and {"ratio": self.cost.ratio, "extra_bytes": self.cost.extra_bytes},
        }

    def __repr__(self) -> str:
        flagged = [word.name for word in self.words if word.flagged]
        shown = f", flagged: {', '.join(flagged)}" if flagged else ""
        return f"<Answer {self.text!r}, {len(self.tokens)} tokens, {self.finish_reason}{shown}>"

    def _repr_html_(self) -> str:
        return words_html(self.words, self.text)


def collect(responses: Iterable[Response], model: Model, prompt: Prompt) -> Answer:
    """The answer that responses to a prompt add up to, with its words."""
    kept = list(responses)
    parts = [response for response in kept if not response.ends]
    last = {entry.name: getattr(kept[-1], entry.name) for entry in fields(Statistics)} if kept else {}
    judged = not kept or kept[-1].calibrated_for_input is not False
    detector = Detector.from_config(model.config) if judged else None
    note = None if judged else domain_note(model, prompt)
    return Answer(
        **last,
        notices=[note] if note else [],
        text="".join(response.text for response in kept).lstrip(),
        words=ranked(list(words(kept, detector, model.spans(prompt)))),
        tokens=[response.token for response in parts],
        pieces=[response.text for response in parts],
        shares=[response.shares for response in parts],
        relevance=[response.relevance for response in parts],
    )


def domain_note(model: Model, prompt: Prompt) -> str | None:
    """What the reader should know of an answer about an input that is not like those of the calibration."""
    domain = Domain.from_config(model.config)
    if domain is None:
        return None
    kinds = {span.kind for span in model.spans(prompt)}
    return domain.note(" or ".join(NOUNS[kind][0] for kind in sorted(kinds)))
