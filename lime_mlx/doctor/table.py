"""The report as a table for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from lime_mlx.errors import plain_text

from .findings import BROKEN, WORKS, Finding
from .verdict import Report

STYLES = {WORKS: "green", BROKEN: "bold red"}
WIDE = 160  # columns where there is no terminal


def show(report: Report) -> None:
    """Print one row for each probe, and the verdict under them."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDE
    table = Table("Probe", "Result", "Luck", "Why", box=None, pad_edge=False)
    table.columns[2].justify = "right"
    table.columns[1].no_wrap = table.columns[2].no_wrap = True
    table.columns[3].overflow = "fold"
    for finding in report.findings:
        cells = (finding.name, finding.status, chance(finding), finding.reason)
        table.add_row(*map(plain_text, cells), style=STYLES.get(finding.status, "yellow"))
    console.print(table)
    console.print()
    console.print(plain_text(report.sentence), soft_wrap=True)


def chance(finding: Finding) -> str:
    """The chance of luck in percent; empty where nothing is left to luck, or nothing was decided."""
    if finding.luck is None:
        return ""
    return "< 0.01 %" if finding.luck < 1e-4 else f"{100 * finding.luck:.2g} %"
