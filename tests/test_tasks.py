"""The public benchmarks as tasks: what is read from their files, and figures that are the official ones."""

import json
import random
import shutil
from pathlib import Path

import official
import pytest
from official import values

from lime_mlx.errors import DataError
from lime_mlx.evaluate.scorers import amber, answers
from lime_mlx.evaluate.scorers.chair import ObjectFinder
from lime_mlx.evaluate.tasks import TASKS, audio, parse_task

DATA = Path(__file__).parents[1].parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the benchmarks' own files are not there")
ANSWERS = ("Yes", "No", "yes, there is", "No.", "There is no dog.", "I cannot tell.", "Not that I see", "Noisy", "")
SYNONYMS = "person, man, woman\ndog, puppy\ncar, automobile\nbus"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def rows(*objects: dict) -> str:
    return "\n".join(map(json.dumps, objects))


POPE = [{"question_id": n, "image": f"{n // 2}.jpg", "text": "Is there a dog?", "label": "yes"} for n in range(4)]
QUERIES = [
    {"id": 1, "image": "AMBER_1.jpg", "query": "Describe this image."},
    {"id": 2, "image": "AMBER_1.jpg", "query": "Is the sky sunny?"},
    {"id": 3, "image": "AMBER_2.jpg", "query": "Is there a dog?"},
    {"id": 4, "image": "AMBER_2.jpg", "query": "Do they touch?"},
]
ANNOTATIONS = [
    {"id": 1, "type": "generative", "truth": ["sky", "man"], "hallu": ["dog"]},
    {"id": 2, "type": "discriminative-attribute-state", "truth": "yes"},
    {"id": 3, "type": "discriminative-hallucination", "truth": "no"},
    {"id": 4, "type": "relation", "truth": "no"},
]
TSV = (
    "\t".join(audio.COLUMNS)
    + "\n"
    + "\n".join(
        f"{n}\tclip{n // 2}\tIs there the sound of a dog?\tdog\tpositive\t{'Yes' if n % 2 else 'No'}\trandom"
        for n in range(4)
    )
)
TABLE = {"objects": ["person", "dog", "car", "bus"], "images": {"7": [0, 1], "12": [2]}}
FILES = {
    **{f"pope/coco/coco_pope_{split}.json": rows(*POPE) for split in ("popular", "adversarial")},
    "pope/coco/coco_pope_random.json": json.dumps(
        [{**row, "image": f"COCO_val2014_{n:012d}.jpg"} for n, row in zip((7, 7, 12, 12), POPE, strict=True)]
    ),
    "amber/annotations.json": json.dumps(ANNOTATIONS),
    "amber/query/query_all.json": json.dumps(QUERIES),
    "amber/relation.json": json.dumps({"man": ["person"], "sky": [], "dog": ["puppy"], "tree": []}),
    "amber/safe_words.txt": "background\n",
    "mme/count/000000000012.txt": "Are there two dogs? Answer yes or no.\tYes\nThree? Answer yes or no.\tNo\n",
    "mme/count/000000000012.png": "",
    "mme/existence/a b.txt": "Is there a dog?\tYes\nIs there a cat?\tNo\n",
    "mme/position/p.txt": "Is the dog left?\tYes\nRight?\tNo\n",
    "mme/color/c.txt": "Is it red?\tNo\nBlue?\tYes\n\n",
    "audio/random.tsv": TSV,
    "chair/synonyms.txt": SYNONYMS,
    "chair/coco2014_gt_objects.pattern.json": json.dumps(TABLE),
    "chair/coco2014_gt_objects.wordnet_overrides.json": json.dumps({**TABLE, "images": {"7": [0]}}),
    "images/more/000000000012.jpg": "",
    "images/COCO_val2014_000000000012.jpg": "",
    "images/COCO_val2014_000000000099.jpg": "",
    "images/AMBER_7.jpg": "",  # their numbers are no numbers of COCO
    "images/IMG_0012.jpg": "",
}
CHOSEN = ("pope", "chair", "amber", "mme", "audio")


