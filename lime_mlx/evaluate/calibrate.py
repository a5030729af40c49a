"""A detector of words without support for one model, from its own captions of pictures or sounds that are known.

What an object word of a plain greedy caption names is there or hallucinated; a logistic regression on few statistics
tells which. It is fitted on one half of the pictures, measured on the other, and then fitted once more on all of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from rich.progress import Progress

from lime_mlx._version import __version__
from lime_mlx.checkpoint.hub import locate
from lime_mlx.checkpoint.load import load
from lime_mlx.errors import DataError
from lime_mlx.evaluate.store import Answers, Store, slug
from lime_mlx.files import fingerprint, write
from lime_mlx.generation import stream_generate
from lime_mlx.prompt import NOUNS
from lime_mlx.support.detector import Detector
from lime_mlx.support.store import place
from lime_mlx.words import Piece, words

from .runner import Outcome, Plan, present, reason
from .tasks import Item, Task, parse_task

STATISTICS = ("share", "positive", "peak", "certainty")
# What a task that is named without options is calibrated on.
SPECS = {name: f"{name}:part=validation,count=500" for name in ("scenes", "sounds")}
# Hallucinated and right words that each half of the pictures must have.
LEAST = 20
KINDS = {"hallucinated": False, "right": True}


@dataclass(frozen=True)
class Quality:
    """auroc, with a 95 % bootstrap interval by picture; precision and recall of hallucinated words at the threshold."""

    auroc: float
    low: float
    high: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Calibration:
    """detector: fitted on all words; quality: of the one that was fitted on half of the pictures, on the other half."""

    model: str
    task: str
    pictures: int
    words: int
    hallucinated: int
    detector: Detector
    quality: Quality

    @property
    def tells(self) -> bool:
        """Whether the detector is better than chance."""
        return self.quality.low > 0.5


def calibrate(
    plan: Plan,
    model: str,
    folder: str | Path,
    progress: Progress | None = None,
    outcome: Outcome | None = None,
    least: int = LEAST,
) -> Calibration:
    """A detector for `model` from its captions in the one task of `plan`; its methods are not used.

    folder: keeps the captions, so that a kill loses one at most. outcome: is told what was left out, and what failed.
    Raises `DataError` for a task without captions, a model that does not take its medium, or when one half of the
    pictures gives fewer than `least` hallucinated or right words.
    """
    (spec,) = plan.tasks
    task, outcome, store = parse_task(spec), outcome or Outcome(), Store(folder)
    task.objects((), material := task.material(plan.data))
    items = [item for item in task.items(plan.data, plan.limit, plan.seed) if item.label is None]
    if not items:
        raise DataError(f"{spec} has no captions to calibrate on.")
    items = present(plan, task, items, outcome)
    own = f"{fingerprint(locate(model))}-{__version__}"
    with store.locked():
        held = Answers(store.folder / "calibration" / own / f"{slug(spec)}.jsonl")
        _ask(plan, model, task, items, material, held, progress)
    records = [held.records[item.id] for item in items]
    failed = [(record["id"], record["error"]) for record in records if "error" in record]
    if failed:
        outcome.notes.append(f"{len(failed)} of {len(items)} captions failed, such as {': '.join(failed[0])}")
    if len(failed) == len(items):
        raise DataError(f"No caption could be given: {failed[0][1]}")
    halves = [_rows(records[start::2]) for start in (0, 1)]
    rows = [*halves[0], *halves[1]]
    _check_enough(halves, len(items), NOUNS[task.medium][1], least)
    quality = measured(fitted(halves[0]), halves[1], [row["medium"] for row in halves[1]])
    wrong = sum(not row["there"] for row in rows)
    return Calibration(model, spec, len(items) - len(failed), len(rows), wrong, fitted(rows), quality)


def keep(found: Calibration) -> Path:
    """Install a detector in the user's folder, where `load` finds it; returns the file."""
    file = place(locate(found.model))
    write(file, json.dumps({"lime-mlx": __version__, **asdict(found)}, indent=1) + "\n")
    return file


def _ask(plan, model, task: Task, items: list[Item], material, held: Answers, progress: Progress | None) -> None:
    """Caption what was not captioned yet."""
    pending = held.lacking(items)
    bar = progress and progress.add_task(
        f"{model} · {task.name}", total=len(items), completed=len(items) - len(pending)
    )
    loaded = load(model) if pending else None
    if loaded and task.medium not in loaded[1].takes:
        raise DataError(f"{model} takes no {NOUNS[task.medium][1]}; calibrate it on another --task.")
    for item in pending:
        try:
            record = _captioned(plan, loaded, task, item, material)
        except Exception as error:  # whatever is wrong with one picture, the others can be captioned
            record = {"id": item.id, "medium": item.medium, "error": reason(error)}
        held.append(record)
        mx.clear_cache()
        if bar is not None:
            progress.advance(bar)


