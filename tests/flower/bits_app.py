"""A Flower app as a user would write it: each client sends random bits of its own in the model's shapes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from prism_crypto import InputError
from prism_secure.errors import DataError
from prism_secure.flower import client_folder, secure_sum

app = ClientApp()


@secure_sum(app)
def train(message: Message, context: Context) -> Message:
    config = message.content.get("config", {})
    while "gate" in config and not Path(config["gate"]).exists():
        time.sleep(0.05)
    client = int(client_folder(context).name)
    if client == config.get("failing", -1):
        raise ValueError(f"a record of client {client}")
    if client == config.get("unreadable", -1):
        raise DataError(f"a record of client {client} cannot be read")
    if client == config.get("misused", -1):
        raise InputError(f"a record of client {client}")
    if client == config.get("poisoning", -1):
        return Message(RecordDict({"bits": ArrayRecord([np.full(5, 7)])}), reply_to=message)
    arrays = message.content["arrays"]
    rate = int(context.run_config.get("rate", 1))  # 0: nothing is learned
    mine = {name: Array(bits_of(client, name, array.shape) * rate) for name, array in arrays.items()}
    rounds = context.state.get("seen", {"rounds": 0})["rounds"] + 1
    told = {"group": int(message.metadata.group_id), "seconds": message.metadata.ttl}
    context.state["seen"] = MetricRecord({"rounds": rounds, **told})
    metrics = MetricRecord({"my-examples": 10 * client})
    return Message(RecordDict({"arrays": ArrayRecord(mine), "metrics": metrics}), reply_to=message)


bound_app = ClientApp()


@secure_sum(bound_app, binding=lambda context: b"preprocessing 2")
def train_bound(message: Message, context: Context) -> Message:
    return train(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)


def bits_of(client: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng([client, *name.encode()])
    return rng.integers(0, 2, shape, dtype=np.uint8)
