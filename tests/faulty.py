"""Faults of servers, as a proxy injects them between a client and an honest server."""

import base64
import io
import json
import random
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image, ImageOps

Upstream = Callable[[dict], dict]


def parts_of(request: dict) -> list[dict]:
    return [p for m in request["messages"] if isinstance(m["content"], list) for p in m["content"]]


def _texts(request: dict) -> str:
    return json.dumps(
        [
            m["content"] if isinstance(m["content"], str) else [p.get("text") for p in m["content"]]
            for m in request["messages"]
        ]
    )


def opened(url: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    image.load()
    return image


def put(image: Image.Image) -> dict:
    out = io.BytesIO()
    kind = "png" if image.has_transparency_data else "bmp"
    image.save(out, kind)
    data = base64.b64encode(out.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}}


def each_picture(change: Callable[[Image.Image], Image.Image]) -> Callable[[Upstream], Upstream]:
    """A fault that changes every picture."""

    @lru_cache(512)
    def changed(url: str) -> dict:
        return put(change(opened(url)))

    def fault(upstream: Upstream) -> Upstream:
        return lambda request: upstream(edited(request, lambda part: [changed(part["image_url"]["url"])]))

    return fault


def edited(request: dict, change: Callable[[dict], list[dict]]) -> dict:
    """The request with other parts in the place of its pictures."""
    messages = []
    for message in request["messages"]:
        content = message["content"]
        if isinstance(content, list):
            content = [new for part in content for new in (change(part) if part["type"] == "image_url" else [part])]
        messages.append({**message, "content": content})
    return {**request, "messages": messages}


