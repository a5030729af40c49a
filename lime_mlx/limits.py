"""The limits of what files, checkpoints and requests may ask for, in one place. An error names its limit."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lime_mlx.errors import LimeError


@dataclass(frozen=True)
class Limit:
    """The most that something may be.

    what: how an error names it, with its unit. variable: of the environment, which raises the limit; None for a limit
    that nobody needs to raise.
    """

    what: str
    most: int
    variable: str | None = None

    @property
    def value(self) -> int:
        """The limit that holds: that of the environment where it is a larger whole number."""
        text = os.environ.get(self.variable, "") if self.variable else ""
        return max(self.most, int(text)) if text.isascii() and text.isdigit() and len(text) < 19 else self.most

    def check(self, number: float, name: str, error: type[Exception] = LimeError) -> None:
        """Raise `error` for a number above the limit. name: of what has it, as "depth"."""
        if number > self.value:
            raise self.error(f"{name} is {shown(number)}", error)

    def error(self, problem: str, kind: type[Exception] = LimeError) -> Exception:
        """The error of a problem: it names the limit, and says how to raise it where that is possible."""
        how = f"; {self.variable} raises it" if self.variable else ""
        return kind(f"{problem}, and the limit of {self.what} is {self.value:,}{how}.")


def shown(number: float) -> str:
    """A number in an error: short, however large it is."""
    if isinstance(number, int) and number.bit_length() > 64:
        return "a number of more than 64 bits"
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


# Of config.json.
LAYERS = Limit("layers of a tower or decoder", 1024)
WIDTH = Limit("widths, heads and vocabularies", 1 << 21)
SIDE = Limit("the side of a picture that a tower takes, in pixels", 4096)
POSITIONS = Limit("positions of a context or tower", 1 << 30)
PINPOINTS = Limit("resolutions of tiles", 1024)
# Of settings of pictures: those of one picture as the model takes it.
PREPARED_PIXELS = Limit("pixels of a picture that a model takes", 1 << 24)
# Of one call: what is opened, and what the model takes of it.
OPENED_PIXELS = Limit("pixels of all pictures of one call", 240_000_000, "LIME_MLX_MAX_PIXELS")
STEPS = Limit("optimisation steps of a token", 1000)
# Of JSON files.
JSON_BYTES = Limit("bytes of a JSON file", 256 << 20)
JSON_DEPTH = Limit("levels of JSON", 100)
TOKENIZER_BYTES = Limit("bytes of tokenizer.json", 512 << 20)
# Of a chat template.
TEMPLATE_SOURCE = Limit("characters of a chat template", 200_000)
TEMPLATE_STEPS = Limit("steps of a chat template", 2_000_000)
TEMPLATE_TEXT = Limit("characters that a chat template makes", 16_000_000, "LIME_MLX_MAX_TEMPLATE_TEXT")
TEMPLATE_SECONDS = Limit("seconds of a chat template", 10, "LIME_MLX_MAX_TEMPLATE_SECONDS")
TEMPLATE_NUMBER = Limit("numbers that a chat template hands to a function", 100_000)
