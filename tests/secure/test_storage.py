"""A kill or a full disk must leave whole files and whole lines."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from prism_privacy import durable_files
from prism_secure.errors import StorageError
from prism_secure.storage import append_line, make_folder, whole_lines, write_atomic


def _full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_keeps_the_old_file_and_leaves_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", _full_disk)
    with pytest.raises(StorageError, match="No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_state_is_written_by_the_one_atomic_writer_and_its_errors_name_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_files, "replace_file", _full_disk)
    with pytest.raises(StorageError, match=f"cannot write {tmp_path / 'state'}: No space left"):
        write_atomic(tmp_path / "state", b"new")


def test_full_disk_cuts_an_appended_line_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    append_line(path, b"one")
    monkeypatch.setattr(os, "fsync", _full_disk)
    with pytest.raises(StorageError):
        append_line(path, b"two")
    assert path.read_bytes() == b"one\n"


def test_torn_last_line_is_dropped_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")
    assert whole_lines(path) == [b"one"]
    assert path.read_bytes() == b"one\ntw", (
        "a reader must not change a file that a writer may be appending to"
    )
    append_line(path, b"two")
    assert whole_lines(path) == [b"one", b"two"]
    assert whole_lines(tmp_path / "missing") == []


def test_private_files_are_private_from_the_start(tmp_path: Path) -> None:
    write_atomic(tmp_path / "key", b"secret", mode=0o600)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_folder_under_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        make_folder(tmp_path / "file" / "inner")
