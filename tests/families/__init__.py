"""Small configurations of every family that take every branch, for the comparison with transformers.

A module has CASES, name to config.json; ARCHITECTURE, the class of transformers; and where they differ from the
decoder's alone: `inputs` (token ids and media), `reference_inputs` (what only transformers wants to be told),
SPELLINGS (a spelling of the weights to (regex, replacement) pairs from the names of transformers' modules; "mlx" is
stored in MLX's layout of convolutions) and SPARSE (config.json files that leave things out).
"""

import pkgutil
import re
from importlib import import_module
from types import ModuleType

MODULES: dict[str, ModuleType] = {
    module.name: import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)
}
FAMILY_OF: dict[str, ModuleType] = {case: module for module in MODULES.values() for case in module.CASES}


def spell(name: str, family: ModuleType, spelling: str) -> str:
    """The name of a weight in another spelling; "transformers" is that of its modules."""
    for pattern, replacement in getattr(family, "SPELLINGS", {}).get(spelling, ()):
        name = re.sub(pattern, replacement, name)
    return name
