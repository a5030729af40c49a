"""benchmarks/long_runs.py: the stored runs hold no more and more, and one that does is seen."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("psutil")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import long_runs  # noqa: E402
from long_runs import MEGABYTES, Sample, growth, judge  # noqa: E402


def flat(count: int = 200) -> list[Sample]:
    return [Sample(10 * (n + 1), 100 + n % 3, 4 + n % 2, 8) for n in range(count)]


def test_the_stored_runs_stay_within_the_bounds():
    stored = json.loads((ROOT / "benchmarks" / "long_runs.json").read_text())
    runs = {name: [Sample(*row) for row in rows] for name, rows in stored.items()}
    assert judge(runs)
    assert {rows[-1].done >= int(name.split()[0].replace(",", "")) for name, rows in runs.items()} == {True}
    assert any("tokens" in name for name in runs) and any("records" in name for name in runs)


@pytest.mark.parametrize("column", [1, 2, 3])
def test_what_grows_is_seen(column):
    bound = MEGABYTES if column == 1 else long_runs.COUNT

    def grown(much):
        samples = [list(map(float, sample)) for sample in flat()]
        for sample in samples:
            sample[column] += much * sample[0] / samples[-1][0] / (1 - long_runs.WARM)
        return [Sample(*sample) for sample in samples]

    assert judge({"flat": flat()}) and judge({"a little": grown(0.8 * bound)})
    assert not judge({"flat": flat(), "more and more": grown(1.2 * bound)})
    assert growth(grown(2 * bound), column)[0] == pytest.approx(2 * bound, rel=0.05)


def test_a_short_run_gives_samples(tmp_path):
    samples = long_runs.tokens("none", 20)
    assert [sample.done for sample in samples] == [*range(1, 21)] and samples[-1].memory > 20
    long_runs.draw({"20 tokens": samples}, tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text()
