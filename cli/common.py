"""What the commands share that let a model answer: their options, the input, the model, and the answer as it comes."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Generic, TypeVar

import click

from lime_mlx.checkpoint.choice import OPTION_HELP, Choice, chosen_model
from lime_mlx.errors import CONTROLS, PromptError, plain_text
from lime_mlx.kv import DEFAULT, PREFILL, QUANTIZED_START, KVOptions

if TYPE_CHECKING:
    from PIL import Image

    from lime_mlx.answer import Answer
    from lime_mlx.media.addresses import Private
    from lime_mlx.media.audio import Sound
    from lime_mlx.models.base import Model
    from lime_mlx.processor import Processor
    from lime_mlx.prompt import Prompt

QUESTION, QUESTION_OF_SOUND = "What is in the picture?", "What do you hear?"
# What the bundled models know, and a real one for the same medium.
BUNDLED = {
    "demo": ("drawn scenes", "mlx-community/Qwen2.5-VL-3B-Instruct-4bit"),
    "demo-sound": ("synthesised sounds", "Qwen/Qwen2-Audio-7B-Instruct"),
}
# The names of `lime_mlx.methods.METHODS`, whose import would make --help slow.
METHOD_NAMES = tuple(
    "none choose lime kvsmooth dleaf vcd m3id aad pai heads yesno acg iat adaiat locore flb only selfval sham".split()
)
T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """What the user asks of which model, as the options say it. image, audio: files, addresses or "-".

    model: the one that was chosen, and who chose it. methods: all that were given; method: the last of them.
    kv: the options of the cache.
    """

    image: tuple[str, ...]
    audio: tuple[str, ...]
    prompt: str
    system: str | None
    model: Choice
    revision: str | None
    method: str | None
    max_tokens: int
    methods: tuple[str, ...] = ()
    allow_private_urls: bool = False
    kv: KVOptions = DEFAULT

    @property
    def medium(self) -> str:
        """What the input is called."""
        given = [name for name, files in (("picture", self.image), ("sound", self.audio)) if files]
        return " and ".join(given) or "picture"

    @property
    def model_name(self) -> str:
        """The model that was chosen; of the bundled models, the one that takes what is given."""
        if self.model.name not in (None, "demo"):
            return str(self.model.name)
        if self.image and self.audio:
            raise PromptError(
                "The demo models take a picture or a sound, not both; leave one out, or name another model."
            )
        return "demo-sound" if self.audio else "demo"


def takes_input(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that asks a model something; the command gets a `Request` as its first argument."""
    return _takes(command, asks=True)


