"""A sound as the log-mel spectrogram that Whisper's encoder takes, in NumPy.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision" (arXiv 2212.04356), section 2.2; the
mel scale and the filters of equal area are those of Slaney's Auditory Toolbox (1998).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, MediaError
from ..files import Json
from .audio import MAX_RATE, MAX_SECONDS, MIN_RATE
from .preprocess import positive

if TYPE_CHECKING:
    from typing_extensions import Self

TOP_HERTZ = 8000.0
FLOOR = 1e-10
RANGE = 8.0  # powers of ten below the loudest that are kept


@dataclass(frozen=True)
class Mel:
    """Windows of `n_fft` samples, `hop_length` apart, as `n_mels` bands up to 8 kHz.

    n_samples: the length of a chunk, to which sounds are cut or padded with `padding_value`. The defaults are those of
    WhisperFeatureExtractor.
    """

    n_mels: int = 80
    rate: int = 16_000
    n_fft: int = 400
    hop_length: int = 160
    n_samples: int = 480_000
    padding_value: float = 0.0

    @classmethod
    def from_dict(cls, settings: Json) -> Self:
        """Read preprocessor_config.json, or the part `feature_extractor` of processor_config.json.

        A key that is missing or null takes its default. The length of a chunk is chunk_length (seconds) times
        sampling_rate; n_samples and nb_max_frames follow from it and are not read.

        Raises `CheckpointError` for settings that are not supported or give no spectrogram.
        """
        try:
            return cls._read({key: value for key, value in settings.items() if value is not None})
        except (TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"The settings of the sound preprocessor cannot be used: {error}.") from error

    @classmethod
    def _read(cls, settings: Json) -> Self:
        kind = settings.get("feature_extractor_type", "WhisperFeatureExtractor")
        if kind != "WhisperFeatureExtractor":
            raise ValueError(f"feature_extractor_type {kind} is not supported")
        if settings.get("dither", 0):
            raise ValueError("dither, which adds noise, is not supported")
        if settings.get("padding_side", "right") != "right":
            raise ValueError("padding_side must be right")
        rate = positive(settings, "sampling_rate", cls.rate)
        seconds = positive(settings, "chunk_length", cls.n_samples // cls.rate)
        mel = cls(
            n_mels=positive(settings, "feature_size", cls.n_mels),
            rate=rate,
            n_fft=positive(settings, "n_fft", cls.n_fft),
            hop_length=positive(settings, "hop_length", cls.hop_length),
            n_samples=seconds * rate,
            padding_value=float(settings.get("padding_value", cls.padding_value)),
        )
        if not MIN_RATE <= rate <= MAX_RATE:
            raise ValueError(f"sampling_rate must be {MIN_RATE} to {MAX_RATE}, got {rate}")
        if seconds > MAX_SECONDS:
            raise ValueError(f"chunk_length must be at most {MAX_SECONDS:g} s, got {seconds}")
        if mel.n_fft % 2 or mel.n_fft > rate:
            raise ValueError(f"n_fft must be even and at most a second, got {mel.n_fft}")
        if mel.n_mels > mel.n_fft:
            raise ValueError(f"feature_size must be at most n_fft, got {mel.n_mels}")
        if mel.hop_length > mel.n_samples:
            raise ValueError(f"hop_length must be shorter than a chunk, got {mel.hop_length}")
        if not np.isfinite(mel.padding_value):
            raise ValueError("padding_value must be finite")
        return mel

    @property
    def seconds(self) -> float:
        """The length of a chunk. The rest of a longer sound is cut off."""
        return self.n_samples / self.rate

    def times(self, frames: int) -> NDArray[np.float64]:
        """(frames,) float64: the middle of each frame's window, in seconds from the start of the sound."""
        return np.arange(frames) * self.hop_length / self.rate

    def __call__(
        self, samples: NDArray[np.float32], length: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Samples (N,) to features (n_mels, frames) float32, and the mask (frames,) int32: 1 where there is sound.

        length: cut or pad to so many samples: a chunk when left out, as the processors of Qwen2-Audio and Qwen2.5-Omni
        do; len(samples) for neither; the longest of several to make them equal. There are length // hop_length frames.

        Raises `MediaError` when the length is under one hop.
        """
        length = self.n_samples if length is None else length
        frames = length // self.hop_length
        if frames < 1:
            raise MediaError(f"Cannot use a sound of {length} samples; give at least {self.hop_length}.")
        kept = np.asarray(samples, dtype=np.float32)[:length]
        # Frames of nothing but padding are all the same: one is computed, and repeated.
        needed = min(length, (-(-(len(kept) + self.n_fft) // self.hop_length) + 1) * self.hop_length)
        padded = np.pad(kept, (0, needed - len(kept)), constant_values=np.float32(self.padding_value))
        padded = np.pad(padded.astype(np.float64), self.n_fft // 2, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.n_fft)[:: self.hop_length]
        hann = np.hanning(self.n_fft + 1)[:-1]
        power = np.abs(np.fft.rfft(windows[: needed // self.hop_length] * hann)) ** 2
        logs = np.log10(np.maximum(power @ self.filters, FLOOR))
        logs = np.maximum(logs, logs.max() - RANGE)
        logs = np.pad(logs, ((0, frames - len(logs)), (0, 0)), mode="edge")
        mask = np.arange(frames) * self.hop_length < len(kept)
        return np.ascontiguousarray((logs.T + 4) / 4, dtype=np.float32), mask.astype(np.int32)

    @cached_property
    def filters(self) -> NDArray[np.float64]:
        """(n_fft // 2 + 1, n_mels) float64: triangles with their feet on their neighbours' peaks, of equal area."""
        edges = _hertz(np.linspace(0, _mels(TOP_HERTZ), self.n_mels + 2))
        bins = np.linspace(0, self.rate // 2, self.n_fft // 2 + 1)[:, None]
        low, peak, high = edges[:-2], edges[1:-1], edges[2:]
        rising, falling = (bins - low) / (peak - low), (high - bins) / (high - peak)
        filters: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
        return filters


# Slaney's scale: 3 mels for 200 Hz up to 1 kHz, and 27 mels for each factor of 6.4 above it.


def _mels(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
