"""The parser of the command line: what is wrong in one line, with the nearest valid word."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from metta.common.errors import nearest


class Parser(argparse.ArgumentParser):
    """argparse, which says the nearest command, option or choice. Options are not shortened."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown)
        return found, unknown

    def error(self, message: str) -> NoReturn:
        missing = message.removeprefix("the following arguments are required: ").split(", ")
        asked = [action for action in self._actions if action.choices and {action.metavar, action.dest} & {*missing}]
        valid = "".join(f"; valid: {', '.join(action.choices or ())}" for action in asked)
        self.exit(2, f"error: {message}{valid}\nsee {self.prog} --help\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        what = "command" if isinstance(action.choices, dict) else (action.option_strings or [action.dest])[0]
        raise argparse.ArgumentError(
            None, f"{what} {value!r} does not exist; {nearest(str(value), action.choices, 40)}"
        )

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Refuse words that no argument takes."""
        for word in unknown:
            if word.startswith("-"):
                options = [text for text in self._option_string_actions if text.startswith("--")]
                self.error(
                    f"{self.prog} has no option {word.partition('=')[0]!r}; {nearest(word.partition('=')[0], options)}"
                )
        self.error(f"{self.prog} takes no further argument {unknown[0]!r}")
