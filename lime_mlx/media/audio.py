"""One sound, from any source, as mono samples at the rate that a model takes."""

import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from ..errors import MediaError
from .addresses import Private
from .fetch import read_source, source_name
from .formats import kind_of, silent_stderr, why_not

RATE = 16_000
MIN_RATE, MAX_RATE = 4_000, 192_000
MIN_SECONDS, MAX_SECONDS = 0.025, 3600.0
MAX_CHANNELS = 64

# Not every format that libsndfile knows: some have no mark of their own, so that any file could be one.
FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF")
FULL_SCALE = 32767 / 32768
CLIPPED_SHARE = 0.01
MAX_PEAK = 100.0  # lossy formats and loud mixes go a little over 1

_BLOCK = 4096
_TAG = 1024  # a tag may stand after the sound
_NO_KNOWN_FORMAT = 1  # of libsndfile's error codes
_UNKNOWN_FRAMES = 1 << 62
_STREAMED = 0x7FFFF000  # writers to a pipe put this or more where the length of a WAV file belongs
_INTEGERS = {"uint8": (128, 128), "int8": (0, 128), "int16": (0, 1 << 15), "int32": (0, 1 << 31)}
_MISSING = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)


@dataclass(frozen=True, eq=False)
class Sound:
    """Mono samples (N,) float32 in -1..1, and how many of them make a second."""

    samples: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


# What `open_audio` takes.
AudioSource = str | os.PathLike[str] | bytes | tuple[np.ndarray, int] | Sound


def open_audio(
    source: AudioSource,
    rate: int = RATE,
    *,
    max_seconds: float = MAX_SECONDS,
    stdin: BinaryIO | None = None,
    notice: Callable[[str], None] | None = None,
    private: Private = "typed",
) -> Sound:
    """Open a sound as mono at `rate` (Hz), the mean of its channels.

    Args:
        source: a path, an http(s) URL, `-` for standard input, the bytes of a sound file (WAV, FLAC, Ogg Vorbis, Ogg
            Opus, MP3, AIFF, AU, CAF), a `Sound`, or (samples, rate): an array of shape (N,) or (N, channels), either
            floating-point in -1..1 or uint8, int8, int16 or int32, which are divided by their full scale.
        max_seconds: longer sounds are refused, before they are decoded where their header tells.
        stdin: the stream that `-` reads; the process's standard input when left out.
        notice: called with one sentence for each thing that the user should know: several channels, a file that is
            cut short or damaged (what is whole of it is used), a header that lies, silence, clipping.
        private: whether a URL may lead to this machine and its networks, see `addresses`.

    Returns:
        A new `Sound`. Samples over full scale are clipped to -1..1.

    Raises:
        MediaError: the source cannot be read, is not a sound, holds nothing usable, lasts under `MIN_SECONDS` or over
            `max_seconds`, has a rate outside `MIN_RATE` to `MAX_RATE`, over `MAX_CHANNELS` channels, or samples that
            are NaN, infinite or over `MAX_PEAK`.
    """
    if isinstance(source, Sound):
        source = source.samples, source.rate
    if isinstance(source, tuple | np.ndarray):
        stream = _from_array(source)
        samples = _read(stream, rate, max_seconds)
    else:
        data, content_type = read_source(source, stdin=stdin, private=private)
        with silent_stderr(), _opened(data, content_type, source_name(source)) as (file, stream):
            samples = _read(stream, rate, max_seconds, file.frames)
    if notice is not None:
        for sentence in stream.notices:
            notice(f"{stream.name} {sentence}.")
    return Sound(samples, rate)


@dataclass
class _Stream:
    """Blocks (n, channels) float32 of a sound; what is wrong with it is known when all are read."""

    name: str
    rate: int
    channels: int
    blocks: Iterator[np.ndarray]
    notices: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def _error(name: str, problem: str) -> MediaError:
    return MediaError(f"Cannot open {name}: {problem}.")


