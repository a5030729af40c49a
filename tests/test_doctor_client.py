"""Servers that are not there, speak another protocol, never end, send pages, or need a key: one sentence each."""

import json
import socket
import threading
from contextlib import contextmanager

import pytest
from click.testing import CliRunner
from faulty import serving
from scripted import MANNERS, Scripted

from lime_mlx.cli import main
from lime_mlx.doctor.asking import Question
from lime_mlx.doctor.client import Client
from lime_mlx.errors import ServerError

HELLO = Question("Hello")


def answered(text: str, **fields) -> dict:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, **fields}]}


@contextmanager
def listening(talk):
    """A port on which `talk` gets each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def accept():
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    connection.recv(1 << 16)
                    talk(connection, ended)
                except OSError:
                    pass

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def said(url: str, *options: str) -> str:
    """The one line on standard error of a command that fails."""
    done = CliRunner().invoke(main, ["doctor", "--url", url, "--model", "m", *options])
    assert done.exit_code == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_no_server():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "There is no server at" in said(f"http://127.0.0.1:{port}/v1")


def test_an_unknown_name():
    assert "There is no server at" in said("http://no-such-host.invalid/v1")


def test_no_address():
    assert "is no http address" in said("ftp://localhost/")
    assert "holds a name or a password" in said("http://me:secret@localhost/")


def test_another_protocol():
    with listening(lambda connection, ended: connection.sendall(b"220 mail.example ESMTP ready\r\n")) as url:
        assert "does not answer in HTTP" in said(url)


def test_a_connection_that_ends_at_once():
    with listening(lambda connection, ended: None) as url:
        assert "does not answer in HTTP" in said(url)


def test_a_stream_without_end():
    def talk(connection, ended):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while not ended.wait(0.02):
            connection.sendall(b'data: {"choices": [{"delta": {"content": "and so on "}}]}\n\n')

    with listening(talk) as url:
        assert "did not finish an answer within 1 s" in said(url, "--timeout", "1")


def test_a_flood_without_end():
    def talk(connection, ended):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while not ended.is_set():
            connection.sendall(b"x" * (1 << 18))

    with listening(talk) as url:
        assert "does not end" in said(url)


def test_silence():
    with listening(lambda connection, ended: ended.wait(3)) as url:
        assert "did not finish an answer within 1 s" in said(url, "--timeout", "1")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((200, "text/html", b"<!doctype html><html><body>Hi</body></html>"), "a web page (HTML)"),
        ((200, "text/plain", b"pong"), "speaks another protocol"),
        ((200, "application/json", b'{"jsonrpc": "2.0", "result": 5}'), "speaks another protocol"),
        ((200, "application/json", b'{"choices": "many"}'), "speaks another protocol"),
        ((401, "application/json", b'{"error": {"message": "no key"}}'), "give one with --api-key"),
        ((403, "text/plain", b"no"), "give one with --api-key"),
        ((404, "text/html", b"<html>nothing here</html>"), "There is no chat/completions"),
        (
            (404, "application/json", b'{"error": {"message": "no model m"}}'),
            "answers no question: status 404: no model m",
        ),
        ((302, "text/plain", b""), "leads to"),
    ],
)
def test_what_is_no_answer(given, words):
    with serving(lambda request: given) as url:
        assert words in said(url)


def test_a_model_that_takes_no_picture():
    def text_only(request):
        if isinstance(request["messages"][-1]["content"], list):
            return 400, "application/json", b'{"error": {"message": "this model does not support images"}}'
        return honest(request)

    honest = Scripted(MANNERS["one word"])
    with serving(text_only) as url:
        line = said(url)
    assert "takes no picture and no sound" in line and "this model does not support images" in line


def test_the_key_is_sent_and_not_shown(monkeypatch):
    keys = []

    def exchange(self, path, fields):
        keys.append(self._key)
        return 401, {"error": "wrong"}

    monkeypatch.setattr(Client, "_exchange", exchange)
    monkeypatch.setenv("LIME_MLX_API_KEY", "top-secret")
    line = said("http://127.0.0.1:1/v1")
    assert set(keys) == {"top-secret"}
    assert "refuses the key" in line and "top-secret" not in line


def test_the_only_model_is_taken_and_v1_is_found():
    def answer(request):
        assert request["model"] == "scripted"
        return answered("hello")

    with serving(answer) as url:
        client = Client(url.removesuffix("/v1"))
        assert client.model == "scripted"
        assert client(HELLO).text == "hello"


def test_a_stream_is_read_to_its_end():
    chunks = ["data: " + json.dumps({"choices": [{"delta": {"content": part}}]}) for part in ("re", "d")]
    body = "\n\n".join([*chunks, "data: [DONE]", ""]).encode()
    with serving(lambda request: (200, "text/event-stream", body)) as url:
        assert Client(url, "m")(HELLO).text == "red"


def test_fields_that_a_server_refuses_are_left_out():
    seen = []

    def picky(request):
        seen.append(set(request))
        for name in ("temperature", "max_tokens", "logprobs"):
            if name in request:
                return 400, "application/json", json.dumps({"error": {"message": f"Unsupported: {name}"}}).encode()
        return answered("hello")

    with serving(picky) as url:
        client = Client(url, "m")
        assert client(Question("Hello", logprobs=True)).text == "hello"
        assert client(HELLO).text == "hello"
    assert "max_completion_tokens" in seen[-1]
    assert len(seen) == 5


def test_a_thought_that_is_cut_gets_more_room():
    def thinker(request):
        cut = request["max_tokens"] < 1000
        return answered(
            "<think>Let me see" if cut else "<think>well</think>red", finish_reason="length" if cut else "stop"
        )

    with serving(thinker) as url:
        assert Client(url, "m")(HELLO).text.endswith("red")


def test_what_a_server_sends_is_read_with_care():
    for body in ({"choices": [{"message": {"content": None}}]}, {"choices": [{"message": {"content": 5}}], "usage": 7}):
        with serving(lambda request, body=body: body) as url:
            assert Client(url, "m")(HELLO).text == ""
    with serving(lambda request: {"choices": [], "error": {"message": "out of memory"}}) as url:
        assert Client(url, "m")(HELLO).problem == "out of memory"
    logprobs = {"content": [{"top_logprobs": [{"token": "a", "logprob": -1.0}]}, {"top_logprobs": []}]}
    with serving(lambda request: answered("x", logprobs=logprobs)) as url:
        assert Client(url, "m")(HELLO).places == ()
    with pytest.raises(ServerError):
        Client("http://")
