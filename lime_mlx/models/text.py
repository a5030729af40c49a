"""Text-only checkpoints (llama, qwen2, qwen3): the decoder alone."""

from typing import Any

from .base import Model
from .decoder import Decoder, DecoderConfig


class Text(Model):
    renames = ((r"^(model|lm_head)\.", r"language_model.\1."),)
    published = ((r"^language_model\.", ""),)

    def __init__(self, config: dict[str, Any]):
        super().__init__(config)
        self.language_model = Decoder(DecoderConfig.from_dict(config))
