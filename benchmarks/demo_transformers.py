"""Open the demo checkpoints with transformers and store what it computes, for tests/test_demo.py.

    python benchmarks/demo_transformers.py        # needs torch and transformers; writes tests/fixtures/demo_*.npz

Stored: a part of the pixels or mel features, token ids, logits at the last position, 24 greedy tokens; two scenes and
a question.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    CLIPImageProcessor,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2AudioForConditionalGeneration,
    WhisperFeatureExtractor,
)

from lime_mlx.scenes import make_scene, make_sound

ROOT = Path(__file__).parents[1]


def picture(folder: Path, seed: int, regime: str) -> tuple[dict, np.ndarray, int]:
    """Inputs of the model, what is stored of them, and how many tokens the picture takes."""
    pixels = CLIPImageProcessor.from_pretrained(folder)(make_scene(seed, regime).image, return_tensors="pt")
    count = json.loads((folder / "config.json").read_text())["image_seq_length"]
    return dict(pixels), pixels["pixel_values"][0, :, ::8, ::8].numpy(), count


def sound(folder: Path, seed: int, regime: str) -> tuple[dict, np.ndarray, int]:
    scene = make_sound(seed, regime)
    extract = WhisperFeatureExtractor.from_pretrained(folder)
    features = extract(scene.samples, sampling_rate=scene.rate, return_attention_mask=True, return_tensors="pt")
    inputs = {"input_features": features["input_features"], "feature_attention_mask": features["attention_mask"]}
    frames = (int(features["attention_mask"].sum()) - 1) // 2 + 1
    return inputs, features["input_features"][0, :, ::8].numpy(), (frames - 2) // 2 + 1


DEMOS = {
    "picture": (
        LlavaForConditionalGeneration,
        picture,
        ("image", "<image>"),
        (
            (220_000, "ordinary", "What is in the picture?"),
            (220_001, "adversarial", "What is in the picture?"),
            (220_001, "adversarial", "Is there a dog in the picture?"),
        ),
    ),
    "sound": (
        Qwen2AudioForConditionalGeneration,
        sound,
        ("audio", "<|AUDIO|>"),
        (
            (220_000, "ordinary", "What do you hear?"),
            (220_001, "adversarial", "What do you hear?"),
            (220_001, "adversarial", "Is there a dog in the sound?"),
        ),
    ),
}


def computed(folder: Path, architecture, inputs_of, placeholder, questions) -> dict[str, np.ndarray]:
    model = architecture.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    template = (folder / "chat_template.jinja").read_text()
    kind, token = placeholder
    stored: dict[str, np.ndarray] = {}
    for index, (seed, regime, text) in enumerate(questions):
        inputs, part, count = inputs_of(folder, seed, regime)
        message = {"role": "user", "content": [{"type": kind}, {"type": "text", "text": text}]}
        question = tokenizer.apply_chat_template(
            [message], chat_template=template, tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(question.replace(token, token * count), return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=ids, **inputs).logits[0, -1]
            tokens = model.generate(input_ids=ids, **inputs, max_new_tokens=24, do_sample=False)
        tokens = tokens[0, ids.shape[1] :].numpy()
        stored |= {
            f"media_{index}": part,
            f"ids_{index}": ids[0].numpy(),
            f"logits_{index}": logits.numpy(),
            f"tokens_{index}": tokens,
        }
        print(text, "->", tokenizer.decode(tokens, skip_special_tokens=True))
    return stored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demos", type=Path, default=ROOT / "lime_mlx" / "demo")
    parser.add_argument("--output", type=Path, default=ROOT / "tests" / "fixtures")
    arguments = parser.parse_args()
    for name, (architecture, inputs_of, placeholder, questions) in DEMOS.items():
        stored: dict[str, Any] = computed(arguments.demos / name, architecture, inputs_of, placeholder, questions)
        np.savez_compressed(arguments.output / f"demo_{name}.npz", asked=json.dumps(questions), **stored)


if __name__ == "__main__":
    main()
