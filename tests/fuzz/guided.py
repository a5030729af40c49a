"""`python -m fuzz.guided TARGET [options of libFuzzer]`, in the folder of tests: atheris follows the branches.

atheris must be installed. Its corpus is in build/fuzz/TARGET/guided, so that the next run goes on with it. A find is an
exception, with the input beside the corpus.
"""

import sys
from pathlib import Path

import atheris

from fuzz.mutate import Choose

with atheris.instrument_imports(include=["lime_mlx"]):
    from fuzz.attempt import attempt
    from fuzz.run import STATE, Kept
    from fuzz.targets import TARGETS


def main() -> None:
    name = sys.argv[1]
    target, kept = TARGETS[name], Kept(STATE / name)
    corpus = kept.folder / "guided"
    corpus.mkdir(exist_ok=True)

    def one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        choose: Choose = lambda count: provider.ConsumeIntInRange(0, count - 1)  # noqa: E731
        drawn = target.drawn(choose)
        outcome = attempt(target, drawn, slower=3.0)
        if outcome.find is not None:
            kept.find(drawn, outcome.find)
            raise RuntimeError(outcome.find)

    options = [*sys.argv[2:], f"-artifact_prefix={Path(kept.folder)}/", str(corpus)]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