def _captioned(plan: Plan, loaded: tuple, task: Task, item: Item, material: Mapping[str, Any]) -> dict[str, Any]:
    """A plain greedy caption, and of each object word whether it is there, and the evidence of its first token."""
    source, there = {task.medium: task.source(plan.data, item.medium)}, set(task.there(item))
    told = stream_generate(
        *loaded, item.text, **source, method="none", max_tokens=item.max_tokens, reliance=False, evidence=True
    )
    said = list(words(Piece(response.text, evidence=response.evidence) for response in told))
    named = [
        {"object": name, "there": name in there, **said[index].evidence}
        for index, name in task.objects([word.text for word in said], material)
        if said[index].evidence is not None
    ]
    return {"id": item.id, "medium": item.medium, "text": "".join(word.text for word in said).strip(), "words": named}


def _rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**word, "medium": record["medium"]} for record in records for word in record.get("words", ())]


def _check_enough(halves: Sequence[list], pictures: int, noun: str, least: int) -> None:
    counts = {what: [sum(row["there"] == there for row in half) for half in halves] for what, there in KINDS.items()}
    kind = min(counts, key=lambda what: min(counts[what]))
    fewest = min(counts[kind])
    if fewest < least:
        more = ceil(pictures * (least - fewest) / max(fewest, 1))
        raise DataError(
            f"{pictures} {noun} gave {sum(counts[kind])} {kind} object words, {fewest} in one half, and each half "
            f"needs {least}: about {more} more {noun} are needed (--limit {pictures + more})."
        )


def fitted(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = STATISTICS) -> Detector:
    """A detector on the statistics `names` of words that are "there" or not; its threshold has the best F1 on them."""
    features = np.array([[row[name] for name in names] for row in rows])
    positive = np.array([not row["there"] for row in rows])
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation[deviation == 0] = 1
    *weights, intercept = logistic((features - mean) / deviation, positive)
    weights = np.array(weights) / deviation
    detector = Detector(dict(zip(names, weights.tolist(), strict=True)), float(intercept - weights @ mean), 0.5)
    doubts = np.array([detector.p_unsupported(row) for row in rows])
    return replace(detector, threshold=float(max(np.unique(doubts), key=lambda t: _f1(doubts >= t, positive))))


def logistic(features: np.ndarray, positive: np.ndarray, penalty: float = 1e-3, rounds: int = 50) -> np.ndarray:
    """Weights (F + 1,), the last the intercept, of a logistic regression of positive (N,) on features (N, F).

    The mean log loss plus penalty / 2 times the squares of the weights but the intercept, by Newton's method; a step
    that does not lower it is halved.
    """
    x, y = np.c_[features, np.ones(len(features))], positive.astype(float)
    shrunk = penalty * np.r_[np.ones(x.shape[1] - 1), 0]
    weights = np.zeros(x.shape[1])

    def loss(weights: np.ndarray) -> float:
        score = x @ weights
        return float((np.logaddexp(0, score) - y * score).mean() + shrunk @ weights**2 / 2)

    for _ in range(rounds):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -60, 60)))
        slope = x.T @ (p - y) / len(y) + shrunk * weights
        curve = (x * (p * (1 - p))[:, None]).T @ x / len(y) + np.diag(shrunk + 1e-12)
        step, before = np.linalg.solve(curve, slope), loss(weights)
        scale = next((0.5**n for n in range(30) if loss(weights - 0.5**n * step) < before), 0)
        if not scale:
            break
        weights = weights - scale * step
    return weights


def measured(detector: Detector, rows: Sequence[Mapping[str, Any]], owner: Sequence[Any]) -> Quality:
    """How well a detector tells the words that are not there; owner (N,): the picture of each word."""
    doubts = np.array([detector.p_unsupported(row) for row in rows])
    positive, flagged = np.array([not row["there"] for row in rows]), doubts >= detector.threshold
    right = int((flagged & positive).sum())
    precision, recall = right / max(1, int(flagged.sum())), right / max(1, int(positive.sum()))
    return Quality(auroc(doubts, positive), *auroc_interval(doubts, positive, owner), precision, recall)


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive has the higher score, ties half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    count = positive.sum()
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores) - count)))


def auroc_interval(
    scores: np.ndarray, positive: np.ndarray, owner: Sequence[Any], samples: int = 1000
) -> tuple[float, float]:
    """95 % bootstrap interval of the AUROC, drawing whole pictures."""
    owner = np.asarray(owner)
    rng, groups = np.random.default_rng(0), [np.flatnonzero(owner == o) for o in np.unique(owner)]
    values = []
    for _ in range(samples):
        rows = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        if 0 < positive[rows].sum() < len(rows):
            values.append(auroc(scores[rows], positive[rows]))
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _f1(flagged: np.ndarray, positive: np.ndarray) -> float:
    return 2 * float((flagged & positive).sum()) / max(1, int(flagged.sum() + positive.sum()))