@pytest.fixture
def data(tmp_path) -> Path:
    return write(tmp_path, FILES)


def records(items, rng: random.Random, texts=ANSWERS) -> list[dict]:
    found = [{**vars(item), "text": rng.choice(texts)} for item in items]
    return json.loads(json.dumps(found))


@pytest.mark.parametrize(
    ("spec", "split", "medium", "label", "count"),
    [
        ("pope", "random", "COCO_val2014_000000000007.jpg", "yes", 12),
        ("pope:split=popular", "popular", "0.jpg", "yes", 4),
        ("chair", "all", "COCO_val2014_000000000007.jpg", None, 2),
        ("chair:pictures=all,tokens=64", "all", "COCO_val2014_000000000012.jpg", None, 1),
        ("amber", "generative", "AMBER_1.jpg", None, 4),
        ("amber:ask=discriminative", "attribute-state", "AMBER_1.jpg", "yes", 3),
        ("mme", "existence", "existence/a b.jpg", "yes", 8),
        ("mme:part=count", "count", "count/000000000012.png", "yes", 2),
        ("audio", "random", "clip0.wav", "no", 4),
    ],
)
def test_questions_are_read(spec, split, medium, label, count, data):
    items = parse_task(spec).items(data)
    assert (items[0].split, items[0].medium, items[0].label, len(items)) == (split, medium, label, count)
    assert len({item.id for item in items}) == count
    if not spec.startswith("chair"):  # its pictures are those of another task
        assert parse_task(spec).items(data / spec.partition(":")[0]) == items


@pytest.mark.parametrize("spec", CHOSEN)
def test_a_limit_takes_whole_pictures_and_the_same_ones_for_the_same_seed(spec, data):
    task, drawn = parse_task(spec), {}
    for seed in range(8):
        items = task.items(data, limit=1, seed=seed)
        assert len({item.medium for item in items}) == 1 and items == task.items(data, limit=1, seed=seed)
        drawn[items[0].medium] = items
        assert items == [item for item in task.items(data) if item.medium == items[0].medium]
    assert len(drawn) > 1
    assert task.items(data, limit=100) == task.items(data)


@pytest.mark.parametrize("scorer", ["official", "vcd", "ours"])
def test_pope_figures_are_those_of_its_program(scorer, data):
    task, rng = parse_task("pope:split=random"), random.Random(scorer)
    answered = records(task.items(data) * 20, rng)
    for record in answered:
        record["label"] = rng.choice(("yes", "no"))
    found = values(task.metrics(answered, scorer, {}), "random")
    texts, labels = [r["text"] for r in answered], [r["label"] for r in answered]
    verdicts = answers.verdicts(texts, labels, {"official": "pope"}.get(scorer, scorer))
    wanted = official.pope(verdicts, labels)
    assert {key: found[key] for key in wanted} == pytest.approx(wanted)


@pytest.mark.parametrize("scorer", ["official", "icassp2025"])
def test_audio_figures_are_those_of_its_programs(scorer, data):
    task = parse_task("audio:file=random.tsv")
    answered = records(task.items(data) * 25, random.Random(scorer))
    found = values(task.metrics(answered, scorer, {}), "random")
    texts, labels = [r["text"] for r in answered], [r["label"] for r in answered]
    verdicts = answers.verdicts(texts, labels, {"official": "interspeech2024"}.get(scorer, scorer))
    for name, value in official.audio(verdicts, labels).items():
        assert 100 * found[name] == pytest.approx(value, abs=0.02)


