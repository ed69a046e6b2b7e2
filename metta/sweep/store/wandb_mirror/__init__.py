"""Weights & Biases as a mirror of the store: sent to in the background, and read back where the store has nothing.

`config` says whether W&B is used, `records` how a trial is written as a run, `project` talks to W&B through its client,
in a process of its own (`worker`) that `mirror` starts and watches. `training` logs a run that no sweep records.
"""
