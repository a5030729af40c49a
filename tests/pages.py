"""Explanations of invented answers, for the tests of pages: no model makes them."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from lime_mlx.answer import Answer
from lime_mlx.explanation import About, Explanation
from lime_mlx.lrp.relevance import Shares
from lime_mlx.media.audio import Sound
from lime_mlx.methods.base import Rejected
from lime_mlx.probes.rival import Contrast
from lime_mlx.prompt import Grid, Span
from lime_mlx.words import Word, ranked

ROWS, COLUMNS = 4, 6
QUESTION = 3  # positions of the question behind the media


def at(spans: Sequence[Span], span: int, *cells: int, size: float = 1.0, ahead: int = 0) -> np.ndarray:
    """Relevance of a word: `size` at cells of a span, 0.2 at the question; `ahead` words stand before it."""
    relevance = np.zeros(spans[-1].stop + QUESTION + ahead, np.float32)
    relevance[[spans[span].start + cell for cell in cells]] = size
    relevance[spans[-1].stop :] = 0.2
    return relevance


def word(text: str, relevance: np.ndarray, kind: str = "image", p_unsupported: float | None = None, **more) -> Word:
    shares = {"image": 0.0, "audio": 0.0, kind: 0.62, "prompt": 0.18, "own": 0.2}
    judged = {} if p_unsupported is None else {"p_unsupported": p_unsupported, "flagged": p_unsupported >= 0.5}
    return Word(text=text, shares=Shares(**shares), relevance=relevance, statistics={"positive": 1.0}, **judged, **more)


def explanation(words: Sequence[Word], spans: Sequence[Span], **more) -> Explanation:
    text = "".join(each.text for each in words)
    about = About(model="a model", command="lime-mlx explain x.png", pictures=["x.png", "y.png"], sounds=["z.wav"])
    made = {"question": "What is in the picture?", "method": "none", "about": about, **more}
    return Explanation(answer=Answer(text=text, words=ranked(words)), spans=spans, **made)


def of_picture(**more) -> Explanation:
    """ "A dog and a cat.", of which the cat is flagged, over a grey picture of twice as many columns as rows."""
    spans = [Span("image", 1, 1 + ROWS * COLUMNS, grid=Grid(ROWS, COLUMNS))]
    rejected = (Rejected("bird", 0.98), Rejected("dog", 0.0, True))
    words = [
        word("A", at(spans, 0, 9)),
        word(" dog", at(spans, 0, 0, 1, size=2.0), p_unsupported=0.02),
        word(" and", at(spans, 0, 12)),
        word(" a", at(spans, 0, 13)),
        word(" cat.", at(spans, 0, 23), p_unsupported=0.96, rejected=rejected),
    ]
    contrasts = [None, Contrast("cat", 2.5, at(spans, 0, 0) - at(spans, 0, 23)), None, None, None]
    pictures = [Image.new("RGB", (600, 400), (200, 180, 160))]
    return explanation(words, spans, pictures=pictures, contrasts=contrasts, **more)


def of_two_pictures(**more) -> Explanation:
    spans = [
        Span("image", 1, 5, source=0, grid=Grid(2, 2)),
        Span("image", 6, 12, source=1, grid=Grid(3, 2)),
    ]
    both = at(spans, 0, 0, size=3.0) + at(spans, 1, 5)
    words = [word("dogs", both, p_unsupported=0.1), word(" cats", at(spans, 1, 0), p_unsupported=0.2)]
    pictures = [Image.new("RGB", (200, 100), "white"), Image.new("RGB", (100, 150), "white")]
    return explanation(words, spans, pictures=pictures, **more)


def of_sound(seconds: float = 4.0, **more) -> Explanation:
    """ "whistle, bell": heard from 1.0 to 1.5 s and from 3 to 3.5 s of a tone."""
    spans = [Span("audio", 1, 1 + int(10 * seconds), seconds=0.1)]
    words = [
        word("whistle,", at(spans, 0, 10, 11, 12, 13, 14), "audio", 0.03, seconds=((1.0, 1.5),)),
        word(" bell", at(spans, 0, 30, 31, 32, 33, 34), "audio", 0.6, seconds=((3.0, 3.5),)),
    ]
    times = np.arange(int(16000 * seconds)) / 16000
    tone = (0.4 * np.sin(2 * np.pi * 440 * times) * (times % 1)).astype(np.float32)
    return explanation(words, spans, sounds=[Sound(tone, 16000)], **more)
