"""lime-mlx generate: a picture and a question in, an answer out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import chain
from typing import TYPE_CHECKING

import click

from lime_mlx.cli import INTERRUPTED
from lime_mlx.cli.common import (
    LoadedRequest,
    Request,
    Stream,
    check_options,
    cut_note,
    echo_json,
    load_request,
    note,
    noting,
    prepare_backend,
    takes_input,
)
from lime_mlx.cli.page import about, open_page
from lime_mlx.cli.risk import check_request, promised, told
from lime_mlx.errors import MethodError, PromptError, plain_text

if TYPE_CHECKING:
    from lime_mlx.answer import Answer, Response
    from lime_mlx.explanation import Explanation
    from lime_mlx.methods import Method


@click.command()
@takes_input
@click.option("--temperature", "--temp", type=float, default=0.0, show_default=True, help="0 is greedy.")
@click.option(
    "--top-p",
    type=float,
    default=1.0,
    show_default=True,
    help="Keep the most likely tokens whose probabilities sum to this.",
)
@click.option(
    "--top-k", type=int, default=0, show_default=True, help="Keep this many of the most likely tokens; 0 keeps all."
)
@click.option(
    "--min-p",
    type=float,
    default=0.0,
    show_default=True,
    help="Drop tokens below this share of the best token's probability.",
)
@click.option("--repetition-penalty", type=float, help="Makes repeated tokens less likely when above 1.")
@click.option("--seed", type=int, help="Seed of the sampling.")
@click.option("--stop", multiple=True, metavar="TEXT", help="A text that ends the answer; repeat it for each one.")
@click.option("--explain", is_flag=True, help="Show how much of each word came from the picture or sound.")
@click.option("--flag", is_flag=True, help="Mark words without support in the picture or sound.")
@click.option(
    "--on-unsupported",
    type=click.Choice(["mark", "drop", "retry"]),
    help="Mark such words, leave them out of lists, or try them again with exact LIME.",
)
@click.option(
    "--risk", type=float, help="Answer as the promise of evaluate --calibrate --risk says, of this risk or less."
)
@click.option("--open", "open_it", is_flag=True, help="Show in the browser where the words came from.")
@click.option("--check-input", is_flag=True, help="Warn when the answer is the same for a blank picture or sound.")
@click.option(
    "--prompt-cache-file",
    metavar="FILE",
    help="Keep the cache of the prompt in this .safetensors file, or go on with what it holds.",
)
@click.option("--measure", is_flag=True, help="Also time plain decoding, and print how much longer this answer took.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.option("--quiet/--verbose", default=False, help="Print the answer and warnings, without notes.")
def command(
    request: Request,
    temperature: float,
    top_p: float,
    top_k: int,
    min_p: float,
    repetition_penalty: float | None,
    seed: int | None,
    stop: tuple[str, ...],
    explain: bool,
    flag: bool,
    on_unsupported: str | None,
    risk: float | None,
    open_it: bool,
    check_input: bool,
    prompt_cache_file: str | None,
    measure: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Answer a question about pictures or sounds.

    \b
    lime-mlx generate photo.jpg
    lime-mlx generate photo.jpg -p "Is there a dog?" --method none
    lime-mlx generate street.wav --model Qwen/Qwen2-Audio-7B-Instruct
    curl -s https://example.com/photo.jpg | lime-mlx generate --image - --explain
    """
    check_options(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p)
    check_options(repetition_penalty=repetition_penalty, seed=seed)
    check_request(request, risk)
    if open_it and not (request.image or request.audio):
        raise PromptError("--open shows what of a picture or a sound a word came from: give one.")
    notes: list[str] = []
    prepare_backend(notes, quiet)

    from lime_mlx.answer import collect
    from lime_mlx.decoding import calibration_note, resolve_method
    from lime_mlx.explanation import input_warnings
    from lime_mlx.generation import stream_generate
    from lime_mlx.methods import parse_method
    from lime_mlx.words import without_flagged

    with noting(notes):
        wanted = chosen_method(request, on_unsupported)
    opened = load_request(request, notes)
    promise = None if risk is None else promised(opened, request, risk)
    if promise is not None:
        wanted, on_unsupported = parse_method(promise.method), promise.procedure if promise.flags else None
        request = replace(request, method=promise.method, max_tokens=promise.tokens)
        notes.append(told(promise))
    method = resolve_method(wanted, opened.prompt, opened.model)
    notes += [] if wanted else calibration_note(method, opened.prompt, opened.model)
    flag = flag or on_unsupported is not None
    check_drop(opened, on_unsupported)
    shown = explain or flag or as_json or open_it
    responses = stream_generate(
        opened.model,
        opened.processor,
        opened.prompt,
        method=method,
        max_tokens=request.max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop,
        reliance=shown,
        relevance=(bool(request.audio) and shown) or open_it,
        measure=measure,
        notice=notes.append,
        kv=request.kv,
        cache_file=prompt_cache_file,
    )
    with noting(notes):
        first = next(responses)  # nothing is printed before this has gone well
    printed = 0 if quiet else len(notes)
    note(*notes[:printed])
    stream = Stream(chain([first], responses))
    in_domain = first.calibrated_for_input is not False
    show(stream, opened, request, explain, flag, as_json or on_unsupported == "drop", quiet, in_domain)
    answer, name = collect(stream.kept, opened.model, opened.prompt), request.method or method.name
    warned = list(input_warnings(opened.model, opened.prompt, answer, check_input and not as_json))
    text, dropped = without_flagged(answer.text, answer.words) if on_unsupported == "drop" else (answer.text, [])
    if as_json:
        values = json_values(answer, opened, name, [*answer.notices, *warned], check_input)
        left_out = {"text": text, "dropped": dropped} if on_unsupported == "drop" else {}
        stated = {} if promise is None else {"promise": asdict(promise)}
        echo_json({**values, **left_out, **stated})
    elif on_unsupported == "drop":
        click.echo(plain_text(text))
        notes += [f"Left out, without support: {', '.join(dropped)}"] if dropped else []
    if open_it and stream.kept:
        notes.append(open_page([page_of(stream.kept, opened, request, name)], None))
    if stream.interrupted:
        click.get_current_context().exit(INTERRUPTED)
    note(*([] if as_json else warned))
    if not quiet:
        note(*([] if as_json else answer.notices))
        note(*notes[printed:], *cut_note(answer, request.max_tokens), *statistics(answer, name))


