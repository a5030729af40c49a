"""The sounds of the probes, synthesised here: beeps, a high or a low tone, silence."""

from io import BytesIO

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16_000
HIGH, LOW = 2500.0, 160.0
Samples = NDArray[np.float32]


def tone(hertz: float, seconds: float = 1.0, level: float = 0.5) -> Samples:
    """(N,) float32: a sine with its first two overtones, faded in and out over 20 ms."""
    time = np.arange(round(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in (1, 2))
    fade = np.minimum(1, np.minimum(time, seconds - time) / 0.02)
    signal: Samples = (level / 1.5 * wave * fade).astype(np.float32)
    return signal


def silence(seconds: float = 1.0) -> Samples:
    return np.zeros(round(seconds * RATE), dtype=np.float32)


def beeps(count: int, seconds: float = 6.0) -> Samples:
    """So many short beeps, evenly spread over the first part of the sound."""
    signal = silence(seconds)
    beep = tone(900, 0.3)
    for number in range(count):
        start = round((0.4 + 1.0 * number) * RATE)
        signal[start : start + len(beep)] = beep
    return signal


def wav(samples: Samples) -> bytes:
    """The bytes of a WAV file, 16 bit, mono."""
    out = BytesIO()
    soundfile.write(out, samples, RATE, format="WAV", subtype="PCM_16")
    return out.getvalue()
