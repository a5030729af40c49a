"""Files that hold the cache of a prompt: what they say of themselves, their arrays and their bytes, changed."""

import json
import struct
from functools import cache
from importlib.util import find_spec

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
    """Changes what a file says of itself half of the time, else the rest of its header, or any bytes."""

    def drawn(self, choose: Choose) -> bytes:
        seed = self.seeds[choose(len(self.seeds))]
        if not (kind := choose(4)):
            return changed_bytes(seed, self.seeds, choose)
        (length,) = struct.unpack("<Q", seed[:8])
        stored = json.loads(seed[8 : 8 + length])
        metadata = stored["__metadata__"]
        if kind > 1:
            name = next(name for name in OWN if name in metadata)
            metadata[name] = changed_json(json.loads(metadata[name]), [], choose).decode()
            text = json.dumps(stored).encode()
        else:
            text = changed_json(stored, [], choose)
        return struct.pack("<Q", len(text)) + text + seed[8 + length :]


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
# While the package has no such files, there is nothing to try.
PROMPT_CACHES = (
    [Caches("prompt-cache", caches, try_cache, FILES, "bytes", slow=True)] if find_spec("lime_mlx.cache_file") else []
)
