"""The processes below another one, in a machine where any of them may end while they are counted."""

from __future__ import annotations

import psutil


def children(pid: int) -> list[int]:
    """The processes that a process started itself."""
    return _below(pid, recursive=False)


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    return _below(pid, recursive=True)


def command_line(pid: int) -> str:
    """The command of a process, empty where it has ended."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def _below(pid: int, recursive: bool) -> list[int]:
    try:
        return [process.pid for process in psutil.Process(pid).children(recursive=recursive)]
    except psutil.NoSuchProcess:
        return []
