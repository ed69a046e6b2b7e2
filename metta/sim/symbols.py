"""Symbols for kinds of objects: a character in a terminal, an icon in a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable

Polygon = list[tuple[float, float]]
"""Corners in a square whose sides are 1 long; y points down."""

_CHARACTERS = {
    "mine": "🪨",
    "generator": "⚡",
    "altar": "💛",
    "lasery": "🔫",
    "armory": "🦺",
    "wall": "⬜",
    "agent": "🤖",
}
"""Two columns wide each."""


def _heart() -> Polygon:
    """The curve x = 16 sin³ t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t."""
    turns = [2 * math.pi * step / 40 for step in range(40)]
    return [
        (
            0.5 + 0.025 * 16 * math.sin(t) ** 3,
            0.47 - 0.025 * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)),
        )
        for t in turns
    ]


ICONS: dict[str, Polygon] = {
    "mine": [(0.08, 0.85), (0.22, 0.42), (0.47, 0.18), (0.75, 0.32), (0.92, 0.85)],
    "generator": [(0.6, 0.06), (0.18, 0.56), (0.46, 0.56), (0.38, 0.94), (0.82, 0.42), (0.54, 0.42)],
    "altar": _heart(),
    "lasery": [(0.5, 0.04), (0.6, 0.4), (0.96, 0.5), (0.6, 0.6), (0.5, 0.96), (0.4, 0.6), (0.04, 0.5), (0.4, 0.4)],
    "armory": [(0.14, 0.12), (0.86, 0.12), (0.86, 0.5), (0.5, 0.93), (0.14, 0.5)],
}
"""A rock, a bolt, a heart, a flash and a shield. Other kinds are drawn as a letter; see `letters`."""


def letters(kinds: Iterable[str]) -> dict[str, str]:
    """A different capital letter for each kind: one of its name if possible."""
    chosen: dict[str, str] = {}
    for kind in kinds:
        candidates = [*kind.upper(), *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
        free = (letter for letter in candidates if "A" <= letter <= "Z" and letter not in chosen.values())
        chosen[kind] = next(free, "?")
    return chosen


def characters(kinds: Iterable[str]) -> dict[str, str]:
    """The terminal character of each kind, two columns wide; an unknown kind gets a full-width letter."""
    named = list(kinds)
    unknown = letters(kind for kind in named if kind not in _CHARACTERS)
    wide = {kind: chr(ord(letter) - ord("!") + ord("\uff01")) for kind, letter in unknown.items()}
    return {kind: _CHARACTERS.get(kind) or wide[kind] for kind in named}
