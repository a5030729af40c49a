"""RePOPE, DASH-B, HallusionBench and NaturalBench: what is read from their files, and figures by hand."""

import io
import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from official import values
from PIL import Image

from lime_mlx.errors import DataError
from lime_mlx.evaluate import statistics
from lime_mlx.evaluate.data.folder import DataFolder
from lime_mlx.evaluate.data.sources import LICENCES, PICTURES, File, Sources
from lime_mlx.evaluate.scorers import answers
from lime_mlx.evaluate.tasks import parse_task

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no benchmark files beside the repository (../shared/data)")
QUESTION = {"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "yes"}
FIGURE = {"subcategory": "map", "set_id": "0", "filename": "./x.png"}


def hallusion(category: str, figure: int, question: int, answer: int, visual: int) -> dict:
    row = {"category": category, "figure_id": str(figure), "question_id": str(question), "question": "Is it?"}
    row |= FIGURE | {"gt_answer": str(answer), "visual_input": str(visual)}
    return row if visual else row | {"filename": None}


FILES = {
    **{f"pope/repope/coco_repope_{split}.json": QUESTION for split in ("random", "popular", "adversarial")},
    "dash-b/dash_benchmark_neg.json": {"coco": {"cat": ["1.png", "2.png"]}},
    "dash-b/dash_benchmark_pos.json": {"coco": {"cat": ["1.png"], "hot air balloon": ["3.png"]}},
    "hallusion-bench/HallusionBench.json": [
        hallusion("VD", 0, 0, 1, 1),
        hallusion("VD", 0, 1, 0, 1),
        hallusion("VD", 1, 0, 0, 2),
        hallusion("VS", 0, 0, 0, 0),
        hallusion("VS", 1, 0, 1, 2),
    ],
    "naturalbench/test_set.json": [
        *(["Is it up?", f"{n % 2}.jpg", answer, "yes_no"] for n, answer in enumerate(("Yes", "No", "No", "Yes"))),
        *(["A: up; B: down", f"{n % 2}.jpg", answer, "mcq"] for n, answer in enumerate("ABBA")),
    ],
}


@pytest.fixture
def data(tmp_path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


def answered(task, data: Path, texts: list[str]) -> list[dict]:
    items = task.items(data)
    assert len(items) == len(texts)
    return json.loads(json.dumps([{**vars(item), "text": text} for item, text in zip(items, texts, strict=True)]))


def test_repope_is_a_set_of_pope(data):
    task = parse_task("pope:set=repope")
    items = task.items(data)
    assert [(item.split, item.medium, item.label) for item in items[:1]] == [("random", "a.jpg", "yes")]
    assert (len(items), items[0].max_tokens, parse_task("pope:tokens=128").tokens) == (3, 16, 128)


def test_the_program_of_repope_leaves_out_what_is_neither():
    texts, labels = ["Yes.", "I do not", "Maybe", "yes, no"], ["yes", "yes", "no", "no"]
    records = [
        {"id": str(n), "medium": str(n), "split": "random", "text": text, "label": label}
        for n, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    found = values(parse_task("pope:set=repope").metrics(records, "official", {}), "random")
    # a true positive, a false negative, a false positive
    assert found == pytest.approx(
        {"accuracy": 1 / 3, "F1": 0.5, "precision": 0.5, "recall": 0.5, "yes rate": 2 / 3, "unknown": 0.25}
    )
    ordinary = values(parse_task("pope").metrics(records, "official", {}), "random")
    assert (ordinary["accuracy"], ordinary["unknown"]) == (0.5, 0)


def test_dash_b_by_hand(data):
    task = parse_task("dash-b")
    items = task.items(data)
    assert [item.medium for item in items] == [
        "neg/coco/cat/1.png", "neg/coco/cat/2.png", "pos/coco/cat/1.png", "pos/coco/hot air balloon/3.png",
    ]  # fmt: skip
    assert items[3].text == "Can you see a hot air balloon in this image? Please answer only with yes or no."
    assert [item.label for item in items] == ["no", "no", "yes", "yes"] and items[0].max_tokens == 15
    records = answered(task, data, ["no", "Yes", "YES!", "hm"])
    figures = {scorer: values(task.metrics(records, scorer, {}), "all") for scorer in task.scorers}
    for found in figures.values():
        assert (found["TPR"], found["TNR"], found["accuracy"], found["unknown"]) == (0.5, 0.5, 0.5, 0.25)
        assert found["harmonic mean"] == pytest.approx(0.5)
    records[1]["text"] = "No"
    (mean, *_) = task.metrics(records, "official", {})
    assert mean.value == pytest.approx(2 * 1 * 0.5 / 1.5) and mean.top.shape == (4, 2)


def test_the_interval_of_a_harmonic_mean_is_that_of_its_resamples():
    rng = np.random.default_rng(0)
    wanted = np.eye(2)[rng.integers(2, size=60)]
    hits = wanted * (rng.random((60, 1)) < 0.7)
    names = [str(n) for n in range(60)]
    low, high = statistics.interval(hits, wanted, names)
    drawn = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=2000)
    rates = (drawn @ hits) / (drawn @ wanted)
    means = 2 * rates.prod(axis=1) / rates.sum(axis=1)
    assert (low, high) == pytest.approx(tuple(np.percentile(means, (2.5, 97.5))))
    same = statistics.paired_bootstrap((hits, wanted), (hits, wanted), names)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    better = statistics.paired_bootstrap((hits, wanted), (wanted, wanted), names)
    assert 0 < better.low < better.difference < better.high and better.p < 0.001


def test_hallusion_bench_by_hand(data):
    task = parse_task("hallusion-bench:part=all")
    assert [item.medium for item in task.items(data)] == [
        "VD/map/0_0.png", "VD/map/0_0.png", "VD/map/0_1.png", "text/VS/map/0_0", "VS/map/0_1.png",
    ]  # fmt: skip
    assert len(parse_task("hallusion-bench").items(data)) == 4
    assert task.opened(data, "text/VS/map/0_0") == {}
    found = task.metrics(answered(task, data, ["Yes", "Yes", "No", "It is unclear.", "It is unclear."]), "ours", {})
    # right: the first, the third, and the unclear one without a figure
    whole = {"aAcc": 3 / 5, "fAcc": 1 / 3, "qAcc": 1 / 3, "qAcc easy": 2 / 3, "qAcc hard": 1 / 2, "unknown": 2 / 5}
    assert values(found, "all") == pytest.approx(whole)
    assert values(found, "VS")["aAcc"] == 0.5 and values(found, "VD")["qAcc"] == 0.5


@pytest.mark.parametrize("scorer", ["ours", "official"])
def test_naturalbench_by_hand(scorer, data):
    task = parse_task("naturalbench")
    items = task.items(data)
    assert (items[0].label, items[0].truth, items[4].label, items[4].truth) == ("yes", None, None, ["A"])
    texts = ["Yes", "No.", "no", "Yes, it is", "A", "B: down", "(B)", "Option B"]
    found = values(task.metrics(answered(task, data, texts), scorer, {}), "all")
    # the last one is wrong: of the second group, one question and one picture
    wanted = {"accuracy": 7 / 8, "Q_Acc": 3 / 4, "I_Acc": 3 / 4, "G_Acc": 1 / 2, "unknown": 0}
    assert found == pytest.approx(wanted)


def test_an_article_is_a_letter_for_the_program_of_naturalbench_only(data):
    task = parse_task("naturalbench")
    records = answered(task, data, ["no answer"] * 4 + ["a man"] * 4)
    assert values(task.metrics(records, "official", {}), "all")["unknown"] == 0
    assert values(task.metrics(records, "ours", {}), "all")["unknown"] == 0.5


def test_readers():
    texts = ["Yes", "I do NOT know", "none", "hm", "no, yes"]
    assert [answers.anywhere(text) for text in texts] == ["yes", "no", "no", "unknown", "yes"]
    assert answers.first_word("No, yes", ("yes", "no")) == "no"
    assert answers.first_word("Nobody", ("yes", "no")) == "unknown"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("dash-b/dash_benchmark_neg.json", [1], "dash_benchmark_neg.json cannot be read"),
        ("hallusion-bench/HallusionBench.json", [{}], "entry 1 has no category"),
        ("hallusion-bench/HallusionBench.json", [hallusion("VD", 0, 0, 2, 1)], "entry 1 has an unknown gt_answer"),
        ("naturalbench/test_set.json", [["Is it?", "1.jpg", "Yes", "yes_no"]], "groups of four"),
        ("naturalbench/test_set.json", [["Is it?", "1.jpg", "A", "yes_no"]] * 4, "answer A to a question of kind"),
        ("naturalbench/test_set.json", [["Is it?"]] * 4, "entry 1 is no question"),
    ],
)
def test_malformed_files_are_named(name, content, problem, data):
    (data / name).write_text(json.dumps(content))
    with pytest.raises(DataError, match=problem):
        parse_task(name.partition("/")[0]).items(data)


