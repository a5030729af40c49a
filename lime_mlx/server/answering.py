"""From a question to the events of its answer, in the thread that computes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain

import mlx.core as mx

from lime_mlx.answer import Response, collect
from lime_mlx.checkpoint.promised import promised
from lime_mlx.decoding import resolve_method
from lime_mlx.explanation import input_warnings
from lime_mlx.generation import stream_generate
from lime_mlx.methods import Method, Plain, parse_method
from lime_mlx.prompt import Prompt, Span
from lime_mlx.server.models import Loaded
from lime_mlx.server.question import Question
from lime_mlx.server.tokens import PlainLogprobs, Spelling
from lime_mlx.server.wordjson import token_json, word_json
from lime_mlx.server.worker import Job
from lime_mlx.support.detector import Detector
from lime_mlx.support.promise import DROP, Promise
from lime_mlx.words import Word, ranked, without_flagged, words

Json = dict[str, object]
CUT = "Note: the answer was cut: max_tokens or the context of the model allows no more."


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
    _Answering(loaded, question, prompt, _chosen(loaded, question, prompt), job).run()


@dataclass(frozen=True)
class Chosen:
    """How a question is answered. detector: flags words. tokens: the most of the answer. promise: the one asked for."""

    method: Method
    detector: Detector | None
    tokens: int
    promise: Promise | None = None


def _chosen(loaded: Loaded, question: Question, prompt: Prompt) -> Chosen:
    """What the request says, or the promise that it asks for. Raises `MethodError`."""
    detector = Detector.from_config(loaded.model.config)
    if question.lime is None or question.lime.risk is None:
        method = None if question.method == "default" else parse_method(question.method)
        return Chosen(resolve_method(method, prompt, loaded.model), detector, question.max_tokens)
    kinds = ["image"] * len(question.images) + ["audio"] * len(question.sounds)
    promise, flagging = promised(
        loaded.model, prompt, loaded.name, kinds, question.text, question.lime.risk, loaded.folder
    )
    return Chosen(parse_method(promise.method), flagging, promise.tokens, promise)


class _Answering:
    """One answer as it is made."""

    def __init__(self, loaded: Loaded, question: Question, prompt: Prompt, chosen: Chosen, job: Job) -> None:
        self.loaded, self.question, self.prompt, self.chosen, self.job = loaded, question, prompt, chosen, job
        self.spans: list[Span] = list(loaded.model.spans(prompt))
        self.notices: list[str] = []
        self.entries: list[Json] = []
        self.kept: list[Response] = []
        self.unworded: deque[Response] = deque()
        self.words: list[Word] = []
        self.views: list[Json] = []
        self.token_views: list[Json] = []
        self.spelling = Spelling(loaded.processor)
        self.plain: PlainLogprobs | None = None
        self.started, self.first = False, True
        self.left = 0  # characters of the text that was sent, less those of the tokens whose entries were
        self.sent_at, self.longest_wait = time.perf_counter(), 0.0

    def run(self) -> None:
        lime, question = self.question.lime, self.question
        wants_words = lime is not None and lime.words
        if question.top_logprobs is not None:
            self.plain = PlainLogprobs(self.loaded, self.prompt, self.chosen.method)
        responses = stream_generate(
            self.loaded.model,
            self.loaded.processor,
            self.prompt,
            method=self.chosen.method,
            max_tokens=self._room(),
            temperature=question.temperature,
            top_p=question.top_p,
            top_k=question.top_k,
            min_p=question.min_p,
            repetition_penalty=question.repetition_penalty,
            seed=question.seed,
            stop=question.stop,
            logits_processors=[] if isinstance(self.chosen.method, Plain) else [self._watch],
            reliance=wants_words,
            relevance=wants_words,
            logprobs=wants_words or question.top_logprobs is not None,
            notice=self.notices.append,
            prefixes=self.loaded.prefixes,
            kv=self.loaded.kv,
        )
        taken = self._taken(responses)
        if wants_words:
            self._run_words(taken)
        else:
            for _ in taken:
                pass
        self.job.send(self._end())

    def _watch(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Stops a method that computes long before it lets a token go; the logits stay as they are."""
        self.job.check()
        return logits

    def _room(self) -> int:
        """The most tokens of the answer: what is wanted, or what the context of the model holds."""
        context = self.loaded.model.context
        return self.chosen.tokens if context is None else max(1, min(self.chosen.tokens, context - len(self.prompt)))

    def _taken(self, responses: Iterable[Response]) -> Iterator[Response]:
        """The responses, whose text is sent before they are handed on."""
        for response in responses:
            self._send_text(response)
            self.kept.append(response)
            yield response

    def _run_words(self, responses: Iterator[Response]) -> None:
        first = next(responses)
        judges = self.chosen.detector if first.calibrated_for_input is not False else None
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
            self.token_views += (entries := [token_json(self.spelling, token, word) for token in tokens])
            self.job.send(Words(self.views[-1:], entries))

    def _send_text(self, response: Response) -> None:
        text = response.text if self.started else response.text.lstrip()
        if self.plain is not None:
            logprobs = self.plain.of(response)
            if not response.ends:
                self.entries.append(self.spelling.entry(response.token, logprobs, self.question.top_logprobs or 0))
        now = time.perf_counter()
        self.longest_wait, self.sent_at = max(self.longest_wait, now - self.sent_at), now
        self.started = self.started or bool(text)
        self.left += len(text)
        if text or (response.finish_reason is not None and self.entries):
            self.job.send(Piece(text, list(self._spelt(response))))
        else:
            self.job.check()

    def _spelt(self, response: Response) -> Iterator[Json]:
        """The entries of the tokens of the text that was sent; those of a text that stopped the answer are left out."""
        stopped = response.finish_reason == "stop" and not response.ends
        entries, self.entries = self.entries, []
        for entry in entries:
            if stopped and self.left <= 0:
                return
            self.left -= len(str(entry["token"]).lstrip() if self.first else str(entry["token"]))
            self.first = False
            yield entry

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
            "method": self.question.method if self.question.lime.risk is None else self.chosen.method.name,
            "finish_reason": last.finish_reason,
            "calibrated_for_input": last.calibrated_for_input,
            "questions": last.questions,
            "longest_wait": round(self.longest_wait, 4),
            "warnings": [
                *self.notices,
                *([CUT] if last.finish_reason == "length" else []),
                *whole.notices,
                *input_warnings(self.loaded.model, self.prompt, whole),
            ],
        }
        if self.chosen.promise is not None:
            result["promise"] = asdict(self.chosen.promise)
            if self.chosen.promise.procedure == DROP:
                result["text"], result["dropped"] = without_flagged(whole.text, self.words)
        if self.question.lime.words:
            ranks = [word.rank for word in ranked(self.words)]
            result["words"] = [{**view, "rank": rank} for view, rank in zip(self.views, ranks, strict=True)]
            result["tokens"] = self.token_views
        return result
