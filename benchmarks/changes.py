"""Scenes as they come back from a program or a microphone, and inputs that are no scenes: for fit_domain.py."""

import io
from collections.abc import Callable, Mapping

import numpy as np
import soxr
from PIL import Image, ImageDraw

from lime_mlx.media.audio import Sound

RNG = np.random.default_rng(0)


def compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def screen() -> Image.Image:
    """White, with coloured boxes and rows of dark marks, as a page with text."""
    image = Image.new("RGB", (400, 400), "white")
    pen = ImageDraw.Draw(image)
    for x, y, width, height in RNG.integers(0, 200, (4, 4)).tolist():
        pen.rectangle((x, y, x + width + 20, y + height + 20), fill=colour())
    for y in range(10, 400, 20):
        for x in (10 + 7 * np.flatnonzero(RNG.random(54) < 0.7)).tolist():
            pen.rectangle((x, y, x + 5, y + 9), fill=(30, 30, 30))
    return image


def shapes() -> Image.Image:
    """A few boxes and ellipses on one colour."""
    image = Image.new("RGB", (256, 256), colour())
    pen = ImageDraw.Draw(image)
    for x, y, width, height in RNG.integers(20, 140, (5, 4)).tolist():
        draw = pen.rectangle if RNG.random() < 0.5 else pen.ellipse
        draw((x, y, x + width, y + height), fill=colour())
    return image


def colour() -> tuple[int, int, int]:
    red, green, blue = RNG.integers(0, 256, 3).tolist()
    return red, green, blue


def grainy(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image) + RNG.normal(0, 10, (*image.size[::-1], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


PICTURES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 90": lambda image: compressed(image, 90),
    "JPEG of quality 20": lambda image: compressed(image, 20),
    "128 x 128 pixels": lambda image: image.resize((128, 128)),
    "64 x 64 pixels": lambda image: image.resize((64, 64)),
    "wider by half": lambda image: image.resize((384, 256)),
    "with grain": grainy,
    "upside down": lambda image: image.rotate(180),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "the middle quarter": lambda image: image.crop((64, 64, 192, 192)),
    "(other) boxes and ellipses": lambda image: shapes(),
    "(other) pages with text": lambda image: screen(),
    "(other) one colour": lambda image: Image.new("RGB", image.size, colour()),
    "(other) noise": lambda image: Image.fromarray(RNG.integers(0, 256, (256, 256, 3), dtype=np.uint8)),
}


def changed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Sound], Sound]:
    return lambda sound: Sound(change(sound.samples).astype(np.float32), sound.rate)


def through(samples: np.ndarray, rate: int) -> np.ndarray:
    """16 kHz samples that went through another rate."""
    return soxr.resample(soxr.resample(samples, 16_000, rate), rate, 16_000)


def melody(samples: np.ndarray) -> np.ndarray:
    """Notes with overtones, two in a second."""
    moments, played = np.arange(len(samples)) / 16_000, np.zeros(len(samples))
    for beat in range(int(2 * moments[-1])):
        pitch, since = 220 * 2 ** (RNG.integers(0, 24) / 12), np.maximum(moments - beat / 2, 0)
        played += np.exp(-3 * since) * sum(np.sin(2 * np.pi * pitch * n * since) / n for n in (1, 2, 3))
    return 0.3 * played / np.abs(played).max()


SOUNDS: Mapping[str, Callable[[Sound], Sound]] = {
    "half as loud": changed(lambda x: x / 2),
    "a tenth as loud": changed(lambda x: x / 10),
    "8 bits": changed(lambda x: np.round(127 * x) / 127),
    "through 44.1 kHz": changed(lambda x: through(x, 44_100)),
    "through 8 kHz": changed(lambda x: through(x, 8_000)),
    "with noise of -60 dB": changed(lambda x: x + RNG.normal(0, 0.001, len(x))),
    "with noise of -40 dB": changed(lambda x: x + RNG.normal(0, 0.01, len(x))),
    "the first 5 s": changed(lambda x: x[:80_000]),
    "the first 3 s": changed(lambda x: x[:48_000]),
    "(other) a melody": changed(melody),
    "(other) noise": changed(lambda x: RNG.normal(0, 0.1, len(x))),
    "(other) silence": changed(np.zeros_like),
}
