"""The installed distribution: its version, its origin, and how to install missing extras."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
from pathlib import Path

NAME = "metta-sweep"
CLONE = Path(__file__).resolve().parents[2]
"""The folder of the repository, if this is a clone."""


def version() -> str:
    """The installed version, or "unknown" if the package runs without being installed."""
    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def is_clone() -> bool:
    """Whether this package runs from a clone of its repository."""
    return (CLONE / "tools" / "run.py").is_file() and (CLONE / "pyproject.toml").is_file()


def program(name: str) -> list[str]:
    """The words that start a program of this package here, with ``uv run`` if uv runs this process."""
    return [*(["uv", "run"] if "UV" in os.environ else []), name]


def runner() -> list[str]:
    """The words that start a Tool from the current folder: the script of a clone, or the installed program."""
    return ["uv", "run", "./tools/run.py"] if is_clone() and Path.cwd() == CLONE else program("metta-run")


def install_command(extra: str) -> str:
    """The command that installs an extra for this kind of installation.

    In a clone under uv it is ``uv sync``. Otherwise it names the packages, because an installed wheel may not be in any
    index.

    Raises:
        KeyError: the extra does not exist.
    """
    if is_clone() and "UV" in os.environ:
        return f"uv sync --extra {extra}"
    requirements = extras().get(extra, [])
    if not requirements:
        raise KeyError(f"no extra {extra!r}")
    pip = "pip" if importlib.util.find_spec("pip") else "uv pip"  # an environment of uv has no pip
    return f"{pip} install {shlex.join(requirements)}"


def extras() -> dict[str, list[str]]:
    """The requirements of each extra of this distribution; empty if the package is not installed."""
    try:
        requirements = importlib.metadata.requires(NAME) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for requirement in requirements:
        needed, _, marker = requirement.partition(";")
        if match := re.search(r"extra == ['\"]([\w-]+)['\"]", marker):
            found.setdefault(match[1], []).append(needed.replace(" ", ""))
    return found


def extra_with(package: str) -> str | None:
    """The first extra that requires a package; None if none does."""
    wanted = package.replace("-", "_").lower()
    for extra, requirements in extras().items():
        names = [re.match(r"[\w.-]+", requirement) for requirement in requirements]
        if wanted in [name[0].replace("-", "_").lower() for name in names if name]:
            return extra
    return None
