"""lime-mlx inspect: what a checkpoint is, and the memory that it needs."""

import json
import re
from dataclasses import asdict

import click

from lime_mlx.cli.common import note, prepare_backend
from lime_mlx.errors import LimeError

DOING = {
    "plain": "answer",
    "explain": "answer, with shares",
    "lime fast": "--method lime",
    "lime exact": "--method lime:mode=exact",
}


@click.command()
@click.argument("model", metavar="FOLDER|REPO")
@click.option("--image-size", default="336x336", show_default=True, metavar="WxH", help="Of a picture, in pixels.")
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def command(model, image_size, revision, as_json):
    """Family, size of each part, quantisation, tokenizer, tokens of a picture, and the memory that is needed.

    \b
    lime-mlx inspect demo
    lime-mlx inspect mlx-community/llava-1.5-7b-4bit --image-size 1024x768
    """
    size = picture_size(image_size)
    notes: list[str] = []
    prepare_backend(notes)
    note(*notes)

    from lime_mlx.convert import inspect

    found = inspect(model, picture=size, revision=revision)
    if as_json:
        values = {**asdict(found), "folder": str(found.folder), "parameters": found.parameters, "size": found.size}
        click.echo(json.dumps(values, ensure_ascii=False))
        return
    for line in described(found):
        click.echo(line)


def picture_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    size = tuple(int(number) for number in match.groups()) if match else (0, 0)
    if not all(0 < side <= 20_000 for side in size):
        raise LimeError(f"--image-size is {text}; give width and height in pixels, as in 1024x768.")
    return size


def described(found):
    from lime_mlx.backend import memory_total
    from lime_mlx.cli.convert import bits

    yield f"Family: {found.family}, takes {', '.join(('text', *found.takes))}; names of the weights: {found.spelling}"
    yield f"Parameters: {millions(found.parameters)}, {readable(found.size)}, floats are {' and '.join(found.dtypes)}"
    for name, part in found.parts.items():
        yield f"  {name}: {millions(part.parameters)}, {readable(part.size)}"
    yield from bits(found.layers) if found.layers else ["Not quantised."]
    yield f"Tokenizer: {found.tokenizer or 'none'}, {found.vocabulary} tokens"
    if found.problem:
        yield f"Prompts cannot be made: {found.problem}"
    if found.tokens is not None:
        width, height = found.picture
        yield f"A picture of {width} x {height} pixels takes {found.tokens} tokens, a prompt with it {found.positions}."
    total = memory_total()
    yield f"Memory, about, with 256 tokens of answer ({readable(total)} here):"
    for name, needed in found.memory.items():
        yield f"  {DOING[name]}: {readable(needed)}{'' if needed <= total else ', too much for this machine'}"


def millions(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.2f} M"


def readable(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"
