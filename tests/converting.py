"""What the tests of conversion share."""

import json
from pathlib import Path

from checkpoints import LLAVA, random_weights, tf5, write, write_tokenizer


def picture_source(folder: Path) -> Path:
    """A picture model in the spelling of transformers 5, in two files, with its tokenizer, a card and a pickle."""
    write(folder, LLAVA, tf5(random_weights(LLAVA)), shards=2)
    write_tokenizer(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 28, "crop_size": 28}))
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [tiny]\n---\n# Source\n")
    (folder / "training_args.bin").write_bytes(b"pickle")
    return folder
