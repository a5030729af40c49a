"""`python .ci/lock.py`: write the versions that this environment has of all that development needs to dev.lock.

`pip install -r .ci/dev.lock -e .[cpu,dev,server]` makes such an environment again, on Linux with this Python.
"""

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

LOCK = Path(__file__).parent / "dev.lock"
OWN, EXTRAS = "lime-mlx", ("cpu", "dev", "server")


def versions() -> dict[str, str]:
    """The version of each distribution that ours needs here, with its extras, and that these need in turn."""
    found: dict[str, str] = {}
    rest = [(OWN, extra) for extra in EXTRAS]
    seen = set(rest)
    while rest:
        name, extra = rest.pop()
        try:
            here = distribution(name)
        except PackageNotFoundError:
            continue
        if name != OWN:
            found[name] = here.version
        for text in here.requires or []:
            wanted = Requirement(text)
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
                continue
            for inner in ("", *wanted.extras):
                place = (wanted.name.lower().replace("_", "-"), inner)
                if place not in seen:
                    seen.add(place)
                    rest.append(place)
    return found


def main() -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    lines = [f"# By python .ci/lock.py, Python {python} on {sys.platform}."]
    lines += [f"{name}=={version}" for name, version in sorted(versions().items())]
    LOCK.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
