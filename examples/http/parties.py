"""A client and a server of secure sums over HTTPS: what to copy. `run.py` is around it."""

from __future__ import annotations

import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from functools import partial
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np

from prism_crypto import CountSpec, SecureSumError
from prism_crypto.drive import Admission, Client, Server
from prism_crypto.hello import say_hello


def contribute(
    folder: Path,
    url: str,
    certificate: Path,
    spec: CountSpec,
    rounds: Iterable[int],
    vector: Callable[[int, int], np.ndarray],
    alter: Callable[[int, int, bytes], bytes] = lambda number, client_id, request: request,
) -> None:
    """A client: `vector(number, client_id)` into the sum of each round, until the server has no more.

    `alter` is for the example's liar. Whoever wants the sum reads it from `client.result`.
    """
    client, trusted = Client(folder), ssl.create_default_context(cafile=certificate)

    def post(path: str, body: bytes, token: str = "") -> bytes:
        """The response; what got lost on its way is sent again, the same bytes."""
        request = urllib.request.Request(f"{url}/{path}", body, {"Authorization": token})
        for pause in (0.1, 0.5, 2.0, 5.0, None):
            try:
                with urllib.request.urlopen(request, context=trusted, timeout=60) as response:
                    return response.read()
            except urllib.error.HTTPError:  # an answer
                raise
            except (OSError, HTTPException):
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError

    def admitted() -> str:
        for last in (False, False, True):
            challenge = post(f"challenge/{client.client_id}", b"")
            hello = say_hello(client.identity, client.federation, challenge, url)
            try:
                return post(f"token/{client.client_id}", hello).decode()
            except urllib.error.HTTPError:  # the token got lost, and its challenge is used up
                if last:
                    raise
        raise AssertionError

    token = admitted()

    def ask(request: bytes) -> bytes:
        nonlocal token
        try:
            return post("session", request, token)
        except urllib.error.HTTPError as error:
            if error.code != 403:
                raise
        token = admitted()  # the server has begun again, and has forgotten the one before
        return post("session", request, token)

    for number in rounds:
        request = client.join(spec, partial(vector, number, client.client_id), round=number)
        try:
            while request is not None:
                altered = alter(number, client.client_id, request)
                request = client.handle(ask(altered))
                if client.waiting:
                    time.sleep(0.1)
        except SecureSumError as error:  # out of this round
            print(f"client {client.client_id}, round {number}: {error}", flush=True)
        except urllib.error.HTTPError as error:
            if error.code != 410:
                raise
            return  # the server has no more rounds


def longest(server: Server | None) -> int:
    """Bytes of the longest request of a session: an upload, or something for each of the others."""
    if server is None:
        return 2**10
    return 2**16 + 2**10 * server.session.invited.count + 8 * server.session.packing.length


class Desk(BaseHTTPRequestHandler):
    """The server's side: who is there, by a token, and what it has to say to the session that is on.

    `door` and `session` are set by who starts it; its threads take turns.
    """

    door: Admission
    session: Server | None = None
    timeout = 60
    lock = threading.Lock()

    def do_POST(self) -> None:
        what, _, who = self.path[1:].partition("/")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,12}", length) or int(length) > longest(self.session):
            return self.send_error(413)
        body = self.rfile.read(int(length))
        if len(body) < int(length):  # cut off on its way: the client sends it again
            return None
        try:
            with self.lock:
                answer = self.answer(what, who, body)
        except (SecureSumError, ValueError) as error:
            return self.send_error(403, type(error).__name__)
        self.send_response(200 if answer is not None else 410)
        self.send_header("Content-Length", str(len(answer or b"")))
        self.end_headers()
        self.wfile.write(answer or b"")
        return None

    def answer(self, what: str, who: str, body: bytes) -> bytes | None:
        if what == "challenge":
            return self.door.challenge(int(who))
        if what == "token":
            return self.door.token(int(who), body).encode()
        peer = self.door.owner(self.headers.get("Authorization"))
        return None if self.session is None else self.session.handle(peer, body, time.monotonic())

    def log_message(self, *_: object) -> None:
        """Nothing on the console."""
