import random
import wave
from collections import Counter

import numpy as np
import pytest
from official import scene_records, values

from lime_mlx import scenes
from lime_mlx.evaluate.scorers import answers
from lime_mlx.evaluate.scorers.scenes import kinds_named
from lime_mlx.evaluate.tasks import parse_task
from lime_mlx.scenes import REGIMES, SOUNDS, language, soundscape
from lime_mlx.scenes.synth import RATE, harmonics, noise


def captioned(texts, truths) -> dict[str, float]:
    """The figures of captions of sounds."""
    return values(parse_task("sounds").metrics(scene_records(texts, truths), "ours", {}), "caption")


@pytest.fixture(scope="module")
def heard() -> list[scenes.SoundScene]:
    return [scenes.make_sound(seed, regime) for regime in REGIMES for seed in range(20)]


def laws(regime: str, count: int = 4000) -> list[list[str]]:
    rng = random.Random(f"law/{regime}")
    return [SOUNDS.choose(rng, regime)[1] for _ in range(count)]


def bands(signal: np.ndarray) -> np.ndarray:
    """Mean and spread over 32 ms frames of the log energy in 24 bands of about equal width in pitch."""
    frames = signal[: len(signal) // 512 * 512].reshape(-1, 512) * np.hanning(512)
    edges = np.unique(np.geomspace(2, 257, 25).astype(int))
    energy = np.log10(np.add.reduceat(np.abs(np.fft.rfft(frames)) ** 2, edges[:-1], axis=1) + 1e-5)
    return np.concatenate([energy.mean(0), energy.std(0)])


@pytest.mark.parametrize("regime", REGIMES)
def test_same_arguments_same_sound(regime):
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    first, again = (scenes.make_sound(7, regime) for _ in range(2))
    assert np.array_equal(first.samples, again.samples) and first.events == again.events
    assert first.samples.shape == (96_000,) and first.samples.dtype == np.float32
    assert not np.array_equal(first.samples, scenes.make_sound(8, regime).samples)
    assert np.array_equal(state, np.random.get_state()[1])


def test_bad_arguments():
    with pytest.raises(ValueError, match="unknown regime"):
        scenes.make_sound(0, "usual")
    with pytest.raises(ValueError, match="too short"):
        scenes.make_sound(0, "ordinary", seconds=1)


@pytest.mark.parametrize("seconds", [2.0, 9.5])
def test_any_length(seconds):
    for seed in range(12):
        scene = scenes.make_sound(seed, "ordinary", seconds)
        assert len(scene.samples) == seconds * RATE
        assert all(event.stop <= seconds for event in scene.events)


def test_events_lie_inside_in_order(heard):
    for scene in heard:
        assert 2 <= len(scene.events) <= 4 and len(set(scene.kinds)) == len(scene.events)
        assert [event.start for event in scene.events] == sorted(event.start for event in scene.events)
        assert all(0 <= event.start < event.stop - 0.3 <= 5.7 for event in scene.events)
        assert scene.setting in SOUNDS.settings and set(scene.kinds) <= set(SOUNDS.kinds)
        assert 0.3 < np.abs(scene.samples).max() < 1 and np.isfinite(scene.samples).all()


def test_leaving_a_sound_out_changes_its_interval_only():
    checked = 0
    for seed in range(30):
        whole, rest = (scenes.make_sound(seed, "skewed", unseen=share) for share in (0.0, 1.0))
        assert whole.events == rest.events and whole.unseen is None
        if rest.unseen is None:
            continue
        event = next(event for event in whole.events if event.kind == rest.unseen)
        inside = np.zeros(len(whole.samples), bool)
        inside[round(event.start * RATE) : round(event.stop * RATE)] = True
        a, b = whole.samples[~inside], rest.samples[~inside]
        scale = (a @ b) / (b @ b)
        np.testing.assert_allclose(a, scale * b, atol=1e-5)
        difference = (whole.samples - scale * rest.samples)[inside]
        frames = np.square(difference[: len(difference) // 320 * 320]).reshape(-1, 320).mean(1)
        others = np.square(scale * rest.samples[inside][: frames.size * 320]).reshape(-1, 320).mean(1)
        # What the placement promises, but for the background.
        assert frames[frames > 3 * others].sum() > 0.45 * frames.sum() > 0
        checked += 1
    assert checked > 15


@pytest.mark.parametrize("kind", SOUNDS.kinds)
def test_an_event_has_no_silent_ends_and_the_level_asked_for(kind):
    for seed in range(4):
        loud, soft = (scenes.perform(kind, np.random.default_rng(seed), 1.5, level) for level in (0, -6))
        assert 0.3 * RATE < len(loud) <= 1.5 * RATE and loud.dtype == np.float32
        np.testing.assert_allclose(soft, loud * 10 ** (-6 / 20), rtol=1e-4, atol=1e-6)
        power = np.square(loud[: len(loud) // 320 * 320]).reshape(-1, 320).mean(1)
        assert min(power[0], power[-1]) > 2e-5 * power.max()
        assert power[power > 0.01 * power.max()].mean() == pytest.approx(0.01, rel=0.3)
        assert not np.array_equal(loud, scenes.perform(kind, np.random.default_rng(seed + 50), 1.5))


def test_kinds_can_be_told_apart():
    def clean(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        made = [(bands(scenes.perform(kind, np.random.default_rng((first + k, i)), 1.5)), i)
                for i, kind in enumerate(SOUNDS.kinds) for k in range(count)]  # fmt: skip
        return np.array([x for x, _ in made]), np.array([i for _, i in made])

    # Linear discriminants: the nearest mean after whitening with the covariance within the kinds.
    (known, labels), (new, truth) = clean(0, 20), clean(100, 5)
    means = np.array([known[labels == i].mean(0) for i in range(len(SOUNDS.kinds))])
    within = np.cov((known - means[labels]).T) + 1e-3 * np.eye(known.shape[1])
    whiten = np.linalg.cholesky(np.linalg.inv(within))
    distance = np.linalg.norm((new @ whiten)[:, None] - means @ whiten, axis=-1)
    assert np.mean(distance.argmin(1) == truth) > 0.95


def test_kinds_and_pairs_are_well_formed():
    assert len(SOUNDS.kinds) == 24 == len(set(SOUNDS.kinds))
    members = [kind for pair in SOUNDS.pairs for kind in pair]
    assert len(members) == len(set(members)) and set(members) <= set(SOUNDS.kinds)
    assert {first for first, _ in SOUNDS.pairs} | set(SOUNDS.kinds) - set(members) == set(SOUNDS.popularity)
    assert set(SOUNDS.kinds) >= language.MASS and not language.MASS & set(scenes.KINDS)


@pytest.mark.parametrize("regime", ["uncorrelated", "ordinary"])
def test_uncorrelated_worlds_are_uniform(regime):
    found = laws(regime)
    frequency = Counter(kind for kinds in found for kind in kinds)
    mean = sum(frequency.values()) / len(SOUNDS.kinds)
    assert all(0.8 * mean < frequency[kind] < 1.2 * mean for kind in SOUNDS.kinds)
    stormy = [kinds for kinds in found if "thunder" in kinds]
    assert sum("rain" in kinds for kinds in stormy) < 0.2 * len(stormy)


def test_skewed_pairs_come_together():
    found = laws("skewed")
    for kind, companion in SOUNDS.companion.items():
        there = [kinds for kinds in found if kind in kinds]
        assert sum(companion in kinds for kinds in there) / len(there) == pytest.approx(0.95, abs=0.05)
    frequency = Counter(kind for kinds in found for kind in kinds)
    assert frequency.most_common()[0][1] > 2 * frequency.most_common()[-1][1]


def test_adversarial_sounds_break_one_or_two_pairs():
    counts = Counter()
    for kinds in laws("adversarial"):
        missing = SOUNDS.broken(kinds)
        counts[len(missing)] += 1
        assert not missing & set(kinds) and 2 <= len(kinds) <= 4 == len(set(kinds)) + 4 - len(kinds)
    assert set(counts) == {1, 2} and counts[1] > 2 * counts[2]


def test_captions_name_exactly_the_kinds_in_order(heard):
    rng = random.Random(0)
    for scene in heard:
        for text in (scenes.caption(scene), scenes.caption(scene, rng)):
            assert kinds_named(text, SOUNDS) == list(scene.kinds)
        together = kinds_named(scenes.caption(scene, together=True), SOUNDS)
        assert sorted(together) == sorted(scene.kinds)
        for first, second in SOUNDS.pairs:
            if {first, second} <= set(together):
                assert abs(together.index(first) - together.index(second)) == 1
    scored = captioned([scenes.caption(scene) for scene in heard], [scene.kinds for scene in heard])
    assert (scored["CHAIR_S"], scored["CHAIR_I"], scored["recall"]) == (0, 0, 1)


def test_captions_and_scores_by_hand():
    def scene(*kinds, unseen=None):
        events = tuple(scenes.SoundEvent(kind, k, k + 1) for k, kind in enumerate(kinds))
        return scenes.SoundScene(0, "skewed", "quiet", events, np.zeros(0, np.float32), unseen)

    assert scenes.caption(scene("dog", "rain", "engine")) == "There is a dog, rain and an engine."
    told = scenes.caption(scene("cat", "bell", "dog", unseen="cat"), together=True)
    assert told == "There is a dog, a cat and a bell."
    texts = {scenes.caption(scene("wind", "knock"), random.Random(k)) for k in range(20)}
    assert texts == {"There is wind and a knock.", "The sound has wind and a knock.", "I hear wind and a knock."}
    for truth in (scene("bell", "dog").kinds, ("bell", "dog")):
        scored = captioned(["There is a bell and a clock."], [truth])
        assert (scored["CHAIR_S"], scored["CHAIR_I"], scored["recall"]) == (1, 0.5, 0.5)
    assert kinds_named("A bell and a lamp.") == ["lamp"]


@pytest.mark.parametrize("strategy", language.STRATEGIES)
def test_questions_are_balanced_and_true(heard, strategy):
    rng = random.Random(1)
    single, _ = SOUNDS.habits()
    for scene in heard:
        asked = scenes.questions(scene, strategy, rng)
        assert [q.label for q in asked] == ["yes", "no"] * min(3, len(scene.kinds))
        assert len({q.kind for q in asked}) == len(asked)
        for q in asked:
            assert (q.kind in scene.kinds) == (q.label == "yes") == (answers.ours(scenes.answer(q)) == "yes")
            assert q.text == f"Is there {language.with_article(q.kind)} in the sound?"
        absent = [q.kind for q in asked if q.label == "no"]
        if strategy == "popular":
            assert min(single[kind] for kind in absent) > np.median([single[kind] for kind in SOUNDS.kinds])
        if strategy == "adversarial" and scene.regime == "adversarial":
            assert set(absent[: len(SOUNDS.broken(scene.kinds))]) == SOUNDS.broken(scene.kinds)


def test_wav_holds_the_samples(tmp_path):
    scene = scenes.make_sound(3, "ordinary", 2.0)
    scenes.write_wav(scene, tmp_path / "scene.wav")
    with wave.open(str(tmp_path / "scene.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        read = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    np.testing.assert_allclose(read, scene.samples, atol=2e-5)


def test_harmonics_stay_below_the_folding_frequency_and_noise_in_its_band():
    spectrum = np.abs(np.fft.rfft(harmonics(np.full(RATE, 1000.0, np.float32), np.ones(20))))
    assert np.flatnonzero(spectrum > 100).tolist() == [1000 * k for k in range(1, 8)]
    power = np.abs(np.fft.rfft(noise(np.random.default_rng(0), RATE, 500, 2000, 4))) ** 2
    assert power[450:2250].sum() > 0.9 * power.sum()


def test_crowded_placement_is_clear():
    for seed in range(20):
        placed = soundscape._arrange(np.random.default_rng(seed), ["rain", "applause", "clock", "typing"], 6.0)
        powers = [soundscape.loudness(signal) for _, signal in placed]
        assert soundscape._clarity(powers, [start // 320 for start, _ in placed], 300) >= 0.5
