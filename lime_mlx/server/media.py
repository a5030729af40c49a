"""Pictures and sounds of a request: an http(s) address or a data: URI, never a path, within limits."""

from __future__ import annotations

import binascii
from base64 import b64decode
from urllib.parse import unquote_to_bytes

from PIL import Image

from lime_mlx.errors import MediaError
from lime_mlx.media.addresses import Private
from lime_mlx.media.audio import Sound, open_audio
from lime_mlx.media.fetch import fetch
from lime_mlx.media.image import open_image
from lime_mlx.server.settings import Settings

# The longer side of a picture of which the client wants little detail.
LOW = 512
SECONDS = 30.0


def picture(url: str, detail: str | None, settings: Settings) -> Image.Image:
    """The picture behind an address. detail "low" makes it at most `LOW` pixels wide and high. Raises `MediaError`."""
    image = open_image(content(url, settings), max_pixels=settings.pixels)
    if detail == "low":
        image.thumbnail((LOW, LOW))
    return image


def sound(data: str, settings: Settings) -> Sound:
    """The sound of a base64 text, a data: URI or an http(s) address. Raises `MediaError`."""
    is_address = data[:5].lower() in ("data:", "http:", "https")
    return open_audio(
        content(data, settings) if is_address else decoded(data, settings.media), max_seconds=settings.sound_seconds
    )


def content(url: str, settings: Settings) -> bytes:
    """The bytes behind an http(s) address or in a data: URI. Raises `MediaError`."""
    scheme = url.partition(":")[0].lower() if ":" in url[:20] else ""
    if scheme == "data":
        return data_uri(url, settings.media)
    if scheme not in ("http", "https"):
        raise MediaError("Only http, https and data: addresses are read; files of the server are not.")
    private: Private = "always" if settings.allow_private_urls else "never"
    data = fetch(url, max_bytes=settings.media, timeout=SECONDS, private=private)
    if not data:
        raise MediaError("The file behind the address is empty.")
    return data


def data_uri(uri: str, limit: int) -> bytes:
    """The bytes in a data: URI (RFC 2397). Raises `MediaError`."""
    head, comma, body = uri.partition(",")
    if not comma:
        raise MediaError("The data: URI has no comma before its data.")
    if head.lower().endswith(";base64"):
        return decoded(body, limit)
    return _within(unquote_to_bytes(body), limit)


def decoded(text: str, limit: int) -> bytes:
    """The bytes of a base64 text. Raises `MediaError`."""
    if len(text) > limit * 4 // 3 + 4:
        raise MediaError(f"A picture or sound is larger than {limit >> 20} MiB, the limit; make it smaller.")
    try:
        return _within(b64decode(text, validate=True), limit)
    except (binascii.Error, ValueError):
        raise MediaError("The picture or sound is not valid base64.") from None


def _within(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise MediaError(f"A picture or sound is larger than {limit >> 20} MiB, the limit; make it smaller.")
    if not data:
        raise MediaError("The picture or sound is empty.")
    return data
