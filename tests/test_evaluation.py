"""A run of tasks, models and methods: what is kept, what a kill or a bad picture does, several processes."""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import lime_mlx
from lime_mlx.checkpoint.hub import locate
from lime_mlx.cli import main
from lime_mlx.cli.scores import text_tables
from lime_mlx.errors import CheckpointError, DataError, LimeError
from lime_mlx.evaluate import asking
from lime_mlx.evaluate import store as storing
from lime_mlx.evaluate.asking import TIMED
from lime_mlx.evaluate.data import layout
from lime_mlx.evaluate.runner import RunConfig, run
from lime_mlx.evaluate.scorers.metrics import MORE, Metric, yes_no
from lime_mlx.evaluate.store import Answers, Cell, Store
from lime_mlx.evaluate.summary import ASIDE, Figure, compare, figure_tables, summarise
from lime_mlx.evaluate.tasks import TASKS
from lime_mlx.methods import METHODS as METHOD_NAMES
from lime_mlx.report.conclusions import score_tables
from lime_mlx.report.results import Names, results
from lime_mlx.scenes import make_scene

SCENES = "scenes:count=2"
METHODS = ("none", "lime", "m3id")
COMMAND = [sys.executable, "-c", "from lime_mlx.cli import main; main()", "evaluate", "--quiet"]
LAUNCH = [str(Path(sys.executable).with_name("mlx.launch")), "--backend", "ring", "--python", sys.executable]
FEW = {**os.environ, "OMP_NUM_THREADS": "1"}


def answers(folder: Path, model: str = "demo", method: str = "none", task: str = SCENES) -> list[dict]:
    """The records of a cell without what is never twice the same."""
    path = Store(folder).answers(Cell(model, method, task)).path
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in ("seconds", "memory")} for record in records]


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("evaluation") / "whole"
    outcome = run(RunConfig(["demo"], METHODS, [SCENES]), folder)
    assert outcome.answered == len(METHODS) * len(answers(folder)) and not outcome.failed and not outcome.notes
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Questions in POPE's positions about drawn pictures of which one is empty and one is missing."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "pope" / "coco").mkdir(parents=True)
    (folder / "images").mkdir()
    for split in ("random", "popular", "adversarial"):
        rows = []
        for number in range(4):
            scene = make_scene(200_000 + number, "ordinary")
            scene.image.save(folder / "images" / f"{number}.png")
            for kind, label in ((scene.kinds[0], "yes"), ("snake", "no")):
                text = f"Is there a {kind} in the picture?"
                rows.append({"question_id": len(rows), "image": f"{number}.png", "text": text, "label": label})
        (folder / "pope" / "coco" / f"coco_pope_{split}.json").write_text("\n".join(map(json.dumps, rows)))
    (folder / "images" / "1.png").write_bytes(b"")
    (folder / "images" / "2.png").unlink()
    return folder


def test_answers_are_those_of_generate(whole):
    model, processor = lime_mlx.load("demo")
    for method in METHODS:
        for record in answers(whole, method=method)[:8]:
            image = make_scene(int(record["medium"]), "adversarial").image
            tokens = 48 if record["split"] == "caption" else 1
            found = lime_mlx.generate(model, processor, record["prompt"], image, method=method, max_tokens=tokens)
            assert (record["text"], record["tokens"]) == (found.text.strip(), found.tokens)
            assert record["reliance"] == pytest.approx(found.reliance, abs=1e-4)


def test_one_prefill_for_all_questions_about_a_picture_gives_the_answers_of_one_each(whole, tmp_path):
    run(RunConfig(["demo"], METHODS, [SCENES], shared=False), tmp_path)
    for method in METHODS:
        for one, other in zip(answers(whole, method=method), answers(tmp_path, method=method), strict=True):
            assert one["tokens"] == other["tokens"]
            assert one["reliance"] == pytest.approx(other["reliance"], abs=1e-4)


def test_time_and_memory_are_of_decoding_without_reliance(whole, tmp_path):
    records = list(Store(whole).answers(Cell("demo", "none", SCENES)).records.values())
    timed = [record for record in records if "seconds" in record]
    assert 0.5 < len(timed) / (len(records) / TIMED) < 2
    assert all(record["seconds"] > 0 and record["memory"] > 0 for record in timed)
    run(RunConfig(["demo"], ["none"], ["scenes:count=1,ask=captions"], reliance=False), tmp_path)
    (record,) = Store(tmp_path).answers(Cell("demo", "none", "scenes:count=1,ask=captions")).records.values()
    assert record["seconds"] > 0 and "reliance" not in record


