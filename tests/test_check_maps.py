"""explain --check: the maps of a real answer are tested on the model, by pictures and sounds with covered cells."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from families import MODULES
from helpers import any_length, fixture, parity_checkpoint, prompt_of

from lime_mlx import explain, load
from lime_mlx.checkpoint.load import load_model
from lime_mlx.cli import faithful, main
from lime_mlx.errors import LimeError, MethodError, PromptError
from lime_mlx.media.audio import Sound
from lime_mlx.probes.blank import blank_logits
from lime_mlx.probes.cells import PictureCells, SoundCells
from lime_mlx.probes.deletion import Curves, check_maps, chosen, forced, letters, passes, probabilities, removed
from lime_mlx.probes.kinds import KINDS, relevances
from lime_mlx.probes.sanity import cascade, likeness
from lime_mlx.scenes import PROMPTS, SOUND_PROMPTS, make_scene, make_sound
from lime_mlx.session import Session
from lime_mlx.words import Word

SCENE = str(Path(__file__).parents[1] / "examples" / "scene.png")


@pytest.fixture(scope="module")
def seen():
    """The bundled model, a prompt about a drawn scene, its picture, and the answer explained."""
    model, processor = load("demo")
    image = make_scene(100_001, "ordinary").image
    answer = explain(model, processor, PROMPTS[0], image=image, method="none", max_tokens=32)
    return model, processor, processor.prompt(PROMPTS[0], images=[image]), [image], answer


@pytest.fixture(scope="module")
def heard():
    model, processor = load("demo-sound")
    scene = make_sound(100_001, "ordinary")
    sound = Sound(scene.samples, scene.rate)
    answer = explain(model, processor, SOUND_PROMPTS[0], audio=sound, method="none", max_tokens=32)
    return model, processor, processor.prompt(SOUND_PROMPTS[0], audio=[sound]), answer


def reversed_words(words: list[Word], name: str) -> list[Word]:
    return [replace(word, relevance=-word.relevance) if word.name == name else word for word in words]


def test_a_true_map_holds_and_a_reversed_one_gets_the_opposite_verdict(seen):
    model, processor, prompt, pictures, answer = seen
    (right,) = check_maps(model, processor, prompt, pictures, answer.words, ["ball"], orders=9)
    (wrong,) = check_maps(model, processor, prompt, pictures, reversed_words(answer.words, "ball"), ["ball"], orders=9)
    assert (right.word, right.kind, right.medium, right.cells) == ("ball", "cached", "image", (8, 8))
    assert right.outcome == "held" and right.faithfulness > 0.5
    assert wrong.outcome == "failed" and wrong.faithfulness < -0.5 and "points away" in wrong.sentence
    np.testing.assert_allclose(wrong.most, right.least, atol=0.05)
    assert answer.words[right.index].name == "ball"


def test_a_word_that_the_picture_does_not_decide_is_unclear(seen):
    model, processor, prompt, pictures, answer = seen
    (check,) = check_maps(model, processor, prompt, pictures, answer.words, ["dog"], orders=2)
    assert "dog" not in make_scene(100_001, "ordinary").kinds
    assert check.outcome == "unclear" and "does not decide" in check.sentence


def test_the_times_of_a_sound_are_checked(heard):
    model, processor, prompt, answer = heard
    right, other = check_maps(model, processor, prompt, [], answer.words, ["horn"], ["cached", "exact"], orders=9)
    assert right.cells == (1, 75) and right.medium == "audio"
    assert right.outcome == other.outcome == "held" and "sound" not in right.sentence
    (wrong,) = check_maps(model, processor, prompt, [], reversed_words(answer.words, "horn"), ["horn"], orders=9)
    assert wrong.outcome == "failed"


def test_covered_cells_of_a_picture_have_its_mean_colour(seen):
    _, processor, prompt, pictures, _ = seen
    cells = PictureCells(processor, prompt, pictures, 0, (8, 8))
    mask = np.zeros((8, 8), dtype=bool)
    same = cells.covered(mask)
    np.testing.assert_array_equal(same.media["pixel_values"], prompt.media["pixel_values"])
    mask[2, 5] = True
    changed = np.abs(cells.covered(mask).media["pixel_values"] - prompt.media["pixel_values"]).max(axis=(0, 1))
    where = np.argwhere(changed > 0.05)
    edge = 4  # resizing blurs a little
    assert where.min(axis=0)[0] >= 32 - edge and where.max(axis=0)[0] < 48 + edge
    assert where.min(axis=0)[1] >= 80 - edge and where.max(axis=0)[1] < 96 + edge
    blank = cells.covered(np.ones((8, 8), dtype=bool)).media["pixel_values"]
    assert np.ptp(blank, axis=(2, 3)).max() < 0.02


def test_covered_cells_of_a_sound_are_quiet_in_their_band_and_time(heard):
    model, _, prompt, _ = heard
    levels = np.asarray(prompt.media["input_features"])
    valid = int(np.asarray(prompt.media["feature_attention_mask"]).sum())
    mask = np.zeros((4, 15), dtype=bool)
    mask[3, 0] = True
    covered = np.asarray(SoundCells(model, prompt, 0, (4, 15)).covered(mask).media["input_features"])
    bins, frames = levels.shape[1], valid // 15
    assert (covered[0, 3 * bins // 4 :, :frames] == levels[0, :, :valid].min()).all()
    covered[0, 3 * bins // 4 :, :frames] = levels[0, 3 * bins // 4 :, :frames]
    np.testing.assert_array_equal(covered, levels)


def test_forced_logits_are_those_of_a_pass_by_itself(seen):
    model, _, prompt, _, answer = seen
    tokens = answer.answer.tokens
    blank = model.blank(prompt)
    plain, first, again = forced(model, [prompt, blank, blank], tokens)
    np.testing.assert_allclose(first, blank_logits(model, prompt, tokens), atol=2e-3)
    np.testing.assert_allclose(first, again, atol=1e-4)
    session = Session.open(model, prompt)
    for index, token in enumerate(tokens):
        np.testing.assert_allclose(plain[index], np.array(session.extend()), atol=2e-3)
        session.append(token)
    places = letters(answer.words, load("demo")[1].tokenizer.decode)
    p = probabilities(plain, tokens, places)
    assert p.shape == (len(answer.words),) and ((p > 0) & (p <= 1)).all()


def test_what_one_cell_alone_takes_is_largest_on_the_thing(seen):
    model, processor, prompt, pictures, answer = seen
    scene, number = make_scene(100_001, "ordinary"), next(n for n, w in enumerate(answer.words) if w.name == "train")
    box = next(thing.box for thing in scene.objects if thing.kind == "train")
    places = letters(answer.words, processor.tokenizer.decode)
    curves = Curves(model, PictureCells(processor, prompt, pictures, 0, (4, 4)), answer.answer.tokens, places)
    row, column = divmod(int(removed(curves)[:, number].argmax()), 4)
    x, y = 64 * column + 32, 64 * row + 32
    assert box[0] - 32 <= x <= box[2] + 32 and box[1] - 32 <= y <= box[3] + 32


def test_the_shown_map_is_the_cached_kind(seen):
    model, processor, prompt, _, answer = seen
    places = letters(answer.words, processor.tokenizer.decode)
    number = next(n for n, word in enumerate(answer.words) if word.name == "train")
    rows = relevances(model, prompt, answer.answer.tokens, [places[number]], list(KINDS))
    shown = answer.words[number].relevance[: len(prompt)]
    if len(answer.words[number].tokens) == 1:
        np.testing.assert_allclose(rows["cached"][0], shown, atol=1e-3 * np.abs(shown).max())
    assert likeness(rows["cached"][0][4:68], rows["exact"][0][4:68]) > 0.7
    assert (rows["attention"][0] >= 0).all() and rows["attention"][0].sum() <= 1 + 1e-5
    assert list(KINDS) == list(faithful.MAP_KINDS)


def test_shuffled_weights_destroy_the_map_and_come_back(seen):
    model, processor, prompt, _, answer = seen
    places = letters(answer.words, processor.tokenizer.decode)
    place = next(p for word, p in zip(answer.words, places, strict=True) if word.name == "train")

    def maps() -> dict[str, np.ndarray]:
        rows = relevances(model, prompt, answer.answer.tokens, [place], ["cached", "exact", "gradient"])
        return {kind: row[0][4:68] for kind, row in rows.items()}

    before = maps()
    stages = {stage: maps() for stage in cascade(model)}
    assert list(stages) == ["layer 3", "layer 2", "layer 1", "layer 0"]
    for kind, row in stages["layer 0"].items():
        assert abs(likeness(row, before[kind])) < 0.5, kind
    for kind, row in maps().items():
        np.testing.assert_array_equal(row, before[kind])
    for _ in cascade(model):
        break
    for kind, row in maps().items():
        np.testing.assert_array_equal(row, before[kind])


def test_likeness_is_a_rank_correlation():
    assert likeness([1, 2, 3], [10, 20, 40]) == pytest.approx(1)
    assert likeness([1, 2, 3], [3, 2, -9]) == pytest.approx(-1)
    assert likeness([1, 1, 1], [1, 2, 3]) == 0
    assert likeness([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486833)


def test_only_words_with_a_map_can_be_checked(seen):
    model, processor, prompt, pictures, answer = seen
    with pytest.raises(PromptError, match="no word 'zebra', so there is no map"):
        check_maps(model, processor, prompt, pictures, answer.words, ["zebra"])
    without = [replace(word, relevance=None) for word in answer.words]
    with pytest.raises(PromptError, match="'ball' has no map"):
        chosen(without, ["ball"])
    with pytest.raises(PromptError, match="names something"):
        chosen(without)
    with pytest.raises(MethodError, match="no map 'edges'"):
        check_maps(model, processor, prompt, pictures, answer.words, ["ball"], ["edges"])
    assert [answer.words[n].name for n in chosen(answer.words, ["BALL", "ball"])] == ["ball"]


def test_the_api_checks_the_words_that_are_named(seen):
    model, processor, _, pictures, _ = seen
    explanation = explain(
        model, processor, PROMPTS[0], image=pictures[0], method="none", max_tokens=32, check=["chair"]
    )
    assert [check.word for check in explanation.checks] == ["chair"]
    values = explanation.to_dict()
    assert values["checks"][0]["outcome"] == "held"
    word = explanation.view()["words"][explanation.checks[0].index]
    assert word["name"] == "chair" and word["checks"][0]["sentence"] == explanation.checks[0].sentence


def test_the_command_prints_curves_areas_and_a_sentence(tmp_path):
    page = tmp_path / "page.html"
    arguments = ["explain", SCENE, "--method", "none", "--check-word", "dog", "--output", str(page)]
    run = CliRunner().invoke(main, [*arguments, "--json"])
    assert run.exit_code == 0, run.stderr
    values = json.loads(run.stdout)
    (check,) = values["checks"]
    assert check["word"] == "dog" and check["outcome"] == "held" and check["map"] == "cached"
    assert f"up to {passes(1)} passes" in run.stderr
    assert values["measured"] and values["measured"] in page.read_text()
    assert check["sentence"] in page.read_text()


def test_ctrl_c_ends_the_check_and_keeps_the_answer(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lime_mlx.probes.deletion.check_maps", interrupt)
    run = CliRunner().invoke(main, ["explain", SCENE, "--method", "none", "--check", "--json"])
    assert run.exit_code == 130 and "interrupted" in run.stderr
    values = json.loads(run.stdout)
    assert values["text"].startswith("A room") and "checks" not in values


@pytest.mark.parametrize("case", [next(iter(m.CASES)) for m in MODULES.values() if hasattr(m, "inputs")])
def test_prompts_of_every_family_run_together(case, tmp_path):
    """Also where features go into later layers, and where positions attend in both directions."""
    model = any_length(load_model(parity_checkpoint(case, tmp_path)))
    prompt = prompt_of(fixture(case))
    other = model.changed(prompt, model.kinds(prompt)[0], lambda levels: levels[..., ::-1] * 0.5)
    tokens = [5, 7, 9]
    together = list(forced(model, [prompt, other], tokens))
    for logits, one in zip(together, (prompt, other), strict=True):
        session = Session.open(model, one)
        for row, token in zip(logits, tokens, strict=True):
            wanted = np.array(session.extend())
            np.testing.assert_allclose(row, wanted, atol=1e-3 * max(1, np.abs(wanted).max()))
            session.append(token)
    assert np.abs(together[0] - together[1]).max() > 1e-4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "Hello", "--check"], "no picture or sound to explain"),
        ([SCENE, "--check-word", "zebra"], "no word 'zebra'"),
        ([SCENE, "--check-word", "..."], "no word '...'"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words):
    run = CliRunner().invoke(main, ["explain", *arguments])
    assert run.exit_code == 1 and isinstance(run.exception, SystemExit)
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("Error")]
    assert words in line and len(line) < 300


def test_an_unknown_kind_is_wrong_usage():
    run = CliRunner().invoke(main, ["explain", SCENE, "--check-map", "edges"])
    assert run.exit_code == 2 and "attention" in run.stderr
    assert issubclass(PromptError, LimeError)
