"""About how much memory a model needs while it answers: fitted to measured peaks (docs/convert.md), not guaranteed."""

from lime_mlx.backend import compute_dtype, is_cpu
from lime_mlx.kv import PREFILL
from lime_mlx.models.decoder import DecoderConfig
from lime_mlx.products import piece_size

FLOAT = 4  # bytes of what relevance, deltas and Adam's state are kept in
# Measured: what a block's second derivative holds of attention and MLP.
DUAL_ATTENTION, DUAL_MLP = 12, 20
# Rows of positions that fast LIME's gradient holds for each query head of each layer.
ROWS = 4


def memory_needed(config: DecoderConfig, weights: int, positions: int, answer: int = 256) -> dict[str, int]:
    """Bytes for "plain", "explain", "lime fast" and "lime exact" with a prompt of `positions` tokens and an answer.

    Fast LIME with one update: several hold their deltas as arrays where memory allows it.

    weights: bytes of them as they are held. Exact is with checkpointed blocks, which it takes when memory is short.
    """
    width = compute_dtype().size
    length, layers, heads = positions + answer, config.num_hidden_layers, config.num_attention_heads
    cache = 2 * layers * config.key_heads * config.dim * length
    chunk = min(PREFILL, positions)
    prefill = chunk * (4 * config.hidden_size + 3 * config.intermediate_size) * width
    if is_cpu():  # elsewhere attention is fused
        prefill += 2 * heads * chunk * positions * FLOAT
    plain = cache * width + prefill
    # Reading relevance goes layer by layer in float32: a layer's entries, and one piece of its weights, as copies.
    copies = (2 * config.key_heads * config.dim * length * FLOAT + piece_size()) * (width < FLOAT)
    reading = cache * width + copies
    deltas = 4 * 2 * layers * heads * config.dim * length * FLOAT
    exact = deltas + 2 * layers * length * config.hidden_size * FLOAT
    exact += length * FLOAT * (DUAL_ATTENTION * heads * length + DUAL_MLP * config.intermediate_size)
    extra = {
        "plain": plain,
        "explain": max(plain, reading),
        "lime fast": max(plain, reading + ROWS * layers * heads * length * FLOAT),
        "lime exact": max(plain, exact),
    }
    return {name: weights + size for name, size in extra.items()}
