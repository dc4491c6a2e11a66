"""Rounds of large cohorts: the secure sum of measured rounds' bits, and a whole run of one round."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from prism_crypto import secure_sum
from prism_secure.bench.rows import Row, in_turn
from prism_secure.config import load_config
from prism_secure.rounds.simulation import run

BITS = 4096


def rows(tries: int, *, quick: bool = False) -> Iterator[Row]:
    """Every party's work in this one process, so seconds are of all of them together."""
    for cohort in (50,) if quick else (100, 1_000):
        bits = [np.random.default_rng(index).integers(0, 2, BITS, dtype=np.uint8) for index in range(cohort)]

        opened = partial(secure_sum, bits, mode="semi_honest", min_survivors=cohort)
        ours, other = in_turn(min(tries, 3), opened, partial(opened, simulate=True), least=0.0)
        yield Row(
            name=f"secure sum of {BITS:,} bits of {cohort:,} clients, nobody may drop", unit="s", ours=ours,
            instead="the sum in the clear, and the sizes of messages", other=other,
        )  # fmt: skip
    clients = 10 if quick else 200
    small = [
        f"federation.clients={clients}", "federation.rounds=1", "federation.workers=1", "model.width=4",
        "measured.epsilon=1", "measured.end_steps=0", "measured.directions=256", "measured.coordinates=256",
        "measured.rows=64", "privacy.colluders=0", "metrics.samples=200", "metrics.utility=off",
    ]  # fmt: skip

    def whole(*, simulate: bool) -> object:
        with tempfile.TemporaryDirectory() as folder:
            config = load_config(
                recipe="cross-device", overrides=[*small, f"secure_sum.simulate={str(simulate).lower()}"]
            )
            return run(config, Path(folder) / "run")

    ours, other = in_turn(1, partial(whole, simulate=False), partial(whole, simulate=True), least=0.0)
    yield Row(
        name=f"a run of one measured round, {clients} clients, start, metrics and report included", unit="s",
        ours=ours, instead="the same with the sum in the clear", other=other,
    )  # fmt: skip
