"""A local server is open to every web page in the browser: who may not talk to it, and what nobody gets from it."""

import http.client
import re
import socket
import threading
import time
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from serving import CHAT, PICTURE, asking, client, data_uri, live

EVIL = [
    *("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.2", "0.0.0.0"),
    *(
        "",
        "localhost@evil.example",
        "evil.example#localhost",
        "[::ffff:127.0.0.1]",
        "localhost/x",
        "[::1",
        "192.168.1.9",
    ),
]


@pytest.fixture(scope="module")
def server():
    with client() as made:
        yield made


def problem(response, status: int, code: str | None) -> str:
    """The message of an error, whose shape is checked."""
    assert response.status_code == status, response.text
    (error,) = response.json().values()
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code
    return error["message"]


@pytest.mark.parametrize("host", EVIL)
@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/metrics"])
def test_an_evil_host(server, host, path):
    problem(server.get(path, headers={"Host": host}), 403, "bad_host")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:1", "localhost.", "[::1]:8080"]
)
def test_loopback_names(server, host):
    assert server.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [*("http://evil.example", "null", "http://127.0.0.1:8080.evil.example", "https://127.0.0.1:8080"), "file://", ""],
)
def test_an_evil_origin(server, origin):
    problem(server.post(CHAT, json=asking(), headers={"Origin": origin}), 403, "bad_origin")
    problem(server.get("/v1/models", headers={"Origin": origin}), 403, "bad_origin")
    problem(
        server.options(CHAT, headers={"Origin": origin, "Access-Control-Request-Method": "POST"}), 403, "bad_origin"
    )


def test_its_own_origin(server):
    assert server.get("/v1/models", headers={"Origin": "http://127.0.0.1:8080"}).status_code == 200


def test_origins_that_are_named():
    origin = {"Origin": "https://chat.example"}
    with client(origins=("https://chat.example",), key="k") as server:
        preflight = server.options(CHAT, headers={**origin, "Access-Control-Request-Method": "POST"})
        assert (
            preflight.status_code == 200 and preflight.headers["access-control-allow-origin"] == "https://chat.example"
        )
        answer = server.get("/v1/models", headers={**origin, "Authorization": "Bearer k"})
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://chat.example"
        problem(server.get("/v1/models", headers={"Origin": "https://other.example"}), 403, "bad_origin")


def test_no_cors_by_default(server):
    assert not [name for name in server.get("/v1/models").headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "text/plain; x=application/json", "application/x-www-form-urlencoded", "multipart/form-data", ""],
)
def test_only_json_is_taken(server, kind):
    problem(server.post(CHAT, content=b"{}", headers={"Content-Type": kind}), 415, "bad_content_type")


def test_a_key_guards_everything_but_health_and_the_shell():
    with client(key="sk-7-local") as server:
        assert server.get("/health").status_code == server.get("/").status_code == 200
        for path in ("/v1/models", "/v1/models/demo", "/metrics", "/anything"):
            for headers in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": "sk-7-local"},
                {"x-api-key": "sk-7-local"},
            ):
                assert "key" in problem(server.get(path, headers=headers), 401, "invalid_api_key")
        assert "sk-7-local" not in server.get("/").text
        problem(server.post(CHAT, json=asking()), 401, "invalid_api_key")
        assert server.get("/v1/models", headers={"Authorization": "Bearer sk-7-local"}).status_code == 200
        latin = {"Authorization": "Bearer \xe9".encode("latin-1")}
        problem(server.get("/v1/models", headers=latin), 401, "invalid_api_key")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "file:///etc/passwd",
            "/etc/passwd",
            "etc/passwd",
            "FILE:///etc/passwd",
            "ftp://x/y",
            "blob:x",
            "javascript:1",
        ),
        *("http://127.0.0.1:1/x.png", "http://localhost/x.png", "http://[::1]/x", "http://169.254.169.254/latest"),
        *("http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://10.0.0.1/", "HTTP://127.0.0.1/"),
        *("", "data:", "data:,", "data:image/png;base64,%%%", "-", "~/x.png"),
    ],
)
def test_addresses_that_are_not_read(server, url):
    response = server.post(CHAT, json=asking(url=url))
    message = problem(response, 400, "invalid_value")
    assert response.json()["error"]["param"] == "messages[0].content[1].image_url"
    assert "root:" not in message


