"""Whatever text is printed, it cannot steer the terminal."""

from __future__ import annotations

import errno
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from metta.common.command_line import read_value
from metta.common.console import Console
from metta.common.terminal import UNSAFE, Output, safe, say
from metta.sweep.report.format import value_text

HOSTILE = "\x1b]0;title\x07\x1b[2J\u202e\x9b1m\ud800\r"


@given(st.text() | st.text(st.sampled_from(HOSTILE)))
def test_safe_text_has_no_unsafe_character_and_other_text_stays(text: str) -> None:
    assert not UNSAFE.search(safe(text))
    assert safe(safe(text)) == safe(text)
    if not UNSAFE.search(text):
        assert safe(text) == text


@given(st.text() | st.text(st.sampled_from(HOSTILE + '"\\n: #')))
def test_a_choice_is_printed_safely_and_read_back_from_the_command_line(text: str) -> None:
    written = value_text(text)
    assert not UNSAFE.search(written)
    if UNSAFE.search(text) and "\r\n" not in text and not any("\ud800" <= each <= "\udfff" for each in text):
        assert read_value(written) == text


@pytest.mark.parametrize("kind", [str, Text])
def test_a_console_prints_no_escape_sequence_that_it_was_given(kind: type) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=60, color_system=None)
    table = Table("name")
    table.add_row(kind(HOSTILE))
    for each in (table, kind(HOSTILE)):
        console.print(each)
    console.print(kind(HOSTILE), markup=False, soft_wrap=True)
    assert not UNSAFE.search(file.getvalue())
    assert file.getvalue().count(r"\x1b]0;title") == 3


def test_plain_output_is_safe_and_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"café {HOSTILE} postgresql://me:open@host/d")
    assert capsys.readouterr().out == f"café {safe(HOSTILE)} postgresql://me:***@host/d\n"


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_what_cannot_be_written_ends_no_program() -> None:
    say("a line", Full())
    Console(file=Full()).print("a line")
    assert Output.lost is not None
    with pytest.raises(BrokenPipeError):
        say("a line", Ended())


class Ended(io.StringIO):
    """A pipe without a reader."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_letters_that_a_stream_lacks_are_escaped() -> None:
    bytes_ = io.BytesIO()
    stream = io.TextIOWrapper(bytes_, encoding="ascii", newline="")
    say("gr\u00f6\u00dfe", stream)
    Console(file=stream).print("\u4e2d")
    stream.flush()
    assert bytes_.getvalue() == b"gr\\xf6\\xdfe\n\\u4e2d\n"


@pytest.mark.parametrize("columns", ["0", "00", ""])
def test_a_width_of_zero_is_one_that_is_not_known(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    file = io.StringIO()
    Console(file=file).print("a line")
    assert file.getvalue() == "a line\n"
