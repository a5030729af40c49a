"""lime-mlx setup: a first model for real photographs, chosen, downloaded, checked and made the default."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from lime_mlx.checkpoint.choice import VARIABLE, chosen_model
from lime_mlx.cli.common import note, prepare_backend
from lime_mlx.cli.lines import interactive
from lime_mlx.errors import CheckpointError, LimeError, plain_text
from lime_mlx.settings import read_settings, set_default_model, settings_file

if TYPE_CHECKING:
    from lime_mlx.checkpoint.catalog import Entry
    from lime_mlx.checkpoint.plan import Place, Plan

# Pictures of COCO for a calibration where no number is given.
PICTURES = 500
# The exit codes of lime-mlx doctor.
WORKS, BROKEN, CANNOT_TELL = 0, 1, 3


@click.command()
@click.option("--model", metavar="REPO|FOLDER", help="Set up this model.  [default: the one that is proposed]")
@click.option("--yes", "-y", is_flag=True, help="Do it without a question.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option(
    "--calibrate",
    type=click.IntRange(min=1),
    is_flag=False,
    flag_value=PICTURES,
    metavar="[PICTURES]",
    help=f"Also calibrate it, on so many pictures of COCO.  [{PICTURES} where no number is given]",
)
def command(model: str | None, yes: bool, dry_run: bool, calibrate: int | None) -> None:
    """Set up a model for your own photographs: choose, download, check, and make it the default.

    It looks at this machine, proposes a model with its size, licence and time, and asks once. Without a terminal,
    nothing is downloaded unless you say --yes. A download that broke off goes on with the same command.

    \b
    lime-mlx setup
    lime-mlx setup --dry-run
    lime-mlx setup --model mlx-community/Qwen3-VL-4B-Instruct-4bit --yes --calibrate
    """
    read_settings()  # broken ones are an error before anything is done
    notes: list[str] = []
    prepare_backend(notes)
    note(*notes)

    from lime_mlx.checkpoint.catalog import catalog
    from lime_mlx.checkpoint.plan import Place, plan, plan_proposed

    entries, place = catalog(lambda sentence: note(f"Note: {sentence}"))[0], Place.this()
    choice = chosen_model(model)
    named = choice.name if choice.origin == "option" or choice.name not in (None, "demo", "demo-sound") else None
    with choice.blamed():
        chosen = plan_proposed(entries, place) if named is None else plan(named, entries, place)
    proposal = "Proposed" if named is None else f"Chosen, {choice.because}"
    for line in [*machine_lines(entries, place), *plan_lines(chosen, proposal, calibrate)]:
        click.echo(plain_text(line))
    if dry_run:
        click.echo("Nothing was done: this was a dry run.")
        return
    if not yes and not agreed(chosen):
        click.echo("Nothing was done.")
        click.get_current_context().exit(1)
    set_up(chosen, calibrate)


def machine_lines(entries: Sequence[Entry], place: Place) -> Iterator[str]:
    """What was found out about this machine."""
    from lime_mlx import backend
    from lime_mlx.checkpoint.catalog import readable

    memory = readable(backend.memory_total())
    yield f"This machine: {backend.device_name()}, {memory} of memory, {readable(place.free)} free in {place.folder}"
    here = [f"{entry.name} ({readable(entry.size)})" for entry in entries if entry.complete and "/" in entry.name]
    yield f"Models in the cache: {', '.join(here) or 'none'}"


def plan_lines(chosen: Plan, proposal: str, calibrate: int | None) -> Iterator[str]:
    """What would be done, for a person who is to agree."""
    from lime_mlx.checkpoint.catalog import readable
    from lime_mlx.checkpoint.plan import CONNECTION

    yield f"{proposal}: {chosen.name}"
    if chosen.download:
        rest = "" if chosen.download == chosen.size else f", {readable(chosen.download)} of it are still to come"
        yield f"  Size: {readable(chosen.size)}{rest}"
        yield f"  Time: the download takes about {duration(chosen.seconds)} at {CONNECTION / 1e6:.0f} Mbit/s"
    else:
        yield f"  Size: {readable(chosen.size)}, and all of it is here"
    yield f"  Licence: {chosen.licence}"
    yield f"  Memory: about {readable(chosen.needs)}; fits: {chosen.fits}"
    if chosen.on:
        yield f"  Size and licence are those of {chosen.on}: the Hub cannot be asked now"
    if calibrate:
        yield f"  Calibration: {calibrate} pictures of COCO; how long it takes is measured before it starts"
    yield f"Then it is checked, and becomes your default model in {settings_file()}"


def agreed(chosen: Plan) -> bool:
    """Ask once. Raises `LimeError` where there is no terminal."""
    if not interactive():
        raise LimeError(f"There is no terminal to ask on, so nothing is done: add --yes to set up {chosen.name}.")
    return click.confirm("Download it and set it up?" if chosen.download else "Set it up?", default=True)


def set_up(chosen: Plan, calibrate: int | None) -> None:
    """Download, check, write the settings, calibrate if that is wanted, and say what to try.

    The settings come before the calibration, which takes long and can be stopped.
    """
    from lime_mlx.checkpoint.files import model_type, read_config
    from lime_mlx.checkpoint.hub import locate
    from lime_mlx.models import takes

    try:
        folder = locate(chosen.name)
    except (LimeError, KeyboardInterrupt):
        note("The download is not complete. The same command goes on where it stopped.")
        raise
    check(chosen.name)
    note(f"{chosen.name} is now your default model: {set_default_model(chosen.name)}")
    if (other := os.environ.get(VARIABLE)) not in (None, "", chosen.name):
        note(f"But ${VARIABLE} names {other}, and decides before your settings; unset it to use the new model.")
    if calibrate:
        calibrated(chosen.name, calibrate)
    media = takes(model_type(read_config(folder)))
    file = "photo.jpg" if "image" in media or not media else "street.wav"
    click.echo(f"Now try it on a file of yours: lime-mlx explain {file} --open")


def check(name: str) -> None:
    """Run the doctor on a model. Raises `CheckpointError` where it finds that the model is broken here."""
    code = doctor(name)
    if code == BROKEN:
        raise CheckpointError(f"{name} does not work here, so it does not become your default; name another --model.")
    if code is None:
        note("It was not checked: this version of lime-mlx has no doctor.")
    elif code != WORKS:
        note(f"The doctor cannot tell whether {name} works here; look at what it answers.")


def doctor(name: str) -> int | None:
    """The exit code of lime-mlx doctor for a model; None where there is no such command.

    This is all that setup knows of the doctor: a command that takes a model and prints for itself.
    """
    context = click.get_current_context().find_root()
    group = context.command
    command = group.get_command(context, "doctor") if isinstance(group, click.Group) else None
    if command is None:
        return None
    return int(command.main([name], prog_name="lime-mlx doctor", standalone_mode=False) or WORKS)


def calibrated(name: str, pictures: int) -> None:
    """Get pictures of COCO, say how long the calibration takes here, and calibrate."""
    from lime_mlx.cli import calibrate
    from lime_mlx.cli.data import Bar
    from lime_mlx.cli.evaluate import progress
    from lime_mlx.evaluate.calibrate import caption_seconds
    from lime_mlx.evaluate.data.folder import DataFolder
    from lime_mlx.evaluate.data.layout import CHAIR, home
    from lime_mlx.evaluate.runner import RunConfig

    data = home()
    with Bar(quiet=False) as bar:
        DataFolder(data, progress=bar).get(CHAIR, limit=pictures)
    config = RunConfig([name], ("none",), [CHAIR], data, pictures)
    seconds = caption_seconds(config, name) * pictures
    note(f"The calibration takes about {duration(seconds)}. Ctrl-C stops it; the same command goes on.")
    calibrate.run(config, data / "setup", progress(quiet=False), as_json=False, quiet=False)


def duration(seconds: float) -> str:
    """Seconds for people: "less than a minute", "12 minutes", "3 hours"."""
    if seconds < 60:
        return "a minute"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
