"""A server for tests: in process, or on a port of this machine, with what clients send."""

import base64
import json
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server's packages are not installed: pip install 'lime-mlx[server]'")
pytest.importorskip(
    "prometheus_client", reason="the server's packages are not installed: pip install 'lime-mlx[server]'"
)
pytest.importorskip("uvicorn", reason="the server's packages are not installed: pip install 'lime-mlx[server]'")

from starlette.testclient import TestClient  # noqa: E402

from lime_mlx.server.app import create_app  # noqa: E402
from lime_mlx.server.settings import Settings  # noqa: E402

EXAMPLES = Path(__file__).parent.parent / "examples"
BASE = "http://127.0.0.1:8080"
CHAT = "/v1/chat/completions"


def data_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


PICTURE = data_uri((EXAMPLES / "scene.png").read_bytes())
SOUND = base64.b64encode((EXAMPLES / "sounds.wav").read_bytes()).decode()
QUESTION = "What is in the picture?"


def user(text: str = QUESTION, *urls: str) -> dict:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"role": "user", "content": [{"type": "text", "text": text}, *parts]}


def asking(text: str = QUESTION, url: str = PICTURE, **fields) -> dict:
    return {"model": "demo", "messages": [user(text, url)], **fields}


@contextmanager
def client(**settings):
    with TestClient(create_app(Settings(**settings)), base_url=BASE) as made:
        yield made


def events(text: str) -> list[dict]:
    """The values of a stream of server-sent events, without the last, which says that it is done."""
    blocks = [block for block in text.split("\n\n") if block]
    assert blocks[-1] == "data: [DONE]"
    assert all(block.startswith("data: {") for block in blocks[:-1])
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]


@contextmanager
def live(host: str = "127.0.0.1", **settings):
    """A server on a free port; gives its address and the application."""
    from lime_mlx.cli.serve import listening, server_of

    listener = listening(host, 0)
    port = listener.getsockname()[1]
    app = create_app(Settings(host=host, **settings))
    server = server_of(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.started
        yield f"http://127.0.0.1:{port}", app
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
