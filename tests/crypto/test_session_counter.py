"""Session numbers and rounds of uploads only increase; a lost or damaged file refuses."""

from __future__ import annotations

import threading
import time

import pytest

from prism_crypto.errors import StateError
from prism_crypto.keeping.session_counter import MAX_SESSION, MAX_STEP, MemoryCounter, SessionCounter
from prism_crypto.primitives.chosen_graph import SESSIONS


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
    again.advance(9 + MAX_STEP)
    assert counter.last == 9 + MAX_STEP


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"5\n",
        b"prism-crypto/v2/session-counter 5 round 2",
        b"prism-crypto/v2/session-counter 05 round 2\n",
        b"prism-crypto/v2/session-counter -5 round 2\n",
        b"prism-crypto/v2/session-counter 5 round 2\n\n",
        b"prism-crypto/v1/session-counter 5 round 2\n",
        b"prism-crypto/v2/session-counter 5\n",
        b"prism-crypto/v2/session-counter \xb2 round 2\n",
        b"prism-crypto/v2/session-counter " + b"9" * 5000 + b" round 2\n",
        b"prism-crypto/v2/session-counter 5 round \n",
        b"prism-crypto/v2/session-counter 5 round 02\n",
        b"prism-crypto/v2/session-counter 5 round -2\n",
        b"prism-crypto/v2/session-counter 5 round " + b"9" * 21 + b"\n",
        2 * b"prism-crypto/v2/session-counter 7 round 1\n",
        "prism-crypto/v2/session-counter \u0667 round 1\n".encode(),  # a seven, in other digits
        bytes(range(256)),
        b"x" * 1_000_000,
    ],
)
def test_a_damaged_file_refuses(counter, content):
    counter.path.write_bytes(content)
    with pytest.raises(StateError, match="damaged"):
        counter.advance(100)
    assert counter.path.read_bytes() == content


@pytest.mark.parametrize("kept", ["memory", "file"])
@pytest.mark.parametrize(
    ("number", "round"), [(2**64 - 1, 1), (5 + MAX_STEP + 1, 1), (6, 2**64 - 1), (6, 4 + 2**16)]
)
def test_one_offer_can_not_shut_a_client_out_of_all_that_comes(counter, kept, number, round):
    numbers = MemoryCounter() if kept == "memory" else counter
    numbers.advance(5, round=3)
    numbers.uploaded(3)
    with pytest.raises(StateError, match=r"no server sets a client so far ahead|not above"):
        numbers.advance(number, round=round)
    numbers.advance(6, round=4)
    with pytest.raises(StateError, match="so far ahead"):
        numbers.uploaded(4 + 2**16)
    numbers.uploaded(4)
    assert (numbers.last, numbers.last_round) == (6, 4)


def test_the_largest_number_and_round_fit(tmp_path):
    counter = SessionCounter.enrol(tmp_path / "old", number=MAX_SESSION - 1, round=2**64 - 2)
    counter.advance(MAX_SESSION, round=2**64 - 1)
    counter.uploaded(2**64 - 1)
    assert (counter.last, counter.last_round) == (MAX_SESSION, 2**64 - 1)


def test_a_client_of_an_older_federation_is_enrolled_above_what_came_before(tmp_path):
    clock = 1_800_000_000_000  # milliseconds: far above what a counter takes that starts from nothing
    counter = SessionCounter.enrol(tmp_path / "late", number=clock, round=100_000)
    with pytest.raises(StateError, match="not above"):
        counter.advance(clock, round=100_001)
    counter.advance(clock + 1000, round=100_001)
    for number, round in ((-1, 0), (0, -1), (2**64, 0), (0, 2**64)):
        with pytest.raises(StateError, match="are in"):
            SessionCounter.enrol(tmp_path / "absurd", number=number, round=round)
    assert not (tmp_path / "absurd").exists()


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_round_is_closed_by_an_upload_and_by_nothing_else(kind, counter):
    counter = counter if kind == "file" else MemoryCounter()
    counter.advance(1, round=3)
    assert counter.last_round == 0
    counter.advance(2, round=3)
    counter.uploaded(3)
    assert (counter.last, counter.last_round) == (2, 3)
    for round in (3, 1, 0, -1, 2**64):
        with pytest.raises(StateError):
            counter.advance(3, round=round)
        with pytest.raises(StateError):
            counter.uploaded(round)
    assert (counter.last, counter.last_round) == (2, 3)
    counter.advance(3, round=4)
    assert (counter.last, counter.last_round) == (3, 3)


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_rounds_that_are_not_numbered_are_not_recorded(kind, counter):
    counter = counter if kind == "file" else MemoryCounter()
    for number in (1, 2):
        counter.advance(number)
        counter.uploaded(0)
    assert (counter.last, counter.last_round) == (2, 0)


def test_recording_an_upload_does_not_take_the_session_number_back(counter):
    counter.advance(1, round=1)
    SessionCounter(counter.path).advance(9, round=2)  # another process, meanwhile
    counter.uploaded(1)
    assert (counter.last, counter.last_round) == (9, 1)


def test_a_folder_in_the_files_place_refuses(tmp_path):
    (tmp_path / "sessions").mkdir()
    with pytest.raises(StateError, match="damaged"):
        SessionCounter(tmp_path / "sessions").advance(1)


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


def test_of_many_at_once_only_one_gets_a_number(counter, monkeypatch):
    entered = []
    read = SessionCounter._read

    def slowly(self):
        found = read(self)
        time.sleep(0.01)  # long enough for all others to read the same
        return found

    def enter():
        try:
            SessionCounter(counter.path).advance(1)
            entered.append(True)
        except StateError:
            pass

    monkeypatch.setattr(SessionCounter, "_read", slowly)
    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered == [True]


def test_the_counter_in_memory_keeps_the_same_rule():
    counter = MemoryCounter(4)
    counter.advance(5)
    for number in (5, 4, 0, -1, 2**64):
        with pytest.raises(StateError):
            counter.advance(number)
    assert counter.last == 5


def test_one_offer_shuts_nobody_out_of_a_clocks_sessions_for_years():
    now, day = 1_800_000_000_000, 24 * 3600 * 1000
    counter = MemoryCounter(now)
    with pytest.raises(StateError, match="must be enrolled again"):
        counter.advance(now + 100 * day)
    counter.advance(now + MAX_STEP)
    counter.advance(now + 100 * day)


def test_on_a_chosen_graph_three_hundred_offers_bring_a_client_to_the_end_of_its_numbers():
    """As the page says: whatever step is allowed, a server that takes it each time comes to the end."""
    last, offers = 1_796_000_000_000, 0  # a clock's milliseconds at the end of 2026
    counter = MemoryCounter(last)
    while last < SESSIONS:
        last, offers = min(last + MAX_STEP, SESSIONS), offers + 1
        counter.advance(last)
    assert offers == 303