class _Bytes(BytesIO):
    """libsndfile seeks to before the start of damaged files, and a callback must not raise."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


class _Forward(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """Read once, front to back: the seek that soundfile makes after every block fails in a damaged file."""

    def seekable(self) -> bool:
        return False


@contextmanager
def _opened(data: bytes, content_type: str, name: str) -> Iterator[tuple[soundfile.SoundFile, _Stream]]:
    notices: list[str] = []
    try:
        file = _Forward(_Bytes(_with_true_length(data, notices)))
    except soundfile.LibsndfileError as error:
        damaged = error.code != _NO_KNOWN_FORMAT and kind_of(data) == "sound"
        problem = "it is damaged or cut short; copy or download it again" if damaged else None
        raise _error(name, problem or why_not("sound", data, content_type)) from error
    with file:
        if file.format not in FORMATS:
            raise _error(name, why_not("sound", data, content_type))
        stream = _Stream(name, file.samplerate, file.channels, iter(()), notices)
        stream.blocks = _decoded(file, stream.damage)
        if _is_cut(file, data):
            stream.damage.append("cut short")
        yield file, stream


def _is_cut(file: soundfile.SoundFile, data: bytes) -> bool:
    """Whether the file says that it goes on after its end."""
    if file.format == "OGG":
        page = data[data.rfind(b"OggS") :]
        whole = len(page) > 26 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
        return not (whole and page[5] & 4)  # the mark of the last page
    declared = [int(length) for length, rest in _MISSING.findall(file.extra_info) if int(length) > int(rest)]
    return any(length < _STREAMED for length in declared)


def _decoded(file: soundfile.SoundFile, damage: list[str]) -> Iterator[np.ndarray]:
    """Blocks (n, channels) float32, up to the end or the first damage."""
    count = 0
    while True:
        try:
            block = file.read(_BLOCK, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            damage.append("damaged or cut short")
            return
        if not len(block):
            break
        count += len(block)
        yield block
    if count + file.samplerate // 10 < file.frames < _UNKNOWN_FRAMES:
        damage.append("cut short")


def _from_array(source: Any) -> _Stream:
    name = "the given sound"
    if not isinstance(source, tuple) or len(source) != 2:
        raise _error(name, "an array needs its sampling rate; give (samples, rate)")
    try:
        samples, rate = np.asarray(source[0]), float(source[1])
    except (TypeError, ValueError) as error:
        raise _error(name, "it is not an array and its sampling rate; give (samples, rate)") from error
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 0 < samples.shape[1] <= MAX_CHANNELS):
        shapes = f"(N,) or (N, channels) with up to {MAX_CHANNELS} channels"
        raise _error(name, f"its array must be of shape {shapes}, and this one is of shape {samples.shape}")
    if samples.dtype.kind != "f" and samples.dtype.name not in _INTEGERS:
        raise _error(name, f"its array must be floating-point, {', '.join(_INTEGERS)}, and not {samples.dtype}")
    if not rate.is_integer():
        raise _error(name, f"its sampling rate must be a whole number of Hz, and not {rate:g}")
    columns = samples[:, None] if samples.ndim == 1 else samples
    return _Stream(name, int(rate), columns.shape[1], _blocks(columns))


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    middle, scale = _INTEGERS.get(array.dtype.name, (0, 1))
    for start in range(0, len(array), _BLOCK):
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused
            block = ((array[start : start + _BLOCK].astype(np.float64) - middle) / scale).astype(np.float32)
        yield block


def _read(stream: _Stream, rate: int, max_seconds: float, frames: int = 0) -> np.ndarray:
    """(N,) float32 at `rate`. frames: how many there are by the header."""
    name, given, channels = stream.name, stream.rate, stream.channels
    if not MIN_RATE <= given <= MAX_RATE:
        limits = f"from {MIN_RATE} to {MAX_RATE} Hz are read"
        raise _error(name, f"its sampling rate is {given} Hz, and rates {limits}; convert it to {rate} Hz")
    if channels > MAX_CHANNELS:
        raise _error(name, f"it has {channels} channels, and the limit is {MAX_CHANNELS}; mix it down")
    too_long = f"it lasts more than {max_seconds:g} s, the limit; cut it"
    if max_seconds * given < frames < _UNKNOWN_FRAMES:
        raise _error(name, too_long)
    resampler = None if given == rate else soxr.ResampleStream(given, rate, 1, dtype="float32", quality="HQ")
    parts, count, full, peak = [], 0, 0, 0.0
    for block in stream.blocks:
        if not np.isfinite(block).all():
            raise _error(name, "some of its samples are NaN or infinite; export it again")
        count += len(block)
        if count > max_seconds * given:
            raise _error(name, too_long)
        sizes = np.abs(block)
        full, peak = full + np.count_nonzero(sizes >= FULL_SCALE), max(peak, float(sizes.max()))
        mono = block.mean(axis=1)
        parts.append(mono if resampler is None else resampler.resample_chunk(mono))
    if peak > MAX_PEAK:
        raise _error(name, f"its samples reach {peak:.6g}, and full scale is -1..1; scale it, or copy the file again")
    if count < MIN_SECONDS * given:
        damage = f"it is {stream.damage[0]}, and what is left" if stream.damage else "it"
        lasts = f"{damage} lasts {1000 * count / given:.3g} ms"
        raise _error(name, f"{lasts}; give at least {1000 * MIN_SECONDS:.0f} ms of sound")
    if resampler is not None:
        parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    samples: NDArray[np.float32] = np.clip(np.concatenate(parts), -1, 1)
    if channels > 1:
        stream.notices.append(f"has {channels} channels: their mean is used")
    if stream.damage:
        stream.notices.append(f"is {stream.damage[0]}: only its first {count / given:.1f} s are used")
    if not samples.any():
        stream.notices.append("is silent" if peak == 0 else "is silent, since its channels cancel each other out")
    if full > CLIPPED_SHARE * count * channels:
        stream.notices.append(f"is clipped: {full / (count * channels):.0%} of its samples are at full scale")
    return samples


def _with_true_length(data: bytes, notices: list[str]) -> bytes:
    """A WAV file whose header gives less than it holds, as streams and crashed recorders leave it, made readable."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return data
    at = 12
    while (chunk := _chunk(data, at)) is not None and chunk[0] != b"data":
        at += 8 + chunk[1] + chunk[1] % 2
    if chunk is None:
        return data
    end = at + 8 + chunk[1] + chunk[1] % 2
    if len(data) - end < _TAG or _chunk(data, end) or _chunk(data, end - chunk[1] % 2):
        return data
    if chunk[1]:
        notices.append(f"has {chunk[1]} bytes of sound by its header and {len(data) - at - 8} in fact: all are used")
    return data[: at + 4] + b"\xff\xff\xff\xff" + data[at + 8 :]


def _chunk(data: bytes, at: int) -> tuple[bytes, int] | None:
    """Name and size of the RIFF chunk at `at`, if there is one."""
    if at + 8 > len(data):
        return None
    name, size = struct.unpack_from("<4sI", data, at)
    is_name = all(32 <= byte < 127 for byte in name)
    return (name, size) if is_name and (name == b"data" or at + 8 + size <= len(data)) else None
