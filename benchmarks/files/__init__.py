"""How many sweep files of W&B, as people have them, are read; see `benchmarks.files.__main__`."""
