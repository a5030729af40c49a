"""Which addresses a download may go to: judged on what is connected to, at each redirect, by one function."""

import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lime_mlx.errors import MediaError
from lime_mlx.media import addresses
from lime_mlx.media.addresses import is_public
from lime_mlx.media.fetch import fetch

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
RESOLVE = socket.getaddrinfo


class Site(BaseHTTPRequestHandler):
    """Answers "secret" to every path but /to/URL, which redirects there."""

    def do_GET(self):
        self.server.paths.append(self.path)
        if "/to/" in self.path:
            self.send_response(302)
            self.send_header("Location", self.path.partition("/to/")[2])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"secret")

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.paths = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def site(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serving() as server:
        yield server


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b::10.0.0.1", "64:ff9b:1::1", "2002:7f00:1::", "2002:c0a8:101::1", "2001:0:4136:e378:8000:63bf:0:1"),
    ],
)
def test_private(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.%31", "[::1]"],
)
def test_every_spelling_of_this_machine_is_refused(site, host):
    with pytest.raises(MediaError, match=r"not on the public Internet|not valid|cannot be reached"):
        fetch(f"http://{host}:{site.server_port}/x", private="never")
    assert site.paths == []


def test_what_the_user_types_may_be_private(site):
    assert fetch(f"http://127.0.0.1:{site.server_port}/x") == b"secret"
    assert fetch(f"http://127.0.0.1:{site.server_port}/to/http://localhost:{site.server_port}/x") == b"secret"
    assert fetch(f"http://127.0.0.1:{site.server_port}/x", private="always") == b"secret"


@pytest.fixture
def outside(monkeypatch, site):
    """The name public.example has the address of the site, which counts as public; private.example is private."""
    public = {"127.0.0.9"}
    real = addresses.is_public

    def resolve(host, port, *rest, **options):
        (first, *_) = RESOLVE("127.0.0.1", port, *rest, **options)
        return [(*first[:4], ("127.0.0.9" if host == "public.example" else "127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(addresses, "is_public", lambda address: address in public or real(address))
    with ThreadingHTTPServer(("127.0.0.9", 0), Site) as server:
        server.paths = site.paths
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://public.example:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_public_server_never_leads_to_a_private_one(site, outside):
    private = f"http://127.0.0.1:{site.server_port}/x"
    assert fetch(f"{outside}/x", private="never") == b"secret"
    assert fetch(f"{outside}/x") == b"secret"
    assert fetch(f"{outside}/to/{outside}/x") == b"secret"
    site.paths.clear()
    for mode in ("typed", "never"):
        with pytest.raises(MediaError):
            fetch(f"{outside}/to/{private}", private=mode)
    with pytest.raises(MediaError, match="--allow-private-urls"):
        fetch(f"http://127.0.0.1:{site.server_port}/to/{outside}/to/{private}")
    assert "/x" not in site.paths
    assert fetch(f"{outside}/to/{private}", private="always") == b"secret"


def test_a_resolver_that_changes_its_answer(monkeypatch, site):
    """The first answer is judged, and is the one connected to: a second one is never hosts for."""
    answers = iter(["203.0.113.7", "127.0.0.1"])
    hosts = []

    def resolve(host, port, *rest, **options):
        hosts.append(host)
        (first, *_) = RESOLVE("127.0.0.1", port, *rest, **options)
        return [(*first[:4], (next(answers), port))]

    targets = []

    class Recording(socket.socket):
        def connect(self, target):
            targets.append(target[0])
            raise TimeoutError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "203.0.113.7")
    monkeypatch.setattr(addresses.socket, "socket", Recording)
    with pytest.raises(MediaError):
        fetch(f"http://rebind.example:{site.server_port}/x", private="never")
    assert hosts == ["rebind.example"]
    assert targets == ["203.0.113.7"]
    with pytest.raises(MediaError, match="not on the public Internet"):
        fetch(f"http://rebind.example:{site.server_port}/x", private="never")
    assert targets == ["203.0.113.7"]


def test_one_private_address_among_public_ones_is_enough(monkeypatch, site):
    def resolve(host, port, *rest, **options):
        (first, *_) = RESOLVE("127.0.0.1", port, *rest, **options)
        return [(*first[:4], (address, port)) for address in ("8.8.8.8", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(MediaError, match="not on the public Internet"):
        fetch(f"http://both.example:{site.server_port}/x", private="never")


def test_proxies(monkeypatch, site):
    """The command line uses the proxy of the environment, and judges what it can; `never` goes around it."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{site.server_port}")
    assert fetch("http://8.8.8.8/x") == b"secret"
    assert site.paths == ["http://8.8.8.8/x"]
    site.paths.clear()
    with pytest.raises(MediaError, match="--allow-private-urls"):
        fetch("http://8.8.8.8/to/http://127.0.0.1/x")  # the proxy redirects for 8.8.8.8
    assert site.paths == ["http://8.8.8.8/to/http://127.0.0.1/x"]


def test_never_goes_around_the_proxy(monkeypatch, site):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{site.server_port}")
    with pytest.raises(MediaError, match="not on the public Internet"):
        fetch("http://10.0.0.1/x", private="never")
    assert site.paths == []


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://8.8.8.8/x", "gopher://8.8.8.8/", "data:,x", "/etc/passwd"]
)
def test_only_http(url):
    with pytest.raises(MediaError, match="only http and https"):
        fetch(url, private="never")
