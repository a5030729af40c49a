"""Agreement with the official programs from what is derived of their cases: no file of a benchmark is needed.

The files are made by benchmarks/agreement_fixtures.py. tests/test_evaluate.py compares the same on the real texts.
"""

import json
import re
from pathlib import Path

import pytest
from official import amber_generative, counts, values

from lime_mlx.evaluate.scorers import amber, answers
from lime_mlx.evaluate.scorers.metrics import captions
from lime_mlx.evaluate.tasks import parse_task

FIXTURES = Path(__file__).parent / "fixtures" / "agreement"


def stored(name: str):
    return json.loads((FIXTURES / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("field", "parse"),
    [
        ("pope_evaluate", answers.pope),
        ("vcd_contains_yes", lambda text: answers.contains(text, "yes")),
        ("vcd_contains_no", lambda text: answers.contains(text, "no")),
        ("audio_interspeech2024", answers.interspeech2024),
        ("audio_icassp2025", answers.icassp2025),
    ],
)
def test_parsers_agree_with_the_official_ones_in_every_case(field, parse):
    cases = stored("yes_no")
    assert len(cases) > 300 and [parse(case["answer"]) for case in cases] == [case[field] for case in cases]


def test_the_parser_of_mme_agrees_with_the_official_one():
    cases = stored("yes_no")
    wanted = [case["mme_prefix4"] if case["mme_prefix4"] in ("yes", "no") else "unknown" for case in cases]
    assert [answers.mme(case["answer"]) for case in cases] == wanted and len(set(wanted)) == 3


@pytest.mark.parametrize("cell", stored("pope"))
def test_figures_of_pope_are_those_of_both_programs(cell):
    content = stored("pope")[cell]
    records = [
        {"id": f"{label}/{text}/{n}", "medium": str(n), "split": "all", "label": label, "text": text}
        for label, text, count in content["answers"]
        for n in range(count)
    ]
    metrics, first = parse_task("pope").metrics(records, "official", {}), content["pope_evaluate"]
    names = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "F1": "F1 score"}
    names |= {"yes rate": "Yes ratio"}
    found, counted = values(metrics, "all"), counts(metrics)
    assert {name: found[name] for name in names} == pytest.approx({a: first[b] for a, b in names.items()}, abs=1e-12)
    assert [counted[key] for key in ("tp", "fp", "tn", "fn", "n")] == [
        *(first[key] for key in ("TP", "FP", "TN", "FN")),
        content["n"],
    ]
    second = content["vcd_eval_pope"]
    vcd = values(parse_task("pope").metrics(records, "vcd", {}), "all")
    for name, theirs in (("accuracy", "Accuracy"), ("precision", "Precision"), ("recall", "Recall"), ("F1", "F1")):
        assert vcd[name] == pytest.approx(second[theirs], abs=1e-12)


@pytest.mark.parametrize("mode", ["pattern", "wordnet"])
@pytest.mark.parametrize("name", stored("chair"))
def test_figures_of_chair_are_those_of_both_programs(name, mode):
    content = stored("chair")[name][mode]
    rows = [tuple(row) for *row, count in content["counts"] for _ in range(count)]
    records = [{"id": str(n), "medium": str(n)} for n in range(len(rows))]
    found = values(captions(records, "all", rows, [0] * len(rows)), "all")
    for ours, theirs in (("CHAIR_S", "CHAIRs"), ("CHAIR_I", "CHAIRi"), ("recall", "Recall")):
        assert found[ours] == pytest.approx(content["official"][theirs], abs=1e-12)


def test_counts_of_amber_are_the_official_ones():
    content = stored("amber")
    rows = []
    for case in content["cases"]:
        words = case["nouns_in_vocab"], case["truth"], case["hallu"]
        rows.append(amber.count(*words, content["relation"], content["safe"])._asdict())
        assert rows[-1] == {name: case[name] for name in rows[-1]}
    assert len(rows) > 100 and amber_generative(rows) == content["overall"]
    shares = {"CHAIR": "chair", "Cover": "cover", "Cog": "cog"}
    for name, short in shares.items():
        ours = 100 * sum(row[f"{short}_score"] for row in rows) / sum(row[f"{short}_num"] for row in rows)
        assert ours == pytest.approx(content["overall"][name], abs=0.06)


def test_the_files_have_no_text_of_a_benchmark():
    """Of answers, nothing is left but what a parser looks for; the names of the others are numbers or of models."""
    kept = re.compile(r"doesn't|can't|contain|unable|there|does|yes|not|no|is|[\Wx0_]", re.IGNORECASE)
    assert {kept.sub("", case["answer"]) for case in stored("yes_no")} == {""}
    assert {kept.sub("", text) for cell in stored("pope").values() for _, text, _ in cell["answers"]} == {""}
    words = {word for case in stored("amber")["cases"] for word in case["nouns_in_vocab"] + case["truth"]}
    assert all(re.fullmatch(r"w\d+", word) for word in words)
