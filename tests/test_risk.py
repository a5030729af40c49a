"""The promise of a risk: the p values, the order of the tests, what a procedure keeps, and how a promise is read."""

import json
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest

import lime_mlx
from lime_mlx.errors import CheckpointError, MethodError
from lime_mlx.evaluate import bound as bounds
from lime_mlx.evaluate.bound import Wish, bound, choose
from lime_mlx.evaluate.calibrate import FittedDetector, captioned
from lime_mlx.evaluate.fitting import Quality
from lime_mlx.evaluate.procedures import Caption, Outcomes, at_threshold, mentioned, outcomes, replayed
from lime_mlx.evaluate.risk import (
    hoeffding_bentkus,
    p_value,
    passed,
    pictures_needed,
    reachable,
    upper_bound,
)
from lime_mlx.evaluate.runner import RunConfig
from lime_mlx.evaluate.tasks import parse_task
from lime_mlx.support.detector import Detector
from lime_mlx.support.promise import Promise
from lime_mlx.words import Word, without_flagged

RISK, CONFIDENCE = 0.1, 0.9
PROMISE = Promise(
    risk=0.02,
    confidence=0.95,
    threshold=0.1,
    procedure="drop",
    pictures=250,
    loss=0.01,
    recall=0.85,
    kept=0.94,
    task="scenes:part=validation,count=500",
    medium="image",
    question="What is in the picture?",
    tokens=48,
    weights="0123456789abcdef",
    detector="01234567",
)
SCENES = parse_task("scenes")
FIND = partial(SCENES.objects, material={})


def drawn(law: str, mean: float, shape: tuple[int, int]) -> np.ndarray:
    """Losses of one mean, (repetitions, answers)."""
    rng = np.random.default_rng(3)
    if law == "beta":
        return rng.beta(5 * mean, 5 * (1 - mean), shape)
    words = {"one": np.ones(shape), "share": rng.integers(2, 5, shape)}[law]
    return (rng.random(shape) < mean * words) / words


@pytest.mark.parametrize("law", ["one", "share", "beta"])
def test_a_mean_at_the_risk_passes_no_more_often_than_promised(law):
    losses = drawn(law, RISK, (3000, 200))
    level, chance = 1 - CONFIDENCE, 3 * np.sqrt(CONFIDENCE * (1 - CONFIDENCE) / len(losses))
    p = p_value(losses, RISK, CONFIDENCE)
    assert (p <= level).mean() <= level + chance
    assert (p <= level / 4).mean() <= level / 4 + chance
    assert np.mean([hoeffding_bentkus(row, RISK) <= level for row in losses[:500]]) <= level + 2 * chance
    assert law != "one" or (p <= level).mean() > level / 2  # the bound is tight, and not only safe


def test_a_small_mean_passes_and_a_large_one_does_not():
    assert (p_value(drawn("share", 0.03, (200, 400)), RISK, CONFIDENCE) <= 0.1).mean() > 0.95
    assert (p_value(drawn("share", 0.2, (200, 400)), RISK, CONFIDENCE) <= 0.1).mean() == 0
    assert p_value(np.zeros((2, 0)), RISK, CONFIDENCE).tolist() == [1, 1]


def test_the_capital_is_that_of_the_equations():
    losses, risk = np.array([0.0, 0.5, 0.0, 0.25, 0.0]), 0.3
    order = np.random.default_rng(0).permutation(5)
    capital, best, seen = 1.0, 1.0, [0.5]
    variance = 0.25
    for index in order:
        bet = min(1, np.sqrt(2 * np.log(1 / 0.1) / (5 * variance)))
        capital *= 1 - bet * (losses[index] - risk)
        best = max(best, capital)
        seen.append(losses[index])
        means = [np.mean(seen[: n + 1]) for n in range(len(seen))]
        variance = (0.25 + sum((x - m) ** 2 for x, m in zip(seen[1:], means[1:], strict=True))) / len(seen)
    assert p_value(losses, risk, 0.9) == pytest.approx(1 / best)


