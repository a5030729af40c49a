"""Text-only checkpoints (llama, mistral, qwen2, qwen3, gemma3_text): the decoder alone."""

from lime_mlx.files import Json

from .base import Model
from .config import DecoderConfig
from .decoder import Decoder


class Text(Model):
    renames = ((r"^(model|lm_head)\.", r"language_model.\1."),)
    published = ((r"^language_model\.", ""),)

    def __init__(self, config: Json) -> None:
        super().__init__(config)
        self.language_model = Decoder(DecoderConfig.from_dict(config))

    @classmethod
    def text(cls, config: Json) -> Json:
        return config
