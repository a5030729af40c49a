"""From a question to the events of its answer, in the thread that computes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from lime_mlx.answer import Response, collect
from lime_mlx.explanation import input_warnings
from lime_mlx.generation import resolve_method, stream_generate
from lime_mlx.methods import Method, parse_method
from lime_mlx.prompt import Prompt, Span
from lime_mlx.server.models import Loaded
from lime_mlx.server.question import Question
from lime_mlx.server.tokens import PlainLogprobs, Spelling
from lime_mlx.server.wordjson import token_json, word_json
from lime_mlx.server.worker import Job
from lime_mlx.support.detector import Detector
from lime_mlx.words import Word, ranked, words

Json = dict[str, object]


@dataclass
class Piece:
    """Text that was added, with the entries of its tokens where log-probabilities are wanted."""

    text: str
    entries: list[Json] = field(default_factory=list)


@dataclass
class Words:
    """Words that are complete, and their tokens."""

    words: list[Json]
    tokens: list[Json]


@dataclass
class End:
    """How the answer ended. finish_reason: "stop" or "length". lime: what stands under that name, where asked for."""

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    lime: Json | None


def answer(loaded: Loaded, question: Question, job: Job) -> None:
    """Answer a question: every `Piece`, `Words` and at last the `End` are sent to the request of the job.

    Raises `LimeError` for a question that does not fit the model, and what ends the job.
    """
    prompt = loaded.processor.prompt(question.text, question.images, question.sounds, question.system, question.history)
    method, detector, limit = _chosen(loaded, question, prompt)
    _Answering(loaded, question, prompt, method, detector, limit, job).run()


def _chosen(loaded: Loaded, question: Question, prompt: Prompt) -> tuple[Method, Detector | None, int]:
    """The method, the detector that flags words, and the most tokens; a promise says them where one is asked for."""
    detector = Detector.from_config(loaded.model.config)
    if question.lime is None or question.lime.risk is None:
        method = None if question.method == "default" else parse_method(question.method)
        return resolve_method(method, prompt, loaded.model), detector, question.max_tokens
    from lime_mlx.checkpoint.promised import promised

    kinds = ["image"] * len(question.images) + ["audio"] * len(question.sounds)
    promise, detector = promised(
        loaded.model, prompt, loaded.name, kinds, question.text, question.lime.risk, loaded.folder
    )
    return parse_method(promise.method), detector, promise.tokens


class _Answering:
    """One answer as it is made."""

    def __init__(
        self,
        loaded: Loaded,
        question: Question,
        prompt: Prompt,
        method: Method,
        detector: Detector | None,
        limit: int,
        job: Job,
    ) -> None:
        self.loaded, self.question, self.prompt, self.method = loaded, question, prompt, method
        self.detector, self.limit, self.job = detector, limit, job
        self.spans: list[Span] = list(loaded.model.spans(prompt))
        self.notices: list[str] = []
        self.entries: list[Json] = []
        self.kept: list[Response] = []
        self.unworded: deque[Response] = deque()
        self.words: list[Word] = []
        self.views: list[Json] = []
        self.spelling = Spelling(loaded.processor)
        self.plain: PlainLogprobs | None = None
        self.started = False
        self.sent_at, self.longest_wait = time.perf_counter(), 0.0

    def run(self) -> None:
        lime, question = self.question.lime, self.question
        wants_words = lime is not None and lime.words
        if question.top_logprobs is not None:
            self.plain = PlainLogprobs(self.loaded, self.prompt, self.method)
        responses = stream_generate(
            self.loaded.model,
            self.loaded.processor,
            self.prompt,
            method=self.method,
            max_tokens=self.limit,
            temperature=question.temperature,
            top_p=question.top_p,
            top_k=question.top_k,
            min_p=question.min_p,
            repetition_penalty=question.repetition_penalty,
            seed=question.seed,
            stop=question.stop,
            reliance=wants_words,
            relevance=wants_words,
            logprobs=wants_words or question.top_logprobs is not None,
            notice=self.notices.append,
            prefixes=self.loaded.prefixes,
        )
        taken = self._taken(responses)
        if wants_words:
            self._run_words(taken)
        else:
            for _ in taken:
                pass
        self.job.send(self._end())

    def _taken(self, responses: Iterable[Response]) -> Iterator[Response]:
        """The responses, whose text is sent before they are handed on."""
        for response in responses:
            self._send_text(response)
            self.kept.append(response)
            yield response

    def _run_words(self, responses: Iterator[Response]) -> None:
        first = next(responses)
        judges = self.detector if first.calibrated_for_input is not False else None
        maps = self.question.lime.maps if self.question.lime is not None else False

        def remembered() -> Iterator[Response]:
            for response in chain([first], responses):
                if not response.ends:
                    self.unworded.append(response)
                yield response

        for word in words(remembered(), judges, self.spans):
            tokens = [self.unworded.popleft() for _ in word.tokens]
            self.words.append(word)
            self.views.append(word_json(word, self.spans, maps))
            self.job.send(Words(self.views[-1:], [token_json(self.spelling, token, word) for token in tokens]))

    def _send_text(self, response: Response) -> None:
        text = response.text if self.started else response.text.lstrip()
        if self.plain is not None:
            logprobs = self.plain.of(response)
            if not response.ends:
                self.entries.append(self.spelling.entry(response.token, logprobs, self.question.top_logprobs or 0))
        now = time.perf_counter()
        self.longest_wait, self.sent_at = max(self.longest_wait, now - self.sent_at), now
        if text or (response.finish_reason is not None and self.entries):
            self.started = self.started or bool(text)
            entries, self.entries = self.entries, []
            self.job.send(Piece(text, entries))
        else:
            self.job.check()

    def _end(self) -> End:
        last = self.kept[-1]
        reason = "stop" if last.finish_reason == "stop" else "length"
        lime = None if self.question.lime is None else self._lime(last)
        return End(reason, last.prompt_tokens, last.generation_tokens, last.cached_tokens, lime)

    def _lime(self, last: Response) -> Json:
        """What stands under `lime` in the last chunk, and in an answer that is not streamed."""
        assert self.question.lime is not None
        whole = collect(self.kept, self.loaded.model, self.prompt)
        result: Json = {
            "model": self.loaded.name,
            "method": self.question.method if self.question.lime.risk is None else self.method.name,
            "finish_reason": last.finish_reason,
            "calibrated_for_input": last.calibrated_for_input,
            "questions": last.questions,
            "longest_wait": round(self.longest_wait, 4),
            "warnings": [*self.notices, *whole.notices, *input_warnings(self.loaded.model, self.prompt, whole)],
        }
        if self.question.lime.words:
            ranks = [word.rank for word in ranked(self.words)]
            result["words"] = [{**view, "rank": rank} for view, rank in zip(self.views, ranks, strict=True)]
        return result
