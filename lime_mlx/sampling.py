"""How a token is picked from scores: mlx-lm's samplers and penalties, under named and checked options."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import mlx.core as mx

from lime_mlx.errors import PromptError
from lime_mlx.session import LogitsProcessor
from lime_mlx.spec import Range, options

# Log-probabilities (1, V) to a token (1,), as mlx-lm's samplers.
Sampler = Callable[[mx.array], mx.array]
MAX_TOKENS = Range(1)


@dataclass(frozen=True)
class Sampling:
    """The options of sampling, checked.

    temperature: 0 is greedy. top_p, top_k, min_p: which tokens may be picked; 1, 0 and 0 leave all. repetition_penalty:
    divides the positive logits of the last 20 tokens and multiplies the negative ones. seed: of the random numbers.
    Raises `PromptError` for a value outside its range.
    """

    temperature: Annotated[float, Range(0)] = 0.0
    top_p: Annotated[float, Range(0, 1)] = 1.0
    top_k: Annotated[int, Range(0)] = 0
    min_p: Annotated[float, Range(0, 1)] = 0.0
    repetition_penalty: Annotated[float, Range(0)] | None = None
    seed: Annotated[int, Range(0, 2**64 - 1)] | None = None

    def __post_init__(self) -> None:
        for name in options(type(self)):
            if (value := getattr(self, name)) is not None:
                check(name, value)

    def sampler(self, vocabulary: int) -> Sampler | None:
        """mlx-lm's sampler, or None for greedy decoding; seeds MLX's random numbers where a seed is given."""
        if self.temperature == 0:
            return None
        from mlx_lm.sample_utils import make_sampler

        if self.seed is not None:
            mx.random.seed(self.seed)
        top_k = self.top_k if self.top_k < vocabulary else 0
        sampler: Sampler = make_sampler(temp=self.temperature, top_p=self.top_p, top_k=top_k, min_p=self.min_p)
        return sampler

    def processors(self) -> Sequence[LogitsProcessor]:
        if not self.repetition_penalty:
            return ()
        from mlx_lm.sample_utils import make_logits_processors

        processors: Sequence[LogitsProcessor] = make_logits_processors(repetition_penalty=self.repetition_penalty)
        return processors


def check(name: str, value: float, label: str | None = None) -> None:
    """Raise `PromptError` for an option whose value is outside its range; NaN is in no range.

    name: "max_tokens", or an option of `Sampling`. label: what the user calls it.
    """
    constraints = (MAX_TOKENS,) if name == "max_tokens" else options(Sampling)[name].constraints
    for valid in constraints:
        if isinstance(valid, Range) and not valid.low <= value <= valid.high:
            bound = f"from {valid.low} to {valid.high}" if valid.high < math.inf else f"at least {valid.low}"
            raise PromptError(f"{label or name} is {value}; it must be {bound}.")
