"""Decides whether code that a store names belongs to the current project and may be imported."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from metta.common.errors import UserError

OWN_PACKAGES = ("metta", "experiments")
"""The packages of this distribution."""

_INSTALLED = frozenset(("site-packages", "dist-packages"))


def require_own(names: Iterable[str], folder: Path, how: str) -> None:
    """Refuse code that is neither in `folder` nor in this distribution, without importing it.

    Otherwise anybody who can write to a store could choose the code that users of its sweeps import.

    Args:
        names: ``package.module.name`` or ``package.module:name``.
        folder: the project's folder.
        how: tells the user how to declare that the store is trusted.

    Raises:
        UserError: code is elsewhere; the message names it.
    """
    for name in names:
        if not is_own(name, folder):
            raise UserError(
                f"the store names {name!r} for import, which is neither in {folder} nor in "
                f"{' or '.join(OWN_PACKAGES)}; if you trust everybody who can write to the store, {how}"
            )


def is_own(name: str, folder: Path) -> bool:
    """Whether code is in `folder`, outside of environments in it, or in this distribution.

    Args:
        name: see `require_own`.
        folder: the project's folder; the folders that its code is imported from must be on ``sys.path``.
    """
    package, *below = name.partition(":")[0].split(".")
    if package in OWN_PACKAGES:
        return True
    if not package.isidentifier() or package in sys.stdlib_module_names:
        return False
    places = _places(package, below)
    return bool(places) and all(
        each.is_relative_to(folder.resolve()) and _INSTALLED.isdisjoint(each.parts) for each in places
    )


def _places(package: str, below: Sequence[str]) -> list[Path]:
    """The locations of a package. A namespace package may be in many folders, so the search continues below it."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module without a spec, such as __main__
        return []
    for part in below:
        if spec is None or spec.origin is not None:
            break
        package = f"{package}.{part}"
        spec = PathFinder.find_spec(package, spec.submodule_search_locations) or spec
    if spec is None:
        return []
    places = [spec.origin] if spec.origin is not None else list(spec.submodule_search_locations or [])
    return [Path(place).resolve() for place in places]
