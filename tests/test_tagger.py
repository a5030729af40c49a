"""The Penn tagger: by hand with small weights; what CHAIR and AMBER make of its tags."""

import gzip
import json
import zipfile
from pathlib import Path

import pytest

from lime_mlx.errors import DataError
from lime_mlx.evaluate.scorers import amber, baseforms, tagger
from lime_mlx.evaluate.scorers.chair import ObjectFinder, read_synonyms
from lime_mlx.evaluate.tasks import parse_task

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no benchmark files beside the repository (../shared/data)")
WEIGHTS = {
    "bias": {"NN": 0.5},
    "i suffix ing": {"VBG": 2.0},
    "i-1 tag DT": {"NN": 2.0, "VBZ": -1.0},
    "i suffix ges": {"VBZ": 1.0},
    "i-1 tag NN": {"VBZ": 1.0},
    "i word !YEAR": {"CD": 3.0},
    "i word !DIGITS": {"CD": 3.0},
    "i word !HYPHEN": {"JJ": 3.0},
}
PARTS = {"weights": WEIGHTS, "tagdict": {"the": "DT", "a": "DT"}, "classes": ["NN", "VBG", "VBZ", "DT", "CD", "JJ"]}
RELATION = {"lounge": ["couch"], "dog": []}


def zipped(path: Path, parts: dict = PARTS) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(f"x_eng/x_eng.{name}.json", json.dumps(part))
    return path


@pytest.fixture
def tags(tmp_path):
    return tagger.Tagger.of(tagger.read(zipped(tmp_path / "x.zip")))


def test_tags_by_hand(tags):
    assert tags.tag("the dog lounges".split()) == ["DT", "NN", "VBZ"]
    assert tags.tag("the lounges".split()) == ["DT", "NN"]
    assert tags.tag("dogs running in 1999 , 3rd well-known".split()) == ["NN", "VBG", "NN", "CD", "NN", "CD", "JJ"]
    assert tags.tag([]) == []


def test_equal_scores_go_to_the_last_tag_of_the_alphabet():
    assert tagger.Tagger({}, {}, ["NN", "VB", "DT"]).tag(["x"]) == ["VB"]
    assert tagger.Tagger({"bias": {"VB": -1.0}}, {}, ["NN", "VB"]).tag(["x"]) == ["NN"]


def test_verbs_are_no_nouns_of_amber(tags):
    text = "The dog lounges beside the lounges."
    assert amber.nouns(text, RELATION) == ["dog", "lounge", "lounge"]
    assert amber.nouns("the dog lounges beside the lounges .", RELATION, tags) == ["dog", "lounge"]


def test_wordnet_follows_the_tags():
    lines = [["kite"], ["oven", "stove"], ["potted plant"], ["skis", "ski"], ["parking meter"], ["umbrella"], ["boat"]]

    def named(text, *tags):
        return ObjectFinder(lines, "wordnet", Told(*tags)).find(text).names

    assert named("they fly kites", "PRP", "VBP", "VBZ") == set() != named("they fly kites", "PRP", "VBP", "NNS")
    assert named("the umbrellas", "DT", "JJ") == set() != named("the umbrellas", "DT", "NNS")
    assert named("potted plants", "VBN", "NNS") == set() != named("potted plants", "JJ", "NNS")
    assert named("parking meters", "VBG", "NNS") == set() != named("parking meters", "NN", "NNS")
    assert named("stove", "VBD") == set() != named("stove", "NN")
    assert named("she is skiing", "PRP", "VBZ", "VBG") == {"skis"} != named("the skiing", "DT", "NN")
    assert named("blue skies", "JJ", "NNS") == named("it skies", "PRP", "VBZ") == set()


def test_what_is_no_word_of_wordnet_keeps_its_plural():
    words = ["sailboard", "riverboat", "hairdryer", "sailboat"]
    found = [baseforms.wordnet(f"{word}s", words) for word in words]
    assert found == ["sailboards", "riverboats", "hairdryers", "sailboat"]


@pytest.mark.parametrize("parts", [{"weights": {}, "tagdict": {}}, {**PARTS, "classes": {}}])
def test_damaged_weights_are_named(parts, tmp_path):
    with pytest.raises(DataError, match="tagger"):
        tagger.Tagger.of(tagger.read(zipped(tmp_path / "x.zip", parts)))
    (tmp_path / "y.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="y.zip cannot be read as the weights of a tagger"):
        tagger.read(tmp_path / "y.zip")


def test_a_run_keeps_the_tagger_with_its_answers(tmp_path):
    (tmp_path / "tagger").mkdir()
    zipped(tmp_path / "tagger" / "averaged_perceptron_tagger_eng.zip")
    (tmp_path / "chair").mkdir()
    (tmp_path / "chair" / "synonyms.txt").write_text("dog\nstove, oven\n")
    material = json.loads(json.dumps(parse_task("chair").material(tmp_path)))
    assert material["tagger"] == PARTS
    record = {"id": "1", "medium": "1", "label": None, "text": "The dog.", "truth": {"pattern": ["dog"]}}
    figures = {metric.name: metric.value for metric in parse_task("chair").metrics([record], "wordnet", material)}
    assert (figures["CHAIR_S"], figures["recall"]) == (0, 1)


class Told:
    """A tagger that says what it was told."""

    def __init__(self, *tags):
        self.tags = tags

    def tag(self, tokens):
        return self.tags


@needs_data
def test_with_the_tags_of_the_reference_its_objects_are_found():
    """All captions but those that our tokeniser cuts in another way."""
    reference = DATA / "reference" / "chair"
    with gzip.open(reference / "tokens_tags.jsonl.gz", "rt") as file:
        tagged = [row for *_, row in map(json.loads, file)]
    cases = [json.loads(line) for line in (reference / "cases.jsonl").read_text().splitlines()]
    told = Told()
    finder = ObjectFinder(read_synonyms(DATA / "chair/synonyms.txt"), "wordnet", told)
    cut = equal = 0
    for case, row in zip(cases, tagged, strict=True):
        if [token for token, _ in row] != baseforms.tokens(case["caption"].lower()):
            cut += 1
            continue
        told.tags = [tag for _, tag in row]
        wanted = case["pattern"] if case["wordnet"].get("same") else case["wordnet"]
        found = [[mention.word, mention.name] for mention in finder.find(case["caption"]).mentions]
        equal += found == [[word, name] for word, name, _ in wanted["objects"]]
    assert cut <= 10 and equal == len(cases) - cut
