"""End commands at random moments, fill the disk, and let two run at once: nothing half-written has a final name.

    python benchmarks/fault_runs.py --count 5
    python benchmarks/fault_runs.py --count 50 --job convert --fault KILL --fault TERM

Each trial runs a command, lets a fault happen at a random moment, looks at what stands under the final name, and runs
the command again: what it gives then must be what an undisturbed run gives. Faults: the signals KILL, TERM and INT; a
disk on which no file may grow beyond a random size; a second process with the same target; a folder that may not be
written to, and a disk that cannot; what is read removed meanwhile; a clock that is a day back when the run goes on.
"""

import argparse
import ctypes
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

import data_site

ROOT = Path(__file__).parent.parent
CODE = "from lime_mlx.cli import main; main()"
# A day back: Python's clock of the wall; files still get the system's.
LATE = "import time; now = time.time; time.time = lambda: now() - 86400; "
DATA = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import data_site; data_site.main()"
# Root may write everywhere unless it gives this up: PR_CAPBSET_DROP, CAP_DAC_OVERRIDE.
DROP, OVERRIDE = 24, 1
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT}
TIMED = ("seconds", "memory")
CLOCK, REMOVED = "clock set back", "source removed"
MUST_FAIL = ("no permission", "read-only disk")
Contents = dict[str, object]


class Job(NamedTuple):
    """A command with its target. contents: what stands under final names there, without times.

    source: what it reads, which may be removed while it runs. in_parts: parts of the result may stand there already.
    """

    name: str
    command: Callable[[Path, Path], list[str]]
    target: str
    contents: Callable[[Path], Contents]
    source: str | None = None
    in_parts: bool = False
    code: str = CODE


def one_file(path: Path) -> Contents:
    return {path.name: path.read_bytes()} if path.exists() else {}


def checkpoint(folder: Path) -> Contents:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())} if folder.exists() else {}


def files(folder: Path) -> Contents:
    """Whole files of data; those that are not whole have other names."""
    names = [file for file in sorted(folder.rglob("*")) if file.suffix in (".json", ".jpg")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in names}


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
            "model/model.safetensors",
        ),
        Job(
            "evaluate",
            lambda home, out: ["evaluate", "--quiet", "--limit", "3", "--method", "none", "--output-dir", str(out)],
            "evaluated",
            answers,
            in_parts=True,
        ),
        Job(
            "data get",
            lambda home, out: [str(home / "site"), "get", "pope", "--quiet", "--dir", str(out)],
            "data",
            files,
            in_parts=True,
            code=DATA,
        ),
        Job(
            "explain",
            lambda home, out: ["explain", str(home / "scene.png"), "--max-tokens", "4", "--output", str(out)],
            "page.svg",
            one_file,
            "scene.png",
        ),
        Job(
            "report",
            lambda home, out: ["report", str(home / "run"), "--output", str(out)],
            "report.html",
            one_file,
            "run/settings.json",
        ),
    )
}