@pytest.mark.parametrize("task", ["dash-b", "hallusion-bench", "naturalbench"])
def test_pictures_come_from_a_folder_of_the_user(task, data, tmp_path):
    files = tuple(
        File(name, "github", name, len(body), sha256(body).hexdigest())
        for name in FILES
        if name.startswith(f"{task}/") and (body := (data / name).read_bytes())
    )
    sources = replace(Sources(), others={task: files})
    benchmark, folder = parse_task(task), tmp_path / "from" / "deep"
    media = dict.fromkeys(item.medium for item in benchmark.items(data) if not item.medium.startswith("text/"))
    with pytest.raises(DataError, match=f"pictures are not there and cannot be fetched .*get {task} --from FOLDER"):
        DataFolder(data, None, sources).get(task)
    for name in (*media, *(file.path for file in files)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((data / name).read_bytes() if name.endswith(".json") else picture(name))
    missing = next(iter(media))
    (folder / missing).rename(folder / "kept")
    with pytest.raises(DataError, match=f"1 of {len(media)} pictures are not in .*: {missing}"):
        DataFolder(tmp_path / "data", tmp_path / "from", sources).get(task)
    (folder / "kept").rename(folder / missing)
    filled = DataFolder(tmp_path / "data", tmp_path / "from", sources)
    filled.get(task)
    for name in media:
        assert benchmark.source(tmp_path / "data", name).read_bytes() == picture(name)
    assert (task, f"{len(files)} of {len(files)}", f"{len(media)} of {len(media)}") in filled.state()
    assert task in LICENCES and task in PICTURES


def picture(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (len(name) * 7 % 256, sum(map(ord, name)) % 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@needs_data
def test_the_files_and_the_published_scores():
    items = parse_task("pope:set=repope").items(DATA)
    counts = [sum(item.split == split for item in items) for split in ("random", "popular", "adversarial")]
    assert counts == [2774, 2727, 2684] and len({item.medium for item in items}) == 500
    task = parse_task("dash-b")
    items = task.items(DATA / "dash_b")
    published = json.loads((DATA / "dash_b/Paligemma-3b_answers.json").read_text())
    # The answers name the pictures with the object by number; figures need labels only.
    assert [item.label for item in items] == [answer["gt"] for answer in published]
    texts = [answer["response"] for answer in published]
    found = values(task.metrics(answered(task, DATA / "dash_b", texts), "official", {}), "all")
    wanted = json.loads((DATA / "dash_b/Paligemma-3b_dash_b_results.json").read_text())
    names = {"accuracy": "ACC", "TPR": "TPR", "TNR": "TNR", "harmonic mean": "Harmonic Mean"}
    assert {theirs: found[ours] for ours, theirs in names.items()} == pytest.approx(wanted, abs=1e-12)
    assert len(parse_task("hallusion-bench:part=all").items(DATA / "hallusion_bench")) == 1129
    assert len(parse_task("hallusion-bench").items(DATA / "hallusion_bench")) == 951
