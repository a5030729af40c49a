"""Which model a command uses, and who decided: --model, $LIME_MLX_MODEL, the user's settings, or else the demo."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from lime_mlx.errors import CheckpointError, LimeError
from lime_mlx.settings import default_model, settings_file

VARIABLE = "LIME_MLX_MODEL"
OPTION_HELP = f"[default: ${VARIABLE}, then your settings, then demo]"
Origin = Literal["option", "environment", "settings", "demo"]


@dataclass(frozen=True)
class Choice:
    """The name of a model, and who decided.

    name: None where nobody named one, which leaves the bundled models. overruled: who named another model, and which,
    for the end of a sentence.
    """

    name: str | None
    origin: Origin
    overruled: str | None = None

    @property
    def because(self) -> str:
        """Who decided, for the end of a sentence."""
        return {
            "option": "as --model says",
            "environment": f"as ${VARIABLE} says",
            "settings": f"as your settings say ({settings_file()})",
            "demo": "as nothing names another model",
        }[self.origin]

    @property
    def note(self) -> str | None:
        """One sentence for standard error; None where --model decides and nothing else names a model."""
        if self.origin == "option" and self.overruled is None:
            return None
        return f"Using {self.name or 'demo'}, {self.because}{f'; {self.overruled}' if self.overruled else ''}."

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """A `CheckpointError` says who named the model, where that was not the command itself."""
        try:
            yield
        except CheckpointError as error:
            if self.origin not in ("environment", "settings"):
                raise
            raise CheckpointError(f"{str(error).rstrip('.')}; {self.name} was taken {self.because}.") from error


def chosen_model(option: str | None) -> Choice:
    """The model of a command. option: what --model says. Raises `LimeError` for broken settings that would decide."""
    variable = os.environ.get(VARIABLE) or None
    if option is not None:
        return Choice(option, "option", _overruled(option, variable, settled()))
    if variable is not None:
        return Choice(variable, "environment", _overruled(variable, None, settled()))
    name = default_model()
    return Choice(name, "demo" if name is None else "settings")


def settled() -> str | None:
    """The model of the user's settings, which need not be whole where they do not decide."""
    try:
        return default_model()
    except LimeError:
        return None


def _overruled(name: str, variable: str | None, settled: str | None) -> str | None:
    if variable not in (None, name):
        return f"${VARIABLE} names {variable}"
    return f"your settings name {settled}" if settled not in (None, name) else None
