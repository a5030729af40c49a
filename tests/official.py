"""The arithmetic of the official programs, written down apart from the product, to compare its figures with."""

from collections.abc import Iterable, Mapping, Sequence

from lime_mlx.evaluate.scorers.metrics import Metric

START = 0.001  # AMBER's denominators start here, not at 0


def values(metrics: Iterable[Metric], split: str) -> dict[str, float]:
    """The figures of one split by name."""
    return {metric.name: metric.value for metric in metrics if metric.split == split}


def counts(metrics: Iterable[Metric]) -> dict[str, int]:
    """True and false positives and negatives of one split, from the sums of its yes/no figures."""
    sums = {metric.name: (float(metric.top.sum()), float(metric.bottom.sum())) for metric in metrics}
    hits, claimed = sums["precision"]
    _, wanted = sums["recall"]
    right, total = sums["accuracy"]
    return {"tp": int(hits), "fp": int(claimed - hits), "tn": int(right - hits), "fn": int(wanted - hits)} | {
        "n": int(total)
    }


def ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def pope(verdicts: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """POPE's evaluate.py; yes is the positive class, and a verdict that is neither yes nor no is wrong."""
    pairs = list(zip(verdicts, labels, strict=True))
    tp, fp, tn = (pairs.count(pair) for pair in (("yes", "yes"), ("yes", "no"), ("no", "no")))
    precision, recall = ratio(tp, tp + fp), ratio(tp, list(labels).count("yes"))
    return {
        "accuracy": ratio(tp + tn, len(pairs)),
        "precision": precision,
        "recall": recall,
        "F1": ratio(2 * precision * recall, precision + recall),
        "yes rate": ratio(tp + fp, len(pairs)),
    }


def audio(verdicts: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """The audio questions' program: percentages with two decimals; "no" is the positive class, F1 from the rounded."""
    pairs = list(zip(verdicts, labels, strict=True))
    right = pairs.count(("no", "no"))
    precision = round(100 * ratio(right, list(verdicts).count("no")), 2)
    recall = round(100 * ratio(right, list(labels).count("no")), 2)
    accuracy = round(100 * ratio(right + pairs.count(("yes", "yes")), len(pairs)), 2)
    f1 = round(ratio(2 * precision * recall, precision + recall), 2)
    return {"accuracy": accuracy, "precision": precision, "recall": recall, "F1": f1}


def amber_generative(rows: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """AMBER's program: CHAIR, Cover, Hal and Cog in percent with one decimal, from the counts of captions."""

    def share(name: str) -> float:
        return round(100 * sum(r[f"{name}_score"] for r in rows) / (START + sum(r[f"{name}_num"] for r in rows)), 1)

    hal = round(100 - 100 * sum(row["non_hallu"] for row in rows) / (START + len(rows)), 1)
    return {"CHAIR": share("chair"), "Cover": share("cover"), "Hal": hal, "Cog": share("cog")}


def amber_discriminative(verdicts: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """AMBER's program: percent with one decimal; "no" is the positive class."""
    pairs = list(zip(verdicts, labels, strict=True))
    right = pairs.count(("no", "no"))
    precision = round(100 * right / (START + list(verdicts).count("no")), 1)
    recall = round(100 * right / (START + list(labels).count("no")), 1)
    return {
        "accuracy": round(100 * (right + pairs.count(("yes", "yes"))) / (START + len(pairs)), 1),
        "precision": precision,
        "recall": recall,
        "F1": round(2 * precision * recall / (precision + recall + 0.0001), 1),
    }


def scene_records(texts: Sequence[str], truths: Sequence[Iterable[str]]) -> list[dict]:
    """Records of captions of scenes, as a run keeps them."""
    return [
        {"id": str(n), "medium": str(n), "split": "caption", "label": None, "text": text, "truth": list(truth)}
        for n, (text, truth) in enumerate(zip(texts, truths, strict=True))
    ]
