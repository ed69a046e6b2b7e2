"""Checks that the program of a sweep exists here, and the file that an interpreter or launcher should run."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path
from shutil import which

from metta.common.errors import nearest
from metta.sweep.program.call import Program
from metta.sweep.program.errors import ProgramNotFoundError

_RUNNERS = re.compile(
    r"env|python[\d.]*|pypy[\d.]*|(ba|da|z|k|fi)?sh|uv|uvx|torchrun|accelerate|deepspeed|ipython|Rscript|julia|node|perl|ruby|lua"
)
"""Programs that run a file on this machine. For others, such as ssh or docker, the location of files is unknown."""
_SCRIPT = re.compile(r"[^-=$][^=$]*\.(py|sh|bash|R|jl|js|mjs|pl|rb|lua)")
_CODE = ("-c", "-m", "-e", "--module", "--command")


def check_exists(program: Program, sweep_file: Path | None = None) -> None:
    """Check that a program can be started here.

    Args:
        sweep_file: the file that describes its sweep; the program may lie beside it, where people expect it to run.

    Raises:
        ProgramNotFoundError: the program, or the file that it should run, does not exist; with the nearest match.
    """
    macros = {"${env}": "/usr/bin/env", "${interpreter}": "python", "${program}": program.program or ""}
    words = [macros.get(word, word) for word in program.command]
    first, *rest = words
    if "$" not in first and not _is_program(first, program.environment.get("PATH")):
        raise ProgramNotFoundError(_not_found(first, "program"))
    if not _RUNNERS.fullmatch(Path(first).name):
        return
    for word in rest:
        if word in _CODE:
            return
        if _SCRIPT.fullmatch(word):
            if not (_folder(program) / word).is_file() and not Path(word).is_file():
                folder = None if sweep_file is None else sweep_file.parent
                if folder is not None and (folder / word).is_file():
                    raise ProgramNotFoundError(f"there is no file {word} here, but in {folder}; first: cd {folder}")
                raise ProgramNotFoundError(_not_found(word, "file"))
            return


def _folder(program: Program) -> Path:
    known = program.cwd is not None and "$" not in program.cwd
    return Path(program.cwd) if known and program.cwd is not None else Path()


def _is_program(word: str, path: str | None) -> bool:
    return which(word, path=path) is not None


def _not_found(word: str, what: str) -> str:
    """The message that a program or file does not exist, with a similar name."""
    path = Path(word)
    if what == "program" and os.sep not in word:
        if path.is_file():
            return f"there is no program {word!r}; the file of that name is run with ./{word}, or with its interpreter"
        known = {name for folder in os.get_exec_path() if os.path.isdir(folder) for name in os.listdir(folder)}
        close = get_close_matches(word, sorted(known), n=1, cutoff=0.75)
        return f"there is no program {word!r}" + (f"; did you mean {close[0]!r}?" if close else "")
    if path.is_file():
        return f"{word} cannot be run: it is not executable (chmod +x {word})"
    folder = path.parent
    if not folder.is_dir():
        return f"there is no {what} {word}: the folder {folder} does not exist"
    same = sorted(each.name for each in folder.iterdir() if each.is_file() and not each.name.startswith("."))
    return f"there is no {what} {word} in {folder.absolute()}" + (f"; {nearest(path.name, same)}" if same else "")
