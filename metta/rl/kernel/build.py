"""Compiles the kernel when it is first used on a machine, and caches it for later processes."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("kernel.c")
COMPILE_SECONDS = 120.0

_FLAGS = ["-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"]
_LIBRARIES = ["-pthread", "-lm"]


class Unavailable(RuntimeError):
    """The kernel cannot be used; the message says why, and how to fix it."""


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernel.

    Raises:
        Unavailable: it is turned off, there is no compiler, or the compiler failed.
    """
    if os.environ.get("METTA_KERNEL", "on") == "off":
        raise Unavailable("METTA_KERNEL=off")
    command = [*compiler(), _for_this_cpu(), *_FLAGS]
    name = f"kernel-{_digest(command)}.so"
    folder = cache_folder()
    if (folder / name).exists():
        return _load(folder / name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _load(_compile(command, folder / name))
    except OSError:  # a read-only home
        with tempfile.TemporaryDirectory() as own:
            return _load(_compile(command, Path(own) / name))


def cache_folder() -> Path:
    """The folder of compiled kernels: ``$XDG_CACHE_HOME/metta-sweep``, by default below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metta-sweep"


def compiler() -> list[str]:
    """The command of a C compiler: ``$CC``, else cc, gcc or clang, else that of the Python package ziglang.

    Raises:
        Unavailable: no compiler was found.
    """
    if chosen := shlex.split(os.environ.get("CC", "")):
        return chosen
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise Unavailable("there is no C compiler (cc, gcc, clang); install one, for example: pip install ziglang")


def _compile(command: list[str], target: Path) -> Path:
    """Compile under a temporary name and rename, because several processes may do this at once."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        output = Path(folder) / target.name
        try:
            done = subprocess.run(
                [*command, str(SOURCE), "-o", str(output), *_LIBRARIES],
                capture_output=True,
                text=True,
                timeout=COMPILE_SECONDS,
                check=False,
            )
        except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"{command[0]} did not compile it: {error}") from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise Unavailable(f"{command[0]} did not compile it: {lines[0]}")
        output.replace(target)
    return target


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(f"{path} cannot be loaded: {error}") from error


def _for_this_cpu() -> str:
    return "-mcpu=native" if platform.machine().lower() in ("arm64", "aarch64") else "-march=native"


def _digest(command: list[str]) -> str:
    """Names a build by its source, its compiler's command and the CPU that it is for."""
    parts = [SOURCE.read_bytes(), shlex.join(command).encode(), _cpu().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _cpu() -> str:
    """A text that differs between CPUs with different instructions."""
    described = [platform.system(), platform.machine(), platform.processor()]
    information = Path("/proc/cpuinfo")
    if information.exists():
        kinds = ("model name", "flags", "Features", "CPU part")
        described += sorted({line for line in information.read_text().splitlines() if line.startswith(kinds)})
    return "\n".join(described)
