"""The rich console for all output of this package."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import IO, Any, cast

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from metta.common.terminal import UNSAFE, Output, safe
from metta.common.urls import public_text


class Console(rich.console.Console):
    """Prints text as `metta.common.terminal.say` does: safe, and to a stream that does not fail. Styles are kept."""

    def __init__(self, **options: Any) -> None:
        # A size of 0 means that it is not known; rich would print nothing into it
        sizes = {name for name in ("COLUMNS", "LINES") if os.environ.get(name, "").strip("0") == ""}
        super().__init__(**options, _environ={name: value for name, value in os.environ.items() if name not in sizes})

    @property
    def file(self) -> IO[str]:
        return cast(IO[str], Output(super().file))

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(safe(public_text(text)), **options)  # before the layout, which measures the text

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or not UNSAFE.search(segment.text):
                yield segment
            else:
                yield Segment(safe(segment.text), segment.style)
