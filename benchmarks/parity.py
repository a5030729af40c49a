"""Our logits and greedy tokens against those of transformers, for small random models that take every branch.

    make parity                              # compare; needs torch and transformers
    python benchmarks/parity.py --write      # and store what transformers gives, for tests/test_decoder.py

A fixture is what transformers writes (config.json, the names of the weights) and computes (logits at all positions,
tokens). Weights are multiples of 1/64, exact in float16; those of one name and shape are the same in all cases, so
parity_weights.npz holds them once.
"""

import argparse
import json
import os
import re
import tempfile
import zlib
from pathlib import Path

os.environ.setdefault("MLX_ENABLE_TF32", "0")

import numpy as np

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures"
LENGTH, TOKENS, IMAGE, SIDE = 12, 16, 60, 28
BOUND, MARGIN = 2e-4, 1e-3

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}
QWEN2 = {**LLAMA, "model_type": "qwen2", "num_key_value_heads": 2, "rope_theta": 1e6, "rms_norm_eps": 1e-6}
QWEN3 = {**QWEN2, "model_type": "qwen3", "head_dim": 16}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 14,
}
LLAVA = {"model_type": "llava", "image_token_index": IMAGE, "text_config": LLAMA, "vision_config": CLIP}


def rope(kind: str, **values) -> dict:
    return {**LLAMA, "head_dim": 16, "rope_scaling": {"rope_type": kind, **values}}


def yarn(**values) -> dict:
    return {**LLAMA, "head_dim": 16, "rope_scaling": {**YARN, **values}}


