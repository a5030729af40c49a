"""The models that are proposed to a new user: one table of facts with their date, the first choice first."""

import importlib.resources
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

TABLE = "proposals.json"


@dataclass(frozen=True)
class Proposal:
    """A repository of the Hub. size: bytes of its files. on: the day of these facts, as YYYY-MM-DD."""

    name: str
    size: int
    licence: str
    takes: str
    on: str


@cache
def proposals() -> tuple[Proposal, ...]:
    """The table, the first choice first."""
    text = importlib.resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8")
    table = json.loads(text)
    return tuple(Proposal(**row, on=table["on"]) for row in table["models"])


def proposal_of(name: str) -> Proposal | None:
    return next((proposal for proposal in proposals() if proposal.name == name), None)


def proposed(
    memory: Callable[[int], bool], disk: Callable[[Proposal], bool], table: Sequence[Proposal] | None = None
) -> Proposal | None:
    """The first proposal that fits; None where none does.

    memory: whether a model of so many bytes runs with room to spare. disk: whether a proposal's files find space.
    """
    rows = proposals() if table is None else table
    return next((row for row in rows if memory(row.size) and disk(row)), None)
