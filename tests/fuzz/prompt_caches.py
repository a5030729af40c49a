"""Files that hold the cache of a prompt: what they say of themselves, their arrays and their bytes, changed."""

import json
import struct
from functools import cache

import mlx.core as mx
import numpy as np
from helpers import small_model, small_prompt

from fuzz.mutate import Choose, changed_bytes, changed_json
from fuzz.target import Target, own_room

KINDS = ("floats", "8 bits", "limited", "windows")
OWN = "0.lime", "1.lime"


@cache
def opened():
    """The models and the options of each kind of file, and the prompt of all."""
    from lime_mlx.kv import DEFAULT, KVOptions

    model, prompt = small_model(head_dim=32), small_prompt(40, 4, 20)
    windows = small_model(head_dim=32, sliding_window=8, use_sliding_window=True, max_window_layers=1)
    options = (
        DEFAULT,
        KVOptions(kv_bits=8, kv_group_size=32, quantized_kv_start=0),
        KVOptions(max_kv_size=38),
        DEFAULT,
    )
    return dict(zip(KINDS, zip((model, model, model, windows), options, strict=True), strict=True)), prompt


def caches() -> list[bytes]:
    from lime_mlx.cache_file import open_with_file

    (kinds, prompt), made = opened(), []
    for kind, (model, options) in kinds.items():
        path = own_room(f"prompt-cache-{kind}") / "made.safetensors"
        open_with_file(model, prompt, (), options, path)
        made.append(path.read_bytes())
    return made


class Caches(Target):
    """Changes what a file says, so that it could still fit, three times of six; else any of its JSON, or any bytes."""

    def drawn(self, choose: Choose) -> bytes:
        seed = self.seeds[choose(len(self.seeds))]
        if not (kind := choose(6)):
            return changed_bytes(seed, self.seeds, choose)
        (length,) = struct.unpack("<Q", seed[:8])
        stored, body = json.loads(seed[8 : 8 + length]), seed[8 + length :]
        metadata = stored["__metadata__"]
        name = next(name for name in OWN if name in metadata)
        if kind == 1:
            text = changed_json(stored, [], choose)
            return struct.pack("<Q", len(text)) + text + body
        own = json.loads(metadata[name])
        if kind == 2:
            metadata[name] = changed_json(own, [], choose).decode()
        else:
            for _ in range(1 + choose(3)):
                fitting(own, stored, choose)
            metadata[name] = json.dumps(own)
            body = body if choose(3) else changed_bytes(body, [], choose, 2)[: len(body)].ljust(len(body), b"\xff")
        text = json.dumps(stored).encode()
        return struct.pack("<Q", len(text)) + text + body


def fitting(own: dict, stored: dict, choose: Choose) -> None:
    """A change that leaves every value of the type that it must have."""
    tokens, kind = own["tokens"], choose(6)
    if kind == 0:
        tokens[choose(len(tokens))] = [0, 1, 5, -1, 2**31, 2**63][choose(6)]
    elif kind == 1:
        del tokens[1 + choose(len(tokens)) :]
    elif kind == 2:
        tokens += tokens[: 1 + choose(len(tokens))]
    elif kind == 3:
        own["max_kv_size"] = [None, 38, 20, 0, -1, 2**40][choose(6)]
    elif kind == 4:
        own["media"] = [own["media"] * 2, [], ["0" * 64], own["media"][::-1]][choose(4)]
    else:
        names = [name for name in stored if name != "__metadata__"]
        one, other = (names[choose(len(names))] for _ in range(2))
        stored[one], stored[other] = stored[other], stored[one]


def try_cache(data: bytes) -> bool:
    """Each kind of session goes on with the file: finite logits of as many positions as the prompt has, or an error."""
    from lime_mlx.cache_file import open_with_file
    from lime_mlx.errors import LimeError

    (kinds, prompt), went_on = opened(), False
    path, refused = own_room("prompt-cache") / "prompt.safetensors", None
    for model, options in kinds.values():
        path.write_bytes(data)
        try:
            session = open_with_file(model, prompt, (), options, path)
        except LimeError as error:
            refused = error
            continue
        assert 0 < session.reused < len(prompt) and session.cache.offset <= len(prompt)
        logits = session.extend()
        assert session.cache.offset == len(prompt) and np.isfinite(np.array(logits.astype(mx.float32))).all()
        went_on = True
    if not went_on and refused is not None and "is no prompt cache that can be read" not in str(refused):
        raise refused
    return went_on


FILES = ("cache_file.py", "entries.py")
PROMPT_CACHES = [Caches("prompt-cache", caches, try_cache, FILES, "bytes", slow=True)]