def test_hoeffding_and_bentkus_are_those_of_the_paper():
    losses = np.r_[np.zeros(95), np.ones(5)]
    tail = sum(float(np.prod([(100 - j) / (j + 1) for j in range(k)])) * 0.1**k * 0.9 ** (100 - k) for k in range(6))
    divergence = 0.05 * np.log(0.05 / 0.1) + 0.95 * np.log(0.95 / 0.9)
    assert hoeffding_bentkus(losses, 0.1) == pytest.approx(min(np.e * tail, np.exp(-100 * divergence)))


def test_the_tests_end_at_the_first_that_fails():
    good, bad = np.zeros(200), np.full(200, 0.5)
    assert passed(np.array([good, good, good]), 0.1, 0.95) == 3
    assert passed(np.array([good, bad, good]), 0.1, 0.95) == 1
    assert passed(np.array([bad, good, good]), 0.1, 0.95) == 0


def test_the_bound_of_a_row_is_the_risk_that_it_passes():
    losses = np.array([np.zeros(100), np.r_[np.zeros(90), np.full(10, 0.5)]])
    bound = upper_bound(losses, 0.95)
    for row, risk in zip(losses, bound, strict=True):
        assert p_value(row, risk, 0.95) <= 0.05 < p_value(row, risk - 1e-4, 0.95)
    assert reachable(losses, np.array([0.2, 0.95]), 0.95, 0.9) == bound[1] > bound[0]
    assert reachable(losses, np.array([0.2, 0.5]), 0.95, 0.9) == np.inf


def test_the_pictures_that_would_be_needed():
    needed = pictures_needed(np.zeros(20), 0.02, 0.95)
    assert 149 <= needed <= 160 and p_value(np.zeros(needed), 0.02, 0.95) <= 0.05
    assert pictures_needed(np.r_[np.zeros(99), 1.0], 0.02, 0.95) > needed
    assert pictures_needed(np.full(20, 0.02), 0.02, 0.95) is None


def caption(words: str, *true: str, **doubts: float) -> Caption:
    """A caption whose words have the probabilities `doubts`; with `DETECTOR` that is their share."""
    named = [(word, doubts.get(word.strip(",."))) for word in words.split()]
    spoken = [Word(text=f" {word}", statistics=None if p is None else {"share": p}) for word, p in named]
    return Caption(spoken, frozenset(true))


class Doubts(Detector):
    """A detector whose probability is the statistic itself."""

    def p_unsupported(self, statistics):
        return statistics["share"]


DETECTOR = Doubts({}, 0.0, 0.5)
SAID = caption("A dog, a cat and a ball.", "dog", "ball", dog=0.1, cat=0.6, ball=0.3)


def test_what_marks_keep():
    found = replayed("mark", [SAID], DETECTOR, FIND, (0.0, 0.1, 0.2, 0.4, 0.6, 0.7))
    assert found.losses[:, 0].tolist() == [0, 0, 0, 0, 0, 1 / 3]
    assert found.recall.tolist() == found.kept.tolist() == [0, 0, 0.5, 1, 1, 1]


def test_what_is_left_of_a_list():
    found = replayed("drop", [SAID], DETECTOR, FIND, (0.0, 0.2, 0.4, 0.7))
    assert found.losses[:, 0].tolist() == [0, 0, 0, 1 / 3]  # a list keeps its last item, a ball that is there
    assert found.recall.tolist() == [0.5, 0.5, 1, 1]
    wrong = caption("A dog and a cat.", "dog", dog=0.1, cat=0.6)
    assert replayed("drop", [wrong], DETECTOR, FIND, (0.0, 0.2)).losses.tolist() == [[1], [0]]


