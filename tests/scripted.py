"""A server that tells the truth about the pixels and samples that it gets, in many manners; it knows no probe."""

import base64
import io
import re
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import soundfile
from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps

LEGIBLE = 6  # pixels: the eyes read no smaller sign
RGB = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
}
WORDS = "zero one two three four five six seven eight nine ten".split()
SIGNS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


# The eyes


def seen(data: bytes) -> Image.Image:
    """A file upright, on white, at most 1024 pixels wide and high."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.reduce(max(1, -(-max(image.size) // 1024))).convert("RGB")


def colour_name(level: np.ndarray) -> str:
    return min(RGB, key=lambda name: sum((int(a) - b) ** 2 for a, b in zip(level, RGB[name], strict=True)))


def paper(picture: Image.Image) -> tuple[int, int, int]:
    """The colour of most of the picture's border."""
    width, height = picture.size
    sides = ((0, 0, width, 1), (0, height - 1, width, height), (0, 0, 1, height), (width - 1, 0, width, height))
    edge = np.concatenate([np.asarray(picture.crop(box)).reshape(-1, 3) for box in sides])
    return tuple(int(level) for level in np.median(edge, axis=0))


def ink(picture: Image.Image) -> np.ndarray:
    """(H, W) bool: what stands out from the paper."""
    red, green, blue = ImageChops.difference(picture, Image.new("RGB", picture.size, paper(picture))).split()
    away = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))
    return away > max(40, 0.5 * away.max())


@lru_cache(1)
def glyphs() -> dict[str, np.ndarray]:
    made = {}
    for sign in SIGNS:
        image = Image.new("L", (300, 300))
        ImageDraw.Draw(image).text((80, 40), sign, fill=255, font=ImageFont.load_default(150))
        made[sign] = shape_of(np.asarray(image) > 127)
    return made


