"""Words, tokens and maps as JSON: in the form of the pages, see `lime_mlx.render.view`."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from typing import Literal, cast

import numpy as np
from PIL import Image

from lime_mlx.answer import Response
from lime_mlx.prompt import Span
from lime_mlx.render.view import LEVELS, MapView, word_view
from lime_mlx.server.tokens import LOWEST, Spelling
from lime_mlx.words import Word

Maps = bool | Literal["arrays", "png"]


def word_json(word: Word, spans: Sequence[Span], maps: Maps) -> dict[str, object]:
    """A word with its shares and verdict; with its maps over each picture and sound where these are wanted.

    A map as arrays has rows, columns, values and their unit. As PNG it has `png`, a data: URI of a grey picture with a
    pixel for each cell, in which 255 is the largest positive relevance and 0 none.
    """
    if not maps:
        view = word_view(word, ())
        view.pop("maps", None)
        return cast(dict[str, object], view)
    view = word_view(word, spans)
    result = cast(dict[str, object], view)
    if maps == "png":
        result["maps"] = [None if each is None else _as_png(each) for each in view.get("maps", [])]
    return result


def token_json(spelling: Spelling, token: Response, word: Word) -> dict[str, object]:
    """A token with its own shares and the method's log-probability, and the verdict of its word."""
    logprob = None if token.logprobs is None else round(max(float(token.logprobs[token.token]), LOWEST), 6)
    return {
        "token": spelling.text(token.token),
        "id": token.token,
        "logprob": logprob,
        "shares": None if token.shares is None else {k: round(v, 4) for k, v in token.shares._asdict().items()},
        "p_unsupported": word.p_unsupported if token.statistics is not None else None,
        "flagged": word.flagged,
    }


def _as_png(view: MapView) -> dict[str, object]:
    levels = np.maximum(np.array(view["values"]).reshape(view["rows"], view["columns"]), 0)
    grey = np.rint(levels * (255 / LEVELS)).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    rest = {name: value for name, value in view.items() if name != "values"}
    return {**rest, "png": f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"}
