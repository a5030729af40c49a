"""Requests to the server: their bodies as they are read, and whole requests over a connection, which models answer."""

import atexit
import base64
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

from PIL import Image

from fuzz.mutate import Choose, changed_bytes, changed_json
from fuzz.target import ROOT, Target, dumped

ROUTES = ("/v1/chat/completions", "/v1/responses")
# After so many times so many seconds without a byte, and without anything to compute, the server waits for more.
SILENT, WAIT = 3, 0.05


# --- bodies -----------------------------------------------------------------------------------------------------------
def picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (20, 14), "red").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def bodies() -> list[tuple[str, dict]]:
    """Valid bodies with the routes that take them."""
    sound = base64.b64encode((ROOT / "examples" / "sounds.wav").read_bytes()[:9000]).decode()
    image = {"type": "image_url", "image_url": {"url": picture(), "detail": "low"}}
    flat = {"type": "input_image", "image_url": picture(), "detail": "auto"}
    audio = {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}
    text, away = (
        {"type": "text", "text": "What is there?"},
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x"}},
    )
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [image, text]},
        {"role": "assistant", "content": "A dog.", "refusal": None},
        {"role": "user", "content": "Is it big?"},
    ]
    options = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "seed": 3}
    lime = {"method": "lime:steps=1", "words": True, "maps": "png"}
    return [
        (ROUTES[0], {"model": "demo", "messages": [{"role": "user", "content": [text, image]}], "max_tokens": 2}),
        (ROUTES[0], {"messages": turns, "max_completion_tokens": 1, "stop": ["x", "."], **options}),
        (ROUTES[0], {"messages": turns[3:], "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}),
        (ROUTES[0], {"messages": turns[1:2], "max_tokens": 2, "logprobs": True, "top_logprobs": 3, "lime": lime}),
        (ROUTES[0], {"messages": [{"role": "user", "content": [text, audio, away]}], "n": 1, "user": "x"}),
        (ROUTES[1], {"input": "What is there?", "instructions": "Be short.", "max_output_tokens": 2}),
        (ROUTES[1], {"input": [{"role": "user", "content": [flat, {"type": "input_text", "text": "What?"}]}],
                     "max_output_tokens": 2, "stream": True, "include": ["message.output_text.logprobs"]}),
    ]  # fmt: skip


def try_body(data: bytes) -> bool:
    """A body is read as the server reads it, without a model: a question with opened pictures, or an error in shape."""
    from lime_mlx.server.errors import ApiError
    from lime_mlx.server.settings import Settings

    wrapped = json.loads(data) if data[:1] == b"{" else {}
    body = json.dumps(wrapped["body"]).encode() if "body" in wrapped else data
    service = _service()
    try:
        call = (service.responses if wrapped.get("route") == ROUTES[1] else service.chat)(body)
    except ApiError as error:
        check_error(error.status, error.body)
        return error.code not in ("invalid_json", "unknown_parameter")
    question, most = call.question, Settings()
    assert question.text.strip() and question.max_tokens >= 1 and 0 <= question.temperature <= 2
    assert all(image.mode == "RGB" and image.width * image.height <= most.pixels for image in question.images)
    assert len(question.history) <= most.messages and "\ud800" not in question.text + (question.system or "")
    return True


@cache
def _service():
    from lime_mlx.server.service import Service
    from lime_mlx.server.settings import Settings

    return Service(Settings(media=1 << 20, pixels=1_000_000, sound_seconds=5.0))


def check_error(status: int, body: object) -> None:
    """An error of a request: its own fault, in the shape that clients know, in one line without this machine's names."""
    assert isinstance(body, dict) and 400 <= status < 500, (status, body)
    assert body.keys() == {"error"} and body["error"].keys() == {"message", "type", "param", "code"}, body
    message = body["error"]["message"]
    assert message.endswith((".", "?")) and message.isprintable() and len(message) <= 1500, repr(message)[:300]
    assert str(ROOT) not in json.dumps(body) and len(body["error"]["param"] or "") <= 1000, repr(body)[:300]


# --- whole requests ---------------------------------------------------------------------------------------------------
def whole_requests() -> list[bytes]:
    found = [whole(path, json.dumps(body).encode()) for path, body in bodies()]
    for path in ("/health", "/metrics", "/", "/v1/models", "/v1/models/demo", "/v1/x"):
        found.append(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n".encode())
    chunked = (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    body = json.dumps({"messages": [{"role": "user", "content": "What?"}], "max_tokens": 1}).encode()
    return [*found, chunked % ROUTES[0].encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)]


def whole(path: str, body: bytes, announced: int | None = None) -> bytes:
    length = len(body) if announced is None else announced
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    return head.encode() + body


class Requests(Target):
    """Changes the JSON of a body whose length is right, half of the time; else any bytes, those of the head mostly."""

    def drawn(self, choose: Choose) -> bytes:
        if choose(2):
            path, body = bodies()[choose(len(bodies()))]
            text = changed_json(body, [each for _, each in bodies()], choose)
            return whole(path, text, None if choose(8) else [0, len(text) - 1, len(text) + 9, 10**30][choose(4)])
        seeds = self.seeds + self.grown
        return changed_bytes(seeds[choose(len(seeds))], self.seeds, choose)


def try_request(data: bytes) -> bool:
    """A server that computes answers as HTTP says, loses no place in its queue, and lives on."""
    port, app = server()
    answer = sent(port, data, app)
    past = b" 200 " in answer[:20] or b'"error"' in answer
    if answer:
        check_response(answer)
    deadline = time.monotonic() + 4
    while app.state.service.worker.admitted and time.monotonic() < deadline:
        time.sleep(0.002)
    assert app.state.service.worker.admitted == 0, "a request keeps its place in the queue"
    assert lives(port), "the server is gone"
    return past


def sent(port: int, data: bytes, app: object) -> bytes:
    """What the server answers: to the end of its answer, or until it waits for more of the request."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as connection:
        with suppress(OSError):  # refused before all of it was there
            connection.sendall(data)
        answer, silent = b"", 0
        while not is_whole(answer):
            try:
                part = connection.recv(1 << 16)
            except TimeoutError:
                busy = app.state.service.worker.admitted
                silent = 0 if busy else silent + 1
                if silent == SILENT or not lives(port):
                    break
                continue
            except OSError:
                break
            if not part:
                break
            answer, silent = answer + part, 0
        return answer


def lives(port: int) -> bool:
    """Whether the server answers to a plain request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().read() == b'{"status":"ok"}'
    finally:
        connection.close()


def is_whole(answer: bytes) -> bool:
    """Whether an answer ends here."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        return False
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    if lengths:
        return len(body) >= int(lengths[0].partition(b":")[2])
    return body.endswith(b"0\r\n\r\n")


def check_response(answer: bytes) -> None:
    """The first of the answers on a connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status = int(rest[:3])
    assert version == "HTTP/1.1" and status < 500, answer[:600]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    kind = headers.get("content-type", "")
    if kind.startswith("text/event-stream"):
        for event in events(body):
            assert event.get("error") is None and event.get("type") != "response.failed", event
    elif kind == "application/json" and "content-length" in headers:
        body = body[: int(headers["content-length"])]
        if body or status != 200:
            content = json.loads(body) if body else None
            if status >= 400 and content is not None:
                check_error(status, content)
    else:  # the page, the counts, and what uvicorn says to what is no HTTP
        assert kind.startswith(("text/plain", "text/html")) or status in (200, 204, 405), answer[:300]
    assert not any(control in body for control in (b"\x1b", b"\x00")), body[:300]


def events(body: bytes) -> Iterator[dict]:
    """The values of server-sent events, in the chunks of HTTP."""
    text = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        text, body = text + body[:length], body[length + 2 :]
    for line in text.split(b"\n"):
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


@cache
def server():
    """The port of a server that lives as long as this process, and its application."""
    from lime_mlx.cli.serve import listening, server_of
    from lime_mlx.server.app import create_app
    from lime_mlx.server.settings import Settings

    app = create_app(Settings(seconds=30.0, tokens=3, media=1 << 20, body=1 << 20, pixels=1_000_000, prefixes=64 << 20))
    listener = listening("127.0.0.1", 0)
    running = server_of(app)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()

    def stop() -> None:
        running.should_exit = True
        thread.join(20)
        listener.close()

    atexit.register(stop)
    deadline = time.monotonic() + 20
    while not running.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running.started
    return listener.getsockname()[1], app


READ = ("server/schema.py", "server/question.py", "server/media.py", "server/fields.py")
BODY = Target("body", lambda: dumped(*({"route": path, "body": body} for path, body in bodies())), try_body, READ)
HTTP = Requests(
    "request",
    whole_requests,
    try_request,
    (
        "server/guard.py",
        "server/access.py",
        "server/app.py",
        "server/service.py",
        "server/answering.py",
        "server/delivery.py",
    ),
    "bytes",
    slow=True,
)
