"""The traits of the training Tools. This module imports no training code, because it is needed to read old sweeps."""

from __future__ import annotations

from metta.sweep.traits import ToolTraits

TRAINING = ToolTraits(
    seed_path="trainer.seed",
    retrain="metta.tools.sweep.retrain",
    progress="reward",
    progress_goal="maximize",
    speed="steps_per_second",
    counters=("agent_steps", "seconds", "steps_per_second", "updates"),
    step_notes={"trainer.batch_size": "a run ends with a whole batch"},
)
"""Traits of any `TrainingTool`."""

IN_GAMES = TRAINING.model_copy(
    update={"score_note": "in {score} per agent", "details": {".gained": "per agent gained"}}
)
"""Traits of a `TrainTool`: games of mettagrid count what each agent gains."""

TRAITS = {"metta.tools.train:TrainTool": IN_GAMES, "metta.tools.gymnasium:GymnasiumTool": TRAINING}
"""By tool class, for sweeps that were stored before traits existed; see `metta.sweep.traits`."""
