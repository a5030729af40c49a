"""A detector of words without support for one model, from its own captions of pictures or sounds with known objects.

Each object word of a plain greedy caption is there or hallucinated. A logistic regression on a few statistics tells
which, and a second one adds what the model says when it is asked back. They are fitted on one half of the pictures,
measured on the other, and then fitted again on all of them; but where a bound is to be computed, the other half is left
for that.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import ceil
from pathlib import Path
from time import perf_counter

import mlx.core as mx
from rich.progress import Progress

from lime_mlx._version import __version__
from lime_mlx.checkpoint.hub import locate
from lime_mlx.checkpoint.load import load
from lime_mlx.errors import DataError
from lime_mlx.evaluate.store import Answers, Store, slug
from lime_mlx.files import fingerprint, write
from lime_mlx.generation import stream_generate
from lime_mlx.models.base import Model
from lime_mlx.processor import Processor
from lime_mlx.prompt import NOUNS, Noun
from lime_mlx.session import Session
from lime_mlx.support.detector import Detector
from lime_mlx.support.domain import LEAST as LEAST_INPUTS
from lime_mlx.support.domain import Domain
from lime_mlx.support.promise import Promise
from lime_mlx.support.store import detector_file
from lime_mlx.words import Word, with_margin, words

from . import yes_no
from .asking import reason
from .checks import RunConfig, check_model, select_available
from .fitting import Quality, Row, fitted, fitted_domain, measured
from .records import Material, Record
from .tasks import Item, Task, parse_task

# The task on which a task that is named without options is calibrated, and where a bound is computed, too.
SPECS = {name: f"{name}:part=validation,count=500" for name in ("scenes", "sounds")}
BOUND_SPECS = {name: f"{name}:part=validation,count=1000" for name in SPECS}
# Hallucinated and right words that each half of the pictures must have.
LEAST = 20
KINDS = {"hallucinated": False, "right": True}
Loaded = tuple[Model, Processor]


@dataclass(frozen=True)
class FittedDetector:
    """A detector, fitted on all words, and what it was fitted on.

    model, task: their specs. pictures, words, hallucinated: how many there were. quality: that of a detector fitted on
    half of the pictures, on the other half. domain: what the inputs are like, None for too few to say so. promise: what
    was shown on the other half of one fitted on half of them. yes: the threshold of yes, None for a task without enough
    yes/no questions.
    """

    model: str
    task: str
    pictures: int
    words: int
    hallucinated: int
    detector: Detector
    quality: Quality
    domain: Domain | None = None
    promise: Promise | None = None
    yes: yes_no.YesThreshold | None = None

    def to_dict(self) -> dict[str, object]:
        """JSON values."""
        return {**asdict(replace(self, domain=None)), "domain": self.domain and self.domain.to_dict()}

    @property
    def better_than_chance(self) -> bool:
        """Whether the whole interval of the AUROC is above one half."""
        return self.quality.low > 0.5


@dataclass(frozen=True)
class Captions:
    """The captions of one task that a model gives. material: what finding objects in them needs.

    records: one for each item, in their order, once they were given; a failure has an "error".
    """

    config: RunConfig
    model: str
    spec: str
    task: Task
    items: list[Item]
    material: Material
    records: list[Record] = field(default_factory=list)


def calibrate(
    config: RunConfig,
    model: str,
    folder: str | Path,
    progress: Progress | None = None,
    notes: list[str] | None = None,
    least: int = LEAST,
) -> FittedDetector:
    """A detector for `model` from its captions in the one task of `config`, whose methods are not used.

    folder: keeps the captions, so that a kill loses one at most. notes: gets what was left out and what failed.
    Raises `DataError` for a task without captions, a model that does not take its medium, or when one half of the
    pictures gives fewer than `least` hallucinated or right words.
    """
    notes = [] if notes is None else notes
    captions = captioned(config, model, folder, progress, notes)
    fitted_one = fit(captions, least)
    if fitted_one.domain is None:
        noun = NOUNS[captions.task.medium][1]
        notes.append(f"{len(captions.items)} {noun} cannot tell which others are like them: that needs {LEAST_INPUTS}.")
    asked = yes_no.ask(config, model, captions.spec, captions.task, Path(folder), progress)
    return replace(fitted_one, yes=yes_no.fitted_threshold(asked))


def caption_seconds(config: RunConfig, model: str) -> float:
    """Seconds that a caption of `calibrate` takes here, by the second of two: the first one warms up."""
    captions, seconds = _prepare(config, model, []), 0.0
    give = partial(_captioned, captions, load(model))
    for item in captions.items[:2]:
        start = perf_counter()
        give(item)
        seconds = perf_counter() - start
    return seconds


def captioned(
    config: RunConfig, model: str, folder: str | Path, progress: Progress | None, notes: list[str]
) -> Captions:
    """The captions of `calibrate`, from `folder` or from the model. Raises the same errors."""
    captions = _prepare(config, model, notes)
    records = answered(captions, folder, "", progress, lambda: partial(_captioned, captions, load(model)))
    captions = replace(captions, records=records)
    failed = [record for record in captions.records if "error" in record]
    if failed:
        count = len(captions.items)
        notes.append(f"{len(failed)} of {count} captions failed, such as {failed[0]['id']}: {failed[0]['error']}")
    if len(failed) == len(captions.items):
        raise DataError(f"No caption could be given: {failed[0]['error']}")
    return captions


def fit(captions: Captions, least: int = LEAST, half: bool = False) -> FittedDetector:
    """The detector of captions. half: fitted on every second one only, from the first on; its quality is its own then.

    Raises `DataError` when one half of the captions gives fewer than `least` hallucinated or right words.
    """
    first, second = (_rows(captions.records[start::2]) for start in (0, 1))
    _check_enough([first, second], len(captions.items), NOUNS[captions.task.medium][1], least)
    measured_one = fitted(first)
    quality = measured(measured_one, second, [row["medium"] for row in second])
    rows = [*first, *second]
    pictures, wrong = sum("error" not in record for record in captions.records), sum(not row["there"] for row in rows)
    domain = fitted_domain(
        [record["features"] for record in captions.records if "features" in record], captions.task.inputs
    )
    detector = measured_one if half else fitted(rows)
    return FittedDetector(captions.model, captions.spec, pictures, len(rows), wrong, detector, quality, domain)


def keep(fit: FittedDetector) -> Path:
    """Write a detector to the user's folder, where `load` finds it; returns the file."""
    file = detector_file(locate(fit.model))
    write(file, json.dumps({"lime-mlx": __version__, **fit.to_dict()}) + "\n")
    return file


