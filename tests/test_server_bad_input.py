"""Requests that are wrong, clients that leave and servers that are full: an error in shape, and nothing is lost."""

import json
import logging
import threading
import time
from types import SimpleNamespace

import pytest
from serving import CHAT, PICTURE, QUESTION, SOUND, asking, client, events, live, user

from lime_mlx.server import fields
from lime_mlx.server.worker import Job

TEXT = "A room with a dog, a ball, a cow and a bus."


@pytest.fixture(scope="module")
def server():
    with client() as made:
        yield made


def error_of(response, status: int = 400) -> dict:
    assert response.status_code == status, response.text
    (error,) = response.json().values()
    assert error.keys() == {"message", "type", "param", "code"} and error["message"].endswith(".")
    return error


def post(server, data: bytes, path: str = CHAT):
    return server.post(path, content=data, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"null", b'"x"', b"{}x", b"\xff\xfe", b"nan", b'{"temperature": NaN}', b'{"a": Infinity}'),
        *(b"[" * 100_000, b'{"messages":' * 50_000, b'{"seed": 1' + b"0" * 10_000 + b"}"),
    ],
    ids=lambda data: repr(data[:20]),
)
def test_bodies_that_are_no_json(server, data):
    for path in (CHAT, "/v1/responses"):
        assert error_of(post(server, data, path))["code"] in ("invalid_json", "missing_required_parameter")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": [3]}, "messages[0]"),
        ({"messages": [{}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}, user()]}, "messages"),
        ({"messages": [user(), {"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [user(), {"role": "system", "content": "x"}, user()]}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}] * 10_000}, "messages"),
        ({"messages": [user("x " * 5000)]}, "messages"),
        ({"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}, user()]},
         "messages[0].content[0]"),
        ({"messages": [user("x", "data:image/png;base64,aGVsbG8=")]}, "messages[0].content[1].image_url"),
        ({"messages": [user("x", "data:text/html,<script>alert(1)</script>")]}, "messages[0].content[1].image_url"),
        ({"model": 3}, "model"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"seed": 2**64}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"x": 1}}, "stream_options.x"),
        ({"lime": 3}, "lime"),
        ({"lime": {"method": "nonsense"}}, "lime.method"),
        ({"lime": {"method": "lime:steps=x"}}, "lime.method"),
        ({"lime": {"risk": 2}}, "lime.risk"),
        ({"lime": {"maps": "svg"}}, "lime.maps"),
        ({"lime": {"words": 1}}, "lime.words"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)  # fmt: skip
def test_fields_with_wrong_values(server, change, param):
    body = {key: value for key, value in {**asking(), **change}.items() if value is not None or key != "messages"}
    error = error_of(post(server, json.dumps(body).encode()))
    assert error["param"] == param, error
    assert error["type"] == "invalid_request_error" and len(error["message"]) < 400


@pytest.mark.parametrize("name", sorted(fields.CHAT.refused))
def test_what_would_change_the_answer_is_refused(server, name):
    error = error_of(server.post(CHAT, json=asking(**{name: {"x": 1}})))
    assert error["param"] == name and error["code"] == "unsupported_parameter"


def test_neutral_and_ignored_fields_change_nothing(server):
    neutral = {name: values[0] for name, (values, _) in fields.CHAT.refused.items() if values}
    ignored = dict.fromkeys(fields.CHAT.ignored, "anything") | {"store": True, "metadata": {"a": "b"}}
    whole = server.post(CHAT, json=asking(**neutral, **ignored)).json()
    assert whole["choices"][0]["message"]["content"] == TEXT
    assert error_of(server.post(CHAT, json=asking(n=True)))["param"] == "n"
    assert server.post(CHAT, json=asking(**dict.fromkeys(fields.CHAT.refused))).status_code == 200


def test_what_an_app_notes_beside_its_messages_changes_nothing(server):
    """Gradio sends `metadata` and `options` with each earlier message."""
    notes = {**dict.fromkeys(fields.BESIDE_MESSAGES, {"title": None}), "rating": None}
    noted = [{**message, **notes} for message in asking()["messages"]]
    noted[-1]["content"] = [{**part, **notes} for part in noted[-1]["content"]]
    whole = server.post(CHAT, json=asking(messages=noted)).json()
    assert whole["choices"][0]["message"]["content"] == TEXT
    for unknown in ({"images": ["x"]}, {"context": "The dog is red."}):
        refused = error_of(server.post(CHAT, json=asking(messages=[{**noted[0], **unknown}, *noted[1:]])))
        assert refused["param"] == f"messages[0].{next(iter(unknown))}"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"text": {"format": {"type": "json_schema"}}}, "text"),
        ({"background": True}, "background"),
        ({"instructions": "\ud800"}, "instructions"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": 3}]}]},
         "input[0].content[0].image_url"),
        ({"input": [{"type": "reasoning"}]}, "input[0].role"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"x": 0}, "x"),
    ],
)  # fmt: skip
def test_responses_with_wrong_values(server, change, param):
    body = json.dumps({"input": "Hello", **change}).encode()
    assert error_of(post(server, body, "/v1/responses"))["param"] == param


