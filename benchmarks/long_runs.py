"""Does a long run hold more and more? Memory, open files and threads over 2,000 tokens and 1,000 records.

    OMP_NUM_THREADS=1 python benchmarks/long_runs.py --results benchmarks/long_runs.json --figure docs/long-runs.svg
    python benchmarks/long_runs.py --results benchmarks/long_runs.json --run records
    python benchmarks/long_runs.py --check benchmarks/long_runs.json --figure docs/long-runs.svg

An answer of 2,000 tokens is decoded by each method, and an evaluation gives 1,000 records, by the picture demo. The
memory is that of the process, less the entries of the answer's cache and its embeddings, which must grow. The first
quarter is warm-up. Behind it a straight line is laid through the samples: over the whole rest of the run it may rise by
at most `MEGABYTES`, and by no file and no thread. --run does some runs only; the results of others stay as they are.
--check does no run and judges stored samples. The exit code is 1 where a bound is broken.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import psutil
from matplotlib.figure import Figure

from lime_mlx import load
from lime_mlx.blas import load_blas
from lime_mlx.decoding import start, steps
from lime_mlx.methods import parse_method
from lime_mlx.scenes import PROMPTS, make_scene

SEED = 150_000
METHODS, RECORDS = ("none", "lime:steps=2"), "records"
WARM, MEGABYTES, COUNT = 0.25, 8.0, 0.5
EVALUATE = ["evaluate", "--quiet", "--task", "scenes", "--method", "none"]
QUANTITIES = ("memory, MB", "open files", "threads")


class Sample(NamedTuple):
    """done: tokens or records so far. memory: MB of the process, less what must grow. files, threads: their counts."""

    done: int
    memory: float
    files: int
    threads: int


def sampled(process: psutil.Process, done: int, held: int = 0) -> Sample:
    """held: bytes that must grow."""
    with process.oneshot():
        memory = (process.memory_info().rss - held) / 1e6
        return Sample(done, round(memory, 3), process.num_fds(), process.num_threads())


def tokens(method: str, count: int) -> list[Sample]:
    """Samples of one long answer in this process."""
    load_blas()
    model, processor = load("demo")
    prompt = processor.prompt(PROMPTS[0], images=[make_scene(SEED, "adversarial").image])
    session = start(model, prompt, reliance=True)
    process, samples = psutil.Process(), []
    for done, _ in enumerate(steps(session, parse_method(method), count), start=1):
        if done % max(1, count // 200) == 0:
            samples.append(sampled(process, done, session.cache.nbytes + session.embeds.nbytes))
    return samples


def elsewhere(method: str, count: int) -> list[Sample]:
    """The samples of `tokens` in a process of its own."""
    command = [sys.executable, __file__, "--child", method, "--tokens", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [Sample(*row) for row in json.loads(done.stdout)]


def records(count: int) -> list[Sample]:
    """Samples of an evaluation in another process, until it has so many records."""
    with tempfile.TemporaryDirectory() as room:
        options = ["--limit", str(count), "--output-dir", str(Path(room) / "run")]
        command = [sys.executable, "-c", "from lime_mlx.cli import main; main()", *EVALUATE, *options]
        process = psutil.Popen(command, stdout=subprocess.DEVNULL)
        samples: list[Sample] = []
        while process.poll() is None and (not samples or samples[-1].done < count):
            done = sum(file.read_bytes().count(b"\n") for file in Path(room).rglob("answers/**/*.jsonl"))
            if done >= (samples[-1].done if samples else 0) + max(1, count // 200):
                samples.append(sampled(process, done))
            time.sleep(0.05)
        process.terminate()
        process.wait()
    if not samples or samples[-1].done < count:
        raise SystemExit(f"the evaluation ended with the exit code {process.returncode} before {count} records")
    return samples


def growth(samples: list[Sample], column: int) -> tuple[float, float]:
    """(how much a straight line rises from the end of the warm-up to the end, the spread of the samples about it)."""
    rest = [sample for sample in samples if sample.done > WARM * samples[-1].done]
    done, values = (np.array([sample[i] for sample in rest], dtype=float) for i in (0, column))
    slope, start_value = np.polyfit(done, values, 1)
    return float(slope * (done[-1] - done[0])), float(np.std(values - slope * done - start_value))


def judge(runs: dict[str, list[Sample]]) -> bool:
    """Print the growth of each run, and say whether all of it is within the bounds."""
    print(f"Behind the first {WARM:.0%} of a run, a straight line rises by:\n")
    print("| run | memory, MB (spread) | open files | threads |\n|---|---|---|---|")
    fine = True
    for name, samples in runs.items():
        (memory, spread), (files, _), (threads, _) = (growth(samples, column) for column in (1, 2, 3))
        fine &= memory <= MEGABYTES and files <= COUNT and threads <= COUNT
        print(f"| {name} | {memory:+.2f} ({spread:.2f}) | {files:+.2f} | {threads:+.2f} |")
    print(f"\nBounds: {MEGABYTES:g} MB, {COUNT:g} files and threads.")
    return fine


def draw(runs: dict[str, list[Sample]], file: Path) -> None:
    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    rows = figure.subplots(len(QUANTITIES), 1, sharex=True)
    for column, (axes, quantity) in enumerate(zip(rows, QUANTITIES, strict=True), start=1):
        for name, samples in runs.items():
            share = [100 * sample.done / samples[-1].done for sample in samples]
            axes.plot(share, [sample[column] for sample in samples], label=name, linewidth=1.2)
        axes.axvspan(0, 100 * WARM, color="0.92")
        axes.set_ylabel(quantity)
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, 100)
    rows[0].legend(fontsize="small", ncols=2, loc="lower right")
    rows[-1].set_xlabel("% of the run; the warm-up is grey")
    with matplotlib.rc_context({"svg.hashsalt": "lime-mlx"}):
        figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--run", action="append", choices=[*METHODS, RECORDS], help="repeat it; all by default")
    parser.add_argument("--results", type=Path, help="write the samples, as JSON")
    parser.add_argument("--check", type=Path, help="judge stored samples")
    parser.add_argument("--figure", type=Path, help="draw them, as SVG")
    parser.add_argument("--child", choices=METHODS, help="print the samples of one method")
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(tokens(chosen.child, chosen.tokens)))
        return
    file, runs = chosen.check or chosen.results, {}
    if file and file.exists():
        stored = json.loads(file.read_text("utf-8"))
        runs = {name: [Sample(*row) for row in rows] for name, rows in stored.items()}
    for run in [] if chosen.check else chosen.run or [*METHODS, RECORDS]:
        if run == RECORDS:
            runs[f"{chosen.records:,} records"] = records(chosen.records)
        else:
            runs[f"{chosen.tokens:,} tokens, {run}"] = elsewhere(run, chosen.tokens)
        if chosen.results:
            rows = [f"{json.dumps(name)}: {json.dumps(samples)}" for name, samples in runs.items()]
            chosen.results.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    if chosen.figure:
        draw(runs, chosen.figure)
    sys.exit(0 if judge(runs) else 1)


if __name__ == "__main__":
    main()
