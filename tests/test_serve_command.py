"""The command serve: what it refuses before it listens, and that it serves and ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
import serving
from click.testing import CliRunner

from lime_mlx.cli import main
from lime_mlx.cli.serve import check_open, read_key


def run(*arguments: str, **environment: str):
    return CliRunner().invoke(main, ["serve", *arguments], env={"LIME_MLX_API_KEY": None, **environment})


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("--port", str(taken.getsockname()[1]))
    assert result.exit_code == 1 and result.output.count("Error:") == 1 and "take another --port" in result.output


def test_an_address_that_is_not_ours():
    result = run("--host", "192.0.2.1", "--no-auth")
    assert result.exit_code == 1 and "cannot listen on 192.0.2.1" in result.output


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_another_address_needs_a_key(host):
    result = run("--host", host)
    assert result.exit_code == 2 and "--api-key-file" in result.output and "--no-auth" in result.output


def test_loopback_needs_none():
    for host in ("127.0.0.1", "localhost", "::1"):
        check_open(host, None, False)
    check_open("0.0.0.0", "key", False)
    check_open("0.0.0.0", None, True)


def test_the_key(tmp_path):
    file = tmp_path / "key"
    file.write_text("of-the-file \nmore")
    assert read_key(None, None) is None and read_key("given", None) == "given" and read_key("x", file) == "of-the-file"
    file.write_text("\n")
    for arguments in (["--api-key-file", str(file)], ["--api-key-file", str(tmp_path / "none")], ["--api-key", " "]):
        result = run(*arguments)
        assert result.exit_code == 1 and result.output.count("Error:") == 1
    assert run(LIME_MLX_API_KEY=" ").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--method", "nonsense"], "nonsense"),
        (["--model", "/no/such/folder"], "There is no folder"),
        (["--port", "70000"], "--port"),
        (["--models", "0"], "--models"),
    ],
)
def test_what_is_refused_at_once(arguments, problem):
    result = run(*arguments)
    assert result.exit_code in (1, 2) and problem in result.output and "Traceback" not in result.output


def test_missing_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    result = run()
    assert result.exit_code == 1 and "pip install 'lime-mlx[server]'" in result.output


def test_it_serves_and_ends():
    """With a key of the environment; the log has one line for a request, and Ctrl-C ends the server."""
    environment = {**os.environ, "LIME_MLX_API_KEY": "sk-7-local", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from lime_mlx.cli import main; main()", "serve", "--port", "0"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        while not (lines and (address := re.search(r"http://127\.0\.0\.1:\d+", lines[-1]))):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert opener.open(f"{address[0]}/health", timeout=20).read() == b'{"status":"ok"}'
        request = urllib.request.Request(f"{address[0]}/v1/models", headers={"Authorization": "Bearer sk-7-local"})
        assert b'"demo"' in opener.open(request, timeout=20).read()
        headers = {"Authorization": "Bearer sk-7-local", "Content-Type": "application/json"}
        body = json.dumps(serving.asking(max_tokens=2)).encode()
        request = urllib.request.Request(f"{address[0]}{serving.CHAT}", body, headers)
        assert b'"A room"' in opener.open(request, timeout=60).read()
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[1]
    assert (
        "GET /v1/models 200" in rest
        and "sk-7-local" not in rest
        and "Traceback" not in rest
        and "terminate" not in rest
    )
    assert process.returncode in (0, 130, -signal.SIGINT)
