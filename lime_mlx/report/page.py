"""The page of a run, written as one file."""

import platform
import shlex
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lime_mlx._version import __version__
from lime_mlx.errors import LimeError
from lime_mlx.evaluate.store import Settings, Store
from lime_mlx.files import check_output, write_output
from lime_mlx.render.shared import safe_json, script, source_hash, style
from lime_mlx.render.svg import drawing, shown

from .charts import CellStyles, Section, sections
from .conclusions import Group, Table, fewest, groups, score_tables
from .gallery import Gallery, gallery, view_of
from .results import Names, TaskResult, data_folder, remarks, results
from .verdict import GLOSSARY


class Part(NamedTuple):
    """What the page says about one task.

    titles: the column titles of metrics, with their units. prompts: the first question of each split.
    """

    result: TaskResult
    scorer: str
    groups: list[Group]
    fewest: str | None
    tables: list[Table]
    titles: dict[str, str]
    sections: list[Section]
    gallery: Gallery
    prompts: dict[str, str]


def write_report(
    folder: str | Path,
    output: str | Path | None = None,
    scorer: str = "ours",
    maps: bool = False,
    notice: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """Write the page of a run's folder, by default as report.html in it, and return where it is.

    maps: also show what carried the words in question; for that the models of the run, as far as they are on this
    machine, read the answers again that are shown. notice: is called with a sentence on each model.

    Raises `DataError` for a folder without answers or an unknown scorer, and `LimeError` without matplotlib, and for
    an output whose name does not end in .html.
    """
    store = Store(folder)
    settings = store.settings
    names, path = Names(settings), Path(output or store.folder / "report.html")
    if path.suffix.lower() not in (".html", ".htm"):
        raise LimeError(f"{path} cannot be written: a report is a page, so its name must end in .html.")
    check_output(path)
    with drawing():
        by_task = results(store, scorer)
        parts = [_part(result, store, names, scorer, f"t{number}") for number, result in enumerate(by_task)]
    if maps:
        from .maps import add_maps  # needs MLX

        shown_ones = [(part.result, part.gallery.exhibits) for part in parts]
        add_maps(shown_ones, settings, data_folder(settings), notice)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html").render(
        name=store.folder.resolve().name,
        parts=parts,
        remarks=remarks(by_task, settings, names),
        settings=settings,
        names=names,
        style=style(),
        script=script(),
        script_hash=source_hash(script()),
        view_of=lambda exhibit: (view := view_of(exhibit)) and safe_json(view),
        mapped=any(view_of(exhibit) for part in parts for exhibit in part.gallery.exhibits),
        glossary=GLOSSARY,
        commands=_commands(store.folder, settings, scorer),
        versions=_versions(),
    )
    write_output(path, text.encode())
    return path


def _part(result: TaskResult, store: Store, names: Names, scorer: str, name: str) -> Part:
    settings = store.settings
    scorers = list(result.benchmark.scorers)
    units = {figure.metric.name: result.scale(figure.metric.unit)[0] for figure in result.figures}
    listed = groups(result, names)
    records = [record for by_id in (*result.answers.values(), *result.failed.values()) for record in by_id.values()]
    return Part(
        result,
        scorer if scorer in scorers else scorers[0],
        listed,
        fewest(result, names, listed),
        score_tables(result, names),
        {metric: f"{metric}, {unit}" for metric, unit in units.items()},
        sections(result, CellStyles(result, settings, names), name) if result.answers else [],
        gallery(result, names, data_folder(settings), store.material(result.task)),
        {record["split"]: record["prompt"] for record in reversed(records)},
    )


def _commands(folder: Path, settings: Settings, scorer: str) -> list[str]:
    """The commands that make the run and this page again."""
    common = settings["common"]
    words = ["lime-mlx", "evaluate"]
    for option, specs in (
        ("--task", settings["tasks"]),
        ("--model", settings["models"]),
        ("--method", settings["methods"]),
    ):
        for spec in specs:
            words += [option, spec]
    for option, value in (("data", settings["data"]), ("limit", common.get("limit")), ("seed", common.get("seed"))):
        words += [f"--{option}", str(value)] if value is not None else []
    words += [] if common.get("reliance", True) else ["--no-reliance"]
    chosen = [] if scorer == "ours" else ["--scorer", scorer]
    return [
        shlex.join([*words, "--output-dir", str(folder)]),
        shlex.join(["lime-mlx", "report", str(folder), *chosen]),
    ]


def _versions() -> dict[str, str]:
    """The programs that wrote the page."""
    packages = {name: version(name) for name in ("mlx", "numpy", "matplotlib")}
    return {"lime-mlx": __version__, **packages, "Python": platform.python_version(), "on": platform.platform()}