@pytest.mark.parametrize("cut", [0, 1, 777, -1, -20])
def test_a_run_goes_on_where_a_kill_left_it(cut, whole, tmp_path):
    folder = copied(whole, tmp_path / "run")
    file = Store(folder).answers(Cell("demo", "lime", SCENES)).path
    file.write_bytes(file.read_bytes()[:cut])
    assert not run(RunConfig(["demo"], METHODS, [SCENES]), folder).failed
    for method in METHODS:
        assert answers(folder, method=method) == answers(whole, method=method)


def test_killed_for_real(whole, tmp_path):
    command = [
        *COMMAND,
        "--task",
        SCENES,
        *[x for m in METHODS for x in ("--method", m)],
        "--output-dir",
        str(tmp_path),
    ]
    for size in (500, 6000):
        process = subprocess.Popen(command, env=FEW, stdout=subprocess.DEVNULL)
        while sum(file.stat().st_size for file in tmp_path.rglob("*.jsonl")) < size and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    run(RunConfig(["demo"], METHODS, [SCENES]), tmp_path)
    for method in METHODS:
        assert answers(tmp_path, method=method) == answers(whole, method=method)


def test_a_full_disk_leaves_whole_records(whole, tmp_path, monkeypatch):
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storing.os, "fsync", full)
        with pytest.raises(DataError, match="the disk is full"):
            run(RunConfig(["demo"], METHODS, [SCENES]), tmp_path)
    files = list(tmp_path.rglob("answers/**/*.jsonl"))
    kept = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert 0 < len(kept) < 12 and all(file.read_bytes().endswith(b"\n") for file in files)
    run(RunConfig(["demo"], METHODS, [SCENES]), tmp_path)
    assert [answers(tmp_path, method=m) for m in METHODS] == [answers(whole, method=m) for m in METHODS]


def test_a_second_process_is_refused(whole, tmp_path):
    folder = copied(whole, tmp_path / "run")
    with (folder / ".lock-0").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = CliRunner().invoke(main, ["evaluate", "--task", SCENES, "--output-dir", str(folder)])
    assert result.exit_code == 1 and "is at work in" in result.stderr and result.stderr.count("Error:") == 1


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"limit": 2}, "limit was null and is 2"),
        ({"reliance": False}, "reliance was true and is false"),
    ],
)
def test_other_settings_are_refused_with_the_difference(changes, difference, whole):
    before = {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()}
    with pytest.raises(DataError, match=difference):
        run(RunConfig(["demo"], METHODS, [SCENES], **changes), whole)
    assert before == {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()}


def test_another_model_under_the_same_name_is_refused_and_more_methods_and_tasks_go_on(whole, tmp_path):
    folder, model = copied(whole, tmp_path / "run"), tmp_path / "model"
    shutil.copytree(Path(lime_mlx.__file__).parent / "demo" / "picture", model)
    run(RunConfig([str(model)], ["none"], ["scenes:count=1"]), folder)
    assert (
        answers(folder, str(model), task="scenes:count=1")
        == answers(folder)[: len(answers(folder, str(model), task="scenes:count=1"))]
    )
    assert list(Store(folder).settings["models"]) == ["demo", str(model)]
    (model / "chat_template.jinja").write_text((model / "chat_template.jinja").read_text() + " ")
    with pytest.raises(DataError, match=r"\(model\) was"):
        run(RunConfig([str(model)], ["none"], ["scenes:count=1"]), folder)


