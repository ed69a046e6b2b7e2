"""Counts how many real sweep files of W&B can be read; see `benchmarks.files.__main__`."""
