"""lime-mlx generate: a picture and a question in, an answer out."""

import json
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain

import click

from lime_mlx.cli import INTERRUPTED
from lime_mlx.errors import LimeError, PromptError

REAL_MODEL = "mlx-community/llava-1.5-7b-4bit"
QUESTION, QUESTION_OF_SOUND = "What is in the picture?", "What do you hear?"
# Least and most of what is sampled with; NaN is in no range.
RANGES = {"temperature": (0, math.inf), "top_p": (0, 1), "top_k": (0, math.inf), "min_p": (0, 1)}


def no_stray(context, parameter, values):
    if values:
        raise click.UsageError(f"Unexpected {values[0]!r}: repeat --image for each file, and quote the prompt.")


@click.command()
@click.option("--image", multiple=True, metavar="FILE|URL|-", help="A picture; repeat --image for each file.")
@click.option("--audio", multiple=True, metavar="FILE|URL|-", help="A sound; repeat --audio for each file.")
@click.option("-p", "--prompt", help=f"What to ask; - reads it from standard input.  [default: {QUESTION}]")
@click.option("--system", "--system-prompt", "system", help="System prompt.")
@click.option("--model", envvar="LIME_MLX_MODEL", metavar="REPO|FOLDER", help="[default: $LIME_MLX_MODEL, else demo]")
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option("--method", metavar="SPEC", help="none, lime or lime:key=value,...  [default: lime with a picture]")
@click.option("--max-tokens", type=int, default=256, show_default=True)
@click.option("--temperature", "--temp", type=float, default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-p", type=float, default=1.0, show_default=True)
@click.option("--top-k", type=int, default=0, show_default=True)
@click.option("--min-p", type=float, default=0.0, show_default=True)
@click.option("--seed", type=int, help="Seed of the sampling.")
@click.option("--explain", is_flag=True, help="Show how much of each word came from the picture.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.option("--quiet/--verbose", default=False, help="Only the answer.")
@click.argument("stray", nargs=-1, callback=no_stray, expose_value=False, metavar="")
def command(
    image, audio, prompt, system, model, revision, method, max_tokens, seed, explain, as_json, quiet, **sampling
):
    """Answer a question about a picture.

    \b
    lime-mlx generate --image photo.jpg
    lime-mlx generate --image photo.jpg -p "Is there a dog?" --method none
    curl -s https://example.com/photo.jpg | lime-mlx generate --image - --explain
    """
    check(max_tokens, seed, sampling)
    text = question(prompt, image, audio)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    notes: list[str] = []
    prepare_backend(notes)

    from lime_mlx.checkpoint import load
    from lime_mlx.generate import stream_generate
    from lime_mlx.media.image import open_image
    from lime_mlx.methods import parse_method

    spec = method or ("lime" if image or audio else "none")
    chosen = parse_method(spec)
    pictures = [open_image(source, notice=notes.append) for source in image]
    loaded, processor = load(model or "demo", revision=revision)
    if model is None:
        notes.append(f"Using the bundled demo model, which knows drawn scenes; a real one: --model {REAL_MODEL}")
    responses = stream_generate(
        loaded,
        processor,
        processor.prompt(text, images=pictures, audio=audio, system=system),
        method=chosen,
        max_tokens=max_tokens,
        sampler=sampler(loaded.language_model.config.vocab_size, seed, **sampling),
        reliance=explain or as_json,
        measure=not quiet and spec != "none",
    )
    first = next(responses)  # nothing is printed before this has gone well
    if not quiet:
        note(*notes)
    stream = Stream(chain([first], responses))
    if as_json:
        kept = list(stream)
        click.echo(json.dumps(summary(kept, model or "demo", spec), ensure_ascii=False))
    elif explain:
        from lime_mlx.cli import display

        media = {"picture": image, "sound": audio}
        display.explained(pieces(stream), " and ".join(name for name, given in media.items() if given) or "picture")
    else:
        plain(pieces(stream))
    if stream.interrupted:
        click.get_current_context().exit(INTERRUPTED)
    if not quiet:
        note(*statistics(stream.last, chosen.name))


class Stream:
    """Responses as they come; Ctrl-C ends them. `last` is the latest one."""

    def __init__(self, responses: Iterable):
        self.responses, self.last, self.interrupted = responses, None, False

    def __iter__(self) -> Iterator:
        try:
            for response in self.responses:
                self.last = response
                yield response
        except KeyboardInterrupt:
            self.interrupted = True


def check(max_tokens: int, seed: int | None, sampling: dict[str, float]) -> None:
    """Refuse numbers that mean nothing."""
    wanted = {"max_tokens": (max_tokens, 1, math.inf), "seed": (seed or 0, 0, 2**64 - 1)}
    wanted |= {name: (value, *RANGES[name]) for name, value in sampling.items()}
    for name, (value, least, most) in wanted.items():
        if not least <= value <= most:
            bound = f"from {least} to {most}" if most < math.inf else f"at least {least}"
            raise LimeError(f"--{name.replace('_', '-')} is {value}; it must be {bound}.")


def question(prompt: str | None, image: tuple, audio: tuple) -> str:
    """What is asked, from the option or standard input."""
    if [prompt, *image, *audio].count("-") > 1:
        raise PromptError("Standard input can be read only once; give the other inputs as files or text.")
    if prompt is None and (image or audio):
        return QUESTION if image else QUESTION_OF_SOUND
    if prompt == "-":
        prompt = sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if sys.stdin else ""
    if not prompt or not prompt.strip():
        raise PromptError("The prompt is empty: say with -p what the model should do.")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise PromptError("The prompt is not UTF-8 text.") from None
    return prompt


def prepare_backend(notes: list[str]) -> None:
    """MLX, and under it the BLAS; a warning becomes a note."""
    from lime_mlx import backend

    backend.require_mlx()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        backend.load_blas()
    notes.extend(f"Note: {warning.message}" for warning in caught)


def sampler(vocabulary: int, seed: int | None, temperature: float, top_p: float, top_k: int, min_p: float):
    """mlx-lm's sampler, or None for greedy decoding."""
    if temperature == 0:
        return None
    import mlx.core as mx
    from mlx_lm.sample_utils import make_sampler

    if seed is not None:
        mx.random.seed(seed)
    return make_sampler(temp=temperature, top_p=top_p, top_k=top_k if top_k < vocabulary else 0, min_p=min_p)


def pieces(responses: Iterable) -> Iterator[tuple]:
    """(text, shares) of every token, without the white space before the answer and the shares of its end."""
    started = False
    for response in responses:
        text = response.text if started else response.text.lstrip()
        started = started or bool(text)
        yield text, None if response.finish_reason == "stop" else response.shares


def plain(said: Iterable[tuple]) -> None:
    """Print the text as it comes; whatever ends it, the line is closed."""
    try:
        for text, _ in said:
            click.echo(text, nl=False)
    finally:
        click.echo()


def summary(responses: list, model: str, spec: str) -> dict:
    """What --json prints: the answer, its tokens and words with their shares, and the statistics of the run."""
    from lime_mlx.explain import words

    last = responses[-1]
    said = [response for response in responses if response.finish_reason != "stop"]
    return {
        "text": "".join(text for text, _ in pieces(responses)),
        "words": [
            {"text": word.text.strip(), **dict(zip(("reliance", "prompt", "own"), word.shares, strict=True))}
            for word in words(pieces(responses))
        ],
        "tokens": [response.token for response in said],
        "reliance": [response.reliance for response in said],
        "model": model,
        "method": spec,
        "finish_reason": last.finish_reason,
        "prompt_tokens": last.prompt_tokens,
        "prompt_tps": last.prompt_tps,
        "generation_tokens": last.generation_tokens,
        "generation_tps": last.generation_tps,
        "peak_memory": last.peak_memory,
        "cost": last.cost and {"ratio": last.cost.ratio, "extra_bytes": last.cost.extra_bytes},
    }


def statistics(last, method: str) -> Iterator[str]:
    """The lines that mlx-lm prints, and what the method cost."""
    yield f"Prompt: {last.prompt_tokens} tokens, {last.prompt_tps:.3f} tokens-per-sec"
    yield f"Generation: {last.generation_tokens} tokens, {last.generation_tps:.3f} tokens-per-sec"
    yield f"Peak memory: {last.peak_memory:.3f} GB"
    if last.cost:
        yield f"{method.upper()}: {last.cost.ratio:.1f} x plain decode, +{last.cost.extra_bytes / 1e6:.0f} MB"


def note(*lines: str) -> None:
    for line in lines:
        click.echo(line, err=True)
