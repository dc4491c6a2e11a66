"""A client and a server of secure sums over HTTPS: what to copy. `run.py` is around it."""

from __future__ import annotations

import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from functools import partial
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
        request = urllib.request.Request(f"{url}/{path}", body, {"Authorization": token})
        with urllib.request.urlopen(request, context=trusted, timeout=60) as response:
            return response.read()

    challenge = post(f"challenge/{client.client_id}", b"")
    hello = say_hello(client.identity, client.federation, challenge, url)
    token = post(f"token/{client.client_id}", hello).decode()
    for number in rounds:
        request = client.join(spec, partial(vector, number, client.client_id), round=number)
        try:
            while request is not None:
                altered = alter(number, client.client_id, request)
                request = client.handle(post("session", altered, token))
                if client.waiting:
                    time.sleep(0.1)
        except SecureSumError as error:  # out of this round
            print(f"client {client.client_id}, round {number}: {error}", flush=True)
        except urllib.error.HTTPError:  # the server has no more rounds
            return


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
        body = self.rfile.read(min(int(self.headers["Content-Length"]), 2**20))
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
        peer = self.door.owner(self.headers["Authorization"])
        return None if self.session is None else self.session.handle(peer, body, time.monotonic())

    def log_message(self, *_: object) -> None:
        """Nothing on the console."""
