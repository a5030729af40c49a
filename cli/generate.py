"""lime-mlx generate: a picture and a question in, an answer out."""

import json
import math
import os
from collections.abc import Iterable, Iterator
from itertools import chain

import click

from lime_mlx.cli import INTERRUPTED
from lime_mlx.cli.common import (
    Stream,
    ask,
    default_method,
    ignored,
    medium,
    note,
    pieces,
    prepare_backend,
    question,
    summary,
    takes_input,
    warnings_of,
)
from lime_mlx.errors import LimeError, MethodError

# Least and most of what is sampled with; NaN is in no range.
RANGES = {"temperature": (0, math.inf), "top_p": (0, 1), "top_k": (0, math.inf), "min_p": (0, 1)}


@click.command()
@takes_input
@click.option("--temperature", "--temp", type=float, default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-p", type=float, default=1.0, show_default=True)
@click.option("--top-k", type=int, default=0, show_default=True)
@click.option("--min-p", type=float, default=0.0, show_default=True)
@click.option("--seed", type=int, help="Seed of the sampling.")
@click.option("--explain", is_flag=True, help="Show how much of each word came from the picture or sound.")
@click.option("--flag", is_flag=True, help="Mark words without support in the picture or sound.")
@click.option(
    "--on-unsupported",
    type=click.Choice(["mark", "drop", "retry"]),
    help="Mark such words, leave them out of lists, or try them again with exact LIME.",
)
@click.option("--check-input", is_flag=True, help="Warn when the answer is the same for a blank picture or sound.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.option("--quiet/--verbose", default=False, help="Only the answer.")
def command(
    image,
    audio,
    prompt,
    system,
    model,
    revision,
    method,
    max_tokens,
    seed,
    explain,
    flag,
    on_unsupported,
    check_input,
    as_json,
    quiet,
    **sampling,
):
    """Answer a question about a picture or a sound.

    \b
    lime-mlx generate --image photo.jpg
    lime-mlx generate --image photo.jpg -p "Is there a dog?" --method none
    lime-mlx generate --model Qwen/Qwen2-Audio-7B-Instruct --audio street.wav
    curl -s https://example.com/photo.jpg | lime-mlx generate --image - --explain
    """
    check(max_tokens, seed, sampling)
    text = question(prompt, image, audio)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    notes: list[str] = []
    prepare_backend(notes)

    from lime_mlx.generation import stream_generate
    from lime_mlx.methods import parse_method
    from lime_mlx.methods.retry import Retry
    from lime_mlx.support.detector import Detector

    spec = method or default_method(image, audio)
    chosen = parse_method(spec)
    asked = ask(text, image, audio, system, model, revision, notes)
    loaded = asked.model
    detector, flag = Detector.from_config(loaded.config), flag or on_unsupported is not None
    if on_unsupported == "retry":
        chosen = Retry(inner=chosen)
    elif on_unsupported == "drop" and detector is None:
        raise MethodError("Words can be left out only with a model that was calibrated: lime-mlx evaluate --calibrate.")
    responses = stream_generate(
        loaded,
        asked.processor,
        asked.prompt,
        method=chosen,
        max_tokens=max_tokens,
        sampler=sampler(loaded.language_model.config.vocab_size, seed, **sampling),
        reliance=explain or as_json,
        relevance=bool(audio) and (explain or as_json),
        evidence=bool(image or audio) and (flag or bool(audio) and (explain or as_json)),
        measure=not quiet and spec != "none",
    )
    first = next(responses)  # nothing is printed before this has gone well
    if not quiet:
        note(*notes)
    stream = Stream(chain([first], responses))
    from lime_mlx.cli import display

    times = asked.times
    if as_json or on_unsupported == "drop":
        for _ in stream:
            pass
        found = summary(stream.kept, asked.name, spec, detector if flag else None, times)
        if on_unsupported == "drop":
            found["dropped"] = drop_flagged(found)
        if check_input:
            found["input_used"] = not ignored(loaded, asked.prompt, stream.kept)
        click.echo(json.dumps(found, ensure_ascii=False) if as_json else found["text"])
        if not as_json and found["dropped"]:
            note(f"Left out, without support: {', '.join(found['dropped'])}")
    elif explain or flag:
        words = display.show(pieces(stream), medium(image, audio), explain=explain, flag=flag, detector=detector)
        for line in display.heard(words, *times) if times and explain else ():
            click.echo(line)
        if flag and (line := display.doubtful(words, detector)):
            note(line)
    else:
        plain(pieces(stream))
    if stream.interrupted:
        click.get_current_context().exit(INTERRUPTED)
    note(*warnings_of(loaded, asked.prompt, stream.kept, check_input and not as_json))
    if not quiet:
        note(*statistics(stream.last, chosen.name))


def drop_flagged(found: dict) -> list[str]:
    """Take flagged words out of the lists of `found["text"]`; returns them. Others stay, and stay marked."""
    from lime_mlx.words import drop

    dropped = []
    for word in found["words"]:
        if word.get("flagged") and (rest := drop(found["text"], word["noun"])) is not None:
            found["text"] = rest
            dropped.append(word["noun"])
    return dropped


def check(max_tokens: int, seed: int | None, sampling: dict[str, float]) -> None:
    """Refuse numbers that mean nothing."""
    wanted = {"max_tokens": (max_tokens, 1, math.inf), "seed": (seed or 0, 0, 2**64 - 1)}
    wanted |= {name: (value, *RANGES[name]) for name, value in sampling.items()}
    for name, (value, least, most) in wanted.items():
        if not least <= value <= most:
            bound = f"from {least} to {most}" if most < math.inf else f"at least {least}"
            raise LimeError(f"--{name.replace('_', '-')} is {value}; it must be {bound}.")


def sampler(vocabulary: int, seed: int | None, temperature: float, top_p: float, top_k: int, min_p: float):
    """mlx-lm's sampler, or None for greedy decoding."""
    if temperature == 0:
        return None
    import mlx.core as mx
    from mlx_lm.sample_utils import make_sampler

    if seed is not None:
        mx.random.seed(seed)
    return make_sampler(temp=temperature, top_p=top_p, top_k=top_k if top_k < vocabulary else 0, min_p=min_p)


def plain(said: Iterable[tuple]) -> None:
    """Print the text as it comes; whatever ends it, the line is closed."""
    try:
        for piece in said:
            click.echo(piece.text, nl=False)
    finally:
        click.echo()


def statistics(last, method: str) -> Iterator[str]:
    """The lines that mlx-lm prints, and what the method cost."""
    yield f"Prompt: {last.prompt_tokens} tokens, {last.prompt_tps:.3f} tokens-per-sec"
    yield f"Generation: {last.generation_tokens} tokens, {last.generation_tps:.3f} tokens-per-sec"
    yield f"Peak memory: {last.peak_memory:.3f} GB"
    if last.cost:
        yield f"{method.upper()}: {last.cost.ratio:.1f} x plain decode, +{last.cost.extra_bytes / 1e6:.0f} MB"
