"""Which statistic tells a word without support? AUROC over the object words of the demo's captions.

    python benchmarks/detection_study.py --demo picture --calibrate share,positive,peak,certainty
    python benchmarks/detection_study.py --demo picture --split test

Each object word of a plain greedy caption is right or hallucinated; statistics are of the word's first token. The
detector is the one that --calibrate fits, else the checkpoint's own. Records go to JSON lines and are not computed
twice.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.progress import track

from lime_mlx import load
from lime_mlx.evaluate.fitting import auroc, auroc_interval, fitted, measured, unsupported
from lime_mlx.evaluate.records import Record
from lime_mlx.evaluate.store import Answers
from lime_mlx.evaluate.tasks import Task, parse_task
from lime_mlx.generation import Step, decode
from lime_mlx.models.base import Model
from lime_mlx.probes.attention import attention
from lime_mlx.probes.blank import blank_logits, contrast
from lime_mlx.processor import Processor
from lime_mlx.prompt import Prompt
from lime_mlx.support.detector import Detector
from lime_mlx.support.statistics import from_logits, from_relevance

# The world of each bundled checkpoint, and its name.
TASKS = {"picture": ("scenes", "demo"), "sound": ("sounds", "demo-sound")}

STATISTICS = ("share", "signed", "positive", "peak", "logp", "certainty", "last", "rollout", "contrast")


def records(loaded: tuple[Model, Processor], task: Task, file: Path) -> list[Record]:
    """One record a scene, with its named objects: their statistics and whether they are there."""
    model, processor = loaded
    answers, items = Answers(file), task.items(None)
    stop = frozenset(processor.eos_token_ids)
    for item in track([item for item in items if item.medium not in answers.records], description=str(file)):
        prompt = processor.prompt(item.text, **task.opened(None, item.medium))
        steps = [s for s in decode(model, prompt, "none", item.max_tokens, stop=stop) if s.token not in stop]
        texts = [processor.tokenizer.decode([step.token]) for step in steps]
        statistics = gather(model, prompt, steps)
        truth = task.true_objects(item)
        words: list[dict[str, float | str | bool]] = [
            {"kind": kind, "there": kind in truth, **statistics[index]} for index, kind in task.objects(texts, {})
        ]
        answers.append({"id": item.medium, "medium": item.medium, "text": "".join(texts), "words": words})
    return [answers.records[item.medium] for item in items]


def gather(model: Model, prompt: Prompt, steps: Sequence[Step]) -> list[dict[str, float]]:
    """All statistics of each step."""
    tokens, modality = [step.token for step in steps], model.modality(prompt)
    return [
        {
            **from_relevance(np.asarray(step.relevance), modality),
            **from_logits(step.logits, step.token),
            **attended,
            "contrast": contrast(step.logits, without, step.token),
        }
        for step, attended, without in zip(
            steps, attention(model, prompt, tokens), blank_logits(model, prompt, tokens), strict=True
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", choices=TASKS, default="picture")
    parser.add_argument("--model", help="another checkpoint than the bundled one")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--regime", default="adversarial")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path("work/detection"))
    parser.add_argument("--calibrate", metavar="NAMES", help="fit a detector on these statistics, share,peak,...")
    arguments = parser.parse_args()
    name, bundled = TASKS[arguments.demo]
    spec = f"{name}:regime={arguments.regime},part={arguments.split},count={arguments.scenes},ask=captions"
    file = arguments.output / f"{arguments.demo}.{arguments.split}.{arguments.regime}.jsonl"
    loaded = load(arguments.model or bundled)
    rows = [(record["id"], word) for record in records(loaded, parse_task(spec), file) for word in record["words"]]
    words = [word for _, word in rows]
    scenes = np.array([int(seed) for seed, _ in rows])
    positive = np.array([not word["there"] for word in words])
    print(f"{len(words)} object words, {positive.sum()} hallucinated")
    scores = {name: -np.array([float(word[name]) for word in words]) for name in STATISTICS}
    detector = Detector.from_config(loaded[0].config)
    if arguments.calibrate:
        detector = fitted(words, arguments.calibrate.split(","))
        print(json.dumps(asdict(detector)))
    if detector:
        scores["detector"] = unsupported(detector, words)
        quality = measured(detector, words, scenes)
        print(f"at the threshold {detector.threshold:.3f}: ", end="")
        print(f"precision {quality.precision:.3f}, recall {quality.recall:.3f}")
    for name, values in scores.items():
        low, high = auroc_interval(values, positive, scenes)
        print(f"| {name} | {auroc(values, positive):.3f} [{low:.3f}, {high:.3f}] |")


if __name__ == "__main__":
    main()
