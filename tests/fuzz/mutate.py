"""From valid inputs to hostile ones.

Every choice is made by `choose(n)`, which gives a number from 0 to n - 1. So the same changes can be drawn at random, by
hypothesis, which makes them small again, or by atheris, which follows the branches that are reached.
"""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy

Choose = Callable[[int], int]

CONTROL = "\x1b[2J\x1b]0;x\x07\x00\x9b"
VALUES = [
    *(0, 1, -1, 2, 3, 7, 1.5, -0.0, 1e-30, 1e308, 1e400, -1e400, float("nan"), 2**31, 2**31 - 1, 2**32, 2**63, 10**30),
    *(4096, 65536, 10**6, True, False, None, "", "a", "0", "auto", "x" * 5000, CONTROL, "\ud800", "\N{DOG FACE}"),
    *("../../etc/passwd", "/dev/zero", "~nobody/x", [], {}, [[]], [1, 2, 3], ["a"], {"a": 1}, [None], [0.5] * 3),
]
NUMBERS = [0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]
MOST = 4  # changes of one input
LARGEST = 400_000  # bytes


def changed_json(seed: object, others: Sequence[object], choose: Choose) -> bytes:
    """A JSON text near a seed: values replaced, scaled, removed, renamed, nested or taken from other seeds."""
    root = [json.loads(json.dumps(seed))]
    for _ in range(1 + choose(MOST)):
        places = list(_places(root))
        holder, key = places[choose(len(places))]
        try:
            _change(holder, key, others, choose)
        except RecursionError:  # nested too deep for another change
            break
    try:
        text = json.dumps(root[0] if root else None).encode()
    except RecursionError:
        return b"[" * 2000
    return text if len(text) < LARGEST else json.dumps(seed).encode()


def _places(value: object) -> list[tuple[object, object]]:
    """Every place that holds a value: the list or dict, and the index or key."""
    found: list[tuple[object, object]] = []
    rest = [value]
    while rest and len(found) < 3000:
        holder = rest.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, inside in items:
            found.append((holder, key))
            if isinstance(inside, (dict, list)):
                rest.append(inside)
    return found


def _change(holder, key, others: Sequence[object], choose: Choose) -> None:
    value, kind = holder[key], choose(10)
    if kind < 4:
        holder[key] = deepcopy(VALUES[choose(len(VALUES))])
    elif kind == 4 and isinstance(value, (int, float)):
        holder[key] = [value + 1, value - 1, -value, value * 2, value / 2, value * 1000, float(value), str(value)][
            choose(8)
        ]
    elif kind == 5 and isinstance(holder, dict):
        del holder[key]
    elif kind == 6 and isinstance(holder, dict):
        names = [*holder, CONTROL, "", "x" * 300]
        holder[names[choose(len(names))]] = holder.pop(key)
    elif kind == 7:
        for _ in range([1, 3, 90, 300][choose(4)]):
            value = [value] if choose(2) else {"a": value}
        holder[key] = value
    elif kind == 8 and others:
        places = _places([others[choose(len(others))]])
        other, at = places[choose(len(places))]
        holder[key] = deepcopy(other[at])
    elif kind == 9 and isinstance(value, str):
        at = choose(len(value) + 1)
        holder[key] = value[:at] + [CONTROL, "\ud800", "'", '"', "{{", "\n", "9" * 40][choose(7)] + value[at:]
    else:
        holder[key] = [deepcopy(value)] * [0, 2, 50][choose(3)]


def changed_bytes(seed: bytes, others: Sequence[bytes], choose: Choose, most: int = 8) -> bytes:
    """Bytes near a seed: bits, numbers, pieces removed, repeated, moved or taken from other seeds."""
    data = bytearray(seed)
    for _ in range(1 + choose(most)):
        at = choose(len(data) + 1) if choose(2) else choose(min(len(data), 64) + 1)
        kind = choose(8)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << choose(8)
        elif kind == 1 and at < len(data):
            data[at] = [0, 255, 127, 128, choose(256)][choose(5)]
        elif kind == 2:
            width, order = [1, 2, 4, 8][choose(4)], ["little", "big"][choose(2)]
            number = NUMBERS[choose(len(NUMBERS))] % (1 << 8 * width)
            data[at : at + width] = number.to_bytes(width, order)
        elif kind == 3:
            del data[at : at + 1 + choose(64)]
        elif kind == 4:
            piece = data[at : at + 1 + choose(64)]
            data[at:at] = piece * (1 + choose(8))
        elif kind == 5 and others:
            other = others[choose(len(others))]
            start = choose(len(other) + 1)
            data[at : at + choose(2) * 64] = other[start : start + 1 + choose(256)]
        elif kind == 6:
            del data[at:]
        else:
            data[at:at] = bytes(choose(256) for _ in range(1 + choose(8)))
    return bytes(data)


def changed_text(seed: str, words: Sequence[str], choose: Choose) -> str:
    """A text near a seed: words of the target's language put in, pieces removed, repeated and moved."""
    text = seed
    for _ in range(1 + choose(2)):
        # Most words go where a word ends.
        ends = [place for place, letter in enumerate(text) if letter in " \n}%,:+="] if choose(4) else []
        at = ends[choose(len(ends))] + 1 if ends else choose(len(text) + 1)
        end = min(len(text), at + 1 + choose(12))
        kind = choose(6)
        if kind < 3:
            text = text[:at] + words[choose(len(words))] + text[at if kind else end :]
        elif kind == 3:
            text = text[:at] + text[end:]
        elif kind == 4:
            text = text[:at] + text[at:end] * [2, 3, 40][choose(3)] + text[end:]
        else:
            other = choose(len(text) + 1)
            text = text[:other] + text[at:end] + text[other:]
    return text
