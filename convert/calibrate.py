"""Bits where they protect grounding: how much each layer's quantisation changes what is said, and what it rests on.

Each layer is quantised alone, at a few numbers of bits, and the model run on a few answers of its own. The damage of a
layer is the divergence of the logits, KL(float || quantised), plus the squared change of the answer's reliance on the
picture or the sound, each as a share of its sum over all layers. Near zero both grow with the squared error of the
weights, by which they are carried over to the numbers of bits that were not run. Bits then go where they take away most
damage for their size: the greedy solution of the knapsack problem with several choices for each item.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import mlx.core as mx
import numpy as np

from lime_mlx.checkpoint.files import read_config
from lime_mlx.checkpoint.load import load_model, load_processor
from lime_mlx.errors import ConversionError
from lime_mlx.generation import decode
from lime_mlx.lrp.relevance import relevance, reliance
from lime_mlx.media.audio import Sound
from lime_mlx.media.image import open_image
from lime_mlx.models import takes
from lime_mlx.processor import Processor
from lime_mlx.prompt import Prompt
from lime_mlx.scenes import PROMPTS, SOUND_PROMPTS, make_scene, make_sound

from .schemes import BITS, RECIPES, Scheme, dequantize, quantize
from .verify import divergence

MEASURED = (2, 3, 4)
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
TOKENS = 24
FIRST_SEED, REGIME = 300_000, "ordinary"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Calibration:
    """`relevance:bits=3.5,samples=16,weight=1`.

    bits: average for each quantised weight, scales not counted. samples: pictures or sounds. weight: of the reliance
    beside the logits. data: a folder of pictures, else scenes of our own. Raises `ConversionError`.
    """

    bits: float
    samples: int = 16
    weight: float = 1.0
    data: str | None = None

    def __post_init__(self):
        if not BITS[0] <= self.bits <= BITS[-1]:
            raise ConversionError(f"relevance: bits is {self.bits:g}; it must be from {BITS[0]} to {BITS[-1]}.")
        if self.samples < 1 or not 0 <= self.weight < np.inf:
            raise ConversionError("relevance: samples must be at least 1, and weight must not be negative.")

    @classmethod
    def parse(cls, spec: str, data: str | None = None) -> "Calibration":
        name, _, rest = spec.partition(":")
        kinds = {field.name: field.type for field in fields(cls) if field.name != "data"}
        try:
            pairs = dict(pair.split("=") for pair in rest.split(",") if rest)
            values = {key: kinds[key](value) for key, value in pairs.items()}
            if name != "relevance" or "bits" not in values:
                raise ValueError
        except (KeyError, ValueError):
            raise ConversionError(
                f"There is no quant predicate {spec!r}; choose {', '.join(RECIPES)}, or "
                "relevance:bits=3.5 (with samples=16 and weight=1, if you like)."
            ) from None
        return cls(**values, data=data)


@dataclass(frozen=True)
class Sensitivity:
    """What quantising one layer does, by bits: divergence in nats, and the squared change of the reliance."""

    size: int
    divergence: Mapping[int, float]
    reliance: Mapping[int, float]


@dataclass(frozen=True)
class Answer:
    """A prompt with the float model's answer, its logits (N, V) there, and a word of it with its reliance.

    `word` is the sequence up to the last token that names something, `target`; None where nothing was seen or named.
    """

    prompt: Prompt
    logits: np.ndarray
    word: Prompt | None
    target: int
    reliance: float


def calibrate(
    source: Path, paths: Sequence[str], scheme: Scheme, calibration: Calibration, progress: Progress
) -> tuple[dict[str, int], dict[str, Sensitivity]]:
    """Bits of each layer of `paths`, and what was measured. The model of `source` must fit in memory, as float."""
    model, processor = load_model(source), load_processor(source)
    prompts = questions(processor, read_config(source)["model_type"], calibration)
    answers = [answered(model, processor, prompt) for prompt in prompts]
    modules, found = dict(model.named_modules()), {}
    for done, path in enumerate(paths):
        progress("calibrate", done, len(paths))
        found[path] = measured(model, modules[path], answers, scheme)
    progress("calibrate", len(paths), len(paths))
    return allocate(damages(found, calibration.weight), {p: s.size for p, s in found.items()}, calibration.bits), found


def questions(processor: Processor, kind: str, calibration: Calibration) -> Iterator[Prompt]:
    """What the model is asked: about pictures or sounds, or, if it reads text only, in words."""
    seeds = range(FIRST_SEED, FIRST_SEED + calibration.samples)
    if calibration.data is not None:
        files = sorted(path for path in Path(calibration.data).glob("*") if path.suffix.lower() in PICTURES)
        if not files or "image" not in takes(kind):
            problem = "has no pictures" if "image" in takes(kind) else "is of no use to a model that takes no pictures"
            raise ConversionError(f"The folder {calibration.data} {problem}; leave --calibration-data out.")
        yield from (processor.prompt(PROMPTS[0], images=[open_image(path)]) for path in files[: calibration.samples])
    elif "image" in takes(kind):
        yield from (processor.prompt(PROMPTS[0], images=[make_scene(seed, REGIME).image]) for seed in seeds)
    elif "audio" in takes(kind):
        for seed in seeds:
            scene = make_sound(seed, REGIME)
            yield processor.prompt(SOUND_PROMPTS[0], audio=[Sound(scene.samples, scene.rate)])
    else:
        yield from map(processor.prompt, TEXTS[: calibration.samples])


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


def answered(model, processor: Processor, prompt: Prompt) -> Answer:
    stop = frozenset(processor.eos_token_ids)
    said = [step.token for step in decode(model, prompt, "none", TOKENS, reliance=False, stop=stop)]
    whole = _longer(prompt, said)
    named = [index for index, token in enumerate(said) if processor.content[token]]
    word = _longer(prompt, said[: named[-1]]) if named and model.modality(prompt).any() else None
    target = said[named[-1]] if named else said[-1]
    return Answer(
        whole, _logits(model, whole, len(said)), word, target, 0.0 if word is None else _rests(model, word, target)
    )


def measured(model, module, answers: Sequence[Answer], scheme: Scheme) -> Sensitivity:
    """Run the answers with one layer quantised; the layer is as it was afterwards."""
    weight = module.weight
    errors, changed, moved = {}, {}, {}
    for bits in BITS:
        kind = Scheme(bits, scheme.group_size)
        rounded = dequantize(quantize(weight, kind), kind).astype(weight.dtype)
        errors[bits] = (rounded - weight).astype(mx.float32).square().mean().item()
        if bits not in MEASURED:
            continue
        module.weight = rounded
        changed[bits], moved[bits] = (float(x) for x in np.mean([_damage(model, one) for one in answers], axis=0))
        module.weight = weight
    last = MEASURED[-1]
    for bits in BITS:
        share = errors[bits] / max(errors[last], 1e-30)
        changed.setdefault(bits, share * changed[last])
        moved.setdefault(bits, share * moved[last])
    mx.clear_cache()
    return Sensitivity(weight.size, changed, moved)


def damages(found: Mapping[str, Sensitivity], weight: float) -> dict[str, dict[int, float]]:
    """Damage of each layer by bits: shares of the divergence and of the change of reliance, at 3 bits, added up."""
    total = sum(one.divergence[3] for one in found.values()) or 1.0
    moved = sum(one.reliance[3] for one in found.values()) or 1.0
    return {
        path: {bits: one.divergence[bits] / total + weight * one.reliance[bits] / moved for bits in BITS}
        for path, one in found.items()
    }


def allocate(damage: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], average: float) -> dict[str, int]:
    """Bits of each layer, `average` or less over all weights, that take away the most damage, step by step.

    A step goes to the number of bits with the steepest fall of damage for its size.
    """
    chosen = dict.fromkeys(damage, BITS[0])
    left = (average - BITS[0]) * sum(sizes.values())
    queue = [step for path in damage if (step := _step(damage[path], path, BITS[0], sizes[path]))]
    heapq.heapify(queue)
    while queue:
        _, path, bits = heapq.heappop(queue)
        cost = (bits - chosen[path]) * sizes[path]
        if cost > left + 1e-6:
            shorter = {b: damage[path][b] for b in BITS if b < bits}
            step = _step(shorter, path, chosen[path], sizes[path])
        else:
            left, chosen[path] = left - cost, bits
            step = _step(damage[path], path, bits, sizes[path])
        if step:
            heapq.heappush(queue, step)
    return chosen


def _step(damage: Mapping[int, float], path: str, now: int, size: int) -> tuple[float, str, int] | None:
    """(minus the fall of damage for each bit, path, bits) of the best next step from `now`; None at the top."""
    steps = [((damage[b] - damage[now]) / ((b - now) * size), path, b) for b in damage if b > now]
    return min(steps, default=None)


def _damage(model, answer: Answer) -> tuple[float, float]:
    found = _logits(model, answer.prompt, len(answer.logits))
    moved = 0.0 if answer.word is None else _rests(model, answer.word, answer.target) - answer.reliance
    return float(divergence(answer.logits, found).mean()), moved**2


def _logits(model, whole: Prompt, count: int) -> np.ndarray:
    """(count, V): those that the last `count` tokens of a sequence were picked from."""
    return np.array(model.logits(whole)[-count - 1 : -1])


def _rests(model, word: Prompt, target: int) -> float:
    return reliance(relevance(model, word, target=target), model.modality(word))


def _longer(prompt: Prompt, tokens: Sequence[int]) -> Prompt:
    return replace(prompt, input_ids=np.concatenate([prompt.input_ids, np.array(tokens, dtype=np.int32)]))
