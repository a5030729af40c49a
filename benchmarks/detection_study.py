"""Which statistic tells a word without support? AUROC over the object words of the demo's captions.

    python benchmarks/detection_study.py --demo picture --calibrate share,positive,peak,certainty
    python benchmarks/detection_study.py --demo picture --split test

Each object word of a plain greedy caption is right or hallucinated; statistics are of the word's first token. The
detector is the one that --calibrate fits, else the checkpoint's own. Records go to JSON lines and are not computed
twice.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from demo_study import DEMOS, FIRST_SEED, stored
from rich.progress import track

from lime_mlx import load
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


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive has the higher score, ties half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    count = positive.sum()
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores) - count)))


def interval(scores, positive, owner, samples: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval of the AUROC, by scene."""
    rng, groups = np.random.default_rng(0), [np.flatnonzero(owner == o) for o in np.unique(owner)]
    values = []
    for _ in range(samples):
        rows = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        if 0 < positive[rows].sum() < len(rows):
            values.append(auroc(scores[rows], positive[rows]))
    return tuple(np.percentile(values, (2.5, 97.5)))


def fit(features: np.ndarray, positive: np.ndarray, penalty: float = 1e-2, rounds: int = 50) -> np.ndarray:
    """Weights (F + 1,), the last the intercept, of a logistic regression by Newton's method."""
    x, y = np.c_[features, np.ones(len(features))], positive.astype(float)
    weights = np.zeros(x.shape[1])
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-x @ weights))
        slope = x.T @ (p - y) / len(y) + penalty * np.r_[weights[:-1], 0]
        curve = (x * (p * (1 - p))[:, None]).T @ x / len(y) + penalty * np.diag(np.r_[np.ones(x.shape[1] - 1), 1e-9])
        weights -= np.linalg.solve(curve, slope)
    return weights


def calibrate(rows: list[dict], names: list[str]) -> Detector:
    """A detector on the statistics `names`, with the threshold of the best F1 on the same words."""
    features = np.array([[row[name] for name in names] for row in rows])
    positive = np.array([not row["there"] for row in rows])
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    *weights, intercept = fit((features - mean) / deviation, positive, penalty=1e-3)
    weights = np.array(weights) / deviation
    detector = Detector(dict(zip(names, weights.tolist(), strict=True)), float(intercept - weights @ mean), 0.5)
    doubts = np.array([detector.doubt(row) for row in rows])
    return replace(detector, threshold=float(max(np.unique(doubts), key=lambda t: f1(doubts >= t, positive))))


def f1(flagged: np.ndarray, positive: np.ndarray) -> float:
    return 2 * float((flagged & positive).sum()) / max(1, int(flagged.sum() + positive.sum()))


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
        detector = calibrate(words, arguments.calibrate.split(","))
        print(json.dumps(asdict(detector)))
    if detector:
        scores["detector"] = np.array([detector.doubt(word) for word in words])
        flagged = scores["detector"] >= detector.threshold
        right = (flagged & positive).sum()
        precision, recall = right / max(1, flagged.sum()), right / max(1, positive.sum())
        print(f"at the threshold {detector.threshold:.3f}: precision {precision:.3f}, recall {recall:.3f}")
    for name, values in scores.items():
        low, high = interval(values, positive, owner)
        print(f"| {name} | {auroc(values, positive):.3f} [{low:.3f}, {high:.3f}] |")


if __name__ == "__main__":
    main()
