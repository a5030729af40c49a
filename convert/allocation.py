"""Which layer gets how many bits: the greedy solution of the knapsack problem with several choices for each item."""

import heapq
from collections.abc import Mapping

from .schemes import BITS

# A step up: minus the fall of damage for each bit of each weight, the path of the layer, the number of bits.
Step = tuple[float, str, int]


def allocate(damage: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], average: float) -> dict[str, int]:
    """Bits of each layer, `average` or less over all weights, that take away the most damage, step by step.

    damage: of each layer, by its bits. sizes: weights of each layer. A step goes to the number of bits where the damage
    falls most for the size.
    """
    bits = dict.fromkeys(damage, BITS[0])
    left = (average - BITS[0]) * sum(sizes.values())
    queue = [step for path in damage if (step := _best_step(damage[path], path, BITS[0], sizes[path]))]
    heapq.heapify(queue)
    while queue:
        _, path, higher = heapq.heappop(queue)
        cost = (higher - bits[path]) * sizes[path]
        if cost > left + 1e-6:
            affordable = {number: damage[path][number] for number in BITS if number < higher}
            step = _best_step(affordable, path, bits[path], sizes[path])
        else:
            left, bits[path] = left - cost, higher
            step = _best_step(damage[path], path, higher, sizes[path])
        if step:
            heapq.heappush(queue, step)
    return bits


def _best_step(damage: Mapping[int, float], path: str, now: int, size: int) -> Step | None:
    """The best next step of a layer from `now` bits; None where there are no more."""
    steps = [((damage[bits] - damage[now]) / ((bits - now) * size), path, bits) for bits in damage if bits > now]
    return min(steps, default=None)
