"""The rules for a sweep's name, because it names a folder and is typed in terminals."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from metta.common.plain import shown

MOST_CHARACTERS = 100
MOST_BYTES = 200
"""The limit in UTF-8. File systems allow 255 bytes, and the sweep that confirms another one has a longer name."""


def normalised(name: str) -> str:
    """The name in Unicode's NFC, because keyboards and files may encode one character in several ways."""
    return unicodedata.normalize("NFC", name)


def name_problem(name: str) -> str | None:
    """The rule that a name breaks; None if the name is valid."""
    if not name:
        return "it is empty"
    odd = [each for each in dict.fromkeys(name) if not _possible(each)]
    if odd:
        shown = ", ".join(ascii(each) for each in odd[:5])
        return f"only letters, digits, '.', '_' and '-' are allowed, not {shown}"
    if name.startswith("."):
        return "it begins with '.', which would hide its folder"
    if name.startswith("-"):
        return "it begins with '-', as an option does"
    if len(name) > MOST_CHARACTERS:
        return f"it has {len(name)} characters; at most {MOST_CHARACTERS} are allowed"
    if (size := len(name.encode("utf-8"))) > MOST_BYTES:
        return f"it has {size} bytes in UTF-8; at most {MOST_BYTES} are allowed"
    return None


def shown_name(name: str) -> str:
    """A name in quotes, cut if it is far too long."""
    return shown(name, MOST_CHARACTERS + 20)


def slug(text: str) -> str:
    """A name made from free text, which may still be too long."""
    shown = "".join(each if _possible(each) else " " for each in normalised(text))
    return re.sub(" +", "-", shown).lstrip(".-") or "sweep"


def shortened(name: str) -> str:
    """A name within the limits. Names that differ only after the cut stay different."""
    if len(name) <= MOST_CHARACTERS and len(name.encode()) <= MOST_BYTES:
        return name
    end = f"-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    kept = name[: MOST_CHARACTERS - len(end)].encode()[: MOST_BYTES - len(end)]
    return kept.decode(errors="ignore") + end


def _possible(character: str) -> bool:
    return bool(character.isalnum() or character in "._-" or unicodedata.combining(character))
