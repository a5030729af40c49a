"""What a user chooses about the key-value cache: its bits, its size, and how much of a prompt is run at a time."""

from __future__ import annotations

from dataclasses import dataclass

from lime_mlx.errors import PromptError

BITS = (8, 4)
GROUPS = (32, 64, 128)
# How many positions of a prompt are run together, and how many are cached before entries are quantised.
PREFILL, QUANTIZED_START = 512, 5000
# Positions of text that stay where a cache of a limited size holds no picture or sound: attention needs the first ones.
FIRST = 4
# The least number of newest positions that a cache of a limited size holds beside those that stay.
LEAST_RECENT = 16


@dataclass(frozen=True)
class KVOptions:
    """The options of the cache, under the names that mlx-lm gives them.

    kv_bits: 8 or 4 quantise the entries; None keeps them in the type of the model. kv_group_size: how many numbers
    share a scale. quantized_kv_start: from so many positions on. max_kv_size: a position attends to so many at most,
    the pictures and sounds and what stands before them, and the newest ones; None is no limit. prefill_step_size: how
    many positions of the prompt are run together. Raises `PromptError` for other values.
    """

    kv_bits: int | None = None
    kv_group_size: int = 64
    quantized_kv_start: int = QUANTIZED_START
    max_kv_size: int | None = None
    prefill_step_size: int = PREFILL

    def __post_init__(self) -> None:
        if self.kv_bits is not None and self.kv_bits not in BITS:
            raise PromptError(f"--kv-bits is {self.kv_bits}; give {_either(BITS)}.")
        if self.kv_group_size not in GROUPS:
            raise PromptError(f"--kv-group-size is {self.kv_group_size}; give {_either(GROUPS)}.")
        for name, least in (("quantized_kv_start", 0), ("max_kv_size", 1), ("prefill_step_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise PromptError(f"--{name.replace('_', '-')} is {value}; give {least} or more.")

    def check_heads(self, width: int) -> None:
        """Raise `PromptError` where the groups do not divide heads of this width."""
        if self.kv_bits is None or width % self.kv_group_size == 0:
            return
        fitting = [group for group in GROUPS if width % group == 0]
        remedy = f"give --kv-group-size {_either(fitting)}" if fitting else "leave --kv-bits out"
        raise PromptError(
            f"--kv-group-size {self.kv_group_size} does not divide the {width} numbers of a head of this model: "
            f"{remedy}."
        )

    def recent(self, pinned: int, length: int) -> int | None:
        """How many newest positions a position attends to beside the first `pinned` ones; None is all.

        length: of the prompt. Raises `PromptError` where `max_kv_size` has no room for the pinned ones.
        """
        if self.max_kv_size is None:
            return None
        least = pinned + LEAST_RECENT
        if self.max_kv_size < least:
            what = "the pictures and sounds of this prompt end at" if pinned > FIRST else "the prompt needs"
            whole = f" ({length:,} hold the whole prompt)" if length > least else ""
            raise PromptError(
                f"--max-kv-size is {self.max_kv_size:,}, but {what} position {pinned:,}: give {least:,} or more{whole}."
            )
        return self.max_kv_size - pinned


def _either(values: tuple[int, ...] | list[int]) -> str:
    *most, last = map(str, values)
    return f"{', '.join(most)} or {last}" if most else last


DEFAULT = KVOptions()
