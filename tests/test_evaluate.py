import json
from pathlib import Path

import numpy as np
import pytest
from official import amber_generative, counts, values

from lime_mlx.errors import DataError
from lime_mlx.evaluate import statistics
from lime_mlx.evaluate.scorers import amber, answers, baseforms, chair
from lime_mlx.evaluate.tasks import audio, parse_task, pope

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no benchmark files beside the repository (../shared/data)")


def lines(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / "reference" / name).read_text().splitlines()]


@needs_data
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
def test_official_parsers_agree_in_every_case(field, parse):
    cases = lines("yesno/cases.jsonl")
    assert len(cases) > 300 and [parse(case["text"]) for case in cases] == [case[field] for case in cases]


@needs_data
def test_official_pope_scores_are_equal():
    cases = lines("pope/cases.jsonl")
    overall = json.loads((DATA / "reference/pope/overall.json").read_text())
    for cell, wanted in overall.items():
        rows = [case for case in cases if f"{case['model']}/{case['category']}" == cell]
        records = [
            {"id": str(n), "medium": row["image"], "split": "all", "label": row["label"], "text": row["answer"]}
            for n, row in enumerate(rows)
        ]
        metrics, first = parse_task("pope").metrics(records, "official", {}), wanted["pope_evaluate"]
        names = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "F1": "F1 score"}
        names |= {"yes rate": "Yes ratio"}
        found = values(metrics, "all")
        assert {name: found[name] for name in names} == pytest.approx(
            {a: first[b] for a, b in names.items()}, abs=1e-12
        )
        counted = counts(metrics)
        assert {key: counted[key] for key in ("tp", "fp", "tn", "fn")} == {
            key: first[key.upper()] for key in ("tp", "fp", "tn", "fn")
        }
        vcd = values(parse_task("pope").metrics(records, "vcd", {}), "all")
        assert vcd["F1"] == pytest.approx(wanted["vcd_eval_pope"]["F1"], abs=1e-12)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("YES", "yes"), ("no", "no"), ("**No**, I don't see one", "no"), ("Answer: yes.", "yes"), ("", "unknown"),
        ("There is no dog in the image.", "no"), ("There is a dog.", "yes"), ("I cannot tell.", "unknown"),
        ("The image does not show a dog.", "no"), ("Nobody knows", "unknown"), ("yes or no", "unknown"),
        ("I think the answer is: No", "no"), ("A cat sits on a mat.", "unknown"),
        ("I cannot see any elephants in the image.", "no"), ("I can't clearly see a dog.", "no"),
        ("I am unable to find a cat in the picture.", "no"), ("I can't hear the sound of a dog.", "no"),
        ("I couldn't identify any birds.", "no"), ("Unable to detect a dog.", "no"),
        ("I cannot see the image.", "unknown"), ("I'm sorry, I can't see any picture.", "unknown"),
        ("I cannot see whether there is a dog.", "unknown"), ("I can't see well enough.", "unknown"),
        ("I cannot help with that.", "unknown"), ("It is hard to see a dog.", "unknown"), ("I can see a dog.", "yes"),
        ("**Answer:** No", "no"), ("- **Yes**, there is", "yes"), ("### No\n\nThere is none.", "no"),
    ],
)  # fmt: skip
def test_our_reading_of_free_answers(text, verdict):
    assert answers.ours(text) == verdict


@needs_data
@pytest.mark.parametrize(("mode", "outside"), [("pattern", 0), ("wordnet", 5)])
def test_chair_stays_near_the_reference_program(mode, outside):
    material = {"synonyms": chair.read_synonyms(DATA / "chair/synonyms.txt")}
    finder, task = chair.ObjectFinder(material["synonyms"], mode), parse_task("chair")
    scorer = {mode: scorer for scorer, mode in task.scorers.items()}[mode]
    cases = lines("chair/cases.jsonl")
    same = 0
    for case in cases:
        wanted = case["pattern"] if mode == "pattern" or case["wordnet"].get("same") else case["wordnet"]
        found = {mention.name for mention in finder.find(case["caption"]).hallucinated(set(case["gt"][mode]))}
        same += found == {name for _, name, _ in wanted["hallucinated"]}
    assert same >= 0.985 * len(cases)
    far = []
    for name, wanted in json.loads((DATA / "reference/chair/overall.json").read_text()).items():
        records = [
            {"id": str(n), "medium": str(n), "label": None, "text": case["caption"], "truth": case["gt"]}
            for n, case in enumerate(cases)
            if case["set"] == name
        ]
        ours = values(task.metrics(records, scorer, material), "all")
        for key, theirs in (("CHAIR_S", "CHAIRs"), ("CHAIR_I", "CHAIRi"), ("recall", "Recall")):
            points = abs(ours[key] - wanted[mode][theirs]) * 100
            assert points <= 0.6, (name, key)  # one object or one caption of a small set
            if points > 0.3:
                far.append((name, key, round(points, 2)))
    assert len(far) <= outside, far  # the guessed part of speech is not the tagger's in rare words