def start(
    arguments: list[str], code: str = CODE, limit: int | None = None, prefix: tuple[str, ...] = ()
) -> subprocess.Popen:
    """limit: bytes to which a file may grow. prefix: of the command line."""

    def limited() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell that starts this beside itself ignores it
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if sys.platform == "linux" and not prefix:
            ctypes.CDLL(None).prctl(DROP, OVERRIDE, 0, 0, 0)

    return subprocess.Popen(
        [*prefix, sys.executable, "-c", code, *arguments],
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
    assert job.in_parts and all(wanted[key] == value for key, value in contents.items()), "half-written"
    return "part of it"


def check_sentence(code: int, errors: str) -> None:
    """A fault is told in one sentence, without a traceback."""
    lines = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert code == 1 and len(lines) == 1 and "Traceback" not in errors and "please report" not in errors, errors[-800:]
    assert "[Errno" not in errors, errors[-800:]


def trial(job: Job, fault: str, home: Path, wanted: Contents, took: float, rng: random.Random) -> str:
    """One fault, and the run after it. Returns what was seen."""
    out = home / "shut" / job.target
    remove(out)
    command = job.command(home, out)
    if fault == "two at once":
        return two_at_once(job, command, out, wanted, took * rng.uniform(0, 1.0))
    code = job.code
    if fault in (*SIGNALS, CLOCK):
        number = SIGNALS.get(fault, signal.SIGKILL)
        process = start(command, code)
        time.sleep(rng.uniform(0.3, 1.0) * took)
        process.send_signal(number)
        status, errors = ended(process)
        assert status in (0, -number, 130 if fault == "INT" else 0), (status, errors[-800:])
        assert "Traceback" not in errors or (fault == "INT" and status < 0), errors[-800:]
        seen = f"{check_whole(job, out, wanted)}, {'ended before' if status == 0 else 'cut'}"
        code = (LATE if fault == CLOCK else "") + code
    else:
        status, errors = refused(job, fault, home, command, took, rng)
        if status:
            check_sentence(status, errors)
        seen = f"{check_whole(job, out, wanted)}, {'it went well' if status == 0 else 'a sentence'}"
        assert status or fault not in MUST_FAIL, "nothing was refused"
    if job.contents(out) != wanted:
        status, errors = ended(start(command, code))
        assert status == 0, errors[-800:]
    assert job.contents(out) == wanted, "the run after the fault gives something else"
    left = [path.name for path in out.parent.iterdir() if path.name.startswith(".unfinished.")]
    assert fault in ("KILL", "TERM", CLOCK) or not left, left
    for name in left:
        (out.parent / name).unlink()
    return seen


def refused(job: Job, fault: str, home: Path, command: list[str], took: float, rng: random.Random) -> tuple[int, str]:
    """The exit code and the errors of a run that cannot write, or loses what it reads."""
    folder = home / "shut"
    if fault == "full disk":
        return ended(start(command, job.code, limit=rng.choice([0, 100, 5_000, 60_000])))
    if fault == "read-only disk":
        return ended(start(command, job.code, prefix=("unshare", "-m", "sh", "-c", READ_ONLY, str(folder))))
    if fault == "no permission":
        folder.chmod(0o555)
        try:
            return ended(start(command, job.code))
        finally:
            folder.chmod(0o755)
    assert fault == REMOVED and job.source is not None
    source = home / job.source
    kept = source.read_bytes()
    process = start(command, job.code)
    time.sleep(rng.uniform(0.2, 1.0) * took)
    source.unlink()
    try:
        return ended(process)
    finally:
        source.write_bytes(kept)


def two_at_once(job: Job, command: list[str], out: Path, wanted: Contents, apart: float) -> str:
    """A second process begins some seconds after the first."""
    first = start(command, job.code)
    time.sleep(apart)
    ends = [ended(process) for process in (start(command, job.code), first)]
    for status, errors in ends:
        if status:
            check_sentence(status, errors)
    assert 0 in [status for status, _ in ends], [errors[-300:] for _, errors in ends]
    assert check_whole(job, out, wanted) == "whole"
    return f"whole, {sum(status != 0 for status, _ in ends)} refused"


def faults_of(job: Job) -> list[str]:
    """Those that can be had here."""
    can_mount = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    others = ["full disk", "two at once", "no permission", *(["read-only disk"] if can_mount else [])]
    return [*SIGNALS, *others, *([REMOVED] if job.source else []), *([CLOCK] if job.in_parts else [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5, help="trials of each command and fault")
    parser.add_argument("--job", action="append", choices=[*JOBS], help="repeat it; all by default")
    parser.add_argument("--fault", action="append", help="repeat it; all by default")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no new trial begins after so many")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, ends = random.Random(arguments.seed), time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as name, data_site.served(data_site.made(Path(name) / "site")):
        home = Path(name)
        shutil.copytree(ROOT / "lime_mlx" / "demo" / "picture", home / "model")
        shutil.copy(ROOT / "examples" / "scene.png", home)
        (home / "shut").mkdir()
        run = ["evaluate", "--quiet", "--limit", "1", "--method", "none", "--output-dir", str(home / "run")]
        assert ended(start(run))[0] == 0
        print("| command | fault | tried | afterwards |\n|---|---|---|---|")
        for job in (JOBS[name] for name in arguments.job or JOBS):
            out, began = home / "shut" / job.target, time.monotonic()
            code, errors = ended(start(job.command(home, out), job.code))
            took = time.monotonic() - began
            assert code == 0, errors
            wanted = job.contents(out)
            assert wanted
            for fault in faults_of(job):
                if arguments.fault and fault not in arguments.fault:
                    continue
                seen: Counter[str] = Counter()
                while seen.total() < arguments.count and time.monotonic() < ends:
                    seen[trial(job, fault, home, wanted, took, rng)] += 1
                shown = ", ".join(f"{count} {what}" for what, count in sorted(seen.items()))
                print(f"| {job.name} | {fault} | {seen.total()} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