def test_an_answer_in_which_nothing_is_kept_has_no_loss():
    found = outcomes([0.0, 1.0], [[[], ["dog"]], [["cat", "cat", "dog"], ["dog"]]], [SAID, SAID], FIND)
    assert found.losses.tolist() == [[0, 0], [2 / 3, 0]]
    assert found.present.tolist() == found.named.tolist() == [2, 2]
    assert found.covered.tolist() == found.again.tolist() == [[0, 1], [1, 1]]


def test_words_without_a_verdict_are_kept():
    asked = caption("Yes, a cat.", "dog")
    assert replayed("mark", [asked], DETECTOR, FIND, (0.0, 1.0)).losses.tolist() == [[1], [1]]


def found_at(kept: list[float], losses: list[float], answers: int = 400) -> Outcomes:
    """Outcomes with some mean losses and shares that are kept, of answers with four true objects each."""
    several = np.full(answers, 4.0)
    covered = np.array(kept)[:, None] * several
    rows = np.array([np.where(np.arange(answers) < loss * answers, 1.0, 0.0) for loss in losses])
    return Outcomes(np.linspace(0, 1, len(kept)), rows, covered, covered, several, several)


def test_the_threshold_that_keeps_most_is_chosen():
    wish = Wish(0.05, 0.95)
    assert choose(found_at([0, 0.5, 0.9, 1], [0, 0, 0.01, 0.2]), wish) == 2
    assert choose(found_at([0, 0.9, 0.9, 1], [0, 0, 0.01, 0.2]), wish) == 1
    assert choose(found_at([0, 0.5], [0, 0.2]), wish) == 0
    assert choose(found_at([0.5, 0.9], [0.2, 0]), wish) is None


def test_the_start_is_the_threshold_with_the_smallest_loss():
    found = found_at([0, 0.3, 0.9, 1], [0.2, 0.01, 0.01, 0.2])
    assert found.safest() == 1 and found.since(1).thresholds.tolist() == found.thresholds[1:].tolist()
    assert found.since(1).losses.shape == (3, 400) and choose(found.since(1), Wish(0.05, 0.95)) == 1
    assert found.of(np.arange(8)).losses.tolist() == [[1] * 8, [1] * 4 + [0] * 4, [1] * 4 + [0] * 4, [1] * 8]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("lime:words=flagged", "lime:words=flagged,threshold=0.2"),
        ("lime", "lime:threshold=0.2"),
        ("kvsmooth:ref=0.2+lime:lr=1e+2", "kvsmooth:ref=0.2+lime:lr=1e+2,threshold=0.2"),
    ],
)
def test_a_method_gets_its_threshold(spec, expected):
    assert at_threshold(spec, 0.2) == expected


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("m3id", "m3id has no threshold: --risk takes mark, drop, or a method that has one: choose, lime"),
        ("lime:threshold=0.3", "--risk chooses the threshold of lime: leave threshold= out"),
        ("nothing", "Unknown method 'nothing'"),
    ],
)
def test_a_method_without_a_free_threshold_is_refused(spec, problem):
    with pytest.raises(MethodError, match=problem):
        Wish(0.02, 0.95, spec).check()


def test_a_promise_is_what_it_was_in_json():
    values = json.loads(json.dumps(asdict(PROMISE)))
    assert Promise.parse(values, "here") == PROMISE == Promise.from_config({"lime": {"promise": values}})
    assert Promise.from_config({}) is None and Promise.from_config({"lime": {}}) is None
    assert PROMISE.flags and PROMISE.method == "none"
    other = replace(PROMISE, procedure="lime:words=flagged,threshold=0.1")
    assert not other.flags and other.method == other.procedure


@pytest.mark.parametrize(
    "change",
    [
        *({"risk": value} for value in (0, 1, -1, "0.02", None, True, float("nan"), float("inf"))),
        *({"confidence": 1}, {"threshold": 2}, {"kept": -0.1}, {"pictures": 0}, {"pictures": 2.5}, {"pictures": True}),
        *({"procedure": ""}, {"procedure": 3}, {"medium": "video"}, {"tokens": 0}, {"weights": None}, {"more": 1}),
    ],
)
def test_nonsense_is_no_promise(change):
    with pytest.raises(CheckpointError, match='The "promise" in here cannot be used') as caught:
        Promise.parse({**asdict(PROMISE), **change}, "here")
    assert "--calibrate --risk" in str(caught.value)


