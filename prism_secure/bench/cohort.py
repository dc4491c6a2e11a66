"""Rounds of large cohorts: the secure sum of measured rounds' bits, a client's answer, and a whole run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from prism_crypto import secure_sum
from prism_crypto.bench.rows import Row, in_turn
from prism_secure.config import Config, load_config
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.rounds.simulation import run
from prism_secure.rounds.workers import Workers

BITS = 4096
QUICK = ("model.image_size=8", 'features.extractors=["fourier"]')


def rows(tries: int, *, quick: bool = False) -> Iterator[Row]:
    """Every party's work in this one process: seconds are of all together, where a row says nothing else."""
    tries = min(tries, 3)
    for cohort in (10,) if quick else (100, 1_000):
        bits = [np.random.default_rng(index).integers(0, 2, BITS, dtype=np.uint8) for index in range(cohort)]

        opened = partial(secure_sum, bits, mode="semi_honest", min_survivors=cohort)
        ours, other = in_turn(tries, opened, partial(opened, simulate=True), least=0.0)
        yield Row(
            name=f"secure sum of {BITS:,} bits of {cohort:,} clients, nobody may drop", unit="s", ours=ours,
            instead="the sum in the clear, and the sizes of messages", other=other,
        )  # fmt: skip
    clients = 10 if quick else 200
    config = partial(_small, clients, QUICK if quick else ())
    answers = [taken for _ in range(tries) for taken in _answers(config(simulate=True))]
    yield Row(name=f"one client's answer in a measured round, of {clients}", unit="ms", ours=answers)

    def whole(*, simulate: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run(config(simulate=simulate), Path(folder) / "run")

    ours, other = in_turn(tries, partial(whole, simulate=False), partial(whole, simulate=True), least=0.0)
    yield Row(
        name=f"a run of one measured round, {clients} clients, start, metrics and report included", unit="s",
        ours=ours, instead="the same with the sum in the clear", other=other,
    )  # fmt: skip


def _small(clients: int, more: tuple[str, ...], *, simulate: bool) -> Config:
    return load_config(
        recipe="cross-device",
        overrides=[
            f"federation.clients={clients}", "federation.rounds=1", "federation.workers=1", "model.width=4",
            "measured.epsilon=1", "measured.end_steps=0", "measured.directions=256",
            "measured.coordinates=256", "measured.rows=64", "privacy.colluders=0", "metrics.samples=200",
            "metrics.utility=off", f"secure_sum.simulate={str(simulate).lower()}", *more,
        ],
    )  # fmt: skip


def _answers(config: Config) -> list[float]:
    """Milliseconds of one client of the first round, whose features have been read before."""
    components = Components(config)
    clients = config.federation.clients
    with tempfile.TemporaryDirectory() as folder, Workers(components, Path(folder)) as workers:
        list(workers.prepare("bench"))
        broadcast = Server.of(components, "bench").broadcast()
        answer = partial(workers.answer, broadcast, range(clients))
        return in_turn(1, lambda: list(answer()), least=0.0, scale=1e3 / clients)[0]
