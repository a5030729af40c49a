"""What the first layer of a model gets: levels of pictures and sounds, against the rules of transformers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lime_mlx.errors import LimeError
from lime_mlx.media.audio import Sound, open_audio
from lime_mlx.media.image import open_image

from . import pictures, sounds
from .findings import BROKEN, WORKS, Finding, unclear
from .scenic import scene, soundscape
from .seeing import EXIF_IGNORED, KINDS, SHRUNK
from .subjects import CHANNELS, GREY, TURNS

Levels = NDArray[np.float32]
# An opened picture or sound to the levels that the model gets.
Array = Callable[[object], Levels]
# The mean difference of levels that rounding and filters may bring, of their standard deviation.
CLOSE = 0.1
_TRANSPOSITIONS = (
    Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_90,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
)


def _mixed(order: str) -> Callable[[Image.Image], Image.Image]:
    return lambda picture: Image.merge("RGB", [picture.split()["rgb".index(channel)] for channel in order])


def _transposed(transposition: Image.Transpose) -> Callable[[Image.Image], Image.Image]:
    return lambda picture: picture.transpose(transposition)


# What each fault makes of a picture.
FAULTS: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    **dict(zip(CHANNELS, (*map(_mixed, ("bgr", "grb", "rbg", "gbr", "brg")), ImageOps.invert), strict=True)),
    **dict(zip(TURNS, map(_transposed, _TRANSPOSITIONS), strict=False)),
    GREY: lambda picture: picture.convert("L").convert("RGB"),
    SHRUNK: lambda picture: picture.resize((100, 100), Image.Resampling.BICUBIC).resize(picture.size),
}


def rules(array: Array, folder: Path, kind: str) -> Finding:
    """The levels of a scene against those that transformers makes; a difference is named if it can be."""
    name = "levels, by transformers"
    source: object = scene(0)[0]
    if kind == "audio":
        source = open_audio(soundscape(0)[0])
    levels = array(source)
    try:
        with _quiet():
            reference = _processor(folder, kind)
            expected = reference(source)
    except Exception as error:  # whatever another library raises about files of others
        return unclear(name, f"transformers cannot prepare it here ({type(error).__name__})")
    if levels.shape != expected.shape:
        return unclear(name, f"the shape is {levels.shape}, and {expected.shape} with transformers")
    apart = _apart(levels, expected)
    stated = f"mean {levels.mean():.2f} and deviation {levels.std():.2f}, "
    stated += f"{expected.mean():.2f} and {expected.std():.2f} there"
    if apart <= CLOSE:
        return Finding(name, WORKS, f"{stated}; the mean difference is {apart:.2g} of the deviation", 0.0)
    fault = "the levels are not those of transformers"
    if isinstance(source, Image.Image):
        with _quiet():
            differences = {fault: _apart(levels, reference(change(source))) for fault, change in FAULTS.items()}
        best = min(differences, key=differences.__getitem__)
        if differences[best] <= CLOSE and differences[best] < 0.5 * apart:
            fault = best
    return Finding(name, BROKEN, f"{fault}: {stated}; the mean difference is {apart:.2g} of the deviation", 0.0, fault)


def _processor(folder: Path, kind: str) -> Callable[[object], Levels]:
    if kind == "image":
        from transformers import AutoImageProcessor

        images = AutoImageProcessor.from_pretrained(folder, backend="pil")  # type: ignore[no-untyped-call]  # transformers has few types
        return lambda source: np.asarray(images([source], return_tensors="np")["pixel_values"], dtype=np.float32)
    from transformers import AutoFeatureExtractor

    audio = AutoFeatureExtractor.from_pretrained(folder)  # type: ignore[no-untyped-call]  # as above

    def extract(source: object) -> Levels:
        assert isinstance(source, Sound)
        made = audio(source.samples, sampling_rate=source.rate, return_tensors="np", padding="max_length")
        return np.asarray(made["input_features"], dtype=np.float32)

    return extract


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers says nothing while this lasts."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _apart(levels: Levels, expected: Levels) -> float:
    """The mean difference, of the deviation of what is expected."""
    if levels.shape != expected.shape:
        return float("inf")
    return float(np.abs(levels - expected).mean() / max(1e-6, float(expected.std())))


def channels(array: Array) -> Finding:
    """Whether red, green and blue each raise one third of the levels, in this order."""
    name = "colours"
    black = array(pictures.solid(pictures.BLACK))
    raised = []
    for colour in ("red", "green", "blue"):
        change = by_channel(array(pictures.solid(pictures.RGB[colour])) - black)
        if change is None or not np.abs(change).max() > 0:
            return unclear(name, f"levels of shape {black.shape} have no channels that are known")
        raised.append("rgb"[int(change.argmax())] if change.max() > 2 * np.sort(change)[1] else "?")
    order = "".join(raised)
    if order == "rgb":
        return Finding(name, WORKS, "red, green and blue raise the first, second and third channel", 0.0)
    named = {"bgr": 0, "grb": 1, "rbg": 2, "brg": 3, "gbr": 4}
    fault = list(CHANNELS)[named[order]] if order in named else GREY if order == "???" else "the channels are mixed"
    return Finding(name, BROKEN, f"{fault}: red, green and blue raise {', '.join(raised)}", 0.0, fault)


def by_channel(levels: Levels) -> NDArray[np.float64] | None:
    """(3,) float64: the mean of each channel, of (..., 3, H, W) or of patches (N, 3 x pixels); None for others."""
    if levels.ndim >= 3 and levels.shape[-3] == 3:
        mean = np.moveaxis(levels, -3, 0).reshape(3, -1).mean(axis=1)
    elif levels.ndim == 2 and levels.shape[1] % 3 == 0:
        mean = levels.reshape(len(levels), 3, -1).mean(axis=(0, 2))
    else:
        return None
    return np.asarray(mean, dtype=np.float64)


def detail(array: Array) -> Finding:
    """How fine a pattern of a picture still reaches the model."""
    name, size = "small detail", pictures.SIDE

    def strength(lines: int) -> float:
        grey = array(pictures.solid((128, 128, 128), (size, size)))
        return float(np.abs(array(pictures.noise(0, (lines - 4, lines + 4), size)) - grey).mean())

    coarse = strength(16)
    if not coarse > 0:
        return Finding(name, BROKEN, f"{SHRUNK}: no pattern reaches the model", 0.0, SHRUNK)
    kept = [lines for lines in (24, 32, 44, 58, 80, 110, 150, 210) if strength(lines) > 0.3 * coarse]
    sharp = 2 * max(kept, default=16)
    said = f"as sharp as about {sharp} pixels, from a picture of {size}"
    taken = (array(pictures.solid(pictures.BLACK, (size, size))).size / 3) ** 0.5
    if sharp < 110:
        return Finding(name, BROKEN, f"{SHRUNK}: {said}, where the model takes {taken:.0f}", 0.0, SHRUNK)
    return Finding(name, WORKS, f"{said}; the model takes {taken:.0f} x {taken:.0f} numbers for each channel", 0.0)


def files(array: Array) -> list[Finding]:
    """Files of unusual kinds: do they give the levels of the plain picture that they show?"""
    picture = pictures.place("left")
    plain = array(picture)
    findings = [_as_plain("EXIF orientation", EXIF_IGNORED, array(open_image(pictures.jpeg(picture, 6))), plain)]
    for name, (fault, convert) in KINDS.items():
        if name in ("tiny picture", "huge picture"):
            findings.append(_red(name, fault, array, convert(pictures.solid(pictures.RGB["red"]))))
        else:
            shown = open_image(convert(picture))
            expected = array(_on_white(convert(picture)))
            findings.append(_as_plain(name, fault, array(shown), expected))
    return findings


def _red(name: str, fault: str, array: Array, data: bytes) -> Finding:
    """Whether a red file of an unusual size gives the levels of a red picture of a usual one."""
    try:
        levels = array(open_image(data))
    except LimeError as error:
        return Finding(name, BROKEN, f"{fault}: {error}", 0.0, fault, minor=True)
    usual = by_channel(array(open_image(data).resize((pictures.SIDE, pictures.SIDE))))
    given = by_channel(levels)
    if usual is None or given is None:
        return unclear(name, f"levels of shape {levels.shape} have no channels that are known")
    apart = float(np.abs(usual - given).max())
    if apart <= CLOSE:
        return Finding(name, WORKS, f"its levels are those of one of a usual size (apart by {apart:.1g})", 0.0)
    return Finding(name, BROKEN, f"{fault}: its levels are apart by {apart:.2g}", 0.0, fault, minor=True)


def _on_white(data: bytes) -> Image.Image:
    """A file as it looks on white paper, by Pillow alone."""
    rgba = Image.open(BytesIO(data)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _as_plain(name: str, fault: str, levels: Levels, expected: Levels) -> Finding:
    apart = _apart(levels, expected)
    if apart <= CLOSE:
        return Finding(name, WORKS, f"its levels are those of what it shows (apart by {apart:.1g})", 0.0)
    reason = f"{fault}: its levels are apart by {apart:.2g} of the deviation"
    return Finding(name, BROKEN, reason, 0.0, fault, minor=True)


def pitches(array: Array) -> Finding:
    """Whether higher tones are strongest in higher bands, and silence is as low as it gets."""
    name = "bands of the sound"
    tones = [200.0, 400.0, 800.0, 1600.0, 3200.0]
    loud = [np.squeeze(array(Sound(sounds.tone(hertz, 2.0), sounds.RATE))) for hertz in tones]
    quiet = np.squeeze(array(Sound(sounds.silence(2.0), sounds.RATE)))
    bands = [int(levels.max(axis=1).argmax()) for levels in loud]
    if not all(np.isfinite(levels).all() for levels in (*loud, quiet)):
        return Finding(name, BROKEN, "the levels are not finite", 0.0, "the levels are not finite")
    if bands != sorted(bands) or len(set(bands)) < len(bands):
        fault = "the bands are not in the order of pitch"
        return Finding(name, BROKEN, f"{fault}: {bands} for {tones} Hz", 0.0, fault)
    if not quiet.max() < min(float(levels.max()) for levels in loud):
        return Finding(name, BROKEN, "silence is as loud as a tone", 0.0, "silence is as loud as a tone")
    return Finding(name, WORKS, f"tones of 200 to 3200 Hz are strongest in bands {', '.join(map(str, bands))}", 0.0)
