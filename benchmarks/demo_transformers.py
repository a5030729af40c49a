"""Open the demo checkpoint with transformers and store what it computes, for tests/test_demo.py.

    python benchmarks/demo_transformers.py        # needs torch and transformers; writes tests/fixtures/demo.npz

Stored: pixels (a part), token ids, logits at the last position, and 24 greedy tokens, for two scenes and a question.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPImageProcessor, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from lime_mlx.scenes import make_scene

ROOT = Path(__file__).parents[1]
ASKED = (
    (220_000, "ordinary", "What is in the picture?"),
    (220_001, "adversarial", "What is in the picture?"),
    (220_001, "adversarial", "Is there a dog in the picture?"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "lime_mlx" / "demo" / "picture")
    parser.add_argument("--output", type=Path, default=ROOT / "tests" / "fixtures" / "demo.npz")
    arguments = parser.parse_args()
    model = LlavaForConditionalGeneration.from_pretrained(arguments.model, dtype=torch.float32).eval()
    pictures = CLIPImageProcessor.from_pretrained(arguments.model)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(arguments.model)
    template = (arguments.model / "chat_template.jinja").read_text()
    count = json.loads((arguments.model / "config.json").read_text())["image_seq_length"]
    stored = {}
    for index, (seed, regime, text) in enumerate(ASKED):
        scene = make_scene(seed, regime)
        pixels = pictures(scene.image, return_tensors="pt")["pixel_values"]
        message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
        said = tokenizer.apply_chat_template(
            [message], chat_template=template, tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(said.replace("<image>", "<image>" * count), return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=ids, pixel_values=pixels).logits[0, -1]
            tokens = model.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=24, do_sample=False)
        tokens = tokens[0, ids.shape[1] :].numpy()
        stored |= {
            f"pixels_{index}": pixels[0, :, ::8, ::8].numpy(),
            f"ids_{index}": ids[0].numpy(),
            f"logits_{index}": logits.numpy(),
            f"tokens_{index}": tokens,
        }
        print(text, "->", tokenizer.decode(tokens, skip_special_tokens=True))
    np.savez_compressed(arguments.output, asked=json.dumps(ASKED), **stored)


if __name__ == "__main__":
    main()
