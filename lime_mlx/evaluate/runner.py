"""The questions of all tasks, put to all models with all methods; questions about one picture share its prefill."""

import hashlib
import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from rich.progress import Progress

from lime_mlx._version import __version__
from lime_mlx.checkpoint.hub import locate
from lime_mlx.checkpoint.load import load
from lime_mlx.errors import DataError, LimeError
from lime_mlx.generation import steps
from lime_mlx.methods import Method, Session, parse_method
from lime_mlx.prompt import NOUNS, Prompt
from lime_mlx.support.store import identity

from .hosts import Hosts
from .store import Answers, Cell, Store
from .tasks import Item, Task, parse_task

# Where reliance is recorded, one answer of so many is given once more without it, to be timed.
TIMED = 5


@dataclass(frozen=True)
class Plan:
    """What is to be run: models, methods and tasks by their specs. limit: pictures or sounds of each task.

    reliance: recorded for every token. skip_missing: leave out questions about pictures that are not there. shared:
    prefill what the questions about one picture have in common only once.
    """

    models: Sequence[str]
    methods: Sequence[str]
    tasks: Sequence[str]
    data: Path | None = None
    limit: int | None = None
    seed: int = 0
    reliance: bool = True
    skip_missing: bool = False
    shared: bool = True


@dataclass
class Outcome:
    """answered: how many records there are; failed: (cell, id, reason) of the others; notes: what was left out."""

    answered: int = 0
    failed: list[tuple[Cell, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def run(plan: Plan, folder: str | Path, hosts: Hosts | None = None, progress: Progress | None = None) -> Outcome:
    """Answer what `folder` lacks. A kill loses at most the answer that was being given.

    Raises the errors of `LimeError` for what is wrong before the first question: methods, tasks, data, models, a folder
    with other settings or at work. What goes wrong with one question is recorded with it, and tried again next time.
    """
    hosts, store, outcome = hosts or Hosts(), Store(folder), Outcome()
    methods = {spec: parse_method(spec) for spec in dict.fromkeys(plan.methods)}
    tasks = {spec: parse_task(spec) for spec in dict.fromkeys(plan.tasks)}
    questions = {spec: task.items(plan.data, plan.limit, plan.seed) for spec, task in tasks.items()}
    for spec, items in questions.items():
        _check_ids(spec, items)
    asked = {spec: present(plan, tasks[spec], items, outcome) for spec, items in questions.items()}
    settings = {
        "common": {
            "lime-mlx": __version__,
            "mlx": version("mlx"),
            "limit": plan.limit,
            "seed": plan.seed,
            "reliance": plan.reliance,
            "decoding": "greedy",
        },
        "models": {model: identity(locate(model)) for model in dict.fromkeys(plan.models)},
        "methods": list(methods),
        "tasks": {spec: {"questions": len(items), "sha256": _digest(items)} for spec, items in questions.items()},
        "data": None if plan.data is None else str(plan.data.resolve()),
    }
    with store.locked(hosts.rank):
        store.begin(settings)
        for spec, task in tasks.items():
            store.keep(spec, task.material(plan.data))
        rank = hosts.rank if hosts.size > 1 else None
        answers = {
            cell: store.answers(cell, rank)
            for model in settings["models"]
            for cell in (Cell(model, method, task) for task in tasks for method in methods)
        }
        _exchange(hosts, answers, questions)
        advance = _shown(progress if hosts.first else None, answers, asked, hosts.size)
        for model in settings["models"]:
            pending = _pending(model, tasks, answers, asked)
            if pending:
                _ask_model(plan, model, tasks, methods, pending[hosts.rank :: hosts.size], answers, advance, outcome)
        _exchange(hosts, answers, questions)
    for cell, held in answers.items():
        outcome.answered += sum("error" not in record for record in held.records.values())
        outcome.failed += [(cell, name, r["error"]) for name, r in held.records.items() if "error" in r]
    return outcome


def _exchange(hosts: Hosts, answers: dict[Cell, Answers], questions: dict[str, list[Item]]) -> None:
    """Let every process know every record, and put the files in order."""
    for cell, held in answers.items():
        for records in hosts.share(list(held.records.values())):
            for record in records:
                held.take(record)
        held.settle(item.id for item in questions[cell.task])
    hosts.share(None)  # nobody appends before all have settled


def _shown(progress: Progress | None, answers: dict, asked: dict, size: int) -> Callable[..., None]:
    """The bar over all cells of the run; returns what moves it on, by as much as `size` processes answer."""
    if progress is None:
        return lambda *_, **__: None
    total = sum(len(asked[cell.task]) for cell in answers)
    lacking = sum(len(held.lacking(asked[cell.task])) for cell, held in answers.items())
    bar = progress.add_task("", total=total, completed=total - lacking)

    def advance(cell: Cell, count: int = 1) -> None:
        completed = min(total, progress.tasks[bar].completed + count * size)
        progress.update(bar, completed=completed, description=f"{cell.model} · {cell.task}")

    return advance


def _pending(model: str, tasks: Iterable[str], answers: dict, asked: dict) -> list[tuple[str, list[Item]]]:
    """The questions, by task and picture or sound, of which some cell lacks an answer."""
    found = []
    for spec in tasks:
        groups: dict[str, list[Item]] = {}
        for item in asked[spec]:
            groups.setdefault(item.medium, []).append(item)
        own = [held for cell, held in answers.items() if (cell.model, cell.task) == (model, spec)]
        found += [(spec, group) for group in groups.values() if any(held.lacking(group) for held in own)]
    return found


def _ask_model(plan, name, tasks, methods, pending, answers, advance, outcome) -> None:
    """Put the questions to one model, which is in memory only here."""
    model, processor = load(name)
    left = set()
    for spec, group in pending:
        task, cells = tasks[spec], [(Cell(name, method, spec), methods[method]) for method in methods]
        if task.medium not in processor.takes:
            left.add(f"{name} takes no {NOUNS[task.medium][1]}: {spec} is left out.")
            for cell, _ in cells:
                advance(cell, len(answers[cell].lacking(group)))
            continue
        starts, problem = {}, None
        try:
            media = task.opened(plan.data, group[0].medium)
            prompts = processor.prompts([item.text for item in group], **media)
            opened = sessions(model, processor.content, prompts, plan.shared)
            starts = dict(zip((item.id for item in group), opened, strict=True))
        except Exception as error:  # whatever is wrong with one picture, the others can be asked about
            problem = reason(error)
        for cell, method in cells:
            for item in answers[cell].lacking(group):
                record = {"id": item.id, "medium": item.medium, "split": item.split, "prompt": item.text}
                record |= {"label": item.label, "truth": item.truth}
                if problem is None:
                    timed = not plan.reliance or _timed(item.id)
                    record |= _tried(starts[item.id], method, processor, item.max_tokens, plan.reliance, timed)
                else:
                    record["error"] = problem
                answers[cell].append(record)
                advance(cell)
        mx.clear_cache()
    outcome.notes += sorted(left)


def _timed(name: str) -> bool:
    """One question in TIMED, whichever are asked beside it."""
    return zlib.crc32(name.encode()) % TIMED == 0


def _tried(*question: Any) -> dict[str, Any]:
    """The answer, or why there is none."""
    try:
        return answer(*question)
    except Exception as error:
        return {"error": reason(error)}


def answer(start: Any, method: Method, processor: Any, max_tokens: int, reliance: bool, timed: bool) -> dict[str, Any]:
    """A greedy answer and what it took. start: gives a session at the end of the prompt, a new one each time."""
    stop = frozenset(processor.eos_token_ids)

    def decode(relevance: bool) -> tuple[list, float]:
        session = start()
        session.want_relevance = relevance
        began = time.perf_counter()
        said = list(steps(session, method, max_tokens, stop=stop))
        return said, time.perf_counter() - began

    found: dict[str, Any] = {}
    if reliance:
        said, _ = decode(True)
        found["reliance"] = [None if step.reliance is None else round(step.reliance, 6) for step in said]
    if timed:
        mx.reset_peak_memory()
        quick, seconds = decode(False)
        said = said if reliance else quick
        found |= {"seconds": round(seconds, 6), "memory": round(mx.get_peak_memory() / 1e9, 6)}
    tokens = [step.token for step in said if step.token not in stop]
    if reliance:
        found["reliance"] = found["reliance"][: len(tokens)]
    text = processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return {"text": text, "tokens": tokens, "steps": len(said), **found}


def sessions(model: Any, content: Any, prompts: Sequence[Prompt], shared: bool = True) -> Iterator[Any]:
    """What opens a session of each prompt, as often as it is called.

    With `shared`, what the prompts about one picture or sound have in common is prefilled once.
    """
    common = _common(model, prompts) if shared else 0
    if not common:
        yield from (partial(Session.open, model, prompt, content=content) for prompt in prompts)
        return
    opening = Session.open(model, prompts[0], content=content)
    opening.prefill(common)
    yield from (partial(opening.branch, prompt) for prompt in prompts)


def _common(model: Any, prompts: Sequence[Prompt]) -> int:
    """How many tokens all prompts begin with, where their pictures or sounds are among these, else 0.

    The newest position of none is among them: it is what a method works on.
    """
    shortest = min(len(prompt) for prompt in prompts) - 1
    rows = np.stack([prompt.input_ids[:shortest] for prompt in prompts])
    alike = (rows == rows[0]).all(axis=0)
    common = shortest if alike.all() else int(alike.argmin())
    media = np.flatnonzero(model.modality(prompts[0]))
    return common if media.size and media[-1] < common else 0


def reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, (LimeError, OSError)) else f"{type(error).__name__}: {text}"


def present(plan: Plan, task: Task, items: list[Item], outcome: Outcome) -> list[Item]:
    """The questions whose pictures or sounds are there."""
    lacking = []
    for medium in dict.fromkeys(item.medium for item in items):
        source = task.source(plan.data, medium)
        if isinstance(source, Path) and not source.is_file():
            lacking.append(medium)
    if not lacking:
        return items
    noun = NOUNS[task.medium][len(lacking) != 1]
    what = f"{len(lacking)} {noun} of {task.name} missing in {plan.data}, such as {', '.join(lacking[:3])}"
    if not plan.skip_missing:
        raise DataError(f"{what}: lime-mlx data get {task.name} brings them, --skip-missing goes on without.")
    kept = [item for item in items if item.medium not in set(lacking)]
    if not kept:
        raise DataError(f"{what}: none is there.")
    outcome.notes.append(f"Left out: {what}.")
    return kept


def _check_ids(spec: str, items: list[Item]) -> None:
    if not items:
        raise DataError(f"{spec} has no questions.")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DataError(f"{spec} has two questions under the id {item.id}.")
        seen.add(item.id)


def _digest(items: list[Item]) -> str:
    return hashlib.sha256(json.dumps([asdict(item) for item in items]).encode()).hexdigest()[:16]
