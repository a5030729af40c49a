import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from checkpoints import LLAVA, random_weights, write

SHA = "0" * 39 + "1"
LOAD = """
import json, sys
from lime_mlx.checkpoint import locate
from lime_mlx.errors import CheckpointError
for name, revision in json.load(sys.stdin):
    try:
        print(locate(name, revision=revision))
    except CheckpointError as error:
        print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download needs: me/tiny, me/half with the same files, and some that cannot be had."""

    files: dict[str, bytes]
    asked: list[str]

    def do_HEAD(self):
        path = self.path.split("?")[0].replace("me/half", "me/tiny")
        self.asked.append(path)
        if path.startswith("/api/models/me/tiny/revision/"):
            known = path.endswith(("/main", SHA))
            return self.answer(200, {"id": "me/tiny", "sha": SHA}) if known else self.refuse(404, "RevisionNotFound")
        if path == f"/api/models/me/tiny/tree/{SHA}":
            return self.answer(
                200, [{"type": "file", "path": k, "size": len(v), "oid": k} for k, v in self.files.items()]
            )
        if path.startswith(f"/me/tiny/resolve/{SHA}/"):
            return self.answer(200, self.files[path.split(SHA)[1].removeprefix("/")])
        if path.startswith("/api/models/me/gated"):
            return self.refuse(403, "GatedRepo")
        if path.startswith("/api/models/me/broken"):
            return self.refuse(400, "Nonsense")
        return self.refuse(404, "RepoNotFound")

    do_GET = do_HEAD

    def answer(self, status, content):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("X-Repo-Commit", SHA)
        self.send_header("ETag", f'"{abs(hash(body))}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("repository"), LLAVA, random_weights(LLAVA))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    extra = ("consolidated.safetensors", "original/a.json", "onnx/model.safetensors", "code.py", "model.bin")
    Hub.files, Hub.asked = files | dict.fromkeys(extra, b"x"), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def locate(names, cache, endpoint, **environment):
    """One line for each (name, revision): the folder, or the error. In a process of its own: the Hub's settings are
    read at import."""
    settings = {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        input=json.dumps(names),
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_DISABLE_XET": "1", **settings},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_download_then_offline(hub, tmp_path):
    unusual = ["me/none", "me/gated", "me/broken", "a/-"]
    folder, half, revision, none, gated, broken, name = locate(
        [("me/tiny", None), ("me/half", SHA), ("me/tiny", "v9"), *((name, None) for name in unusual)], tmp_path, hub
    )
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
    assert not any(path.endswith((".py", ".bin", "consolidated.safetensors")) for path in Hub.asked)
    assert "no revision 'v9'" in revision
    assert "no such repository" in none
    assert "is gated" in gated
    assert "HF_TOKEN" in gated
    assert "me/broken" in broken
    assert "a/-" in name

    os.unlink(os.path.join(half, "model.safetensors"))
    names = [("me/tiny", None), ("me/half", SHA), ("me/none", None)]
    again, incomplete, missing = locate(names, tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert again == folder
    for message in (incomplete, missing):
        assert "not wholly in the local cache" in message
        assert "run once online, or give a folder" in message
