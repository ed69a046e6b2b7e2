"""What a sweep may be called. Its name is that of a folder, and may be typed in any terminal."""

from __future__ import annotations

import unicodedata

MOST_CHARACTERS = 100
MOST_BYTES = 200
"""In UTF-8. File systems take 255, and the sweep that confirms another one has a longer name."""


def normalised(name: str) -> str:
    """The name in Unicode's NFC, which writes each character in one way; a keyboard or a file may write another."""
    return unicodedata.normalize("NFC", name)


def name_problem(name: str) -> str | None:
    """Which rule a name breaks; None where it can be used."""
    if not name:
        return "it is empty"
    odd = [each for each in dict.fromkeys(name) if not (each.isalnum() or each in "._-" or unicodedata.combining(each))]
    if odd:
        shown = ", ".join(ascii(each) for each in odd[:5])
        return f"only letters, digits, '.', '_' and '-' are possible, not {shown}"
    if name.startswith("."):
        return "it begins with '.', which would hide its folder"
    if name.startswith("-"):
        return "it begins with '-', as an option does"
    if len(name) > MOST_CHARACTERS:
        return f"it has {len(name)} characters; at most {MOST_CHARACTERS} are possible"
    if (size := len(name.encode("utf-8"))) > MOST_BYTES:
        return f"it has {size} bytes in UTF-8; at most {MOST_BYTES} are possible"
    return None
