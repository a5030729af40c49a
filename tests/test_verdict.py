"""The verdict on a method: which word it gets, and what it says."""

import numpy as np
import pytest

from lime_mlx.evaluate.scorers.metrics import Metric
from lime_mlx.evaluate.store import Cell
from lime_mlx.evaluate.summary import BETTER, SAME, TOO_FEW, WORSE, Figure, PairedComparison
from lime_mlx.report.results import TaskResult
from lime_mlx.report.verdict import GLOSSARY, WORDS, in_words, kind_of

PLAIN, OTHER = Cell("demo", "none", "scenes"), Cell("demo", "choose", "scenes")


def figure(name: str, value: float, outcome: str = "", split: str = "caption", cell: Cell = OTHER) -> Figure:
    metric = Metric(name, split, ["1"], ["1"], np.array([value]), np.ones(1))
    comparison = PairedComparison(PLAIN, 0.1, 0.0, 0.2, 0.01, None, 0.01, outcome) if outcome else None
    return Figure(cell, metric, value, value, comparison)


def pairs(*figures: Figure):
    return [(each, each.comparison) for each in figures]


@pytest.mark.parametrize(
    ("outcomes", "kind"),
    [
        ({"CHAIR_S": BETTER, "recall": TOO_FEW}, "better"),
        ({"CHAIR_S": WORSE, "recall": TOO_FEW}, "worse"),
        ({"CHAIR_S": BETTER, "repeats": WORSE}, "mixed"),
        ({"CHAIR_S": WORSE, "recall": BETTER}, "mixed"),
        ({"CHAIR_S": TOO_FEW, "recall": WORSE}, "mixed"),
        ({"CHAIR_S": SAME, "CHAIR_I": WORSE, "recall": WORSE}, "worse"),
        ({"CHAIR_S": TOO_FEW, "recall": BETTER}, "better"),
        ({"CHAIR_S": TOO_FEW, "recall": SAME}, "unsure"),
        ({"CHAIR_S": SAME, "recall": SAME}, "same"),
        ({"accuracy": WORSE, "F1": WORSE}, "worse"),
        ({"accuracy": TOO_FEW, "recall": WORSE}, "mixed"),
    ],
)
def test_worse_is_said_of_the_main_figures_only(outcomes, kind):
    assert kind_of(pairs(*(figure(name, 0.5, outcome) for name, outcome in outcomes.items()))) == kind


def test_the_verdict_in_words():
    told = [
        figure("repeats", 0.2, WORSE),
        figure("recall", 0.7, BETTER),
        figure("CHAIR_I", 0.05, BETTER),
        figure("CHAIR_S", 0.13, BETTER),
        figure("accuracy", 0.9, BETTER, "random"),
        figure("F1", 0.9, BETTER, "random"),
        figure("length", 9, TOO_FEW),
    ]
    before = [figure("CHAIR_S", 0.4, cell=PLAIN), figure("accuracy", 0.8, split="random", cell=PLAIN)]
    result = TaskResult("scenes", 1, [*before, *told], {}, {})
    assert in_words(result, PLAIN, pairs(*told)) == (
        "Fewer captions with invented objects: 40 → 13 %; more right answers on random: 80 → 90 %; "
        "names things again more often; names more of what is there."
    )
    assert in_words(result, PLAIN, pairs(figure("CHAIR_S", 0.4, TOO_FEW))) == ""


def test_the_glossary_is_three_lines_on_the_main_figures():
    assert len(GLOSSARY) == 3
    assert all(word in " ".join(GLOSSARY) for word in ("CHAIR_S", "CHAIR_I", "recall", "F1", "eliance", "splits"))
    assert all(better != worse for better, worse in WORDS.values())
