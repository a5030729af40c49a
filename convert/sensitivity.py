"""How much the quantisation of each layer changes the answers of a model, and what they rest on.

Each layer is quantised alone, at a few numbers of bits, and the model runs on a few answers of its own. The damage of a
layer is the divergence of the logits, KL(float || quantised), plus the squared change of the answer's reliance on the
picture or the sound, each as a share of its sum over all layers. Near zero both grow with the squared error of the
weights. By that error they are carried over to the numbers of bits that were not run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.checkpoint.files import model_type, read_config
from lime_mlx.checkpoint.load import load_model, load_processor, modules
from lime_mlx.decoding import decode
from lime_mlx.errors import ConversionError
from lime_mlx.lrp.relevance import relevance, reliance
from lime_mlx.media.audio import Sound
from lime_mlx.media.formats import is_picture_name
from lime_mlx.media.image import open_image
from lime_mlx.models import takes
from lime_mlx.models.base import Model
from lime_mlx.processor import Processor
from lime_mlx.prompt import Prompt
from lime_mlx.scenes import PROMPTS, SOUND_PROMPTS, make_scene, make_sound

from .options import RelevanceRecipe
from .schemes import BITS, Scheme, dequantize, quantize
from .verify import divergence

MEASURED = (2, 3, 4)  # bits at which the model runs
TOKENS = 24
FIRST_SEED, REGIME = 300_000, "ordinary"
TEXTS = (
    "Why is the sky blue?",
    "Write a short story about a fisherman.",
    "How do I sort a list of numbers in Python?",
    "Name the countries that border Switzerland.",
    "What is 17 times 23? Explain each step.",
    "Translate into French: the train leaves at noon.",
    "What should I cook with potatoes, leeks and cream?",
    "Summarise what a contract is in two sentences.",
)
Progress = Callable[[str, int, int], None]


class Weighted(Protocol):
    """A layer that can be quantised."""

    weight: mx.array


@dataclass(frozen=True)
class Sensitivity:
    """What the quantisation of one layer does, by bits: divergence in nats, and the squared change of the reliance.

    size: weights of the layer.
    """

    size: int
    divergence: Mapping[int, float]
    reliance: Mapping[int, float]


@dataclass(frozen=True)
class ReferenceAnswer:
    """A prompt with the answer of the float model, its logits (N, V) there, and a word of it with its reliance.

    `word` is the sequence before the last content token, which is `target`. It is None where the answer has no such
    token, or the prompt no picture and no sound.
    """

    prompt: Prompt
    logits: NDArray[np.float32]
    word: Prompt | None
    target: int
    reliance: float


def measure(
    source: Path, paths: Sequence[str], scheme: Scheme, recipe: RelevanceRecipe, progress: Progress
) -> dict[str, Sensitivity]:
    """The sensitivity of each layer of `paths`. The model of `source` must fit in memory, as float.

    Raises `ConversionError` for a folder of pictures that is of no use.
    """
    model, processor = load_model(source), load_processor(source)
    prompts = sample_prompts(processor, model_type(read_config(source)), recipe)
    answers = [reference_answer(model, processor, prompt) for prompt in prompts]
    layers, sensitivity = modules(model), {}
    for done, path in enumerate(paths):
        progress("measure", done, len(paths))
        sensitivity[path] = measure_layer(model, cast(Weighted, layers[path]), answers, scheme)
    progress("measure", len(paths), len(paths))
    return sensitivity


def sample_prompts(processor: Processor, family: str, recipe: RelevanceRecipe) -> Iterator[Prompt]:
    """Prompts about pictures or sounds; for a family that reads text only, in words. Raises `ConversionError`."""
    media, seeds = takes(family), range(FIRST_SEED, FIRST_SEED + recipe.samples)
    if recipe.data is not None:
        for path in _pictures(Path(recipe.data), media)[: recipe.samples]:
            yield processor.prompt(PROMPTS[0], images=[open_image(path)])
    elif "image" in media:
        for seed in seeds:
            yield processor.prompt(PROMPTS[0], images=[make_scene(seed, REGIME).image])
    elif "audio" in media:
        for seed in seeds:
            scene = make_sound(seed, REGIME)
            yield processor.prompt(SOUND_PROMPTS[0], audio=[Sound(scene.samples, scene.rate)])
    else:
        yield from map(processor.prompt, TEXTS[: recipe.samples])


def _pictures(folder: Path, media: Sequence[str]) -> list[Path]:
    paths = sorted(filter(is_picture_name, folder.glob("*")))
    if not paths or "image" not in media:
        problem = "has no pictures" if "image" in media else "is of no use to a model that takes no pictures"
        raise ConversionError(f"The folder {folder} {problem}; leave --calibration-data out.")
    return paths


def reference_answer(model: Model, processor: Processor, prompt: Prompt) -> ReferenceAnswer:
    """Let the float model answer, greedily and with at most `TOKENS` tokens."""
    stop = frozenset(processor.eos_token_ids)
    tokens = [step.token for step in decode(model, prompt, "none", TOKENS, reliance=False, stop=stop)]
    whole = _continued(prompt, tokens)
    content = [index for index, token in enumerate(tokens) if processor.content[token]]
    word = _continued(prompt, tokens[: content[-1]]) if content and model.modality(prompt).any() else None
    target = tokens[content[-1]] if content else tokens[-1]
    rests_on = 0.0 if word is None else _reliance(model, word, target)
    return ReferenceAnswer(whole, _answer_logits(model, whole, len(tokens)), word, target, rests_on)


def measure_layer(model: Model, layer: Weighted, answers: Sequence[ReferenceAnswer], scheme: Scheme) -> Sensitivity:
    """Run the answers with one layer quantised; the layer is as it was afterwards."""
    weight = layer.weight
    errors: dict[int, float] = {}
    divergences: dict[int, float] = {}
    changes: dict[int, float] = {}
    for bits in BITS:
        kind = Scheme(bits, scheme.group_size)
        rounded = dequantize(quantize(weight, kind), kind).astype(weight.dtype)
        errors[bits] = _float((rounded - weight).astype(mx.float32).square().mean())
        if bits not in MEASURED:
            continue
        layer.weight = rounded
        damage = np.mean([_damage(model, answer) for answer in answers], axis=0)
        divergences[bits], changes[bits] = float(damage[0]), float(damage[1])
        layer.weight = weight
    last = MEASURED[-1]
    for bits in BITS:
        share = errors[bits] / max(errors[last], 1e-30)
        divergences.setdefault(bits, share * divergences[last])
        changes.setdefault(bits, share * changes[last])
    mx.clear_cache()
    return Sensitivity(weight.size, divergences, changes)


def damages(sensitivity: Mapping[str, Sensitivity], weight: float) -> dict[str, dict[int, float]]:
    """Damage of each layer by bits: shares of the divergence and of the change of reliance, at 3 bits, added up."""
    divergences = sum(layer.divergence[3] for layer in sensitivity.values()) or 1.0
    changes = sum(layer.reliance[3] for layer in sensitivity.values()) or 1.0
    return {
        path: {bits: layer.divergence[bits] / divergences + weight * layer.reliance[bits] / changes for bits in BITS}
        for path, layer in sensitivity.items()
    }


def _float(number: mx.array) -> float:
    return float(np.array(number))


def _damage(model: Model, answer: ReferenceAnswer) -> tuple[float, float]:
    """Divergence of the logits, and the squared change of the reliance."""
    logits = _answer_logits(model, answer.prompt, len(answer.logits))
    change = 0.0 if answer.word is None else _reliance(model, answer.word, answer.target) - answer.reliance
    return float(divergence(answer.logits, logits).mean()), change**2


def _answer_logits(model: Model, whole: Prompt, count: int) -> NDArray[np.float32]:
    """(count, V): the logits that the last `count` tokens of a sequence were picked from."""
    return np.array(model.logits(whole)[-count - 1 : -1])


def _reliance(model: Model, word: Prompt, target: int) -> float:
    return reliance(relevance(model, word, target=target), model.modality(word))


def _continued(prompt: Prompt, tokens: Sequence[int]) -> Prompt:
    return replace(prompt, input_ids=np.concatenate([prompt.input_ids, np.array(tokens, dtype=np.int32)]))
