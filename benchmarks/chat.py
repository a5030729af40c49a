"""What kept prefixes change: nothing in the answers, and the time to the first token of a second question.

    python benchmarks/chat.py                       # the time, on the demo and on a model of 12 layers
    python benchmarks/chat.py --answers --scenes 200 --output build/chat

--answers: the second question about each of so many validation scenes, in a chat or as a new request, answered by the
demo in float32, in bfloat16, and converted to 8 and to 4 bits: with kept prefixes, with the cache cut where the prompts
part ("cut anywhere"), and alone. An answer differs where a token does. For the first token that differs: by how much
the two best logits of the run alone lie apart.
The time: from the question, with the picture opened, to the first token, decoded plainly. Each pair of first and second
question has a fresh memory; ratios are of pairs, with quartiles. On a busy machine the time that passes is that of the
waiting: --cpu takes the time of the processor instead (with OMP_NUM_THREADS=1 that is the time of a machine at rest).
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lime_mlx import blas

blas.load_blas()

import mlx.core as mx  # noqa: E402
from evaluate_prefill import random_model  # noqa: E402
from rich.progress import track  # noqa: E402

from lime_mlx import Chat, Prefixes, load  # noqa: E402
from lime_mlx.checkpoint.hub import demos  # noqa: E402
from lime_mlx.convert import convert  # noqa: E402
from lime_mlx.decoding import Step, steps  # noqa: E402
from lime_mlx.methods import parse_method  # noqa: E402
from lime_mlx.models.base import Model  # noqa: E402
from lime_mlx.processor import Processor  # noqa: E402
from lime_mlx.prompt import Prompt, Turn  # noqa: E402
from lime_mlx.scenes import make_scene  # noqa: E402
from lime_mlx.session import Session  # noqa: E402

FIRST_SEED, TOKENS = 100_000, 24
FIRST = "What is in the picture?"
SECOND = ("Is there a dog in the picture?", "What else is in the picture?", "Describe the picture.")
FORMS: dict[str, dict | None] = {"float32": None, "bfloat16": {}, "8 bits": {"q_bits": 8}, "4 bits": {"q_bits": 4}}
PLAIN = parse_method("none")
Clock = Callable[[], float]


def model_of(form: str, home: Path) -> tuple[Model, Processor]:
    """The picture demo in one form; the forms of fewer bits compute in bfloat16."""
    options = FORMS[form]
    if options is None:
        return load("demo")
    folder = home / form.replace(" ", "_")
    if not (folder / "config.json").exists():
        quantised = {"quantize": True, "q_group_size": 32, **options} if options else {}
        convert(demos()["picture"], folder, dtype="bfloat16", force=True, **quantised)
    model, processor = load(str(folder))
    model.set_dtype(mx.bfloat16)
    return model, processor


def answer(session: Session, ends: frozenset[int]) -> list[Step]:
    session.want_relevance = False
    return list(steps(session, PLAIN, TOKENS, stop=ends))


def gap(alone: Sequence[Step], other: Sequence[Step]) -> float | None:
    """The distance of the two best logits of the run alone where the answers part; None where they do not."""
    for step, kept in zip(alone, other, strict=False):
        if step.token != kept.token:
            best = np.sort(step.logits)
            return float(best[-1] - best[-2])
    return None if len(alone) == len(other) else 0.0


def cut_anywhere(opening: Session, prompt: Prompt) -> Session:
    """A session that takes over all that the prompts have in common, wherever they part."""
    length = min(opening.cache.offset, len(prompt) - 1)
    parts = np.flatnonzero(opening.prompt.input_ids[:length] != prompt.input_ids[:length])
    return opening.branch(prompt, int(parts[0]) if parts.size else length)


def compare_answers(scenes: int, home: Path) -> None:
    print("| form | answers | differ with kept prefixes | largest gap | differ when cut anywhere | largest gap |")
    print("|---|---|---|---|---|---|")
    for form in FORMS:
        model, processor = model_of(form, home)
        ends = frozenset(processor.eos_token_ids)
        gaps: dict[str, list[float | None]] = {"kept": [], "anywhere": []}
        for seed in track(range(FIRST_SEED, FIRST_SEED + scenes), form):
            image = make_scene(seed, "adversarial").image
            first = processor.prompt(FIRST, [image])
            prefixes = Prefixes(model)
            said = answer(prefixes.open(first), ends)
            opening = Session.open(model, first)
            opening.prefill()
            text = processor.tokenizer.decode([step.token for step in said], skip_special_tokens=True).strip()
            history = [] if seed % 2 else [Turn(FIRST, text, ("image",))]
            prompt = processor.prompt(SECOND[seed % len(SECOND)], [image], history=history)
            alone = answer(Session.open(model, prompt), ends)
            kept = prefixes.open(prompt)
            assert kept.reused, "nothing was kept"
            gaps["kept"].append(gap(alone, answer(kept, ends)))
            gaps["anywhere"].append(gap(alone, answer(cut_anywhere(opening, prompt), ends)))
        cells = []
        for values in gaps.values():
            parted = [value for value in values if value is not None]
            cells += [f"{len(parted)} ({100 * len(parted) / len(values):.1f} %)", f"{max(parted, default=0):.3f}"]
        print(f"| {form} | {len(gaps['kept'])} | {' | '.join(cells)} |", flush=True)


def first_token(clock: Clock, chat: Chat, text: str, image: object = None) -> float:
    """Seconds to the first token of an answer; this token is a turn of the chat."""
    began = clock()
    stream = chat.stream(text, image=image)  # type: ignore[arg-type]  # a PIL image or None
    next(stream)
    seconds = clock() - began
    stream.close()
    return seconds


def first_step(clock: Clock, prefixes: Prefixes, prompt: Prompt) -> float:
    """Seconds to the first token behind a prompt."""
    began = clock()
    session = prefixes.open(prompt)
    session.want_relevance = False
    next(steps(session, PLAIN, 1))
    return clock() - began


def demo_times(pairs: int, clock: Clock) -> tuple[list[float], dict[str, list[float]]]:
    model, processor = load("demo")
    firsts: list[float] = []
    seconds: dict[str, list[float]] = {"in the same chat": [], "in another chat": []}
    for number in range(pairs + 2):
        image = make_scene(FIRST_SEED + number, "adversarial").image
        prefixes = Prefixes(model)
        chat, other = (Chat(model, processor, "none", reliance=False, prefixes=prefixes) for _ in range(2))
        asked = ((chat, FIRST, image), (chat, SECOND[0], None), (other, SECOND[0], image))
        times = [first_token(clock, *each) for each in asked]
        if number > 1:  # the first ones warm up
            firsts.append(times[0])
            for values, taken in zip(seconds.values(), times[1:], strict=True):
                values.append(taken)
    return firsts, seconds


def random_times(
    pairs: int, clock: Clock, layers: int = 12, hidden: int = 512, side: int = 24
) -> tuple[list[float], dict[str, list[float]]]:
    model, groups = random_model(pairs + 1, layers, hidden, side)
    firsts: list[float] = []
    seconds: dict[str, list[float]] = {"in the same chat, 60 tokens later": [], "in another chat": []}
    for number, (first, second, _) in enumerate(groups):
        tail = np.random.default_rng(number).integers(10, 900, 60)
        later = Prompt(np.concatenate([first.input_ids, tail]), first.media)
        prefixes = Prefixes(model)
        times = [first_step(clock, prefixes, prompt) for prompt in (first, later, second)]
        if number:
            firsts.append(times[0])
            for values, taken in zip(seconds.values(), times[1:], strict=True):
                values.append(taken)
    return firsts, seconds


def show_times(name: str, firsts: Sequence[float], seconds: dict[str, list[float]]) -> None:
    for where, values in seconds.items():
        low, middle, high = np.percentile(np.array(values) / np.array(firsts), (25, 50, 75))
        millis = f"{1e3 * np.median(firsts):.1f} | {1e3 * np.median(values):.1f}"
        print(f"| {name}, {where} (n={len(values)}) | {millis} | {middle:.2f} ({low:.2f} to {high:.2f}) |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", action="store_true", help="compare answers instead of times")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("build/chat"), help="where the converted demos go")
    parser.add_argument("--pairs", type=int, default=60, help="pairs of questions to the demo; a quarter to the other")
    parser.add_argument("--cpu", action="store_true", help="the time of the processor, not the time that passes")
    arguments = parser.parse_args()
    if arguments.answers:
        compare_answers(arguments.scenes, arguments.output)
        return
    print("| second question | first question, ms | second, ms | ratio (quartiles) |")
    print("|---|---|---|---|")
    clock = time.process_time if arguments.cpu else time.perf_counter
    show_times("demo", *demo_times(arguments.pairs, clock))
    show_times("12 layers", *random_times(max(1, arguments.pairs // 4), clock))


if __name__ == "__main__":
    main()
