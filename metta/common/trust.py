"""Whether code that a store names belongs to the project that is worked in, so that it may be imported."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from metta.common.errors import UserError

OWN_PACKAGES = ("metta", "experiments")
"""Packages of this distribution, wherever they are installed."""

_INSTALLED = frozenset(("site-packages", "dist-packages"))


def require_own(names: Iterable[str], folder: Path, how: str) -> None:
    """Refuse code that is neither in `folder` nor in this distribution. Nothing is imported to find out.

    Whoever can write to a store decides what is imported by those who work on its sweeps.

    Args:
        names: ``package.module.name`` or ``package.module:name``.
        folder: the project's.
        how: how a person says that the store is trusted.

    Raises:
        UserError: code lies elsewhere; the message names it.
    """
    for name in names:
        if not is_own(name, folder):
            raise UserError(
                f"the store names {name!r} to be imported, which is neither in {folder} nor in "
                f"{' or '.join(OWN_PACKAGES)}; if you trust everybody who can write to the store, {how}"
            )


def is_own(name: str, folder: Path) -> bool:
    """Whether code is in `folder`, outside of environments in it, or in this distribution.

    Args:
        name: see `require_own`.
        folder: the project's; where its code is imported from must be on ``sys.path``.
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
    """Where a package is imported from. One without a file of its own may lie in many folders, so look further."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module without a specification, such as __main__
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
