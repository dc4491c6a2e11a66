"""A client of secure sums over HTTPS: what to copy."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

import numpy as np

from prism_crypto import CountSpec, SecureSumError
from prism_crypto.drive import Client
from prism_crypto.hello import say_hello

Vector = Callable[[int, int], np.ndarray]


def contribute(
    folder: Path, address: str, certificate: Path, spec: CountSpec, rounds: Iterable[int], vector: Vector
) -> None:
    """`vector(round, client_id)` into the sum of each round, until the server has no more.

    Whoever wants the sum reads it from `client.result`.
    """
    client, trusted, token = Client(folder), ssl.create_default_context(cafile=certificate), ""

    def post(path: str, body: bytes = b"", pauses: Sequence[float] = (0.1, 0.5, 2, 5)) -> tuple[int, bytes]:
        """Status and answer; what gets lost on its way is sent again, the same bytes."""
        with closing(HTTPSConnection(address, context=trusted, timeout=60)) as connection:
            try:
                connection.request("POST", path, body, {"Authorization": token})
                response = connection.getresponse()
                return response.status, response.read()
            except (OSError, HTTPException):
                if not pauses:
                    raise
        time.sleep(pauses[0])
        return post(path, body, pauses[1:])

    def ask(request: bytes) -> bytes | None:
        """None: the server has no more rounds. One that has begun again admits its clients again."""
        nonlocal token
        for _ in range(4):
            status, answer = post("/session", request)
            if status in (200, 410):
                return answer if status == 200 else None
            _, challenge = post(f"/challenge/{client.client_id}")
            hello = say_hello(client.identity, client.federation, challenge, address)
            _, found = post(f"/token/{client.client_id}", hello)
            token = found.decode()  # empty, where a challenge was lost on its way
        raise ConnectionError(f"{address} answers with status {status}")

    for number in rounds:
        request = client.join(spec, partial(vector, number, client.client_id), round=number)
        try:
            while request is not None:
                if (answer := ask(request)) is None:
                    return
                request = client.handle(answer)
                if client.waiting:
                    time.sleep(0.1)
        except SecureSumError as error:  # out of this round
            print(f"client {client.client_id}, round {number}: {error}", flush=True)
