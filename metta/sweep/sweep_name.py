"""What a sweep may be called. Its name is that of a folder, and may be typed in any terminal."""

from __future__ import annotations

import hashlib
import re
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
    odd = [each for each in dict.fromkeys(name) if not _possible(each)]
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


def slug(text: str) -> str:
    """A name made from text for people, which may still be too long."""
    shown = "".join(each if _possible(each) else " " for each in normalised(text))
    return re.sub(" +", "-", shown).lstrip(".-") or "sweep"


def shortened(name: str) -> str:
    """A name that is not too long. Names that differ only behind its end stay different."""
    if len(name) <= MOST_CHARACTERS and len(name.encode()) <= MOST_BYTES:
        return name
    end = f"-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    kept = name[: MOST_CHARACTERS - len(end)].encode()[: MOST_BYTES - len(end)]
    return kept.decode(errors="ignore") + end


def _possible(character: str) -> bool:
    return bool(character.isalnum() or character in "._-" or unicodedata.combining(character))
