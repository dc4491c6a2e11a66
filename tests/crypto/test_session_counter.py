"""Session numbers only increase; a lost or damaged file refuses."""

from __future__ import annotations

import os
import threading

import pytest

from prism_crypto.errors import StateError
from prism_crypto.session_counter import MAX_SESSION, MemoryCounter, SessionCounter


@pytest.fixture
def counter(tmp_path):
    return SessionCounter.enrol(tmp_path / "sessions")


def test_numbers_increase_and_survive_the_process(counter):
    assert counter.last == 0
    counter.advance(1)
    counter.advance(9)
    again = SessionCounter(counter.path)
    assert again.last == 9
    for number in (9, 1, 0, -1, MAX_SESSION + 1):
        with pytest.raises(StateError):
            again.advance(number)
    assert again.last == 9
    again.advance(MAX_SESSION)
    assert counter.last == MAX_SESSION


def test_a_missing_file_refuses_until_enrolment(tmp_path):
    counter = SessionCounter(tmp_path / "sessions")
    with pytest.raises(StateError, match="enrolled again"):
        counter.advance(1)
    assert not counter.path.exists()


def test_nobody_is_enrolled_over_an_old_file(counter):
    with pytest.raises(StateError, match="exists already"):
        SessionCounter.enrol(counter.path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"5\n",
        b"prism-crypto/v1/session-counter 5",
        b"prism-crypto/v1/session-counter 05\n",
        b"prism-crypto/v1/session-counter -5\n",
        b"prism-crypto/v1/session-counter 5\n\n",
        b"prism-crypto/v2/session-counter 5\n",
        b"prism-crypto/v1/session-counter \xb2\n",
        b"prism-crypto/v1/session-counter " + b"9" * 5000 + b"\n",
    ],
)
def test_a_damaged_file_refuses(counter, content):
    counter.path.write_bytes(content)
    with pytest.raises(StateError, match="damaged"):
        counter.advance(100)
    assert counter.path.read_bytes() == content


def test_a_folder_in_the_files_place_refuses(tmp_path):
    (tmp_path / "sessions").mkdir()
    with pytest.raises(StateError, match="damaged"):
        SessionCounter(tmp_path / "sessions").advance(1)


def test_the_number_is_on_the_disk_before_it_replaces_the_old_one(counter, monkeypatch):
    events = []
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("fsync"), real_fsync(fd)))
    monkeypatch.setattr(
        type(counter.path), "replace", lambda self, to: (events.append("rename"), real_replace(self, to))
    )
    counter.advance(1)
    assert events == ["fsync", "rename", "fsync"]


def test_a_crash_before_the_rename_leaves_the_old_number(counter, monkeypatch):
    counter.advance(4)

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(counter.path), "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        counter.advance(5)
    monkeypatch.undo()
    assert counter.last == 4
    counter.advance(5)


def test_of_many_at_once_only_one_gets_a_number(counter):
    entered = []

    def enter():
        try:
            SessionCounter(counter.path).advance(1)
            entered.append(True)
        except StateError:
            pass

    threads = [threading.Thread(target=enter) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered == [True]


def test_the_counter_in_memory_keeps_the_same_rule():
    counter = MemoryCounter(4)
    counter.advance(5)
    with pytest.raises(StateError):
        counter.advance(5)
