"""Describe a picture with two methods, and print for every token how much of it came from the picture.

python examples/grounded_words.py [PICTURE] [MODEL]
"""

import sys
from pathlib import Path

from lime_mlx import generate, load

picture = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("scene.png")
model, processor = load(sys.argv[2] if len(sys.argv) > 2 else "demo")

for method in ("none", "lime"):
    answer = generate(model, processor, "What is in the picture?", image=picture, method=method, max_tokens=64)
    print(f"{method}: {answer.text.strip()}")
    for word in answer.words:
        if word.shares is not None:
            print(f"  {word.shares.reliance:4.0%} {word.name}")
