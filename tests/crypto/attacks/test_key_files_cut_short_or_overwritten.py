"""Broken if a kill or a power cut leaves half a key file, or a new one takes an old one's place.

Half a file could not be read, nor written anew, since nothing is overwritten: the client would be locked out.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from rehearsal import identity

from prism_crypto.errors import IdentityError
from prism_crypto.keeping import guarded_file
from prism_crypto.keeping.identity import Identity, Roster
from prism_crypto.policy import Policy

SAVED = {
    "identity": identity(1),
    "roster": Roster({1: identity(1).public_key}),
    "policy": Policy(min_survivors=3),
}


@pytest.fixture(params=SAVED)
def saved(request):
    return SAVED[request.param]


def test_the_name_comes_after_the_content_and_the_folder_is_synced(tmp_path, monkeypatch, saved):
    path, events = tmp_path / "file.json", []
    real_fsync, real_link = os.fsync, os.link

    def fsync(descriptor):
        status = os.fstat(descriptor)
        events.append(("folder" if stat.S_ISDIR(status.st_mode) else "file", path.exists()))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", lambda *names: (events.append("link"), real_link(*names))[1])
    saved.save(path)
    assert events == [("file", False), "link", ("folder", True)]
    assert [found.name for found in tmp_path.iterdir()] == ["file.json"]


@pytest.mark.parametrize("at", ["fchmod", "fsync", "link"])
def test_an_interruption_leaves_nothing_in_the_way(tmp_path, monkeypatch, saved, at):
    def interrupt(*_):
        raise KeyboardInterrupt

    path = tmp_path / "file.json"
    with monkeypatch.context() as patch:
        patch.setattr(os, at, interrupt)
        with pytest.raises(KeyboardInterrupt):
            saved.save(path)
    assert list(tmp_path.iterdir()) == []
    saved.save(path)
    assert type(saved).load(path) is not None


KILLED = """
import os, signal, sys
from prism_crypto.keeping.identity import Identity
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
Identity(1, bytes([7]) * 32).save(sys.argv[1])
"""


def test_a_process_killed_while_it_writes_leaves_no_half_file(tmp_path):
    path = tmp_path / "file.json"
    died = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert not path.exists()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".file.json.")
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    identity(1).save(path)
    assert Identity.load(path).public_key == identity(1).public_key


@pytest.mark.parametrize("failing", ["fsync", "link"])
def test_a_full_disk_is_an_error_and_leaves_no_half_file(tmp_path, monkeypatch, saved, failing):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(IdentityError, match="No space left"):
        saved.save(tmp_path / "file.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["file", "link", "dangling link", "folder"])
def test_what_is_there_is_not_overwritten_or_followed(tmp_path, saved, there):
    path, other = tmp_path / "file.json", tmp_path / "other"
    if there == "folder":
        path.mkdir()
    elif there == "file":
        path.write_bytes(b"precious")
    else:
        path.symlink_to(other)
        if there == "link":
            other.write_bytes(b"precious")
    before = sorted(found.name for found in tmp_path.iterdir())
    with pytest.raises(IdentityError, match="File exists"):
        saved.save(path)
    assert sorted(found.name for found in tmp_path.iterdir()) == before
    if there in ("file", "link"):
        assert path.read_bytes() == b"precious"
    assert other.exists() == (there == "link")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_mode_does_not_depend_on_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        for name, thing in SAVED.items():
            thing.save(tmp_path / name)
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in SAVED}
    assert modes == {"identity": 0o600, "roster": 0o644, "policy": 0o644}


def test_a_file_system_without_modes_gets_no_secret(tmp_path, monkeypatch):
    written: list[bytes] = []
    real_fchmod = os.fchmod
    monkeypatch.setattr(os, "fchmod", lambda descriptor, mode: real_fchmod(descriptor, 0o666))
    monkeypatch.setattr(os, "link", lambda name, path: written.append(Path(name).read_bytes()))
    with pytest.raises(IdentityError, match="can't keep a file at mode 0600"):
        guarded_file.write_new(tmp_path / "secret", "secret", guarded_file.PRIVATE)
    assert written == []
    assert list(tmp_path.iterdir()) == []
