"""A Flower app as a user would write it: each client sends random bits of its own in the model's shapes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from prism_crypto import FixedPoint, InputError
from prism_crypto.primitives.keys import SEAL_OVERHEAD, seal
from prism_crypto.stages import share
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


REAL = {
    "codec": FixedPoint(4.0, 2**20),
    "weight": "num-examples",
    "max_weight": 1000,
    "metrics": {"loss": FixedPoint(10.0, 2**20), "correct": 100},
}
real_app = ClientApp()


@secure_sum(real_app, **REAL)
def train_reals(message: Message, context: Context) -> Message:
    client, config = int(client_folder(context).name), message.content.get("config", {})
    arrays = message.content["arrays"]
    mine = {name: Array(reals_of(client, name, array.shape)) for name, array in arrays.items()}
    metrics = {"num-examples": examples_of(client), "loss": 0.5 * client, "correct": 7 * client, "mine": 1.0}
    for how, (name, value) in {
        "heavy": ("num-examples", 1001),
        "negative": ("num-examples", -1),
        "fractional": ("num-examples", 2.5),
        "countless": ("correct", 101),
        "boundless": ("loss", float("nan")),
    }.items():
        if client == config.get(how, -1):
            metrics[name] = value
    if client == config.get("diverging", -1):
        mine["bias"] = Array(np.full(5, np.inf))
    return Message(
        RecordDict({"arrays": ArrayRecord(mine), "metrics": MetricRecord(metrics)}), reply_to=message
    )


def _counted(message: Message, context: Context) -> Message:
    reply = train(message, context)
    reply.content["metrics"] = MetricRecord({"num-examples": 10})
    return reply


unweighed_app, uniform_app, sign_app = ClientApp(), ClientApp(), ClientApp()


@secure_sum(unweighed_app)
def train_unweighed(message: Message, context: Context) -> Message:
    return _counted(message, context)


@secure_sum(uniform_app, weight="uniform")
def train_uniform(message: Message, context: Context) -> Message:
    return _counted(message, context)


@secure_sum(sign_app, codec="signs", weight="uniform")
def train_signs(message: Message, context: Context) -> Message:
    client = int(client_folder(context).name)
    arrays = message.content["arrays"]
    mine = {name: Array(signs_of(client, name, array.shape)) for name, array in arrays.items()}
    return Message(RecordDict({"arrays": ArrayRecord(mine)}), reply_to=message)


lying_app = ClientApp()


def _lies(context: Context) -> bytes:
    """In the clients' process: client 2 seals garbage for all others while a file says so, and signs that."""
    folder = client_folder(context)

    def sealed(key: bytes, between: bytes, ends: tuple[int, int], plain: bytes) -> bytes:
        lying = ends[0] == 2 != ends[1] and (folder / "lies").exists()
        return bytes(len(plain) + SEAL_OVERHEAD) if lying else seal(key, between, ends, plain)

    if int(folder.name) == 2:
        share.seal = sealed
    return b""


@secure_sum(lying_app, binding=_lies)
def train_lying(message: Message, context: Context) -> Message:
    return train(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)


def bits_of(client: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng([client, *name.encode()])
    return rng.integers(0, 2, shape, dtype=np.uint8)


def signs_of(client: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    draws = np.random.default_rng([client, *name.encode()])
    return draws.integers(-1, 1, shape, endpoint=True).astype(np.float32)


def reals_of(client: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([client, *name.encode()]).uniform(-3, 3, shape).astype(np.float32)


def examples_of(client: int) -> int:
    return (1000, 1, 250, 37)[client]
