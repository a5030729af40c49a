"""lime-mlx models: the supported families, the models in the local cache, and which of them fit in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lime_mlx.backend import COMFORTABLE
from lime_mlx.checkpoint.catalog import OVERHEAD, catalog, readable
from lime_mlx.checkpoint.choice import settled
from lime_mlx.cli.common import echo_json, note
from lime_mlx.cli.lines import interactive
from lime_mlx.errors import LimeError, plain_text
from lime_mlx.settings import settings_file

if TYPE_CHECKING:
    from lime_mlx.checkpoint.catalog import Entry, Machine

RULE = (
    f"Fits: the weights while they run, and {OVERHEAD / 1e9:.0f} GB for cache and activations, take up to "
    f"{100 * COMFORTABLE:.0f} % of the memory (yes), up to all of it (tight), or more (no)."
)
WIDE = 160  # columns of the tables where there is no terminal


@click.command(epilog=RULE)
@click.option("--delete", metavar="REPO", help="Delete this model from the local cache, after a question.")
@click.option("--yes", "-y", is_flag=True, help="Delete without a question.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(delete: str | None, yes: bool, as_json: bool) -> None:
    """Show the supported families, the models in the local cache of the Hub, and which of them fit in memory.

    Nothing is downloaded. HF_HUB_CACHE or HF_HOME say where the cache is.

    \b
    lime-mlx models
    lime-mlx models --delete mlx-community/llava-1.5-7b-4bit
    """
    if delete is not None:
        delete_model(delete, yes, as_json)
        return
    if yes:
        raise click.UsageError("--yes is for --delete.")
    from lime_mlx.models import FAMILIES, takes

    entries, machine = catalog(lambda sentence: note(f"Note: {sentence}"))
    families = {name: ["text", *takes(name)] for name in FAMILIES}
    if as_json:
        memory = machine and machine.memory
        models = [asdict(entry) for entry in entries]
        echo_json({"families": families, "memory": memory, "models": models})
    else:
        show(families, entries, machine)


def delete_model(name: str, yes: bool, as_json: bool) -> None:
    """Say what of a model is in the cache, ask, and delete it. Raises `LimeError` where nobody can be asked."""
    from lime_mlx.checkpoint.removal import removal, remove

    chosen = removal(name)
    values = {"name": chosen.name, "folder": str(chosen.folder), "size": chosen.size, "files": chosen.files}
    goes = f"{chosen.name}: {chosen.files} files, {readable(chosen.size)}, in {chosen.folder}"
    remarks = [goes, *([f"Your settings name it: {settings_file()}"] if settled() == name else [])]
    if not yes:
        if not interactive():
            raise LimeError(f"Nothing is deleted without a terminal to ask on: add --yes to delete {goes}.")
        note(*remarks)
        yes = click.confirm("Delete it?", err=True)
    elif not as_json:
        note(*remarks)
    if yes:
        remove(chosen)
    if as_json:
        echo_json({**values, "deleted": yes})
    else:
        click.echo(f"Deleted {chosen.name}: {readable(chosen.size)} are free again." if yes else "Nothing was deleted.")


def show(families: Mapping[str, Sequence[str]], entries: Sequence["Entry"], machine: "Machine | None") -> None:
    """Both tables, and the rule under them."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDE
    supported = Table("Family", "Takes", box=None, pad_edge=False)
    for name, kinds in families.items():
        supported.add_row(name, ", ".join(kinds))
    console.print(supported)
    console.print()
    models = Table("Model", "Size", "Family", "Weights", "Fits", "State", box=None, pad_edge=False)
    models.columns[1].justify = "right"
    models.columns[0].overflow = models.columns[-1].overflow = "fold"
    for entry in entries:
        cells = (entry.family or "?", entry.weights or "?", entry.fits or "?", state(entry))
        models.add_row(*map(plain_text, [entry.name, readable(entry.size), *cells]))
    console.print(models)
    console.print()
    console.print(f"Memory: {machine.memory / 1e9:.1f} GB. {RULE}" if machine else RULE)


def state(entry: "Entry") -> str:
    if entry.family and not entry.supported:
        return "not supported"
    if entry.problem:
        return entry.problem.replace(f"{entry.path}/", "")
    if entry.missing:
        return f"incomplete: {', '.join(entry.missing)} missing"
    return "text-only conversion" if entry.text_only else "complete"
