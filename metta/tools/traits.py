"""What the training Tools say of themselves to a sweep. Light, because it is read with sweeps of any time."""

from __future__ import annotations

from metta.sweep.traits import ToolTraits

TRAINING = ToolTraits(
    seed_path="trainer.seed",
    retrain="metta.tools.sweep.retrain",
    progress="reward",
    speed="steps_per_second",
    counters=("agent_steps", "steps_per_second", "updates"),
    step_notes={"trainer.batch_size": "a run ends with a whole batch"},
)
"""Of any `TrainingTool`."""

IN_GAMES = TRAINING.model_copy(update={"details": {".gained": "per agent gained"}})
"""Of a `TrainTool`: games of mettagrid count what each agent gains."""

TRAITS = {"metta.tools.train:TrainTool": IN_GAMES, "metta.tools.gymnasium:GymnasiumTool": TRAINING}
"""By tool class, for sweeps that were stored before traits were; see `metta.sweep.traits`."""
