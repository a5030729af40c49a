"""The generation loop: token by token, with any method, streaming."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from lime_mlx.errors import NumericalError, PromptError
from lime_mlx.lrp.relevance import Shares, shares
from lime_mlx.media.audio import open_audio
from lime_mlx.media.image import open_image
from lime_mlx.methods import Method, Plain, Session, parse_method
from lime_mlx.prompt import Prompt
from lime_mlx.support.statistics import from_logits, from_relevance

Sampler = Callable[[mx.array], mx.array]
Processors = Sequence[Callable[[mx.array, mx.array], mx.array]]


@dataclass(frozen=True)
class Step:
    """One decoded token. logits (V,) float32, before sampling; shares, relevance (T,) and trace where computed."""

    token: int
    logits: np.ndarray
    shares: Shares | None = None
    relevance: np.ndarray | None = None
    trace: dict[str, np.ndarray] | None = None
    optimised: bool = False

    @property
    def reliance(self) -> float | None:
        """Share of the relevance that came from the picture or sound, 0 to 1."""
        return None if self.shares is None else self.shares.media


@dataclass
class Response:
    """One piece of an answer, under mlx-lm's field names; peak_memory in GB, tps in tokens per second."""

    text: str
    token: int
    prompt_tokens: int
    prompt_tps: float
    generation_tokens: int
    generation_tps: float
    peak_memory: float
    finish_reason: str | None = None
    shares: Shares | None = None
    relevance: np.ndarray | None = None
    evidence: dict[str, float] | None = None
    optimised: bool = False
    cost: "Cost | None" = None

    @property
    def reliance(self) -> float | None:
        return None if self.shares is None else self.shares.media


@dataclass(frozen=True)
class Cost:
    """What a method costs beside plain decoding: time per token as a ratio, and bytes at the peak."""

    ratio: float
    extra_bytes: int


