"""One HTML file of a run of `lime-mlx evaluate`: which model and method to trust, and what that rests on."""

from .page import write_report

__all__ = ["write_report"]
