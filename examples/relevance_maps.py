"""Draw where each word of an answer came from: the picture, one map a word, and the answer coloured by reliance.

python examples/relevance_maps.py [PICTURE] [OUTPUT.png] [MODEL]        # needs matplotlib
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lime_mlx import generate, load
from lime_mlx.media.image import open_image
from lime_mlx.words import words

here = Path(__file__).parent
arguments = dict(enumerate(sys.argv[1:]))
picture = open_image(arguments.get(0, here / "scene.png"))
output = arguments.get(1, "relevance_maps.png")
model, processor = load(arguments.get(2, "demo"))
question = "What is in the picture?"
colours = plt.get_cmap("RdYlGn")

span = model.spans(processor.prompt(question, images=[picture]))[0]
side = int(len(span) ** 0.5)
answers = {m: generate(model, processor, question, image=picture, method=m, relevance=True) for m in ("none", "lime")}
told = answers["lime"]
named = [
    (piece.strip(), relevance[span.start : span.stop].reshape(side, side))
    for piece, token, relevance in zip(told.pieces, told.tokens, told.relevance, strict=True)
    if processor.content[token]
]

figure, axes = plt.subplots(1, 1 + len(named), figsize=(2.1 * (1 + len(named)), 3.2), squeeze=False)
for axis, (title, heat) in zip(axes[0], [("", None), *named], strict=True):
    axis.imshow(picture.resize((256, 256)))
    axis.set_title(title, fontsize=12)
    axis.axis("off")
    if heat is not None:
        positive = np.maximum(heat, 0) / max(heat.max(), 1e-9)
        axis.imshow(
            np.ones((side, side)), cmap="gray", vmin=0, vmax=1, alpha=0.75 * (1 - positive), extent=(0, 256, 256, 0)
        )
figure.subplots_adjust(left=0.02, right=0.98, top=0.92, bottom=0.34, wspace=0.06)

renderer = figure.canvas.get_renderer()
for line, (method, answer) in enumerate(answers.items()):
    x, y = 0.02, 0.22 - 0.14 * line
    label = figure.text(x, y, f"{'plain' if method == 'none' else method}:  ", fontsize=11, color="gray")
    for word in words(zip(answer.pieces, answer.shares, strict=True)):
        x += label.get_window_extent(renderer).width / figure.bbox.width + 0.004
        share = word.shares.media
        text = f"{word.text.strip()}\n{100 * share:.0f} %"
        box = {"facecolor": colours(share), "edgecolor": "none", "pad": 2, "alpha": 0.8}
        label = figure.text(x, y, text, fontsize=10, bbox=box, ha="left", linespacing=1.3)
figure.savefig(output, dpi=130)
print(f"wrote {output}")