def page_of(kept: list[Response], opened: LoadedRequest, request: Request, method: str) -> Explanation:
    """The explanation of an answer, for its page."""
    from lime_mlx.explanation import explained

    return explained(
        kept,
        opened.model,
        opened.prompt,
        question=request.prompt,
        method=method,
        pictures=opened.pictures,
        sounds=opened.sounds,
        about=about(opened, request),
    )


def chosen_method(request: Request, on_unsupported: str | None) -> Method | None:
    """What --method says, with a second try around it where --on-unsupported asks for that; None is the default."""
    from lime_mlx.methods import parse_method
    from lime_mlx.methods.retry import Retry

    if on_unsupported == "retry" and not (request.image or request.audio):
        raise MethodError("Words are tried again by their support in a picture or a sound: give one.")
    method = None if request.method is None else parse_method(request.method)
    return Retry(inner=method or parse_method("lime")) if on_unsupported == "retry" else method


def check_drop(opened: LoadedRequest, on_unsupported: str | None) -> None:
    from lime_mlx.support.detector import Detector

    if on_unsupported == "drop" and Detector.from_config(opened.model.config) is None:
        raise MethodError("Words can be left out only with a model that was calibrated: lime-mlx evaluate --calibrate.")


def show(
    stream: Stream[Response],
    opened: LoadedRequest,
    request: Request,
    explain: bool,
    flag: bool,
    silent: bool,
    quiet: bool,
    in_domain: bool,
) -> None:
    """Print the answer as it comes: as text, or as words with what --explain and --flag ask for.

    in_domain: the detector may judge the words.
    """
    from lime_mlx.cli import display
    from lime_mlx.support.detector import Detector
    from lime_mlx.words import words

    if silent:
        for _ in stream:
            pass
    elif explain or flag:
        detector, spans = Detector.from_config(opened.model.config), opened.model.spans(opened.prompt)
        judged = words(stream, detector if in_domain else None, spans)
        display.show(judged, request.medium, explain, flag, detector is not None, quiet, in_domain)
    else:
        display.plain(stream)


def json_values(
    answer: Answer, opened: LoadedRequest, spec: str, warnings: list[str], check: bool
) -> dict[str, object]:
    """What --json prints of an answer, but for the words that --on-unsupported left out."""
    from lime_mlx.probes.blank import ignores_media

    values: dict[str, object] = {**answer.to_dict(), "model": opened.name, "method": spec, "warnings": warnings}
    if check:
        values["input_used"] = not (opened.prompt.media and ignores_media(opened.model, opened.prompt, answer.tokens))
    return values


def statistics(answer: Answer, method: str) -> Iterator[str]:
    """The lines that mlx-lm prints, and what the method cost where that was measured."""
    yield f"Prompt: {answer.prompt_tokens} tokens, {answer.prompt_tps:.3f} tokens-per-sec"
    yield f"Generation: {answer.generation_tokens} tokens, {answer.generation_tps:.3f} tokens-per-sec"
    yield f"Peak memory: {answer.peak_memory:.3f} GB"
    if answer.cost:
        ratio, extra = answer.cost.ratio, answer.cost.extra_bytes / 1e6
        yield f"{method}: a token takes {ratio:.1f} times as long as in plain decoding, and {extra:.0f} MB more memory"
