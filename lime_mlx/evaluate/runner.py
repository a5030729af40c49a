"""A run: the questions of all tasks, put to all models with all methods."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import Progress

from .asking import Advance, ModelRun
from .checks import RunConfig, Workload, prepare
from .hosts import Hosts
from .store import Answers, Cell, Store
from .tasks import Item

__all__ = ["Failure", "RunConfig", "RunOutcome", "run"]


@dataclass(frozen=True)
class Failure:
    """A question without an answer, and why."""

    cell: Cell
    id: str
    reason: str


@dataclass
class RunOutcome:
    """answered: the number of answers; failed: the questions without one; notes: what was left out."""

    answered: int = 0
    failed: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def run(
    config: RunConfig, folder: str | Path, hosts: Hosts | None = None, progress: Progress | None = None
) -> RunOutcome:
    """Answer the questions that lack an answer in `folder`. A kill loses at most the answer that was being given.

    Raises the errors of `LimeError` for what is wrong before the first question: methods, tasks, data, models, a folder
    with other settings or at work. What goes wrong with one question is recorded with it, and tried again next time.
    """
    hosts, store, work = hosts or Hosts(), Store(folder), prepare(config)
    with store.removed_if_unused(), store.locked(hosts.rank):
        store.begin(work.settings)
        for spec, material in work.materials.items():
            store.keep(spec, material)
        answers = _open_answers(store, work, hosts.rank if hosts.size > 1 else None)
        _exchange(hosts, answers, work)
        advance = _progress_over(progress if hosts.first else None, answers, work, hosts.size)
        notes = [*work.notes]
        for model in work.settings["models"]:
            groups = pending_groups(model, work, answers)[hosts.rank :: hosts.size]
            notes += _ask(config, model, work, answers, advance, groups)
        _exchange(hosts, answers, work)
    return _outcome(answers, notes)


def _open_answers(store: Store, work: Workload, rank: int | None) -> dict[Cell, Answers]:
    """The stored answers of every cell of this run."""
    cells = (
        Cell(model, method, task) for model in work.settings["models"] for task in work.tasks for method in work.methods
    )
    return {cell: store.answers(cell, rank) for cell in cells}


def _ask(
    config: RunConfig,
    model: str,
    work: Workload,
    answers: Mapping[Cell, Answers],
    advance: Advance,
    groups: list[tuple[str, list[Item]]],
) -> list[str]:
    """Put groups of questions to one model, which is in memory only here; returns the notes."""
    if not groups:
        return []
    model_run = ModelRun(config, model, work, answers, advance)
    return sorted({note for spec, items in groups if (note := model_run.ask(spec, items))})


def _outcome(answers: Mapping[Cell, Answers], notes: list[str]) -> RunOutcome:
    outcome = RunOutcome(notes=notes)
    for cell, stored in answers.items():
        for name, record in stored.records.items():
            if "error" in record:
                outcome.failed.append(Failure(cell, name, record["error"]))
            else:
                outcome.answered += 1
    return outcome


def _exchange(hosts: Hosts, answers: Mapping[Cell, Answers], work: Workload) -> None:
    """Give every process all records, and put the files in order."""
    for cell, stored in answers.items():
        for records in hosts.share(list(stored.records.values())):
            for record in records:
                stored.add(record)
        stored.settle(item.id for item in work.questions[cell.task])
    hosts.share(None)  # no process appends before all have settled


def _progress_over(
    progress: Progress | None, answers: Mapping[Cell, Answers], work: Workload, processes: int
) -> Advance:
    """A bar over all cells of the run. Returns what moves it; each step counts for all processes."""
    if progress is None:
        return lambda cell, count: None
    total = sum(len(work.available[cell.task]) for cell in answers)
    lacking = sum(len(stored.lacking(work.available[cell.task])) for cell, stored in answers.items())
    bar = progress.add_task("", total=total, completed=total - lacking)

    def advance(cell: Cell, count: int) -> None:
        completed = min(total, progress.tasks[bar].completed + count * processes)
        progress.update(bar, completed=completed, description=f"{cell.model} · {cell.task}")

    return advance


def pending_groups(model: str, work: Workload, answers: Mapping[Cell, Answers]) -> list[tuple[str, list[Item]]]:
    """The questions about each picture or sound, with their task, where some cell of the model lacks an answer."""
    pending = []
    for spec in work.tasks:
        stored = [cell_answers for cell, cell_answers in answers.items() if (cell.model, cell.task) == (model, spec)]
        groups = _by_medium(work.available[spec])
        pending += [(spec, group) for group in groups if any(cell_answers.lacking(group) for cell_answers in stored)]
    return pending


def _by_medium(items: Iterable[Item]) -> list[list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.medium, []).append(item)
    return list(groups.values())
