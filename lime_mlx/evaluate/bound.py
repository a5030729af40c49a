"""It chooses a threshold whose risk is bounded, and makes the promise.

The detector is fitted on every second picture. The bound is computed on the others, which the detector has not seen:
what a procedure keeps of their answers at each threshold is replayed or run, and `risk` says which thresholds pass. Of
these, the one that keeps most is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import ceil, isfinite
from pathlib import Path

import numpy as np
from rich.progress import Progress

from lime_mlx.checkpoint.hub import locate
from lime_mlx.checkpoint.load import load
from lime_mlx.errors import DataError
from lime_mlx.files import WEIGHTS, fingerprint, section
from lime_mlx.generation import generate
from lime_mlx.prompt import NOUNS
from lime_mlx.support.detector import Detector
from lime_mlx.support.promise import DROP, MARK, Promise
from lime_mlx.words import Word

from .calibrate import LEAST, Captions, FittedDetector, Loaded, answered, captioned, fit
from .checks import RunConfig
from .procedures import REPLAYED, RUN, Caption, Outcomes, at_threshold, mentioned, outcomes, replayed
from .records import Record
from .risk import p_value, passed, pictures_needed, reachable
from .store import slug
from .tasks import Item

# The share of plain's supported words that is to be kept.
GOAL = 0.9
# Pictures of the fit on which a method is run at every threshold, to find the one to begin with.
PILOT = 100


@dataclass(frozen=True)
class Wish:
    """What is to be promised: a risk with a probability, 0 to 1 both, of a procedure.

    procedure: "mark", "drop" or the spec of a method that has a threshold, without one.
    """

    risk: float
    confidence: float = 0.95
    procedure: str = DROP

    def check(self) -> None:
        """Raise `MethodError` for a procedure without a threshold."""
        if self.procedure not in (MARK, DROP):
            at_threshold(self.procedure, RUN[0])


@dataclass(frozen=True)
class Bound:
    """What was found on the other half of the pictures. wish: what was to be promised.

    promise: None where the data do not support one. threshold, loss, recall, kept: those of the promise, else of the
    best threshold. pictures: the answers that the bound rests on. problem: why there is no promise, "" where there is
    one. remark: from which risk on `GOAL` would be kept, "" where it is or nothing is promised.
    """

    wish: Wish
    promise: Promise | None
    threshold: float
    loss: float
    recall: float
    kept: float
    pictures: int
    problem: str = ""
    remark: str = ""


def bound(
    config: RunConfig,
    model: str,
    folder: str | Path,
    wish: Wish,
    progress: Progress | None = None,
    notes: list[str] | None = None,
    least: int = LEAST,
) -> tuple[FittedDetector, Bound | None]:
    """A detector with its promise, and the bound behind it; no bound where the detector is not better than chance.

    Arguments and errors are those of `calibrate`; `MethodError` for a procedure that has no threshold.
    """
    wish.check()
    captions = captioned(config, model, folder, progress, [] if notes is None else notes)
    fitted = fit(captions, least, half=True)
    if not fitted.better_than_chance:
        return fitted, None
    if wish.procedure in (MARK, DROP):
        found = _replayed(captions, fitted.detector, wish)
    else:
        found = _run(captions, fitted.detector, wish, folder, progress)
    concluded = _concluded(captions, fitted.detector, wish, found)
    return replace(fitted, promise=concluded.promise), concluded


def choose(found: Outcomes, wish: Wish) -> int | None:
    """The index of the threshold that passes and keeps most, of the lowest where several do; None where none passes."""
    count = passed(found.losses, wish.risk, wish.confidence)
    return int(found.kept[:count].argmax()) if count else None


def _replayed(captions: Captions, detector: Detector, wish: Wish) -> Outcomes:
    """On the half for the bound, from the threshold on that has the smallest loss on the half of the fit."""
    fitted, other = (read(captions, slice(start, None, 2)) for start in (0, 1))
    find = partial(captions.task.objects, material=captions.material)
    first, second = (replayed(wish.procedure, half, detector, find, REPLAYED) for half in (fitted, other))
    return second.since(first.safest())


def _run(captions: Captions, detector: Detector, wish: Wish, folder: str | Path, progress: Progress | None) -> Outcomes:
    """From the threshold on that has the smallest loss on `PILOT` pictures of the fit, up to the first that fails.

    Those after it cannot pass any more, and so they are not run.
    """
    fitted, other = (_given(captions, slice(start, None, 2)) for start in (0, 1))
    pilot = replace(fitted, items=fitted.items[:PILOT], records=fitted.records[:PILOT])

    def found(part: Captions, thresholds: Sequence[float]) -> Outcomes:
        find = partial(captions.task.objects, material=captions.material)
        kept = [_kept(part, detector, at_threshold(wish.procedure, one), folder, progress) for one in thresholds]
        return outcomes(thresholds, kept, read(part, slice(None)), find)

    first = found(pilot, RUN).safest()
    for last in range(first + 1, len(RUN) + 1):
        tested = found(other, RUN[first:last])
        if passed(tested.losses, wish.risk, wish.confidence) < last - first:
            break
    return tested


def _given(captions: Captions, part: slice) -> Captions:
    """A part of captions, without those that failed."""
    pairs = zip(captions.items[part], captions.records[part], strict=True)
    given = [(item, record) for item, record in pairs if "error" not in record]
    return replace(captions, items=[item for item, _ in given], records=[record for _, record in given])


def _kept(
    captions: Captions, detector: Detector, method: str, folder: str | Path, progress: Progress | None
) -> list[list[str]]:
    """The object mentions of the answers that a method gives to the same questions."""
    part = f"{detector.digest}/{slug(method)}"
    records = answered(captions, folder, part, progress, partial(_decoder, captions, detector, method))
    if failed := [record for record in records if "error" in record]:
        raise DataError(
            f"{len(failed)} of {len(records)} answers with {method} failed, such as {failed[0]['id']}: "
            f"{failed[0]['error']}"
        )
    find = partial(captions.task.objects, material=captions.material)
    return [mentioned(record["text"], find) for record in records]


def _decoder(captions: Captions, detector: Detector, method: str) -> Callable[[Item], Record]:
    """What answers with a method, under the detector that was fitted."""
    loaded = load(captions.model)
    config = loaded[0].config
    config["lime"] = {**section(config, "lime"), "detector": asdict(detector)}
    return partial(_decoded, captions, loaded, method)


def _decoded(captions: Captions, loaded: Loaded, method: str, item: Item) -> Record:
    media = captions.task.opened(captions.config.data, item.medium)
    answer = generate(
        *loaded,
        item.text,
        image=media.get("images", ()),
        audio=media.get("audio", ()),
        method=method,
        max_tokens=item.max_tokens,
        reliance=False,
    )
    return {"id": item.id, "medium": item.medium, "text": answer.text.strip()}


def read(captions: Captions, part: slice) -> list[Caption]:
    """The captions of a part of the items that did not fail. Raises `DataError` for captions without their words."""
    read: list[Caption] = []
    for item, record in zip(captions.items[part], captions.records[part], strict=True):
        if "error" in record:
            continue
        if "caption" not in record:
            raise DataError("The stored captions are of an earlier version; choose another --output-dir.")
        words = [Word(text=word["text"], statistics=word["statistics"]) for word in record["caption"]]
        read.append(Caption(words, frozenset(captions.task.true_objects(item))))
    return read


def _concluded(captions: Captions, detector: Detector, wish: Wish, found: Outcomes) -> Bound:
    index = choose(found, wish)
    if index is None or not found.kept[index]:
        index = _best(found, wish)
        return Bound(wish, None, *_figures(found, index), _problem(captions, wish, found, index))
    promise = _promise(captions, detector, wish, found, index)
    remark = ""
    if promise.kept < GOAL:
        risk = reachable(found.losses, found.kept, wish.confidence, GOAL)
        remark = f"{GOAL:.0%} of the true objects that plain decoding names would be kept " + (
            f"from a risk of about {_rounded(risk)} on." if isfinite(risk) else "at no threshold that was tried."
        )
    return Bound(wish, promise, *_figures(found, index), remark=remark)


def _figures(found: Outcomes, index: int) -> tuple[float, float, float, float, int]:
    figures = (found.thresholds[index], found.losses[index].mean(), found.recall[index], found.kept[index])
    threshold, loss, recall, kept = map(float, figures)
    return threshold, loss, recall, kept, found.losses.shape[1]


def _promise(captions: Captions, detector: Detector, wish: Wish, found: Outcomes, index: int) -> Promise:
    threshold, loss, recall, kept, pictures = _figures(found, index)
    flags = wish.procedure in (MARK, DROP)
    (question,) = {item.text for item in captions.items}
    return Promise(
        risk=wish.risk,
        confidence=wish.confidence,
        threshold=threshold,
        procedure=wish.procedure if flags else at_threshold(wish.procedure, threshold),
        pictures=pictures,
        loss=loss,
        recall=recall,
        kept=kept,
        task=captions.spec,
        medium=captions.task.medium,
        question=question,
        tokens=max(item.max_tokens for item in captions.items),
        weights=fingerprint(locate(captions.model), (WEIGHTS,)),
        detector=detector.digest,
    )


def _best(found: Outcomes, wish: Wish) -> int:
    """The threshold that is nearest to a promise: of those that keep the goal, if one of them has a smaller loss than
    the risk, else of those that keep anything. Of several, the one that keeps most."""
    loss = found.losses.mean(axis=1)
    p = p_value(found.losses, wish.risk, wish.confidence)
    keeping = found.kept >= GOAL
    among = keeping if (loss[keeping] < wish.risk).any() else found.kept > 0 if found.kept.any() else found.kept >= 0
    indices: list[int] = np.flatnonzero(among).tolist()
    return min(indices, key=lambda index: (p[index], loss[index], -found.kept[index]))


def _problem(captions: Captions, wish: Wish, found: Outcomes, best: int) -> str:
    """Why nothing can be promised, with the number of pictures that would do, or the risk that is reachable."""
    count, noun = found.losses.shape[1], NOUNS[captions.task.medium][1]
    about = f"a risk of {wish.risk:g} for {captions.model} ({wish.procedure})"
    seen = f"at its best threshold, {found.thresholds[best]:.3g}, the mean loss is {found.losses[best].mean():.2%}"
    if not found.kept[best]:
        return f"No threshold shows {about} and keeps a true object that plain decoding names."
    failed = passed(found.losses, wish.risk, wish.confidence)
    needed = pictures_needed(found.losses[best], wish.risk, wish.confidence)
    if needed is not None and failed < best:  # all before it must pass, too
        needed = max(needed, pictures_needed(found.losses[failed], wish.risk, wish.confidence) or 0)
    if needed is not None and needed > count:
        limit = ceil(needed / count * len(captions.items))
        return f"{count} {noun} cannot show {about}: {seen}, for which about {needed:,} are needed (--limit {limit})."
    risk = reachable(found.losses, found.kept, wish.confidence, min(GOAL, found.kept[best]))
    near = f"a risk of about {_rounded(risk)} is within reach" if risk < 0.99 else "more of them are needed"
    return f"These {count} {noun} do not support {about}: {seen}; {near}."


def _rounded(risk: float) -> str:
    """A risk that is no smaller, with two digits after the point or, below 1 %, four."""
    digits = 1e3 if risk >= 0.01 else 1e4
    return f"{ceil(risk * digits) / digits:g}"


__all__ = ["Bound", "Wish", "bound", "choose", "read"]
