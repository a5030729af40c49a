"""Draw a picture with one map for each named word, and the answers of two methods coloured by reliance.

python examples/relevance_maps.py [PICTURE] [OUTPUT.png] [MODEL]        # needs matplotlib
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lime_mlx import explain, load
from lime_mlx.media.image import open_image

here = Path(__file__).parent
arguments = dict(enumerate(sys.argv[1:]))
picture = open_image(arguments.get(0, here / "scene.png"))
output = arguments.get(1, "relevance_maps.png")
model, processor = load(arguments.get(2, "demo"))
question = "What is in the picture?"
colours = plt.get_cmap("RdYlGn")

explanations = {m: explain(model, processor, question, image=picture, method=m) for m in ("none", "lime")}
maps = [
    (word.name, explanations["lime"].map(word))
    for word in explanations["lime"].words
    if word.rank is not None  # only words that name something have a rank
]

figure, axes = plt.subplots(1, 1 + len(maps), figsize=(2.1 * (1 + len(maps)), 3.2), squeeze=False)
for axis, (title, relevance) in zip(axes[0], [("", None), *maps], strict=True):
    axis.imshow(picture.resize((256, 256)))
    axis.set_title(title, fontsize=12)
    axis.axis("off")
    if relevance is not None:
        positive = np.maximum(relevance, 0) / max(relevance.max(), 1e-9)
        shade = 0.75 * (1 - positive)
        axis.imshow(np.ones_like(positive), cmap="gray", vmin=0, vmax=1, alpha=shade, extent=(0, 256, 256, 0))
figure.subplots_adjust(left=0.02, right=0.98, top=0.92, bottom=0.34, wspace=0.06)

for line, (method, explanation) in enumerate(explanations.items()):
    x, y = 0.02, 0.22 - 0.14 * line
    label = figure.text(x, y, f"{'plain' if method == 'none' else method}:  ", fontsize=11, color="gray")
    for word in explanation.words:
        if word.shares is None:
            continue
        x += label.get_window_extent().width / figure.bbox.width + 0.004
        reliance = word.shares.reliance
        box = {"facecolor": colours(reliance), "edgecolor": "none", "pad": 2, "alpha": 0.8}
        text = f"{word.name}\n{100 * reliance:.0f} %"
        label = figure.text(x, y, text, fontsize=10, bbox=box, ha="left", linespacing=1.3)
figure.savefig(output, dpi=130)
print(f"wrote {output}")
