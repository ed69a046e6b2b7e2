"""Files that several machines reach: in folders of this one, or by URL wherever fsspec reaches (`s3://`, `gs://`, ...).

fsspec is imported for URLs only. Credentials are those of the environment, as the client of each service finds them.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from metta.common.errors import UserError
from metta.common.files import write_whole


def check_url(url: str) -> str:
    """Check a URL without network access, and return it. A path is returned as an absolute URL.

    Raises:
        UserError: nothing here can reach such URLs, or it holds a password, which would be recorded with every file.
    """
    if urlparse(url).password is not None:
        raise UserError("a password in a URL would be recorded with it: leave it to the environment")
    path = local_path(url)
    if path is not None:
        return path.absolute().as_uri()
    _file_system(url)
    return url


def local_path(url: str) -> Path | None:
    """The path of this machine that a path or a ``file://`` URL names, or None for any other URL."""
    parts = urlparse(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(url) if "://" not in url else None


def read_bytes(url: str) -> bytes:
    """What the file holds.

    Raises:
        FileNotFoundError: there is none.
        UserError: it cannot be read.
    """
    path = local_path(url)
    if path is not None:
        return path.read_bytes()
    with _explained(url, FileNotFoundError):
        files, place = _file_system(url)
        data: bytes = files.cat_file(place)
    return data


def write_bytes(url: str, data: bytes) -> None:
    """Write a file, and the folders that it needs on this machine. It is not seen before it is whole.

    Raises:
        UserError: it cannot be written.
    """
    with _explained(url):
        path = local_path(url)
        if path is None:
            files, place = _file_system(url)
            files.pipe_file(place, data)
            return
        write_whole(path, data)


def remove(url: str) -> None:
    """Remove a file, or a folder with all that it holds, if it is there.

    Raises:
        UserError: it cannot be removed.
    """
    with _explained(url):
        path = local_path(url)
        try:
            if path is None:
                files, place = _file_system(url)
                files.invalidate_cache()
                files.rm(place, recursive=True)
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
    """What reaches a URL, and the place there."""
    scheme = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        files, place = url_to_fs(url)
    except ImportError as error:
        extra = ": uv sync --extra s3, or pip install 'metta-sweep[s3]'" if scheme in ("s3", "s3a") else ""
        raise UserError(f"{url}: {scheme}:// needs another package ({error}){extra}") from None
    except ValueError as error:
        raise UserError(f"{url}: {error}") from None
    return files, str(place)


@contextmanager
def _explained(url: str, *expected: type[Exception]) -> Iterator[None]:
    """Turn the errors of every file system and its client, but for those that are expected, into one of the user's."""
    try:
        yield
    except Exception as error:  # clients of cloud services have errors of their own
        if isinstance(error, (UserError, *expected)):
            raise
        raise UserError(f"{url}: {type(error).__name__}: {error}") from error
