"""A sweep that never ran: as many plausible trials as one likes, within seconds, for looking at.

uv run python -m tests.support.made_sweep sqlite:////tmp/made.db made 5000
"""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from metta.sweep.definition import SweepDefinition
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.store import open_store
from metta.sweep.store.protocol import CurvePoint, Store, SweepRecord, TrialHistory
from metta.sweep.trial import Trial, TrialState

LEARNING_RATE = "trainer.optimizer.learning_rate"
TOTAL_TIMESTEPS = 400_000
START = datetime(2026, 1, 1, 22, 0, tzinfo=UTC)
ERROR = """Traceback (most recent call last):
  File "metta/rl/trainer.py", line 210, in train
    raise TrainingDiverged(f"the loss is {{loss}} <b>after</b> [bold]{{updates}}[/bold] updates")
metta.rl.trainer.TrainingDiverged: the loss is nan <b>after</b> [bold]{updates}[/bold] updates: trainer.optimizer.\
learning_rate={learning_rate!r} may be too large
"""


def made_definition(num_trials: int, **changes: Any) -> SweepDefinition:
    """The definition of a sweep of PPO on an arena."""
    parameters = {
        LEARNING_RATE: ParameterConfig(min=1e-5, max=1e-2, distribution="log_normal"),
        "trainer.ppo.clip_coef": ParameterConfig(min=0.05, max=0.3, distribution="uniform"),
        "trainer.ppo.ent_coef": ParameterConfig(min=1e-4, max=1e-2, distribution="log_normal"),
        "trainer.ppo.gae_lambda": ParameterConfig(min=0.8, max=0.99, distribution="uniform"),
        "trainer.batch_size": ParameterConfig(min=4096, max=32768, distribution="int_uniform"),
        "trainer.optimizer.type": ParameterConfig(choices=["adam", "muon"], distribution="categorical"),
    }
    tool = {
        "run_name": "made",
        "trainer": {
            "total_timesteps": TOTAL_TIMESTEPS,
            "batch_size": 16384,
            "optimizer": {"learning_rate": 1e-3, "type": "adam"},
            "ppo": {"clip_coef": 0.2, "ent_coef": 1e-3, "gae_lambda": 0.95},
        },
    }
    definition = SweepDefinition(
        protein=ProteinConfig(metric="arena", parameters=parameters),
        num_trials=num_trials,
        seed=1,
        simulations={"arena/basic": {}, "arena/combat": {}},
        tool_class="metta.tools.train:TrainTool",
        tool=tool,
    )
    return definition.model_copy(update=changes)


def make_sweep(
    store: Store, name: str, num_trials: int, *, seed: int = 0, curve_points: int = 20, planned: int | None = None
) -> SweepDefinition:
    """Put a sweep of `num_trials` ended trials into the store, the later ones nearer to the best hyperparameters.

    About one in thirty failed, and one in fifty was pruned. Scores are noisy; costs grow with small batches.

    Args:
        store: where to.
        name: of the sweep.
        num_trials: trials that ended.
        seed: of all draws.
        curve_points: points of each learning curve.
        planned: `num_trials` of the sweep, where it has not ended yet.
    """
    generator = np.random.default_rng(seed)
    definition = made_definition(planned or num_trials)
    entry_point = {"path": "experiments.sweep_arena.sweep_optimizer", "args": {"sweep_name": name}, "overrides": {}}
    histories, now = [], START
    for number in range(num_trials):
        history = _history(generator, number, num_trials, now, curve_points)
        histories.append(history)
        now = history.trial.ended_at or now
    store.import_sweep(SweepRecord(name, definition.model_dump(mode="json"), entry_point, START), histories)
    return definition


