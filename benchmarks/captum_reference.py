"""Captum's perturbation of pictures as an outside reference for the maps. It needs torch and captum (0.9 or later).

    python benchmarks/captum_reference.py --scenes 20 --part test

Captum's ImageMaskInput cuts each drawn scene into the 8 x 8 cells of its map, with the mean colour of the picture in
the place of what is absent. FeatureAblation takes one cell away; ShapleyValueSampling takes cells away in random orders
(`--samples` of them) and averages what each cell adds. Both explain the log-probability of the first right word of each
answer. Printed, with intervals over scenes at 95 %: the largest difference between Captum's FeatureAblation and
`perturbation` of faithfulness.py; Spearman's correlation of each kind of map with Captum's; and the faithfulness
(insertion less deletion) of each.
"""

import argparse

import numpy as np
import torch
from captum.attr import FeatureAblation, ImageMaskInput, ShapleyValueSampling
from rich.progress import track

from lime_mlx import blas

blas.load_blas()

from faithfulness import PARTS, mean, scene_of  # noqa: E402
from PIL import Image  # noqa: E402

from lime_mlx import explain, load  # noqa: E402
from lime_mlx.probes.cells import PictureCells  # noqa: E402
from lime_mlx.probes.deletion import Curves, forced, letters, medium_map, probabilities, removed  # noqa: E402
from lime_mlx.probes.faithful import area, masks, order  # noqa: E402
from lime_mlx.probes.kinds import KINDS, relevances  # noqa: E402
from lime_mlx.probes.sanity import likeness  # noqa: E402
from lime_mlx.prompt import Prompt  # noqa: E402
from lime_mlx.scenes import PROMPTS  # noqa: E402

SIDE = 8


def study(model, processor, seed: int, samples: int) -> dict[str, float]:
    """The figures of one scene; none where the answer names nothing that is there."""
    given, boxes, _ = scene_of("picture", seed)
    image: Image.Image = given["image"].convert("RGB")
    answer = explain(model, processor, PROMPTS[0], image=image, method="none", max_tokens=64)
    prompt, tokens = processor.prompt(PROMPTS[0], images=[image]), list(answer.answer.tokens)
    places = letters(answer.words, processor.tokenizer.decode)
    numbers = [number for number, word in enumerate(answer.words) if word.name in boxes]
    if not numbers:
        return {}
    number = numbers[0]

    def log_probability(changed: Image.Image) -> float:
        media = {**prompt.media, **processor.prepare([changed]).arrays}
        (logits,) = forced(model, [Prompt(prompt.input_ids, media, parts=prompt.parts)], tokens)
        return float(np.log(max(probabilities(logits, tokens, [places[number]])[0], 1e-30)))

    rows, columns = (torch.arange(edge) * SIDE // edge for edge in (image.height, image.width))
    mean_colour = tuple(int(level) for level in np.asarray(image).mean(axis=(0, 1)).round())
    cells = ImageMaskInput(
        image=image, mask=rows[:, None] * SIDE + columns, baseline=mean_colour, processor_fn=log_probability
    )

    def forward(present: torch.Tensor) -> torch.Tensor:
        return torch.tensor([cells.to_model_input(present)])

    torch.manual_seed(seed)
    ablation = FeatureAblation(forward).attribute(cells.to_tensor()).numpy().reshape(SIDE, SIDE)
    shapley = ShapleyValueSampling(forward).attribute(cells.to_tensor(), n_samples=samples).numpy()
    curves = Curves(model, PictureCells(processor, prompt, [image], 0, (SIDE, SIDE)), tokens, places)
    ours = removed(curves)[:, number].reshape(SIDE, SIDE)
    kinds = relevances(model, prompt, tokens, [places[number]], list(KINDS))
    maps = {kind: medium_map(each[0], answer.spans, ("image", 0)) for kind, each in kinds.items()}
    maps |= {"Captum, FeatureAblation": ablation, "Captum, ShapleyValueSampling": shapley.reshape(SIDE, SIDE)}
    out = {"largest difference from Captum's FeatureAblation": float(np.abs(ours - ablation).max())}
    for kind, values in maps.items():
        out[f"correlation with FeatureAblation: {kind}"] = likeness(values, ablation)
        out[f"correlation with ShapleyValueSampling: {kind}"] = likeness(values, shapley)
        deletion, insertion = (area(curves(masks(each))[:, number]) for each in (order(values), order(values)[::-1]))
        out[f"faithfulness: {kind}"] = insertion - deletion
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--part", choices=PARTS, default="validation")
    arguments = parser.parse_args()
    model, processor = load("demo")
    first = PARTS[arguments.part]
    table: dict[str, tuple[list[float], list[int]]] = {}
    for seed in track(range(first, first + arguments.scenes)):
        for name, value in study(model, processor, seed, arguments.samples).items():
            values, seeds = table.setdefault(name, ([], []))
            values.append(value)
            seeds.append(seed)
    for name, (values, seeds) in sorted(table.items()):
        v = mean(values, seeds)
        print(f"{name}: {v['value']:.3f} ({v['low']:.3f} to {v['high']:.3f}), n={v['n']}; largest {max(values):.2g}")


if __name__ == "__main__":
    main()