class Site(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.paths.append(self.path)
        self.send_response(302 if self.path == "/moved" else 200)
        if self.path == "/moved":
            self.send_header("Location", "/picture")
        self.end_headers()
        self.wfile.write(self.server.picture)

    def log_message(self, *_):
        pass


def test_a_redirect_to_this_machine(monkeypatch, server):
    """The first address counts as public; the redirect leads to one that does not."""
    from base64 import b64decode

    from lime_mlx.media import addresses

    real = addresses.is_public
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.9" or real(address))
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as private, ThreadingHTTPServer(("127.0.0.9", 0), Site) as public:
        threads = []
        for site in (private, public):
            site.paths, site.picture = [], b64decode(PICTURE.partition(",")[2])
            threads.append(threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02}))
            threads[-1].start()
        address = f"http://127.0.0.9:{public.server_port}"
        assert server.post(CHAT, json=asking(url=f"{address}/moved")).status_code == 200
        assert public.paths == ["/moved", "/picture"]
        url = f"http://127.0.0.1:{private.server_port}/picture"
        problem(server.post(CHAT, json=asking(url=url)), 400, "invalid_value")
        assert private.paths == []
        with client(allow_private_urls=True) as open_server:
            assert open_server.post(CHAT, json=asking(url=url)).status_code == 200
        for site, thread in zip((private, public), threads, strict=True):
            site.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "name", ["/etc", "../demo", "./lime_mlx/demo/picture", "~", "demo/../demo", "\0", "owner/none"]
)
def test_a_model_is_never_a_path(server, name):
    assert problem(server.post(CHAT, json=asking() | {"model": name}), 404, "model_not_found")


def test_no_documents_of_the_framework(server):
    for path in ("/docs", "/redoc", "/openapi.json", "/page.js", "/..%2f..%2fetc/passwd"):
        problem(server.get(path), 404, None)
    problem(server.get(CHAT), 405, None)


def test_no_websockets(server):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), server.websocket_connect("/"):
        pass


def test_headers_of_every_answer(server):
    for response in (
        server.get("/"),
        server.get("/v1/models"),
        server.get("/x"),
        server.get("/", headers={"Host": "x"}),
    ):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"


def test_the_policy_of_the_page_allows_its_own_script_and_nothing_else(server):
    from base64 import b64encode

    response = server.get("/")
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in str(policy) and "http" not in str(policy) and "*" not in str(policy)
    scripts = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    hashes = [f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts]
    assert len(hashes) == 2 and policy["script-src"].split() == hashes
    assert policy["connect-src"] == "'self'"
    assert not re.search(r"""(?:src|href)=|@import|url\(|https?:(?!//www\.w3\.org)|\son\w+=|\sstyle=""", response.text)


def raw(address: str, data: bytes) -> bytes:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


def test_over_a_real_connection():
    with live(key="k") as (address, app):
        for head in (b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", b"nonsense\r\n\r\n"):
            assert re.match(rb"HTTP/1.1 4\d\d", raw(address, head))
        two = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        assert re.match(rb"HTTP/1.1 4\d\d", raw(address, two))
        assert (
            b"server:"
            not in raw(address, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").lower()
        )
        began = time.perf_counter()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        answer = raw(address, head + b"Authorization: Bearer k\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")
        assert b" 400 " in answer and time.perf_counter() - began < 3


def test_an_address_that_is_reached_is_a_name_of_a_server_that_listens_everywhere():
    """Only the very address of the connection, which no name that changes can stand for."""
    with live(host="0.0.0.0") as (address, _):
        port = address.rpartition(":")[2]
        for host, status in ((b"127.0.0.2", b"200"), (b"127.0.0.3", b"403"), (b"evil.example", b"403")):
            head = b"GET /health HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
            assert raw(f"http://127.0.0.2:{port}", head).startswith(b"HTTP/1.1 " + status)


def test_a_body_of_100_mb_gets_its_answer():
    with live() as (address, app):
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
        connection.request("POST", CHAT, b" " * 100_000_000, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 413 and b"body_too_large" in response.read()
        connection.close()
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
        chunks = (b" " * 1_000_000 for _ in range(100))
        connection.request("POST", CHAT, chunks, {"Content-Type": "application/json"}, encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()


def test_large_media_are_refused():
    with client(media=1000) as server:
        for url in (data_uri(bytes(1001)), "data:text/plain," + "%00" * 1001):
            assert "larger" in problem(server.post(CHAT, json=asking(url=url)), 400, "invalid_value")
    with client(pixels=100) as server:
        assert "pixels" in problem(server.post(CHAT, json=asking()), 400, "invalid_value")