def _history(generator: np.random.Generator, number: int, count: int, start: datetime, points: int) -> TrialHistory:
    params, predicted = _params(generator, number, count), generator.normal(0, 0.15)
    score, cost = _truth(params)
    learning_rate = params[LEARNING_RATE]
    fails = generator.random() < 0.02 or (learning_rate > 6e-3 and generator.random() < 0.3)
    pruned = not fails and generator.random() < 0.02
    done = generator.uniform(0.05, 0.6) if fails or pruned else 1.0
    cost *= done * math.exp(generator.normal(0, 0.08))
    score += generator.normal(0, 0.15)
    curve = [_point(generator, share * done, score, cost * share) for share in np.linspace(1 / points, 1, points)]
    state = TrialState.FAILED if fails else TrialState.PRUNED if pruned else TrialState.COMPLETED
    error = ERROR.format(updates=int(30 * done) + 1, learning_rate=learning_rate) if fails else None
    trial = Trial(
        number=number,
        state=state,
        params=params,
        suggestion=_suggestion(number, score + predicted, cost / done),
        attempts=2 if generator.random() < 0.02 else 1,
        score=score if state is TrialState.COMPLETED else None,
        cost=cost,
        metrics=_metrics(generator, score, cost) if state is TrialState.COMPLETED else dict(curve[-1].metrics),
        artefacts={} if fails else {"policy": f"file:///data/sweeps/made/trial_{number:04d}/policy.safetensors"},
        error=error,
        created_at=start,
        started_at=start,
        ended_at=start + timedelta(seconds=cost + 1.5),
    )
    return TrialHistory(trial, [CurvePoint(trial.attempts, p.step, p.seconds, p.metrics) for p in curve])


def _params(generator: np.random.Generator, number: int, count: int) -> dict[str, Any]:
    """Everywhere at first, and then ever closer to what is best."""
    width = 1.0 if number < 9 else max(0.12, 0.6 * (1 - number / count))
    best = np.array([0.72, 0.4, 0.3, 0.75, 0.35])
    place = generator.random(5) if width == 1.0 else np.clip(best + width * generator.normal(0, 0.5, 5), 0, 1)
    return {
        LEARNING_RATE: float(1e-5 * 1e3 ** place[0]),
        "trainer.ppo.clip_coef": float(0.05 + 0.25 * place[1]),
        "trainer.ppo.ent_coef": float(1e-4 * 1e2 ** place[2]),
        "trainer.ppo.gae_lambda": float(0.8 + 0.19 * place[3]),
        "trainer.batch_size": round(4096 + 28672 * place[4]),
        "trainer.optimizer.type": "muon" if generator.random() < 0.7 else "adam",
    }


def _truth(params: dict[str, Any]) -> tuple[float, float]:
    """The score that these hyperparameters are worth, and the seconds that they take."""
    rate = math.log10(params[LEARNING_RATE] / 1.5e-3)
    entropy = math.log10(params["trainer.ppo.ent_coef"] / 4e-4)
    score = 3.2 * math.exp(-1.1 * rate**2) * (1 - 0.12 * entropy**2)
    score *= 1 - 2.5 * (params["trainer.ppo.gae_lambda"] - 0.94) ** 2 / 0.04
    score += 0.25 if params["trainer.optimizer.type"] == "muon" else 0.0
    score += 0.2 * math.log2(16384 / params["trainer.batch_size"])
    return max(score, 0.0), 24.0 + 60.0 * 4096 / params["trainer.batch_size"]


def _suggestion(number: int, score: float, cost: float) -> dict[str, Any]:
    if number < 9:
        return {"number": number, "source": "search centre" if number == 0 else "random"}
    return {
        "number": number,
        "source": "model",
        "score": score,
        "score_std": 0.15,
        "cost": cost,
        "success": 0.97,
        "acquisition": -1.5,
        "pareto_point": number - 1,
    }


def _point(generator: np.random.Generator, share: float, score: float, seconds: float) -> CurvePoint:
    reward = score * (1 - math.exp(-4 * share)) + generator.normal(0, 0.05)
    step = int(TOTAL_TIMESTEPS * share)
    metrics = {"reward": reward, "steps_per_second": step / seconds, "loss": 0.5 * math.exp(-2 * share)}
    return CurvePoint(1, step, seconds, metrics)


def _metrics(generator: np.random.Generator, score: float, cost: float) -> dict[str, float]:
    basic = score + generator.normal(0, 0.1)
    return {
        "arena": score,
        "arena/basic": basic,
        "arena/combat": 2 * score - basic,
        "arena/basic/heart.gained": basic,
        "arena/basic/ore_red.gained": 3.1 * max(score, 0.0) + 0.2,
        "arena/basic/battery_red.gained": 1.9 * max(score, 0.0) + 0.1,
        "reward": score + generator.normal(0, 0.1),
        "agent_steps": float(TOTAL_TIMESTEPS),
        "seconds": cost,
        "steps_per_second": TOTAL_TIMESTEPS / cost,
    }


if __name__ == "__main__":
    make_sweep(open_store(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
