"""Self-Validation, best of N: of several sampled captions the one whose things the model names by itself, too.

Liu et al. 2026, arXiv 2601.22451; the authors' code was read, too. N captions are sampled. Each thing that one of them
names is verified without the text before it: the model is asked to name any one thing, and the probability of this
name, as its whole answer's beginning, is the thing's confidence. The caption with the highest mean confidence is given.
Ours: the wording of the request, the nouns by their place in the sentence instead of a list of COCO's words, and
`ask=question`, by which the model is asked whether the thing is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import mlx.core as mx
import numpy as np

from lime_mlx.asking import continued, margins
from lime_mlx.errors import MethodError, NumericalError
from lime_mlx.models.base import Model
from lime_mlx.prompt import NOUNS, Language, Noun
from lime_mlx.session import Session
from lime_mlx.spec import Range
from lime_mlx.stopping import loops

from .base import Forward, Prepared, Wrapper, needs_media

REQUEST = "Name any one thing in the {where}, with one word or phrase."
# So many texts go into one batch.
BATCH = 32


@dataclass(frozen=True)
class SelfValidation(Wrapper):
    """`selfval:samples=5,temperature=0.5,ask=word,limit=256,seed=0`: the best of `samples` captions.

    ask: a thing's confidence is the probability that the model names it when asked for any one thing (word), or that
    it says yes when asked whether the thing is there (question). limit: tokens of a caption.
    """

    name = "selfval"

    samples: Annotated[int, Range(1)] = 5
    temperature: Annotated[float, Range(0, exclusive=True)] = 0.5
    ask: Literal["word", "question"] = "word"
    limit: Annotated[int, Range(1)] = 256
    seed: Annotated[int, Range(0)] = 0

    def prepare(self, model: Model) -> BestOfN:
        return BestOfN(self, self.inner.prepare(model))


@dataclass(frozen=True)
class Plan:
    """The caption that was chosen, as tokens with the one that ends it."""

    tokens: tuple[int, ...]

    def fork(self) -> Plan:
        return self

    def truncate(self, count: int) -> None:
        """The plan stays: the same captions would be sampled."""


@dataclass(frozen=True)
class BestOfN(Prepared):
    """Self-Validation made ready for a model."""

    options: SelfValidation
    inner: Prepared

    @property
    def caches(self) -> bool:
        return self.inner.caches

    def step(self, session: Session) -> Forward:
        plan = session.state.get(self.options.name)
        if not isinstance(plan, Plan):
            plan = session.state[self.options.name] = self._plan(session)
        said = len(session.generated)
        if tuple(session.generated) != plan.tokens[:said] or said == len(plan.tokens):
            return self.inner.step(session)
        token = plan.tokens[said]
        with session.blending(lambda logits: mx.where(mx.arange(len(logits)) == token, logits, _never(logits))):
            forward = self.inner.step(session)
        return replace(forward, token=token)

    def _plan(self, session: Session) -> Plan:
        needs_media(self.options.name, session)
        language = session.prompt.language
        if language is None:
            raise MethodError("selfval needs a prompt that a processor made, which can ask about the same picture.")
        session.prefill()
        captions = [self._caption(session, language, number) for number in range(self.options.samples)]
        named = [language.nouns(language.text(caption)) for caption in captions]
        known = self._confidences(session, language, sorted({noun for part in named for noun in part}))
        means = [float(np.mean([known[noun] for noun in part])) if part else 1.0 for part in named]
        if not np.isfinite(means).all():
            raise NumericalError("selfval: the confidence in a caption is not finite.")
        return Plan(tuple(captions[int(np.argmax(means))]))

    def _caption(self, session: Session, language: Language, number: int) -> list[int]:
        """The tokens of an answer, sampled from what is there."""
        branch = session.fork()
        branch.want_relevance = branch.judging = False
        context = session.model.context
        room = self.options.limit if context is None else min(self.options.limit, context - len(session.tokens))
        keys = mx.random.split(mx.random.key(self.options.seed * self.options.samples + number), max(room, 1))
        while True:
            scores = branch.scores(self.inner.step(branch).logits) / self.options.temperature
            if not mx.isfinite(scores).all().item():
                raise NumericalError("selfval: the scores of a caption are not finite.")
            token = int(mx.random.categorical(scores, key=keys[len(branch.generated) - len(session.generated)]))
            if token in language.ends:
                return [*branch.generated, token]
            branch.append(token)
            if len(branch.generated) - len(session.generated) >= room or loops(branch.generated):
                return branch.generated

    def _confidences(self, session: Session, language: Language, things: Sequence[Noun]) -> dict[Noun, float]:
        """How sure the model is of each thing, 0 to 1; 1 of one that cannot be asked about."""
        if self.options.ask == "question":
            asked = margins(session, things)
            return {
                thing: 1.0 if margin is None else float(1 / (1 + np.exp(-np.clip(margin, -60, 60))))
                for thing, margin in zip(things, asked, strict=True)
            }
        where = " or the ".join(NOUNS[kind][0] for kind in session.modalities if session.modalities[kind].any())
        names = {thing: list(language.encode(thing.text.capitalize())) for thing in things}
        found = named_first(session, language, REQUEST.format(where=where), list(names.values()))
        return dict(zip(names, found, strict=True))


def named_first(session: Session, language: Language, request: str, names: Sequence[Sequence[int]]) -> list[float]:
    """The probability that the answer to a request about the same media begins with each of the names' tokens."""
    prompt, shared = language.sibling(request)
    asked = session if shared else session.beside(prompt)
    shared = shared or len(prompt) - 1
    asked.prefill(max(shared, asked.cache.offset))
    tail = prompt.input_ids[shared:].tolist()
    rows = [(index, count) for index, name in enumerate(names) for count in range(len(name))]
    found = np.ones(len(names))
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        logits = continued(asked, shared, [[*tail, *names[index][:count]] for index, count in part])
        logp = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        for row, (index, count) in zip(logp, part, strict=True):
            found[index] *= np.exp(row[names[index][count]])
    return [float(p) for p in found]


def _never(logits: mx.array) -> float:
    return float(mx.finfo(logits.dtype).min)
