"""A kill or a full disk must leave whole files and whole lines."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from prism_secure.errors import StorageError
from prism_secure.storage import append_line, make_folder, whole_lines, write_atomic


def _full_disk(*_: object) -> None:
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


def test_figures_read_the_same_in_a_ledger_s_words_and_in_a_report_s() -> None:
    """`generate` loads no prism_privacy, so each package has the words of its own."""
    from prism_privacy import wording as theirs
    from prism_secure import wording as ours

    for value in (0.0, 1e-9, 0.01234, 0.5, 6.7, 9.999, 27.31, 99.95, 105_432.1, 1e300, float("inf")):
        assert ours.format_epsilon(value) == theirs.format_epsilon(value)
    assert ours.format_delta(1e-5) == theirs.format_delta(1e-5)
    assert (ours.CLIENT_UNIT, ours.RECORD_UNIT) == (theirs.CLIENT_UNIT, theirs.RECORD_UNIT)
    assert [ours.record_unit(one) for one in ("image", "person")] == [
        theirs.record_unit(one) for one in ("image", "person")
    ]