def _prepare(config: RunConfig, model: str, notes: list[str]) -> Captions:
    """What is to be captioned, checked before anything is loaded or written."""
    (spec,) = config.tasks
    task = parse_task(spec)
    material = task.material(config.data)
    task.objects((), material)
    items = [item for item in task.items(config.data, config.limit, config.seed) if item.label is None]
    if not items:
        raise DataError(f"{spec} has no captions to calibrate on.")
    items, note = select_available(config, task, items)
    notes += [note] if note else []
    if task.medium not in check_model(model, {}).takes:
        raise DataError(f"{model} takes no {NOUNS[task.medium][1]}; calibrate it on another --task.")
    return Captions(config, model, spec, task, items, material)


def answered(
    captions: Captions,
    folder: str | Path,
    part: str,
    progress: Progress | None,
    opened: Callable[[], Callable[[Item], Record]],
) -> list[Record]:
    """The records of all items, from `folder` or new ones; part: "" for plain captions, else a folder in it.

    opened: loads what answers; it is not called where nothing is lacking. A failure becomes a record with its reason.
    """
    store = Store(folder)
    with store.locked():
        name = f"{fingerprint(locate(captions.model))}-{__version__}"
        answers = Answers(store.folder / "calibration" / name / part / f"{slug(captions.spec)}.jsonl")
        pending, total = answers.lacking(captions.items), len(captions.items)
        title = f"{captions.model} · {captions.task.name}"
        bar = progress.add_task(title, total=total, completed=total - len(pending)) if progress else None
        give = opened() if pending else None
        for item in pending:
            assert give is not None
            try:
                record = give(item)
            except Exception as error:  # whatever is wrong with one picture, the others can be captioned
                record = {"id": item.id, "medium": item.medium, "error": reason(error)}
            answers.append(record)
            mx.clear_cache()
            if progress and bar is not None:
                progress.advance(bar)
    return [answers.records[item.id] for item in captions.items]


def _captioned(captions: Captions, loaded: Loaded, item: Item) -> Record:
    """A plain greedy caption with its words; each object word with its statistics, and whether it is there."""
    task, truth = captions.task, set(captions.task.true_objects(item))
    model, processor = loaded
    prompt = processor.prompt(item.text, **task.opened(captions.config.data, item.medium))
    features = Session.open(model, prompt).media_features()
    responses = stream_generate(model, processor, prompt, method="none", max_tokens=item.max_tokens)
    kept = list(responses)
    ask, caption = kept[-1].ask, list(words(kept))
    named = [word.noun for word in caption if word.noun is not None]
    margins = dict(zip(named, ask(named), strict=True)) if ask is not None else {}
    known = [_known(word, margins) for word in caption]
    object_words: list[dict[str, float | str | bool]] = []
    for index, name in task.objects([word.text for word in caption], captions.material):
        if statistics := known[index]:
            object_words.append({"object": name, "there": name in truth, **statistics})
    text = "".join(word.text for word in caption).strip()
    return {
        "id": item.id,
        "medium": item.medium,
        "text": text,
        "words": object_words,
        "caption": [{"text": word.text, "statistics": row} for word, row in zip(caption, known, strict=True)],
        "features": [row.tolist() for row in features],
    }


def _known(word: Word, margins: Mapping[Noun, float | None]) -> dict[str, float] | None:
    """The statistics of a word, with the margin of the name that it is a part of."""
    word = with_margin(word, None if word.noun is None else margins.get(word.noun))
    return None if word.statistics is None else dict(word.statistics)


def _rows(records: Sequence[Record]) -> list[Row]:
    return [{**word, "medium": record["medium"]} for record in records for word in record.get("words", ())]


def _check_enough(halves: Sequence[Sequence[Row]], pictures: int, noun: str, least: int) -> None:
    """Raise `DataError`, with how many more captions are needed, where a half has too few words of one kind."""
    counts = {
        kind: [sum(row["there"] == present for row in half) for half in halves] for kind, present in KINDS.items()
    }
    kind = min(counts, key=lambda name: min(counts[name]))
    fewest = min(counts[kind])
    if fewest < least:
        more = ceil(pictures * (least - fewest) / max(fewest, 1))
        raise DataError(
            f"{pictures} {noun} gave {sum(counts[kind])} {kind} object words, {fewest} in one half, and each half "
            f"needs {least}: about {more} more {noun} are needed (--limit {pictures + more})."
        )
