"""Random bits as float32, summed by Flower's SecAgg+."""

from __future__ import annotations

import numpy as np
from flwr.app import Context
from flwr.client import ClientApp, NumPyClient
from flwr.client.mod import secaggplus_mod
from measured import timed, training


class Client(NumPyClient):
    def __init__(self, node: int) -> None:
        self._node = node

    def fit(self, parameters, config):
        with training():
            bits = np.random.default_rng(self._node).integers(0, 2, parameters[0].shape).astype(np.float32)
        return [bits], 1, {}


def client_fn(context: Context):
    return Client(context.node_id).to_client()


app = ClientApp(client_fn, mods=[timed, secaggplus_mod])
