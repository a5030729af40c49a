"""Convert a checkpoint of Hugging Face to MLX: plan the output, write it piece by piece, check it, and move it."""

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from lime_mlx.checkpoint.files import INDEX
from lime_mlx.checkpoint.hub import REPOSITORY, locate
from lime_mlx.files import expanded

from .card import CARD, card, find_card
from .options import Options
from .plan import ConversionPlan, check_source, plan_conversion, signature
from .schemes import Scheme
from .sensitivity import Progress, Sensitivity
from .staging import STATE, Staging, check_out, check_space, explain_os_errors
from .tensors import SHARD
from .upload import check_repo, upload
from .verify import LogitComparison, check_structure, compare
from .write import write_json, write_shard

COPIED = ("*.json", "*.jinja", "*.txt", "tokenizer.model")


@dataclass(frozen=True)
class Report:
    """What was written, or with `dry_run` would be.

    size: bytes of the weights; parameters: how many they are; files: of weights, to their bytes; resumed: how many of
    them an earlier run had finished; layers: module paths to how they are quantised; kept: those that stay float, their
    width not being a multiple of the group; comparison: logits against the source's, None where they were not compared;
    sensitivity: of the layers, where it was measured.
    """

    folder: Path
    size: int
    parameters: int
    tensors: int
    files: dict[str, int]
    layers: dict[str, Scheme]
    kept: tuple[str, ...]
    resumed: int = 0
    comparison: LogitComparison | None = None
    sensitivity: dict[str, Sensitivity] = field(default_factory=dict)

    @property
    def bits(self) -> float:
        """Bits for each parameter, everything counted."""
        return 8 * self.size / self.parameters


def convert(
    hf_path: str | os.PathLike[str],
    mlx_path: str | os.PathLike[str] = "mlx_model",
    *,
    quantize: bool = False,
    q_bits: int | None = None,
    q_group_size: int | None = None,
    q_mode: str = "affine",
    quant_predicate: str | None = None,
    calibration_data: str | None = None,
    quantize_vision: bool = False,
    dequantize: bool = False,
    dtype: str | None = None,
    shard_bytes: int = SHARD,
    revision: str | None = None,
    token: str | None = None,
    upload_repo: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    compare_logits: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """Write the checkpoint of a folder or repository to the folder `mlx_path`, as mlx-lm and mlx-vlm lay it out.

    `Options` describes how weights are stored. Bits and group size default to those of the mode, dtype to that of
    config.json. Memory holds one tensor at a time, except while bits are measured and logits are compared. progress: is
    called with the stage, how much of it is done, and how much there is. The same call continues a conversion that was
    interrupted.
    Raises `ConversionError`, and what `load` raises.
    """
    options = Options(
        quantize,
        q_bits,
        q_group_size,
        q_mode,
        quant_predicate,
        calibration_data,
        quantize_vision,
        dequantize,
        dtype,
        shard_bytes,
    )
    if upload_repo is not None:
        check_repo(upload_repo)
    out, source = expanded(mlx_path), locate(hf_path, revision=revision, token=token)
    check_out(out, source, force)
    check_source(source, options)
    if dry_run:
        return _report(out, plan_conversion(source, options, None, progress))
    with Staging(out) as staging, explain_os_errors(out, staging.folder):
        check_out(out, source, force)  # again: another process may have finished before this one had the lock
        state = staging.resume(signature(source, options))
        bits = cast("Mapping[str, int] | None", state.get("bits"))
        plan = plan_conversion(source, options, bits, progress)
        report = _report(out, plan)
        done = [name for name in plan.files if (staging.folder / name).is_file()]
        job = {**state, "bits": {path: scheme.bits for path, scheme in plan.layers.schemes.items()}}
        if plan.sensitivity:  # it took long to measure
            staging.remember(job)
        check_space(out, report.size - sum(report.files[name] for name in done))
        staging.remember(job)
        names = [name for part in plan.files.values() for name in part]
        _write_index(staging.folder, plan, report)
        _write_weights(staging.folder, plan, report, done, progress)
        write_json(staging.folder / "config.json", plan.config)
        copied = _copy(source, staging.folder)
        base = None if expanded(hf_path).exists() or not REPOSITORY.fullmatch(str(hf_path)) else str(hf_path)
        text = card(find_card(source, base, revision, token), base, upload_repo or out.name, plan.config)
        (staging.folder / CARD).write_text(text, encoding="utf-8")
        check_structure(staging.folder, names)
        if compare_logits:
            progress("compare", 0, 1)
            report = replace(report, comparison=compare(source, staging.folder, exact=not options.quantize))
            progress("compare", 1, 1)
        staging.finish({*plan.files, INDEX, "config.json", CARD, *copied})
    if upload_repo is not None:
        upload(out, upload_repo, token=token)
    return replace(report, resumed=len(done))


def _report(out: Path, plan: ConversionPlan) -> Report:
    files = {file: sum(plan.tensors[name].nbytes for name in names) for file, names in plan.files.items()}
    return Report(
        out,
        sum(files.values()),
        plan.parameters,
        len(plan.tensors),
        files,
        dict(plan.layers.schemes),
        plan.layers.kept,
        sensitivity=plan.sensitivity,
    )


def _write_weights(
    folder: Path, plan: ConversionPlan, report: Report, done: Collection[str], progress: Progress
) -> None:
    written = sum(report.files[name] for name in done)
    progress("write", written, report.size)

    def advance(count: int) -> None:
        nonlocal written
        written += count
        progress("write", written, report.size)

    for file, names in plan.files.items():
        if file in done:
            for name in names:
                del plan.tensors[name]
        else:
            write_shard(folder / file, names, plan.tensors, plan.modes, advance)


def _write_index(folder: Path, plan: ConversionPlan, report: Report) -> None:
    weight_map = {name: file for file, names in plan.files.items() for name in names}
    sizes = {"total_size": report.size, "total_parameters": report.parameters}
    write_json(folder / INDEX, {"metadata": sizes, "weight_map": dict(sorted(weight_map.items()))})


def _copy(source: Path, folder: Path) -> set[str]:
    """Tokenizer, templates and settings of the processor, as they are."""
    paths = {path for pattern in COPIED for path in source.glob(pattern) if path.is_file()}
    names = {path.name for path in paths if not path.name.endswith("index.json")} - {"config.json", STATE}
    for name in names:
        shutil.copyfile(source / name, folder / name)
    return names
