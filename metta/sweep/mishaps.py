"""Decides whether a failure depends on the hyperparameters. No other module decides this.

NaN, out of memory and a crash while training may be caused by the hyperparameters, so the optimiser learns from them. A
mishap does not depend on them: there is no GPU, no such program or file, a module cannot be imported, the program
refuses its arguments, or the metric was never printed or is no number. A mishap is neither learnt from nor counted, and
the trial is run again once the cause is fixed. Trouble is a mishap that may pass without action: a full disk, an
unreachable network folder, too many open files. The sweep waits until it has passed.

All are recognised by the stored error text of a trial, so that trials of any store can be classified.
"""

from __future__ import annotations

import errno
import os
import re
from functools import lru_cache
from pathlib import Path

MISHAP = "mishap: "
"""The prefix of an error that the code itself knows to be a mishap."""

_LINES = 60
_EXCEPTION = re.compile(r"^(?:[\w.]*\.)?(\w+)(?::\s|$)")
_OWN = frozenset(
    {"ProgramNotFoundError", "ArgumentsRefusedError", "MetricMissingError", "NotANumberError", "NoSuchNameError"}
)
"""Our own errors, of `metta.sweep.program` and `metta.sweep.function`. The output that they quote is not classified."""
_MISHAPS = frozenset(
    {
        "ModuleNotFoundError",
        "ImportError",
        "SyntaxError",
        "IndentationError",
        "NameError",
        "FileNotFoundError",
        "NotADirectoryError",
        "IsADirectoryError",
        "PermissionError",
        "ConnectionError",
        "ConnectionRefusedError",
        "ConnectionResetError",
    }
)
_MISHAP_TEXTS = re.compile(
    r"^exit status 12[67]\b"
    r"|no CUDA-capable device|No CUDA GPUs are available|not compiled with CUDA|Found no NVIDIA driver"
    r"|CUDA driver version is insufficient|invalid device ordinal|busy or unavailable",
    re.MULTILINE,
)
_TROUBLE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EMFILE, errno.ENFILE)
_TROUBLE = re.compile("|".join(re.escape(os.strerror(number)) for number in _TROUBLE_ERRNOS))


@lru_cache(maxsize=4096)
def is_mishap(error: str | None) -> bool:
    """Whether a failure says nothing about the hyperparameters.

    Args:
        error: as stored: a reason, a traceback, or the last lines of a program's output.

    Example:
        >>> is_mishap("Traceback ...\\nModuleNotFoundError: No module named 'torch'")
        True
        >>> is_mishap("the score loss is nan")
        False
    """
    if not error:
        return False
    if error.startswith(MISHAP) or _MISHAP_TEXTS.search(error):
        return True
    first = _EXCEPTION.match(error)
    if first is not None and first[1] in _OWN:
        return True
    return _last_exception(error) in _MISHAPS | _OWN or _TROUBLE.search(_end(error)) is not None


def trouble(error: str, run_dir: str) -> str | None:
    """The condition to wait for before a failed trial is run again; None if waiting does not help."""
    parent = Path(run_dir).parent
    if run_dir and not _can_be_reached(parent):
        return f"the folder of the runs, {parent}, is unreachable"
    if found := _TROUBLE.search(_end(error)):
        return f"{found[0]} (in {parent})"
    return None


def is_over(run_dir: str) -> bool:
    """Whether a run can create files in its folder again. A folder that was removed is created again."""
    folder = Path(run_dir).parent
    probe = folder / f".probe-{os.getpid()}"
    try:
        if folder.parent.is_dir():
            folder.mkdir(exist_ok=True)
        with probe.open("wb") as file:
            file.write(bytes(65536))
            file.flush()
            os.fsync(file.fileno())
        probe.unlink()
    except OSError:
        return False
    return True


def _can_be_reached(folder: Path) -> bool:
    try:
        folder.stat()
    except OSError:
        return False
    return True


def _end(error: str) -> str:
    return "\n".join(error.strip().splitlines()[-_LINES:])


def _last_exception(error: str) -> str | None:
    """The class of the exception that a traceback ends with."""
    names = [match[1] for line in _end(error).splitlines() if (match := _EXCEPTION.match(line))]
    exceptions = [name for name in names if name.endswith(("Error", "Exception", "Exit", "Interrupt"))]
    return exceptions[-1] if exceptions else None
