from pathlib import Path

import pytest

from experiments import arena, navigation
from metta.common.errors import UserError
from metta.rl import checkpoint
from metta.rl.adam import Adam
from metta.rl.checkpoint import load_policy
from metta.rl.environment import EnvironmentSpec
from metta.rl.trainer_config import OptimizerConfig, PolicyConfig
from metta.sim.evaluate import evaluate
from metta.sim.simulation_config import SimulationConfig
from metta.tools.sim import SimTool

ENV = arena.make_env(num_agents=4, max_steps=20)
SIMULATIONS = [SimulationConfig(name=f"arena/{name}", env=ENV, num_episodes=2) for name in ("one", "two")]


@pytest.fixture
def policy_uri(tmp_path: Path) -> str:
    spec = EnvironmentSpec.of(ENV)
    policy = checkpoint.make_policy(spec, PolicyConfig(hidden_size=8))
    state = checkpoint.TrainingState(policy, Adam(policy.parameters(), OptimizerConfig()))
    return checkpoint.save(tmp_path, state, spec, settings={}).as_uri()


def test_a_stored_policy_gets_the_same_evaluation_each_time(policy_uri: str) -> None:
    tool = SimTool(policy_uri=policy_uri, simulations=SIMULATIONS)
    metrics = tool.evaluate().metrics()
    assert metrics == tool.evaluate().metrics()
    assert metrics["arena/one.episodes"] == 2
    assert metrics["arena/one/cell.visited"] > 0


def test_a_stored_policy_gets_the_same_evaluation_on_any_number_of_cores(policy_uri: str) -> None:
    simulations = [SimulationConfig(name="arena/one", env=ENV, num_episodes=100)]  # two parts
    one, two = (evaluate(load_policy(policy_uri), simulations, cores) for cores in (1, 2))
    assert one.results == two.results


def test_it_prints_every_score_with_its_episodes(policy_uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert SimTool(policy_uri=policy_uri, simulations=SIMULATIONS).invoke() == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    episodes = {row[1]: row[-2] for row in rows if len(row) > 3 and row[0] == "│"}
    assert episodes == {"arena/one": "2", "arena/two": "2", "arena": "4", "avg_category_score": "4"}


def test_a_game_that_the_policy_cannot_play_is_refused(policy_uri: str) -> None:
    with pytest.raises(UserError, match="simulation navigation/open"):
        SimTool(policy_uri=policy_uri, simulations=navigation.simulations()).evaluate()
