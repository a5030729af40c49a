"""What a server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass

from lime_mlx.kv import DEFAULT, KVOptions

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Settings:
    """The options of `lime-mlx serve`.

    model: a folder, a repository or "demo", the model of requests that name none; method: the spec of those that name
    none. key: what requests must bring, None for none. hosts: names of this server beside loopback and the bound
    address. origins: of other pages that may use it. queue: how many requests may wait while one computes. tokens: the
    most of an answer that says nothing about it. seconds: how long a request may wait and compute. body, media: bytes
    of a request, and of one picture or sound in it. pixels: of one picture. messages: the most of a request.
    prefixes: bytes kept of earlier prompts for each model. kv: the options of the cache. log_text: whether the log
    holds texts of users.
    """

    model: str = "demo"
    revision: str | None = None
    method: str = "none"
    host: str = HOST
    key: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    allow_private_urls: bool = False
    models: int = 1
    queue: int = 16
    tokens: int = 1024
    seconds: float = 300.0
    body: int = 64 << 20
    media: int = 32 << 20
    pixels: int = 50_000_000
    sound_seconds: float = 600.0
    messages: int = 1000
    prefixes: int = 1 << 30
    kv: KVOptions = DEFAULT
    log_text: bool = False
