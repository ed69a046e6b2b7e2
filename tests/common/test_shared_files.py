"""Files by URL, on fsspec's file system in memory and on this machine's."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from metta.common import shared_files
from metta.common.errors import UserError


@pytest.fixture(params=["memory", "file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid.uuid4().hex}/a folder" if request.param == "memory" else (tmp_path / "a folder").as_uri()


def test_what_is_written_is_read_until_it_is_removed(folder: str) -> None:
    shared_files.write_bytes(f"{folder}/runs/1/weights", b"\x00\x01")
    shared_files.write_bytes(f"{folder}/runs/2/weights", b"2")
    shared_files.write_bytes(f"{folder}/runs/2/weights", b"3")
    assert shared_files.read_bytes(f"{folder}/runs/1/weights") == b"\x00\x01"
    assert shared_files.read_bytes(f"{folder}/runs/2/weights") == b"3"

    shared_files.remove(f"{folder}/runs/1")
    shared_files.remove(f"{folder}/runs/1")
    with pytest.raises(FileNotFoundError):
        shared_files.read_bytes(f"{folder}/runs/1/weights")
    shared_files.remove(f"{folder}/runs/2/weights")
    with pytest.raises(FileNotFoundError):
        shared_files.read_bytes(f"{folder}/runs/2/weights")


def test_a_place_is_tried_and_left_as_it_was(folder: str) -> None:
    shared_files.write_bytes(f"{folder}/kept", b"1")
    shared_files.require_writable(folder)
    assert shared_files.read_bytes(f"{folder}/kept") == b"1"
    path = shared_files.local_path(folder)
    assert path is None or [file.name for file in path.iterdir()] == ["kept"]


def test_a_place_that_cannot_be_written_to_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/folder/"):
        shared_files.require_writable((tmp_path / "file" / "folder").as_uri())

    for error in (PermissionError("no such key pair"), FileNotFoundError("no such bucket")):

        def refuse(self: MemoryFileSystem, path: str, value: bytes, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
        with pytest.raises(UserError, match=rf"memory://bucket/folder/.*: {type(error).__name__}: no such"):
            shared_files.require_writable("memory://bucket/folder")


def test_urls_are_checked_without_asking_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shared_files.check_url("memory://bucket/folder") == "memory://bucket/folder"
    assert shared_files.check_url("shared") == (tmp_path / "shared").as_uri()
    with pytest.raises(UserError, match="Protocol not known: no-such"):
        shared_files.check_url("no-such://bucket")
    with pytest.raises(UserError) as caught:
        shared_files.check_url("ftp://me:sesame@host/folder")
    assert "sesame" not in str(caught.value)


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setenv("UV", "/bin/uv")
    with pytest.raises(UserError, match=r"Install s3fs.*uv sync --extra s3"):
        shared_files.check_url("s3://bucket/folder")
