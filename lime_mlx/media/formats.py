"""What a file is by its first bytes, for the message that refuses it, and how decoders in C are kept quiet."""

import codecs
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .fetch import one_line

PICTURE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"BM")
SOUND_STARTS = (b"fLaC", b"OggS", b"ID3", b"RF64", b"riff\x2e\x91", b"caff", b".snd", b"#!AMR")
VIDEO_STARTS = (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", b"FLV\1")
RIFF = {b"WAVE": "sound", b"AVI ": "video", b"WEBP": "picture"}
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
PICTURE_BRANDS = (*HEIC_BRANDS, b"avif", b"avis")
SOUND_BRANDS = (b"M4A ", b"M4B ", b"M4P ")
# How the names of pictures in a folder end, in lower case; `open_image` knows a file by its content.
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# Endings of addresses that are sounds; a file is known by its content.
SOUND_SUFFIXES = frozenset(".wav .mp3 .flac .ogg .oga .opus .m4a .aif .aiff .au .caf".split())

# What to do with another kind of file where a picture or a sound is wanted.
ADVICE = {
    ("picture", "sound"): "a sound; give it as a sound, as in --audio FILE",
    ("picture", "video"): "a video, which is not supported; save one frame as PNG",
    ("picture", "pdf"): "a PDF; export the page as PNG",
    ("picture", "svg"): "an SVG drawing; export it as PNG",
    ("picture", "page"): "a web page; give the address of the picture itself",
    ("picture", "text"): "text, not a picture; check which file it is",
    ("picture", None): "not a picture that can be read; convert it to PNG or JPEG",
    ("sound", "sound"): "a sound of a kind that cannot be read; convert it to WAV, FLAC or MP3",
    ("sound", "picture"): "a picture; give it as a picture, as in --image FILE",
    ("sound", "video"): "a video, which is not supported; save its sound as WAV",
    ("sound", "pdf"): "a PDF, not a sound; check which file it is",
    ("sound", "svg"): "a drawing, not a sound; check which file it is",
    ("sound", "page"): "a web page; give the address of the sound itself",
    ("sound", "text"): "text, not a sound; check which file it is",
    ("sound", None): "not a sound that can be read; convert it to WAV, FLAC or MP3",
}


_DESCRIPTORS = threading.RLock()


def is_picture_name(file: Path) -> bool:
    """Whether the name of a file ends as those of pictures do, in small letters or capitals."""
    return file.suffix.lower() in PICTURE_SUFFIXES


def kind_of(data: bytes) -> str | None:
    """ "picture", "sound", "video", "pdf", "svg", "page" (HTML) or "text"; None for anything else."""
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"%pdf-"):
        return "pdf"
    if head.startswith(b"<svg") or (head.startswith(b"<?xml") and b"<svg" in head):
        return "svg"
    if head.startswith((b"<!doctype html", b"<html")):
        return "page"
    if _is_text(head):
        return "text"
    if data[:4] == b"RIFF" and data[8:12] in RIFF:
        return RIFF[data[8:12]]
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        return "picture" if brand in PICTURE_BRANDS else "sound" if brand in SOUND_BRANDS else "video"
    if data.startswith(b"OggS") and b"\x80theora" in data[:256]:
        return "video"
    if data.startswith(VIDEO_STARTS) or data[4:8] in (b"moov", b"mdat"):
        return "video"
    if data.startswith(SOUND_STARTS) or data[:4] + data[8:11] == b"FORMAIF" or _is_mpeg_frame(data):
        return "sound"
    return "picture" if data.startswith(PICTURE_STARTS) else None


def why_not(wanted: str, data: bytes, content_type: str) -> str:
    """Why `data`, which its decoder does not know, is no picture or no sound (`wanted`), and what to do."""
    served = f" (the server calls it {one_line(content_type, 80)})" if content_type else ""
    return f"it is {ADVICE.get((wanted, kind_of(data)), ADVICE[wanted, None])}{served}"


@contextmanager
def silent_stderr() -> Iterator[None]:
    """For libraries that print their complaints straight to file descriptor 2. One thread at a time is inside."""
    with silent(2):
        yield


@contextmanager
def silent(*descriptors: int) -> Iterator[None]:
    """What is written to these file descriptors inside goes nowhere. One thread at a time is inside."""
    with _DESCRIPTORS, ExitStack() as stack:
        for descriptor in descriptors:
            stack.enter_context(_to_null(descriptor))
        yield


@contextmanager
def _to_null(descriptor: int) -> Iterator[None]:
    try:
        kept = os.dup(descriptor)
    except OSError:  # closed: what is printed goes nowhere anyway
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(null)


def _is_mpeg_frame(data: bytes) -> bool:
    """An MP3 (layer III) or an AAC (ADTS) without a tag in front."""
    return len(data) > 2 and data[0] == 0xFF and (data[1] & 0xE6 == 0xE2 or data[1] & 0xF6 == 0xF0)


def _is_text(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return b"\0" not in head
