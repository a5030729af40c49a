"""Signals to build sounds from: oscillators, damped modes, plucked strings, filtered noise, envelopes.

Every signal is float32 (n,) at RATE samples a second; frequencies are in Hz and times in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

RATE = 16_000
# Samples are float32; what is computed on the way may be float64.
Signal = NDArray[np.float32] | NDArray[np.float64]
# Partials stay below this, so that nothing is folded back at half the rate.
TOP = 7_600.0


def count(seconds: float) -> int:
    """Samples in a time."""
    return round(seconds * RATE)


def line(points: Sequence[float], n: int) -> Signal:
    """Straight lines through points at equal distances: a pitch contour or an envelope."""
    return np.interp(np.linspace(0, len(points) - 1, n), range(len(points)), points).astype(np.float32)


def arch(n: int, attack: float, release: float) -> Signal:
    """An envelope that rises and falls as raised cosines; both times shrink together where n is too short for them."""
    up, down = count(attack), count(release)
    squeeze = min(1.0, n / max(1, up + down))
    up, down = int(up * squeeze), int(down * squeeze)
    envelope = np.ones(n, np.float32)
    envelope[:up] = 0.5 - 0.5 * np.cos(np.pi * np.arange(up) / max(1, up))
    envelope[n - down :] = 0.5 + 0.5 * np.cos(np.pi * np.arange(1, down + 1) / max(1, down))
    return envelope


def decay(n: int, time: float) -> Signal:
    """An envelope that falls by 8.7 dB in every `time`."""
    envelope: Signal = np.exp(-np.arange(n, dtype=np.float32) / (time * RATE))
    return envelope


def wander(rng: np.random.Generator, n: int, rate: float, low: float, high: float) -> Signal:
    """A smooth random contour between low and high with about `rate` turns a second."""
    turns = rng.uniform(low, high, 2 + round(n / RATE * rate))
    place = np.linspace(0, len(turns) - 1.001, n)
    left = place.astype(int)
    share = 0.5 - 0.5 * np.cos(np.pi * (place - left))
    contour: Signal = (turns[left] + (turns[left + 1] - turns[left]) * share).astype(np.float32)
    return contour


def harmonics(pitch: Signal, gains: Iterable[float]) -> Signal:
    """Sum over k of gains[k-1] sin(k phase), the phase running at `pitch` (n,); partials above TOP are left out."""
    turn = np.exp(2j * np.pi * np.cumsum(pitch, dtype=np.float64) / RATE).astype(np.complex64)
    partial, total, highest = turn.copy(), np.zeros(len(pitch), np.float32), float(pitch.max())
    for k, gain in enumerate(gains, 1):
        if k * highest > TOP:
            break
        total += np.float32(gain) * partial.imag
        partial *= turn
    return total


def vowel(pitch: Signal, formants: Sequence[tuple[float, float]], tilt: float = 1.0) -> Signal:
    """A voiced sound: partials that fall as k^-tilt, made stronger around the formants (frequency, width)."""
    k = np.arange(1, int(TOP / pitch.max()) + 1)
    f = k * float(pitch.mean())
    gains = sum(1 / (1 + ((f - centre) / width) ** 2) for centre, width in formants)
    return harmonics(pitch, gains / k**tilt)


def modes(n: int, frequencies: ArrayLike, times: ArrayLike, gains: ArrayLike) -> Signal:
    """A struck body: a sum of sines, each with its own decay time."""
    f, time, gain = (np.array(x, np.float32)[:, None] for x in (frequencies, times, gains))
    t = np.arange(n, dtype=np.float32) / RATE
    total: Signal = (gain * np.exp(-t / time) * np.sin(2 * np.pi * f * t) * (f < TOP)).sum(0)
    return total


def noise(rng: np.random.Generator, n: int, low: float, high: float, order: int = 2) -> Signal:
    """Gaussian noise of unit power between two frequencies, with slopes of 6 dB per octave and order outside."""
    size = 1 << max(4, (n - 1).bit_length())
    f = np.maximum(np.fft.rfftfreq(size, 1 / RATE), 1.0)
    gain = 1 / np.sqrt((1 + (low / f) ** (2 * order)) * (1 + (f / high) ** (2 * order)))
    drawn = rng.standard_normal((2, len(f)))
    signal = np.fft.irfft(gain * (drawn[0] + 1j * drawn[1]), size)[:n]
    scaled: Signal = (signal / np.sqrt(np.mean(signal**2))).astype(np.float32)
    return scaled


def pluck(rng: np.random.Generator, n: int, pitch: float, damping: float) -> Signal:
    """A plucked string: noise that runs round a delay line and loses its highs (Karplus and Strong, 1983)."""
    period = round(RATE / pitch)
    burst = rng.uniform(-1, 1, period)
    rounds = np.empty((-(-n // period), period), np.float32)
    for row in rounds:
        row[:] = burst
        burst = damping * 0.5 * (burst + np.roll(burst, 1))
    string: Signal = rounds.ravel()[:n] - rounds[0].mean()
    return string


def scatter(n: int, bursts: Iterable[tuple[float, Signal]]) -> Signal:
    """Bursts (start, signal) added up on n samples; what goes past the end is cut."""
    total = np.zeros(n, np.float32)
    for start, burst in bursts:
        first = count(start)
        if 0 <= first < n:
            total[first : first + len(burst)] += burst[: n - first]
    return total


def loudness(signal: Signal, frame: int = 320) -> Signal:
    """Mean square of each whole frame: (n // frame,)."""
    power: Signal = np.square(signal[: len(signal) // frame * frame], dtype=np.float64).reshape(-1, frame).mean(1)
    return power
