"""Which detector tells a word without support? A table over the object words of the demo's captions.

    python benchmarks/detection_study.py --demo picture --first 100000
    python benchmarks/detection_study.py --demo sound --first 100000 --scenes 300
    python benchmarks/detection_study.py --demo picture --calibrate share,positive,peak,certainty

Each object word of a plain greedy caption is right or hallucinated; what is measured is of the word's first token, see
detectors.py. Every column is fitted on every second scene and measured on the others. The probe on hidden states also
chooses its layer, or all of them, and its penalty: fitted on one half of the first half, by the AUROC on the other.
Records go to JSON lines and are not computed twice. Times are only comparable within one run.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from detectors import COLUMNS, PLAIN, PROBES, Column, Moment
from rich.progress import track

from lime_mlx import load
from lime_mlx.decoding import decode
from lime_mlx.evaluate.fitting import auroc, auroc_interval, fitted, logistic, measured, unsupported
from lime_mlx.evaluate.records import Record
from lime_mlx.evaluate.store import Answers
from lime_mlx.evaluate.tasks.scenes import PARTS, Scenes, Sounds
from lime_mlx.models.base import Model
from lime_mlx.processor import Processor
from lime_mlx.prompt import Prompt
from lime_mlx.session import Session
from lime_mlx.support.detector import Detector

# The world of each bundled checkpoint, and its name.
TASKS = {"picture": (Scenes, "demo"), "sound": (Sounds, "demo-sound")}
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LONGEST = 48
# What makes an AUROC: scores (N,), and which of the N words are hallucinated.
Scores = np.ndarray


def records(loaded: tuple[Model, Processor], task: Scenes, seeds: range, file: Path) -> list[Record]:
    """One record a scene, with its named objects: what was measured before them, and whether they are there."""
    model, processor = loaded
    answers = Answers(file)
    stop = frozenset(processor.eos_token_ids)
    for seed in track([seed for seed in seeds if str(seed) not in answers.records], description=str(file)):
        scene, medium = task.scene(seed), str(seed)
        prompt = processor.prompt(task.request, **task.opened(None, medium))
        steps = decode(model, prompt, "none", LONGEST, stop=stop, reliance=False)
        tokens = [step.token for step in steps if step.token not in stop]
        texts = [processor.tokenizer.decode([token]) for token in tokens]
        words = gather(model, prompt, tokens, dict(task.objects(texts, {})))
        for word in words:
            word["there"] = word["object"] in scene.kinds
        answers.append({"id": medium, "medium": medium, "text": "".join(texts), "words": words})
    return [answers.records[str(seed)] for seed in seeds]


def gather(model: Model, prompt: Prompt, tokens: Sequence[int], named: dict[int, str]) -> list[dict]:
    """What every probe measures before each named object, and how long it took in seconds. named: by index of token."""
    session, blank = Session.open(model, prompt), Session.open(model, model.blank(prompt))
    words = []
    for index, token in enumerate(tokens):
        if index in named:
            session.prefill()
            moment = Moment(session, token, named[index], blank)
            word: dict = {"object": named[index]}
            for name, probe in PROBES.items():
                began = time.perf_counter()
                word |= probe.measure(moment)
                word[f"seconds of {name}"] = time.perf_counter() - began
            words.append(word)
        session.append(token)
    return words


def halves(kept: Sequence[Record]) -> tuple[list[dict], list[dict]]:
    """The words of every second scene, and those of the others, each with its scene."""
    first, second = ([{**w, "medium": r["medium"]} for r in kept[start::2] for w in r["words"]] for start in (0, 1))
    return first, second


def scores_of(column: Column, first: Sequence[dict], second: Sequence[dict]) -> tuple[Scores, str]:
    """The probabilities of the second words by a fit on the first, and what was chosen in fitting."""
    if column.features == ("hidden",):
        return probed(first, second)
    if column.both:
        first, second = ([{**word, "margin": word["yes"]} for word in half] for half in (first, second))
    detector = fitted(first, column.features)
    return unsupported(detector, second), ""


def probed(first: Sequence[dict], second: Sequence[dict]) -> tuple[Scores, str]:
    """A linear probe on hidden states; its layer and its penalty are chosen within the first words."""
    wrong = np.array([not word["there"] for word in first])
    scene = np.array([int(word["medium"]) for word in first])
    inner = np.isin(scene, np.unique(scene)[::2])
    layers = len(first[0]["hidden"])
    choices: list[tuple[tuple[int, ...], float]] = [((layer,), p) for layer in range(layers) for p in PENALTIES]
    choices += [(tuple(range(layers)), penalty) for penalty in PENALTIES]

    def states(words: Sequence[dict], chosen: tuple[int, ...]) -> np.ndarray:
        return np.array([np.concatenate([word["hidden"][layer] for layer in chosen]) for word in words])

    def apply(chosen: tuple[int, ...], penalty: float, rows: np.ndarray, words: Sequence[dict]) -> Scores:
        x = states(first, chosen)[rows]
        mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
        weights = logistic((x - mean) / scale, wrong[rows], penalty)
        return (states(words, chosen) - mean) / scale @ weights[:-1] + weights[-1]

    found = [auroc(apply(*choice, inner, first)[~inner], wrong[~inner]) for choice in choices]
    chosen, penalty = choices[int(np.argmax(found))]
    name = f"layer {chosen[0] + 1} of {layers}" if len(chosen) == 1 else "all layers"
    return apply(chosen, penalty, np.ones(len(first), dtype=bool), second), f", {name}, penalty {penalty:g}"


def average_precision(scores: Scores, positive: np.ndarray) -> float:
    """The mean over the positives of the precision at each of them, ties counted together."""
    thresholds = np.unique(scores)[::-1]
    flagged = scores[None] >= thresholds[:, None]
    right, count = (flagged & positive).sum(axis=1), flagged.sum(axis=1)
    return float((np.diff(right, prepend=0) * right / count).sum() / positive.sum())


def cost(column: Column, words: Sequence[dict]) -> str:
    """Extra forwards and backwards of one position for a word, and the median time beyond that of a plain step.

    An observed step stands for the plain one, so the time of that is taken off; so does a forward with relevance.
    """
    step = np.median([word[f"seconds of {PLAIN}"] for word in words])
    used = [PROBES[name] for name in column.probes]
    seconds = sum(np.median([word[f"seconds of {name}"] for word in words]) for name in column.probes)
    instead = "attention" in column.probes or "relevance" in column.probes
    forwards = " + ".join(probe.forwards for probe in used) or "0"
    return f"{forwards} | {sum(probe.backwards for probe in used)} | {max(0.0, seconds / step - instead):.1f}"


def table(kept: Sequence[Record]) -> None:
    first, second = halves(kept)
    positive = np.array([not word["there"] for word in second])
    scenes = [word["medium"] for word in second]
    print(f"fitted on {len(first)} object words, {sum(not word['there'] for word in first)} hallucinated")
    print(f"measured on {len(second)} object words, {positive.sum()} hallucinated\n")
    print("| detector | AUROC | average precision | forwards | backwards | extra time, in plain steps |")
    print("|---|---|---|---|---|---|")
    for name, column in COLUMNS.items():
        scores, chosen = scores_of(column, first, second)
        low, high = auroc_interval(scores, positive, scenes)
        interval = f"{auroc(scores, positive):.3f} [{low:.3f}, {high:.3f}]"
        precision = f"{average_precision(scores, positive):.3f}"
        print(f"| {name}{chosen} | {interval} | {precision} | {cost(column, second)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", choices=TASKS, default="picture")
    parser.add_argument("--model", help="another checkpoint than the bundled one")
    parser.add_argument("--first", type=int, default=PARTS["validation"], help="seed of the first scene")
    parser.add_argument("--regime", default="adversarial")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path("work/detection"))
    parser.add_argument("--calibrate", metavar="NAMES", help="only fit a detector on these, share,peak,..., of all")
    arguments = parser.parse_args()
    world, bundled = TASKS[arguments.demo]
    seeds = range(arguments.first, arguments.first + arguments.scenes)
    file = arguments.output / f"{arguments.demo}.{arguments.first}.{arguments.regime}.jsonl"
    loaded = load(arguments.model or bundled)
    kept = records(loaded, world(regime=arguments.regime), seeds, file)
    if arguments.calibrate:
        words = [*halves(kept)[0], *halves(kept)[1]]
        print(json.dumps(asdict(fitted(words, arguments.calibrate.split(",")))))
        return
    table(kept)
    if detector := Detector.from_config(loaded[0].config):
        words = [
            {**word, "margin": word["yes"], "medium": record["medium"]} for record in kept for word in record["words"]
        ]
        quality = measured(detector, words, [word["medium"] for word in words])
        interval = f"{quality.auroc:.3f} [{quality.low:.3f}, {quality.high:.3f}]"
        print(f"\nthe model's own detector on all of them: AUROC {interval}, ", end="")
        print(f"precision {quality.precision:.3f}, recall {quality.recall:.3f} at {detector.threshold:.3f}")


if __name__ == "__main__":
    main()
