"""Questions, put to one model with all methods; questions about one picture share its prefill."""

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import mlx.core as mx

from lime_mlx.checkpoint.load import load
from lime_mlx.decoding import Step, steps
from lime_mlx.errors import LimeError
from lime_mlx.methods import Method
from lime_mlx.models.base import Model
from lime_mlx.prefixes import Prefixes
from lime_mlx.processor import Processor
from lime_mlx.prompt import NOUNS, Prompt
from lime_mlx.session import Session

from .checks import RunConfig, Workload
from .records import AnswerFields, Record
from .store import Answers, Cell
from .tasks import Item
from .tasks.base import Media

# Where reliance is recorded, one answer of so many is given once more without it, to be timed.
TIMED = 5
SessionFactory = Callable[[], Session]
Advance = Callable[[Cell, int], None]


class ModelRun:
    """One model in memory that is asked questions. answers: those of each cell, where the new ones go too.

    advance: called with a cell and the number of its questions that are done.
    """

    def __init__(
        self, config: RunConfig, name: str, work: Workload, answers: Mapping[Cell, Answers], advance: Advance
    ) -> None:
        self.config, self.name, self.work = config, name, work
        self.answers, self.advance = answers, advance
        self.model, self.processor = load(name)

    def ask(self, spec: str, items: Sequence[Item]) -> str:
        """Put questions of a task about one picture or sound, to all methods that lack an answer.

        Returns a note where the model does not take the medium of the task, else "".
        """
        task, cells = self.work.tasks[spec], [Cell(self.name, method, spec) for method in self.work.methods]
        if task.medium not in self.processor.takes:
            for cell in cells:
                self.advance(cell, len(self.answers[cell].lacking(items)))
            return f"{self.name} takes no {NOUNS[task.medium][1]}: {spec} is left out."
        factories: dict[str, SessionFactory] = {}
        problem = None
        try:
            media = task.opened(self.config.data, items[0].medium)
            of_items = sessions(self.model, self._prompts(items, media), self.config.shared)
            factories = dict(zip((item.id for item in items), of_items, strict=True))
        except Exception as error:  # whatever is wrong with one picture, the others can be asked about
            problem = reason(error)
        for cell in cells:
            for item in self.answers[cell].lacking(items):
                record = self._failed(item, problem) if problem else self._answered(item, cell, factories[item.id])
                self.answers[cell].append(record)
                self.advance(cell, 1)
        mx.clear_cache()
        return ""

    def _prompts(self, items: Sequence[Item], media: Media) -> list[Prompt]:
        """The prompt of each question; those with the same history are made together."""
        prompts: dict[str, Prompt] = {}
        for history in dict.fromkeys(item.history for item in items):
            part = [item for item in items if item.history == history]
            made = self.processor.prompts([item.text for item in part], **media, history=history)
            prompts |= zip((item.id for item in part), made, strict=True)
        return [prompts[item.id] for item in items]

    def _answered(self, item: Item, cell: Cell, open_session: SessionFactory) -> Record:
        """The record of a question with the answer to it, or with the reason why there is none."""
        method, reliance = self.work.methods[cell.method], self.config.reliance
        timed = not reliance or is_timed(item.id)
        try:
            fields = answer(open_session, method, self.processor, item.max_tokens, reliance, timed)
        except Exception as error:  # what goes wrong with one question is recorded with it
            return self._failed(item, reason(error))
        return {**_question(item), **fields}

    def _failed(self, item: Item, problem: str) -> Record:
        return {**_question(item), "error": problem}


def _question(item: Item) -> Record:
    record: Record = {
        "id": item.id,
        "medium": item.medium,
        "split": item.split,
        "prompt": item.text,
        "label": item.label,
        "truth": item.truth,
    }
    if item.history:
        record["history"] = [[turn.user, turn.assistant] for turn in item.history]
    return record


def is_timed(name: str) -> bool:
    """Whether the answer to this question is timed: one in `TIMED`, whatever else is asked."""
    return zlib.crc32(name.encode()) % TIMED == 0


def answer(
    open_session: SessionFactory, method: Method, processor: Processor, max_tokens: int, reliance: bool, timed: bool
) -> AnswerFields:
    """A greedy answer and what it took.

    open_session: gives a new session at the end of the prompt each time. timed: decode (once more, after reliance)
    without reliance, and record seconds and memory.
    """
    stop = frozenset(processor.eos_token_ids)

    def decode(relevance: bool) -> tuple[list[Step], float]:
        session = open_session()
        session.want_relevance = relevance
        began = time.perf_counter()
        decoded = list(steps(session, method, max_tokens, stop=stop))
        return decoded, time.perf_counter() - began

    costs: AnswerFields = {}
    decoded = decode(True)[0] if reliance else []
    if timed:
        mx.reset_peak_memory()
        plain, seconds = decode(False)
        decoded = decoded if reliance else plain
        costs = {"seconds": round(seconds, 6), "memory": round(mx.get_peak_memory() / 1e9, 6)}
    tokens = [step.token for step in decoded if step.token not in stop]
    text = processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    fields: AnswerFields = {"text": text, "tokens": tokens, "steps": len(decoded)}
    if reliance:
        shares = [None if step.reliance is None else round(step.reliance, 6) for step in decoded]
        fields["reliance"] = shares[: len(tokens)]
    if faults := sum(step.fault is not None for step in decoded):
        fields["numerical_faults"] = faults
    return {**fields, **costs}


def sessions(model: Model, prompts: Sequence[Prompt], shared: bool = True) -> list[SessionFactory]:
    """For each prompt, what opens a session at its end, as often as it is called.

    shared: what the prompts have in common is computed only once.
    """
    open_session = Prefixes(model).open if shared else partial(Session.open, model)
    return [partial(open_session, prompt) for prompt in prompts]


def reason(error: Exception) -> str:
    """An error in one line, with its type where a user cannot have caused it."""
    text = " ".join(str(error).split())
    return text if isinstance(error, (LimeError, OSError)) else f"{type(error).__name__}: {text}"
