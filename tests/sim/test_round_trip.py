import pytest
from mettagrid.config.reward_config import inventoryReward
from mettagrid.mapgen.mapgen import MapGenConfig
from mettagrid.mapgen.random.int import IntConstantDistribution
from mettagrid.mapgen.scenes.maze import MazeConfig

from experiments.arena import make_env
from metta.common.errors import UserError
from metta.sim.round_trip import check_round_trip
from metta.sim.simulation_config import SimulationConfig


def test_a_reward_that_loses_its_maximum_is_refused() -> None:
    env = make_env()
    env.game.agent.rewards["ore"] = inventoryReward("ore", max=3)
    with pytest.raises(UserError, match=r"game\.agent\.rewards\.ore\.reward"):
        check_round_trip(env)
    with pytest.raises(UserError, match="does not survive JSON"):
        SimulationConfig(name="arena/capped", env=env)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_an_environment_that_cannot_be_read_back_is_refused() -> None:
    env = make_env()
    rooms = IntConstantDistribution(value=3)
    env.game.map_builder = MapGenConfig(width=9, height=9, instance=MazeConfig(room_size=rooms))
    with pytest.raises(UserError, match="cannot be read back"):
        check_round_trip(env)
