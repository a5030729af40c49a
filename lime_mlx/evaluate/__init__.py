"""Scores of the public hallucination benchmarks, from stored answers: no model and no download is needed."""