def test_media_that_the_model_does_not_take(server):
    sound = {"type": "input_audio", "input_audio": {"data": SOUND, "format": "wav"}}
    body = asking() | {"messages": [{"role": "user", "content": [sound, {"type": "text", "text": "What?"}]}]}
    assert "no sounds" in error_of(server.post(CHAT, json=body))["message"]
    assert "no pictures" in error_of(server.post(CHAT, json=asking() | {"model": "demo-sound"}))["message"]
    assert error_of(server.post(CHAT, json=asking(stream=True) | {"model": "demo-sound"}))["param"] == "messages"
    junk = {"type": "input_audio", "input_audio": {"data": "aGVsbG8="}}
    body["messages"][0]["content"][0] = junk
    assert error_of(server.post(CHAT, json=body))["param"] == "messages[0].content[0].input_audio.data"


def test_an_error_in_the_middle_of_a_stream(server, monkeypatch):
    from lime_mlx.errors import NumericalError
    from lime_mlx.server import answering

    real = answering.stream_generate

    def failing(*arguments, **options):
        for number, response in enumerate(real(*arguments, **options)):
            if number == 3:
                raise NumericalError("The logits of /secret/path are not finite.")
            yield response

    monkeypatch.setattr(answering, "stream_generate", failing)
    chunks = events(server.post(CHAT, json=asking(stream=True)).text)
    assert chunks[-1]["error"]["type"] == "server_error" and "/secret" not in str(chunks)
    assert error_of(server.post(CHAT, json=asking()), 500)["code"] is None
    text = server.post("/v1/responses", json={"input": "Hello there", "stream": True}).text
    assert '"response.failed"' in text


def test_the_log_has_one_line_and_no_secrets(server, caplog):
    caplog.set_level(logging.INFO, "lime_mlx.server")
    server.post(CHAT, json=asking("a secret question"), headers={"Authorization": "Bearer sk-secret"})
    server.post(CHAT, json=asking(url="http://user:secret@127.0.0.1/secret"))
    server.get("/v1/x%0a%1b[31mforged?secret=1")
    lines = [record.getMessage() for record in caplog.records if record.name == "lime_mlx.server"]
    assert [line.split(",")[0] for line in lines] == [
        "POST /v1/chat/completions 200",
        "POST /v1/chat/completions 400",
        "GET /v1/x??[31mforged 404",
    ]
    assert "secret" not in str(lines)
    caplog.clear()
    with client(log_text=True) as open_server:
        open_server.post(CHAT, json=asking("a known question"))
    assert "a known question" in caplog.text


class Slow:
    """Holds every answer after its first token until it is let go; counts the tokens that are computed."""

    def __init__(self, monkeypatch):
        from lime_mlx.server import answering

        real = answering.stream_generate
        self.go, self.started, self.tokens = threading.Event(), threading.Event(), 0

        def held(*arguments, **options):
            for response in real(*arguments, **options):
                self.tokens += 1
                yield response
                self.started.set()
                self.go.wait(10)

        monkeypatch.setattr(answering, "stream_generate", held)


