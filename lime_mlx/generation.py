"""Answers as text: streamed or whole, with their words, statistics and costs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import mlx.core as mx
from PIL import Image

from lime_mlx.answer import Answer, Cost, Response, collect
from lime_mlx.asking import AskBack
from lime_mlx.decoding import Step, calibration_note, resolve_method, start, steps
from lime_mlx.errors import PromptError
from lime_mlx.kv import DEFAULT, KVOptions
from lime_mlx.media.audio import AudioSource, Sound, open_audio
from lime_mlx.media.image import ImageSource, open_pictures
from lime_mlx.memory import check_fits
from lime_mlx.methods import Method, Plain
from lime_mlx.methods.guard import MOST
from lime_mlx.models.base import Model
from lime_mlx.prefixes import Prefixes
from lime_mlx.processor import Processor
from lime_mlx.prompt import Prompt
from lime_mlx.sampling import Sampler, Sampling, check
from lime_mlx.session import LogitsProcessor, Session
from lime_mlx.stopping import AnswerText, loops
from lime_mlx.support.statistics import from_logits, from_relevance, log_softmax

Notice = Callable[[str], None]


def fault_note(fault: str, number: int) -> str:
    """Says what was not finite for the first time, at which token of the answer, counted from 1, and what follows."""
    return (
        f"Note: at generated token {number}: {fault} Such a token is decoded plainly, or has no shares; "
        f"after {MOST} in a row, a method is off."
    )


def open_prompt(
    processor: Processor,
    prompt: str | Prompt,
    image: ImageSource | Sequence[ImageSource] | None = None,
    audio: AudioSource | Sequence[AudioSource] | None = None,
    system: str | None = None,
    notice: Notice | None = None,
) -> Prompt:
    """The prompt of a question about pictures and sounds, which are opened; a `Prompt` is returned as it is.

    Raises `PromptError` where a `Prompt`, which has its media, comes with further ones.
    """
    if isinstance(prompt, Prompt):
        if image or audio or system:
            raise PromptError("A Prompt has its pictures, sounds and system text already; leave the others out.")
        return prompt
    images, sounds = open_images(image, notice), open_sounds(audio, notice)
    return processor.prompt(prompt, images=images, audio=sounds, system=system)


def open_images(image: ImageSource | Sequence[ImageSource] | None, notice: Notice | None = None) -> list[Image.Image]:
    """The pictures of one source or of several in a list or tuple."""
    several = isinstance(image, list | tuple)
    sources = cast(Sequence[ImageSource], image if several else [] if image is None else [image])
    return open_pictures(sources, notice=notice)


def open_sounds(audio: AudioSource | Sequence[AudioSource] | None, notice: Notice | None = None) -> list[Sound]:
    """The sounds of one source or of several in a list or tuple; samples and their rate are one source."""
    several = isinstance(audio, list | tuple) and not (len(audio) == 2 and isinstance(audio[1], int))
    sources = cast(Sequence[AudioSource], audio if several else [] if audio is None else [audio])
    return [open_audio(source, notice=notice) for source in sources]


def stream_generate(
    model: Model,
    processor: Processor,
    prompt: str | Prompt,
    image: ImageSource | Sequence[ImageSource] | None = None,
    audio: AudioSource | Sequence[AudioSource] | None = None,
    *,
    system: str | None = None,
    method: str | Method | None = None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    repetition_penalty: float | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
    sampler: Sampler | None = None,
    logits_processors: Sequence[LogitsProcessor] = (),
    reliance: bool = True,
    relevance: bool = False,
    logprobs: bool = False,
    measure: bool = False,
    notice: Notice | None = None,
    prefixes: Prefixes | None = None,
    kv: KVOptions = DEFAULT,
    cache_file: str | os.PathLike[str] | None = None,
) -> Iterator[Response]:
    """Yield a `Response` for every token, the last with a finish_reason ("stop", "length" or "loop").

    image, audio: one source or several, as `open_image` and `open_audio` take them. method: a spec such as
    "lime:steps=3"; None resolves as `resolve_method` says. Sampling: see `lime_mlx.sampling.Sampling`; `sampler` takes
    its place. stop: texts that end the answer and are left out of it. reliance: shares and statistics for every token
    (one backward pass each); relevance: keep the arrays (T,). logprobs: keep those of every place, (V,). measure: time
    plain decoding at the end, for `Response.cost`. notice: is called with a sentence for the user, about an opened
    file, a cut answer or the method. prefixes: what is kept of earlier prompts; what this one has in common with them
    is not computed again, and the answer is the same. kv: the options of the cache, as mlx-lm has them. cache_file: a
    .safetensors file with the cache of the prompt, which is written where there is none, and used in place of
    `prefixes`; see `lime_mlx.cache_file`. Raises `BackendError` where the memory of this machine will not do.
    """
    sampling = Sampling(temperature, top_p, top_k, min_p, repetition_penalty, seed)
    check("max_tokens", max_tokens)
    opened = open_prompt(processor, prompt, image, audio, system, notice)
    limit = _token_limit(model, opened, max_tokens, notice)
    mx.reset_peak_memory()
    chosen = resolve_method(method, opened, model)
    if notice is not None:
        for sentence in chosen.notes(opened):
            notice(sentence)
        for sentence in calibration_note(chosen, opened, model) if method is None else ():
            notice(sentence)
    for sentence in check_fits(model, opened, chosen, limit, reliance or relevance, kv):
        if notice is not None:
            notice(sentence)
    clock = _Clock()
    session = start(
        model,
        opened,
        reliance=reliance or relevance,
        processors=[*sampling.processors(), *logits_processors],
        prefixes=prefixes,
        kv=kv,
        cache_file=cache_file,
    )
    if cache_file is not None and notice is not None:
        taken = f"{session.reused:,} of {len(opened):,} tokens of the prompt came from {os.fspath(cache_file)}."
        notice(f"Note: {taken}" if session.reused else f"Wrote {os.fspath(cache_file)}")
    picker = sampler or sampling.sampler(model.language_model.config.vocab_size)
    if measure:
        with model.lock:
            session.prefill()
        clock.prefilled()
    text = AnswerText(processor, [stop] if isinstance(stop, str) else stop)
    ends = frozenset(processor.eos_token_ids)
    tokens: list[int] = []
    faults = 0
    asks = reliance and session.modality.any()
    ask = AskBack(session, opened.language) if opened.language is not None and asks else None
    for count, step in enumerate(clock.timed(steps(session, chosen, limit, picker, ends)), start=1):
        clock.tick(count)
        tokens.append(step.token)
        faults += step.fault is not None
        text.add(step.token, step.token in ends)
        reason = _finish_reason(text, tokens, ends, count == limit)
        if reason is not None:
            text.finish()
        response = Response(
            text=text.new(),
            token=step.token,
            ends=step.token in ends,
            shares=step.shares,
            relevance=step.relevance if relevance else None,
            statistics=_statistics(session, step),
            ask=ask,
            optimised=step.optimised,
            logprobs=log_softmax(step.logits) if logprobs else None,
            questions=sum(margin is not None for margin in session.margins.values()),
            rejected=step.rejected,
            prompt_tokens=len(opened),
            cached_tokens=session.reused,
            prompt_tps=clock.prompt_tps(len(opened)),
            generation_tokens=count,
            generation_tps=clock.generation_tps(count),
            peak_memory=clock.peak() / 1e9,
            finish_reason=reason,
            calibrated_for_input=session.in_domain,
            numerical_faults=faults,
        )
        if step.fault and faults == 1 and notice is not None:
            notice(fault_note(step.fault, count))
        if reason == "loop" and notice is not None:
            notice("Note: the answer repeated itself and was ended.")
        if measure and reason is not None and count > 1:
            response.cost = _cost(session, clock)
        yield response
        if reason is not None:
            return


def generate(
    model: Model,
    processor: Processor,
    prompt: str | Prompt,
    image: ImageSource | Sequence[ImageSource] | None = None,
    audio: AudioSource | Sequence[AudioSource] | None = None,
    *,
    system: str | None = None,
    method: str | Method | None = None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    repetition_penalty: float | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
    sampler: Sampler | None = None,
    logits_processors: Sequence[LogitsProcessor] = (),
    reliance: bool = True,
    relevance: bool = False,
    measure: bool = False,
    notice: Notice | None = None,
    prefixes: Prefixes | None = None,
    kv: KVOptions = DEFAULT,
    cache_file: str | os.PathLike[str] | None = None,
) -> Answer:
    """The whole answer at once; options as for `stream_generate`. The token that ends the answer is left out.

    Notices, about a cut answer or an input that the model was not calibrated for, are kept in `Answer.notices`, too.
    """
    notices: list[str] = []

    def keep(sentence: str) -> None:
        notices.append(sentence)
        if notice is not None:
            notice(sentence)

    opened = open_prompt(processor, prompt, image, audio, system, keep)
    responses = stream_generate(
        model,
        processor,
        opened,
        method=method,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop,
        sampler=sampler,
        logits_processors=logits_processors,
        reliance=reliance,
        relevance=relevance,
        measure=measure,
        notice=keep,
        prefixes=prefixes,
        kv=kv,
        cache_file=cache_file,
    )
    answer = collect(responses, model, opened)
    for sentence in answer.notices:
        keep(sentence)
    answer.notices = notices
    return answer


def _token_limit(model: Model, prompt: Prompt, max_tokens: int, notice: Notice | None) -> int:
    """How many tokens may follow the prompt: as many as are wanted, or as the context of the model holds."""
    context = model.context
    if context is None or len(prompt) + max_tokens <= context:
        return max_tokens
    room = max(1, context - len(prompt))
    if notice is not None and room < max_tokens:
        notice(
            f"Note: the answer has at most {room:,} tokens: the prompt has {len(prompt):,}, and the context of this "
            f"model holds {context:,}."
        )
    return min(room, max_tokens)


def _finish_reason(text: AnswerText, tokens: Sequence[int], ends: frozenset[int], last: bool) -> str | None:
    if tokens[-1] in ends or text.stopped:
        return "stop"
    if loops(tokens):
        return "loop"
    return "length" if last else None


class _Clock:
    """Times and memory of a run."""

    def __init__(self) -> None:
        self._began = self._first = self._now = time.perf_counter()
        self._prefill_peak = 0
        self.seconds: list[float] = []

    def timed(self, steps: Iterable[Step]) -> Iterator[Step]:
        """The steps; what each of them took goes to `seconds`, without what is done between them."""
        computed = iter(steps)
        while True:
            began = time.perf_counter()
            step = next(computed, None)
            if step is None:
                return
            self.seconds.append(time.perf_counter() - began)
            yield step

    def prefilled(self) -> None:
        """The prompt was run: its peak is that of every method."""
        self._prefill_peak = mx.get_peak_memory()
        mx.reset_peak_memory()

    def tick(self, count: int) -> None:
        self._now = time.perf_counter()
        if count == 1:
            self._first = self._now

    def prompt_tps(self, tokens: int) -> float:
        return tokens / max(self._first - self._began, 1e-9)

    def generation_tps(self, count: int) -> float:
        return (count - 1) / max(self._now - self._first, 1e-9) if count > 1 else 0.0

    def peak(self) -> int:
        """Bytes at the peak, the prompt's included."""
        return max(self._prefill_peak, mx.get_peak_memory())


def _cost(session: Session, clock: _Clock, repeats: int = 10) -> Cost:
    """Compare the time of a token, and the peak since the prompt's own, with plain decoding that goes on from here.

    The first token of each does not count: it warms up.
    """
    peak = clock.peak()
    session.want_relevance = session.want_trace = False
    session.prefill()
    session.cache.trim(session.cache.offset - (session.embeds.shape[1] - 1))
    mx.reset_peak_memory()
    plain = _Clock()
    for _ in plain.timed(steps(session, Plain(), len(session.generated) + repeats)):
        pass
    return Cost(_mean(clock.seconds[1:]) / _mean(plain.seconds[1:]), max(0, peak - clock.peak()))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _statistics(session: Session, step: Step) -> dict[str, float] | None:
    """The detector's statistics of a content token that the question did not bring in.

    None for other tokens, and where no relevance was computed.
    """
    if step.relevance is None or session.content is None or not session.modality.any():
        return None
    if not session.may_judge(step.token):
        return None
    return from_relevance(step.relevance, session.modality) | from_logits(step.logits, step.token)
