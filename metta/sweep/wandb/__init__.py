"""Weights & Biases: the store's mirror there, its sweep files, and the files of its runs.

The mirror is updated in the background, and read back if the store does not have the sweep. `config` decides whether
W&B is used, `records` encodes a trial as a run, and `project` talks to W&B through its client, in a separate process
(`worker`) that `mirror` starts and watches. `training` logs a run outside any sweep. `sweep_file` reads W&B's sweep
configuration, and `run_file` the files of a run on disk.
"""
