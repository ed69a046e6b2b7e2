"""Files that are read from a path, ``https://...``, or any URL that fsspec supports if it is installed."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeGuard, cast
from urllib.parse import SplitResult, urlsplit
from urllib.request import urlopen

from metta.common.errors import UserError
from metta.common.text import decoded
from metta.common.urls import public_text, public_url
from metta.sweep.store import SCHEMES

MOST_BYTES = 2**30
"""Larger files are refused: a sweep of 20,000 trials with long learning curves takes a tenth of it."""

_ANSWER_SECONDS = 60.0


class TransferError(UserError):
    """A file that cannot be read or written as asked."""


def suffix(place: str | Path) -> str:
    """The suffix of a path or URL, in lower case."""
    path = _parts(place).path if is_url(place) else str(place)
    return Path(path).suffix.lower()


def is_store(place: str) -> bool:
    """Whether a URL names a store, not a file."""
    return is_url(place) and _parts(place).scheme.partition("+")[0] in SCHEMES


def is_url(place: str | Path) -> TypeGuard[str]:
    return isinstance(place, str) and "://" in place


def _parts(url: str) -> SplitResult:
    """
    Raises:
        TransferError: it is not a URL.
    """
    try:
        return urlsplit(url)
    except ValueError as error:
        raise refusal(url, f"not a URL: {error}") from None


def refusal(place: str | Path, reason: str) -> TransferError:
    """The error for a file: its path or URL without secrets, and the reason."""
    return TransferError(f"{public_url(str(place))}: {public_text(reason, str(place))}")


def read_text(place: str | Path) -> str:
    """
    Raises:
        TransferError: the file cannot be read, or is not text.
    """
    try:
        return decoded(read_bytes(place))
    except UnicodeDecodeError:
        raise refusal(place, "not a text file in UTF-8") from None


def read_bytes(place: str | Path) -> bytes:
    """
    Raises:
        TransferError: the file cannot be read, or is larger than `MOST_BYTES`.
    """
    try:
        with _opened(place) as file:
            content = bytes(file.read(MOST_BYTES + 1))
    except OSError as error:
        raise refusal(place, f"cannot be read: {error.strerror or error}") from None
    except ImportError as error:
        raise refusal(place, f"cannot be read without the package {error.name}; pip install it") from None
    except (ValueError, HTTPException) as error:
        raise refusal(place, f"cannot be read: {error or type(error).__name__}") from None
    if len(content) > MOST_BYTES:
        raise refusal(place, f"it is larger than {MOST_BYTES / 2**30:g} GiB, the limit")
    return content


def _opened(place: str | Path) -> AbstractContextManager[Any]:
    if not is_url(place):
        return Path(place).open("rb")
    if _parts(place).scheme in ("http", "https", "file"):
        return cast(AbstractContextManager[Any], urlopen(place, timeout=_ANSWER_SECONDS))
    return cast(AbstractContextManager[Any], importlib.import_module("fsspec").open(place))
