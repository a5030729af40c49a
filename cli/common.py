"""What the commands share that let a model answer: its input, the model, the answer as it comes and as JSON."""

import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import click

from lime_mlx.errors import PromptError

# Share of the input in the answer below which a warning is due.
UNUSED = 0.02
QUESTION, QUESTION_OF_SOUND = "What is in the picture?", "What do you hear?"
# What the bundled models know, and a real one for the same medium.
BUNDLED = {
    "demo": ("drawn scenes", "mlx-community/Qwen2.5-VL-3B-Instruct-4bit"),
    "demo-sound": ("synthesised sounds", "Qwen/Qwen2-Audio-7B-Instruct"),
}


def no_stray(context, parameter, values):
    if values:
        raise click.UsageError(f"Unexpected {values[0]!r}: repeat --image for each file, and quote the prompt.")


INPUT = (
    click.option("--image", multiple=True, metavar="FILE|URL|-", help="A picture; repeat --image for each file."),
    click.option("--audio", multiple=True, metavar="FILE|URL|-", help="A sound; repeat --audio for each file."),
    click.option("-p", "--prompt", help=f"What to ask; - reads it from standard input.  [default: {QUESTION}]"),
    click.option("--system", "--system-prompt", "system", help="System prompt."),
    click.option(
        "--model", envvar="LIME_MLX_MODEL", metavar="REPO|FOLDER", help="[default: $LIME_MLX_MODEL, else demo]"
    ),
    click.option("--revision", help="Branch, tag or commit of a Hub repository."),
    click.option(
        "--method", metavar="SPEC", help="none, lime or lime:key=value,...  [default: lime with a picture or sound]"
    ),
    click.option("--max-tokens", type=int, default=256, show_default=True),
    click.argument("stray", nargs=-1, callback=no_stray, expose_value=False, metavar=""),
)


def takes_input(command):
    """The options of a command that asks a model something."""
    for option in reversed(INPUT):
        command = option(command)
    return command


def default_method(image: tuple, audio: tuple) -> str:
    return "lime" if image or audio else "none"


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
    from lime_mlx import backend, blas

    backend.require_mlx()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        blas.load_blas()
    notes.extend(f"Note: {warning.message}" for warning in caught)


class Asked(NamedTuple):
    """What is asked of which model, with the pictures and sounds as they were opened."""

    name: str
    model: Any
    processor: Any
    prompt: Any
    pictures: list
    sounds: list

    @property
    def times(self) -> tuple | None:
        """Spans and the seconds that one position stands for, where there is a sound."""
        spans = self.model.spans(self.prompt)
        seconds = next((span.seconds for span in spans if span.seconds), None)
        return (spans, seconds) if self.sounds and seconds else None


def ask(
    text: str, image: tuple, audio: tuple, system: str | None, model: str | None, revision: str | None, notes: list
):
    """Open what is given and the model, and put them into a prompt; what is worth saying goes to `notes`."""
    from lime_mlx.checkpoint.load import load
    from lime_mlx.media.audio import open_audio
    from lime_mlx.media.image import open_image

    pictures = [open_image(source, notice=notes.append) for source in image]
    sounds = [open_audio(source, notice=notes.append) for source in audio]
    name = chosen_model(model, image, audio)
    loaded, processor = load(name, revision=revision)
    if model is None:
        knows, real = BUNDLED[name]
        notes.append(f"Using the bundled demo model, which knows {knows}; a real one: --model {real}")
    prompt = processor.prompt(text, images=pictures, audio=sounds, system=system)
    return Asked(name, loaded, processor, prompt, pictures, sounds)


def medium(image: tuple, audio: tuple) -> str:
    """What the input is called."""
    return " and ".join(name for name, given in (("picture", image), ("sound", audio)) if given) or "picture"


def chosen_model(model: str | None, image: tuple, audio: tuple) -> str:
    """What --model says; of the bundled ones, that which takes what is given."""
    if model not in (None, "demo"):
        return model
    if image and audio:
        raise PromptError("The demo models take a picture or a sound, not both; leave one out, or name another model.")
    return "demo-sound" if audio else "demo"


class Stream:
    """Responses as they come; Ctrl-C ends them. `kept` are those so far, `last` the latest.

    What is being computed is given up at once; what is being printed is printed, so that nothing said is lost.
    """

    def __init__(self, responses: Iterable):
        self.responses, self.kept, self.interrupted, self._computing = iter(responses), [], False, False

    @property
    def last(self):
        return self.kept[-1]

    def __iter__(self) -> Iterator:
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            while not self.interrupted:
                self._computing = True
                response = next(self.responses, None)
                self._computing = False
                if response is None:
                    return
                self.kept.append(response)
                yield response
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            self._computing = False
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, *_) -> None:
        if self._computing or self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True


def pieces(responses: Iterable) -> Iterator[tuple]:
    """A `Piece` of every token, without the white space before the answer and what belongs to its end."""
    from lime_mlx.words import Piece

    started = False
    for response in responses:
        text = response.text if started else response.text.lstrip()
        started = started or bool(text)
        ends = response.finish_reason == "stop"
        yield Piece(text) if ends else Piece(text, response.shares, response.relevance, response.evidence)


def answered(responses: list) -> list[int]:
    return [response.token for response in responses if response.finish_reason != "stop"]


def summary(responses: list, model: str, spec: str, detector=None, times: tuple | None = None) -> dict:
    """What --json prints: the answer, its tokens and words with their shares, and the statistics of the run.

    detector: adds the verdicts on the words. times: spans and seconds a position, adds when words were heard.
    """
    from lime_mlx.words import judge, moments, words

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


def ignored(model, prompt, responses: list) -> bool:
    """Whether the answer is what the model says to a blank input, too."""
    from lime_mlx.probes.blank import ignored

    return bool(prompt.media) and ignored(model, prompt, answered(responses))


def warnings_of(model, prompt, responses: list, check_input: bool) -> Iterator[str]:
    """Signs that the picture or sound was not used."""
    from lime_mlx.words import mean

    total = mean(response.shares for response in responses)
    if prompt.media and total is not None and total.media < UNUSED:
        yield f"Warning: only {100 * total.media:.1f} % of the answer came from the input; was it used at all?"
    if check_input and ignored(model, prompt, responses):
        yield "Warning: the model gives the same answer to a blank input of the same size; this one was not used."


def note(*lines: str) -> None:
    for line in lines:
        click.echo(line, err=True)
