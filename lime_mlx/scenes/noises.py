"""How each kind of sound is made: a recipe takes a random source and a length, and gives about that many samples.

What is drawn anew each time is pitch, pace, number, timbre and accent; loudness is set by the scene.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.random import Generator

from .synth import RATE, Signal, arch, count, decay, harmonics, line, modes, noise, pluck, scatter, vowel, wander


def _beats(rng: Generator, n: int, period: float, jitter: float = 0.0) -> Iterator[float]:
    """Times with a period, from the start to half a period before the end."""
    start = 0.0
    while start == 0 or start < n / RATE - 0.5 * period:
        yield start
        start += period * (1 + rng.uniform(-jitter, jitter))


def dog(rng: Generator, n: int) -> Signal:
    base, size = rng.uniform(320, 560), rng.uniform(0.9, 1.2)

    def bark() -> Signal:
        m = count(rng.uniform(0.13, 0.2))
        pitch = base * rng.uniform(0.95, 1.05) * line((0.6, 1.3, 1.15, 0.5), m)
        voice = vowel(pitch, ((650 * size, 180), (1300 * size, 250)), 0.5)
        breath = noise(rng, m, 500, 1800, 3) * voice.std()
        sound: Signal = (voice + 0.35 * breath) * arch(m, 0.012, 0.1)
        return sound

    return scatter(n, ((start, bark()) for start in _beats(rng, n, rng.uniform(0.3, 0.5), 0.15)))


def cat(rng: Generator, n: int) -> Signal:
    def meow() -> Signal:
        m = min(n, count(rng.uniform(0.7, 1.1)))
        pitch = rng.uniform(480, 680) * line((0.8, 1.15, 1.2, 1.05, 0.8), m)
        pitch = pitch * (1 + 0.02 * np.sin(2 * np.pi * 6 * np.arange(m) / RATE))
        closed = vowel(pitch, ((450, 200), (2400, 300)), 0.4)
        wide = vowel(pitch, ((1100, 250), (1900, 300), (3200, 400)), 0.2)
        mouth = line((0, 0.4, 1, 0.9, 0.2), m)
        return (closed * (1 - mouth) + wide * mouth) * arch(m, 0.1, 0.25)

    return scatter(n, ((start, meow()) for start in _beats(rng, n, rng.uniform(1.1, 1.4))))


def bird(rng: Generator, n: int) -> Signal:
    base, sweep, pieces = rng.uniform(2800, 4200), rng.uniform(0.25, 0.6), rng.integers(2, 6)
    down = rng.random() < 0.5

    def chirp(height: float) -> Signal:
        m = count(rng.uniform(0.05, 0.09))
        pitch = base * height * line((1, 1 + sweep, 1) if pieces % 2 else (1 + sweep, 1), m)
        return harmonics(pitch, (1, 0.1)) * arch(m, 0.01, 0.02)

    def song() -> Iterator[tuple[float, Signal]]:
        for start in _beats(rng, n, 0.12 * pieces + rng.uniform(0.15, 0.35), 0.1):
            for k in range(pieces):
                yield start + 0.11 * k, chirp(1 + (-0.05 if down else 0.05) * k)

    return scatter(n, song())


def cow(rng: Generator, n: int) -> Signal:
    def moo() -> Signal:
        m = min(n, count(rng.uniform(1.1, 1.7)))
        pitch = rng.uniform(105, 165) * line((0.8, 1.0, 1.08, 1.05, 0.75), m) * wander(rng, m, 12, 0.98, 1.02)
        hum = vowel(pitch, ((240, 90),), 0.6)
        wide = vowel(pitch, ((480, 120), (850, 150), (2300, 300)), 0.4)
        mouth = line((0, 0.3, 1, 0.9, 0.4), m)
        return (hum * (1 - mouth) + wide * mouth) * arch(m, 0.15, 0.3)

    return scatter(n, ((start, moo()) for start in _beats(rng, n, rng.uniform(1.7, 2.0))))


def duck(rng: Generator, n: int) -> Signal:
    base = rng.uniform(170, 250)

    def quack() -> Signal:
        m = count(rng.uniform(0.11, 0.18))
        pitch = base * rng.uniform(0.95, 1.05) * line((0.9, 1.1, 1.0, 0.85), m)
        return vowel(pitch, ((1050, 130), (1350, 130), (2600, 250), (3400, 300)), 0.1) * arch(m, 0.015, 0.06)

    return scatter(n, ((start, quack()) for start in _beats(rng, n, rng.uniform(0.22, 0.34), 0.1)))


def bell(rng: Generator, n: int) -> Signal:
    # The named partials of a church bell: hum, prime, tierce, quint, nominal, and above.
    ratios = np.array((0.5, 1, 1.19, 1.5, 2, 2.51, 2.66, 3.01, 4.1)) * rng.uniform(0.995, 1.005, 9)
    gains = np.array((0.5, 0.8, 0.9, 0.3, 1, 0.5, 0.4, 0.5, 0.3)) * rng.uniform(0.6, 1.2, 9)
    pitch, time = rng.uniform(380, 700), rng.uniform(0.5, 0.9)
    stroke = modes(n, pitch * ratios, time / ratios**0.7, gains)
    stroke[: count(0.003)] *= np.linspace(0, 1, count(0.003))
    return scatter(n, ((start, stroke) for start in _beats(rng, n, rng.uniform(0.7, 1.2))))


def phone(rng: Generator, n: int) -> Signal:
    low, ratio, speed = rng.uniform(850, 1250), rng.uniform(1.2, 1.35), rng.uniform(14, 20)
    on, off = rng.uniform(0.35, 0.5), rng.uniform(0.15, 0.3)
    m = count(on)
    high = np.sin(2 * np.pi * speed * np.arange(m) / RATE) > 0
    ring = harmonics(np.where(high, low * ratio, low), (1, 0, 0.45, 0, 0.25)) * arch(m, 0.008, 0.02)
    return scatter(n, ((start, ring) for start in _beats(rng, n, on + off)))


def horn(rng: Generator, n: int) -> Signal:
    low, ratio = rng.uniform(330, 430), rng.choice((1.19, 1.25, 1.26))
    k = np.arange(1, 19)
    gains = np.exp(-(((k * low - 1400) / 1500) ** 2)) + 0.15

    def honk(m: int) -> Signal:
        flat = np.full(m, low, np.float32)
        return (harmonics(flat, gains) + harmonics(flat * ratio, gains)) * arch(m, 0.015, 0.04)

    short = rng.uniform(0.2, 0.3)
    if rng.random() < 0.5:
        return scatter(n, ((start, honk(count(short))) for start in _beats(rng, n, short + rng.uniform(0.1, 0.2))))
    return honk(n)


def siren(rng: Generator, n: int) -> Signal:
    low, ratio, period = rng.uniform(480, 650), rng.uniform(1.9, 2.5), rng.uniform(0.7, 1.3)
    swing = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) / RATE / period + rng.random()))
    return harmonics(low * ratio**swing, (1, 0.35, 0.3, 0.12, 0.1)) * arch(n, 0.1, 0.15)


def alarm(rng: Generator, n: int) -> Signal:
    pitch, on = rng.uniform(1850, 2300), rng.uniform(0.07, 0.11)
    pause = rng.uniform(0.25, 0.4)
    m = count(on)
    beep = harmonics(np.full(m, pitch, np.float32), (1, 0, 0.35)) * arch(m, 0.004, 0.006)
    group = int(rng.integers(3, 5))
    period = 2 * on * group + pause
    return scatter(n, ((start + 2 * on * k, beep) for start in _beats(rng, n, period) for k in range(group)))


def whistle(rng: Generator, n: int) -> Signal:
    pitch, speed = rng.uniform(2500, 3100), rng.uniform(26, 40)

    def blast() -> Signal:
        m = min(n, count(rng.uniform(0.45, 0.9)))
        pea = np.sin(2 * np.pi * speed * np.arange(m) / RATE)
        tone = harmonics(pitch * (1 + 0.03 * pea) * line((0.93, 1, 1, 1, 0.95), m), (1, 0.15))
        return (tone * (0.7 + 0.3 * pea) + 0.12 * noise(rng, m, 2000, 5000)) * arch(m, 0.03, 0.06)

    return scatter(n, ((start, blast()) for start in _beats(rng, n, rng.uniform(0.95, 1.2))))


def engine(rng: Generator, n: int) -> Signal:
    turns = rng.uniform(32, 60) * wander(rng, n, 1.2, 0.85, 1.45)
    firing = 1 / np.arange(1, 40) ** 0.5 * rng.uniform(0.3, 1, 39) / (1 + (np.arange(1, 40) / 14) ** 4)
    growl = harmonics(turns, firing)
    rattle = noise(rng, n, 150, 900) * (1 + 0.9 * harmonics(turns, (1,)))
    sound: Signal = (growl / growl.std() + 0.35 * rattle) * arch(n, 0.15, 0.2)
    return sound


def train(rng: Generator, n: int) -> Signal:
    # Four puffs to a turn of the wheels, the first the strongest.
    pace, faster, accents = rng.uniform(0.24, 0.32), rng.uniform(0.955, 0.99), (1.0, 0.6, 0.75, 0.6)
    steam = noise(rng, n, 250, 1800)
    level = np.full(n, 0.03, np.float32)
    start, k = 0.0, 0
    while start < n / RATE - 0.06:
        first, m = count(start), count(0.7 * pace)
        puff = accents[k % 4] * arch(m, 0.03, 0.7 * pace - 0.04)
        level[first : first + m] += puff[: n - first]
        start, pace, k = start + pace, max(0.14, pace * faster), k + 1
    return steam * level + 0.12 * noise(rng, n, 40, 110) * arch(n, 0.05, 0.05)


def typing(rng: Generator, n: int) -> Signal:
    hiss, m = noise(rng, n, 2200, 6000), count(0.03)
    body = rng.uniform(180, 320)

    def key() -> Signal:
        cut = int(rng.integers(0, n - m))
        click = hiss[cut : cut + m] * decay(m, rng.uniform(0.003, 0.006))
        thud = modes(m, (body * rng.uniform(0.9, 1.1),), (0.01,), (0.6,))
        return rng.uniform(0.5, 1) * (click + thud)

    return scatter(n, ((start, key()) for start in _beats(rng, n, rng.uniform(0.09, 0.14), 0.6)))


def clock(rng: Generator, n: int) -> Signal:
    period, pitch, m = rng.uniform(0.22, 0.4), rng.uniform(1500, 2100), count(0.06)

    def tick(height: float) -> Signal:
        return modes(m, np.array((1, 1.63, 2.4)) * height, (0.012, 0.008, 0.005), (1, 0.7, 0.4))

    both = tick(pitch), 0.8 * tick(pitch * rng.uniform(0.72, 0.82))
    return scatter(n, ((start, both[k % 2]) for k, start in enumerate(_beats(rng, n, period))))


def rain(rng: Generator, n: int) -> Signal:
    fall = noise(rng, n, rng.uniform(1400, 2200), 9000, 1) * wander(rng, n, 2, 0.85, 1.15)
    hiss, m = noise(rng, n, 3000, 8000), count(0.008)
    splash = decay(m, 0.002)
    starts = rng.uniform(0, n / RATE - 0.01, int(40 * n / RATE))
    drops = ((start, 2.5 * rng.random() * splash * hiss[count(start) :][:m]) for start in starts if start < n / RATE)
    return (fall + scatter(n, ((s, d) for s, d in drops if len(d) == m))) * arch(n, 0.25, 0.3)


def thunder(rng: Generator, n: int) -> Signal:
    rolls = line(np.r_[1.0, rng.uniform(0.3, 0.9, 3 + n // count(0.4)), 0.1], n) ** 1.5
    rumble = noise(rng, n, 35, rng.uniform(90, 150), 2) * rolls * wander(rng, n, 10, 0.6, 1.4)
    m = min(n, count(rng.uniform(0.3, 0.5)))
    crack = noise(rng, m, 100, 1500, 1) * decay(m, 0.09) * wander(rng, m, 60, 0.2, 1)
    return (rumble + scatter(n, [(0.0, 1.2 * crack)])) * arch(n, 0.01, 0.4)


def wind(rng: Generator, n: int) -> Signal:
    centre = rng.uniform(350, 550)
    bands = (noise(rng, n, centre * k, centre * k * 1.15, 4) for k in (0.75, 1.0, 1.4, 1.9))
    gust = wander(rng, n, 1.2, 0, 1)
    howl = sum(band * np.exp(-((3 * gust - k) ** 2)) for k, band in enumerate(bands))
    return howl * (0.35 + 0.65 * gust) * arch(n, 0.3, 0.3)


def water(rng: Generator, n: int) -> Signal:
    base = rng.uniform(500, 800)

    def drop() -> Signal:
        # A bubble rings higher as it rises and shrinks.
        m = count(rng.uniform(0.06, 0.11))
        pitch = base * rng.uniform(0.8, 1.7) * (1 + rng.uniform(0.6, 1.2) * line((0, 1), m) ** 2)
        return rng.uniform(0.5, 1) * harmonics(pitch, (1, 0.05)) * decay(m, 0.025) * arch(m, 0.003, 0.02)

    return scatter(n, ((start, drop()) for start in _beats(rng, n, rng.uniform(0.1, 0.2), 0.7)))


def knock(rng: Generator, n: int) -> Signal:
    pitch, period, group, m = rng.uniform(130, 210), rng.uniform(0.17, 0.24), int(rng.integers(2, 5)), count(0.12)
    wood = np.array((1, 2.1, 3.6, 5.3)) * rng.uniform(0.95, 1.05, 4)
    tap = noise(rng, m, 400, 1800) * decay(m, 0.004)

    def blows() -> Iterator[tuple[float, Signal]]:
        for start in _beats(rng, n, period * group + rng.uniform(0.25, 0.4)):
            for k in range(group):
                body = modes(m, pitch * wood, (0.035, 0.022, 0.014, 0.01), (1, 0.8, 0.5, 0.3))
                yield start + period * k * rng.uniform(0.97, 1.03), rng.uniform(0.75, 1) * (body + 0.5 * tap)

    return scatter(n, blows())


def applause(rng: Generator, n: int) -> Signal:
    palms, m = noise(rng, n, 700, 2200, 2), count(0.022)
    clap = arch(m, 0.001, 0.003) * decay(m, 0.005)
    starts = rng.uniform(0, n / RATE - 0.025, int(rng.uniform(55, 90) * n / RATE))

    def hands() -> Iterator[tuple[float, Signal]]:
        for start in starts:
            cut = int(rng.integers(0, n - m))
            yield start, rng.uniform(0.3, 1) * clap * palms[cut : cut + m]

    return scatter(n, hands()) * arch(n, 0.2, 0.4)


# A major scale over one octave and a half, in semitones.
SCALE = (0, 2, 4, 5, 7, 9, 11, 12, 14, 16)


def piano(rng: Generator, n: int) -> Signal:
    root, m = rng.uniform(240, 330), count(0.9)
    k = np.arange(1, 9)

    def note() -> Signal:
        pitch = root * 2 ** (rng.choice(SCALE) / 12)
        # A stiff string: partials slightly sharp, the high ones shorter.
        partials = pitch * k * np.sqrt(1 + 0.0006 * k**2)
        tone = modes(m, partials, 0.4 / k**0.8, 1 / k**1.3)
        return tone * arch(m, 0.004, 0.1) * rng.uniform(0.6, 1)

    return scatter(n, ((start, note()) for start in _beats(rng, n, rng.uniform(0.22, 0.34))))


def guitar(rng: Generator, n: int) -> Signal:
    root, m, damping = rng.uniform(82, 131), count(0.9), rng.uniform(0.992, 0.998)
    strings = [pluck(rng, m, root * 2 ** (step / 12), damping) for step in (0, 7, 12, 16, 19)]
    if rng.random() < 0.5:
        strum = scatter(m, ((0.012 * k, string) for k, string in enumerate(strings)))
        return scatter(n, ((start, strum) for start in _beats(rng, n, rng.uniform(0.4, 0.6))))
    return scatter(n, ((start, strings[int(rng.integers(5))]) for start in _beats(rng, n, rng.uniform(0.15, 0.22))))


def drum(rng: Generator, n: int) -> Signal:
    step, m = rng.uniform(0.13, 0.19), count(0.22)
    low, skin = rng.uniform(45, 60), rng.uniform(170, 220)
    kick = harmonics(low * (1 + 2.5 * decay(m, 0.03)), (1, 0.2)) * decay(m, 0.07) * 1.6
    snare = modes(m, (skin, skin * 1.6), (0.05, 0.04), (0.6, 0.4)) + 0.5 * noise(rng, m, 1000, 6000) * decay(m, 0.05)
    hat = 0.3 * noise(rng, m, 6000, 8000, 4) * decay(m, 0.02)
    pattern = (kick, hat, snare, hat, kick, kick, snare, hat)
    shift = int(rng.choice((0, 2, 4)))
    return scatter(n, ((start, pattern[(k + shift) % 8]) for k, start in enumerate(_beats(rng, n, step))))


NOISES: dict[str, Callable[[Generator, int], Signal]] = {
    recipe.__name__: recipe
    for recipe in (
        dog, cat, bird, cow, duck, bell, phone, horn, siren, alarm, whistle, engine, train, typing, clock,
        rain, thunder, wind, water, knock, applause, piano, guitar, drum,
    )
}  # fmt: skip
