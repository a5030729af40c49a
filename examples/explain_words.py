"""Explain an answer: print each word with its shares and its verdict, and save a page with a map for each word.

python examples/explain_words.py [FILE] [OUTPUT.html] [MODEL]        # FILE is a picture
"""

import sys
from pathlib import Path

from lime_mlx import explain, load

arguments = dict(enumerate(sys.argv[1:]))
picture = arguments.get(0, Path(__file__).with_name("scene.png"))
output = arguments.get(1, "explain_words.html")
model, processor = load(arguments.get(2, "demo"))

explanation = explain(model, processor, "What is in the picture?", image=picture, max_tokens=64)
print(explanation.text.strip())
for word in explanation.words:
    line = f"  {word.name:12}"
    if word.shares is not None:
        line += f" image {word.shares.image:4.0%}  prompt {word.shares.prompt:4.0%}  own {word.shares.own:4.0%}"
    if word.p_unsupported is not None:
        line += f"  p_unsupported {word.p_unsupported:.2f}{' flagged' if word.flagged else ''}"
    print(line)
for warning in explanation.warnings:
    print(warning)
explanation.save(output)
print(f"wrote {output}")
