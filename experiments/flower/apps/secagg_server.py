"""Rounds of Flower's SecAgg+ with its defaults."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerApp, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import Grid
from measured import MeasuredGrid, Round, write

app = ServerApp()


class MeasuredRounds(SecAggPlusWorkflow):
    """Each call is one round."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.figures: list[dict[str, float]] = []

    def __call__(self, grid, context) -> None:
        with Round(grid) as measured:
            super().__call__(grid, context)
        self.figures.append(measured.figures)


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    clients, dimension = int(config["clients"]), int(config["dimension"])
    while len(list(grid.get_node_ids())) < clients:
        time.sleep(1)
    opened = {}
    strategy = FedAvg(
        min_fit_clients=clients, min_available_clients=clients, fraction_evaluate=0.0,
        initial_parameters=ndarrays_to_parameters([np.zeros(dimension, np.float32)]),
        evaluate_fn=lambda number, arrays, _: opened.update({number: arrays[0]}),
    )  # fmt: skip
    workflow = MeasuredRounds(num_shares=clients, reconstruction_threshold=2 * clients // 3 + 1, timeout=1200)
    legacy = LegacyContext(context, ServerConfig(num_rounds=int(config["rounds"])), strategy)
    DefaultWorkflow(fit_workflow=workflow)(MeasuredGrid(grid), legacy)
    expected = sum(
        np.random.default_rng(node).integers(0, 2, dimension).astype(np.float64)
        for node in grid.get_node_ids()
    )
    error = float(np.abs(opened[int(config["rounds"])] * clients - expected).max())
    assert error < 0.01, error
    write(workflow.figures, f"{config['figures']}/server.json")
