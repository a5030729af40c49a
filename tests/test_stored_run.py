"""A run's folder that lime-mlx 0.1.0 wrote is still read, scored, shown and continued."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from lime_mlx.cli import main
from lime_mlx.errors import DataError
from lime_mlx.evaluate.checks import prepare
from lime_mlx.evaluate.runner import RunConfig, run
from lime_mlx.evaluate.store import Cell, Store
from lime_mlx.evaluate.summary import rows, summarise

OLD = Path(__file__).parent / "fixtures" / "run_0_1_0"
TASK = "scenes:count=2"
# Figures that 0.1.0 did not have.
NEW = {"distinct"}


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def test_its_figures_are_those_that_0_1_0_stored(folder):
    current, stored = rows(summarise(Store(folder))), json.loads((OLD / "scores.json").read_text())["ours"]
    assert {row["metric"] for row in current} - {row["metric"] for row in stored} == NEW
    assert without_new(json.loads(json.dumps(current))) == stored and len(stored) > 40


def without_new(figures):
    return [row for row in figures if row["metric"] not in NEW]


def test_it_is_scored_and_shown_by_the_commands(folder):
    for command in (["score", str(folder)], ["score", str(folder), "--markdown"], ["report", str(folder)]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    current, stored = (json.loads((at / "scores.json").read_text()) for at in (folder, OLD))
    assert {name: without_new(figures) for name, figures in current.items()} == stored
    assert "CHAIR_I" in (folder / "report.html").read_text()


def test_its_questions_are_the_same_and_its_records_have_the_same_keys(folder, tmp_path):
    config = RunConfig(["demo"], ["none"], [TASK])
    run(config, tmp_path / "new")
    new, old = Store(tmp_path / "new"), Store(folder)
    assert new.settings["tasks"] == old.settings["tasks"]
    cell = Cell("demo", "none", TASK)
    for name, record in old.answers(cell).records.items():
        again = new.answers(cell).records[name]
        assert list(again) == list(record)
        assert {key: again[key] for key in ("prompt", "truth", "label")} == {
            key: record[key] for key in ("prompt", "truth", "label")
        }


def test_it_is_continued(folder):
    """With the same model: the demo of today has further values in its config.json, and so another fingerprint."""
    settings = json.loads((folder / "settings.json").read_text())
    current = RunConfig(["demo"], ["none", "lime"], [TASK])
    with pytest.raises(DataError, match="has answers under other settings: .*demo"):
        run(current, folder)
    today = prepare(current).settings
    settings["common"] |= {key: today["common"][key] for key in ("lime-mlx", "mlx")}
    settings["models"] = today["models"]
    (folder / "settings.json").write_text(json.dumps(settings))
    file = Store(folder).answers(Cell("demo", "lime", TASK)).path
    whole = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(record) + "\n" for record in whole[:5]))
    assert run(current, folder).answered == 2 * len(whole)
    again = [json.loads(line) for line in file.read_text().splitlines()]
    assert again[:5] == whole[:5] and [record["id"] for record in again] == [record["id"] for record in whole]
