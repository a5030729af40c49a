"""Our logits and greedy tokens against those of transformers, for small random models that take every branch.

    make parity                              # compare; needs torch and transformers
    python benchmarks/parity.py --write      # and store what transformers gives, for tests/test_parity.py
    python benchmarks/parity.py qwen2_vl     # these families only (the modules of tests/families)

A fixture is what transformers writes (config.json, names and shapes of the weights) and computes (logits at all
positions, tokens). The weights themselves are drawn from their names.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("MLX_ENABLE_TF32", "0")
TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))

import numpy as np  # noqa: E402
from drawn import SPECIAL, draw  # noqa: E402
from families import MODULES  # noqa: E402

FIXTURES = TESTS / "fixtures"
LENGTH, TOKENS = 12, 16
BOUND, MARGIN = 2e-4, 1e-3


def reference(name: str, family, config: dict, folder: Path) -> dict[str, np.ndarray]:
    """The fixture of a case: what transformers saves and computes."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    (folder / "config.json").write_text(json.dumps(config))
    architecture = getattr(transformers, family.ARCHITECTURE)
    settings = getattr(architecture, "config_class", None) or transformers.AutoConfig
    build = getattr(architecture, "_from_config", None) or architecture.from_config
    model = build(settings.from_pretrained(folder), attn_implementation="eager").eval()
    with torch.no_grad():
        for path, weight in model.named_parameters():
            weight.copy_(torch.from_numpy(draw(path, tuple(weight.shape))))
    model.config.save_pretrained(folder)

    rng = np.random.default_rng(0)
    ids, media = rng.integers(3, SPECIAL.start, LENGTH), {}
    if hasattr(family, "inputs"):
        ids, media = family.inputs(name, config, ids, rng)
    media = {what: np.asarray(value) for what, value in media.items()}
    tensors = {
        what: torch.tensor(value, dtype=torch.float32 if value.dtype.kind == "f" else None)
        for what, value in media.items()
    }
    more = getattr(family, "reference_inputs", None)

    tokens: list[int] = []
    first, prompt = None, ids
    for _ in range(TOKENS):  # without a cache
        extra = {what: torch.tensor(value)[None] for what, value in (more(prompt) if more else {}).items()}
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(prompt)[None], **tensors, **extra, use_cache=False).logits[0]
        first = logits if first is None else first
        best, second = logits[-1].topk(2).values
        assert best - second > MARGIN, f"{name}: two tokens are too near to tell them apart"
        tokens.append(int(logits[-1].argmax()))
        prompt = np.append(prompt, tokens[-1])
    assert first is not None
    return {
        "config": np.array(json.dumps(config)),
        "saved_config": np.array((folder / "config.json").read_text()),
        "weights": np.array(json.dumps({path: list(weight.shape) for path, weight in model.named_parameters()})),
        "input_ids": ids,
        **{f"media.{what}": v.astype(np.float16) if v.dtype.kind == "f" else v for what, v in media.items()},
        "logits": first.numpy(),
        "tokens": np.array(tokens),
    }


def ours(fixture: dict, config: str, folder: Path) -> tuple[np.ndarray, list[int]]:
    """Logits at all positions, and greedy tokens with the cache, of the same checkpoint."""
    import mlx.core as mx
    from helpers import prompt_of

    from lime_mlx import blas, decode, load_model

    blas.load_blas()
    weights = {path: mx.array(draw(path, tuple(shape))) for path, shape in json.loads(str(fixture["weights"])).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(config)
    model = load_model(folder)
    prompt = prompt_of(fixture)
    return np.array(model.logits(prompt)), [step.token for step in decode(model, prompt, "none", TOKENS)]


def sparse(family, config: dict, folder: Path) -> dict[str, dict]:
    """What transformers reads in a config.json that leaves things out."""
    from transformers import AutoConfig

    (folder / "config.json").write_text(json.dumps(config))
    whole = AutoConfig.from_pretrained(folder)
    text = whole.get_text_config()
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
    read = {
        "config": config,
        "text": {
            **{name: getattr(text, name) for name in [*names, "rms_norm_eps", "max_position_embeddings"]},
            "hidden_act": getattr(text, "hidden_act", None) or text.hidden_activation,
            "tie_word_embeddings": getattr(text, "tie_word_embeddings", getattr(whole, "tie_word_embeddings", False)),
            "rope_theta": text.rope_parameters.get("full_attention", text.rope_parameters)["rope_theta"],
            "key_heads": text.num_key_value_heads,
            "dim": getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        },
    }
    if config["model_type"] in ("llava", "llava_next"):
        extra = ["num_channels", "image_size", "patch_size", "hidden_act", "layer_norm_eps"]
        read["vision"] = {name: getattr(whole.vision_config, name) for name in [*names[:4], *extra]}
        read["image_token"] = whole.image_token_index
    if hasattr(family, "TOWER"):
        read["vision"] = {ours: getattr(whole.vision_config, theirs) for ours, theirs in family.TOWER.items()}
        read["image_token"] = whole.image_token_id
    if hasattr(family, "AUDIO_TOWER"):
        read["audio"] = {name: getattr(whole.audio_config, name) for name in family.AUDIO_TOWER}
        read["audio_token"] = whole.audio_token_id
    return read


def compare(name: str, family, write: bool) -> float:
    """Largest relative L2 distance of the logits over the spellings of config.json; inf where tokens differ."""
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        fixture: dict[str, Any] = reference(name, family, family.CASES[name], Path(folder))
    for spelling in ("config", "saved_config"):
        try:
            with tempfile.TemporaryDirectory() as folder:
                logits, tokens = ours(fixture, str(fixture[spelling]), Path(folder))
        except Exception as error:  # the other cases are still of interest
            print(f"{name:40} {spelling:13} {type(error).__name__}: {error}")
            worst = np.inf
            continue
        distance = np.linalg.norm(logits - fixture["logits"]) / np.linalg.norm(fixture["logits"])
        same = tokens == fixture["tokens"].tolist()
        worst = max(worst, float(distance) if same else np.inf)
        print(f"{name:40} {spelling:13} {distance:.1e} {'same tokens' if same else 'OTHER TOKENS'}", flush=True)
    if write:
        FIXTURES.mkdir(exist_ok=True)
        np.savez_compressed(FIXTURES / f"parity_{name}.npz", **fixture)
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "family", nargs="*", choices=[[], *MODULES], help="modules of tests/families; all when left out"
    )
    parser.add_argument("--write", action="store_true", help="store the fixtures in tests/fixtures/")
    arguments = parser.parse_args()
    worst: dict[str, float] = {}
    content: dict[str, dict] = {}
    for family in (MODULES[name] for name in arguments.family or MODULES):
        worst |= {name: compare(name, family, arguments.write) for name in family.CASES}
        with tempfile.TemporaryDirectory() as folder:
            for name, config in getattr(family, "SPARSE", {}).items():
                content[name] = sparse(family, config, Path(folder))
    if arguments.write and content:
        path = FIXTURES / "parity_sparse.json"
        content = {**(json.loads(path.read_text()) if path.exists() else {}), **content}
        path.write_text(json.dumps(content, indent=1) + "\n")
    failed = [name for name, distance in worst.items() if not distance < BOUND]
    print(f"{len(worst) - len(failed)} of {len(worst)} agree within {BOUND:g}")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
