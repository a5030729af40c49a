"""lime-mlx generate: a picture and a question in, an answer out."""

import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator

import click

REAL_MODEL = "mlx-community/llava-1.5-7b-4bit"
QUESTION = "What is in the picture?"


def no_stray(context, parameter, values):
    if values:
        raise click.UsageError(f"Unexpected {values[0]!r}; repeat --image for each file, and quote the prompt.")


@click.command()
@click.option("--image", multiple=True, metavar="FILE|URL|-", help="A picture; repeat it for several.")
@click.option("--audio", multiple=True, metavar="FILE|URL|-", help="A sound; repeat it for several.")
@click.option("-p", "--prompt", help=f"What to ask; - reads it from standard input.  [default: {QUESTION}]")
@click.option("--system", "--system-prompt", "system", help="System prompt.")
@click.option("--model", envvar="LIME_MLX_MODEL", metavar="REPO|FOLDER", help="[default: $LIME_MLX_MODEL, else demo]")
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option("--method", metavar="SPEC", help="none, lime, lime:key=value,...  [default: lime with a picture]")
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
    image, audio, prompt, system, model, revision, method, max_tokens, temperature, top_p, top_k, min_p, seed, explain,
    as_json, quiet,
):  # fmt: skip
    """Answer a question about a picture.

    \b
    lime-mlx generate --image photo.jpg
    lime-mlx generate --image photo.jpg -p "Is there a dog?" --method none
    curl -s https://example.com/photo.jpg | lime-mlx generate --image - --explain
    """
    from lime_mlx import backend
    from lime_mlx.errors import PromptError

    if max_tokens < 1:
        raise PromptError(f"--max-tokens is {max_tokens}; it must be at least 1.")
    text = asked(prompt, image, audio)
    backend.require_mlx()
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: quiet or note(f"Note: {message}")
        backend.load_blas()
    from lime_mlx.checkpoint import load
    from lime_mlx.generate import stream_generate
    from lime_mlx.media.image import open_image
    from lime_mlx.methods import parse_method

    notices: list[str] = []
    pictures = [open_image(source, notice=notices.append) for source in image]
    spec = method or ("lime" if image or audio else "none")
    chosen = parse_method(spec)
    loaded, processor = load(model or "demo", revision=revision)
    question = processor.prompt(text, images=pictures, audio=list(audio), system=system)
    responses = stream_generate(
        loaded,
        processor,
        question,
        method=chosen,
        max_tokens=max_tokens,
        sampler=sampler(temperature, top_p, top_k, min_p, seed),
        reliance=explain or as_json,
        measure=not quiet,
    )
    first = next(responses)
    if not quiet:
        for notice in notices:
            note(notice)
        if model is None:
            note(f"Using the bundled demo model, which knows drawn scenes; a real one: --model {REAL_MODEL}")
    kept: list = []
    try:
        show(recorded(first, responses, kept), explain, as_json, "sound" if audio else "picture")
    except KeyboardInterrupt:
        click.echo()
        raise SystemExit(130) from None
    if as_json:
        click.echo(json.dumps(summary(kept, model or "demo", spec), ensure_ascii=False))
    if not quiet:
        statistics(kept[-1], chosen.name)


def asked(prompt: str | None, image: tuple, audio: tuple) -> str:
    """The question; raises `PromptError` when there is none."""
    from lime_mlx.errors import PromptError

    if prompt == "-":
        if "-" in (*image, *audio):
            raise PromptError("Standard input cannot be both the prompt and a picture; give one of them as a file.")
        prompt = sys.stdin.read()
    if prompt is None and (image or audio):
        return QUESTION
    if not prompt or not prompt.strip():
        raise PromptError("The prompt is empty: say with -p what the model should do.")
    return prompt


def sampler(temperature: float, top_p: float, top_k: int, min_p: float, seed: int | None):
    """mlx-lm's sampler, or None for greedy decoding."""
    if temperature < 0:
        from lime_mlx.errors import PromptError

        raise PromptError(f"--temperature is {temperature}; it must not be negative.")
    if temperature == 0:
        return None
    import mlx.core as mx
    from mlx_lm.sample_utils import make_sampler

    if seed is not None:
        mx.random.seed(seed)
    return make_sampler(temp=temperature, top_p=top_p, top_k=top_k, min_p=min_p)


def recorded(first, rest: Iterable, kept: list) -> Iterator:
    """All responses, each also appended to `kept`."""
    kept.append(first)
    yield first
    for response in rest:
        kept.append(response)
        yield response


def show(responses: Iterable, explain: bool, as_json: bool, medium: str) -> None:
    """Stream the answer to standard output."""
    if as_json:
        for _ in responses:
            pass
        return
    if not explain:
        started = False
        for response in responses:
            text = response.text if started else response.text.lstrip()
            started = started or bool(text)
            click.echo(text, nl=False)
            sys.stdout.flush()
        click.echo()
        return
    from rich.console import Console

    from lime_mlx.cli import display
    from lime_mlx.explain import mean, words

    console = Console(highlight=False)
    colours = console.is_terminal and not os.environ.get("NO_COLOR")
    held = []
    started = False
    for word in words((r.text, r.shares) for r in responses if r.finish_reason != "stop" or r.text):
        if not started:
            word = type(word)(word.text.lstrip(), word.shares)
            started = True
        held.append(word.shares)
        if colours:
            display.coloured(console, word)
        else:
            display.numbered(lambda text: click.echo(text, nl=False), word)
        sys.stdout.flush()
    click.echo()
    if colours:
        console.print(display.legend())
    if total := mean(held):
        click.echo(display.totals(total, medium))


def summary(responses: list, model: str, spec: str) -> dict:
    from lime_mlx.explain import words

    said = [r for r in responses if r.finish_reason != "stop"]
    last = responses[-1]
    shares = [(r.text, r.shares) for r in said]
    return {
        "text": "".join(r.text for r in responses).strip(),
        "tokens": [r.token for r in said],
        "reliance": [r.reliance for r in said],
        "words": [
            {"text": word.text.strip(), **(word.shares._asdict() if word.shares else {})} for word in words(shares)
        ],
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


def statistics(last, method: str) -> None:
    """The lines that mlx-lm prints, and what the method cost."""
    note(f"Prompt: {last.prompt_tokens} tokens, {last.prompt_tps:.3f} tokens-per-sec")
    note(f"Generation: {last.generation_tokens} tokens, {last.generation_tps:.3f} tokens-per-sec")
    note(f"Peak memory: {last.peak_memory:.3f} GB")
    if last.cost and method != "none":
        note(f"{method.upper()}: {last.cost.ratio:.1f} x plain decode, +{last.cost.extra_bytes / 1e6:.0f} MB")


def note(line: str) -> None:
    click.echo(line, err=True)
