"""Pixels against transformers' CLIPImageProcessor (its Pillow variant): tests/fixtures/clip_pixels.npz, made with
transformers 5.23.0 by `python tests/test_pixels.py`, and live where transformers has it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lime_mlx.errors import CheckpointError, MediaError
from lime_mlx.media.pixels import CLIP_MEAN, CLIP_STD, Pixels

FIXTURE = Path(__file__).parent / "fixtures" / "clip_pixels.npz"
COCO = Path(__file__).resolve().parents[2] / "shared" / "data" / "images" / "coco"
SIZES = [(640, 480), (333, 500), (400, 15), (15, 400), (336, 336), (81, 101), (5, 3), (4, 300)]
CASES = {
    "clip": {},
    "llava": {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
    "numbers": {"size": 336, "crop_size": 336, "resample": 2},
    "stretched": {"size": {"height": 128, "width": 128}, "do_center_crop": False},
    "padded": {"size": {"shortest_edge": 100}, "crop_size": {"height": 128, "width": 128}},
    "odd": {"size": {"shortest_edge": 127}, "crop_size": {"height": 128, "width": 128}},
    "not resized": {"do_resize": False, "crop_size": {"height": 128, "width": 128}},
    "not normalised": {"do_normalize": False},
    "not rescaled": {"do_rescale": False},
    "lanczos": {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 1.0], "resample": 1},
    "nearest": {"size": {"shortest_edge": 300}, "resample": 0, "rescale_factor": 1 / 127.5},
}


def picture(width: int, height: int) -> Image.Image:
    """Waves of many lengths and hard edges, the same everywhere."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    waves = [np.sin(x / (3 + c) + c) * np.cos(y / (5 - c)) for c in range(3)]
    edges = ((x // 7 + y // 11) % 2)[..., None] * np.array([60, -40, 20])
    grain = ((x * 7919 + y * 104729) % 61)[..., None]
    return Image.fromarray(np.clip(128 + 70 * np.stack(waves, -1) + edges + grain - 30, 0, 255).astype(np.uint8))


def pixels(case: str) -> Pixels:
    settings = CASES[case]
    given = settings.get("crop_size") if settings.get("do_center_crop", True) else settings["size"]
    return Pixels.from_dict(settings, given["height"] if isinstance(given, dict) else given or 224)


def summary(array: np.ndarray) -> np.ndarray:
    """A few rows, and the mean and spread of each channel."""
    channels = array[0].reshape(3, -1).astype(np.float64)
    rows = array[0, :, :: array.shape[2] // 3, :: array.shape[3] // 24].ravel()
    return np.concatenate([rows, channels.mean(1), channels.std(1)]).astype(np.float32)


def oracle(case: str, image: Image.Image) -> np.ndarray:
    from transformers import CLIPImageProcessorPil

    return np.asarray(CLIPImageProcessorPil(**CASES[case])(image, return_tensors="np")["pixel_values"])


@pytest.mark.parametrize("case", CASES)
def test_the_fixture(case):
    found = np.stack([summary(pixels(case)(picture(*size))) for size in SIZES])
    unit = 1.0 if case == "not rescaled" else 1 / 255
    np.testing.assert_allclose(found, np.load(FIXTURE)[case], atol=1e-3 * unit, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_transformers_says_the_same(case):
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "CLIPImageProcessorPil"):
        pytest.skip("this transformers has no CLIPImageProcessorPil")
    images = [picture(*size) for size in SIZES] + [Image.open(path) for path in sorted(COCO.glob("*.jpg"))[:4]]
    for image in images:
        found = pixels(case)(image)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, oracle(case, image), rtol=1e-5, atol=1e-5)


def test_defaults_are_clips():
    read = Pixels.from_dict({}, 336)
    assert (read.resize, read.crop, read.resample) == (336, (336, 336), Image.Resampling.BICUBIC)
    assert (read.mean, read.std) == (CLIP_MEAN, CLIP_STD)
    assert Pixels.from_dict(dict.fromkeys(("size", "crop_size", "do_resize", "image_mean", "do_pad")), 336) == read


def test_one_value_serves_all_channels():
    assert Pixels.from_dict({"image_mean": 0.5, "image_std": 0.25}, 8).std == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    assert Pixels.from_dict({}, 16)(picture(40, 30).convert(mode)).shape == (1, 3, 16, 16)


def test_long_narrow_pictures_are_refused():
    read = Pixels.from_dict({}, 16)
    assert read(picture(2, 400)).shape == (1, 3, 16, 16)
    with pytest.raises(MediaError, match=r"401 x 2.*200 times"):
        read(picture(401, 2))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": {"longest_edge": 8}}, "longest_edge"),
        ({"size": {}}, "nothing"),
        ({"size": "336"}, "cannot be used"),
        ({"size": {"shortest_edge": 0}}, "1 to"),
        ({"size": 10**9}, "1 to"),
        ({"crop_size": {"height": 8.5, "width": 8}}, "1 to"),
        ({"resample": 77}, "77"),
        ({"image_mean": [0.5]}, "cannot be used"),
        ({"image_std": [0.5, 0.0, 0.5]}, "positive"),
        ({"rescale_factor": "x"}, "cannot be used"),
        ({"do_pad": True}, "do_pad"),
        ({"crop_size": 12}, "16 x 16"),
        ({"do_center_crop": False}, "16 x 16"),
    ],
)
def test_settings_that_cannot_be_used(settings, words):
    with pytest.raises(CheckpointError) as caught:
        Pixels.from_dict(settings, 16)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


if __name__ == "__main__":
    np.savez_compressed(
        FIXTURE, **{case: np.stack([summary(oracle(case, picture(*size))) for size in SIZES]) for case in CASES}
    )
