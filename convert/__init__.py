"""Checkpoints of Hugging Face to MLX: convert, quantise, describe, upload."""

from .inspect import Inspection, inspect
from .pipeline import Report, convert
from .upload import upload

__all__ = ["Inspection", "Report", "convert", "inspect", "upload"]
