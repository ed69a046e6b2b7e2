"""Draws an episode as an animated GIF."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

from mettagrid.simulator.interface import SimulatorEventHandler
from PIL import Image, ImageDraw, ImageFont

from metta.common.files import replacing

CELL = 18
"""Width and height of a cell, in pixels."""
MILLISECONDS = 80
"""How long a frame is shown."""
_LINE = 22
_PAPER, _INK, _WALL, _FAINT = "#fbfaf7", "#22272e", "#c9c6bd", "#8a8f98"
_AGENT = "#22272e"


class GifWriter(SimulatorEventHandler):
    """Watches an episode and writes it to a file when it ends.

    Each kind of object has a colour and its first letter. An agent is a dark disc with the amount of the counted
    resource that it holds. The line below shows the step and the mean amount per agent.

    Args:
        path: the file to write, ``.gif``.
        counted: the resource to count.
    """

    def __init__(self, path: Path, counted: str) -> None:
        self._path = path
        self._counted = counted
        self._frames: list[Image.Image] = []
        self._colours: dict[str, str] = {}
        self._letters = ImageFont.load_default(CELL * 0.6)
        self._words = ImageFont.load_default(13)

    def on_episode_start(self) -> None:
        kinds = sorted(set(self._sim.object_type_names) - {"wall", "agent", ""})
        self._colours = {kind: _colour(index / len(kinds)) for index, kind in enumerate(kinds)}

    def on_step(self) -> None:
        self._frames.append(self._draw())

    def on_episode_end(self) -> None:
        first, *others = self._frames
        with replacing(self._path) as path:
            first.save(path, "GIF", save_all=True, append_images=others, duration=MILLISECONDS, loop=0, optimize=True)

    def _draw(self) -> Image.Image:
        width, height = self._sim.map_width * CELL, self._sim.map_height * CELL
        image = Image.new("RGB", (width, height + 2 * _LINE), _PAPER)
        draw = ImageDraw.Draw(image)
        objects = self._sim.grid_objects()
        for thing in objects.values():
            self._draw_object(draw, thing)
        self._draw_words(draw, height, [thing for thing in objects.values() if "agent_id" in thing])
        return image.quantize(64, dither=Image.Dither.NONE)

    def _draw_object(self, draw: ImageDraw.ImageDraw, thing: dict[str, Any]) -> None:
        left, top = thing["c"] * CELL, thing["r"] * CELL
        box = (left + 1, top + 1, left + CELL - 2, top + CELL - 2)
        middle = (left + CELL / 2, top + CELL / 2)
        if "agent_id" in thing:
            draw.ellipse(box, fill=_AGENT)
            held = thing["inventory"].get(self._sim.resource_names.index(self._counted), 0)
            if held:
                draw.text(middle, str(held), fill="white", anchor="mm", font=self._letters)
        elif thing["type_name"] == "wall":
            draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=_WALL)
        else:
            kind = thing["type_name"]
            draw.rounded_rectangle(box, 4, fill=self._colours[kind])
            draw.text(middle, kind[0].upper(), fill="white", anchor="mm", font=self._letters)

    def _draw_words(self, draw: ImageDraw.ImageDraw, top: int, agents: list[dict[str, Any]]) -> None:
        resource = self._sim.resource_names.index(self._counted)
        mean = sum(agent["inventory"].get(resource, 0) for agent in agents) / len(agents)
        text = f"step {self._sim.current_step}   {mean:.1f} {self._counted} per agent"
        draw.text((8, top + _LINE / 2), text, fill=_INK, anchor="lm", font=self._words)
        left = 8.0
        for kind, colour in self._colours.items():
            draw.rounded_rectangle((left, top + _LINE + 5, left + 11, top + _LINE + 16), 3, fill=colour)
            draw.text((left + 15, top + 1.5 * _LINE), kind, fill=_FAINT, anchor="lm", font=self._words)
            left += 27 + draw.textlength(kind, font=self._words)


def _colour(hue: float) -> str:
    """A colour that white letters are legible on."""
    channels = colorsys.hls_to_rgb(0.08 + hue, 0.42, 0.55)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)
