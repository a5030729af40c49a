"""lime-mlx serve: an HTTP API that clients of OpenAI's know, and a page where words show what carried them."""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lime_mlx.checkpoint.choice import OPTION_HELP, chosen_model
from lime_mlx.cli.common import METHOD_NAMES, chosen_note, note, prepare_backend, takes_cache
from lime_mlx.errors import BackendError, LimeError

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from lime_mlx.kv import KVOptions

KEY = "LIME_MLX_API_KEY"


@click.command()
@click.option(
    "--model",
    metavar="REPO|FOLDER",
    help=f"The model of requests that name none.  {OPTION_HELP}",
)
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option(
    "--method",
    metavar="SPEC",
    default="none",
    show_default=True,
    help=f"The method of requests that name none: one of {', '.join(METHOD_NAMES)}; or default, which is choose with a "
    "picture or a sound.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--api-key", envvar=KEY, help=f"A key that requests must bring.  [default: ${KEY}]")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="A file whose first line is the key.")
@click.option("--no-auth", is_flag=True, help="Listen on another address than this machine's own without a key.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="A further name of this server; repeat it for each.")
@click.option("--cors", multiple=True, metavar="ORIGIN", help="A page that may use this server, as https://x.org.")
@click.option("--allow-private-urls", is_flag=True, help="Read pictures from addresses of private networks, too.")
@click.option("--models", type=click.IntRange(1), default=1, show_default=True, help="The most models in memory.")
@click.option("--queue", type=click.IntRange(0), default=16, show_default=True, help="The most requests that wait.")
@click.option(
    "--max-tokens", type=click.IntRange(1), default=1024, show_default=True, help="Of answers of which nothing is said."
)
@click.option(
    "--timeout",
    type=click.FloatRange(1),
    default=300.0,
    show_default=True,
    help="Seconds for an answer, with the wait.",
)
@click.option(
    "--max-body", type=click.IntRange(1), default=64, show_default=True, metavar="MB", help="The most of a request."
)
@click.option(
    "--prefix-memory",
    type=click.IntRange(0),
    default=1024,
    show_default=True,
    metavar="MB",
    help="For earlier prompts.",
)
@takes_cache
@click.option("--log-text", is_flag=True, help="The log also holds the questions.")
@click.option("--quiet/--verbose", default=False, help="Log errors only.")
def command(
    model: str | None,
    revision: str | None,
    method: str,
    host: str,
    port: int,
    api_key: str | None,
    api_key_file: Path | None,
    no_auth: bool,
    allow_host: tuple[str, ...],
    cors: tuple[str, ...],
    allow_private_urls: bool,
    models: int,
    queue: int,
    max_tokens: int,
    timeout: float,
    max_body: int,
    prefix_memory: int,
    kv: KVOptions,
    log_text: bool,
    quiet: bool,
) -> None:
    """Serve models to apps that know OpenAI's API, and a page at / where you click a word to see its map.

    \b
    lime-mlx serve
    lime-mlx serve --model mlx-community/Qwen2.5-VL-3B-Instruct-4bit --method choose
    lime-mlx serve --host 0.0.0.0 --api-key-file key.txt
    """
    notes: list[str] = []
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise BackendError(f"The server needs {error.name}: run pip install 'lime-mlx[server]'.") from None
    key = read_key(api_key, api_key_file)
    check_open(host, key, no_auth)
    choice = chosen_model(model)
    prepare_backend(notes, quiet)

    from lime_mlx.server.app import create_app
    from lime_mlx.server.settings import Settings

    name = choice.name or "demo"
    notes += [] if quiet else chosen_note(choice, name)
    settings = Settings(
        model=name,
        revision=revision,
        method=method,
        host=host,
        key=key,
        hosts=allow_host,
        origins=tuple(origin.rstrip("/") for origin in cors),
        allow_private_urls=allow_private_urls,
        models=models,
        queue=queue,
        tokens=max_tokens,
        seconds=timeout,
        body=max_body << 20,
        prefixes=prefix_memory << 20,
        kv=kv,
        log_text=log_text,
    )
    with choice.blamed():
        app = create_app(settings)
    start_log(quiet)
    with listening(host, port) as listener:
        bound, number = listener.getsockname()[:2]
        shown = f"[{bound}]" if ":" in bound else bound
        note(*notes, f"Serving {name} with the method {method}: http://{shown}:{number}/ and /v1; Ctrl-C ends it.")
        config = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=3, server_header=False
        )
        uvicorn.Server(config).run(sockets=[listener])


def server_of(app: FastAPI) -> uvicorn.Server:
    """What runs an application on a socket that listens; it says nothing of itself."""
    import uvicorn

    return uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=3, server_header=False))


def read_key(given: str | None, file: Path | None) -> str | None:
    """The key of --api-key, its variable or --api-key-file. Raises `LimeError` for an empty one."""
    key = given
    if file is not None:
        try:
            key = file.read_text("utf-8").partition("\n")[0]
        except (OSError, UnicodeDecodeError) as error:
            raise LimeError(f"The key cannot be read from {file}: {error}") from error
    if key is not None and not key.strip():
        raise LimeError("The API key is empty; give one, or none at all.")
    return None if key is None else key.strip()


def check_open(host: str, key: str | None, no_auth: bool) -> None:
    """Refuse to be open to a network without a key, unless that is wanted."""
    from lime_mlx.server.guard import is_loopback

    if not is_loopback(host) and key is None and not no_auth:
        raise click.UsageError(
            f"--host {host} opens the server to others: give --api-key-file FILE or ${KEY}, or --no-auth to go without."
        )


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises `LimeError` where the port is in use or the address is not ours."""
    listener = None
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(128)
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        raise LimeError(
            f"The server cannot listen on {host}:{port} ({error.strerror or error}); take another --port or --host."
        ) from error


def start_log(quiet: bool) -> None:
    """Lines on standard error, of this server and of what is under it where that goes wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    for name, level in (("lime_mlx.server", logging.ERROR if quiet else logging.INFO), ("uvicorn", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
