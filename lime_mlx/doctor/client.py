"""A client of servers that speak OpenAI's API: one question, one answer, and one sentence for what goes wrong."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from threading import Thread
from urllib.parse import urlsplit

from lime_mlx._version import __version__
from lime_mlx.errors import ServerError, short

from .asking import Place, Question, Reply
from .reading import spoken

Json = dict[str, object]
MOST_BYTES = 4 << 20
TIMEOUT = 120.0
# The most tokens of an answer; where it ends within a thought, it may have more from then on.
TOKENS, MOST_TOKENS = 256, 4096
TOP = 20
PLACES = 4
# Tried again, as servers ask for it: busy, or not ready yet.
BUSY = (429, 503)
PAUSES = (1.0, 4.0)
# Fields that some servers refuse by name: what to send in their place, if anything.
OPTIONAL: Mapping[str, str | None] = {"max_tokens": "max_completion_tokens", "temperature": None, "seed": None}
LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


class Client:
    """Asks one model of a server. url: the base address, with or without /v1. timeout: seconds for a whole answer.

    Calls raise `ServerError` where there is no server, or it does not speak this API. What the server refuses for one
    question is the `problem` of its reply.
    """

    def __init__(
        self, url: str, model: str | None = None, key: str | None = None, timeout: float = TIMEOUT, tokens: int = TOKENS
    ) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServerError(f"--url {short(url)} is no http address; give one as in http://localhost:1234/v1.")
        if parts.username or parts.password:
            raise ServerError("--url holds a name or a password; give the key with --api-key.")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/chat/completions')}"
        self._key, self._timeout, self._tokens = key, timeout, tokens
        proxies: dict[str, str] | None = {} if parts.hostname in LOOPBACK else None
        self._opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler(proxies))
        self._renamed: dict[str, str | None] = {}
        self._no_logprobs = False
        self.model = model or self._only_model()

    def __call__(self, question: Question) -> Reply:
        """The answer to one question."""
        for _ in range(8):
            status, body = self._patient("/chat/completions", self._request(question))
            if status == 200:
                reply = _reply(body, self.url)
                if question.logprobs or not _was_cut(body) or spoken(reply.text) or self._tokens >= MOST_TOKENS:
                    return reply
                self._tokens *= 4
                continue
            problem = _message(body)
            if status in (401, 403):
                key = "the key that --api-key gives" if self._key else "requests without a key; give one with --api-key"
                raise ServerError(f"The server at {self.url} refuses {key} (status {status}: {short(problem)}).")
            if status in (404, 405) and not _says_json(body):
                if not self.url.endswith("/v1"):
                    self.url += "/v1"
                    continue
                raise ServerError(f"There is no chat/completions at {self.url} (status {status}); check the address.")
            if not self._adapts(problem, question):
                return Reply(problem=f"status {status}: {short(problem)}")
        return Reply(problem=f"status {status}: {short(_message(body))}")

    def models(self) -> list[str]:
        """The names of the models that the server lists; none where it lists none."""
        status, body = self._patient("/models", None)
        if status in (404, 405) and not self.url.endswith("/v1"):
            self.url += "/v1"
            status, body = self._patient("/models", None)
        if status in (401, 403):
            raise ServerError(f"The server at {self.url} needs a key (status {status}); give it with --api-key.")
        listed = body.get("data") if isinstance(body, dict) else None
        names = [entry.get("id") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        return [name for name in names if isinstance(name, str)]

    def _only_model(self) -> str:
        names = self.models()
        if len(names) == 1:
            return names[0]
        listed = f"it has {', '.join(map(short, names[:20]))}" if names else "it lists none"
        raise ServerError(f"Name the model of {self.url} with --model: {listed}.")

    def _request(self, question: Question) -> Json:
        content: list[Json] = [
            {"type": "image_url", "image_url": {"url": _data_uri(picture)}} for picture in question.pictures
        ]
        content += [
            {"type": "input_audio", "input_audio": {"data": base64.b64encode(sound).decode(), "format": "wav"}}
            for sound in question.sounds
        ]
        user: object = [*content, {"type": "text", "text": question.text}] if content else question.text
        messages: list[Json] = [{"role": "system", "content": question.system}] if question.system else []
        fields: Json = {
            "model": self.model,
            "messages": [*messages, {"role": "user", "content": user}],
            "stream": False,
            "temperature": 0,
            "max_tokens": 2 * PLACES if question.logprobs else self._tokens,
        }
        if question.logprobs and not self._no_logprobs:
            fields |= {"logprobs": True, "top_logprobs": TOP}
        for name, other in self._renamed.items():
            value = fields.pop(name, None)
            if other is not None:
                fields[other] = value
        return fields

    def _adapts(self, problem: str, question: Question) -> bool:
        """Whether what the server refuses can be left out: the next request is then another one."""
        if question.logprobs and not self._no_logprobs and "logprobs" in problem:
            self._no_logprobs = True
            return True
        for name, other in OPTIONAL.items():
            if name in problem and name not in self._renamed:
                self._renamed[name] = other
                return True
        return False

    def _patient(self, path: str, fields: Json | None) -> tuple[int, object]:
        """Status and body of a request; one that meets a busy server is sent again, after a pause."""
        for pause in (*PAUSES, None):
            status, body = self._send(path, fields)
            if status not in BUSY or pause is None:
                return status, body
            time.sleep(pause)
        raise AssertionError

    def _send(self, path: str, fields: Json | None) -> tuple[int, object]:
        """The same, once; a second thread keeps the time, since a socket's own limit starts anew with every byte."""
        result: Future[tuple[int, object]] = Future()

        def work() -> None:
            try:
                result.set_result(self._exchange(path, fields))
            except Exception as error:
                result.set_exception(error)

        worker = Thread(target=work, daemon=True)
        worker.start()
        worker.join(self._timeout)
        if worker.is_alive():
            raise self._too_slow()
        return result.result(timeout=0)

    def _exchange(self, path: str, fields: Json | None) -> tuple[int, object]:
        headers = {"User-Agent": f"lime-mlx/{__version__}", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None
        if fields is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(fields).encode()
        try:
            request = urllib.request.Request(f"{self.url}{path}", data, headers)
            with self._opener.open(request, timeout=self._timeout) as response:
                return response.status, self._body(response)
        except urllib.error.HTTPError as error:
            with error:
                if 300 <= error.code < 400:
                    target = short(error.headers.get("Location", "elsewhere"))
                    raise ServerError(f"The server at {self.url} leads to {target}; give that address.") from None
                return error.code, self._body(error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreachable(error) from error

    def _body(self, response: http.client.HTTPResponse | urllib.error.HTTPError) -> object:
        """The JSON of a body, the chunks of a stream joined; its text where it is neither."""
        deadline, parts, size = time.monotonic() + self._timeout, list[bytes](), 0
        read = response.read1 if isinstance(response, http.client.HTTPResponse) else response.read
        while chunk := read(1 << 16):
            parts.append(chunk)
            size += len(chunk)
            if size > MOST_BYTES:
                raise ServerError(
                    f"The server at {self.url} sends more than {MOST_BYTES >> 20} MB for one answer and does not end; "
                    "check the address."
                )
            if time.monotonic() > deadline:
                raise self._too_slow()
        text = b"".join(parts).decode("utf-8", "replace")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return _joined(text) if text.lstrip().startswith("data:") else text

    def _too_slow(self) -> ServerError:
        return ServerError(
            f"The server at {self.url} did not finish an answer within {self._timeout:g} s; it may stream without an "
            "end, or need more time (--timeout)."
        )

    def _unreachable(self, error: Exception) -> ServerError:
        inner = error.reason if isinstance(error, urllib.error.URLError) else None
        reason = inner if isinstance(inner, Exception) else error
        if isinstance(reason, TimeoutError):
            return self._too_slow()
        if isinstance(reason, ConnectionRefusedError | socket.gaierror):
            detail = "nothing listens there" if isinstance(reason, ConnectionRefusedError) else "the name is not known"
            return ServerError(f"There is no server at {self.url} ({detail}); start it, or check the address.")
        if isinstance(reason, http.client.HTTPException | ConnectionError | ValueError) and not isinstance(
            reason, http.client.InvalidURL
        ):
            name = type(reason).__name__
            return ServerError(f"What listens at {self.url} does not answer in HTTP ({name}); check the address.")
        return ServerError(f"The server at {self.url} cannot be reached ({short(str(reason))}); check the address.")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key is not sent where a server points to."""

    def redirect_request(self, *arguments: object) -> None:
        return None


def _data_uri(picture: bytes) -> str:
    kind = "jpeg" if picture.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _says_json(body: object) -> bool:
    return isinstance(body, dict) and "error" in body


def _message(body: object) -> str:
    """What a server says of an error."""
    if isinstance(body, dict):
        error = body.get("error", body.get("detail", body.get("message", body)))
        if isinstance(error, dict):
            error = error.get("message", error)
        return error if isinstance(error, str) else json.dumps(error)
    return "a web page" if _is_page(body) else str(body)


def _is_page(body: object) -> bool:
    return isinstance(body, str) and body.lstrip()[:200].lower().startswith(
        ("<!doctype", "<html", "<head", "<body", "<?xml")
    )


def _joined(text: str) -> object:
    """One answer from the chunks of server-sent events."""
    words: list[str] = []
    for line in text.splitlines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            continue
        try:
            words.append(json.loads(data)["choices"][0].get("delta", {}).get("content") or "")
        except (ValueError, LookupError, TypeError, AttributeError):
            return text
    return {"choices": [{"message": {"content": "".join(words)}}]}


def _reply(body: object, url: str) -> Reply:
    """The answer in a body. Raises `ServerError` for what is none."""
    if _is_page(body):
        raise ServerError(f"{url} answers with a web page (HTML); give the address of the API, as in {url}/v1.")
    if not isinstance(body, dict):
        raise ServerError(f"{url} speaks another protocol: its answer is no JSON ({short(str(body), 60)}).")
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        if "error" in body:
            return Reply(problem=short(_message(body)))
        raise ServerError(f"{url} speaks another protocol: its JSON has no chat completion ({short(str(body), 60)}).")
    usage = body.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return Reply(
        _text(message.get("content")), _places(choice.get("logprobs")), count if isinstance(count, int) else None
    )


def _was_cut(body: object) -> bool:
    """Whether an answer was cut at the most tokens."""
    choices = body.get("choices") if isinstance(body, dict) else None
    return bool(choices) and isinstance(choices, list) and choices[0].get("finish_reason") == "length"


def _text(content: object) -> str:
    """The text of a message, whose content may be a list of parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _places(logprobs: object) -> Sequence[Place]:
    """The first places of an answer with their likely tokens; none where they cannot be read."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    try:
        rows = [
            {str(token["token"]): max(float(token["logprob"]), -100.0) for token in place["top_logprobs"]}
            for place in (content if isinstance(content, list) else [])[:PLACES]
        ]
    except (LookupError, TypeError, ValueError):
        return ()
    return rows if all(rows) else ()
