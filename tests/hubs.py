"""A Hub of our own on 127.0.0.1, which also breaks off, lies, and keeps some repositories shut."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

MAIN, OLD = "0" * 39 + "1", "0" * 39 + "2"
NOWHERE = "http://127.0.0.1:9"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download needs. Files by repository and commit; `asked`: method, file and range."""

    files: dict[str, dict[str, dict[str, bytes]]]
    asked: list[tuple[str, str, str | None]]
    breaks: dict[str, int]  # after how many bytes the answer ends, once
    lies: dict[str, str]  # the method that announces seven bytes more than there are
    down: set[str]
    cards: dict[str, dict]  # what the model card of a repository states
    said: dict[str, dict]  # what else the Hub says of it

    def do_HEAD(self):
        path = self.path.split("?")[0]
        repository, kind, place = re.match(r"/(?:api/models/)?([\w-]+/[\w.-]+)/?(\w*)/?(.*)", path).groups()
        commits = self.files.get(repository, {})
        token = self.headers.get("Authorization")
        if token == "Bearer expired":
            return self.refuse(401, None, "Invalid credentials in Authorization header")
        if repository in self.down:
            return self.refuse(503, None)
        if repository == "me/gated" and kind == "resolve" and token != "Bearer right":
            return self.refuse(403 if token else 401, "GatedRepo")
        if not commits:
            return self.refuse(404, "RepoNotFound")
        if kind == "revision":
            commit = {"main": MAIN, "v1": OLD}.get(place, place)
            known = commit in commits
            return (
                self.answer(json.dumps({"id": repository, "sha": commit}).encode())
                if known
                else self.refuse(404, "RevisionNotFound")
            )
        if not kind:
            return self.answer(json.dumps(self.about(repository, commits[MAIN])).encode())
        if kind == "tree":
            files = commits[place].items()
            tree = [{"type": "file", "path": name, "size": len(body), "oid": name} for name, body in files]
            return self.answer(json.dumps(tree).encode())
        commit, name = place.split("/", 1)
        self.asked.append((self.command, name, self.headers.get("Range")))
        return self.answer(commits[commit][name], commit, name)

    do_GET = do_HEAD

    def about(self, repository, files):
        """What the Hub says of a repository: its files with their sizes, its card and the family of its config."""
        siblings = [{"rfilename": name, "size": len(body)} for name, body in files.items()]
        card = self.cards.get(repository, {})
        tags = [f"license:{card['license']}"] if "license" in card else []
        values = {"id": repository, "sha": MAIN, "siblings": siblings, "cardData": card, "tags": tags}
        return values | self.said.get(repository, {})

    def answer(self, body, commit=MAIN, name=None):
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        announced = len(body) - start + 7 * (self.command in self.lies.get(name, ""))
        if start >= len(body) > 0:
            return self.refuse(416, None)
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{sha1(body).hexdigest()}"')
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        if self.command == "GET":
            end = self.breaks.pop(name, len(body))
            self.wfile.write(body[start:end])

    def refuse(self, status, code, message=None):
        self.send_response(status)
        for key, value in (("X-Error-Code", code), ("X-Error-Message", message), ("Content-Length", "0")):
            if value:
                self.send_header(key, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def running(repositories: dict[str, dict[str, dict[str, bytes]]]) -> Iterator[str]:
    """The address of a Hub with these files by repository, commit and name. All that it was told before is gone."""
    Hub.files, Hub.asked, Hub.breaks, Hub.lies, Hub.down = repositories, [], {}, {}, {"me/down"}
    Hub.cards, Hub.said = {}, {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def files_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fetched() -> list[tuple[str, str | None]]:
    """Files and ranges that were asked for since the last call, in order of name."""
    got = sorted((name, span or "") for method, name, span in Hub.asked if method == "GET")
    Hub.asked.clear()
    return got
