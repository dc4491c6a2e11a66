"""Rounds of FedAvg over as many bytes as the secure sum's."""

from __future__ import annotations

import time

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from measured import MeasuredGrid, Round, write

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    clients, dimension = int(config["clients"]), int(config["dimension"])
    while len(list(grid.get_node_ids())) < clients:
        time.sleep(1)
    measured = MeasuredGrid(grid)
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    model = ArrayRecord({"x": Array(np.zeros(dimension, np.float32))})
    rounds = []
    for number in range(1, int(config["rounds"]) + 1):
        with Round(measured) as round_:
            messages = strategy.configure_train(number, model, ConfigRecord(), measured)
            strategy.aggregate_train(number, measured.send_and_receive(messages))
        rounds.append(round_.figures)
    write(rounds, f"{config['figures']}/server.json")