def shape_of(mask: np.ndarray) -> np.ndarray:
    """What a mask shows, as 24 x 16 levels, with its proportions behind them."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    small = Image.fromarray((255 * cut).astype(np.uint8)).resize((16, 24), Image.Resampling.BILINEAR)
    return np.append(np.asarray(small, dtype=np.float64).ravel() / 255, 6 * min(1.5, cut.shape[1] / cut.shape[0]))


def read(picture: Image.Image) -> str:
    """The signs in a picture from left to right; empty where they are too small, or none."""
    mask = ink(picture)
    columns = np.concatenate([[0], mask.any(axis=0).astype(int), [0]])
    edges = np.flatnonzero(np.diff(columns))
    signs = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        part = mask[:, start:stop]
        height = np.ptp(np.flatnonzero(part.any(axis=1))) + 1
        if height < LEGIBLE:
            continue
        shape = shape_of(part)
        signs.append(min(glyphs(), key=lambda sign: ((glyphs()[sign] - shape) ** 2).sum()))
    return "".join(signs)


def count(picture: Image.Image) -> int:
    """How many separate things stand out."""
    mask = ink(picture)[::6, ::6].copy()
    found = 0
    while mask.any():
        found += 1
        rest = [tuple(np.argwhere(mask)[0])]
        while rest:
            row, column = rest.pop()
            if 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1] and mask[row, column]:
                mask[row, column] = False
                rest += [(row + a, column + b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
    return found


def side(picture: Image.Image) -> str:
    mask = ink(picture)
    if not mask.any() or mask.mean() > 0.5:
        return "nowhere"
    down, across = np.argwhere(mask).mean(axis=0) / mask.shape - 0.5
    if max(abs(down), abs(across)) < 0.1:
        return "middle"
    return ("left" if across < 0 else "right") if abs(across) > abs(down) else ("top" if down < 0 else "bottom")


# The ears


@lru_cache(256)
def heard(data: bytes) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(data))


def loud(data: bytes) -> np.ndarray:
    """Which tenths of a second are loud."""
    samples, rate = heard(data)
    frames = samples[: len(samples) // (rate // 10) * (rate // 10)].reshape(-1, rate // 10)
    return np.abs(frames).max(axis=1) > 0.02


def hertz(data: bytes) -> float:
    samples, rate = heard(data)
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


# The answers


def answer(request: dict) -> tuple[str, str]:
    """What kind of thing is asked, and the true answer in a word or two."""
    texts = [m["content"] if isinstance(m["content"], str) else _text(m["content"]) for m in request["messages"]]
    text = texts[-1]
    parts = [part for m in request["messages"] if isinstance(m["content"], list) for part in m["content"]]
    pictures = [_data(p["image_url"]["url"]) for p in parts if p["type"] == "image_url"]
    sounds = [base64.b64decode(p["input_audio"]["data"]) for p in parts if p["type"] == "input_audio"]
    if match := re.search(r"say nothing else: (\w+)", text):
        return "word", match[1]
    if "word of the day" in text:
        told = re.findall(r"word of the day is ([A-Z]+)", " ".join(texts))
        return "word", told[-1] if told else "unknown"
    if re.search(r"sound|beep|tone", text):
        return about_sound(text, sounds)
    return about_pictures(text, pictures)


def about_pictures(text: str, pictures: list[bytes]) -> tuple[str, str]:
    if not pictures:
        return "nothing", "There is no picture."
    if "second picture" in text and len(pictures) < 2:
        return "nothing", "There is no second picture."
    wanted = ("Name the digits", "Name the colours", "colour", "side", "digit", "word", "dots")
    kind = next((words for words in wanted if words in text), "")
    if kind.startswith("Name"):
        return "words", " and ".join(look(picture, kind)[1] for picture in pictures)
    return look(pictures["second picture" in text], kind)


def look(data: bytes, kind: str) -> tuple[str, str]:
    picture = seen(data)
    return looked(picture.size, picture.tobytes(), kind)


@lru_cache(2048)
def looked(size: tuple[int, int], data: bytes, kind: str) -> tuple[str, str]:
    """What a picture shows, of one kind."""
    pixels = Image.frombytes("RGB", size, data)
    if kind == "Name the digits":
        return "number", read(pixels)
    if kind == "Name the colours":
        return "colour", colour_name(paper(pixels))
    if kind == "colour":
        return "colour", colour_name(paper(pixels))
    if kind == "side":
        return "side", side(pixels)
    if kind == "digit":
        return "number", read(pixels) or "none"
    if kind == "word":
        return "word", read(pixels) or "none"
    if kind == "dots":
        return "number", str(count(pixels))
    return "words", f"something {colour_name(np.asarray(pixels).mean(axis=(0, 1)))}"


def about_sound(text: str, sounds: list[bytes]) -> tuple[str, str]:
    if not sounds:
        return "nothing", "There is no sound."
    active = loud(sounds[0])
    if "beeps" in text:
        return "number", str(int((np.diff(np.concatenate([[0], active.astype(int)])) == 1).sum()))
    if "high or low" in text:
        return "pitch", ("high" if hertz(sounds[0]) > 600 else "low") if active.any() else "none"
    if "silence" in text:
        return "tone", "tone" if active.any() else "silence"
    return "words", "a tone" if active.any() else "nothing"


def _text(parts: list[dict]) -> str:
    return " ".join(part["text"] for part in parts if part["type"] == "text")


def _data(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


# The manners

GERMAN = dict(
    red="rot", green="grün", blue="blau", yellow="gelb", black="schwarz", white="weiß", grey="grau", left="links",
    right="rechts", top="oben", bottom="unten", high="hoch", low="tief", tone="ein Ton", silence="Stille",
    **{str(i): w for i, w in enumerate("null eins zwei drei vier fünf sechs sieben acht neun zehn".split())},
)  # fmt: skip
FRENCH = dict(
    red="rouge", green="vert", blue="bleu", yellow="jaune", black="noir", white="blanc", grey="gris", left="gauche",
    right="droite", top="en haut", bottom="en bas", high="aigu", low="grave", tone="un son", silence="silence",
    **{str(i): w for i, w in enumerate("zéro un deux trois quatre cinq six sept huit neuf dix".split())},
)  # fmt: skip
SPANISH = dict(
    red="rojo", green="verde", blue="azul", yellow="amarillo", black="negro", white="blanco", grey="gris",
    left="a la izquierda", right="a la derecha", top="arriba", bottom="abajo", high="agudo", low="grave",
    tone="un tono", silence="silencio",
    **{str(i): w for i, w in enumerate("cero uno dos tres cuatro cinco seis siete ocho nueve diez".split())},
)  # fmt: skip
CHINESE = dict(
    red="红色", green="绿色", blue="蓝色", yellow="黄色", black="黑色", white="白色", grey="灰色",
    left="左边", right="右边", top="上方", bottom="下方", high="高音", low="低音", tone="声音", silence="静音",
    **{str(i): w for i, w in enumerate("零 一 二 三 四 五 六 七 八 九 十".split())},
)  # fmt: skip
RUSSIAN = dict(
    red="красный", green="зелёный", blue="синий", yellow="жёлтый", black="чёрный", white="белый", grey="серый",
    left="слева", right="справа", top="сверху", bottom="снизу", high="высокий", low="низкий", tone="звук",
    silence="тишина",
    **{str(i): w for i, w in enumerate("ноль один два три четыре пять шесть семь восемь девять десять".split())},
)  # fmt: skip
OTHERS = {
    "colour": ["red", "green", "blue"],
    "side": ["left", "right", "top", "bottom"],
    "number": ["3", "5", "8"],
    "pitch": ["high", "low"],
}


def other(kind: str, core: str) -> str:
    """Another answer that could be given."""
    return next((option for option in OTHERS.get(kind, []) if option != core), "something else")


def spelled(core: str) -> str:
    return WORDS[int(core)] if core.isdigit() and int(core) <= 10 else core


Manner = Callable[[str, str, int], str]
# kind, the true answer, and how many answers came before
MANNERS: dict[str, Manner] = {
    "one word": lambda kind, core, n: core,
    "capital and full stop": lambda kind, core, n: f"{core.capitalize()}.",
    "upper case": lambda kind, core, n: core.upper(),
    "sentence": lambda kind, core, n: f"I would say that it is {core}.",
    "number words": lambda kind, core, n: f"The answer is {spelled(core)}.",
    "bold": lambda kind, core, n: f"The answer is **{core}**.",
    "heading and list": lambda kind, core, n: f"## Answer\n\n1. What I see: {core}\n",
    "code": lambda kind, core, n: f"```\n{core}\n```",
    "JSON": lambda kind, core, n: f'{{"answer": "{core}", "confidence": 0.98}}',
    "boxed": lambda kind, core, n: f"So we get $\\boxed{{{core}}}$",
    "thinking tags": lambda kind, core, n: (
        f"<think>Is it {other(kind, core)}? {other(kind, core)}... no.</think>\n{core}"
    ),
    "thinking, its start in the template": lambda kind, core, n: (
        f"Maybe {other(kind, core)}, {other(kind, core)}.</think> {core}"
    ),
    "channels": lambda kind, core, n: (
        f"<|channel|>analysis<|message|>It could be {other(kind, core)}.<|end|><|start|>assistant"
        f"<|channel|>final<|message|>{core}"
    ),
    "thinking aloud": lambda kind, core, n: (
        f"Let me look. It might be {other(kind, core)} at first sight. Answer: {core}"
    ),
    "denies another": lambda kind, core, n: f"It is not {other(kind, core)}, but {core}.",
    "polite and long": lambda kind, core, n: (
        "Thank you for your question! I looked at it with care, from all sides, and after some "
        f"thought I came to this: {core}. Is there anything else that I can do for you?"
    ),
    "hesitant": lambda kind, core, n: f"I'm sorry if I am wrong, I can't be sure, but I think: {core}.",
    "German": lambda kind, core, n: f"Das ist {GERMAN.get(core, core)}.",
    "French": lambda kind, core, n: f"C'est {FRENCH.get(core, core)}.",
    "Spanish": lambda kind, core, n: f"Es {SPANISH.get(core, core)}.",
    "Chinese": lambda kind, core, n: f"答案是{CHINESE.get(core, core)}。",
    "Russian": lambda kind, core, n: f"Это {RUSSIAN.get(core, core)}.",
    "wrong about one count": lambda kind, core, n: "1" if n == 22 and kind == "number" else core,
    "wrong in one of twelve": lambda kind, core, n: other(kind, core) if n % 12 == 11 else core,
    "refuses one of eight": lambda kind, core, n: "I'm sorry, but I can't help with that." if n % 8 == 7 else core,
    "spaces and an emoji": lambda kind, core, n: f"\n\n  {core} 😊 \n",
}
# Honest, but unable in part or altogether: never broken.
UNABLE: dict[str, Manner] = {
    "refuses all": lambda kind, core, n: "I'm sorry, but I can't help with that.",
    "knows nothing": lambda kind, core, n: "I am not sure what it is.",
    "answers with one word for all": lambda kind, core, n: "cat",
    "knows only colours": lambda kind, core, n: core if kind in ("colour", "word") else "Hm.",
    "knows only sides": lambda kind, core, n: core if kind == "side" else "I don't know.",
    "cannot read digits": lambda kind, core, n: core if kind in ("colour", "side") else "a sign",
    "says nothing": lambda kind, core, n: "",
    "guesses": lambda kind, core, n: {
        "colour": ["red", "green", "blue"],
        "side": ["left", "right", "top", "bottom"],
        "number": "23456789",
    }.get(kind, ["cat", "dog"])[(7 * n * n + 3 * n) % 3],
}


class Scripted:
    """The server behind a proxy: a request of chat completions to its response."""

    def __init__(self, manner: Manner) -> None:
        self.manner, self.count = manner, 0

    def __call__(self, request: dict) -> dict:
        kind, core = answer(request)
        text = core if kind == "nothing" else self.manner(kind, core, self.count)
        self.count += 1
        return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
