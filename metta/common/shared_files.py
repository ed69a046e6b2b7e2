"""Files that several machines can access: in a folder, or at any URL that fsspec supports (`s3://`, `gs://`, ...).

fsspec is imported for URLs only. Credentials come from the environment, as each service's client expects.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from metta.common.distribution import install_command
from metta.common.errors import UserError
from metta.common.files import write_whole
from metta.common.urls import public_text, public_url, secrets_of


def check_url(url: str) -> str:
    """Check a URL without network access, and return it. A path is returned as an absolute URL.

    Raises:
        UserError: the URL is not supported, or contains a secret, which would be recorded with every file.
    """
    if secrets_of(url):
        raise UserError(
            f"{public_url(url)}: a secret in a URL would be recorded with it; put credentials in the environment"
        )
    path = local_path(url)
    if path is not None:
        return path.absolute().as_uri()
    _file_system(url)
    return url


def local_path(url: str) -> Path | None:
    """The path on this machine that a path or a ``file://`` URL names, or None for any other URL."""
    parts = urlparse(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(url) if "://" not in url else None


def read_bytes(url: str) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: it does not exist.
        UserError: it cannot be read.
    """
    path = local_path(url)
    if path is not None:
        return path.read_bytes()
    with _explained(url, FileNotFoundError):
        files, key = _file_system(url)
        data: bytes = files.cat_file(key)
    return data


def write_bytes(url: str, data: bytes) -> None:
    """Write a file atomically, and create its folders on this machine.

    Raises:
        UserError: it cannot be written.
    """
    with _explained(url):
        path = local_path(url)
        if path is None:
            files, key = _file_system(url)
            files.pipe_file(key, data)
            return
        write_whole(path, data)


def remove(url: str) -> None:
    """Remove a file, or a folder with its content, if it exists.

    Raises:
        UserError: it cannot be removed.
    """
    with _explained(url):
        path = local_path(url)
        try:
            if path is None:
                files, key = _file_system(url)
                files.invalidate_cache()
                files.rm(key, recursive=True)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except FileNotFoundError:
            pass


def require_writable(url: str) -> None:
    """Raise UserError unless files can be written to a folder, by writing one and removing it again."""
    probe = f"{url.rstrip('/')}/.{uuid.uuid4().hex}"
    write_bytes(probe, b"")
    remove(probe)


def _file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it."""
    scheme = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url)
    except ImportError as error:
        extra = f": {install_command('s3')}" if scheme in ("s3", "s3a") else ""
        raise UserError(f"{public_url(url)}: {scheme}:// needs another package ({error}){extra}") from None
    except ValueError as error:
        raise UserError(f"{public_url(url)}: {public_text(str(error), url)}") from None
    return files, str(path)


@contextmanager
def _explained(url: str, *expected: type[Exception]) -> Iterator[None]:
    """Convert the errors of every file system and its client to UserError, except the expected ones."""
    try:
        yield
    except Exception as error:  # clients of cloud services have their own errors
        if isinstance(error, (UserError, *expected)):
            raise
        reason = public_text(str(error), url)
        raise UserError(f"{public_url(url)}: {type(error).__name__}: {reason}") from error