@dataclass
class Answer:
    """A whole answer: one entry of `tokens`, `pieces`, `reliance`, `shares` and `relevance` per generated token."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    shares: list[Shares | None] = field(default_factory=list)
    relevance: list[np.ndarray | None] = field(default_factory=list)
    last: Response | None = None

    @property
    def reliance(self) -> list[float | None]:
        return [None if share is None else share.media for share in self.shares]

    def __getattr__(self, name: str) -> Any:
        """Statistics of the run, as on the last `Response`: prompt_tokens, generation_tps, finish_reason, ..."""
        if name in STATISTICS and self.last is not None:
            return getattr(self.last, name)
        raise AttributeError(name)


STATISTICS = (
    "prompt_tokens",
    "prompt_tps",
    "generation_tokens",
    "generation_tps",
    "peak_memory",
    "finish_reason",
    "cost",
)


def decode(
    model,
    prompt: Prompt,
    method: str | Method = "lime",
    max_tokens: int = 256,
    *,
    trace: bool = False,
    reliance: bool = True,
    sampler: Sampler | None = None,
    logits_processors: Processors = (),
    content: np.ndarray | None = None,
    stop: frozenset[int] = frozenset(),
) -> Iterator[Step]:
    """Decode token by token, without a tokenizer.

    trace: keep what the method recorded. reliance: compute relevance also for tokens for which the method needs none.
    sampler: log-probabilities (1, V) to a token (1,), as mlx-lm's; None is greedy. logits_processors: as mlx-lm's,
    (tokens so far, logits (1, V)) to logits (1, V). content: (V,) bool, tokens that name something. stop: ids that end.
    Raises `PromptError` for a prompt that does not fit the model, `NumericalError` for logits that are not finite.
    """
    session = start(model, prompt, trace=trace, reliance=reliance, processors=logits_processors, content=content)
    yield from steps(session, parse_method(method), max_tokens, sampler, stop)


def start(
    model, prompt: Prompt, *, trace: bool = False, reliance: bool = True, processors: Processors = (), content=None
) -> Session:
    """A session at the end of the prompt."""
    session = Session.open(model, prompt, processors, content)
    session.want_relevance, session.want_trace = reliance, trace
    return session


def steps(
    session: Session,
    method: Method,
    max_tokens: int,
    sampler: Sampler | None = None,
    stop: frozenset[int] = frozenset(),
) -> Iterator[Step]:
    """The loop: logits from the method, a token from the sampler, its embedding back into the session."""
    if max_tokens < 1:
        raise PromptError(f"max_tokens is {max_tokens}; it must be at least 1.")
    method = method.prepare(session.model)
    for index in range(max_tokens):
        forward = method.step(session)
        scores = session.scores(forward.logits)
        picked = mx.argmax(scores) if sampler is None else sampler((scores - mx.logsumexp(scores))[None])[0]
        mx.eval(picked, forward.logits)
        if not mx.isfinite(forward.logits).all().item():
            raise NumericalError(f"The logits are not finite at generated token {index + 1}: check the weights.")
        token = int(picked)
        found = None if forward.relevance is None else shares(forward.relevance, session.modality)
        yield Step(token, np.array(forward.logits), found, forward.relevance, forward.trace, forward.optimised)
        if token in stop:
            return
        session.append(token)


def stream_generate(
    model,
    processor,
    prompt: str | Prompt,
    image: Any = (),
    audio: Any = (),
    *,
    system: str | None = None,
    method: str | Method = "lime",
    max_tokens: int = 256,
    sampler: Sampler | None = None,
    logits_processors: Processors = (),
    reliance: bool = True,
    relevance: bool = False,
    evidence: bool = False,
    measure: bool = False,
) -> Iterator[Response]:
    """Yield a `Response` for every token, the last with a finish_reason ("stop" or "length").

    image, audio: one source or several, as `open_image` and `open_audio` take them. reliance: shares for every token
    (one backward pass each); relevance: keep the arrays (T,); evidence: what speaks for each token that names
    something, as `lime_mlx.flags.judge` takes it. measure: time plain decoding at the end, for `Response.cost`.
    """
    method = parse_method(method)
    if not isinstance(prompt, Prompt):
        images = [open_image(source) for source in _listed(image)]
        sounds = [open_audio(source) for source in _listed(audio)]
        prompt = processor.prompt(prompt, images=images, audio=sounds, system=system)
    mx.reset_peak_memory()
    began = time.perf_counter()
    session = start(
        model,
        prompt,
        reliance=reliance or relevance or evidence,
        processors=logits_processors,
        content=processor.content,
    )
    detokenizer, stop = processor.detokenizer(), frozenset(processor.eos_token_ids)
    first, peak = began, 0
    if measure:
        session.prefill()
        peak = mx.get_peak_memory()
        mx.reset_peak_memory()
    for count, step in enumerate(steps(session, method, max_tokens, sampler, stop), start=1):
        now = time.perf_counter()
        if count == 1:
            first = now
        reason = "stop" if step.token in stop else "length" if count == max_tokens else None
        if reason != "stop":
            detokenizer.add_token(step.token)
        if reason is not None:
            detokenizer.finalize()
        response = Response(
            text=detokenizer.last_segment,
            token=step.token,
            prompt_tokens=len(prompt),
            prompt_tps=len(prompt) / max(first - began, 1e-9),
            generation_tokens=count,
            generation_tps=(count - 1) / max(now - first, 1e-9) if count > 1 else 0.0,
            peak_memory=max(peak, mx.get_peak_memory()) / 1e9,
            finish_reason=reason,
            shares=step.shares,
            relevance=step.relevance if relevance else None,
            evidence=_evidence(session, step) if evidence and processor.content[step.token] else None,
            optimised=step.optimised,
        )
        if measure and reason is not None and count > 1:
            response.cost = cost(session, 1 / response.generation_tps, peak)
        yield response


def generate(model, processor, prompt: str | Prompt, image: Any = (), audio: Any = (), **options: Any) -> Answer:
    """The whole answer at once; options as for `stream_generate`. The token that ends the answer is left out."""
    answer = Answer()
    for response in stream_generate(model, processor, prompt, image, audio, **options):
        answer.text += response.text
        answer.last = response
        if response.finish_reason != "stop":
            answer.tokens.append(response.token)
            answer.pieces.append(response.text)
            answer.shares.append(response.shares)
            answer.relevance.append(response.relevance)
    return answer


def cost(session: Session, seconds: float, prefilled: int, repeats: int = 5) -> Cost:
    """Compare `seconds` a token, and the peak since the prompt's own, with plain decoding that goes on from here.

    prefilled: the peak in bytes up to the end of the prompt, which every method needs.
    """
    peak = max(prefilled, mx.get_peak_memory())
    session.want_relevance = session.want_trace = False
    session.prefill()
    session.cache.trim(session.cache.offset - (session.embeds.shape[1] - 1))
    mx.reset_peak_memory()
    plain, times = steps(session, Plain(), repeats), []
    for _ in range(repeats):
        began = time.perf_counter()
        next(plain)
        times.append(time.perf_counter() - began)
    return Cost(seconds / sorted(times)[repeats // 2], max(0, peak - max(prefilled, mx.get_peak_memory())))


def _evidence(session: Session, step: Step) -> dict[str, float]:
    return {**from_relevance(step.relevance, session.modality), **from_logits(step.logits, step.token)}


def _listed(sources: Any) -> list:
    if sources is None:
        return []
    return list(sources) if isinstance(sources, list | tuple) else [sources]
