"""A small benchmark behind a server of this machine, for runs of `lime-mlx data get` that are disturbed.

    python benchmarks/data_site.py SITE get pope --dir FOLDER

SITE is a folder that `made` and `served` filled; the rest is a command line of `lime-mlx data`, which then takes this
site's addresses and checksums for the official ones.
"""

import hashlib
import io
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

from lime_mlx.cli import main as lime_mlx
from lime_mlx.evaluate.data import folder
from lime_mlx.evaluate.data.layout import POPE_SPLITS
from lime_mlx.evaluate.data.sources import File, Sources

PICTURES = 30


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError):  # the other side was ended
            super().handle()


def made(site: Path) -> Path:
    """POPE's files about noise, and the pictures, as the official servers have them."""
    for number in range(PICTURES):
        buffer = io.BytesIO()
        Image.effect_noise((160, 120), 20 + number).convert("RGB").save(buffer, "JPEG")
        put(site / "coco" / "val2014" / name(number), buffer.getvalue())
    pins = []
    for split in POPE_SPLITS:
        rows = [{"question_id": n, "image": name(n), "text": f"{split}?", "label": "yes"} for n in range(PICTURES)]
        data, path = "\n".join(map(json.dumps, rows)).encode(), f"pope/coco/coco_pope_{split}.json"
        put(site / "github" / path, data)
        pins.append([path, "github", path, len(data), hashlib.sha256(data).hexdigest()])
    (site / "pins.json").write_text(json.dumps(pins))
    return site


def name(number: int) -> str:
    return f"COCO_val2014_{number:012d}.jpg"


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@contextmanager
def served(site: Path) -> Iterator[None]:
    """Serve the folder; its address stands in it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    (site / "address").write_text(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    site = Path(sys.argv[1])
    address = (site / "address").read_text()
    pins = tuple(File(*row) for row in json.loads((site / "pins.json").read_text()))
    sources = Sources(f"{address}/github", f"{address}/coco", {"coco": pins})
    folder.DataFolder = partial(folder.DataFolder, sources=sources)  # type: ignore[misc, assignment]
    lime_mlx(["data", *sys.argv[2:]])


if __name__ == "__main__":
    main()
