"""In Chromium, maps lie where the array says on 20 scenes: cropped, padded, in tiles, and rotated by EXIF."""

import base64
import io

import numpy as np
import pytest
from browser import chromium
from PIL import Image
from test_maps import loaded, seen

from lime_mlx.answer import Answer
from lime_mlx.explanation import Explanation
from lime_mlx.media.image import open_image
from lime_mlx.scenes import make_scene
from lime_mlx.words import Word

# A model that crops, one that squeezes, one with padded tiles, one with squares, one with crops beside the whole.
MODELS = ["llava crop", "llava", "llava_next", "idefics3", "gemma3 crops"]
SIZES = {1: (120, 60), 3: (60, 120), 6: (150, 60), 8: (60, 150)}  # by the orientation that EXIF gives the file
UPRIGHT = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@pytest.fixture(scope="module")
def browser():
    with chromium() as window:
        yield window


def photographed(scene: Image.Image, orientation: int) -> Image.Image:
    """The scene as a file holds it whose EXIF says to rotate it, opened."""
    stored = scene if UPRIGHT[orientation] is None else scene.transpose(UPRIGHT[orientation])
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    stored.save(file, "PNG", exif=exif)
    return open_image(file.getvalue())


def shot(browser, box) -> np.ndarray:
    """What stands in a box of the page, (height, width) grey."""
    clip = {**box, "scale": 1}
    answer = browser.driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"format": "png", "clip": clip, "captureBeyondViewport": True}
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["data"]))).convert("L"), dtype=float)


@pytest.mark.parametrize("case", MODELS)
def test_the_overlay_lies_where_the_array_says(browser, tmp_path, case):
    model, processor = loaded(tmp_path, case)
    rng = np.random.default_rng(MODELS.index(case))
    for number, (orientation, size) in enumerate(SIZES.items()):
        scene = make_scene(100_500 + 10 * MODELS.index(case) + number, "ordinary").image.resize(size)
        image = photographed(scene, orientation)
        assert np.abs(np.asarray(image, int) - np.asarray(scene, int)).max() == 0
        corner = rng.uniform(0.3, 0.6, 2)
        left, top = (int(part * side) for part, side in zip(corner, size, strict=True))
        lit = image.copy()
        lit.paste("magenta", (left, top, left + 12, top + 12))
        prompt, relevance = seen(model, processor, lit, image)
        words = [Word(text="square", relevance=relevance, statistics={"positive": 1.0})]
        explanation = Explanation(
            question="", method="", answer=Answer(words=words), spans=model.spans(prompt), pictures=[image]
        )
        browser.open(explanation.save(tmp_path / "page.html"))
        box = browser.run(
            "const {x, y, width, height} = document.querySelector('.lime-frame img').getBoundingClientRect();"
            "return {x: x + scrollX, y: y + scrollY, width, height}"
        )
        before = shot(browser, box)
        upright = np.asarray(image.resize(before.shape[::-1]).convert("L"), dtype=float)
        assert np.abs(before - upright).mean() < 8  # the picture itself, upright
        browser.run("document.querySelector('.lime-word').click()")
        after = shot(browser, box)
        expected = explanation.map("square")
        rows, columns = expected.shape
        veil = 0.82 * (1 - np.sqrt(np.maximum(expected, 0) / expected.max()))
        ys = ((np.arange(rows) + 0.5) / rows * before.shape[0]).astype(int)
        xs = ((np.arange(columns) + 0.5) / columns * before.shape[1]).astype(int)
        here = np.ix_(ys, xs)
        np.testing.assert_allclose(after[here], before[here] * (1 - veil), atol=6)
        # The brightest spot of the page is where the square was.
        light = after / np.maximum(before, 1)
        y, x = np.argwhere(light > light.max() - 0.05).mean(axis=0) / light.shape
        assert abs(x - (left + 6) / size[0]) < 1.5 / columns + 6 / size[0]
        assert abs(y - (top + 6) / size[1]) < 1.5 / rows + 6 / size[1]
