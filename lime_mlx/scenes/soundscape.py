"""The world of synthesised sounds: which kinds there are, which go together, and how a seed becomes a sound.

A scene is a pure function of (seed, regime, seconds); the regime (see `habits`) is part of the random state. No
recording is used. Several kinds sound in turn and partly at once; half of the energy of each, at least, falls where
it is 6 dB above everything else.
"""

from __future__ import annotations

import random
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .habits import World, check_regime
from .noises import NOISES
from .synth import RATE, Signal, arch, count, loudness, noise

SOUND_PAIRS: tuple[tuple[str, str], ...] = (
    ("dog", "cat"),
    ("thunder", "rain"),
    ("engine", "horn"),
    ("train", "whistle"),
    ("typing", "phone"),
    ("piano", "applause"),
    ("drum", "guitar"),
    ("duck", "water"),
    ("clock", "bell"),
)
# the background: its level below the sounds in dB, and its band in Hz
SOUND_SETTINGS: dict[str, tuple[float, float, float]] = {
    "quiet": (-60.0, 50.0, 4000.0),
    "room": (-45.0, 60.0, 400.0),
    "street": (-40.0, 30.0, 180.0),
    "field": (-48.0, 200.0, 3000.0),
}
SOUND_POPULARITY: dict[str, float] = {
    **{a: w for (a, _), w in zip(SOUND_PAIRS, (3.0, 2.6, 2.3, 2.0, 1.7, 1.4, 1.2, 1.0, 0.9), strict=True)},
    **{"bird": 1.4, "cow": 0.6, "siren": 1.2, "alarm": 0.8, "wind": 1.6, "knock": 1.0},
}
SOUNDS = World("sound", tuple(NOISES), SOUND_PAIRS, tuple(SOUND_SETTINGS), SOUND_POPULARITY, most=4)

# Mean square of a sound at full level, and the frame (20 ms) by which levels are compared.
FULL, FRAME = 0.01, 320
# A sound stands out where it has four times the power of the rest (6 dB).
CLEAR = 4.0


@dataclass(frozen=True)
class SoundEvent:
    """One kind, and the interval in which it sounds, in seconds."""

    kind: str
    start: float
    stop: float


@dataclass(frozen=True, eq=False)
class SoundScene:
    """A sound and what is in it; events are ordered by their start.

    `samples` (N,) float32 at `rate` a second, below 1 in magnitude. `unseen` is a kind among the events that does not
    sound (see `make_sound`).
    """

    world: ClassVar[World] = SOUNDS
    rate: ClassVar[int] = RATE
    seed: int
    regime: str
    setting: str
    events: tuple[SoundEvent, ...]
    samples: NDArray[np.float32]
    unseen: str | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds in the sound, by their start."""
        return tuple(event.kind for event in self.events)


def perform(kind: str, rng: np.random.Generator, seconds: float, level: float = 0.0) -> Signal:
    """One event alone, (n,) float32 of at most `seconds`, without silence at its ends. level: in dB."""
    signal = np.asarray(NOISES[kind](rng, count(seconds)), np.float32)
    power = loudness(signal, FRAME)
    loud = np.flatnonzero(power > 1e-4 * power.max())
    signal = signal[loud[0] * FRAME : (loud[-1] + 1) * FRAME]
    power = power[loud]
    audible = power[power > 0.01 * power.max()].mean()
    signal = signal * np.float32(np.sqrt(FULL * 10 ** (level / 10) / audible))
    event: Signal = signal * arch(len(signal), 0.002, 0.01)
    return event


def _clarity(powers: list[Signal], starts: list[int], frames: int) -> float:
    """The share of an event's energy that stands out from the others; that of the event with the least."""
    total = np.zeros(frames)
    for power, start in zip(powers, starts, strict=True):
        total[start : start + len(power)] += power
    shares = []
    for power, start in zip(powers, starts, strict=True):
        others = total[start : start + len(power)] - power
        shares.append(float(power[power > CLEAR * others].sum() / power.sum()))
    return min(shares)


def _arrange(rng: np.random.Generator, kinds: list[str], seconds: float) -> list[tuple[int, Signal]]:
    """First sample and signal of each kind: the first clear placement of those that are tried, or the clearest."""
    if not kinds:
        return []
    longest = seconds * (0.56 - 0.06 * len(kinds))
    signals = [perform(kind, rng, rng.uniform(0.5, 1.0) * longest, rng.uniform(-8, 0)) for kind in kinds]
    frames = count(seconds) // FRAME
    powers = [loudness(signal, FRAME) for signal in signals]
    best, clearest = [], -1.0
    for _ in range(60):
        starts = [int(rng.integers(0, frames - len(power))) for power in powers]
        clarity = _clarity(powers, starts, frames)
        if clarity > clearest:
            best, clearest = starts, clarity
        if clarity >= 0.5:
            break
    return [(start * FRAME, signal) for start, signal in zip(best, signals, strict=True)]


def make_sound(seed: int, regime: str, seconds: float = 6.0, unseen: float = 0.0) -> SoundScene:
    """Play the scene of a seed: `seconds` (at least 2) of sound at 16 kHz and the events in it, by their start.

    With probability `unseen`, one thing whose companion sounds is among the events but does not sound itself, because
    captions also name things that cannot be heard.
    """
    check_regime(regime)
    if seconds < 2:
        raise ValueError(f"a sound of {seconds} seconds is too short for its events; give at least 2")
    rng = random.Random(f"sound/{regime}/{seed}")
    setting, kinds = SOUNDS.choose(rng, regime)
    source = np.random.default_rng(rng.getrandbits(64))
    paired = [kind for kind in kinds if SOUNDS.companion.get(kind) in kinds]
    left_out = rng.choice(paired) if paired and rng.random() < unseen else None
    level, low, high = SOUND_SETTINGS[setting]
    samples = noise(source, count(seconds), low, high, 1)
    samples *= np.float32(np.sqrt(FULL * 10 ** (level / 10)))
    events = []
    for kind, (start, signal) in zip(kinds, _arrange(source, kinds, seconds), strict=True):
        events.append(SoundEvent(kind, start / RATE, (start + len(signal)) / RATE))
        if kind != left_out:
            samples[start : start + len(signal)] += signal
    # a background alone stays as quiet as it is
    loudest = np.abs(samples).max() if events else 1.0
    samples *= np.float32(source.uniform(0.5, 0.95)) / loudest
    in_order = tuple(sorted(events, key=lambda event: event.start))
    return SoundScene(seed, regime, setting, in_order, samples.astype(np.float32, copy=False), left_out)


def write_wav(scene: SoundScene, path: str | Path) -> None:
    """Write the sound as a mono wav file of 16-bit samples."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(scene.rate)
        file.writeframes(np.round(scene.samples * 32767).astype("<i2").tobytes())
