"""Pictures and sounds as parts of a page: small, as data URIs, with a sound's waveform and log-mel spectrogram."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lime_mlx.media.audio import Sound
from lime_mlx.media.image import to_rgb
from lime_mlx.media.mel import TOP_HERTZ, Mel
from lime_mlx.render.view import MediumView

# Pixels of the longer side of a picture that is shown large, and the quality of its JPEG.
PIXELS, QUALITY = 1024, 85
# Seconds of a sound that go into a page, peaks of its waveform, and columns of its spectrogram.
SECONDS, PEAKS, COLUMNS = 300, 240, 600


def picture_view(image: Image.Image, name: str = "", pixels: int = PIXELS) -> MediumView:
    """A picture that is upright. Its map covers all of it."""
    uri, (width, height) = picture_uri(image, pixels)
    return MediumView(kind="image", name=name, src=uri, width=width, height=height)


def sound_view(sound: Sound, name: str = "", mapped: float | None = None) -> MediumView:
    """A sound. mapped: the seconds that a map covers, by default all."""
    view = MediumView(
        kind="audio",
        name=name,
        src=sound_uri(sound, SECONDS),
        seconds=round(sound.seconds, 3),
        mapped=round(sound.seconds if mapped is None else mapped, 3),
        wave=peaks(sound.samples, PEAKS),
    )
    if sound.rate >= 2 * TOP_HERTZ:
        view["mel"] = mel_uri(sound)
    return view


def picture_uri(image: Image.Image, pixels: int = PIXELS, quality: int = QUALITY) -> tuple[str, tuple[int, int]]:
    """A JPEG with sides of at most `pixels` as a data URI, and its width and height."""
    small, file = to_rgb(image), BytesIO()
    small.thumbnail((pixels, pixels))
    small.save(file, "JPEG", quality=quality)
    return _uri("image/jpeg", file), small.size


def sound_uri(sound: Sound, seconds: float) -> str:
    """The first seconds as MP3, as a data URI."""
    import soundfile

    file = BytesIO()
    soundfile.write(file, sound.samples[: int(seconds * sound.rate)], sound.rate, format="MP3")
    return _uri("audio/mpeg", file)


def peaks(samples: NDArray[np.float32], count: int) -> list[float]:
    """The loudest sample of each of `count` equal parts, 0 to 1: relative to the loudest of all."""
    parts = np.array_split(np.abs(samples), count)
    heights = np.array([part.max() if part.size else 0.0 for part in parts])
    return [round(float(height), 3) for height in heights / (heights.max() or 1)]


def mel_uri(sound: Sound) -> str:
    """The log-mel spectrogram as a grey PNG, time to the right, high tones at the top: a data URI."""
    bands, _ = Mel(rate=sound.rate)(sound.samples, len(sound.samples))
    edges = np.linspace(0, bands.shape[1], min(COLUMNS, bands.shape[1]) + 1).astype(int)[:-1]
    levels = np.maximum.reduceat(bands, edges, axis=1)[::-1]
    low, high = float(levels.min()), float(levels.max())
    grey = (255 * (levels - low) / max(high - low, 1e-6)).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return _uri("image/png", file)


def _uri(kind: str, file: BytesIO) -> str:
    return f"data:{kind};base64,{b64encode(file.getvalue()).decode()}"
