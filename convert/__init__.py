"""Checkpoints of Hugging Face to MLX: convert, quantise, describe, upload."""
