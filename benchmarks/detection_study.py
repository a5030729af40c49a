"""Which statistic tells a word without support? AUROC over the object words of the demo's captions.

    python benchmarks/detection_study.py --demo picture --calibrate share,positive,peak,certainty
    python benchmarks/detection_study.py --demo picture --split test

Each object word of a plain greedy caption is right or hallucinated; statistics are of the word's first token. The
detector is the one that --calibrate fits, else the checkpoint's own. Records go to JSON lines and are not computed
twice.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from demo_study import DEMOS, FIRST_SEED, stored
from rich.progress import track

from lime_mlx import load
from lime_mlx.evaluate.calibrate import auroc, auroc_interval, fitted, measured
from lime_mlx.evidence import attention, blanked, contrast
from lime_mlx.generate import decode
from lime_mlx.lrp.support import Detector, from_logits, from_relevance
from lime_mlx.scenes import mentions

STATISTICS = ("share", "signed", "positive", "peak", "logp", "certainty", "last", "rollout", "contrast")


def records(demo, loaded, scenes, file: Path) -> list[dict]:
    """One record a named object: its statistics and whether it is there."""
    model, processor = loaded
    known = stored(file)
    stop = frozenset(processor.eos_token_ids)
    with file.open("a") as out:
        for scene in track(scenes, description=str(file)):
            if str(scene.seed) in known:
                continue
            prompt = processor.prompt(demo.prompt, **demo.media(scene))
            steps = [s for s in decode(model, prompt, "none", 48, stop=stop) if s.token not in stop]
            words = []
            for step, statistics in zip(steps, gather(model, prompt, steps), strict=True):
                named = mentions(processor.tokenizer.decode([step.token]), scene.world)
                words += [{"kind": kind, "there": kind in scene.kinds, **statistics} for kind in named]
            record = {"id": str(scene.seed), "seed": scene.seed, "words": words}
            out.write(json.dumps(record) + "\n")
            out.flush()
            known[record["id"]] = record
    return [known[str(scene.seed)] for scene in scenes]


def gather(model, prompt, steps) -> list[dict[str, float]]:
    """All statistics of each step."""
    tokens, modality = [step.token for step in steps], model.modality(prompt)
    return [
        {
            **from_relevance(step.relevance, modality),
            **from_logits(step.logits, step.token),
            **attended,
            "contrast": contrast(step.logits, without, step.token),
        }
        for step, attended, without in zip(
            steps, attention(model, prompt, tokens), blanked(model, prompt, tokens), strict=True
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", choices=DEMOS, default="picture")
    parser.add_argument("--model", help="another checkpoint than the bundled one")
    parser.add_argument("--split", choices=FIRST_SEED, default="validation")
    parser.add_argument("--regime", default="adversarial")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path("work/detection"))
    parser.add_argument("--calibrate", metavar="NAMES", help="fit a detector on these statistics, share,peak,...")
    arguments = parser.parse_args()
    demo, first = DEMOS[arguments.demo], FIRST_SEED[arguments.split]
    arguments.output.mkdir(parents=True, exist_ok=True)
    scenes = [demo.make(seed, arguments.regime) for seed in range(first, first + arguments.scenes)]
    file = arguments.output / f"{arguments.demo}.{arguments.split}.{arguments.regime}.jsonl"
    loaded = load(arguments.model or demo.model)
    found = records(demo, loaded, scenes, file)
    rows = [(record["seed"], word) for record in found for word in record["words"]]
    words = [word for _, word in rows]
    owner = np.array([seed for seed, _ in rows])
    positive = np.array([not word["there"] for word in words])
    print(f"{len(words)} object words, {positive.sum()} hallucinated")
    scores = {name: -np.array([word[name] for word in words]) for name in STATISTICS}
    detector = Detector.from_config(loaded[0].config)
    if arguments.calibrate:
        detector = fitted(words, arguments.calibrate.split(","))
        print(json.dumps(asdict(detector)))
    if detector:
        scores["detector"] = np.array([detector.doubt(word) for word in words])
        found = measured(detector, words, owner)
        print(f"at the threshold {detector.threshold:.3f}: precision {found.precision:.3f}, recall {found.recall:.3f}")
    for name, values in scores.items():
        low, high = auroc_interval(values, positive, owner)
        print(f"| {name} | {auroc(values, positive):.3f} [{low:.3f}, {high:.3f}] |")


if __name__ == "__main__":
    main()
