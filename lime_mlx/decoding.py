"""The decoding loop: token by token, with any method, without a tokenizer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.ahead import tokens_ahead
from lime_mlx.cache_file import open_with_file
from lime_mlx.errors import NumericalError, PromptError
from lime_mlx.exclusive import each_exclusive, exclusive
from lime_mlx.kv import DEFAULT, KVOptions
from lime_mlx.lrp.relevance import Shares, shares
from lime_mlx.methods import Choose, Forward, Method, parse_method
from lime_mlx.methods.base import PlainDecoding, Rejected
from lime_mlx.methods.guard import Guarded
from lime_mlx.models.base import Model
from lime_mlx.prefixes import Prefixes
from lime_mlx.prompt import Prompt
from lime_mlx.sampling import Sampler, check
from lime_mlx.session import LogitsProcessor, Pick, Session
from lime_mlx.support.detector import Detector


@dataclass
class Step:
    """One decoded token.

    scores: its logits (V,) on the device, before processors and sampling, of which `logits` makes an array. shares and
    relevance (T,) float32 where computed; trace: what the method recorded, {} where it optimised nothing; rejected: the
    words that it did not take in its place. fault: what was not finite, where the token was decoded plainly for that
    reason, or has no relevance.
    """

    token: int
    scores: mx.array = field(compare=False, repr=False)
    shares: Shares | None = None
    relevance: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    trace: dict[str, NDArray[np.float32]] = field(default_factory=dict, compare=False, repr=False)
    optimised: bool = False
    rejected: tuple[Rejected, ...] = field(default=(), compare=False, repr=False)
    fault: str | None = None

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """(V,) float32, before processors and sampling."""
        return np.array(self.scores)

    @property
    def reliance(self) -> float | None:
        """Share of the relevance that came from the picture or sound, 0 to 1."""
        return None if self.shares is None else self.shares.reliance


def resolve_method(method: str | Method | None, prompt: Prompt, model: Model) -> Method:
    """The method that is meant. None is `choose`, where words can be judged, and else `none`.

    Words can be judged by the detector of a model that was calibrated, and by asking the model back, for which a
    processor must have made the prompt. In a prompt of text alone there is nothing to judge them by.
    """
    if method is not None:
        return parse_method(method)
    can_judge = prompt.language is not None or Detector.from_config(model.config) is not None
    return parse_method("choose" if can_judge and (prompt.media or prompt.spans) else "none")


def calibration_note(method: Method, prompt: Prompt, model: Model) -> Iterator[str]:
    """Says what calibrating the model would change, where the method would use it."""
    if isinstance(method, Choose) and (prompt.media or prompt.spans) and Detector.from_config(model.config) is None:
        yield (
            "Note: this model was not calibrated: a word is replaced only where the model clearly denies it if asked. "
            "After lime-mlx evaluate --calibrate, how much the word rests on the input counts, too."
        )


def decode(
    model: Model,
    prompt: Prompt,
    method: str | Method | None = None,
    max_tokens: int = 256,
    *,
    trace: bool = False,
    reliance: bool = True,
    sampler: Sampler | None = None,
    logits_processors: Sequence[LogitsProcessor] = (),
    stop: frozenset[int] = frozenset(),
    kv: KVOptions = DEFAULT,
) -> Iterator[Step]:
    """Decode token by token, without a tokenizer.

    trace: keep what the method recorded. reliance: compute relevance also for tokens for which the method needs none.
    sampler: log-probabilities (1, V) to a token (1,), as mlx-lm's; None is greedy. logits_processors: as mlx-lm's,
    (tokens so far, logits (1, V)) to logits (1, V). stop: ids that end the answer. kv: the options of the cache.

    A prompt that a processor made knows its content tokens; for token ids alone every token counts as one.
    Raises `PromptError` for a prompt that does not fit the model, `NumericalError` for logits that are not finite.
    """
    chosen = resolve_method(method, prompt, model)
    session = start(model, prompt, trace=trace, reliance=reliance, processors=logits_processors, kv=kv)
    yield from steps(session, chosen, max_tokens, sampler, stop)


@exclusive
def start(
    model: Model,
    prompt: Prompt,
    *,
    trace: bool = False,
    reliance: bool = True,
    processors: Sequence[LogitsProcessor] = (),
    prefixes: Prefixes | None = None,
    kv: KVOptions = DEFAULT,
    cache_file: str | os.PathLike[str] | None = None,
) -> Session:
    """A session at the end of the prompt. prefixes: of the same model, else `PromptError`; see `stream_generate`."""
    if cache_file is not None:
        session = open_with_file(model, prompt, processors, kv, cache_file)
    elif prefixes is None:
        session = Session.open(model, prompt, processors, kv=kv)
    elif prefixes.model is model:
        session = prefixes.open(prompt, processors, kv)
    else:
        raise PromptError("The kept prefixes are those of another model; make a Prefixes of this one.")
    session.want_relevance, session.want_trace = reliance, trace
    return session


@each_exclusive
def steps(
    session: Session,
    method: Method,
    max_tokens: int,
    sampler: Sampler | None = None,
    stop: frozenset[int] = frozenset(),
) -> Iterator[Step]:
    """The loop: logits from the method, a token from the sampler, its embedding back into the session.

    A step comes when the method will not take its token back; the session may be some tokens ahead.
    """
    check("max_tokens", max_tokens)
    inner = method.prepare(session.model)
    prepared = Guarded(method.name, inner)
    session.pick, session.greedy = _pick(sampler), sampler is None
    if type(inner) is PlainDecoding and session.unobserved:
        for ahead in tokens_ahead(session, max_tokens, sampler, stop):
            if not ahead.finite:
                raise _not_finite(session)
            yield Step(ahead.token, ahead.logits)
        return
    waiting: list[Step] = []
    count, last = 0, False
    while count < max_tokens and not last:
        forward = prepared.step(session)
        taken_back = count - len(session.generated)
        del waiting[len(waiting) - taken_back :]
        step = _step(session, forward, prepared.fault)
        waiting.append(step)
        last = step.token in stop
        if not last:
            session.append(step.token)
        count = len(session.generated)
        settled = len(waiting) if last or count == max_tokens else len(waiting) - count + prepared.settled(session)
        yield from waiting[:settled]
        del waiting[:settled]


def _step(session: Session, forward: Forward, fault: str | None) -> Step:
    """The token that is picked after a forward, and what belongs to it. Raises `NumericalError`."""
    scores = session.scores(forward.logits)
    token = session.pick(scores) if forward.token is None else forward.token
    if not mx.isfinite(forward.logits).all().item():
        raise _not_finite(session)
    token_shares = None if forward.relevance is None else shares(forward.relevance, session.modalities)
    return Step(
        token,
        forward.logits,
        token_shares,
        forward.relevance,
        forward.trace,
        forward.optimised,
        forward.rejected,
        fault,
    )


def _not_finite(session: Session) -> NumericalError:
    number = len(session.generated) + 1
    return NumericalError(f"The logits are not finite at generated token {number}: check the weights.")


def _pick(sampler: Sampler | None) -> Pick:
    """A token by its scores (V,): the best one, or the one that the sampler draws."""
    if sampler is None:
        return lambda scores: int(mx.argmax(scores))
    return lambda scores: int(sampler((scores - mx.logsumexp(scores))[None])[0])
