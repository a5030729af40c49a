"""Free questions as a task: the scorer of each kind of question, and a run of the demo models."""

import numpy as np
import pytest

import lime_mlx
from lime_mlx.cli.scores import text_tables
from lime_mlx.decoding import steps
from lime_mlx.evaluate.asking import sessions
from lime_mlx.evaluate.runner import RunConfig, run
from lime_mlx.evaluate.scorers.free import fault, loops
from lime_mlx.evaluate.scorers.metrics import MORE, Metric
from lime_mlx.evaluate.store import Cell, Store
from lime_mlx.evaluate.summary import changes, rows, summarise
from lime_mlx.evaluate.tasks import parse_task
from lime_mlx.methods import parse_method
from lime_mlx.scenes import PICTURES, SOUNDS
from lime_mlx.scenes.talk import LIST, ORDERED, TALKS, VERDICT, WORD
from lime_mlx.session import Session


def truth(says: str, may: str = "", form: str = "") -> dict[str, list[str]]:
    return {"says": says.split(), "may": may.split(), "form": [form]}


YES_DOG, NO_DOG = truth("yes dog", form=VERDICT), truth("no no dog", form=VERDICT)
BESIDE = truth("ball cup", "dog")
TWICE = truth("left dog dog ball", form=ORDERED)


@pytest.mark.parametrize(
    ("truth", "text"),
    [
        (YES_DOG, "Yes, there is a dog."),
        (YES_DOG, "Yes."),
        (YES_DOG, "yes, a dog is there"),
        (NO_DOG, "No, there is no dog."),
        (NO_DOG, "No, there isn't a dog."),
        (NO_DOG, "No"),
        (BESIDE, "A ball and a cup."),
        (BESIDE, "Beside the dog are a cup and a ball."),
        (truth("nothing", "dog"), "Nothing."),
        (truth("three"), "There are three things."),
        (truth("three"), "3"),
        (truth("car red", "car"), "The car is red."),
        (truth("dog"), "It is a dog."),
        (truth("yes", form=WORD), "Yes."),
        (truth("dog ball tree", form=LIST), "dog, ball, tree"),
        (truth("dog ball tree", form=LIST), "ball, tree and dog"),
        (truth("no dog"), "There is no dog."),
        (TWICE, "On the left is a dog. Beside the dog is a ball."),
        (TWICE, "The left one is a dog, and a ball is beside it."),
        (truth("beach", "beach nothing no"), "An empty beach."),
    ],
)
def test_right_answers(truth, text):
    assert fault(text, truth, PICTURES) == ""


@pytest.mark.parametrize(
    ("truth", "text", "why"),
    [
        (YES_DOG, "No, there is no dog.", "false: no"),
        (YES_DOG, "Yes, there is a cat.", "false: cat"),
        (YES_DOG, "No.", "false: no"),
        (YES_DOG, "Yes, there is a dog. Yes, there is a dog.", "a loop"),
        (YES_DOG, "Yes, there is a dog. Yes, a dog is there.", "said again: yes"),
        (YES_DOG, "Yes, there is a.", "words are missing"),
        (YES_DOG, "Yes, there is a dog and a", "words are missing"),
        (YES_DOG, "Yes, there is.", "words are missing"),
        (YES_DOG, "A dog, yes.", "does not begin with yes"),
        (YES_DOG, "", "not finished"),
        (NO_DOG, "Yes, there is no dog.", "false: yes"),
        (BESIDE, "A ball.", "not said: cup"),
        (BESIDE, "A ball and a ball.", "said again: ball"),
        (BESIDE, "A ball and a tree.", "false: tree"),
        (BESIDE, "Nothing.", "false: nothing"),
        (truth("three"), "There are four things.", "false: four"),
        (truth("three"), "There are things.", "not said: three"),
        (truth("car red", "car"), "The car is blue.", "false: blue"),
        (truth("car red", "car"), "The car is car red.", "said again: car"),
        (truth("dog"), "It is a dog or a cat.", "false: cat"),
        (truth("yes", form=WORD), "Yes, there is.", "more than one word"),
        (truth("dog ball tree", form=LIST), "There is a dog, a ball and a tree.", "not a list of names"),
        (truth("dog ball tree", form=LIST), "dog, ball", "not said: tree"),
        (truth("no dog"), "The dog is tan.", "false: tan"),
        (truth("no dog"), "There is a dog.", "not said: no"),
        (TWICE, "On the left is a ball. Beside the ball is a dog.", "said again: ball"),
        (TWICE, "On the left is a ball, and beside it a dog.", "another order"),
        (TWICE, "On the left is a dog.", "not said: ball"),
        (truth("beach", "nothing"), "A beach with a dog.", "false: dog"),
        (truth("beach", "nothing"), "There is nothing.", "not said: beach"),
    ],
)
def test_wrong_answers(truth, text, why):
    assert fault(text, truth, PICTURES) == why


def test_an_answer_that_the_model_did_not_end_is_wrong():
    assert fault("Yes, there is a dog", YES_DOG, PICTURES, ended=False) == "not finished"


