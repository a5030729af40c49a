"""Clients that others wrote, from their own packages, against the server: they get the answer that `generate` gives."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving import EXAMPLES, PICTURE, QUESTION, SOUND, live

TEXT = "A room with a dog, a ball, a cow and a bus."
KEY = "sk-of-the-test"
PARTS = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": PICTURE}}]
# The package that npm installs, for the test of the JavaScript client: npm install --prefix build/npm openai
NPM = Path(__file__).parent.parent / "build/npm"


@pytest.fixture(scope="module")
def address():
    with live(key=KEY) as (address, _):
        yield address


@pytest.fixture(scope="module")
def openai(address):
    module = pytest.importorskip("openai", reason="the openai client is not installed: pip install openai")
    with module.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_openai_chat(openai):
    answer = openai.chat.completions.create(model="demo", messages=[{"role": "user", "content": PARTS}])
    assert answer.choices[0].message.content == TEXT and answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 16 and answer.usage.prompt_tokens_details.cached_tokens >= 0
    assert [model.id for model in openai.models.list()][0] == "demo" and openai.models.retrieve("demo").id == "demo"


def test_openai_stream(openai):
    stream = openai.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": PARTS}],
        stream=True,
        stream_options={"include_usage": True},
        logprobs=True,
        top_logprobs=2,
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert chunks[-1].usage.total_tokens == 93 and not chunks[-1].choices
    entries = [entry for chunk in chunks if chunk.choices and chunk.choices[0].logprobs
               for entry in chunk.choices[0].logprobs.content]  # fmt: skip
    assert "".join(entry.token for entry in entries).strip() == TEXT and len(entries[0].top_logprobs) == 2


def test_openai_extra_body(openai):
    answer = openai.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": PARTS}], extra_body={"lime": {"maps": True}}
    )
    words = answer.choices[0].lime["words"]
    assert [word["name"] for word in words if word["flagged"]] == ["ball"] and words[0]["maps"]


def test_openai_sound(openai):
    part = {"type": "input_audio", "input_audio": {"data": SOUND, "format": "wav"}}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "What do you hear?"}]}]
    answer = openai.chat.completions.create(model="demo-sound", messages=messages)
    assert len(answer.choices[0].message.content) > 10


def test_openai_responses(openai):
    content = [{"type": "input_text", "text": QUESTION}, {"type": "input_image", "image_url": PICTURE}]
    given = [{"role": "user", "content": content}]
    answer = openai.responses.create(model="demo", input=given)
    assert answer.output_text == TEXT and answer.status == "completed"
    again = openai.responses.create(model="demo", input=[*given, *answer.output, {"role": "user", "content": "A dog?"}])
    assert again.output_text
    deltas = []
    with openai.responses.stream(model="demo", input=given) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                deltas.append(event.delta)
        assert stream.get_final_response().output_text == TEXT == "".join(deltas)


def test_openai_errors(openai, address):
    import openai as module

    with pytest.raises(module.NotFoundError) as missing:
        openai.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    with pytest.raises(module.BadRequestError) as refused:
        openai.chat.completions.create(model="demo", messages=[{"role": "user", "content": "x"}], n=2)
    assert refused.value.param == "n"
    wrong = module.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0)
    with wrong, pytest.raises(module.AuthenticationError):
        wrong.models.list()


def test_llm(address, tmp_path):
    pytest.importorskip("llm", reason="simonw's llm is not installed: pip install llm")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: lime\n  model_name: demo\n  api_base: {address}/v1\n  vision: true\n  api_key_name: lime\n"
    )
    (tmp_path / "keys.json").write_text(json.dumps({"lime": KEY}))
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "NO_PROXY": "*"}
    picture = str(EXAMPLES / "scene.png")
    for option in ([], ["--no-stream"]):
        command = [sys.executable, "-m", "llm", "-m", "lime", *option, QUESTION, "-a", picture]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip() == TEXT
    command = [sys.executable, "-m", "llm", "-c", "Is there a dog?"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stdout.strip(), result.stderr


JAVASCRIPT = """
import OpenAI from "openai";
const [address, key, picture] = process.argv.slice(2);
const client = new OpenAI({baseURL: `${address}/v1`, apiKey: key, maxRetries: 0});
const messages = [{role: "user", content: [
  {type: "text", text: "What is in the picture?"}, {type: "image_url", image_url: {url: picture}}]}];
const whole = await client.chat.completions.create({model: "demo", messages});
let text = "";
for await (const chunk of await client.chat.completions.create({model: "demo", messages, stream: true})) {
  text += chunk.choices[0]?.delta?.content ?? "";
}
const content = [{type: "input_text", text: "What is in the picture?"}, {type: "input_image", image_url: picture}];
const input = [{role: "user", content}];
const response = await client.responses.create({model: "demo", input});
let code = "";
try { await client.chat.completions.create({model: "none", messages}); } catch (error) { code = error.code; }
console.log(JSON.stringify([whole.choices[0].message.content, text, response.output_text, code]));
"""


def test_openai_in_javascript(address, tmp_path):
    node = shutil.which("node")
    if node is None or not (NPM / "node_modules/openai").is_dir():
        pytest.skip("node or its package openai is not installed: npm install --prefix build/npm openai")
    (NPM / "client.mjs").write_text(JAVASCRIPT)
    command = [node, "client.mjs", address, KEY, PICTURE]
    result = subprocess.run(command, cwd=NPM, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [TEXT, TEXT, TEXT, "model_not_found"]