CASES = {
    "llama": LLAMA,
    "llama_gqa_tied": {**LLAMA, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "llama_one_key_head": {**LLAMA, "num_key_value_heads": 1, "hidden_act": "gelu"},
    "llama_biases": {**LLAMA, "num_key_value_heads": 2, "head_dim": 12, "attention_bias": True, "mlp_bias": True},
    "llama_rope_linear": rope("linear", factor=2.5),
    "llama_rope_linear_old": {**LLAMA, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama_rope_llama3": rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
    ),
    "llama_rope_llama3_short": rope("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0),
    "llama_rope_yarn": yarn(),
    "llama_rope_yarn_betas": yarn(beta_fast=2.0, beta_slow=0.5, original_max_position_embeddings=32),
    "llama_rope_yarn_attention_factor": yarn(attention_factor=0.8),
    "llama_rope_yarn_mscales": yarn(mscale=1.2, mscale_all_dim=0.7),
    "llama_rope_yarn_mscale_alone": yarn(mscale=0.707),
    "llama_rope_yarn_mscale_all_dim_alone": yarn(mscale_all_dim=1.0),
    "llama_rope_yarn_short": rope("yarn", factor=2.0),
    "qwen2": QWEN2,
    "qwen2_tied_yarn": {
        **QWEN2,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "sliding_window": 8,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    },
    "qwen3": QWEN3,
    "qwen3_tied_bias": {**QWEN3, "tie_word_embeddings": True, "attention_bias": True, "num_key_value_heads": 4},
    "llava": LLAVA,
    "llava_two_pictures": {**LLAVA, "vision_config": {**CLIP, "hidden_act": "gelu"}},
    "llava_layers": {**LLAVA, "vision_feature_layer": [-2, -1]},
    "llava_layers_full": {**LLAVA, "vision_feature_layer": [0, 2, -1], "vision_feature_select_strategy": "full"},
    "llava_first_layer": {**LLAVA, "vision_feature_layer": 1, "projector_hidden_act": "gelu_pytorch_tanh"},
    "llava_full": {**LLAVA, "vision_feature_select_strategy": "full"},
    "llava_no_bias": {**LLAVA, "multimodal_projector_bias": False, "vision_config": {**CLIP, "image_size": 31}},
    "llava_qwen2": {**LLAVA, "text_config": {**QWEN2, "tie_word_embeddings": True}},
    "llava_qwen3_yarn": {**LLAVA, "text_config": {**QWEN3, "rope_scaling": YARN}},
    "llava_sparse": {
        "model_type": "llava",
        "image_token_index": IMAGE,
        "text_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 64,
        },
        "vision_config": {
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "image_size": 64,
            "layer_norm_eps": 1e-4,
        },
    },
}
# What an empty or sparse part of config.json means, as far as it can be seen in the weights or the forward.
SPARSE = {
    "llama": {"model_type": "llama"},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3"},
    "llava": {"model_type": "llava"},
    "llava_hub": {
        "model_type": "llava",
        "text_config": {
            "model_type": "llama",
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-05,
            "vocab_size": 32064,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
        },
    },
    "llava_half_a_tower": {"model_type": "llava", "vision_config": {"hidden_size": 1536, "patch_size": 16}},
    "llava_empty_tower": {"model_type": "llava", "vision_config": {}},
    "llava_qwen3": {"model_type": "llava", "text_config": {"model_type": "qwen3", "hidden_size": 2560}},
}


def key(name: str, shape: tuple) -> str:
    """A weight under any spelling of its name."""
    bare = re.sub(r"^((language_)?model\.)+|(?<=vision_tower\.)vision_model\.", "", name)
    return " ".join([bare, *map(str, shape)])


def draw(name: str, shape: tuple) -> np.ndarray:
    """Around 1 for norms, else with deviation 0.2; 0.5 for embeddings and the head, where the image token is 0."""
    noise = np.random.default_rng(zlib.crc32(key(name, shape).encode())).standard_normal(shape)
    table = "embed_tokens" in name or "lm_head" in name
    norm = "norm" in name.split(".")[-2] and name.endswith("weight")
    values = np.round(64 * (1 + 0.1 * noise if norm else (0.5 if table else 0.2) * noise)) / 64
    if table:
        values[IMAGE] = 0
    return values.astype(np.float32)


def reference(name: str, config: dict, folder: Path, pool: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The fixture of a case: what transformers saves and computes. Adds the weights to `pool`."""
    import torch
    from safetensors.numpy import load_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    (folder / "config.json").write_text(json.dumps(config))
    kind = AutoModelForImageTextToText if config["model_type"] == "llava" else AutoModelForCausalLM
    settings = AutoConfig.from_pretrained(folder)
    model = kind.from_config(settings, attn_implementation="eager").eval()
    with torch.no_grad():
        for path, weight in model.named_parameters():
            weight.copy_(torch.from_numpy(draw(path, tuple(weight.shape))))
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    keys = {path: key(path, weight.shape) for path, weight in weights.items()}
    for path, weight in weights.items():
        stored = pool.setdefault(keys[path], weight.astype(np.float16))
        assert np.array_equal(stored, weight), path

    rng = np.random.default_rng(0)
    ids, inputs = rng.integers(3, IMAGE, LENGTH), {}
    if config["model_type"] == "llava":
        vision = settings.vision_config
        pictures = 2 if "two_pictures" in name else 1
        places = (vision.image_size // vision.patch_size) ** 2 + (settings.vision_feature_select_strategy == "full")
        for picture in range(pictures):
            ids = np.insert(ids, 2 + picture * (places + 3), [IMAGE] * places)
        shape = (pictures, 3, vision.image_size, vision.image_size)
        inputs["pixel_values"] = torch.tensor(np.round(16 * rng.standard_normal(shape)) / 16, dtype=torch.float32)

    said, logits, prompt = [], None, torch.tensor(ids)[None]
    for _ in range(TOKENS):  # without a cache
        with torch.no_grad():
            found = model(prompt, **inputs).logits[0]
        logits = found if logits is None else logits
        best, second = found[-1].topk(2).values
        assert best - second > MARGIN, f"{name}: two tokens are too near to tell them apart"
        said.append(int(found[-1].argmax()))
        prompt = torch.cat([prompt, torch.tensor([said[-1:]])], dim=1)
    return {
        "config": np.array(json.dumps(config)),
        "saved_config": np.array((folder / "config.json").read_text()),
        "input_ids": ids,
        **{what: value.numpy().astype(np.float16) for what, value in inputs.items()},
        "logits": logits.numpy(),
        "tokens": np.array(said),
        "weights": np.array(json.dumps(keys)),
    }


def ours(fixture: dict, config: str, folder: Path, pool: dict) -> tuple[np.ndarray, list[int]]:
    """Logits at all positions, and greedy tokens with the cache, of the same checkpoint."""
    import mlx.core as mx

    from lime_mlx import Prompt, backend, decode, load_model

    backend.load_blas()
    weights = {path: mx.array(pool[k].astype(np.float32)) for path, k in json.loads(str(fixture["weights"])).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(config)
    model = load_model(folder)
    prompt = Prompt(fixture["input_ids"], {k: v.astype(np.float32) for k, v in fixture.items() if k == "pixel_values"})
    return np.array(model.logits(prompt)), [step.token for step in decode(model, prompt, "none", TOKENS)]


def sparse(config: dict, folder: Path) -> dict[str, dict]:
    """What transformers reads in a config.json that leaves things out."""
    from transformers import AutoConfig

    (folder / "config.json").write_text(json.dumps(config))
    whole = AutoConfig.from_pretrained(folder)
    text = whole.get_text_config()
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
    found = {
        "config": config,
        "text": {
            **{name: getattr(text, name) for name in [*names, "rms_norm_eps", "hidden_act", "max_position_embeddings"]},
            "tie_word_embeddings": text.tie_word_embeddings,
            "rope_theta": text.rope_parameters["rope_theta"],
            "key_heads": text.num_key_value_heads,
            "dim": getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        },
    }
    if hasattr(whole, "vision_config"):
        extra = ["num_channels", "image_size", "patch_size", "hidden_act", "layer_norm_eps"]
        found["vision"] = {name: getattr(whole.vision_config, name) for name in [*names[:4], *extra]}
        found["image_token"] = whole.image_token_index
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="store the fixtures in tests/fixtures/")
    arguments, worst, pool = parser.parse_args(), {}, {}
    for name, config in CASES.items():
        with tempfile.TemporaryDirectory() as place:
            fixture = reference(name, config, Path(place), pool)
        for spelling in ("config", "saved_config"):
            try:
                with tempfile.TemporaryDirectory() as place:
                    logits, tokens = ours(fixture, str(fixture[spelling]), Path(place), pool)
            except Exception as error:  # the other cases are still of interest
                print(f"{name:40} {spelling:13} {type(error).__name__}: {error}")
                worst[name] = np.inf
                continue
            distance = np.linalg.norm(logits - fixture["logits"]) / np.linalg.norm(fixture["logits"])
            same = tokens == fixture["tokens"].tolist()
            worst[name] = max(worst.get(name, 0), distance if same else np.inf)
            print(f"{name:40} {spelling:13} {distance:.1e} {'same tokens' if same else 'OTHER TOKENS'}")
        if arguments.write:
            FIXTURES.mkdir(exist_ok=True)
            np.savez_compressed(FIXTURES / f"parity_{name}.npz", **fixture)
    if arguments.write:
        np.savez_compressed(FIXTURES / "parity_weights.npz", **pool)
        with tempfile.TemporaryDirectory() as place:
            content = {name: sparse(config, Path(place)) for name, config in SPARSE.items()}
        (FIXTURES / "parity_sparse.json").write_text(json.dumps(content, indent=1) + "\n")
    failed = [name for name, distance in worst.items() if not distance < BOUND]
    print(f"{len(worst) - len(failed)} of {len(worst)} agree within {BOUND:g}")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
