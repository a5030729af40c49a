"""The log-mel spectrogram against transformers' WhisperFeatureExtractor, as the processors call it."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from lime_mlx.errors import CheckpointError, MediaError
from lime_mlx.media.audio import open_audio
from lime_mlx.media.mel import Mel

CLIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "audio_clips"
RATE = 16_000
SECONDS = [0.0005, 0.05, 1.3, 5, 29.99, 30, 31]


def sound(seconds: float, rate: int = RATE) -> np.ndarray:
    """A rising tone, a hum and noise that comes and goes, with a stretch of silence."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(t))
    samples = 0.4 * np.sin(2 * np.pi * (300 + 90 * t) * t) + 0.2 * np.sin(2 * np.pi * 50 * t)
    samples += 0.1 * noise * (np.sin(7 * t) > 0)
    return (samples * (np.abs(t - 0.8) > 0.1)).astype(np.float32)


def oracle(settings: dict, samples: np.ndarray, **options) -> tuple[np.ndarray, np.ndarray]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
        extractor = WhisperFeatureExtractor.from_dict(settings)
        given = extractor(
            samples, sampling_rate=extractor.sampling_rate, return_attention_mask=True, return_tensors="np", **options
        )
    return given["input_features"][0], given["attention_mask"][0]


def check(settings: dict, samples: np.ndarray, length: int | None = None, **options) -> None:
    features, mask = Mel.from_dict(settings)(samples, length)
    expected, expected_mask = oracle(settings, samples, **options)
    assert features.dtype == np.float32 and mask.dtype == np.int32 and features.flags.c_contiguous
    assert features.shape == expected.shape == (settings.get("feature_size", 80), len(mask))
    assert np.abs(features - expected).max() <= 1e-5
    np.testing.assert_array_equal(mask, expected_mask)


@pytest.mark.parametrize("bins", [80, 128, 16])
@pytest.mark.parametrize("seconds", SECONDS)
def test_a_chunk_of_30_seconds(bins, seconds):
    check({"feature_size": bins}, sound(seconds))


@pytest.mark.parametrize("seconds", [0.05, 1.3, 5, 31])
def test_no_padding(seconds):
    samples = sound(seconds)[:-7]
    check({"feature_size": 16}, samples, len(samples), padding="do_not_pad", truncation=False)


def test_padding_to_the_longest():
    short, long = sound(0.9), sound(1.3)[:-7]
    mel = Mel(n_mels=16)
    expected = WhisperFeatureExtractor(16)(
        [short, long], sampling_rate=RATE, padding="longest", return_attention_mask=True, return_tensors="np"
    )
    for index, samples in enumerate((short, long)):
        features, mask = mel(samples, len(long))
        assert np.abs(features - expected["input_features"][index]).max() <= 1e-5
        np.testing.assert_array_equal(mask, expected["attention_mask"][index])


@pytest.mark.parametrize(
    "settings",
    [
        {"feature_size": 128, "chunk_length": 300, "n_samples": 4_800_000, "nb_max_frames": 30_000},  # Qwen2.5-Omni
        {"feature_size": 12, "chunk_length": 2, "padding_value": 0.02, "return_attention_mask": True, "dither": 0.0},
        {"feature_size": 10, "chunk_length": 3, "n_fft": 512, "hop_length": 200, "n_samples": 7},
        {"feature_size": 10, "chunk_length": 3, "n_fft": 64, "hop_length": 300},
        {"feature_size": 24, "chunk_length": 2, "sampling_rate": 8000, "hop_length": 77},
        {"feature_size": 24, "chunk_length": 2, "sampling_rate": 22_050, "n_fft": 1024, "hop_length": 256},
    ],
    ids=["omni", "padded with a number", "long window", "windows apart", "8 kHz", "22 kHz"],
)
@pytest.mark.parametrize("seconds", [0.7, 1.99])
def test_settings(settings, seconds):
    check(settings, sound(seconds, settings.get("sampling_rate", RATE)))


def test_silence_and_levels():
    for samples in (np.zeros(4000, np.float32), np.full(4000, 1e-6, np.float32), np.float32([1, -1] * 2000)):
        check({"feature_size": 16, "chunk_length": 1}, samples)
    features, _ = Mel()(sound(5))
    assert features.max() - features.min() == pytest.approx(2)  # 8 powers of ten, divided by 4


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the folder of real sounds is not beside this repository")
def test_real_sounds():
    paths = sorted(CLIPS.glob("*.wav"))
    assert paths
    for path in paths:
        check({"feature_size": 128}, open_audio(path).samples)


def test_defaults_and_nulls():
    assert Mel.from_dict({}) == Mel.from_dict({"feature_size": None, "hop_length": None, "chunk_length": None}) == Mel()
    assert Mel().seconds == 30
    assert Mel.from_dict({"chunk_length": 300, "n_samples": 1}).seconds == 300


def test_times_are_the_middles_of_the_windows():
    mel = Mel(n_mels=16)
    np.testing.assert_allclose(mel.times(4), [0, 0.01, 0.02, 0.03])
    click = np.zeros(RATE, np.float32)
    click[4321] = 1
    features, mask = mel(click, len(click))
    loudest = mel.times(len(mask))[features.sum(0).argmax()]
    assert abs(loudest - 4321 / RATE) <= 0.005


def test_the_callers_samples_are_left_alone():
    samples = sound(0.3)
    before = samples.copy()
    Mel()(samples)
    np.testing.assert_array_equal(samples, before)
    np.testing.assert_array_equal(Mel()(samples.astype(np.float64))[0], Mel()(samples)[0])


def test_less_than_one_frame():
    with pytest.raises(MediaError, match="at least 160"):
        Mel()(np.zeros(159, np.float32), 159)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"feature_size": 0}, "feature_size"),
        ({"feature_size": "80"}, "feature_size"),
        ({"feature_size": 401}, "feature_size"),
        ({"hop_length": 1.5}, "hop_length"),
        ({"hop_length": 480_001}, "hop_length"),
        ({"n_fft": 401}, "n_fft"),
        ({"n_fft": 1 << 20}, "n_fft"),
        ({"chunk_length": -30}, "chunk_length"),
        ({"chunk_length": 100_000}, "chunk_length"),
        ({"sampling_rate": 100}, "sampling_rate"),
        ({"sampling_rate": 384_000}, "sampling_rate"),
        ({"padding_value": float("nan")}, "padding_value"),
        ({"padding_value": "quiet"}, "quiet"),
        ({"padding_side": "left"}, "padding_side"),
        ({"dither": 1e-5}, "dither"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, "Wav2Vec2"),
        (["feature_size"], "cannot be used"),
    ],
)
def test_settings_that_are_refused(settings, words):
    with pytest.raises(CheckpointError) as caught:
        Mel.from_dict(settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