def test_sounds_come_in_an_order():
    after = truth("rain after bell", form=ORDERED)
    assert fault("The rain comes after the bell.", after, SOUNDS) == ""
    assert fault("The bell comes after the rain.", after, SOUNDS) == "another order"
    assert fault("The rain comes before the bell.", after, SOUNDS) == "false: before"


@pytest.mark.parametrize(
    ("text", "looped"), [("the the dog", True), ("a dog. A dog.", True), ("a dog and a cat", False)]
)
def test_loops(text, looped):
    assert loops(text) is looped


def metric(ids: str, top: list[int]) -> Metric:
    return Metric("right", "count", list(ids), list(ids), np.array(top, float), np.ones(len(ids)), MORE, binary=True)


def test_spoilt_and_mended_are_counted_against_plain_decoding():
    before, after = metric("abcd", [1, 1, 0, 0]), metric("bcde", [0, 1, 0, 1])
    spoilt, mended = changes(before, after)
    assert (spoilt.name, spoilt.ids, list(spoilt.top)) == ("spoilt", ["b", "c", "d"], [1, 0, 0])
    assert (mended.name, mended.media, list(mended.top)) == ("mended", ["b", "c", "d"], [0, 1, 0])
    assert [list(change.top) for change in changes(before, before)] == [[0] * 4] * 2


@pytest.mark.parametrize(("task", "world"), [("free", PICTURES), ("free-sounds", SOUNDS)])
def test_a_run_has_a_question_of_each_kind_and_no_test_seeds_in_validation(task, world):
    items = parse_task(f"{task}:part=validation").items(None, limit=6)
    assert {item.split for item in items} == {*TALKS[world.medium], "empty"}
    assert all(100_000 <= int(item.medium.partition("/")[0]) < 200_000 for item in items)
    assert items == parse_task(f"{task}:part=validation").items(None, limit=6)
    assert any(item.history for item in items)


@pytest.mark.parametrize("task", ["free", "free-sounds"])
def test_the_default_run_has_a_thousand_questions(task):
    sizes = [len(parse_task(f"{task}:part=validation").items(None, limit=10, seed=seed)) for seed in range(2)]
    assert sum(sizes) * 5 >= 1000


FREE = "free:part=validation,count=3"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("free")
    outcome = run(RunConfig(["demo"], ["none", "m3id"], [FREE]), folder)
    assert outcome.answered and not outcome.failed and not outcome.notes
    return Store(folder)


def test_answers_with_a_history_are_those_of_the_whole_chat(finished):
    model, processor = lime_mlx.load("demo")
    task = parse_task(FREE)
    items = {item.id: item for item in task.items(None)}
    records = finished.answers(Cell("demo", "none", FREE)).records
    told = [record for record in records.values() if "history" in record]
    assert told and len(records) == len(items)
    for record in told:
        item = items[record["id"]]
        assert [[turn.user, turn.assistant] for turn in item.history] == record["history"]
        prompt = processor.prompt(item.text, **task.opened(None, item.medium), history=item.history)
        stop = frozenset(processor.eos_token_ids)
        answer = steps(Session.open(model, prompt), parse_method("none"), item.max_tokens, stop=stop)
        assert [step.token for step in answer if step.token not in stop] == record["tokens"]


def test_a_history_leaves_the_picture_in_the_common_prefix():
    model, processor = lime_mlx.load("demo")
    task = parse_task(FREE)
    items = [item for item in task.items(None) if item.medium == "100000"]
    media = task.opened(None, "100000")
    prompts = [processor.prompt(item.text, **media, history=item.history) for item in items]
    assert any(item.history for item in items)
    reused = [open_session().reused for open_session in sessions(model, prompts)]
    assert reused == [0] + [np.flatnonzero(model.modality(prompts[0]))[-1] + 1] * (len(items) - 1)


def test_the_figures_of_a_run(finished):
    figures = {(f.cell.method, f.metric.split, f.metric.name): f for f in summarise(finished)}
    splits = {split for _, split, name in figures if name == "right"}
    assert splits == {*TALKS["picture"], "empty", "all"}
    for split in splits:
        plain, other = (figures[method, split, "right"].value for method in ("none", "m3id"))
        spoilt, mended = (figures["m3id", split, name].value for name in ("spoilt", "mended"))
        assert other == pytest.approx(plain - spoilt + mended)
        assert figures["none", split, "spoilt"].value == figures["none", split, "mended"].value == 0
        assert figures["m3id", split, "spoilt"].comparison is None
    assert {row["metric"] for row in rows(figures.values())} >= {"right", "spoilt", "mended", "words", "loops"}


def test_a_kind_that_plain_decoding_cannot_answer_does_not_count(finished):
    figures = summarise(finished)
    plain = {f.metric.split: f.value for f in figures if f.metric.name == "right" and f.cell.method == "none"}
    for table in text_tables(figures):
        if "right" in table.header and table.title != FREE:
            split = table.title.removeprefix(f"{FREE}: ").partition(" (")[0]
            assert ("does not count" in table.title) is (plain[split] < 0.6)
