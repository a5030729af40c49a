"""End commands at random moments, fill the disk, and let two run at once: nothing half-written has a final name.

    python benchmarks/fault_runs.py --count 5

Each trial runs a command, lets a fault happen at a random moment, looks at what stands under the final name, and runs
the command again: what it gives then must be what an undisturbed run gives. Faults: the signals KILL, TERM and INT; a
disk on which no file may grow beyond a random size; a second process with the same target.
"""

import argparse
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
CODE = "from lime_mlx.cli import main; main()"
SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT}
TIMED = ("seconds", "memory")
Contents = dict[str, object]


class Job(NamedTuple):
    """A command with its target. contents: what stands under final names there, without times."""

    name: str
    command: Callable[[Path, Path], list[str]]
    target: str
    contents: Callable[[Path], Contents]


def one_file(path: Path) -> Contents:
    return {path.name: path.read_bytes()} if path.exists() else {}


def checkpoint(folder: Path) -> Contents:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())} if folder.exists() else {}


def answers(folder: Path) -> Contents:
    """Whole records by their cells and ids; the last line may be cut."""
    records: Contents = {}
    for file in sorted(folder.rglob("answers/**/*.jsonl")):
        for line in file.read_bytes().split(b"\n")[:-1]:
            record = json.loads(line)
            key = f"{file.relative_to(folder)}:{record['id']}"
            assert key not in records, f"{key} is there twice"
            records[key] = {name: value for name, value in record.items() if name not in TIMED}
    return records


JOBS = {
    job.name: job
    for job in (
        Job(
            "convert",
            lambda home, out: ["convert", "--hf-path", str(home / "model"), "--mlx-path", str(out), "-q", "--quiet"],
            "converted",
            checkpoint,
        ),
        Job(
            "evaluate",
            lambda home, out: ["evaluate", "--quiet", "--limit", "3", "--method", "none", "--output-dir", str(out)],
            "evaluated",
            answers,
        ),
        Job(
            "explain",
            lambda home, out: ["explain", str(ROOT / "examples/scene.png"), "--max-tokens", "4", "--output", str(out)],
            "page.svg",
            one_file,
        ),
        Job("report", lambda home, out: ["report", str(home / "run"), "--output", str(out)], "report.html", one_file),
    )
}


def start(arguments: list[str], limit: int | None = None) -> subprocess.Popen:
    """limit: bytes to which a file may grow."""

    def limited() -> None:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited,
    )


def ended(process: subprocess.Popen) -> tuple[int, str]:
    _, errors = process.communicate(timeout=600)
    return process.returncode, errors


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def check_whole(job: Job, out: Path, wanted: Contents) -> str:
    """What stands under the final name: nothing, a part of the records, or the whole. Raises for anything else."""
    contents = job.contents(out)
    if not contents:
        return "absent"
    if contents == wanted:
        return "whole"
    assert job.name == "evaluate" and all(wanted[key] == value for key, value in contents.items()), "half-written"
    return "part of the records"


def check_sentence(code: int, errors: str) -> None:
    """A fault is told in one sentence, without a traceback."""
    lines = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert code == 1 and len(lines) == 1 and "Traceback" not in errors and "please report" not in errors, errors[-800:]
    assert "[Errno" not in errors, errors[-800:]


def trial(job: Job, fault: str, home: Path, wanted: Contents, took: float, rng: random.Random) -> str:
    """One fault, and the run after it. Returns what was seen."""
    out = home / job.target
    remove(out)
    if fault in SIGNALS:
        process = start(job.command(home, out))
        time.sleep(rng.uniform(0.3, 1.0) * took)
        process.send_signal(SIGNALS[fault])
        code, errors = ended(process)
        assert code in (0, -SIGNALS[fault], 130 if fault == "INT" else 0), (code, errors[-800:])
        assert "Traceback" not in errors or (fault == "INT" and code < 0), errors[-800:]
        seen = f"{check_whole(job, out, wanted)}, {'ended before' if code == 0 else 'cut'}"
    elif fault == "full disk":
        code, errors = ended(start(job.command(home, out), limit=rng.choice([0, 100, 5_000, 60_000])))
        if code:
            check_sentence(code, errors)
        seen = f"{check_whole(job, out, wanted)}, {'it fitted' if code == 0 else 'a sentence'}"
    else:
        first = start(job.command(home, out))
        time.sleep(rng.uniform(0, 1.0) * took)
        second = start(job.command(home, out))
        ends = [ended(first), ended(second)]
        for code, errors in ends:
            if code:
                check_sentence(code, errors)
        assert 0 in [code for code, _ in ends], [errors[-300:] for _, errors in ends]
        assert check_whole(job, out, wanted) == "whole"
        return f"whole, {sum(code != 0 for code, _ in ends)} refused"
    if job.contents(out) != wanted:
        code, errors = ended(start(job.command(home, out)))
        assert code == 0, errors[-800:]
    assert job.contents(out) == wanted, "the run after the fault gives something else"
    left = [path.name for path in home.iterdir() if path.name.startswith(".unfinished.")]
    assert fault == "KILL" or fault == "TERM" or not left, left
    for name in left:
        (home / name).unlink()
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5, help="trials of each command and fault")
    parser.add_argument("--job", action="append", choices=[*JOBS])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        shutil.copytree(ROOT / "lime_mlx" / "demo" / "picture", home / "model")
        run = ["evaluate", "--quiet", "--limit", "1", "--method", "none", "--output-dir", str(home / "run")]
        assert ended(start(run))[0] == 0
        print("| command | fault | tried | afterwards |\n|---|---|---|---|")
        for job in (JOBS[name] for name in arguments.job or JOBS):
            out, began = home / job.target, time.monotonic()
            code, errors = ended(start(job.command(home, out)))
            took = time.monotonic() - began
            assert code == 0, errors
            wanted = job.contents(out)
            assert wanted
            for fault in (*SIGNALS, "full disk", "two at once"):
                seen = Counter(trial(job, fault, home, wanted, took, rng) for _ in range(arguments.count))
                shown = ", ".join(f"{count} {what}" for what, count in sorted(seen.items()))
                print(f"| {job.name} | {fault} | {arguments.count} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
