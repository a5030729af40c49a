"""Kill an evaluation at random moments, again and again: is a record lost or there twice, are the scores the same?

    python benchmarks/evaluate_kill.py --kills 200 --pictures 14

Each run is killed (SIGKILL) a random time after its first new record; after each, every record that was whole before
must still be there as it was. The last run goes to its end and is compared with one that nobody killed.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.progress import track

from lime_mlx.evaluate.store import Store
from lime_mlx.evaluate.summary import rows, summarise

COMMAND = [sys.executable, "-c", "from lime_mlx.cli import main; main()", "evaluate", "--quiet", "--json"]
UNTIMED = ("time", "memory")


def whole(folder: Path) -> dict[tuple, dict]:
    """Every record whose line has an end, by cell and id; a second one under the same id is an error."""
    records: dict[tuple, dict] = {}
    for file in folder.rglob("answers/**/*.jsonl"):
        for line in file.read_bytes().split(b"\n")[:-1]:
            record = json.loads(line)
            key = (file.relative_to(folder).as_posix(), record["id"])
            assert key not in records, f"{key} is there twice"
            records[key] = record
    return records


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.jsonl"))


def scores(folder: Path) -> list[dict]:
    return [row for row in rows(summarise(Store(folder))) if row["metric"] not in UNTIMED]


def untimed(records: dict) -> dict:
    return {key: {k: v for k, v in r.items() if k not in ("seconds", "memory")} for key, r in records.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pictures", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as room:
        killed, unkilled = Path(room) / "killed", Path(room) / "unkilled"
        command = [*COMMAND, "--limit", str(arguments.pictures), "--method", "none", "--method", "lime", "--output-dir"]
        subprocess.run([*command, str(unkilled)], check=True, stdout=subprocess.DEVNULL)
        total = len(whole(unkilled))
        kills = early = torn = 0
        before: dict = {}
        for _ in track(range(arguments.kills), description="kills"):
            start, process = size(killed), subprocess.Popen([*command, str(killed)], stdout=subprocess.DEVNULL)
            # Enough is left for the kills to come: about one record in two is answered by the time of its kill.
            wait = rng.random() * 0.06 if rng.random() < 0.8 else None
            if wait is None:
                time.sleep(rng.random() * 1.5)
            else:
                while size(killed) == start and process.poll() is None:
                    time.sleep(0.002)
                time.sleep(wait)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
            early += size(killed) == start
            torn += any(
                not file.read_bytes().endswith(b"\n") for file in killed.rglob("*.jsonl") if file.stat().st_size
            )
            now = whole(killed)
            lost = [key for key in before if now.get(key) != before[key]]
            assert not lost, f"lost or changed: {lost}"
            before = now
        left = total - len(before)
        subprocess.run([*command, str(killed)], check=True, stdout=subprocess.DEVNULL)
        after = whole(killed)
        assert all(after[key] == record for key, record in before.items())
        assert untimed(after) == untimed(whole(unkilled))
        assert scores(killed) == scores(unkilled)
        print(
            f"{total} records, {kills} kills ({early} before a new record, {torn} with a torn line), {left} left then"
        )
        print("no record lost, none twice, answers and scores as without a kill")


if __name__ == "__main__":
    main()
