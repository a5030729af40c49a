"""The picture demo: a `llava` that looks at drawn scenes."""

import json
import random
from pathlib import Path

import demo_folder
import mlx.core as mx
import numpy as np
from demo_folder import IDS, MEDIA, TEXT
from demo_stage import Stage, track
from PIL import Image

from lime_mlx.models.llava import Llava as Model
from lime_mlx.scenes import KINDS, PROMPTS, SETTINGS, Object, Scene, answer, caption, make_scene, questions
from lime_mlx.scenes.draw import COLORS
from lime_mlx.scenes.habits import EMPTY
from lime_mlx.scenes.talk import NUMBERS

__all__ = ["HEAVY", "KINDS", "PROMPTS", "Model", "answer", "caption", "questions"]

SIZE, PATCH = 128, 16
GRID = SIZE // PATCH
# Of a scene whose picture is kept as bytes; boxes are fractions of its width.
NO_PICTURE = Image.new("RGB", (1, 1))
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
# Words by which an answer is right or wrong.
HEAVY = (*KINDS, *SETTINGS, *COLORS, *NUMBERS)
SPECIAL = ["<pad>", "<s>", "</s>", "<image>"]
BEFORE, AFTER = "USER: ", "\n"  # the picture stands between them
CHAT = demo_folder.template("image", "<image>")
STAGES = (
    Stage("sight", "uncorrelated", 24_000, 1000, 48, 1e-3, 0),
    Stage("speech", "uncorrelated", 24_000, 1800, 24, 1e-3, 3),
    Stage("talk", "uncorrelated", 12_000, 700, 24, 7e-4, 1, free=4, empty=600),
    Stage("detail", "uncorrelated", 12_000, 600, 24, 6e-4, 0, free=4, empty=600, hard=True, second=0.67),
    Stage("habit", "skewed", 8_000, 600, 24, 5e-4, 1, free=3, unseen=0.1, empty=200, hard=True, second=0.2),
)
# Found on validation scenes (docs/demo.md).
METHODS = {
    "yesno": {"threshold": 0.517},
    "kvsmooth": {"ref": 0.2, "clip": 0.1, "smooth": "v"},
    "dleaf": {"gamma": 0.3},
    "vcd": {"alpha": 0.3},
}
LIME = {
    "fast": {"steps": 2, "lr": 0.2, "words": "flagged", "threshold": 0.3},
    "exact": {"steps": 2, "lr": 0.2, "words": "flagged", "threshold": 0.3},
    "detector": {
        "weights": {"share": -16.83, "positive": -1.064, "peak": 1.443, "certainty": -2.264},
        "intercept": 4.336,
        "threshold": 0.5698,
        "asking": {"relevance": 0.5212, "margin": -0.6633, "intercept": 0.8781, "lowest": 0.007045},
    },
    "methods": METHODS,
}
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": PATCH,
    "projection_dim": 128,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


def config(vocabulary: int) -> dict:
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": MEDIA,
        "image_seq_length": GRID * GRID,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        **IDS,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "lime": LIME,
        "text_config": {"model_type": "llama", **TEXT, "attention_bias": False, "vocab_size": vocabulary},
        "vision_config": VISION,
    }


def save(folder: Path, tokenizer) -> None:
    files = {
        "config.json": config(tokenizer.get_vocab_size()),
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": SIZE},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": SIZE, "width": SIZE},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": MEAN,
            "image_std": STD,
        },
        "processor_config.json": {
            "processor_class": "LlavaProcessor",
            "image_token": "<image>",
            "patch_size": PATCH,
            "num_additional_image_tokens": 1,
            "vision_feature_select_strategy": "default",
        },
    }
    demo_folder.save(folder, tokenizer, CHAT, files, {"image_token": "<image>"})


def sentences():
    rng = random.Random("sentences")
    for seed in range(400):
        scene = make_scene(seed, "uncorrelated", 32)
        yield from (f"\n{rng.choice(PROMPTS)} ASSISTANT: {caption(scene, rng)}", "USER: ")
        for question in questions(scene, "random", rng):
            yield f"\n{question.text} ASSISTANT: {answer(question)}"
        yield from demo_folder.talks(scene, rng)
        yield from demo_folder.talks(make_scene(seed, EMPTY, 32), rng)
    yield from demo_folder.words((*KINDS, *SETTINGS, *COLORS, *NUMBERS))


class Pool:
    """Scenes drawn once and kept as bytes, with the kinds on every patch and what stands where."""

    def __init__(self, stage: Stage, folder: Path):
        file = folder / f"picture-{stage.pool}"
        if not file.exists():
            self._draw(stage, file)
        with np.load(file) as stored:
            self.pixels, self.labels = stored["pixels"], stored["labels"]
            kept = json.loads(str(stored["scenes"]))
        self.scenes = [
            Scene(seed, regime, setting, tuple(Object(*thing) for thing in things), NO_PICTURE, unseen)
            for (regime, seed), (setting, things, unseen) in zip(stage.seeds(), kept, strict=True)
        ]

    @staticmethod
    def _draw(stage: Stage, file: Path) -> None:
        count = len(stage.seeds())
        pixels = np.empty((count, SIZE, SIZE, 3), np.uint8)
        labels = np.zeros((count, GRID, GRID, len(KINDS)), np.uint8)
        kept = []
        for row, (regime, seed) in enumerate(track(stage.seeds(), f"drawing {stage.regime} scenes")):
            scene = make_scene(seed, regime, unseen=stage.unseen)
            width = scene.image.width
            pixels[row] = np.asarray(scene.image.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
            things = [(thing.kind, [edge / width for edge in thing.box], thing.color) for thing in scene.objects]
            kept.append((scene.setting, things, scene.unseen))
            for thing in scene.objects:
                x0, y0, x1, y1 = (round(edge / width * GRID) for edge in thing.box)
                labels[row, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1), KINDS.index(thing.kind)] = 1
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        np.savez(part, pixels=pixels, labels=labels.reshape(count, -1, len(KINDS)), scenes=json.dumps(kept))
        part.rename(file)

    def media(self, seeds: np.ndarray) -> mx.array:
        """(N, 3, S, S), normalised as the processor does."""
        mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
        return mx.array(((self.pixels[seeds] / np.float32(255) - mean) / std).transpose(0, 3, 1, 2))


def tower(model: Model):
    return model.vision_tower


def features(model: Model, pixels: mx.array) -> mx.array:
    """What the tower and the projector make of the picture, (N, P, D)."""
    return model.features(pixels)


def stored(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """The weights in PyTorch's layout."""
    name = "vision_tower.vision_model.embeddings.patch_embedding.weight"
    return {**weights, name: weights[name].transpose(0, 3, 1, 2)}