def test_models_take_the_tasks_of_their_medium(tmp_path):
    outcome = run(
        RunConfig(["demo", "demo-sound"], ["none"], ["scenes:count=1", "sounds:count=1"], reliance=False), tmp_path
    )
    assert outcome.notes == [
        "demo takes no sounds: sounds:count=1 is left out.",
        "demo-sound takes no pictures: scenes:count=1 is left out.",
    ]
    assert {figure.cell[::2] for figure in summarise(Store(tmp_path))} == {
        ("demo", "scenes:count=1"),
        ("demo-sound", "sounds:count=1"),
    }


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"methods": ["limes"]}, "Unknown method 'limes'"),
        ({"tasks": ["popes"]}, "Unknown task 'popes'; choose one of scenes"),
        ({"tasks": ["scenes:part=all"]}, "part is 'all'; choose one of validation, test"),
        ({"tasks": ["scenes:ask=caption"]}, "ask is 'caption'; .* questions. Did you mean captions"),
        ({"tasks": ["scenes:count=0"]}, "count is 0; it must be at least 1"),
        ({"tasks": ["pope"]}, "needs its files: lime-mlx data get pope"),
        ({"tasks": ["pope"], "data": Path("nowhere")}, "no data folder nowhere"),
        ({"models": ["nowhere"]}, "There is no folder 'nowhere'"),
        ({"methods": ["none", "dleaf:layers=40"]}, "dleaf:layers=40 does not fit demo: .* the model has [0-9]+ layers"),
        ({"methods": ["heads:layers=3-99"]}, "heads:layers=3-99 does not fit demo"),
        ({"methods": ["kvsmooth:layers=99+lime"]}, "does not fit demo"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(changes, problem, tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "load", lambda name: pytest.fail("a model was loaded"))
    plan = {"models": ["demo"], "methods": ["none"], "tasks": [SCENES], **changes}
    with pytest.raises(LimeError, match=problem):
        run(RunConfig(**plan), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_model_folder_that_cannot_be_used_is_refused_before_anything_is_asked(missing, tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "load", lambda name: pytest.fail("a model was loaded"))
    model = Path(shutil.copytree(locate("demo"), tmp_path / "model"))
    (model / missing).unlink()
    with pytest.raises(CheckpointError, match=str(model)):
        run(RunConfig(["demo", str(model)], ["none"], [SCENES]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_the_scorers_need_is_missing_before_anything_is_asked(data, tmp_path):
    data = copied(data, tmp_path / "data")
    (data / "chair").mkdir()
    (data / "chair" / "coco2014_gt_objects.pattern.json").write_text('{"objects": [], "images": {}}')
    with pytest.raises(LimeError, match="synonyms.txt|no picture of COCO"):
        run(RunConfig(["demo"], ["none"], ["chair:pictures=all"], data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_wrong_scorer_is_refused_before_anything_is_asked(tmp_path):
    arguments = ["evaluate", "--task", SCENES, "--scorer", "official", "--output-dir", str(tmp_path / "run")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "scorer 'official'; choose one of ours" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_scorer_of_a_task_that_is_in_the_folder_is_valid(whole, tmp_path):
    folder = copied(whole, tmp_path / "run")
    settings = json.loads((folder / "settings.json").read_text())
    settings["tasks"]["pope"] = {"questions": 1, "sha256": "0" * 16}
    (folder / "settings.json").write_text(json.dumps(settings))
    methods = [x for method in METHODS for x in ("--method", method)]
    arguments = ["evaluate", "--task", SCENES, *methods, "--scorer", "vcd", "--output-dir", str(folder), "--quiet"]
    assert CliRunner().invoke(main, arguments).exit_code == 0


@pytest.mark.parametrize("calibrate", [False, True])
def test_an_interrupt_says_that_the_same_command_continues(calibrate, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("lime_mlx.evaluate.asking.load", interrupted)
    monkeypatch.setattr("lime_mlx.evaluate.calibrate.load", interrupted)
    arguments = ["evaluate", "--task", "scenes", "--limit", "1", "--output-dir", str(tmp_path)]
    result = CliRunner().invoke(main, [*arguments, *(["--calibrate"] if calibrate else [])])
    assert result.exit_code == 130 and result.stdout == ""
    assert "Interrupted. The answers so far are kept; the same command continues." in result.stderr


def test_help_names_every_method_and_task():
    text = " ".join(CliRunner().invoke(main, ["evaluate", "--help"]).output.split())
    assert ", ".join(METHOD_NAMES) in text and ", ".join(TASKS) in text and "NAMES" not in text
    assert tuple(TASKS) == layout.BUILT_IN + layout.WITH_FILES


def test_a_figure_has_the_same_n_in_the_terminal_and_on_the_page(whole):
    result = CliRunner().invoke(main, ["score", str(whole)])
    figures = summarise(Store(whole))
    printed = [
        (table.title, row[table.header.index("method")], row[table.header.index("n")])
        for table in text_tables(figures)
        for row in table.rows
    ]
    (part,) = results(Store(whole), "ours")
    shown = [
        (split, row.method, f"{row.n:,}")
        for table in score_tables(part, Names(Store(whole).settings))
        for split, rows in table.splits
        for row in rows
    ]
    assert sorted(row[1:] for row in printed) == sorted(row[1:] for row in shown)
    for table in figure_tables(figures):
        assert all(figure.n == row.n for row in table.rows for figure in row.figures.values())
    assert result.exit_code == 0


def test_numbers_in_brackets_stay_in_a_coloured_terminal(whole, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    output = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(main, ["score", str(whole)], color=True).output)
    for figure in summarise(Store(whole)):
        shown = figure.metric.unit == "%" and figure.metric.name not in (*ASIDE, "unknown")
        if shown and not np.isnan(figure.value):
            assert f"[{100 * figure.low:.1f}, {100 * figure.high:.1f}]" in output


def test_missing_pictures_are_listed_and_can_be_skipped(data, tmp_path):
    plan = {"models": ["demo"], "methods": ["none"], "tasks": ["pope"], "data": data}
    with pytest.raises(DataError, match=r"1 picture of pope missing in .*, such as 2.png: lime-mlx data get pope"):
        run(RunConfig(**plan), tmp_path)
    outcome = run(RunConfig(**plan, skip_missing=True), tmp_path)
    assert outcome.notes[0].startswith("Left out: 1 picture of pope missing")
    assert outcome.answered == 12 and len(outcome.failed) == 6


def test_an_empty_picture_fails_alone_and_is_tried_again(data, tmp_path):
    mended = copied(data, tmp_path / "data")
    arguments = ["evaluate", "--task", "pope", "--method", "none", "--skip-missing", "--data", str(mended), "--quiet"]
    arguments += ["--output-dir", str(tmp_path / "run")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "6 of 18 answers failed, such as random/2" in result.stderr
    assert "1.png" in result.stderr and result.stderr.count("Error:") == 1 and "accuracy" in result.stdout
    assert "accuracy by scorer" in result.stdout and "official" in result.stdout
    shutil.copy(mended / "images" / "0.png", mended / "images" / "1.png")
    assert CliRunner().invoke(main, arguments).exit_code == 0
    records = answers(tmp_path / "run", task="pope")
    assert len(records) == 18 and len({record["id"] for record in records}) == 18
    assert not any("error" in record for record in records)


def test_a_method_that_does_not_fit_a_task_fails_there_only(tmp_path):
    tasks = ["scenes:count=1,ask=captions", "sounds:count=1,ask=captions"]
    outcome = run(RunConfig(["demo", "demo-sound"], ["none", "aad"], tasks), tmp_path)
    assert outcome.answered == 3 and [failure.cell[:2] for failure in outcome.failed] == [("demo", "aad")]
    assert "aad contrasts a sound, but the prompt has a picture" in outcome.failed[0].reason


@pytest.mark.parametrize(
    ("models", "methods", "message"),
    [
        (["demo"], ["none", "aad"], "The method aad works with sounds only, and no task has any"),
        (["demo-sound"], ["none"], "None of the models takes what the tasks ask about"),
    ],
)
def test_what_can_never_be_answered_is_refused_before_anything_is_written(models, methods, message, tmp_path):
    with pytest.raises(LimeError, match=message):
        run(RunConfig(models, methods, ["scenes:count=1"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("line", ["nothing", "[]", '{"id": 3, "text": "x"}', '{"id": "x"}'])
def test_a_damaged_line_is_named(line, whole, tmp_path):
    folder = copied(whole, tmp_path / "run")
    file = Store(folder).answers(Cell("demo", "none", SCENES)).path
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([first, line, *rest]) + "\n")
    with pytest.raises(DataError, match=r"scenes.*jsonl:2: this line is no answer"):
        summarise(Store(folder))


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_give_what_one_gives(size, whole, tmp_path):
    methods = [x for method in METHODS for x in ("--method", method)]
    command = [*LAUNCH, "-n", str(size), str(Path(sys.executable).with_name("lime-mlx")), "evaluate", "--quiet"]
    subprocess.run([*command, "--task", SCENES, *methods, "--output-dir", str(tmp_path)], env=FEW, check=True)
    assert [answers(tmp_path, method=m) for m in METHODS] == [answers(whole, method=m) for m in METHODS]
    assert not list(tmp_path.rglob("*.rank-*"))


def test_a_process_that_dies_costs_only_what_it_had_not_answered(whole, tmp_path):
    methods = [x for method in METHODS for x in ("--method", method)]
    command = [*LAUNCH, "-n", "2", str(Path(sys.executable).with_name("lime-mlx")), "evaluate", "--quiet"]
    command += ["--task", SCENES, *methods, "--output-dir", str(tmp_path)]
    process = subprocess.Popen(command, env=FEW, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    own = Store(tmp_path).answers(Cell("demo", "none", SCENES), rank=1).file
    while not (own.exists() and own.stat().st_size > 500) and process.poll() is None:
        time.sleep(0.01)
    os.kill(int((tmp_path / ".lock-1").read_text()), signal.SIGKILL)
    process.wait()
    kept = list(storing.read_records(own))
    assert kept and len(kept) < len(answers(whole))
    run(RunConfig(["demo"], METHODS, [SCENES]), tmp_path)
    assert [answers(tmp_path, method=m) for m in METHODS] == [answers(whole, method=m) for m in METHODS]
    again = {record["id"]: record for record in Store(tmp_path).answers(Cell("demo", "none", SCENES)).records.values()}
    assert all(again[record["id"]] == record for record in kept)


def test_score_needs_no_model_and_says_the_same(whole, monkeypatch):
    before = CliRunner().invoke(main, ["score", str(whole), "--json"])
    assert before.exit_code == 0, before.output
    rows = json.loads(before.stdout)
    by_hand = [record for record in answers(whole, method="lime") if record["split"] == "adversarial"]
    right = np.mean([record["text"].startswith(record["label"].title()) for record in by_hand])
    (row,) = [r for r in rows if (r["method"], r["split"], r["metric"]) == ("lime", "adversarial", "accuracy")]
    assert row["value"] == pytest.approx(right) and row["n"] == len(by_hand)
    assert row["comparison"]["against"] == ["demo", "none", SCENES]
    assert row["comparison"]["verdict"] and "outcome" not in row["comparison"], "the keys of stored files stay"
    assert json.loads((whole / "scores.json").read_text())["ours"] == rows
    table = CliRunner().invoke(main, ["score", str(whole)])
    assert "CHAIR_I" in table.stdout and "95 % interval" in table.stdout
    for arguments, problem in (
        (["--scorer", "mine"], "scorer 'mine'"),
        ([str(whole / "answers")], "holds no evaluation"),
    ):
        result = CliRunner().invoke(main, ["score", *([str(whole)] if len(arguments) == 2 else []), *arguments])
        assert result.exit_code == 1 and problem in result.stderr


def metric(hits: list[int], name: str = "accuracy", binary: bool = True) -> Metric:
    ids = [str(place) for place in range(len(hits))]
    return Metric(name, "all", ids, ids, np.array(hits, float), np.ones(len(hits)), MORE, binary=binary)


def figure(method: str, found: Metric) -> Figure:
    return Figure(Cell("m", method, "t"), found, 0, 1)


def test_a_comparison_is_made_on_what_both_were_asked():
    first, second = metric([1, 0] * 50), metric([1, 1] * 30)
    found = compare(figure("none", first), figure("lime", second))
    assert found.difference == pytest.approx(0.5) and found.p == pytest.approx(2 * 0.5**30)
    assert compare(figure("none", metric([])), figure("lime", second)) is None


@pytest.mark.parametrize("binary", [True, False])
def test_few_questions_cannot_tell_and_as_many_as_needed_can(binary):
    before = [1] * 6 + [0] * 4
    after = [1] * 7 + [0] * 3
    few = compare(figure("none", metric(before, binary=binary)), figure("lime", metric(after, binary=binary)))
    assert few.p > 0.05 and few.needed > 10
    times = -(-few.needed // 10) + 2  # an estimate, and few of the pictures differ
    many = compare(
        figure("none", metric(before * times, binary=binary)), figure("lime", metric(after * times, binary=binary))
    )
    assert many.p < 0.05


def test_yes_no_figures_are_those_of_the_counts():
    labels, said = ["yes"] * 4 + ["no"] * 4, ["yes", "yes", "no", "unknown", "no", "no", "yes", "unknown"]
    records = [{"id": str(i), "medium": str(i), "label": label} for i, label in enumerate(labels)]
    values = {metric.name: metric.value for metric in yes_no(records, said, "all")}
    assert values == pytest.approx(
        {"accuracy": 4 / 8, "F1": 4 / 7, "precision": 2 / 3, "recall": 2 / 4, "yes rate": 3 / 8, "unknown": 2 / 8}
    )


def test_an_answer_takes_the_place_of_a_failure_and_stays(tmp_path):
    held = Answers(tmp_path / "x.jsonl")
    held.append({"id": "a", "error": "no"})
    held.append({"id": "a", "text": "first"})
    held.append({"id": "a", "text": "second"})
    assert held.records == {"a": {"id": "a", "text": "first"}} == Answers(tmp_path / "x.jsonl").records
    held.settle(["a"])
    assert (tmp_path / "x.jsonl").read_text() == '{"id": "a", "text": "first"}\n'


def test_names_of_cells_are_file_names_of_their_own():
    names = ["lime", "lime:steps=3", "lime;steps=3", "../x", "a/b", "", "é" * 200]
    slugs = [storing.slug(name) for name in names]
    assert len(set(slugs)) == len(names) and all(Path(name).name == name and len(name) < 80 for name in slugs)
