"""Every lower bound has a reason, and the lock of development holds versions that fit the bounds."""

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info < (3, 11):
    pytest.skip("tomllib came with Python 3.11", allow_module_level=True)
import tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WANTED = [
    Requirement(text) for part in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()) for text in part
]
LOCKED = dict(line.split("==") for line in (ROOT / ".ci/dev.lock").read_text().splitlines() if "==" in line)


def test_every_bound_has_its_reason():
    rows = re.findall(
        r"^\| ([\w-]+) \| ([\d.]+) \| (.+) \|$", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE
    )
    stated = {name: bound for name, bound, why in rows}
    assert stated == {wanted.name: str(next(iter(wanted.specifier))).removeprefix(">=") for wanted in WANTED}
    assert all(why.strip() for _, _, why in rows)


def test_nothing_has_an_upper_bound():
    assert {operator.operator for wanted in WANTED for operator in wanted.specifier} == {">="}


def test_the_lock_fits_the_bounds():
    extras = [Requirement(text) for part in ("cpu", "dev") for text in PROJECT["optional-dependencies"][part]]
    for wanted in [*map(Requirement, PROJECT["dependencies"]), *extras]:
        if wanted.marker is None or wanted.marker.evaluate({"platform_system": "Linux"}):
            assert LOCKED[wanted.name] in wanted.specifier, wanted


def test_actions_are_pinned_but_for_one():
    used = [
        use
        for file in (ROOT / ".github/workflows").glob("*.yml")
        for use in re.findall(r"uses: (\S+@\S+)", file.read_text())
    ]
    assert {use for use in used if not re.search(r"@[0-9a-f]{40}$", use)} == {"pypa/gh-action-pypi-publish@release/v1"}
