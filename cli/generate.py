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
from lime_mlx.errors import LimeError, MethodError, PromptError

QUESTION, QUESTION_OF_SOUND = "What is in the picture?", "What do you hear?"
# What the bundled models know, and a real one for the same medium.
BUNDLED = {
    "demo": ("drawn scenes", "mlx-community/Qwen2.5-VL-3B-Instruct-4bit"),
    "demo-sound": ("synthesised sounds", "Qwen/Qwen2-Audio-7B-Instruct"),
}
# Share of the input in the answer below which a warning is due.
UNUSED = 0.02
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
@click.option(
    "--method", metavar="SPEC", help="none, lime or lime:key=value,...  [default: lime with a picture or sound]"
)
@click.option("--max-tokens", type=int, default=256, show_default=True)
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
@click.argument("stray", nargs=-1, callback=no_stray, expose_value=False, metavar="")
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

    from lime_mlx.checkpoint import load
    from lime_mlx.generate import stream_generate
    from lime_mlx.lrp.support import Detector
    from lime_mlx.media.audio import open_audio
    from lime_mlx.media.image import open_image
    from lime_mlx.methods import parse_method
    from lime_mlx.methods.retry import Retry

    spec = method or ("lime" if image or audio else "none")
    chosen = parse_method(spec)
    pictures = [open_image(source, notice=notes.append) for source in image]
    sounds = [open_audio(source, notice=notes.append) for source in audio]
    name = chosen_model(model, image, audio)
    loaded, processor = load(name, revision=revision)
    if model is None:
        knows, real = BUNDLED[name]
        notes.append(f"Using the bundled demo model, which knows {knows}; a real one: --model {real}")
    detector, flag = Detector.from_config(loaded.config), flag or on_unsupported is not None
    if on_unsupported == "retry":
        chosen = Retry(inner=chosen)
    elif on_unsupported == "drop" and detector is None:
        raise MethodError("Words can be left out only with a model that was calibrated, such as the demo.")
    asked = processor.prompt(text, images=pictures, audio=sounds, system=system)
    responses = stream_generate(
        loaded,
        processor,
        asked,
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

    times = (loaded.spans(asked), processor.seconds) if audio and processor.seconds else None
    if as_json or on_unsupported == "drop":
        for _ in stream:
            pass
        found = summary(stream.kept, name, spec, detector if flag else None, times)
        if on_unsupported == "drop":
            found["dropped"] = drop_flagged(found)
        if check_input:
            found["input_used"] = not ignored(loaded, asked, stream.kept)
        click.echo(json.dumps(found, ensure_ascii=False) if as_json else found["text"])
        if not as_json and found["dropped"]:
            note(f"Left out, without support: {', '.join(found['dropped'])}")
    elif explain or flag:
        medium = " and ".join(name for name, given in (("picture", image), ("sound", audio)) if given) or "picture"
        words = display.show(pieces(stream), medium, explain=explain, flag=flag, detector=detector)
        for line in display.heard(words, *times) if times and explain else ():
            click.echo(line)
        if flag and (line := display.doubtful(words, detector)):
            note(line)
    else:
        plain(pieces(stream))
    if stream.interrupted:
        click.get_current_context().exit(INTERRUPTED)
    note(*warnings_of(loaded, asked, stream.kept, check_input and not as_json))
    if not quiet:
        note(*statistics(stream.last, chosen.name))


def chosen_model(model: str | None, image: tuple, audio: tuple) -> str:
    """What --model says; of the bundled ones, that which takes what is given."""
    if model not in (None, "demo"):
        return model
    if image and audio:
        raise PromptError("The demo models take a picture or a sound, not both; leave one out, or name another model.")
    return "demo-sound" if audio else "demo"


def answered(responses: list) -> list[int]:
    return [response.token for response in responses if response.finish_reason != "stop"]


def ignored(model, prompt, responses: list) -> bool:
    """Whether the answer is what the model says to a blank input, too."""
    from lime_mlx.evidence import ignored

    return bool(prompt.media) and ignored(model, prompt, answered(responses))


def warnings_of(model, prompt, responses: list, check_input: bool) -> Iterator[str]:
    """Signs that the picture or sound was not used."""
    from lime_mlx.explain import mean

    total = mean(response.shares for response in responses)
    if prompt.media and total is not None and total.media < UNUSED:
        yield f"Warning: only {100 * total.media:.1f} % of the answer came from the input; was it used at all?"
    if check_input and ignored(model, prompt, responses):
        yield "Warning: the model gives the same answer to a blank input of the same size; this one was not used."


def drop_flagged(found: dict) -> list[str]:
    """Take flagged words out of the lists of `found["text"]`; returns them. Others stay, and stay marked."""
    from lime_mlx.flags import drop

    dropped = []
    for word in found["words"]:
        if word.get("flagged") and (rest := drop(found["text"], word["noun"])) is not None:
            found["text"] = rest
            dropped.append(word["noun"])
    return dropped


class Stream:
    """Responses as they come; Ctrl-C ends them. `kept` are those so far, `last` the latest."""

    def __init__(self, responses: Iterable):
        self.responses, self.kept, self.interrupted = responses, [], False

    @property
    def last(self):
        return self.kept[-1]

    def __iter__(self) -> Iterator:
        try:
            for response in self.responses:
                self.kept.append(response)
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
    """A `Piece` of every token, without the white space before the answer and what belongs to its end."""
    from lime_mlx.explain import Piece

    started = False
    for response in responses:
        text = response.text if started else response.text.lstrip()
        started = started or bool(text)
        ends = response.finish_reason == "stop"
        yield Piece(text) if ends else Piece(text, response.shares, response.relevance, response.evidence)


def plain(said: Iterable[tuple]) -> None:
    """Print the text as it comes; whatever ends it, the line is closed."""
    try:
        for piece in said:
            click.echo(piece.text, nl=False)
    finally:
        click.echo()


def summary(responses: list, model: str, spec: str, detector=None, times: tuple | None = None) -> dict:
    """What --json prints: the answer, its tokens and words with their shares, and the statistics of the run.

    detector: adds the verdicts on the words. times: spans and seconds a position, adds when words were heard.
    """
    from lime_mlx.explain import moments, words
    from lime_mlx.flags import judge

    last, said = responses[-1], list(words(pieces(responses)))
    entries = []
    for word, verdict in zip(said, judge(said, detector), strict=True):
        entry = {"text": word.text.strip()}
        if word.shares:
            entry |= dict(zip(("reliance", "prompt", "own"), word.shares, strict=True))
        if verdict:
            entry |= {"noun": verdict.text, "rank": verdict.rank, "doubt": verdict.doubt, "flagged": verdict.flagged}
        if times and word.relevance is not None and verdict:
            entry["seconds"] = [moments(word.relevance, span, times[1]) for span in times[0] if span.kind == "audio"]
        entries.append(entry)
    return {
        "text": "".join(piece.text for piece in pieces(responses)),
        "words": entries,
        "tokens": answered(responses),
        "reliance": [response.reliance for response in responses if response.finish_reason != "stop"],
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
