"""The threshold of yes for one model: the margin of yes over no from which its answers are most often right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from rich.progress import Progress

from lime_mlx._version import __version__
from lime_mlx.checkpoint.hub import locate
from lime_mlx.checkpoint.load import load
from lime_mlx.evaluate.store import Answers, slug
from lime_mlx.files import fingerprint
from lime_mlx.models.base import Model
from lime_mlx.processor import Processor

from .asking import reason, sessions
from .checks import RunConfig
from .records import Record
from .tasks import Item, Task

# Questions about so many pictures or sounds are enough: a threshold is one number.
MEDIA = 100
# With fewer questions of one answer nothing is fitted.
LEAST = 50


@dataclass(frozen=True)
class YesThreshold:
    """The threshold, and the share of right answers without and with it on the questions that it was fitted on."""

    threshold: float
    questions: int
    accuracy_before: float
    accuracy: float


def fitted_threshold(records: Sequence[Record]) -> YesThreshold | None:
    """The threshold with the most right answers, of those the nearest to 0; None with too few questions.

    records: the questions, each with its margin and its label.
    """
    values = np.array([record["margin"] for record in records], dtype=np.float64)
    yes = np.array([record["label"] == "yes" for record in records], dtype=bool)
    if min(yes.sum(), len(yes) - yes.sum()) < LEAST:
        return None
    ordered = np.unique(values)
    thresholds = np.concatenate([[0.0], (ordered[1:] + ordered[:-1]) / 2])
    accuracies = np.array([((values > threshold) == yes).mean() for threshold in thresholds])
    best = thresholds[accuracies == accuracies.max()]
    chosen = float(best[np.abs(best).argmin()])
    return YesThreshold(chosen, len(yes), float(accuracies[0]), float(accuracies.max()))


def ask(config: RunConfig, model: str, spec: str, task: Task, folder: Path, progress: Progress | None) -> list[Record]:
    """The margins of the questions of a task about the first `MEDIA` pictures or sounds; [] for one without questions.

    folder: keeps them, so that a kill loses one picture at most.
    """
    items = [item for item in task.items(config.data, config.limit, config.seed) if item.label is not None]
    kept = list(dict.fromkeys(item.medium for item in items))[:MEDIA]
    items = [item for item in items if item.medium in kept]
    if not items:
        return []
    name = f"{fingerprint(locate(model))}-{__version__}"
    answers = Answers(folder / "calibration" / name / "yes-no" / f"{slug(spec)}.jsonl")
    pending = answers.lacking(items)
    bar = progress.add_task(f"{model} · yes and no", total=len(kept)) if progress else None
    if pending:
        loaded = load(model)
        for medium in kept:
            for record in _asked(loaded, config, task, [item for item in pending if item.medium == medium]):
                answers.append(record)
            mx.clear_cache()
            if progress and bar is not None:
                progress.advance(bar)
    return [answers.records[item.id] for item in items if "error" not in answers.records[item.id]]


def _asked(loaded: tuple[Model, Processor], config: RunConfig, task: Task, items: list[Item]) -> list[Record]:
    """The margins of questions about one picture or sound."""
    if not items:
        return []
    model, processor = loaded
    try:
        media = task.opened(config.data, items[0].medium)
        prompts = processor.prompts([item.text for item in items], **media)
        opened = list(sessions(model, prompts, config.shared))
        margins = [
            prompt.language.yes_no.margin(np.array(factory().extend()))
            for factory, prompt in zip(opened, prompts, strict=True)
            if prompt.language is not None
        ]
    except Exception as error:  # whatever is wrong with one picture, the others can be asked about
        return [{"id": item.id, "medium": item.medium, "error": reason(error)} for item in items]
    return [
        {
            "id": item.id,
            "medium": item.medium,
            "label": item.label,
            "text": "yes" if margin > 0 else "no",
            "margin": margin,
        }
        for item, margin in zip(items, margins, strict=True)
    ]
