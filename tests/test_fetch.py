import io
import shutil
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from lime_mlx.errors import MediaError
from lime_mlx.media.fetch import download, fetch, is_url, source_name
from lime_mlx.media.image import open_image


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, "PNG")
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.split("?")[0].strip("/").split("/")[0]
        getattr(self, f"get_{name.replace('.', '_')}", self.get_missing)()

    def answer(self, body: bytes, status: int = 200, **headers):
        headers = {"Content_Type": "image/png", "Content_Length": str(len(body)), **headers}
        self.send_response(status)
        for key, value in headers.items():
            if value is not None:
                self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:  # the client left first
            self.close_connection = True

    def get_picture_png(self):
        self.answer(png())

    def get_caf(self):
        self.answer(self.path.encode())

    def get_agent(self):
        self.answer(self.headers["User-Agent"].encode())

    def get_page_png(self):
        self.answer(b"<!DOCTYPE html><p>Log in first", Content_Type="text/html; charset=utf-8")

    def get_empty_png(self):
        self.answer(b"")

    def get_missing(self):
        self.answer(b"no", 404)

    def get_error(self):
        self.answer(b"no", 503)

    def get_moved(self):
        self.answer(b"", 302, Location="/picture.png")

    def get_gone_to_file(self):
        self.answer(b"", 301, Location="file:///etc/hostname")

    def get_loop(self):
        self.answer(b"", 307, Location="/back")

    def get_back(self):
        self.answer(b"", 308, Location="/loop")

    def get_nowhere(self):
        self.answer(b"", 302)

    def get_steps(self):
        left = int(self.path.split("/")[2])
        self.answer(b"", 303, Location=f"/steps/{left - 1}" if left > 1 else "/picture.png")

    def get_announced(self):
        self.answer(b"", Content_Length="4000")

    def get_unannounced(self):
        self.answer(bytes(4000), Content_Length=None)

    def get_cut(self):
        self.answer(png(), Content_Length=str(len(png()) + 100))

    def get_cut_chunks(self):
        self.answer(b"50\r\nonly this", Content_Length=None, Transfer_Encoding="chunked")

    def get_drip(self):
        """A byte now and then: each one in time, all of them never."""
        self.answer(b"", Content_Length="1000")
        self.drip(b"x")

    def get_drip_header(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Long: ")
        self.drip(b"x")

    def drip(self, byte: bytes):
        try:
            while not self.server.stop.wait(0.05):
                self.wfile.write(byte)
        except OSError:  # the client left first
            self.close_connection = True

    def get_silent(self):
        self.server.stop.wait(5)

    def get_nonsense(self):
        self.wfile.write(b"\0\1\2 not http\r\n\r\n")

    def log_message(self, *_):
        pass


@contextmanager
def serving(context: ssl.SSLContext | None = None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.stop = threading.Event()
    server.handle_error = lambda *_: None
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def site():
    with serving() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def problem(url: str, **options) -> str:
    with pytest.raises(MediaError) as caught:
        fetch(url, **options)
    message = str(caught.value)
    assert message.startswith("Cannot read ")
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_download(site):
    assert fetch(f"{site}/picture.png") == png()
    assert download(f"{site}/picture.png") == (png(), "image/png")
    assert open_image(f"{site}/picture.png").size == (8, 6)


def test_user_agent(site):
    assert fetch(f"{site}/agent").startswith(b"lime-mlx/")


def test_spaces_and_accents_are_quoted(site):
    assert fetch(f"{site}/caf/\u00e9 b.png?q=%20 \u00fc#part") == b"/caf/%C3%A9%20b.png?q=%20%20%C3%BC"


def test_redirects(site):
    assert fetch(f"{site}/moved") == png()
    assert fetch(f"{site}/steps/5") == png()
    assert "more than 5 times" in problem(f"{site}/steps/6")
    assert "more than 0 times" in problem(f"{site}/moved", max_redirects=0)
    assert "loop" in problem(f"{site}/loop")
    assert "loop" in problem(f"{site}/nowhere")


def test_only_http(site):
    assert "only http and https" in problem(f"{site}/gone_to_file")
    for url in ("file:///etc/hostname", "ftp://127.0.0.1/x.png", "s3://bucket/x.png"):
        assert "only http and https" in problem(url)
        with pytest.raises(MediaError, match="only http and https"):
            open_image(url)


def test_error_status(site):
    assert "404" in problem(f"{site}/missing.png")
    assert "503" in problem(f"{site}/error")


def test_size_limit(site):
    assert "larger than 3999 bytes" in problem(f"{site}/announced", max_bytes=3999)
    assert "larger than 3999 bytes" in problem(f"{site}/unannounced", max_bytes=3999)
    assert len(fetch(f"{site}/unannounced", max_bytes=4000)) == 4000


def test_cut_connection(site):
    assert f"after {len(png())} of {len(png()) + 100} bytes" in problem(f"{site}/cut")
    assert "ended too early" in problem(f"{site}/cut_chunks")


@pytest.mark.parametrize("path", ["silent", "drip", "drip_header"])
def test_slow_server(site, path):
    start = time.monotonic()
    message = problem(f"{site}/{path}", timeout=0.4)
    assert "slow" in message or "did not finish" in message
    assert time.monotonic() - start < 2


def test_unreachable(site):
    with serving() as port:
        pass
    assert "cannot be reached" in problem(f"http://127.0.0.1:{port}/x.png")
    assert "does not answer in http" in problem(f"{site}/nonsense")


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://127.0.0.1:port/", "http://a..b/", "http://a b/"])
def test_bad_urls(url):
    assert "check" in problem(url)


def test_untrusted_certificate(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
    ]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(context) as port:
        assert "certificate is not trusted" in problem(f"https://127.0.0.1:{port}/picture.png")


def test_a_url_that_is_not_a_picture(site):
    with pytest.raises(MediaError, match=r"web page.*text/html; charset=utf-8"):
        open_image(f"{site}/page.png")
    with pytest.raises(MediaError, match="0 bytes"):
        open_image(f"{site}/empty.png")


def test_names():
    assert is_url("https://x.org/a.png")
    assert is_url("s3://b/c")
    assert not is_url("a/b.png")
    assert not is_url("data:x")
    assert source_name("https://me:secret@x.org/a.png") == "https://x.org/a.png"
    assert source_name("-") == "standard input"
    assert source_name("a\n\x1b[31mb") == "a??[31mb"
    assert len(source_name("x" * 1000)) == 200