def test_audio_score_by_hand():
    texts, labels = ["Yes", "No", "The audio contains a dog", "hm", "No"], ["yes", "no", "no", "no", "yes"]
    records = [
        {"id": str(n), "medium": str(n), "split": "random", "text": text, "label": label}
        for n, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    metrics = parse_task("audio").metrics(records, "official", {})
    # right: 2 of 5; "no" was said twice, once rightly, and was right three times
    assert {metric.name: round(100 * metric.value, 2) for metric in metrics} == {
        "accuracy": 40.0, "precision": 50.0, "recall": 33.33, "F1": 40.0, "yes rate": 40.0, "unknown": 20.0,
    }  # fmt: skip
    assert all(len(metric.ids) == 5 for metric in metrics)
    with pytest.raises(ValueError, match="5 answers for 4 labels"):
        answers.verdicts(texts, labels[1:], "interspeech2024")


def test_amber_figures_are_those_of_its_program(data):
    task, rng = parse_task("amber"), random.Random(0)
    items = task.items(data)
    material = json.loads(json.dumps(task.material(data)))
    answered = records(items[1:] * 30, rng)
    for record in answered:
        record["label"] = rng.choice(("yes", "no"))
    said = ("A man under the sky.", "A dog and a tree.", "A person, a puppy.", "Nothing.")
    captions = records(items[:1] * 12, rng, said)
    found = task.metrics([*captions, *answered], "official", material)
    described = [amber.describe(r["text"], **r["truth"], **material)._asdict() for r in captions]
    generative = values(found, "generative")
    for name, value in official.amber_generative(described).items():
        assert 100 * generative[name] == pytest.approx(value, abs=0.06)
    texts, labels = [r["text"] for r in answered], [r["label"] for r in answered]
    whole = values(found, "discriminative")
    for name, value in official.amber_discriminative(answers.verdicts(texts, labels, "amber"), labels).items():
        assert 100 * whole[name] == pytest.approx(value, abs=0.12)
    assert {metric.split for metric in found} == {
        "generative",
        "attribute-state",
        "existence",
        "relation",
        "discriminative",
    }


def test_amber_discriminative_by_hand():
    texts, labels = ["No", "Yes", "no", "No", "Yes"], ["no", "no", "no", "yes", "yes"]
    # "no" is exact: two said, one right of three; a right yes
    records = [
        {"id": str(n), "medium": str(n), "split": "existence", "text": text, "label": label}
        for n, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    found = values(parse_task("amber").metrics(records, "official", {}), "existence")
    wanted = {"accuracy": 40.0, "precision": 50.0, "recall": 33.3, "F1": 40.0}
    assert {name: round(100 * found[name], 1) for name in wanted} == wanted
    assert official.amber_discriminative(answers.verdicts(texts, labels, "amber"), labels) == wanted


def test_mme_score_by_hand(data):
    task = parse_task("mme:part=count")
    (first, second), texts = task.items(data), [("Yes", "No"), ("yes.", "I see three, no"), ("Yes", "Yes")]
    answered = []
    for picture, pair in enumerate(texts):
        for item, text in zip((first, second), pair, strict=True):
            answered.append({**vars(item), "id": f"{picture}/{item.id}", "medium": str(picture), "text": text})
    found = values(task.metrics(answered, "official", {}), "count")
    assert found["accuracy"] == pytest.approx(4 / 6) and found["accuracy+"] == pytest.approx(1 / 3)
    assert found["score"] == pytest.approx(100 * (4 / 6 + 1 / 3)) and found["unknown"] == pytest.approx(1 / 6)
    assert values(task.metrics(answered, "ours", {}), "count")["score"] == pytest.approx(100 * (5 / 6 + 2 / 3))
    assert [answers.mme(text) for text in ("YES", "no", "Nope", "a no", "I say yes")] == [
        "yes",
        "no",
        "no",
        "no",
        "unknown",
    ]


def test_chair_reads_each_scorer_with_its_own_objects(data):
    task = parse_task("chair")
    material = json.loads(json.dumps(task.material(data)))
    texts = {
        "COCO_val2014_000000000007.jpg": "A man and a puppy beside a bus.",
        "COCO_val2014_000000000012.jpg": "Two cars.",
    }
    answered = [{**vars(item), "text": texts[item.medium]} for item in task.items(data)]
    figures = {scorer: values(task.metrics(answered, scorer, material), "all") for scorer in task.scorers}
    # pattern's base form of bus is bu, which is in no list; the wordnet table has no dog in picture 7
    assert figures["ours"] == pytest.approx({"CHAIR_S": 0.5, "CHAIR_I": 0.25, "recall": 1, "length": 6})
    assert figures["official"] == pytest.approx({"CHAIR_S": 0, "CHAIR_I": 0, "recall": 1, "length": 6})
    assert figures["wordnet"] == pytest.approx({"CHAIR_S": 0.5, "CHAIR_I": 0.5, "recall": 1, "length": 6})
    assert task.objects(["A", " man", " and", " a", " puppy", "."], material) == [(1, "person"), (4, "dog")]


@pytest.mark.parametrize("scorer", ["official", "wordnet", "ours"])
def test_chair_figures_are_those_of_its_score(scorer, data):
    task, rng, mode = parse_task("chair"), random.Random(scorer), {"official": "pattern"}.get(scorer, scorer)
    material = task.material(data)
    said = ("A man and a puppy beside a bus.", "Two cars, one car.", "Men with dogs.", "Nothing.")
    answered = records(task.items(data) * 20, rng, said)
    finder = ObjectFinder(material["synonyms"], mode)
    there = [set(r["truth"].get(mode, r["truth"]["pattern"])) for r in answered]
    objects = [finder.find(r["text"]) for r in answered]
    wrong = [sum(mention.name not in truth for mention in o.mentions) for o, truth in zip(objects, there, strict=True)]
    covered = [len(o.names & truth) for o, truth in zip(objects, there, strict=True)]
    want = {
        "CHAIR_S": sum(count > 0 for count in wrong) / len(objects),
        "CHAIR_I": sum(wrong) / sum(len(o.mentions) for o in objects),
        "recall": sum(covered) / sum(map(len, there)),
        "length": sum(o.length for o in objects) / len(objects),
    }
    assert values(task.metrics(answered, scorer, material), "all") == pytest.approx(want)


def test_objects_of_a_picture_are_its_categories_and_what_its_captions_name():
    objects = ObjectFinder([line.split(", ") for line in SYNONYMS.split("\n")])
    assert objects.ground_truth(["car"], ["Two men walk.", "A puppy."]) == {"car", "person", "dog"}
    assert objects.ground_truth([], ["An empty street."]) == set()


COCO, COUNT, TABLES = (
    "pope/coco/coco_pope_random.json",
    "mme/count/000000000012.txt",
    "chair/coco2014_gt_objects.pattern.json",
)
KNOWN, QUERY, SOUNDS = "amber/annotations.json", "amber/query/query_all.json", "audio/random.tsv"
BAD = [
    (COCO, rows(POPE[0], POPE[0]), "random.json:2: question_id 0 was used before"),
    (COCO, "{", "random.json:1: not valid JSON"),
    (COCO, rows({**POPE[0], "label": "maybe"}), "label 'maybe' is neither yes nor no"),
    (KNOWN, "{", "annotations.json cannot be read as JSON"),
    (KNOWN, json.dumps([{"id": 1}]), "entry 1 has no id, type, truth"),
    (QUERY, json.dumps([QUERIES[0], QUERIES[0]]), "entry 2: id 1 was used before"),
    (QUERY, json.dumps([{**QUERIES[0], "id": 9}]), "entry 1: id 9 is not in annotations"),
    (QUERY, "[]", "entry 1 has no id, image, query"),
    (KNOWN, json.dumps([ANNOTATIONS[0]] * 2), "annotations.json: entry 2: id 1 was used before"),
    (
        KNOWN,
        json.dumps([{**ANNOTATIONS[0], "type": ["x"]}]),
        "annotations.json: entry 1: the type \\['x'\\] is unknown",
    ),
    (
        KNOWN,
        json.dumps([{**ANNOTATIONS[0], "truth": "sky"}]),
        "entry 1: truth and hallu of a description must be lists",
    ),
    (KNOWN, json.dumps([{**ANNOTATIONS[0], "type": "new"}]), "the type 'new' is unknown"),
    (KNOWN, json.dumps([{**ANNOTATIONS[1], "id": 1, "truth": "?"}]), "'\\?' is neither"),
    (COUNT, "Two?\tYes\nThree? No\n", "000000000012.txt:2: expected a question, a tab"),
    (COUNT, "Two?\tYes\n", "expected two questions, not 1"),
    (COUNT, "Two?\tYes\n".encode("utf-16"), "000000000012.txt: cannot be read as UTF-8"),
    (COUNT, "Two?\tMaybe\n", "000000000012.txt:1: expected a question, a tab, and Yes or No"),
    (SOUNDS, TSV.replace("2\tclip1", "1\tclip1"), "random.tsv:4: entry_id 1 was used before"),
    (SOUNDS, TSV.replace("\tNo\t", "\tPerhaps\t"), "random.tsv:2: label 'Perhaps'"),
    (SOUNDS, "entry_id\n", "no column audio_index"),
    (TABLES, "{}", "cannot be read as a table of objects"),
    (TABLES, json.dumps({**TABLE, "images": {"7": []}}), "objects of COCO_val2014_000000000012.jpg are not known"),
]


@pytest.mark.parametrize(("name", "text", "problem"), BAD)
def test_malformed_files_are_refused_by_name_and_line(name, text, problem, data):
    (data / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=problem):
        parse_task(name.partition("/")[0]).items(data)


@pytest.mark.parametrize("spec", CHOSEN)
def test_what_is_missing_is_named_with_how_to_get_it(spec, data):
    shutil.rmtree(data / spec)
    if spec == "chair":
        shutil.rmtree(data / "images")
    with pytest.raises(DataError, match=f"has no {spec}/.*lime-mlx data get {spec}"):
        parse_task(spec).items(data)
    with pytest.raises(DataError, match=f"needs its files: lime-mlx data get {spec}"):
        parse_task(spec).items(None)


@pytest.mark.parametrize(
    "spec",
    [
        "pope:set=x",
        "pope:split=x",
        "chair:pictures=x",
        "chair:tokens=0",
        "amber:ask=x",
        "amber:tokens=0",
        "mme:part=x",
        "audio:file=/x.tsv",
    ],
)
def test_options_out_of_range_name_what_is_valid(spec):
    with pytest.raises(DataError, match="choose one of|at least 1|as it stands"):
        parse_task(spec)


def test_every_task_has_ours_first_and_a_medium():
    assert all(next(iter(task.scorers)) == "ours" and task.medium in ("image", "audio") for task in TASKS.values())


@real
def test_the_official_files():
    for name in ("coco", "aokvqa"):
        items = parse_task(f"pope:set={name}").items(DATA)
        assert len(items) == 9000 and len({item.medium for item in items}) == 500
        assert sum(item.label == "yes" for item in items) == 4500
    splits = [item.split for item in parse_task("amber").items(DATA)]
    assert {split: splits.count(split) for split in set(splits)} == {
        "generative": 1004, "existence": 4924, "attribute-state": 4764, "attribute-number": 2072,
        "attribute-action": 792, "relation": 1664,
    }  # fmt: skip
    assert len(parse_task("amber").material(DATA)["relation"]) == 340
    assert len(parse_task("chair").items(DATA)) == 500
    known = parse_task("chair:pictures=all").items(DATA)
    assert known and all(parse_task("chair").source(DATA, item.medium).is_file() for item in known)
    by_name = {entry["file"]: entry for entry in json.loads((DATA / "images/images.json").read_text())}
    assert all(sorted(item.truth["pattern"]) == sorted(by_name[item.medium]["chair_gt_pattern"]) for item in known)
