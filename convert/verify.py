"""Checks of an output: it holds every tensor, and its logits are near those of the source."""

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx import backend
from lime_mlx.checkpoint.files import header, model_type, read_config, shards
from lime_mlx.checkpoint.load import held, load_model, load_processor, open_model
from lime_mlx.errors import ConversionError, LimeError
from lime_mlx.media.audio import Sound
from lime_mlx.models import family, takes
from lime_mlx.models.decoder import DecoderConfig
from lime_mlx.prompt import Prompt
from lime_mlx.scenes import PROMPTS, SOUND_PROMPTS, make_scene, make_sound
from lime_mlx.support.statistics import log_softmax

FARTHEST = 0.1  # relative distance of the logits of a conversion that only copies and casts
TOKENS = 8
LAST = 32  # positions that are compared
REGIME = "ordinary"


@dataclass(frozen=True)
class LogitComparison:
    """Logits of the output against those of the source.

    distance: relative, in the L2 norm; kl: KL(source || output) in nats, mean over positions; same: share of positions
    with the same most likely token; kind: of the prompt, "image", "audio" or "text".
    """

    distance: float
    kl: float
    same: float
    positions: int
    kind: str


def check_structure(folder: Path, names: list[str]) -> None:
    """Check that the files of a folder are whole, hold every tensor of the plan, and fit their config.json.

    Raises `ConversionError`, and what `load` raises.
    """
    stored = [name for path in shards(folder) for name in header(path)]
    if sorted(stored) != sorted(names):
        odd = min(set(stored) ^ set(names), default="a tensor that is there twice")
        raise ConversionError(f"The files in {folder} do not hold what was planned: {odd}; convert again with --force.")
    open_model(folder)


def compare(source: Path, folder: Path, exact: bool) -> LogitComparison | None:
    """Run both on one small prompt, one after the other; None where the memory is too small for that.

    Raises `ConversionError` when logits are not finite, or when `exact` and they are far from those of the source.
    """
    if not backend.fits(max(held(open_model(path)[1]) for path in (source, folder)), backend.COMFORTABLE):
        return None
    prompt, kind = example_prompt(source)
    expected, actual = (last_logits(path, prompt) for path in (source, folder))
    result = LogitComparison(
        float(np.linalg.norm(actual - expected) / max(np.linalg.norm(expected), 1e-30)),
        float(divergence(expected, actual).mean()),
        float((expected.argmax(axis=-1) == actual.argmax(axis=-1)).mean()),
        len(expected),
        kind,
    )
    if not np.isfinite(actual).all() or (exact and not result.distance < FARTHEST):
        raise ConversionError(
            f"The logits of the output are not those of the source (relative distance {result.distance:.2g}): nothing "
            "was written; take another --dtype, or report this with the name of the model."
        )
    return result


def example_prompt(folder: Path) -> tuple[Prompt, str]:
    """A prompt with a picture or a sound, where the folder has what that takes; else a few tokens of text."""
    config = read_config(folder)
    media = takes(model_type(config))
    try:
        processor = load_processor(folder)
        if "image" in media:
            return processor.prompt(PROMPTS[0], images=[make_scene(0, REGIME).image]), "image"
        if "audio" in media:
            scene = make_sound(0, REGIME)
            return processor.prompt(SOUND_PROMPTS[0], audio=[Sound(scene.samples, scene.rate)]), "audio"
        return processor.prompt(PROMPTS[1]), "text"
    except LimeError:
        vocabulary = DecoderConfig.from_dict(family(model_type(config)).text(config)).vocab_size
        return Prompt(range(vocabulary // 2, vocabulary // 2 + TOKENS)), "text"


def last_logits(folder: Path, prompt: Prompt) -> NDArray[np.float32]:
    """(N, V): the logits of a checkpoint at the last positions of a prompt."""
    model = load_model(folder)
    logits: NDArray[np.float32] = np.array(model.logits(prompt)[-LAST:])
    del model
    mx.clear_cache()
    return logits


def divergence(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> NDArray[np.float64]:
    """KL(expected || actual) in nats of logits (N, V), at every position (N,)."""
    log_p, log_q = (np.stack([log_softmax(row) for row in logits]) for logits in (expected, actual))
    nats: NDArray[np.float64] = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    return nats
