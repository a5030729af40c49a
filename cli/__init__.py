"""The command line. What is heavy is imported inside the commands, so that --help answers at once."""

import os
import sys
from importlib import import_module

import click

from lime_mlx._version import __version__
from lime_mlx.errors import LimeError

COMMANDS = {"generate": "Say something about a picture, with every word's share of picture on request."}
INTERRUPTED = 130


class Commands(click.Group):
    """Commands that are imported when they are called; errors shown as one line."""

    def list_commands(self, context):
        return list(COMMANDS)

    def get_command(self, context, name):
        if name not in COMMANDS:
            return None
        return import_module(f"lime_mlx.cli.{name}").command

    def format_commands(self, context, formatter):
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, context):
        try:
            return super().invoke(context)
        except LimeError as error:
            if context.params.get("debug"):
                raise
            fail(str(error))
        except KeyboardInterrupt:
            click.echo()
            context.exit(INTERRUPTED)
        except BrokenPipeError:
            # Whoever read the answer has gone; Python must not complain again when it closes the stream.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(1)
        except (RuntimeError, MemoryError, OSError) as error:
            if context.params.get("debug") or isinstance(error, click.exceptions.Exit):
                raise
            fail(f"{error or type(error).__name__} (lime-mlx --debug generate ... shows where).")


def fail(message: str) -> None:
    """One line on standard error, exit code 1."""
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    raise click.exceptions.Exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lime-mlx")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Run image and audio language models with MLX, see which words rest on the picture, and have them lie less.

    \b
    lime-mlx generate --image photo.jpg
    lime-mlx generate --image photo.jpg --explain
    lime-mlx generate --model mlx-community/llava-1.5-7b-4bit --image photo.jpg -p "Describe the picture."
    """
