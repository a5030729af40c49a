"""lime-mlx inspect: what a checkpoint is, and the memory that it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lime_mlx.cli.common import echo_json, note, prepare_backend, takes_cache
from lime_mlx.errors import LimeError, plain_text

if TYPE_CHECKING:
    from lime_mlx.convert import Inspection
    from lime_mlx.kv import KVOptions
    from lime_mlx.lrp.conservation import Conservation

LABELS = {
    "plain": "answer",
    "explain": "answer, with shares",
    "choose": "--method choose",
    "lime fast": "--method lime",
    "lime exact": "--method lime:mode=exact",
}
LARGEST_SIDE = 20_000
# The names of `lime_mlx.lrp.rules.NAMES`, whose import would make --help slow.
RULES = ("attnlrp", "cplrp", "mlplrp", "plain")
# The scene of --conservation, and the question to a model of text alone.
SEED, TEXT = 100_000, "What is the capital of France?"


@click.command()
@click.argument("model", metavar="FOLDER|REPO")
@click.option("--image-size", default="336x336", show_default=True, metavar="WxH", help="Size of a picture in pixels.")
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option(
    "--conservation", is_flag=True, help="Load the model, and test that each layer hands on all of the relevance."
)
@click.option(
    "--rules", type=click.Choice(RULES), default=RULES[0], show_default=True, help="Rules for --conservation."
)
@takes_cache
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def command(
    model: str, image_size: str, revision: str | None, conservation: bool, rules: str, kv: KVOptions, as_json: bool
) -> None:
    """Show the family, the size of each part, the quantisation, the tokens of a picture, and the memory needed.

    \b
    lime-mlx inspect demo
    lime-mlx inspect mlx-community/llava-1.5-7b-4bit --image-size 1024x768
    lime-mlx inspect demo --conservation
    """
    picture = picture_size(image_size)
    notes: list[str] = []
    prepare_backend(notes)
    note(*notes)

    from lime_mlx.convert import inspect

    inspection = inspect(model, picture=picture, revision=revision, kv=kv)
    balance = conserved(model, revision, rules) if conservation else None
    if as_json:
        totals = {"parameters": inspection.parameters, "size": inspection.size}
        values = {**asdict(inspection), "folder": str(inspection.folder), **totals}
        echo_json(values if balance is None else {**values, "conservation": balance.to_dict()})
        return
    for line in inspection_lines(inspection):
        click.echo(plain_text(line))
    if balance is not None:
        print_balance(balance)


def conserved(name: str, revision: str | None, rules: str) -> Conservation:
    """The relevance of the first token of an answer about a built-in scene or sound, or about text, layer by layer."""
    from lime_mlx.checkpoint.load import load
    from lime_mlx.lrp.conservation import conservation
    from lime_mlx.lrp.rules import rules as rules_by_name
    from lime_mlx.media.audio import Sound
    from lime_mlx.scenes import PROMPTS, SOUND_PROMPTS, make_scene, make_sound

    model, processor = load(name, revision=revision)
    if "image" in processor.takes:
        prompt = processor.prompt(PROMPTS[0], images=[make_scene(SEED, "ordinary").image])
    elif "audio" in processor.takes:
        scene = make_sound(SEED, "ordinary")
        prompt = processor.prompt(SOUND_PROMPTS[0], audio=[Sound(scene.samples, scene.rate)])
    else:
        prompt = processor.prompt(TEXT)
    embeds, positions = model.inputs(prompt)
    return conservation(model.language_model, embeds, rules_by_name(rules), positions=positions)


def print_balance(balance: Conservation) -> None:
    """A row for each layer, from the logit down to the embeddings, and the verdict."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("relevance", "out", "in", "kept by biases", "by the softmax", "unexplained"):
        table.add_column(column, justify="left" if column == "relevance" else "right")
    for layer in balance.layers:
        sums = (layer.out, layer.into, layer.biases, layer.softmax)
        table.add_row(layer.name, *(f"{value:.3f}" for value in sums), f"{100 * layer.unexplained:.2g} %")
    Console(highlight=False).print(table)
    click.echo(balance.sentence)


def picture_size(text: str) -> tuple[int, int]:
    """Width and height in pixels. Raises `LimeError`."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        raise LimeError(f"--image-size is {text}; give width and height in pixels, as in 1024x768.")
    return width, height


def inspection_lines(inspection: Inspection) -> Iterator[str]:
    from lime_mlx.backend import fits, memory_total
    from lime_mlx.cli.convert import layer_lines

    media = ", ".join(("text", *inspection.takes))
    yield f"Family: {inspection.family}, takes {media}; names of the weights: {inspection.spelling}"
    dtypes = " and ".join(inspection.dtypes)
    yield f"Parameters: {millions(inspection.parameters)}, {readable(inspection.size)}, floats are {dtypes}"
    for name, part in inspection.parts.items():
        yield f"  {name}: {millions(part.parameters)}, {readable(part.size)}"
    yield from layer_lines(inspection.layers) if inspection.layers else ["Not quantised."]
    yield f"Tokenizer: {inspection.tokenizer or 'none'}, {inspection.vocabulary} tokens"
    if inspection.problem:
        yield f"Prompts cannot be made: {inspection.problem}"
    if inspection.picture and inspection.tokens is not None:
        width, height = inspection.picture
        prompt = f"a prompt with it {inspection.positions}"
        yield f"A picture of {width} x {height} pixels takes {inspection.tokens} tokens, {prompt}."
    yield f"Memory, about, with 256 tokens of answer ({readable(memory_total())} here):"
    for name, size in inspection.memory.items():
        yield f"  {LABELS[name]}: {readable(size)}{'' if fits(size) else ', too much for this machine'}"


def millions(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.2f} M"


def readable(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"
