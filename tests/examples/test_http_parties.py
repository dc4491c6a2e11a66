"""What there is to copy from the HTTPS example: it bears lost responses, a restart, and strangers."""

from __future__ import annotations

import io
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from prism_crypto import CountSpec, Identity, Policy, Roster, Session
from prism_crypto.drive import Admission, Server, enrol

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "http"))
from certificate import self_signed
from client import contribute
from server import Desk, listening, longest

CLIENTS, SPEC = range(3), CountSpec(1000, bound=255)


class Place:
    """A server over TLS that loses what a test says, and its enrolled clients."""

    def __init__(self, root: Path) -> None:
        identities = [Identity.generate(i) for i in CLIENTS]
        self.root, self.roster = root, Roster({each.client_id: each.public_key for each in identities})
        for each in identities:
            enrol(root / str(each.client_id), each, self.roster, Policy(min_survivors=3), "tests")
        place = self

        class Losing(Desk):
            lock = threading.Lock()

            def do_POST(self) -> None:
                what = self.path[1:].partition("/")[0]
                place.asked.append(what)
                if what == place.lose and place.asked.count(what) in (2, 3):  # the first one: the request
                    if place.asked.count(what) == 3:  # the second one: its response
                        self.wfile = io.BytesIO()
                        super().do_POST()
                    return
                if what == "session" and place.asked.count(what) == place.restart:
                    place.open_door()
                super().do_POST()

        self.desk, self.asked, self.lose, self.restart = Losing, [], "", 0
        self.certificate, key = self_signed(root)
        self.http = listening(Losing, self.certificate, key)
        self.address = f"127.0.0.1:{self.http.server_port}"
        self.open_door()
        session = Session.plan(SPEC, CLIENTS, federation="tests", number=1, round=1, roster=self.roster)
        self.desk.session = Server(session, 60.0, roster=self.roster)

    def open_door(self) -> None:
        self.desk.door = Admission(self.roster, "tests", self.address)

    def sum(self) -> None:
        job = (self.address, self.certificate, SPEC, (1,), lambda number, client: np.full(1000, client))
        threads = [
            threading.Thread(target=contribute, args=(self.root / str(i), *job), daemon=True) for i in CLIENTS
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert self.desk.session.result.survivors == (0, 1, 2)
        assert set(self.desk.session.result.counts.tolist()) == {3}
        assert not self.desk.session.refused

    def said(self, request: bytes) -> bytes:
        """The answer to what a stranger sends, and then no more of."""
        stranger = ssl.create_default_context(cafile=self.certificate)
        with (
            socket.create_connection(self.http.server_address, timeout=20) as plain,
            stranger.wrap_socket(plain, server_hostname="127.0.0.1") as wire,
        ):
            wire.sendall(request)
            return wire.recv(2000)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.http.shutdown()
    place.http.server_close()


@pytest.mark.parametrize("lose", ["challenge", "token", "session"])
def test_what_is_lost_is_sent_again(place: Place, lose: str) -> None:
    place.lose = lose
    place.sum()
    assert place.asked.count(lose) > 3


@pytest.mark.parametrize("restart", [4, 7])
def test_a_client_is_admitted_again_by_a_server_that_has_forgotten_it(place: Place, restart: int) -> None:
    place.restart = restart
    place.sum()
    assert place.asked.count("token") > 3


@pytest.mark.parametrize("length", [b"-1", b"", b"x", b"1e3", b"99999999999999", b"+5", b"4000000"])
def test_a_length_that_no_request_has_is_refused_unread(place: Place, length: bytes) -> None:
    began = time.monotonic()
    answer = place.said(b"POST /challenge/0 HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\n")
    assert b" 413 " in answer.splitlines()[0]
    assert b" 413 " in place.said(b"POST /session HTTP/1.1\r\n\r\n").splitlines()[0]
    assert time.monotonic() - began < 10


def test_nobody_without_a_token_is_in_a_session(place: Place) -> None:
    for line in (b"", b"Authorization: x\r\n"):
        answer = place.said(b"POST /session HTTP/1.1\r\n" + line + b"Content-Length: 0\r\n\r\n")
        assert b" 403 " in answer.splitlines()[0]


def test_the_longest_request_is_within_the_limit(place: Place) -> None:
    limit, sizes = longest(place.desk.session), []
    take = place.desk.session.handle
    place.desk.session.handle = lambda peer, body, now: sizes.append(len(body)) or take(peer, body, now)
    place.sum()
    assert max(sizes) < limit
    assert longest(None) == 1024


@pytest.mark.parametrize("body", [b"", b"abc", b"x" * 9])
def test_a_body_that_was_cut_off_is_no_request(place: Place, body: bytes) -> None:
    desk = Desk.__new__(Desk)
    desk.path, desk.headers = "/challenge/0", {"Content-Length": "10"}
    desk.rfile, desk.wfile = io.BytesIO(body), io.BytesIO()
    desk.door = place.desk.door
    desk.do_POST()
    assert desk.wfile.getvalue() == b""
