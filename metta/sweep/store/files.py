"""Files that are read from anywhere: a path, ``https://...``, or any URL that fsspec knows where that is installed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TypeGuard
from urllib.parse import urlsplit
from urllib.request import urlopen

from metta.common.errors import UserError
from metta.sweep.store import SCHEMES

_ANSWER_SECONDS = 60.0


class TransferError(UserError):
    """A file that cannot be read or written as asked."""


def suffix(place: str | Path) -> str:
    """How the name of a file ends, be it a path or a URL, in lower case."""
    path = urlsplit(place).path if is_url(place) else str(place)
    return Path(path).suffix.lower()


def is_store(place: str) -> bool:
    """Whether a URL is that of a store, not of a file."""
    return is_url(place) and urlsplit(place).scheme.partition("+")[0] in SCHEMES


def is_url(place: str | Path) -> TypeGuard[str]:
    return isinstance(place, str) and "://" in place


def read_text(place: str | Path) -> str:
    """
    Raises:
        TransferError: the file cannot be read, or holds no text.
    """
    try:
        return read_bytes(place).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TransferError(f"{place}: not a text file") from None


def read_bytes(place: str | Path) -> bytes:
    """
    Raises:
        TransferError: the file cannot be read.
    """
    try:
        if not is_url(place):
            return Path(place).read_bytes()
        if urlsplit(place).scheme in ("http", "https", "file"):
            with urlopen(place, timeout=_ANSWER_SECONDS) as answer:
                return bytes(answer.read())
        fsspec = importlib.import_module("fsspec")
        with fsspec.open(place) as file:
            return bytes(file.read())
    except OSError as error:
        raise TransferError(f"{place}: cannot be read: {error.strerror or error}") from None
    except ImportError as error:
        raise TransferError(f"{place}: cannot be read without the package {error.name}; pip install it") from None
    except ValueError as error:
        raise TransferError(f"{place}: cannot be read: {error}") from None
