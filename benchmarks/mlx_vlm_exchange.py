"""Checkpoints of ours in mlx-vlm, and of mlx-vlm in ours: the tiny ones of tests/families, float and 4-bit.

    python benchmarks/mlx_vlm_exchange.py --python VENV/bin/python      # an environment with mlx-vlm

For every case: hub -> lime_mlx.convert -> mlx-vlm, and hub -> mlx-vlm (load, quantise, save_weights, save_config) ->
lime_mlx. Numbers are relative distances of the logits: of mlx-vlm on our checkpoint from mlx-vlm on its own of the same
source, of ours on theirs from ours on our own, and of mlx-vlm from ours on one checkpoint, where the definitions of a
family differ. "own" says that mlx-vlm cannot read its own conversion of the case, "no" that it cannot read ours.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("MLX_ENABLE_TF32", "0")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np  # noqa: E402
from families import FAMILY_OF, MODULES  # noqa: E402
from helpers import fixture, parity_checkpoint, prompt_of  # noqa: E402

from lime_mlx import load_model  # noqa: E402
from lime_mlx.convert import convert  # noqa: E402
from lime_mlx.errors import LimeError  # noqa: E402

GROUP, BITS = 32, 4
THEIRS = """
import json, sys
from pathlib import Path
import mlx.core as mx, mlx.nn as nn, numpy as np
from mlx_vlm.utils import load_config, load_model, save_config, save_weights, skip_multimodal_module
task, folder, second, out = sys.argv[1:]
model = load_model(Path(folder))
if task == "save":
    config = load_config(Path(folder))
    if out:
        fits = lambda p, m: hasattr(m, "to_quantized") and m.weight.shape[-1] % 32 == 0
        choose = lambda p, m: fits(p, m) and not skip_multimodal_module(p)
        nn.quantize(model, 32, 4, class_predicate=choose)
        config["quantization"] = config["quantization_config"] = {"group_size": 32, "bits": 4, "mode": "affine"}
    save_weights(second, model)
    save_config(config, Path(second) / "config.json")
else:
    given = dict(np.load(second))
    ids = mx.array(given.pop("input_ids"))[None]
    media = {k: mx.array(v.astype(np.float32) if v.dtype.kind == "f" else v) for k, v in given.items()}
    output = model(ids, media.pop("pixel_values", None), mask=mx.ones_like(ids), **media)
    np.save(out, np.array(output.logits[0].astype(mx.float32)))
"""


def theirs(python: str, task: str, folder: Path, second: Path, out: str = "") -> str | None:
    """Run mlx-vlm; the last line of its error, None when it went well."""
    command = [python, "-c", THEIRS, task, str(folder), str(second), out]
    done = subprocess.run(command, capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["?"])[-1]


def their_logits(python: str, folder: Path, inputs: Path) -> np.ndarray | str:
    out = inputs.with_name("logits.npy")
    problem = theirs(python, "logits", folder, inputs, str(out))
    return problem or np.load(out)


def far(a, b) -> str:
    if isinstance(a, str) or isinstance(b, str):
        return "own" if isinstance(b, str) else "no"
    return f"{np.linalg.norm(a - b) / np.linalg.norm(b):.1e}" if a.shape == b.shape else "shape"


def complete(path: Path, case: str) -> None:
    """What mlx-vlm wants to be told, though transformers knows it without, and where mlx-vlm looks for it."""
    whole, written = (json.loads(str(fixture(case)[kind])) for kind in ("saved_config", "config"))
    for key, value in written.items():
        whole[key] = {**whole[key], **value} if isinstance(value, dict) and isinstance(whole.get(key), dict) else value
    text, vision = whole.get("text_config", {}), whole.get("vision_config", {})
    if "mm_tokens_per_image" in whole:
        text["mm_tokens_per_image"] = whole["mm_tokens_per_image"]
    if whole["model_type"].startswith("qwen"):
        whole = {**text, **whole}
        vision["model_type"] = whole["model_type"]
        text["rope_scaling"] = whole["rope_scaling"] = text.get("rope_scaling") or whole.get("rope_scaling")
    path.write_text(json.dumps(whole))


def exchange(case: str, family, python: str, home: Path) -> list[str]:
    spellings = getattr(family, "SPELLINGS", {})
    (home / "hub").mkdir()
    hub = parity_checkpoint(case, home / "hub", "hub" if "hub" in spellings else "transformers")
    complete(hub / "config.json", case)
    prompt, inputs = prompt_of(fixture(case)), home / "inputs.npz"
    arrays: dict[str, Any] = {"input_ids": prompt.input_ids, **prompt.media}
    np.savez(inputs, **arrays)
    cells = []
    for packed in (False, True):
        mine, other = home / f"mine{packed}", home / f"theirs{packed}"
        options: dict[str, Any] = {"quantize": True, "q_bits": BITS, "q_group_size": GROUP} if packed else {}
        convert(hub, mine, compare_logits=False, **options)
        other.mkdir()
        problem = theirs(python, "save", hub, other, "packed" if packed else "")
        if problem:
            print(f"  {case}: mlx-vlm does not read the hub's form, so it gets our float: {problem}", file=sys.stderr)
            problem = theirs(python, "save", home / "mineFalse", other, "packed" if packed else "")
        theirs_on_theirs = their_logits(python, other, inputs) if problem is None else problem
        theirs_on_ours = their_logits(python, mine, inputs)
        if isinstance(theirs_on_ours, str):
            print(f"  {case}: mlx-vlm on ours: {theirs_on_ours}", file=sys.stderr)
        ours_on_ours = np.array(load_model(mine).logits(prompt))
        try:
            ours_on_theirs = np.array(load_model(other).logits(prompt)) if problem is None else problem
        except LimeError as error:
            print(f"  {case}: ours on theirs: {error}", file=sys.stderr)
            ours_on_theirs = str(error)
        cells += [
            far(theirs_on_ours, theirs_on_theirs),
            far(ours_on_theirs, ours_on_ours),
            far(theirs_on_ours, ours_on_ours),
        ]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="of an environment with mlx-vlm")
    parser.add_argument("cases", nargs="*")
    arguments = parser.parse_args()
    head = [
        "case",
        *(f"{what}, {kind}" for kind in ("float", "4-bit") for what in ("ours there", "theirs here", "there - here")),
    ]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    firsts = {next(iter(family.CASES)): family for family in MODULES.values()}
    for case in arguments.cases or firsts:
        family = FAMILY_OF[case]
        kind = json.loads(str(fixture(case)["config"]))["model_type"]
        with tempfile.TemporaryDirectory() as home:
            cells = exchange(case, family, arguments.python, Path(home))
        print("| " + " | ".join([f"{case} ({kind})" if kind != case else case, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
