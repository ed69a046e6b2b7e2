"""Weights & Biases: the store's mirror there, its sweep files, and the files of its runs.

The mirror is sent to in the background, and read back where the store has nothing. `config` says whether W&B is used,
`records` how a trial is written as a run, `project` talks to W&B through its client, in a process of its own (`worker`)
that `mirror` starts and watches. `training` logs a run that no sweep records. `sweep_file` reads W&B's sweep
configuration, and `run_file` the summary of a run on disk.
"""