def test_the_queue_is_bounded(monkeypatch):
    with live(queue=1) as (address, app):
        import http.client

        slow, body = Slow(monkeypatch), json.dumps(asking(max_tokens=3)).encode()
        results = []

        def ask():
            connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
            connection.request("POST", CHAT, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            results.append((response.status, json.loads(response.read()), response.headers.get("retry-after")))
            connection.close()

        threads = [threading.Thread(target=ask) for _ in range(2)]
        threads[0].start()
        assert slow.started.wait(10)
        threads[1].start()
        deadline = time.monotonic() + 10
        while app.state.service.worker.admitted < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        ask()
        status, error, retry = results[0]
        assert status == 429 and error["error"]["code"] == "queue_full" and retry == "1"
        slow.go.set()
        for thread in threads:
            thread.join(20)
        assert [status for status, *_ in results[1:]] == [200, 200]
        ask()
        assert results[-1][0] == 200 and app.state.service.worker.admitted == 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_stops_the_computing(monkeypatch, stream):
    with live() as (address, app):
        import http.client

        slow = Slow(monkeypatch)
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
        body = json.dumps(asking(stream=stream)).encode()
        connection.request("POST", CHAT, body, {"Content-Type": "application/json"})
        assert slow.started.wait(10)
        if stream:
            connection.getresponse().read(10)
        connection.sock.close()
        connection.close()
        worker, metrics = app.state.service.worker, app.state.service.metrics
        deadline = time.monotonic() + 10
        while b"lime_clients_gone_total 1.0" not in metrics.text() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert b"lime_clients_gone_total 1.0" in metrics.text()
        slow.go.set()
        while worker.admitted and time.monotonic() < deadline:
            time.sleep(0.01)
        assert worker.admitted == 0 and slow.tokens <= 2


@pytest.mark.parametrize("tokens", [0, 3])
def test_an_answer_that_takes_too_long(server, monkeypatch, tokens):
    """Before the first token it has its own status; later it is the last event of the stream."""
    from lime_mlx.server import answering

    real, worker = answering.stream_generate, server.app.state.service.worker

    def late(*arguments, **options):
        for number, response in enumerate(real(*arguments, **options)):
            if number == tokens:
                worker._current.deadline = 0.0
            yield response

    monkeypatch.setattr(answering, "stream_generate", late)
    assert error_of(server.post(CHAT, json=asking()), 504)["code"] == "timeout"
    response = server.post(CHAT, json=asking(stream=True))
    if tokens:
        assert events(response.text)[-1]["error"]["code"] == "timeout"
    else:
        assert error_of(response, 504)["code"] == "timeout"


def test_markup_stays_text(server, monkeypatch):
    """What comes back is JSON, which no browser takes for a page."""
    script = "<script>alert(1)</script>"
    for body in (
        asking(script),
        asking() | {"model": script},
        asking(url=script),
        asking(**{script: 1}),
        asking(lime={"method": script}),
        asking() | {"messages": [{"role": "user", "name": script, "content": script}]},
    ):
        response = server.post(CHAT, json=body)
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-content-type-options"] == "nosniff"
    assert server.get(f"/{script}").headers["content-type"] == "application/json"
    assert script not in server.get("/").text


def test_a_job_whose_loop_is_closed_ends_quietly():
    job = SimpleNamespace(_gone=threading.Event(), _loop=SimpleNamespace(call_soon_threadsafe=_closed), _events=None)
    job._events = SimpleNamespace(put_nowait=None)
    Job._put(job, "event")
    assert job._gone.is_set()


def _closed(*_):
    raise RuntimeError("Event loop is closed")


def test_questions_at_the_same_time_are_not_mixed(server):
    texts = {}

    def ask(text):
        texts[text] = server.post(CHAT, json=asking(text)).json()["choices"][0]["message"]["content"]

    questions = [QUESTION, "Is there a dog?", "Is there a cat?", "What colour is the bus?"]
    threads = [threading.Thread(target=ask, args=[text]) for text in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert texts == {
        text: server.post(CHAT, json=asking(text)).json()["choices"][0]["message"]["content"] for text in questions
    }
