"""The API: answers in the shape of OpenAI's, the fields that are honoured, and what stands under `lime`."""

import json
import math
import time

import numpy as np
import pytest
from PIL import Image
from serving import BASE, CHAT, EXAMPLES, PICTURE, QUESTION, SOUND, asking, client, data_uri, events, user

from lime_mlx import generate, load
from lime_mlx.prompt import Turn

TEXT = "A room with a dog, a ball, a cow and a bus."


@pytest.fixture(scope="module")
def demo():
    return load("demo")


@pytest.fixture(scope="module")
def server():
    with client() as made:
        yield made


def content(response) -> str:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def test_an_answer_is_that_of_generate(server, demo):
    response = server.post(CHAT, json=asking()).json()
    ours = generate(*demo, QUESTION, image=EXAMPLES / "scene.png", method="none")
    assert response["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": ours.text, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert response["object"] == "chat.completion" and response["model"] == "demo"
    assert abs(response["created"] - time.time()) < 60 and response["id"].startswith("chatcmpl-")
    usage = response["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (ours.prompt_tokens, ours.generation_tokens)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_stream_has_only_what_clients_expect(server):
    response = server.post(CHAT, json=asking(stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    chunks = events(response.text)
    keys = {"id", "object", "created", "model", "service_tier", "system_fingerprint", "choices"}
    assert all(chunk.keys() == keys and chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert len({chunk["id"] for chunk in chunks}) == 1
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert all(choice.keys() == {"index", "delta", "logprobs", "finish_reason"} for choice in choices)
    assert choices[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert "".join(choice["delta"].get("content", "") for choice in choices) == TEXT
    assert [choice["finish_reason"] for choice in choices[-2:]] == [None, "stop"] and choices[-1]["delta"] == {}


def test_usage_in_the_stream(server):
    chunks = events(server.post(CHAT, json=asking(stream=True, stream_options={"include_usage": True})).text)
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 16


def test_a_second_question_reuses_the_first(server):
    server.post(CHAT, json=asking("Is there a cat?"))
    usage = server.post(CHAT, json=asking("Is there a dog?")).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 60


def test_content_as_text_and_roles(server, demo):
    messages = [
        {"role": "developer", "content": "Answer briefly."},
        user(QUESTION, PICTURE),
        {"role": "assistant", "content": TEXT},
        {"role": "user", "content": "Is there a dog?"},
    ]
    picture = Image.open(EXAMPLES / "scene.png").convert("RGB")
    model, processor = demo
    prompt = processor.prompt(
        "Is there a dog?", [picture], system="Answer briefly.", history=[Turn(QUESTION, TEXT, ("image",))]
    )
    response = server.post(CHAT, json={"messages": messages})
    assert content(response) == generate(model, processor, prompt, method="none").text
    assert response.json()["usage"]["prompt_tokens"] == len(prompt)


def test_a_later_picture_stands_in_its_turn(demo):
    """Two pictures in two turns are not two pictures in the first turn."""
    _, processor = demo
    picture = Image.open(EXAMPLES / "scene.png").convert("RGB")
    turns = [Turn("One?", "Yes.", ("image",))]
    prompt = processor.prompt("Two?", [picture, picture], history=turns)
    together = processor.prompt("Two?", [picture, picture], history=[Turn("One?", "Yes.")])
    assert prompt.input_ids.tolist() != together.input_ids.tolist()
    with client() as server:
        messages = [user("One?", PICTURE), {"role": "assistant", "content": "Yes."}, user("Two?", PICTURE)]
        response = server.post(CHAT, json={"messages": messages, "max_tokens": 2})
        ours = generate(*demo, prompt, method="none", max_tokens=2)
        assert content(response) == ours.text


def test_stop_and_limits(server):
    answer = server.post(CHAT, json=asking(stop=[" cow", "bus"])).json()["choices"][0]
    assert answer["message"]["content"] == "A room with a dog, a ball, a" and answer["finish_reason"] == "stop"
    for name in ("max_tokens", "max_completion_tokens"):
        answer = server.post(CHAT, json=asking(**{name: 3})).json()["choices"][0]
        assert answer["message"]["content"] == "A room with" and answer["finish_reason"] == "length"


@pytest.mark.parametrize("stop", [" cow", "w", "a cow and", "bus.", " "])
def test_the_tokens_of_a_stop_text_are_left_out(server, stop):
    for stream in (False, True):
        response = server.post(CHAT, json=asking(stop=stop, logprobs=True, stream=stream))
        choices = [chunk["choices"][0] for chunk in events(response.text)] if stream else response.json()["choices"]
        entries = [entry for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]]
        texts = [choice["delta"].get("content", "") if stream else choice["message"]["content"] for choice in choices]
        text, spelt = "".join(texts), "".join(entry["token"] for entry in entries).lstrip()
        assert text == TEXT[: TEXT.index(stop)] and spelt.startswith(text) and stop not in text
        assert "".join(entry["token"] for entry in entries[:-1]).lstrip() != text or not text


def test_sampling_and_seed(server, demo):
    fields = {"temperature": 2.0, "top_p": 1.0, "seed": 7}
    texts = {content(server.post(CHAT, json=asking(**fields))) for _ in range(2)}
    assert texts == {generate(*demo, QUESTION, image=EXAMPLES / "scene.png", method="none", **fields).text}
    assert texts != {content(server.post(CHAT, json=asking(**{**fields, "seed": 8})))}


def test_logprobs_are_those_of_the_plain_model(server):
    fields = {"logprobs": True, "top_logprobs": 3}
    plain = server.post(CHAT, json=asking(**fields)).json()["choices"][0]
    entries = plain["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries).strip() == TEXT
    for entry in entries:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert entry["top_logprobs"][0]["logprob"] == entry["logprob"] <= 0
        assert sum(math.exp(top["logprob"]) for top in entry["top_logprobs"]) <= 1 + 1e-6
        assert len(entry["top_logprobs"]) == 3
    guided = server.post(CHAT, json=asking(**fields, lime={"method": "pai"})).json()["choices"][0]
    for ours, theirs in zip(guided["logprobs"]["content"], entries, strict=False):
        if ours["token"] != theirs["token"]:
            break
        assert ours["logprob"] == pytest.approx(theirs["logprob"], abs=1e-4)
    method = [token["logprob"] for token in guided["lime"]["tokens"]]
    given = [entry["logprob"] for entry in guided["logprobs"]["content"]]
    assert not np.allclose(method, given[: len(method)], atol=1e-3)


def test_a_stream_of_words_and_maps(server):
    chunks = events(server.post(CHAT, json=asking(stream=True, lime={"maps": True})).text)
    choices = [chunk["choices"][0] for chunk in chunks]
    limes = [choice["lime"] for choice in choices if "lime" in choice]
    words = [word for lime in limes[:-1] for word in lime["words"]]
    last = limes[-1]
    assert "".join(word["text"] for word in words) == TEXT
    assert [word["text"] for word in last["words"]] == [word["text"] for word in words]
    (ball,) = (word for word in last["words"] if word["name"] == "ball")
    assert ball["flagged"] and ball["p_unsupported"] > 0.5 and ball["rank"] == 1
    assert sum(ball["shares"].values()) == pytest.approx(1, abs=1e-3)
    (shown,) = ball["maps"]
    assert len(shown["values"]) == shown["rows"] * shown["columns"] == 64 and shown["unit"] > 0
    tokens = [token for lime in limes[:-1] for token in lime["tokens"]]
    assert "".join(token["token"] for token in tokens).strip() == TEXT
    assert all(token["logprob"] <= 0 and set(token["shares"]) == set(ball["shares"]) for token in tokens)
    assert [token["flagged"] for token in tokens if "all" in token["token"]] == [True]
    assert last["method"] == "none" and last["questions"] >= 0 and last["longest_wait"] > 0 and last["warnings"] == []
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    assert text == TEXT


def test_maps_as_png(server):
    lime = server.post(CHAT, json=asking(lime={"maps": "png"})).json()["choices"][0]["lime"]
    (shown,) = lime["words"][-1]["maps"]
    from base64 import b64decode
    from io import BytesIO

    kind, data = shown["png"].split(",")
    image = Image.open(BytesIO(b64decode(data)))
    assert kind == "data:image/png;base64" and image.mode == "L" and image.size == (8, 8)
    assert np.asarray(image).max() == 255 and "values" not in shown


def test_choose_counts_its_questions_under_lime(server, demo):
    body = asking(stream=True, lime={"method": "choose", "words": False}, stream_options={"include_usage": True})
    chunks = events(server.post(CHAT, json=body).text)
    lime = chunks[-2]["choices"][0]["lime"]
    assert lime["questions"] > 0 and lime["longest_wait"] > 0 and "words" not in lime
    ours = generate(*demo, QUESTION, image=EXAMPLES / "scene.png", method="choose")
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]) == ours.text
    assert chunks[-1]["usage"]["completion_tokens"] == ours.generation_tokens


def test_a_default_method(demo):
    with client(method="choose") as server:
        ours = generate(*demo, QUESTION, image=EXAMPLES / "scene.png", method="choose")
        assert content(server.post(CHAT, json=asking())) == ours.text
        assert server.get("/v1/models").json()["lime"]["method"] == "choose"


def test_sounds_and_a_second_model():
    part = {"type": "input_audio", "input_audio": {"data": SOUND, "format": "wav"}}
    message = {"role": "user", "content": [part, {"type": "text", "text": "What do you hear?"}]}
    with client() as server:
        body = {"model": "demo-sound", "messages": [message], "lime": {"maps": True}}
        answer = server.post(CHAT, json=body).json()["choices"][0]
        assert (
            answer["message"]["content"]
            == generate(*load("demo-sound"), "What do you hear?", audio=EXAMPLES / "sounds.wav", method="none").text
        )
        assert any(word["maps"][0]["interval"] for word in answer["lime"]["words"] if word["maps"][0])
        in_memory = {each["id"]: each["lime"]["in_memory"] for each in server.get("/v1/models").json()["data"]}
        assert in_memory["demo-sound"] and not in_memory["demo"]
        assert content(server.post(CHAT, json=asking())) == TEXT
        assert server.app.state.service.models.in_memory == ["demo"]


def test_two_models_in_memory():
    with client(models=2) as server:
        for name in ("demo", "demo-sound", "demo"):
            assert (
                server.post(CHAT, json={"model": name, "messages": [user("Hello")], "max_tokens": 1}).status_code == 200
            )
        assert server.app.state.service.models.in_memory == ["demo-sound", "demo"]


def test_models(server):
    listed = server.get("/v1/models").json()
    assert listed["object"] == "list" and listed["data"][0]["id"] == "demo" and "choose" in listed["lime"]["methods"]
    assert server.get("/v1/models/demo").json() == server.get("/v1/models").json()["data"][0]
    assert server.get("/v1/models/other").json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
def test_formats(server, tmp_path, format):
    path = tmp_path / "picture"
    Image.open(EXAMPLES / "scene.png").convert("RGB").save(path, format)
    assert "dog" in content(server.post(CHAT, json=asking(url=data_uri(path.read_bytes(), "image/x"))))


def test_little_detail(server):
    image = {"url": PICTURE, "detail": "low"}
    message = {
        "role": "user",
        "content": [{"type": "image_url", "image_url": image}, {"type": "text", "text": "What?"}],
    }
    assert server.post(CHAT, json={"messages": [message]}).status_code == 200


def test_responses(server):
    body = {
        "model": "demo",
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": QUESTION}, {"type": "input_image", "image_url": PICTURE}],
            }
        ],
    }
    whole = server.post("/v1/responses", json=body).json()
    assert whole["object"] == "response" and whole["status"] == "completed" and whole["store"] is False
    assert whole["output"][0]["content"][0]["text"] == TEXT and whole["usage"]["output_tokens"] == 16
    streamed = server.post("/v1/responses", json={**body, "stream": True}).text
    blocks = [block.split("\n") for block in streamed.split("\n\n") if block]
    values = [json.loads(data.removeprefix("data: ")) for _, data in blocks]
    assert [head.removeprefix("event: ") for head, _ in blocks] == [value["type"] for value in values]
    assert [value["sequence_number"] for value in values] == list(range(len(values)))
    assert "".join(value["delta"] for value in values if value["type"] == "response.output_text.delta") == TEXT
    assert (
        values[-1]["type"] == "response.completed" and values[-1]["response"]["output"][0]["content"][0]["text"] == TEXT
    )
    cut = server.post("/v1/responses", json={**body, "max_output_tokens": 2}).json()
    assert cut["status"] == "incomplete" and cut["incomplete_details"] == {"reason": "max_output_tokens"}


def test_text_alone(server):
    response = server.post("/v1/responses", json={"input": "What is a dog?", "instructions": "Be brief.", "lime": {}})
    assert response.status_code == 200 and response.json()["lime"]["words"][0]["shares"]["image"] == 0


def test_health_and_metrics(server):
    assert server.get("/health").json() == {"status": "ok"}
    text = server.get("/metrics").text
    assert 'lime_requests_total{path="/v1/chat/completions",status="200"}' in text
    assert 'lime_tokens_total{kind="completion"}' in text and "lime_queue 0.0" in text


def test_a_promise(monkeypatch, server):
    """lime.risk gives the promise of the model, and refuses a stronger one, and options that would void it."""
    promise = server.post(CHAT, json=asking(lime={"risk": 0.02})).json()["choices"][0]["lime"]["promise"]
    assert promise["risk"] == 0.01 and promise["procedure"].startswith("choose:")
    error = server.post(CHAT, json=asking(lime={"risk": 0.001})).json()["error"]
    assert error["param"] == "lime" and "demo has a promise of 0.01, which is weaker" in error["message"]
    for fields in ({"temperature": 0.5}, {"max_tokens": 5}, {"stop": "x"}, {"seed": 1}):
        error = server.post(CHAT, json=asking(lime={"risk": 0.02}, **fields)).json()["error"]
        assert error["param"] == next(iter(fields))


def test_a_name_with_another_host_is_used_by_page_and_clients_alike():
    with client(hosts=("models.example",)) as server:
        assert server.get("/v1/models", headers={"Host": "models.example:8080"}).status_code == 200
        assert server.get("/health", headers={"Host": BASE.removeprefix("http://")}).status_code == 200
