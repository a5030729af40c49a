"""Several processes or machines under MLX's launcher: which of them this is, and what all of them know."""

import json
from typing import TypeVar

import mlx.core as mx
import numpy as np

T = TypeVar("T")


class Hosts:
    """The processes of a launch; alone, the first and only one. rank: of this process; size: how many there are."""

    def __init__(self) -> None:
        self.group = mx.distributed.init()
        self.rank, self.size = self.group.rank(), self.group.size()

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, value: T) -> list[T]:
        """The values of all processes, sent as JSON, in the order of their ranks. All of them must call it."""
        if self.size == 1:
            return [value]
        sent = np.frombuffer(json.dumps(value).encode(), np.uint8)
        with mx.stream(mx.cpu):
            lengths = np.array(mx.distributed.all_gather(mx.array([len(sent)], mx.int32), group=self.group))
            padded = np.zeros(lengths.max(), np.uint8)
            padded[: len(sent)] = sent
            gathered = np.array(mx.distributed.all_gather(mx.array(padded)[None], group=self.group))
        return [json.loads(row[:length].tobytes()) for row, length in zip(gathered, lengths, strict=True)]
