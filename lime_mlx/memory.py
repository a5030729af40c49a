"""About how much memory a model needs while it answers: fitted to measured peaks (docs/cache.md), not guaranteed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lime_mlx import backend
from lime_mlx.backend import compute_dtype, is_cpu
from lime_mlx.checkpoint.load import parameters
from lime_mlx.entries import CHUNK, LOOKBACK
from lime_mlx.errors import BackendError
from lime_mlx.kv import BITS, DEFAULT, GROUPS, KVOptions
from lime_mlx.methods import Choose, Method
from lime_mlx.methods.base import Wrapper
from lime_mlx.methods.lime import Lime
from lime_mlx.models.base import Model
from lime_mlx.models.decoder import DecoderConfig
from lime_mlx.products import piece_size
from lime_mlx.prompt import Prompt

FLOAT = 4  # bytes of what relevance, deltas and Adam's state are kept in
# Measured: what a block's second derivative holds of attention, for each query head and once more where several share a
# key head, and of the MLP.
DUAL_ATTENTION, DUAL_SHARED, DUAL_MLP = 14, 9, 12
# Rows of positions that fast LIME's gradient holds for each query head of each layer.
ROWS = 4
# Candidates of `choose`, what a layer holds of the positions for each of them and each query head, and the positions of
# the questions that it asks back together.
CANDIDATES, CANDIDATE_ROWS, ASKED = 8, 6, 128
# Most estimates are within a fifth of what is measured: only beyond that a run is refused.
SURE = 0.2
SHORT_STEP = 128


def memory_needed(
    config: DecoderConfig,
    weights: int,
    positions: int,
    answer: int = 256,
    kv: KVOptions = DEFAULT,
    pinned: int | None = None,
    width: int | None = None,
) -> dict[str, int]:
    """Bytes for "plain", "explain", "choose", "lime fast" and "lime exact" with a prompt of `positions` and an answer.

    Fast LIME with one update: several hold their deltas as arrays where memory allows it. The tower is not counted.
    weights: bytes of them as they are held. pinned: where the pictures and sounds end, None is the whole prompt. width:
    bytes of a float that the model computes in, None is that of this machine. Exact is with checkpointed blocks, which
    it takes when memory is short.
    """
    width = compute_dtype().size if width is None else width
    pinned = positions if pinned is None else pinned
    length, layers, heads = positions + answer, config.num_hidden_layers, config.num_attention_heads
    row = 2 * config.key_heads * config.dim
    cache = cache_bytes(config, positions, answer, kv, pinned, width)
    # Packed entries are unpacked layer by layer, one ahead of the other; a narrower type is copied to be read.
    unpacked = 3 * row * length * FLOAT // 2 * (kv.kv_bits is not None and length > kv.quantized_kv_start)
    read, step = max(_room(positions, window, kv) for window in config.windows), min(kv.prefill_step_size, positions)
    plain = cache + unpacked + _forward(config, step, min(positions, read), width, is_cpu())
    # Reading relevance goes layer by layer in float32: a layer's entries, and one piece of its weights, as copies.
    copies = (row * length * FLOAT + piece_size()) * (width < FLOAT)
    reading = cache + unpacked + copies
    candidates = CANDIDATES * CANDIDATE_ROWS * heads * length * FLOAT
    asking = cache + unpacked + _forward(config, ASKED, length, width, True)
    deltas = 4 * 2 * layers * heads * config.dim * length * FLOAT
    exact = deltas + 2 * layers * length * config.hidden_size * FLOAT
    attention = DUAL_ATTENTION + DUAL_SHARED * (config.key_heads < heads)
    exact += length * FLOAT * (attention * heads * length + DUAL_MLP * config.intermediate_size)
    extra = {
        "plain": plain,
        "explain": max(plain, reading),
        "choose": max(plain, reading + candidates, asking),
        "lime fast": max(plain, reading + ROWS * layers * heads * length * FLOAT),
        "lime exact": max(plain, exact),
    }
    return {name: weights + size for name, size in extra.items()}


def _forward(config: DecoderConfig, chunk: int, positions: int, width: int, unfused: bool) -> int:
    """What one layer holds while it runs so many positions; unfused: with all attention weights."""
    size = chunk * (4 * config.hidden_size + 3 * config.intermediate_size) * width
    return size + 2 * config.num_attention_heads * chunk * positions * width * unfused


def cache_bytes(config: DecoderConfig, positions: int, answer: int, kv: KVOptions, pinned: int, width: int) -> int:
    """The most that the cache takes: before it is quantised, or after."""
    length, row = positions + answer, 2 * config.key_heads * config.dim
    # The first step of the prefill is always in floats, and all that comes before the start.
    floats = length if kv.kv_bits is None else min(length, max(kv.quantized_kv_start, kv.prefill_step_size))
    most = sum(_held(floats, window, kv, pinned) for window in config.windows) * row * width
    if floats < length and kv.kv_bits is not None:
        packed = row * kv.kv_bits // 8 + 2 * width * row // kv.kv_group_size
        most = max(most, sum(_held(length, window, kv, pinned) for window in config.windows) * packed)
    return most


def _held(length: int, window: int | None, kv: KVOptions, pinned: int) -> int:
    """How many positions a layer holds of so many.

    With the copy of its window behind the pictures and sounds, or, where all layers let go of positions, with what is
    left twice.
    """
    whole, room = -(-length // CHUNK) * CHUNK, _room(length, window, kv)
    if room >= length:
        return whole
    return 2 * room if window is None else room + min(window, pinned)


def _room(length: int, window: int | None, kv: KVOptions) -> int:
    """The positions, of so many, for which a layer has room."""
    reach = kv.max_kv_size if window is None else window
    return length if reach is None else min(length, reach + LOOKBACK + max(CHUNK, kv.prefill_step_size))


def doing(method: Method, reliance: bool) -> str:
    """What of `memory_needed` decoding by a method is. reliance: whether relevance is read for every token."""
    chain = [method]
    while isinstance(chain[-1], Wrapper):
        chain.append(chain[-1].inner)
    modes = {each.mode for each in chain if isinstance(each, Lime)}
    if modes:
        return "lime exact" if "exact" in modes else "lime fast"
    if any(isinstance(each, Choose) for each in chain):
        return "choose"
    return "explain" if reliance else "plain"


def check_fits(
    model: Model, prompt: Prompt, method: Method, max_tokens: int, reliance: bool, kv: KVOptions
) -> Iterator[str]:
    """A sentence where the memory of this machine may not do, with what takes less.

    Raises `BackendError` where it will surely not do.
    """
    weights = sum(array.nbytes for array in parameters(model).values())
    pinned = max((span.stop for span in model.spans(prompt)), default=0)

    def needed(kv: KVOptions, name: str) -> int:
        return memory_needed(model.language_model.config, weights, len(prompt), max_tokens, kv, pinned)[name]

    name = doing(method, reliance)
    size, memory = needed(kv, name), backend.memory_total()
    if size <= (1 - SURE) * memory:
        return
    problem = f"This answer needs about {gigabytes(size)}, and this machine has {gigabytes(memory)} of memory"
    remedies = {remedy: needed(less, instead) for remedy, less, instead in _remedies(model, kv, name)}
    fitting = [remedy for remedy, less in remedies.items() if less <= (1 - SURE) * memory]
    best = fitting[0] if fitting else min(remedies, key=lambda remedy: remedies[remedy], default=None)
    smaller = "give fewer or smaller pictures, a shorter text or a smaller model"
    do = smaller if best is None else f"{best} needs about {gigabytes(remedies[best])}"
    if best is not None and not fitting:
        do += f", so {smaller}"
    if size > (1 + SURE) * memory:
        raise BackendError(f"{problem}: {do}.")
    yield f"Note: {problem[0].lower()}{problem[1:]}: {do}."


def _remedies(model: Model, kv: KVOptions, name: str) -> Iterator[tuple[str, KVOptions, str]]:
    """What a user may do to need less, the mildest first."""
    config = model.language_model.config
    if kv.prefill_step_size > SHORT_STEP:
        yield f"--prefill-step-size {SHORT_STEP}", replace(kv, prefill_step_size=SHORT_STEP), name
    group = next((group for group in reversed(GROUPS) if group <= 64 and config.dim % group == 0), None)
    for bits in BITS:
        if group is not None and (kv.kv_bits is None or bits < kv.kv_bits):
            option = f"--kv-bits {bits} --kv-group-size {group} --quantized-kv-start 0 --prefill-step-size {SHORT_STEP}"
            less = KVOptions(bits, group, 0, kv.max_kv_size, min(SHORT_STEP, kv.prefill_step_size))
            yield option, less, name
    if name == "lime exact":
        yield "--method lime", kv, "lime fast"
    if name != "plain":
        yield "--method none", kv, "plain"


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