def upright(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def swap(image: Image.Image) -> Image.Image:
    red, green, blue = upright(image).split()
    return Image.merge("RGB", (blue, green, red))


def shrink(side: int, filter: Image.Resampling = Image.Resampling.BICUBIC) -> Callable[[Image.Image], Image.Image]:
    def smaller(image: Image.Image) -> Image.Image:
        image = upright(image)
        image.thumbnail((side, side), filter)
        return image

    return smaller


def crop(image: Image.Image) -> Image.Image:
    image = upright(image)
    width, height = image.size
    return image.crop((width * 0.2, height * 0.2, width * 0.8, height * 0.8))


def cut(image: Image.Image) -> Image.Image:
    image = upright(image)
    return image.crop((0, 0, image.width * 0.78, image.height))


def drop(upstream: Upstream) -> Upstream:
    return lambda request: upstream(edited(request, lambda part: []))


def blanked(upstream: Upstream) -> Upstream:
    return lambda request: upstream(edited(request, lambda part: [put(Image.new("RGB", (64, 64), "white"))]))


def cache(key: Callable[[dict], str]) -> Callable[[Upstream], Upstream]:
    def fault(upstream: Upstream) -> Upstream:
        kept: dict[str, dict] = {}

        def proxy(request: dict) -> dict:
            name = key(request)
            if name not in kept:
                kept[name] = upstream(request)
            return kept[name]

        return proxy

    return fault


def one_of_two(keep: int) -> Callable[[Upstream], Upstream]:
    def fault(upstream: Upstream) -> Upstream:
        def proxy(request: dict) -> dict:
            pictures = [part for part in parts_of(request) if part["type"] == "image_url"]
            kept = pictures[min(keep, len(pictures) - 1)] if pictures else None
            return upstream(edited(request, lambda part: [part] if part is kept else []))

        return proxy

    return fault


def exchange(upstream: Upstream) -> Upstream:
    def proxy(request: dict) -> dict:
        pictures = [part for part in parts_of(request) if part["type"] == "image_url"]
        return upstream(edited(request, lambda part: [pictures.pop()]))

    return proxy


def sometimes(upstream: Upstream) -> Upstream:
    """Three of ten pictures are dropped."""
    dice = random.Random(0)
    return lambda request: upstream(edited(request, lambda part: [part] if dice.random() > 0.3 else []))


def no_system(upstream: Upstream) -> Upstream:
    return lambda request: upstream(
        {**request, "messages": [m for m in request["messages"] if m["role"] not in ("system", "developer")]}
    )


def late(upstream: Upstream) -> Upstream:
    """Each question gets the picture of the one before."""
    before: list[list[dict]] = []

    def proxy(request: dict) -> dict:
        pictures = [part for part in parts_of(request) if part["type"] == "image_url"]
        given = before.pop() if before else pictures
        if pictures:
            before.append(pictures)
        return upstream(edited(request, lambda part: [given[0]]))

    return proxy


def _pictures(request: dict) -> str:
    return json.dumps([p for p in parts_of(request) if p["type"] != "text"]) if parts_of(request) else _texts(request)


def _unmarked(request: dict) -> str:
    return re.sub(r"\[[^\]]*\]", "", _texts(request))


# Each fault, and what the verdict must say of it.
FAULTS: dict[str, tuple[Callable[[Upstream], Upstream], str]] = {
    "drop the picture": (drop, "does not reach the model"),
    "swap channels": (each_picture(swap), "BGR"),
    "shrink to 100 px": (each_picture(shrink(100)), "shrunk"),
    "answer from a cache": (cache(_texts), "cache"),
    "ignore the second picture": (one_of_two(0), "the second picture is ignored"),
    "lose the system prompt": (no_system, "the system prompt is lost"),
}
FURTHER: dict[str, tuple[Callable[[Upstream], Upstream], str]] = {
    "a blank picture in its place": (blanked, "not used"),
    "ignore the first picture": (one_of_two(1), "the first picture is ignored"),
    "exchange two pictures": (exchange, "two pictures are exchanged"),
    "rotate by 90": (each_picture(lambda image: upright(image).transpose(Image.Transpose.ROTATE_270)), "rotated by 90"),
    "rotate by 180": (each_picture(lambda image: upright(image).rotate(180)), "rotated by 180"),
    "mirror": (each_picture(lambda image: ImageOps.mirror(upright(image))), "mirrored"),
    "upside down": (each_picture(lambda image: ImageOps.flip(upright(image))), "upside down"),
    "grey": (each_picture(lambda image: ImageOps.grayscale(upright(image))), "grey"),
    "invert": (each_picture(lambda image: ImageOps.invert(upright(image))), "inverted"),
    "exchange red and green": (
        each_picture(lambda image: Image.merge("RGB", [upright(image).split()[i] for i in (1, 0, 2)])),
        "red and green",
    ),
    "shrink to 64 px": (each_picture(shrink(64)), "shrunk"),
    "crop the middle": (each_picture(crop), "edges are cut off"),
    "answer from a cache by picture": (cache(_pictures), "cache"),
    "answer from a cache that overlooks marks": (cache(_unmarked), "cache"),
    "cut off the right": (each_picture(cut), "the right edge is cut off"),
    "drop some pictures": (sometimes, "lost in some requests"),
    "the picture of the question before": (late, "picture before"),
}
MINOR: dict[str, tuple[Callable[[Upstream], Upstream], str]] = {
    "ignore EXIF": (
        each_picture(
            lambda image: Image.frombytes(image.mode, image.size, image.tobytes()) if image.mode == "RGB" else image
        ),
        "EXIF",
    ),
    "drop alpha": (each_picture(lambda image: ImageOps.exif_transpose(image).convert("RGB")), "transparency is lost"),
}


@contextmanager
def serving(answer: Callable[[dict], dict | tuple[int, str, bytes]]):
    """An HTTP server of chat completions; gives its base address. A triple is status, type and bytes as they go out."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            given = answer(json.loads(body))
            self._send(given)

        def do_GET(self):
            self._send({"object": "list", "data": [{"id": "scripted"}]})

        def _send(self, given):
            status, kind, data = (
                given if isinstance(given, tuple) else (200, "application/json", json.dumps(given).encode())
            )
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def forwarded(url: str) -> Upstream:
    """A request to a real server."""

    def upstream(request: dict) -> dict | tuple[int, str, bytes]:
        made = urllib.request.Request(
            f"{url}/v1/chat/completions", json.dumps(request).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(made) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, "application/json", error.read()

    return upstream