@pytest.mark.parametrize("values", [[], "x", {}, {"risk": 0.1}])
def test_another_form_is_no_promise(values):
    with pytest.raises(CheckpointError, match="cannot be used"):
        Promise.parse(values, "here")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The captions of a few pictures by the demo, and their folder."""
    folder = tmp_path_factory.mktemp("captions")
    config = RunConfig(["demo"], ["none"], ["scenes:part=validation,count=8,ask=captions"])
    return config, captioned(config, "demo", folder, None, []), folder


def test_a_replay_is_what_generation_gives(plain):
    config, captions, _ = plain
    model, processor = lime_mlx.load("demo")
    detector = Detector.from_config(model.config)
    thresholds = (0.0, 0.01, 0.3, 1.0)
    read = bounds.read(captions, slice(None))
    found = {procedure: replayed(procedure, read, detector, FIND, thresholds) for procedure in ("mark", "drop")}
    for row, threshold in enumerate(thresholds):
        values = asdict(replace(detector, threshold=threshold))
        model.config["lime"] = {**model.config["lime"], "detector": values}
        for column, item in enumerate(captions.items):
            media = captions.task.opened(None, item.medium)
            answer = lime_mlx.generate(
                model, processor, item.text, media["images"], method="none", max_tokens=item.max_tokens
            )
            marked = [name for word in answer.words if not word.flagged for _, name in FIND([word.text])]
            dropped = mentioned(without_flagged(answer.text, answer.words)[0], FIND)
            for procedure, kept in (("mark", marked), ("drop", dropped)):
                loss = sum(name not in item.truth for name in kept) / max(1, len(kept))
                assert found[procedure].losses[row, column] == loss
                assert found[procedure].covered[row, column] == len(set(kept) & set(item.truth))


def test_a_method_is_run_until_a_threshold_fails_and_goes_on_later(plain, monkeypatch):
    config, _, folder = plain
    detector = Detector.from_config(lime_mlx.load("demo")[0].config)
    good = FittedDetector("demo", config.tasks[0], 8, 30, 4, detector, Quality(1.0, 0.9, 1.0, 1.0, 1.0))
    monkeypatch.setattr(bounds, "fit", lambda *given, **options: good)
    monkeypatch.setattr(bounds, "RUN", (0.1, 0.9))
    monkeypatch.setattr(bounds, "PILOT", 2)
    wish = Wish(0.02, 0.95, "lime:words=flagged")
    _, first = bound(config, "demo", folder, wish)
    assert first.promise is None and first.pictures == 4 and "4 pictures cannot show a risk of 0.02" in first.problem
    records = {
        file.parent.name.split("-")[0]: [json.loads(line)["medium"] for line in file.read_text().splitlines()]
        for file in folder.rglob("*.jsonl")
        if "threshold" in str(file)
    }
    pilot, others = ["100000", "100002"], ["100001", "100003", "100005", "100007"]
    tried = {float(name.rpartition("=")[2]): media for name, media in records.items()}
    assert sorted(tried) == [0.1, 0.9] and sorted(map(len, tried.values())) == [2, 6]
    assert tried[first.threshold] == [*pilot, *others]

    def never(*given):
        raise AssertionError

    monkeypatch.setattr(bounds, "load", never)
    assert bound(config, "demo", folder, wish)[1] == first
    monkeypatch.setattr(bounds, "load", lime_mlx.load)
    fit, second = bound(config, "demo", folder, Wish(0.9, 0.6, "lime:words=flagged"))
    assert second.promise is fit.promise and fit.promise.procedure.startswith("lime:words=flagged,threshold=")
    assert fit.promise.detector == fit.detector.digest and fit.promise.question == "What is in the picture?"