@needs_data
def test_our_chair_knows_what_the_references_miss():
    read = {m: chair.ObjectFinder.read(DATA / "chair/synonyms.txt", m).find for m in chair.MODES}
    text = "Two men hold wine glasses by a bus. An iPhone lies on a dining table."
    assert read["ours"](text).names == {"person", "wine glass", "bus", "cell phone", "dining table"}
    assert "bus" not in read["pattern"](text).names and "person" not in read["wordnet"](text).names


@needs_data
@pytest.mark.parametrize("text", ["Blue skies.", "Long manes.", "Weather vanes.", "She cares.", "He copes.", "Doges."])
def test_our_chair_makes_no_objects_of_other_words(text):
    assert chair.ObjectFinder.read(DATA / "chair/synonyms.txt").find(text).names == set()


def test_plurals_in_es_stand_behind_hissing_letters():
    words = ["ski", "man", "van", "car", "cop", "dog", "bed", "bus", "box", "bench", "dish", "taxi", "potato"]
    cases = "skies manes vanes cares copes doges bedes buses boxes benches dishes taxies taxis potatoes dogs"
    found = [baseforms.plain(word, words) for word in cases.split()]
    assert found[:7] == cases.split()[:7]
    assert found[7:] == ["bus", "box", "bench", "dish", "taxi", "taxi", "potato", "dog"]


def test_a_question_file_says_which_line_is_wrong(tmp_path):
    row = {"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "yes"}
    good = tmp_path / "q.json"
    good.write_text(json.dumps(row) + "\n\n" + json.dumps(row | {"question_id": 2, "label": "no"}))
    assert [question.label for question in pope.read_questions(good)] == ["yes", "no"]
    good.write_text(json.dumps([row]))
    assert pope.read_questions(good)[0].id == "1"
    for bad, message in (
        (row, "used before, at .*q.json:1"),
        (row | {"question_id": 2, "label": "maybe"}, "q.json:2: label"),
    ):
        good.write_text(json.dumps(row) + "\n" + json.dumps(bad))
        with pytest.raises(DataError, match=message):
            pope.read_questions(good)
    good.write_text(json.dumps(row) + "\n{broken")
    with pytest.raises(DataError, match="q.json:2: not valid JSON"):
        pope.read_questions(good)


def test_audio_questions_and_scores(tmp_path):
    path = tmp_path / "q.tsv"
    head, row = "\t".join(audio.COLUMNS), "1\tx\tIs there a dog?\tdog\tpositive\tYes\trandom"
    path.write_text(f"{head}\n{row}\n")
    assert audio.read_questions(path)[0].label == "yes"
    path.write_text(f"{head}\n{row}\n{row}\n")
    with pytest.raises(DataError, match="q.tsv:3: entry_id 1 was used before"):
        audio.read_questions(path)
    records = [
        {"id": str(n), "medium": str(n), "split": "random", "text": text, "label": label}
        for n, (text, label) in enumerate(zip(["No", "No.", "Yes", "hm"], ["no", "yes", "yes", "no"], strict=True))
    ]
    ours = values(parse_task("audio").metrics(records, "official", {}), "random")
    assert (ours["precision"], ours["recall"], ours["F1"], ours["unknown"]) == (0.5, 0.5, 0.5, 1 / 4)


@needs_data
def test_amber_counts_are_the_official_ones():
    reference = json.loads((DATA / "reference/amber/generative_exact.json").read_text())
    relation = json.loads((DATA / "amber/relation.json").read_text())
    safe = (DATA / "amber/safe_words.txt").read_text().split()
    rows = []
    for case in reference["cases"]:
        rows.append(amber.count(case["nouns_in_vocab"], case["truth"], case["hallu"], relation, safe)._asdict())
        assert rows[-1] == {name: case[name] for name in rows[-1]}
    assert amber_generative(rows) == reference["overall"]


def test_statistics_against_values_by_hand():
    assert statistics.mcnemar([True] * 5 + [False], [False] * 5 + [True]) == pytest.approx(2 * 7 / 64)
    many = np.array([True] * 70), np.array([False] * 70)  # 2**70 is no number of NumPy's
    assert statistics.mcnemar(*many) == pytest.approx(2 / 2**70)
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.questions_needed(3, 3, 50) is None and statistics.questions_needed(20, 10, 100) == 234
    ones = [1.0] * 30
    worse = statistics.paired_bootstrap(([0.0] * 30, ones), (ones, ones))
    assert worse.difference == 1 and worse.p < 0.01
    assert statistics.paired_bootstrap((ones, ones), (ones, ones)).p == 1
    for n in (1, 2, 5):  # all of n pictures got worse: 2 of the 2**n ways to swap are as extreme
        few = statistics.paired_bootstrap(([0.0] * n, [1.0] * n), ([1.0] * n, [1.0] * n))
        assert few.p == pytest.approx(2 / 2**n)
    by_picture = statistics.interval([1, 1, 0, 0] * 10, [1] * 40, [i // 2 for i in range(40)])
    by_answer = statistics.interval([1, 1, 0, 0] * 10, [1] * 40, range(40))
    assert by_picture[1] - by_picture[0] > by_answer[1] - by_answer[0]
