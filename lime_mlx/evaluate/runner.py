"""The questions of all tasks, put to all models with all methods; questions about one picture share its prefill."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from rich.progress import Progress

from lime_mlx._version import __version__
from lime_mlx.checkpoint import load
from lime_mlx.errors import DataError, LimeError
from lime_mlx.generate import steps
from lime_mlx.hub import locate
from lime_mlx.media.audio import open_audio
from lime_mlx.media.image import open_image
from lime_mlx.methods import Method, Session, parse_method
from lime_mlx.prompt import NOUNS, Prompt

from .hosts import Hosts
from .store import Answers, Cell, Store
from .tasks import Item, Task, parse_task

# Where reliance is recorded, one answer of so many is given once more without it, to be timed.
TIMED = 10
WHOLE, EDGE = 1 << 26, 1 << 20


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
    asked = {spec: _present(plan, tasks[spec], items, outcome) for spec, items in questions.items()}
    settings = {
        "common": {
            "lime-mlx": __version__,
            "mlx": version("mlx"),
            "limit": plan.limit,
            "seed": plan.seed,
            "reliance": plan.reliance,
        },
        "models": {model: fingerprint(locate(model)) for model in dict.fromkeys(plan.models)},
        "methods": list(methods),
        "tasks": {spec: {"questions": len(items), "sha256": _digest(items)} for spec, items in questions.items()},
        "data": None if plan.data is None else str(plan.data.resolve()),
    }
    with store.locked(hosts.rank):
        store.begin(settings)
        for spec, task in tasks.items():
            store.keep(spec, task.material(plan.data))
        for model in settings["models"]:
            cells = {Cell(model, method, task): methods[method] for task in tasks for method in methods}
            _run_model(plan, model, cells, tasks, questions, asked, store, hosts, progress, outcome)
    return outcome


def _run_model(plan, model, cells, tasks, questions, asked, store, hosts, progress, outcome) -> None:
    rank = hosts.rank if hosts.size > 1 else None
    answers = {cell: store.answers(cell, rank) for cell in cells}
    _exchange(hosts, answers, questions)
    loaded = None
    for spec, task in tasks.items():
        own = {cell: answers[cell] for cell in cells if cell.task == spec}
        pending = [group for group in _groups(asked[spec]) if any(_lacking(group, held) for held in own.values())]
        bar = None
        if progress is not None and hosts.first:
            total, missing = (len(own) * len(items) for items in (asked[spec], [i for group in pending for i in group]))
            bar = progress.add_task(f"{model} · {spec}", total=total, completed=total - missing)
        for group in pending[hosts.rank :: hosts.size]:
            loaded = loaded or load(model)
            if task.medium not in loaded[1].takes:
                outcome.notes.append(f"{model} takes no {NOUNS[task.medium][1]}: {spec} is left out.")
                break
            _ask(plan, loaded, task, group, {cell: (cells[cell], held) for cell, held in own.items()}, asked[spec])
            if bar is not None:
                progress.advance(bar, len(own) * len(group) * hosts.size)
    _exchange(hosts, answers, questions)
    for cell, held in answers.items():
        outcome.answered += sum("error" not in record for record in held.records.values())
        outcome.failed += [(cell, name, r["error"]) for name, r in held.records.items() if "error" in r]
    del loaded
    mx.clear_cache()


def _exchange(hosts: Hosts, answers: dict[Cell, Answers], questions: dict[str, list[Item]]) -> None:
    """Let every process know every record, and put the files in order."""
    for cell, held in answers.items():
        for records in hosts.share(list(held.records.values())):
            for record in records:
                held.take(record)
        held.settle(item.id for item in questions[cell.task])
    hosts.share(None)  # nobody appends before all have settled


def _groups(items: Sequence[Item]) -> list[list[Item]]:
    """The questions of each picture or sound."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.medium, []).append(item)
    return list(groups.values())


def _lacking(group: Sequence[Item], held: Answers) -> list[Item]:
    return [item for item in group if "text" not in held.records.get(item.id, {})]


def _ask(plan: Plan, loaded: tuple, task: Task, group: list[Item], cells: dict, items: list[Item]) -> None:
    """Put the questions about one picture or sound with each method, where the answer is lacking."""
    model, processor = loaded
    places = {item.id: place for place, item in enumerate(items)}
    try:
        media = _media(task, plan.data, group[0].medium)
        prompts = processor.prompts([item.text for item in group], **media)
        sessions = dict(
            zip((item.id for item in group), _sessions(model, processor, prompts, plan.shared), strict=True)
        )
    except Exception as error:  # whatever is wrong with one picture, the others can be asked about
        for _, held in cells.values():
            for item in _lacking(group, held):
                held.append(_record(item, error=_reason(error)))
        return
    for method, held in cells.values():
        for item in _lacking(group, held):
            timed = not plan.reliance or places[item.id] % TIMED == 0
            try:
                found = answer(sessions[item.id], method, processor, item.max_tokens, plan.reliance, timed)
            except Exception as error:
                held.append(_record(item, error=_reason(error)))
            else:
                held.append(_record(item, **found))
    mx.clear_cache()


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


def _sessions(model: Any, processor: Any, prompts: Sequence[Prompt], shared: bool) -> Iterator[Any]:
    """What opens a session of each prompt; what they have in common, with the picture, is prefilled once."""
    common = _common(model, prompts) if shared else 0
    if not common:
        yield from (lambda prompt=prompt: Session.open(model, prompt, content=processor.content) for prompt in prompts)
        return
    opening = Session.open(model, prompts[0], content=processor.content)
    opening.prefill(common)
    yield from (lambda prompt=prompt: opening.branch(prompt) for prompt in prompts)


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


def _media(task: Task, data: Path | None, medium: str) -> dict[str, list]:
    source = task.source(data, medium)
    return {"images": [open_image(source)]} if task.medium == "image" else {"audio": [open_audio(source)]}


def _record(item: Item, **found: Any) -> dict[str, Any]:
    asked = {"id": item.id, "medium": item.medium, "split": item.split, "prompt": item.text, "label": item.label}
    return {**asked, "truth": item.truth, **found}


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, (LimeError, OSError)) else f"{type(error).__name__}: {text}"


def _present(plan: Plan, task: Task, items: list[Item], outcome: Outcome) -> list[Item]:
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


def fingerprint(folder: Path) -> str:
    """What tells a checkpoint from another: of its settings and weights; of a large file, its length and both ends."""
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.json"), *folder.glob("*.jinja"), *folder.glob("*.safetensors")]):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        with file.open("rb") as opened:
            if size <= WHOLE:
                digest.update(opened.read())
            else:
                digest.update(opened.read(EDGE))
                opened.seek(-EDGE, 2)
                digest.update(opened.read())
    return digest.hexdigest()[:16]