def takes_media(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that asks for its questions later; it gets a `Request` without a question."""
    return _takes(command, asks=False)


def _takes(command: Callable[..., None], asks: bool) -> Callable[..., None]:
    @wraps(command)
    def requesting(
        files: tuple[str, ...],
        image: tuple[str, ...],
        audio: tuple[str, ...],
        system: str | None,
        model: str | None,
        revision: str | None,
        method: tuple[str, ...],
        max_tokens: int,
        allow_private_urls: bool,
        kv: KVOptions,
        prompt: str | None = None,
        **options: object,
    ) -> None:
        check_options(max_tokens=max_tokens)
        pictures, sounds = by_kind(files)
        image, audio = pictures + image, sounds + audio
        if asks and prompt is None and not image and not audio:
            name = click.get_current_context().info_name
            raise click.UsageError(f"Give a picture or a sound, as in: lime-mlx {name} photo.jpg")
        if not asks and "-" in (*image, *audio):
            raise PromptError("The questions come from standard input; give pictures and sounds as files or addresses.")
        request = Request(
            image,
            audio,
            question(prompt, image, audio) if asks else "",
            system,
            chosen_model(model),
            revision,
            method[-1] if method else None,
            max_tokens,
            method,
            allow_private_urls,
            kv,
        )
        command(request, **options)

    wrapped = takes_cache(requesting)
    for option in reversed(_options(asks)):
        wrapped = option(wrapped)
    return wrapped


def takes_cache(command: Callable[..., None]) -> Callable[..., None]:
    """The options of the cache, with mlx-lm's names; the command gets them as the `KVOptions` named kv."""

    @wraps(command)
    def choosing(
        kv_bits: int | None,
        kv_group_size: int,
        quantized_kv_start: int,
        max_kv_size: int | None,
        prefill_step_size: int,
        **options: object,
    ) -> None:
        command(kv=KVOptions(kv_bits, kv_group_size, quantized_kv_start, max_kv_size, prefill_step_size), **options)

    for option in reversed(_cache_options()):
        choosing = option(choosing)
    return choosing


def _options(asks: bool) -> list[Callable[[Callable[..., None]], Callable[..., None]]]:
    methods = ", ".join(METHOD_NAMES)
    prompt = click.option(
        "-p", "--prompt", help=f"The question; - reads it from standard input.  [default: {QUESTION}]"
    )
    return [
        click.argument("files", nargs=-1, metavar="[FILE|URL]..."),
        click.option("--image", multiple=True, metavar="FILE|URL|-", help="A picture; repeat it for each one."),
        click.option("--audio", multiple=True, metavar="FILE|URL|-", help="A sound; repeat it for each one."),
        *([prompt] if asks else []),
        click.option("--system", "--system-prompt", "system", help="System prompt."),
        click.option("--model", metavar="REPO|FOLDER", help=f"A Hub repository or a folder.  {OPTION_HELP}"),
        click.option("--revision", help="Branch, tag or commit of a Hub repository."),
        click.option(
            "--method",
            multiple=True,
            metavar="SPEC",
            help=f"One of {methods}; with options as in lime:steps=3, several joined by +.  "
            "[default: choose with a picture or a sound, else none]",
        ),
        click.option(
            "--max-tokens", type=int, default=256, show_default=True, help="The most tokens that an answer has."
        ),
        click.option(
            "--allow-private-urls",
            is_flag=True,
            help="Follow an address also where it leads from the Internet into a private network.",
        ),
    ]


def _cache_options() -> list[Callable[[Callable[..., None]], Callable[..., None]]]:
    return [
        click.option("--kv-bits", type=int, help="Quantise the cache to 8 or 4 bits."),
        click.option(
            "--kv-group-size", type=int, default=64, show_default=True, help="So many numbers of it share a scale."
        ),
        click.option(
            "--quantized-kv-start",
            type=int,
            default=QUANTIZED_START,
            show_default=True,
            help="Quantise it once so many tokens are in it.",
        ),
        click.option(
            "--max-kv-size",
            type=int,
            help="The most tokens that one attends to: up to the end of the pictures and sounds, and the newest.",
        ),
        click.option(
            "--prefill-step-size",
            type=int,
            default=PREFILL,
            show_default=True,
            help="Run so much of a prompt at a time.",
        ),
    ]


def by_kind(files: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The pictures and the sounds among files and addresses: files by their content, addresses by their ending.

    Raises `click.UsageError` for a word that is neither a file nor an address.
    """
    from lime_mlx.media.fetch import is_url
    from lime_mlx.media.formats import SOUND_SUFFIXES

    pictures: list[str] = []
    sounds: list[str] = []
    for file in files:
        if file == "-":
            raise click.UsageError("Say what standard input holds: --image - or --audio -.")
        if is_url(file):
            is_sound = Path(file.split("?")[0].split("#")[0]).suffix.lower() in SOUND_SUFFIXES
        elif os.path.exists(file):
            is_sound = by_content(file) == "audio"
        else:
            raise click.UsageError(
                f'There is no file {file!r}; check the path, or put the prompt in quotes: -p "What is this?"'
            )
        (sounds if is_sound else pictures).append(file)
    return tuple(pictures), tuple(sounds)


def by_content(file: str) -> str:
    """ "audio" for a file that is a sound, else "image"."""
    from lime_mlx.media.formats import kind_of

    return "audio" if os.path.isfile(file) and kind_of(_head(file)) == "sound" else "image"


def _head(file: str) -> bytes:
    """The first bytes of a file; nothing of one that cannot be read, which is refused when it is opened."""
    try:
        with open(file, "rb") as opened:
            return opened.read(4096)
    except OSError:
        return b""


def question(prompt: str | None, image: Sequence[str], audio: Sequence[str]) -> str:
    """The question, from the option or standard input; one newline at the end of that does not count."""
    if [prompt, *image, *audio].count("-") > 1:
        raise PromptError("Standard input can be read only once; give the other inputs as files or text.")
    if prompt is None:
        return QUESTION if image else QUESTION_OF_SOUND
    if prompt == "-":
        prompt = sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if sys.stdin else ""
        prompt = prompt.removesuffix("\n").removesuffix("\r")
    if not prompt.strip():
        raise PromptError("The prompt is empty: say with -p what the model should do.")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise PromptError("The prompt is not UTF-8 text.") from None
    return prompt


def check_options(**values: float | None) -> None:
    """Refuse numbers that are outside the range of their option."""
    from lime_mlx.sampling import check

    for name, value in values.items():
        if value is not None:
            check(name, value, f"--{name.replace('_', '-')}")


def prepare_backend(notes: list[str], quiet: bool = False) -> None:
    """MLX, and under it the BLAS; a warning becomes a note. Under `quiet` no library warns."""
    from lime_mlx import backend, blas

    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        warnings.simplefilter("ignore")
    backend.require_mlx()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        blas.load_blas()
    notes.extend(f"Note: {warning.message}" for warning in caught)


@contextmanager
def noting(notes: list[str]) -> Iterator[None]:
    """Warnings about old spellings become notes while this lasts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FutureWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, FutureWarning) and f"Note: {warning.message}" not in notes:
            notes.append(f"Note: {warning.message}")


@dataclass(frozen=True)
class LoadedRequest:
    """A request whose model, pictures and sounds are loaded."""

    name: str
    model: Model
    processor: Processor
    prompt: Prompt
    pictures: list[Image.Image]
    sounds: list[Sound]


def load_request(request: Request, notes: list[str]) -> LoadedRequest:
    """Open the pictures, the sounds and the model of a request, and make the prompt; remarks go to `notes`."""
    from lime_mlx.media.audio import open_audio
    from lime_mlx.media.image import open_pictures

    private: Private = "always" if request.allow_private_urls else "typed"
    pictures = open_pictures(request.image, notice=notes.append, private=private)
    sounds = [open_audio(source, notice=notes.append, private=private) for source in request.audio]
    name = request.model_name
    model, processor = load_model(request, notes)
    prompt = processor.prompt(request.prompt, images=pictures, audio=sounds, system=request.system)
    return LoadedRequest(name, model, processor, prompt, pictures, sounds)


def load_model(request: Request, notes: list[str]) -> tuple[Model, Processor]:
    """The model that a request means; who chose it goes to `notes`."""
    from lime_mlx.checkpoint.load import load

    with request.model.blamed():
        model, processor = load(request.model_name, revision=request.revision)
    notes += chosen_note(request.model, request.model_name)
    return model, processor


def chosen_note(choice: Choice, *bundled: str) -> list[str]:
    """Which model is used and who decided, as a note or none. bundled: the models that are used where nobody did."""
    if choice.origin != "demo":
        return [choice.note] if choice.note else []
    knows = " and ".join(BUNDLED[name][0] for name in bundled)
    real = BUNDLED[bundled[0]][1]
    return [f"Using the bundled demo model, which knows {knows}; a real one: lime-mlx setup, or --model {real}"]


class Stream(Generic[T]):
    """Responses as they come; Ctrl-C ends them. `kept` are those so far.

    What is being computed is given up at once; what is being printed is printed, so that no word is lost.
    """

    def __init__(self, responses: Iterable[T]):
        self.responses, self.kept = iter(responses), list[T]()
        self.interrupted = self._computing = False

    def __iter__(self) -> Iterator[T]:
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

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._computing or self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True


def cut_note(answer: Answer, max_tokens: int) -> Iterator[str]:
    """Says that an answer was cut."""
    if answer.finish_reason == "length" and answer.generation_tokens >= max_tokens:
        yield f"Note: the answer was cut after {answer.generation_tokens} tokens; --max-tokens allows more."


def note(*lines: str) -> None:
    for line in lines:
        click.echo(plain_text(line), err=True)


def echo_json(values: Mapping[str, object]) -> None:
    """Print one JSON object. Control characters are escaped, as JSON allows it."""
    text = json.dumps(values, ensure_ascii=False)
    click.echo(CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def no_stray(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> None:
    """Refuse words that belong to no option."""
    if values:
        raise click.UsageError(f"Unexpected {values[0]!r}: repeat the option for each value, and quote the prompt.")
