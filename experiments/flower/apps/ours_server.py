"""Rounds of prism-secure's secure sum."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, RecordDict
from flwr.serverapp import Grid, ServerApp
from measured import MeasuredGrid, Round, write

from prism_crypto import CountSpec
from prism_secure.flower import SecureSum
from prism_secure.run_folder.enrolment import read_membership

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    clients, dimension = int(config["clients"]), int(config["dimension"])
    federation, roster = read_membership(Path(str(config["folder"])))
    while len(list(grid.get_node_ids())) < clients:
        time.sleep(1)
    measured = MeasuredGrid(grid)
    summed = SecureSum(
        measured, roster, federation, run_config=config, mode=str(config["mode"]), timeout=1200
    )
    model = RecordDict()
    if config["model"]:  # the same parameters that the other side sends to be trained, float32
        model["arrays"] = ArrayRecord({"x": Array(np.zeros(dimension, np.float32))})
    rounds = []
    for number in range(1, int(config["rounds"]) + 1):
        with Round(measured) as round_:
            result = summed.open(model, CountSpec(dimension), round=number)
        rounds.append(round_.figures)
        assert len(result.survivors) == clients
    expected = sum(
        np.random.default_rng(node).integers(0, 2, dimension, dtype=np.uint8).astype(np.int64)
        for node in grid.get_node_ids()
    )
    assert np.array_equal(result.counts, expected)
    write(rounds, f"{config['figures']}/server.json")
