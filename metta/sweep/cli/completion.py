"""The command that installs shell completion of commands, options and names of sweeps."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from metta.common.errors import UserError
from metta.sweep.cli.command import Commands, say

TITLE = "in the shell"

SHELLS = ("bash", "zsh", "fish")

_ZSH_SETUP = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }\n"


def register(commands: Commands) -> None:
    parser = commands.add(completion, "completion", store=False)
    parser.add_argument("shell", nargs="?", choices=SHELLS, help="default: your shell")
    parser.add_argument("--install", action="store_true", help="install it for every new shell")


def completion(options: argparse.Namespace) -> None:
    """Print the code that completes metta-sweep in a shell, or install it with --install.

    Then Tab completes commands, options and the names of sweeps.
    """
    from argcomplete.shell_integration import shellcode

    shell = options.shell or Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        raise UserError(f"say which shell you use: metta-sweep completion {'|'.join(SHELLS)}")
    code = shellcode(["metta-sweep"], shell=shell)
    code = _ZSH_SETUP + code if shell == "zsh" else code
    if not options.install:
        say(options, code, shell=shell, code=code)
        return
    path = install(shell, code)
    say(options, f"installed in {path}; open a new {shell} to use it", shell=shell, path=str(path))


def install(shell: str, code: str) -> Path:
    """Write the code where the shell finds it, and return the path. It is idempotent."""
    if shell == "fish":
        path = _home("XDG_CONFIG_HOME", ".config") / "fish" / "completions" / "metta-sweep.fish"
    else:
        path = _home("XDG_DATA_HOME", ".local/share") / "metta-sweep" / f"completion.{shell}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    if shell != "fish":
        start = _home("ZDOTDIR", "") / ".zshrc" if shell == "zsh" else Path.home() / ".bashrc"
        line = f"[ -f '{path}' ] && . '{path}'  # completion of metta-sweep"
        present = start.read_text() if start.exists() else ""
        if line not in present.splitlines():
            newline = "" if not present or present.endswith("\n") else "\n"
            start.write_text(f"{present}{newline}{line}\n")
    return path


def _home(variable: str, below_home: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / below_home)
