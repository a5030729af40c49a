"""The command line. What is heavy is imported inside the commands, so that --help answers at once."""

import sys
from importlib import import_module
from io import TextIOWrapper

import click

from lime_mlx._version import __version__
from lime_mlx.errors import LONGEST, LimeError, os_reason, plain_text, short
from lime_mlx.spec import suggestion

COMMANDS = {
    "chat": "Ask several questions about pictures or sounds, and see where each word came from.",
    "convert": "Convert a checkpoint of Hugging Face to MLX, quantised on request.",
    "data": "Get the files of the public benchmarks.",
    "doctor": "Examine whether a model sees its pictures and hears its sounds, here or on a server.",
    "evaluate": "Compare hallucination rates of models and methods on benchmarks.",
    "explain": "Show where each word of an answer came from, and which words have no support.",
    "generate": "Answer a question about a picture or a sound; --explain shows where each word came from.",
    "inspect": "Show what a checkpoint is: family, parts, quantisation, tokens of a picture, memory needed.",
    "models": "List the supported families, the models in the local cache, and which of them fit in memory.",
    "report": "Write an evaluation as one HTML page: which model and method to trust.",
    "score": "Score the stored answers of an evaluation again.",
    "serve": "Serve models to apps that know OpenAI's API, and a page where a click on a word shows its map.",
    "setup": "Choose, download and check a model for your own photographs, and make it the default.",
}
INTERRUPTED = 130
# Where the context of a command keeps the arguments as they were typed.
ARGUMENTS = "lime_mlx.arguments"


class Commands(click.Group):
    """Commands that are imported when they are called; an error that leaves one is shown as one line."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        context.meta[ARGUMENTS] = list(args)
        return super().parse_args(context, args)

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"lime_mlx.cli.{name}").command
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = arguments[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(f"There is no command {name!r}.{suggestion(name, COMMANDS)}", context)
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except click.ClickException as error:
            vars(error)["message"] = plain_text(error.message)  # click shows it
            raise
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click itself handles these
        except KeyboardInterrupt:
            click.echo(err=True)
            context.exit(INTERRUPTED)
        except Exception as error:
            if context.params["debug"]:
                raise
            click.echo(f"Error: {described(error)}", err=True)
            context.exit(1)


def described(error: Exception) -> str:
    """An error in one line; what a user cannot have caused asks to be reported."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, LimeError):
        return short(text, LONGEST)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return short(f"{where}{os_reason(error)}.", LONGEST)
    line = short(text.splitlines()[0], LONGEST).rstrip(".")
    if isinstance(error, MemoryError) or "allocate" in line:
        return f"Not enough memory ({line}): take a smaller picture, a quantised model, or --method none."
    name = type(error).__name__
    return f"Unexpected {name} ({line}): please report it, with what lime-mlx --debug prints instead of this line."


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lime-mlx")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Run image and audio language models with MLX. See which words rest on the picture. Make them hallucinate less.

    \b
    lime-mlx generate photo.jpg
    lime-mlx generate photo.jpg --explain
    lime-mlx generate photo.jpg --model mlx-community/llava-1.5-7b-4bit
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
