"""lime-mlx convert: a checkpoint of Hugging Face to MLX, quantised on request."""

import re
from collections import defaultdict

import click

from lime_mlx.cli.common import note, prepare_backend

STAGES = {"calibrate": "Measuring layers", "write": "Writing", "compare": "Comparing logits"}
MODES = ("affine", "mxfp4", "nvfp4", "mxfp8")
SHOWN = 8


@click.command()
@click.option("--hf-path", "--model", required=True, metavar="REPO|FOLDER", help="What to convert.")
@click.option("--mlx-path", default="mlx_model", show_default=True, metavar="FOLDER", help="Where it is written.")
@click.option("-q", "--quantize", is_flag=True, help="Quantise the layers of the decoder.")
@click.option("--q-bits", type=int, metavar="2|3|4|5|6|8", help="Bits of a weight.  [default: 4, mxfp8: 8]")
@click.option("--q-group-size", type=int, metavar="32|64|128", help="Weights that share a scale.  [default: 64]")
@click.option("--q-mode", type=click.Choice(MODES), default="affine", show_default=True)
@click.option(
    "--quant-predicate",
    metavar="RECIPE",
    help="mixed_2_6, mixed_3_4, mixed_3_6, mixed_4_6, mixed_4_8, or relevance:bits=3.5, which gives bits to the layers "
    "that logits and reliance depend on.",
)
@click.option("--calibration-data", metavar="FOLDER", help="Pictures for relevance.  [default: drawn scenes]")
@click.option(
    "--quantize-vision/--no-quantize-vision", default=False, help="The tower and the connector, too.  [default: no]"
)
@click.option("-d", "--dequantize", is_flag=True, help="Make quantised layers float.")
@click.option("--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), help="[default: as config.json says]")
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option("--upload-repo", metavar="REPO", help="Upload the result to this repository of the Hub.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option("--force", is_flag=True, help="Replace the checkpoint at --mlx-path.")
@click.option(
    "--compare-logits/--no-compare-logits",
    default=True,
    help="Run source and result on one prompt at the end.  [default: yes, where memory allows]",
)
@click.option("--quiet/--verbose", default=False, help="Only errors.")
def command(hf_path, mlx_path, quiet, **options):
    """Convert a checkpoint to MLX; with -q, quantise it.

    \b
    lime-mlx convert --hf-path llava-hf/llava-1.5-7b-hf --mlx-path llava-4bit -q
    lime-mlx convert --hf-path llava-hf/llava-1.5-7b-hf --mlx-path llava-guided -q --quant-predicate relevance:bits=3.5
    lime-mlx convert --hf-path mlx-community/llava-1.5-7b-4bit --mlx-path llava-float -d
    """
    notes: list[str] = []
    prepare_backend(notes)
    note(*notes)

    from lime_mlx.convert import convert

    try:
        with Bar(quiet) as bar:
            report = convert(hf_path, mlx_path, progress=bar, **options)
    except KeyboardInterrupt:
        note("Interrupted: the same command goes on behind the last finished file.")
        raise
    if not quiet:
        for line in described(report, options["dry_run"], options["compare_logits"]):
            click.echo(line)
        if options["upload_repo"] and not options["dry_run"]:
            click.echo(f"Uploaded to {options['upload_repo']}.")


class Bar:
    """Progress of one stage after the other, on stderr: bytes with the time left, or layers."""

    def __init__(self, quiet: bool):
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        disabled = quiet or not console.is_terminal
        self.bars = {
            stage: Progress(
                *columns, *([DownloadColumn()] if stage == "write" else []), console=console, disable=disabled
            )
            for stage in STAGES
        }
        self.tasks: dict[str, int] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        bar = self.bars[stage]
        if stage not in self.tasks:
            self.stop()
            bar.start()
            self.tasks[stage] = bar.add_task(STAGES[stage], total=total)
        bar.update(self.tasks[stage], completed=done, total=total)

    def stop(self) -> None:
        for bar in self.bars.values():
            bar.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def described(report, dry_run: bool, compared: bool):
    """What was written, how each layer is quantised, and what was checked."""
    many = f"{len(report.files)} file{'s' if len(report.files) > 1 else ''}"
    size = f"{report.size / 1e9:.2f} GB" if report.size >= 1e9 else f"{report.size / 1e6:.2f} MB"
    done = "would have" if dry_run else "has"
    yield (
        f"{report.folder} {done} {report.parameters / 1e6:.1f} M parameters in {many}, {size}, "
        f"{report.bits:.2f} bits each, scales counted."
    )
    if report.resumed:
        yield f"{report.resumed} of the files were finished by an earlier run."
    yield from bits(report.layers)
    if report.kept:
        more = f" and {len(report.kept) - SHOWN} more" if len(report.kept) > SHOWN else ""
        yield f"Float, since their width is no multiple of the group: {', '.join(report.kept[:SHOWN])}{more}."
    if dry_run:
        return
    yield f"Checked: {report.tensors} tensors are there, finite, and of the shapes that the model wants."
    if found := report.comparison:
        yield (
            f"Logits at {found.positions} positions of a prompt ({found.kind}) against the source: "
            f"KL {found.kl:.2g} nats, relative distance {found.distance:.2g}, "
            f"the same most likely token at {100 * found.same:.0f} %."
        )
    elif compared:
        yield "Logits were not compared: the two models are too large for the memory of this machine."


def bits(layers):
    """One line if all layers are alike, else one for each block and kind of layer."""
    if not layers:
        return
    kinds = {(scheme.bits, scheme.group_size, scheme.mode) for scheme in layers.values()}
    if len(kinds) == 1:
        ((number, group, mode),) = kinds
        yield f"{len(layers)} layers at {number} bits, {mode}, groups of {group}."
        return
    blocks = defaultdict(list)
    for path, scheme in layers.items():
        block = re.match(r".*\.\d+(?=\.)", path)
        name = path[block.end() + 1 :] if block else path
        blocks[block[0] if block else ""].append(f"{name.split('.')[-1]} {scheme.bits}")
    for block in sorted(blocks, key=lambda name: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", name)]):
        yield f"{block or 'outside of the blocks'}: {', '.join(blocks[block])}"
