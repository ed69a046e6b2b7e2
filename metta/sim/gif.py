"""Draws an episode as an animated GIF."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mettagrid.simulator.interface import SimulatorEventHandler
from PIL import Image, ImageDraw, ImageFont

from metta.common.files import replacing
from metta.sim.symbols import ICONS, letters

CELL = 18
"""Width and height of a cell, in pixels."""
MILLISECONDS = 80
"""How long a frame is shown."""
_LINE = 22
_FINER = 4
"""Icons are drawn this many times larger and then reduced, so that their edges are smooth."""
_LEAST_WIDTH = 240
_PAPER, _INK, _WALL, _FAINT = "#fbfaf7", "#22272e", "#c9c6bd", "#8a8f98"
_AGENT = "#22272e"
_BOX = (_FINER, _FINER, (CELL - 1) * _FINER - 1, (CELL - 1) * _FINER - 1)


class GifWriter(SimulatorEventHandler):
    """Watches an episode and writes it to a file when it ends.

    Each kind of object has a colour and an icon, or a letter if it has no icon in `metta.sim.symbols`. An agent is a
    dark disc with the amount of the counted resource that it holds. Below are the step, the mean amount per agent,
    and a legend of the kinds.

    Args:
        path: the file to write, ``.gif``.
        counted: the resource to count.
    """

    def __init__(self, path: Path, counted: str) -> None:
        self._path = path
        self._counted = counted
        self._frames: list[Image.Image] = []
        self._tiles: dict[str, Image.Image] = {}
        self._letters = ImageFont.load_default(CELL * 0.6)
        self._words = ImageFont.load_default(13)

    def on_episode_start(self) -> None:
        kinds = sorted(set(self._sim.object_type_names) - {"wall", "agent", ""})
        signs = letters(kinds)
        self._tiles = {kind: self._tile(kind, signs[kind], index / len(kinds)) for index, kind in enumerate(kinds)}
        self._tiles |= {"agent": self._agent(""), "wall": Image.new("RGB", (CELL, CELL), _WALL)}

    def on_step(self) -> None:
        self._frames.append(self._draw())

    def on_episode_end(self) -> None:
        first, *others = self._frames
        with replacing(self._path) as path:
            first.save(path, "GIF", save_all=True, append_images=others, duration=MILLISECONDS, loop=0, optimize=True)

    def _draw(self) -> Image.Image:
        width, top = max(_LEAST_WIDTH, self._sim.map_width * CELL), self._sim.map_height * CELL
        places = self._legend(width)
        image = Image.new("RGB", (width, top + _LINE * (2 + places[-1][2])), _PAPER)
        objects = self._sim.grid_objects()
        for thing in objects.values():
            image.paste(self._picture(thing), (thing["c"] * CELL, thing["r"] * CELL))
        draw = ImageDraw.Draw(image)
        text = self._counts([thing for thing in objects.values() if "agent_id" in thing])
        draw.text((8, top + _LINE / 2), text, fill=_INK, anchor="lm", font=self._words)
        for kind, left, row in places:
            line = top + _LINE * (1 + row)
            image.paste(self._tiles[kind], (left, line + 2))
            draw.text((left + CELL + 4, line + _LINE / 2), kind, fill=_FAINT, anchor="lm", font=self._words)
        return image.quantize(64, dither=Image.Dither.NONE)

    def _counts(self, agents: list[dict[str, Any]]) -> str:
        mean = sum(self._held(agent) for agent in agents) / len(agents)
        return f"step {self._sim.current_step}   {mean:.1f} {self._counted} per agent"

    def _held(self, agent: dict[str, Any]) -> int:
        amount: int = agent["inventory"].get(self._sim.resource_names.index(self._counted), 0)
        return amount

    def _legend(self, width: int) -> list[tuple[str, int, int]]:
        """Each kind with its place below the map: pixels from the left, and the row."""
        places, left, row = [], 8, 0
        for kind in self._tiles:
            needed = CELL + 12 + int(self._words.getlength(kind))
            if left > 8 and left + needed > width:
                left, row = 8, row + 1
            places.append((kind, left, row))
            left += needed
        return places

    def _picture(self, thing: dict[str, Any]) -> Image.Image:
        if "agent_id" not in thing:
            return self._tiles[thing["type_name"]]
        held = self._held(thing)
        return self._agent(str(held)) if held else self._tiles["agent"]

    def _agent(self, text: str) -> Image.Image:
        return self._small(lambda draw: draw.ellipse(_BOX, fill=_AGENT), text)

    def _tile(self, kind: str, letter: str, hue: float) -> Image.Image:
        icon = ICONS.get(kind)

        def draw_icon(draw: ImageDraw.ImageDraw) -> None:
            draw.rounded_rectangle(_BOX, 4 * _FINER, fill=_colour(hue))
            if icon is not None:
                draw.polygon([(_inside(x), _inside(y)) for x, y in icon], fill="white")

        return self._small(draw_icon, "" if icon else letter)

    def _small(self, draw_on: Callable[[ImageDraw.ImageDraw], object], text: str) -> Image.Image:
        """A picture of a cell, drawn `_FINER` times larger, with a text."""
        large = Image.new("RGB", (CELL * _FINER, CELL * _FINER), _PAPER)
        draw_on(ImageDraw.Draw(large))
        cell = large.resize((CELL, CELL), Image.Resampling.BOX)
        middle = (CELL / 2, CELL / 2)
        ImageDraw.Draw(cell).text(middle, text, fill="white", anchor="mm", font=self._letters)
        return cell


def _inside(coordinate: float) -> float:
    """A coordinate of an icon, 0 to 1, in pixels of the enlarged cell, which has a margin."""
    margin = 3.5
    return _FINER * (margin + coordinate * (CELL - 2 * margin))


def _colour(hue: float) -> str:
    """A colour that white letters are legible on."""
    channels = colorsys.hls_to_rgb(0.08 + hue, 0.42, 0.55)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)
