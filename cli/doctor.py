"""lime-mlx doctor: does a model see its pictures and hear its sounds?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lime_mlx.cli.common import echo_json, note, prepare_backend

if TYPE_CHECKING:
    from lime_mlx.doctor.verdict import Report


@click.command(epilog="Exit code: 0 it works, 1 it is broken, 3 cannot tell.")
@click.argument("model", required=False, metavar="[MODEL]")
@click.option("--url", metavar="URL", help="Ask a server with OpenAI's API, as in http://localhost:1234/v1.")
@click.option("--model", "name", metavar="NAME", help="The model of the server.  [default: the only one it lists]")
@click.option(
    "--api-key", envvar="LIME_MLX_API_KEY", metavar="KEY", help="The key of the server.  [default: $LIME_MLX_API_KEY]"
)
@click.option("--picture", "nouns", flag_value="picture", help="Judge only whether it sees.")
@click.option("--sound", "nouns", flag_value="sound", help="Judge only whether it hears.")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=120.0, show_default=True, help="Seconds for one answer."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what the pictures show.")
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.pass_context
def command(
    context: click.Context,
    model: str | None,
    url: str | None,
    name: str | None,
    api_key: str | None,
    nouns: str | None,
    timeout: float,
    seed: int,
    revision: str | None,
    as_json: bool,
) -> None:
    """Examine whether a model sees its pictures and hears its sounds, here or on a server.

    \b
    lime-mlx doctor demo
    lime-mlx doctor --url http://localhost:1234/v1 --model NAME
    """
    if (model is None) == (url is None):
        raise click.UsageError("Give a model, or --url with the address of a server.")
    if url is None and (name is not None or nouns is not None):
        raise click.UsageError("--model, --picture and --sound belong to --url; a local model is examined in full.")
    wanted = [nouns] if nouns else []
    if url is not None:
        report = by_answers(url, name, api_key, wanted, timeout, seed)
    else:
        report = by_parts(str(model), revision)
    if as_json:
        echo_json(report.to_dict())
    else:
        from lime_mlx.doctor.table import show

        show(report)
    context.exit(report.exit_code)


def by_answers(url: str, name: str | None, key: str | None, nouns: list[str], timeout: float, seed: int) -> Report:
    """Examine a model of a server; how many questions were asked goes to standard error while it lasts."""
    from rich.console import Console

    from lime_mlx.doctor.client import Client
    from lime_mlx.doctor.remote import examine

    client = Client(url, name, key, timeout)
    console = Console(stderr=True)
    with console.status("Asking") as status:
        return examine(
            client, client.model, nouns=nouns, seed=seed, on_reply=lambda n: status.update(f"Asked {n} questions")
        )


def by_parts(model: str, revision: str | None) -> Report:
    """Examine a model on this machine."""
    notes: list[str] = []
    prepare_backend(notes)
    note(*notes)
    from lime_mlx.doctor.local import examine

    return examine(model, revision=revision)
