"""Episodes for people to watch."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.simulator.interface import SimulatorEventHandler
from PIL import Image, ImageSequence

from experiments import arena
from metta.common.errors import UserError
from metta.rl.checkpoint import make_policy
from metta.rl.environment import EnvironmentSpec
from metta.rl.player import PolicyPlayer
from metta.rl.trainer_config import PolicyConfig
from metta.sim.evaluate import evaluate, evaluation_seeds
from metta.sim.gif import CELL, GifWriter
from metta.sim.simulation_config import SimulationConfig
from metta.sim.symbols import characters, letters
from metta.sim.watch import watch
from metta.tools.watch import PlayTool, ReplayTool
from tests.rl.small import small_env

SIMULATION = SimulationConfig(name="small/room", env=small_env(), num_episodes=1)


class Trace(SimulatorEventHandler):
    """Where the agents went."""

    def __init__(self) -> None:
        self.places: list[list[tuple[int, int]]] = []

    def on_step(self) -> None:
        things = self._sim.grid_objects().values()
        self.places.append([thing["location"] for thing in things if "agent_id" in thing])


def untrained(env: MettaGridConfig = SIMULATION.env) -> PolicyPlayer:
    torch.manual_seed(0)
    spec = EnvironmentSpec.of(env)
    return PolicyPlayer(make_policy(spec, PolicyConfig(hidden_size=8)), spec)


def test_what_is_watched_is_what_is_evaluated() -> None:
    """A seed gives the same map, observations and actions as in an evaluation."""
    (episode,) = evaluate(untrained(), [SIMULATION]).results[0].episodes
    gained = watch(untrained(), SIMULATION.env, evaluation_seeds(SIMULATION)[0], [])
    assert gained == {name: pytest.approx(episode.get(f"{name}.gained", 0.0)) for name in gained}
    assert sum(gained.values()) > 0


def test_a_seed_repeats_an_episode() -> None:
    traces = [Trace(), Trace(), Trace()]
    for trace, seed in zip(traces, (1, 1, 2), strict=True):
        watch(untrained(), SIMULATION.env, seed, [trace])
    first, same, other = (trace.places for trace in traces)
    assert len(first) == SIMULATION.env.game.max_steps
    assert first == same != other


def test_an_animation_has_a_frame_for_each_step(tmp_path: Path) -> None:
    path = tmp_path / "made" / "episode.gif"
    ReplayTool(simulation=SIMULATION, to=path).invoke()
    with Image.open(path) as animation:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]
    assert len(frames) == SIMULATION.env.game.max_steps
    assert (frames[0] != frames[-1]).any()
    assert [file.name for file in path.parent.iterdir()] == ["episode.gif"]


def test_an_animation_draws_each_kind_of_object_by_its_own_icon(tmp_path: Path) -> None:
    path = tmp_path / "arena.gif"
    env = arena.make_env(num_agents=2, max_steps=2)
    things = Things()
    watch(untrained(env), env, 0, [GifWriter(path, counted="heart"), things])
    with Image.open(path) as animation:
        frame = [np.asarray(each.convert("RGB")) for each in ImageSequence.Iterator(animation)][-1]
    pictures: dict[str, set[bytes]] = {}
    for kind, row, column in things.places:
        cell = frame[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        pictures.setdefault(kind, set()).add(cell.tobytes())
    assert pictures.keys() == {"mine", "generator", "altar", "lasery", "armory", "wall", "agent"}
    assert {kind: len(pictures[kind]) for kind in pictures} == dict.fromkeys(pictures, 1), "a kind looks the same"
    assert len(set.union(*pictures.values())) == len(pictures), "no two kinds look the same"


class Things(SimulatorEventHandler):
    """What stood where at the last step: kind, row and column."""

    def __init__(self) -> None:
        self.places: list[tuple[str, int, int]] = []

    def on_step(self) -> None:
        self.places = [(thing["type_name"], thing["r"], thing["c"]) for thing in self._sim.grid_objects().values()]


def test_kinds_without_an_icon_get_letters_of_their_own() -> None:
    assert letters(["chest", "charger", "c"]) == {"chest": "C", "charger": "H", "c": "A"}
    assert characters(["chest", "altar"]) == {"chest": "\uff23", "altar": "💛"}


def test_a_replay_is_one_that_mettagrid_wrote(tmp_path: Path) -> None:
    path = tmp_path / "episode.json.z"
    ReplayTool(simulation=SIMULATION, to=path).invoke()
    replay = json.loads(zlib.decompress(path.read_bytes()))
    assert replay["num_agents"] == SIMULATION.env.game.num_agents
    assert replay["max_steps"] == SIMULATION.env.game.max_steps


def test_an_unknown_file_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"supported file types: \.gif, \.json\.z"):
        ReplayTool(simulation=SIMULATION, to=tmp_path / "episode.mp4").invoke()


def test_play_needs_a_terminal() -> None:
    with pytest.raises(UserError, match="needs a terminal"):
        PlayTool(simulation=SIMULATION).invoke()


def test_play_shows_the_game_in_a_terminal() -> None:
    code = "from tests.sim.test_watch import PlayTool, SIMULATION; PlayTool(simulation=SIMULATION).invoke()"
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen, asked_to_quit = b"", False
    with suppress(OSError):  # reading fails once the other end is closed
        while b"gained per agent" not in seen and (piece := os.read(ours, 65536)):
            seen += piece
            if b"Step" in seen and not asked_to_quit:
                os.write(ours, b"q")
                asked_to_quit = True
    process.kill()
    process.wait()
    os.close(ours)
    assert asked_to_quit
    leaves_the_full_screen = seen.rindex(b"\x1b[?1049l")
    assert "💛".encode() in seen, "altars are drawn as altars"
    assert b"Altar" in seen, "the legend says what that is"
    assert b"Predator" not in seen, "the legend has no kinds that the game lacks"
    assert leaves_the_full_screen < seen.index(b"gained per agent"), "what was gained stays to be seen"
