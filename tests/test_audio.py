import io
import random
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from lime_mlx.errors import MediaError
from lime_mlx.media import audio
from lime_mlx.media.audio import MAX_CHANNELS, MAX_RATE, MIN_RATE, Sound, open_audio
from lime_mlx.media.image import open_image

CLIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "audio_clips"
FORMATS = [
    ("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"),
    ("WAV", "ULAW"), ("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"),
    ("CAF", "PCM_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip
CLOSE = {"PCM_U8": 0.02, "ULAW": 0.04, "VORBIS": 0.1, "OPUS": 0.1, "MPEG_LAYER_III": 0.1}


def sine(seconds: float = 1.0, rate: int = 16_000, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def grain(seconds: float) -> np.ndarray:
    """A tone in noise, which no codec makes small."""
    rng = np.random.default_rng(0)
    return sine(seconds) + 0.05 * rng.standard_normal(round(seconds * 16_000)).astype(np.float32)


def encode(samples: np.ndarray, kind: str = "WAV", subtype: str | None = None, rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def with_data_size(data: bytes, size: int) -> bytes:
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", size) + data[at + 4 :]


def opened(source, rate: int = 16_000, **options) -> tuple[Sound, list[str]]:
    """The sound and what was said, which must be short sentences."""
    said = []
    sound = open_audio(source, rate, notice=said.append, **options)
    assert sound.rate == rate
    assert sound.samples.dtype == np.float32 and sound.samples.ndim == 1
    assert np.abs(sound.samples).max(initial=0) <= 1
    assert all(sentence.endswith(".") and "\n" not in sentence and len(sentence) < 300 for sentence in said)
    return sound, said


def quiet(source, rate: int = 16_000, **options) -> np.ndarray:
    """The samples of a sound with nothing to say about."""
    sound, said = opened(source, rate, **options)
    assert said == []
    return sound.samples


def problem(source, **options) -> str:
    """The message, which must be one short sentence or two on one line."""
    with pytest.raises(MediaError) as caught:
        open_audio(source, **options)
    message = str(caught.value)
    assert message.startswith("Cannot ")
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 400
    return message


def pitch(samples: np.ndarray, rate: int) -> float:
    """The loudest frequency in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 19))
    return spectrum.argmax() * rate / (1 << 19)


# --- sources


def test_the_same_sound_from_every_source(tmp_path, monkeypatch):
    data = encode(sine(), "WAV", "FLOAT")
    path = tmp_path / "sound.wav"
    path.write_bytes(data)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))
    given = Sound(sine(), 16_000)
    for source in (path, str(path), data, (sine(), 16_000), (sine().tolist(), 16_000.0), given, "-"):
        np.testing.assert_array_equal(quiet(source), sine())
    np.testing.assert_array_equal(quiet("-", stdin=io.BytesIO(data)), sine())
    assert open_audio(given).samples is not given.samples
    assert open_audio(data).seconds == 1


def test_the_suffix_does_not_matter(tmp_path):
    path = tmp_path / "sound.raw"
    path.write_bytes(encode(sine(), "FLAC"))
    assert len(quiet(path)) == 16_000


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
def test_formats(kind, subtype):
    samples = quiet(encode(sine(), kind, subtype))
    assert len(samples) == 16_000
    assert np.abs(samples - sine())[200:-200].max() <= CLOSE.get(subtype, 1e-4)


# --- rates and channels


@pytest.mark.parametrize("given", [4000, 8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("rate", [8000, 16_000, 24_000])
def test_resampling_keeps_length_and_pitch(given, rate):
    samples = quiet(encode(sine(1.5, given), rate=given), rate)
    assert abs(len(samples) - 1.5 * rate) <= 1
    assert pitch(samples, rate) == pytest.approx(440, abs=0.1)
    middle = slice(rate // 4, rate)
    assert np.abs(samples[middle] - sine(1.5, rate)[middle]).max() < 2e-3


def test_what_the_lower_rate_cannot_hold_is_filtered_out():
    samples = quiet((sine(1, 48_000, hertz=15_000), 48_000))
    assert np.abs(samples[2000:-2000]).max() < 1e-3


@pytest.mark.parametrize("given", [MIN_RATE - 1, MAX_RATE + 1, 1])
def test_rates_that_are_refused(given):
    for source in (encode(sine(), rate=given), (sine(), given)):
        message = problem(source)
        assert f"{given} Hz" in message
        assert f"{MIN_RATE} to {MAX_RATE} Hz" in message


def test_the_mean_of_the_channels_is_used_and_said():
    left, right = sine(), 0.2 * sine(hertz=1000)
    for source in (encode(np.stack([left, right], 1), "WAV", "FLOAT"), (np.stack([left, right], 1), 16_000)):
        sound, said = opened(source)
        np.testing.assert_allclose(sound.samples, (left + right) / 2, atol=1e-6)
        assert len(said) == 1
        assert "2 channels: their mean" in said[0]
    sound, said = opened(encode(np.tile(left[:, None], 6), "WAV", "FLOAT"))
    np.testing.assert_allclose(sound.samples, left, atol=1e-6)
    assert "6 channels" in said[0]
    assert "limit is 64" in problem(encode(np.zeros((999, MAX_CHANNELS + 1)), "WAV"))


# --- arrays


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.float16, np.float32, np.float64])
def test_arrays_are_scaled_by_their_type(dtype):
    scale = {np.uint8: 128, np.int8: 128, np.int16: 1 << 15, np.int32: 1 << 31}.get(dtype, 1)
    array = np.asarray(sine().astype(np.float64) * scale + (128 if dtype is np.uint8 else 0)).astype(dtype)
    assert np.abs(quiet((array, 16_000)) - sine()).max() <= {np.uint8: 0.01, np.int8: 0.01}.get(dtype, 5e-4)
    np.testing.assert_array_equal(quiet((array[::-1], 16_000)), quiet((array, 16_000))[::-1])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (sine(), "(samples, rate)"),
        ((sine(),), "(samples, rate)"),
        ((16_000, sine()), "(samples, rate)"),
        ((sine(), "fast"), "(samples, rate)"),
        ((sine(), None), "(samples, rate)"),
        (([[1.0], [1.0, 2.0]], 16_000), "(samples, rate)"),
        ((sine(), 16_000.5), "whole number"),
        ((sine(), float("nan")), "whole number"),
        ((sine().reshape(1, -1), 16_000), "(N, channels)"),
        ((sine().reshape(10, 10, -1), 16_000), "(N, channels)"),
        ((np.float32(0.5), 16_000), "(N, channels)"),
        ((np.zeros((999, 0)), 16_000), "(N, channels)"),
        ((sine() > 0, 16_000), "bool"),
        ((sine().astype(np.int64), 16_000), "int64"),
        ((sine().astype(complex), 16_000), "complex"),
        ((np.array([{"a": 1}]), 16_000), "object"),
        ((sine(), 0), "0 Hz"),
        ((np.zeros(0), 16_000), "lasts 0 ms"),
        ((np.zeros((0, 2)), 16_000), "lasts 0 ms"),
        ((32_768 * sine(), 16_000), "reach 16384"),
    ],
)
def test_arrays_that_are_refused(source, words):
    assert words in problem(source)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_samples_that_are_not_finite(value):
    samples = sine().astype(np.float64)
    samples[12_345] = value
    assert "NaN or infinite" in problem((samples, 16_000))
    assert "NaN or infinite" in problem(Sound(samples, 16_000))
    if not 1 < value < np.inf:
        assert "NaN or infinite" in problem(encode(samples, "WAV", "FLOAT"))


# --- what is read, and said


def test_silence_is_allowed_and_said():
    for source in (encode(np.zeros(16_000)), (np.zeros(16_000, np.int16), 16_000), (np.full(8000, 128, "u1"), 8000)):
        sound, said = opened(source)
        assert len(said) == 1
        assert "is silent" in said[0]
        assert not sound.samples.any() and len(sound.samples) == 16_000
    _, said = opened((np.stack([sine(), -sine()], 1), 16_000))
    assert "cancel" in said[1]


def test_clipping_is_said():
    for loud in (np.clip(4 * sine(), -1, 1), np.clip(80_000 * sine(), -32_768, 32_767).astype(np.int16)):
        _, said = opened((loud, 16_000))
        assert len(said) == 1
        assert "is clipped" in said[0] and "%" in said[0]
    assert quiet((2 * sine(), 16_000)).max() == pytest.approx(1)
    over, said = opened((2.5 * sine(), 16_000))
    assert over.samples.max() == 1
    assert f"{np.mean(np.abs(2.5 * sine()) >= 1):.0%} of" in said[0]


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0])
def test_wav_from_a_stream(size):
    data = with_data_size(encode(sine(), "WAV"), size)
    data = data[:4] + struct.pack("<I", size) + data[8:]
    np.testing.assert_allclose(quiet(data), sine(), atol=1e-4)


@pytest.mark.parametrize("size", [10, 999, 20_000])
def test_wav_whose_header_says_less_than_it_holds(size):
    sound, said = opened(with_data_size(encode(sine(), "WAV"), size))
    np.testing.assert_allclose(sound.samples, sine(), atol=1e-4)
    assert len(said) == 1
    assert f"{size} bytes" in said[0] and "32000" in said[0]


def test_wav_whose_header_says_more_than_it_holds():
    sound, said = opened(with_data_size(encode(sine(), "WAV"), 64_000))
    np.testing.assert_allclose(sound.samples, sine(), atol=1e-4)
    assert len(said) == 1
    assert "cut short" in said[0] and "1.0 s" in said[0]


@pytest.mark.parametrize("size", [0, 10, 0xFFFFFFFF])
def test_the_length_of_the_whole_wav_does_not_matter(size):
    data = encode(sine(), "WAV")
    assert len(quiet(data[:4] + struct.pack("<I", size) + data[8:])) == 16_000


@pytest.mark.parametrize("bits", ["PCM_U8", "PCM_16", "PCM_24"])
def test_chunks_and_tags_around_the_samples_are_not_heard(bits):
    data = encode(sine(1)[:-1], "WAV", bits)
    notes = struct.pack("<4sI", b"LIST", 4000) + b"note" * 1000
    at = data.index(b"data")
    for odd in (data + notes, data + b"TAG" + b"x" * 125, data[:at] + notes + data[at:]):
        assert len(quiet(odd)) == 15_999


@pytest.mark.parametrize("kind", ["WAV/PCM_16", "FLAC/PCM_16", "MP3/MPEG_LAYER_III", "OGG/VORBIS", "OGG/OPUS",
                                  "AIFF/PCM_16", "AU/PCM_16", "WAV/FLOAT"])  # fmt: skip
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_what_is_there_of_a_cut_file_is_used_and_said(kind, share):
    whole = encode(grain(12), *kind.split("/"))
    reference = quiet(whole)
    sound, said = opened(whole[: int(share * len(whole))])
    assert (share - 0.15) * 12 < sound.seconds < share * 12 + 0.5
    assert len(said) == 1
    assert "cut short" in said[0] and f"{sound.seconds:.1f} s" in said[0]
    edge = -400 if kind.startswith(("MP3", "OGG")) else None
    np.testing.assert_allclose(sound.samples[:edge], reference[: len(sound.samples)][:edge], atol=1e-6)


def test_a_damaged_block_ends_the_sound():
    data = bytearray(encode(grain(5), "FLAC"))
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    sound, said = opened(bytes(data))
    assert 1.5 < sound.seconds < 3
    assert "damaged" in said[0]


def test_without_a_listener():
    assert open_audio(encode(np.zeros((16_000, 2)))).seconds == 1


# --- what is refused


def test_missing_file_directory_and_empty_file(tmp_path):
    assert "no such file" in problem(tmp_path / "none.wav")
    assert "directory" in problem(tmp_path)
    (tmp_path / "empty.wav").touch()
    assert "0 bytes" in problem(tmp_path / "empty.wav")
    assert "0 bytes" in problem("-", stdin=io.BytesIO())
    assert "0 bytes" in problem(b"")
    assert "only http and https" in problem("ftp://example.com/sound.wav")


@pytest.mark.parametrize("count", [0, 1, 399])
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF"])
def test_too_short(kind, count):
    if not (kind == "FLAC" and count == 0):  # libFLAC writes an empty file
        assert "at least 25 ms" in problem(encode(sine()[:count], kind))
    assert len(quiet(encode(sine()[:400], kind))) == 400


@pytest.mark.parametrize("kind", ["WAV/PCM_16", "FLAC/PCM_16", "MP3/MPEG_LAYER_III", "OGG/VORBIS", "CAF/PCM_16"])
def test_nothing_usable(kind):
    data = encode(grain(2), *kind.split("/"))
    assert any(words in problem(data[:60]) for words in ("damaged", "cut short", "cannot be read", "25 ms"))


def test_too_long_is_refused_before_decoding(monkeypatch):
    data = encode(np.zeros(3601 * 4000, np.int16), "FLAC", rate=4000)
    with monkeypatch.context() as patch:
        patch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
        assert "3600 s, the limit" in problem(data)
    assert "0.5 s, the limit" in problem(encode(sine()), max_seconds=0.5)
    assert len(quiet(encode(sine()), max_seconds=1)) == 16_000


def test_too_long_without_a_length_in_the_header():
    read = 0

    def blocks():
        nonlocal read
        while True:
            read += 1
            yield np.zeros((4096, 1), np.float32)

    with pytest.raises(MediaError, match="5 s, the limit"):
        audio._read(audio._Stream("a sound", 16_000, 1, blocks()), 16_000, max_seconds=5)
    assert read == 5 * 16_000 // 4096 + 1


PNG = io.BytesIO()
Image.new("RGB", (9, 9)).save(PNG, "PNG")
VIDEOS = [
    b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", b"\0\0\0\x14ftypqt  \0\0\2\0", b"\x1aE\xdf\xa3\x01\0\0\0\0\0\0\x1fB\x86",
    b"RIFF\xff\xff\0\0AVI LIST\0\0", b"\0\0\1\xba\x44\0\4\0", b"OggS\0\2" + bytes(22) + b"\x80theora\3\2\1",
]  # fmt: skip


@pytest.mark.parametrize("data", VIDEOS)
def test_a_video_is_refused_as_such(data):
    data += bytes(2000)
    assert "a video, which is not supported" in problem(data)
    with pytest.raises(MediaError, match="a video, which is not supported"):
        open_image(data)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "OGG", "AIFF", "W64", "CAF", "AU", "RF64"])
def test_a_sound_given_as_a_picture(kind):
    with pytest.raises(MediaError, match="a sound; give it as a sound"):
        open_image(encode(sine(), kind))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_a_picture_given_as_a_sound(kind):
    buffer = io.BytesIO()
    try:
        Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, kind)
    except (KeyError, OSError):
        pytest.skip(f"Pillow cannot write {kind} here")
    assert "a picture; give it as a picture" in problem(buffer.getvalue())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"Only a note, renamed.\n" * 99, "text, not a sound"),
        ("Nur eine Notiz: h\u00f6re, \u4f60\u597d.\n".encode() * 99, "text, not a sound"),
        (b"BMW, RIFF and ID3 are words.\n", "text, not a sound"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"<svg/>", "drawing"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b"PK\3\4\0\0\0\0", "not a sound"),
        (bytes(5000), "not a sound"),
        (np.random.default_rng(0).bytes(5000), "not a sound"),
        (b"\0\0\0\x18ftypM4A \0\0\2\0" + bytes(99), "convert it to WAV"),
        (b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(99), "convert it to WAV"),
        (b"#!AMR\n\x3c\x91\x17\x16\xbe" + bytes(99), "convert it to WAV"),
        (encode(sine())[:40], "damaged or cut short"),
    ],
)
def test_files_that_are_not_sounds(tmp_path, data, said):
    path = tmp_path / "sound.wav"
    path.write_bytes(data)
    message = problem(path)
    assert said in message
    assert "sound.wav" in message


def test_damaged_files_give_a_sound_or_a_media_error(capfd):
    """300 files with flipped bytes, most of them in the header: no other error, and nothing printed."""
    choose = random.Random(0)
    kinds = ["WAV", "WAVEX", "FLAC", "OGG", "MP3", "AIFF", "CAF", "AU", "W64", "RF64"]
    samples = [encode(grain(0.5), kind) for kind in kinds] + [encode(grain(0.5), "OGG", "OPUS")]
    messages = []
    for case in range(300):
        data = bytearray(samples[case % len(samples)])
        reach = len(data) if case % 3 == 0 else 200
        for _ in range(choose.choice((1, 2, 4, 12))):
            data[choose.randrange(reach)] = choose.randrange(256)
        if case % 5 == 0:
            data = data[: choose.randrange(20, len(data))]
        try:
            opened(bytes(data))
        except MediaError as error:
            messages.append(str(error))
    assert 30 < len(messages) < 270
    assert not any("\n" in message for message in messages)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the folder of real sounds is not beside this repository")
def test_real_sounds():
    paths = sorted(CLIPS.glob("*.wav"))
    assert paths
    for path in paths:
        sound, _ = opened(path)
        raw, rate = soundfile.read(path, dtype="float32")
        assert rate == 16_000
        np.testing.assert_array_equal(sound.samples, raw)
