"""lime-mlx convert: a checkpoint of Hugging Face to MLX, quantised on request."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from lime_mlx.cli.common import note, prepare_backend
from lime_mlx.errors import plain_text

if TYPE_CHECKING:
    from rich.progress import TaskID

    from lime_mlx.convert import Report
    from lime_mlx.convert.schemes import Scheme
    from lime_mlx.convert.verify import LogitComparison

STAGES = {"measure": "Measuring layers", "write": "Writing", "compare": "Comparing logits"}
MODES = ("affine", "mxfp4", "nvfp4", "mxfp8")
SHOWN = 8


@click.command()
@click.option("--hf-path", "--model", required=True, metavar="REPO|FOLDER", help="What to convert.")
@click.option("--mlx-path", default="mlx_model", show_default=True, metavar="FOLDER", help="Where it is written.")
@click.option("-q", "--quantize", is_flag=True, help="Quantise the layers of the decoder.")
@click.option("--q-bits", type=int, metavar="2|3|4|5|6|8", help="Bits of a weight.  [default: 4, mxfp8: 8]")
@click.option("--q-group-size", type=int, metavar="32|64|128", help="Weights that share a scale.  [default: 64]")
@click.option("--q-mode", type=click.Choice(MODES), default="affine", show_default=True, help="How MLX packs weights.")
@click.option(
    "--quant-predicate",
    metavar="RECIPE",
    help="mixed_2_6, mixed_3_4, mixed_3_6, mixed_4_6, mixed_4_8, or relevance:bits=3.5, which gives bits to the layers "
    "that logits and reliance depend on.",
)
@click.option(
    "--calibration-data", metavar="FOLDER", help="Pictures that relevance is measured on.  [default: drawn scenes]"
)
@click.option(
    "--quantize-vision/--no-quantize-vision",
    default=False,
    help="Quantise the tower and the connector, too.  [default: no]",
)
@click.option("-d", "--dequantize", is_flag=True, help="Make quantised layers float.")
@click.option(
    "--dtype",
    type=click.Choice(["float16", "bfloat16", "float32"]),
    help="Type of the floats.  [default: as config.json says]",
)
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option("--upload-repo", metavar="REPO", help="Upload the result to this repository of the Hub.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option("--force", is_flag=True, help="Replace the checkpoint at --mlx-path.")
@click.option(
    "--compare-logits/--no-compare-logits",
    default=True,
    help="Run source and result on one prompt at the end.  [default: yes, where memory allows]",
)
@click.option("--quiet/--verbose", default=False, help="Print errors only.")
def command(
    hf_path: str,
    mlx_path: str,
    quantize: bool,
    q_bits: int | None,
    q_group_size: int | None,
    q_mode: str,
    quant_predicate: str | None,
    calibration_data: str | None,
    quantize_vision: bool,
    dequantize: bool,
    dtype: str | None,
    revision: str | None,
    upload_repo: str | None,
    dry_run: bool,
    force: bool,
    compare_logits: bool,
    quiet: bool,
) -> None:
    """Convert a checkpoint to MLX; with -q, quantise it.

    \b
    lime-mlx convert --hf-path llava-hf/llava-1.5-7b-hf --mlx-path llava-4bit -q
    lime-mlx convert --hf-path llava-hf/llava-1.5-7b-hf --mlx-path llava-guided -q --quant-predicate relevance:bits=3.5
    lime-mlx convert --hf-path mlx-community/llava-1.5-7b-4bit --mlx-path llava-float -d
    """
    notes: list[str] = []
    prepare_backend(notes, quiet)
    note(*([] if quiet else notes))

    from lime_mlx.convert import convert

    try:
        with Bar(quiet) as bar:
            report = convert(
                hf_path,
                mlx_path,
                quantize=quantize,
                q_bits=q_bits,
                q_group_size=q_group_size,
                q_mode=q_mode,
                quant_predicate=quant_predicate,
                calibration_data=calibration_data,
                quantize_vision=quantize_vision,
                dequantize=dequantize,
                dtype=dtype,
                revision=revision,
                upload_repo=upload_repo,
                dry_run=dry_run,
                force=force,
                compare_logits=compare_logits,
                progress=bar,
            )
    except KeyboardInterrupt:
        note("Interrupted: the same command continues after the last file that is finished.")
        raise
    if not quiet:
        for line in report_lines(report, dry_run, compare_logits):
            click.echo(plain_text(line))
        if upload_repo and not dry_run:
            click.echo(f"Uploaded to {upload_repo}.")


class Bar:
    """Progress of one stage after the other, on stderr: bytes with the time left, or layers."""

    def __init__(self, quiet: bool) -> None:
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
        self.tasks: dict[str, TaskID] = {}

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

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def report_lines(report: Report, dry_run: bool, compared: bool) -> Iterator[str]:
    """What was written, how each layer is quantised, and what was checked."""
    files = f"{len(report.files)} file{'s' if len(report.files) > 1 else ''}"
    size = f"{report.size / 1e9:.2f} GB" if report.size >= 1e9 else f"{report.size / 1e6:.2f} MB"
    holds = "would have" if dry_run else "has"
    yield (
        f"{report.folder} {holds} {report.parameters / 1e6:.1f} M parameters in {files}, {size}, "
        f"{report.bits:.2f} bits each, scales counted."
    )
    if report.resumed:
        yield f"{report.resumed} of the files were finished by an earlier run."
    yield from layer_lines(report.layers)
    if report.kept:
        more = f" and {len(report.kept) - SHOWN} more" if len(report.kept) > SHOWN else ""
        yield f"Float, because their width is no multiple of the group: {', '.join(report.kept[:SHOWN])}{more}."
    if dry_run:
        return
    yield f"Checked: {report.tensors} tensors are there, finite, and of the shapes that the model wants."
    if report.comparison:
        yield comparison_line(report.comparison)
    elif compared:
        yield "Logits were not compared: the two models are too large for the memory of this machine."


def comparison_line(comparison: LogitComparison) -> str:
    return (
        f"Logits at {comparison.positions} positions of a prompt ({comparison.kind}) against the source: "
        f"KL {comparison.kl:.2g} nats, relative distance {comparison.distance:.2g}, "
        f"the same most likely token at {100 * comparison.same:.0f} %."
    )


def layer_lines(layers: Mapping[str, Scheme]) -> Iterator[str]:
    """One line if all layers are alike, else one for each block and kind of layer."""
    if not layers:
        return
    kinds = {(scheme.bits, scheme.group_size, scheme.mode) for scheme in layers.values()}
    if len(kinds) == 1:
        ((bits, group, mode),) = kinds
        yield f"{len(layers)} layers at {bits} bits, {mode}, groups of {group}."
        return
    blocks: defaultdict[str, list[str]] = defaultdict(list)
    for path, scheme in layers.items():
        match = re.match(r".*\.\d+(?=\.)", path)
        block, name = (match[0], path[match.end() + 1 :]) if match else ("", path)
        blocks[block].append(f"{name.split('.')[-1]} {scheme.bits}")
    for block in sorted(blocks, key=_natural):
        yield f"{block or 'outside of the blocks'}: {', '.join(blocks[block])}"


def _natural(name: str) -> list[tuple[int, str]]:
    """The order of names in which layer 10 comes after layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
