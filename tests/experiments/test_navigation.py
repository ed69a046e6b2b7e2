from mettagrid.simulator.simulator import Simulation

from experiments import navigation, sweep_navigation
from metta.common.config import flatten
from metta.sweep.protein_config import ParameterConfig


def test_an_altar_gives_its_heart_once_and_is_gone() -> None:
    env = navigation.make_env(num_agents=1)
    env.with_ascii_map(
        [list("#####"), list("#@A.#"), list("#####")], {"#": "wall", "@": "agent.agent", "A": "altar", ".": "empty"}
    )
    game = Simulation(env)
    for hearts, altars in [(1, 0), (1, 0)]:
        game.agent(0).set_action("move_east")
        game.step()
        assert game.agent(0).inventory.get("heart", 0) == hearts
        assert sum(thing["type_name"] == "altar" for thing in game.grid_objects().values()) == altars
    assert game.episode_rewards.tolist() == [1.0]
    assert game.agent(0).last_action_success, "where the altar was one can walk"


def test_walls_stand_in_the_way_on_a_walled_map_only() -> None:
    def count(walled: bool, name: str) -> int:
        builder = navigation.make_env(walled=walled).game.map_builder.create()
        return int((builder.build().grid == name).sum())

    side = navigation.SIZE + 2
    assert count(False, "wall") == 4 * (side - 1)
    assert count(True, "wall") > 1.5 * count(False, "wall")
    assert count(False, "altar") == count(True, "altar") == 8 * navigation.ALTARS_PER_AGENT


def test_the_trainers_own_values_lie_inside_what_is_searched() -> None:
    tool = sweep_navigation.sweep("s", total_timesteps=20_000)
    trained = tool.train_tool_factory("r").update(tool.train_overrides.root)
    own = flatten(trained.model_dump(mode="json", include={"trainer"}))
    assert own["trainer.total_timesteps"] == 20_000
    parameters: dict[str, ParameterConfig] = flatten(tool.sweep.protein.parameters)
    for path, parameter in parameters.items():
        assert parameter.min is not None
        assert parameter.max is not None
        assert parameter.min < own[path] < parameter.max, path
    assert tool.definition()
