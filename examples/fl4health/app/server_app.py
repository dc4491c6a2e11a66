"""The server: opens one sum a round, and divides each layer's count by those whose turn it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from app.task import LAYERS, RELEASE, cohort, load_theta, network, shapes
from prism_crypto import CountSpec
from prism_privacy import Accountant, Adjacency, View, debias
from prism_secure.data import load, to_float
from prism_secure.flower import SecureSum
from prism_secure.plug_in import Layers
from prism_secure.run_folder.enrolment import read_membership

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    root = Path(str(context.run_config["clients-folder"]))
    federation, roster = read_membership(root / "server")
    layers = Layers.of({name: np.empty(shape) for name, shape in shapes().items()})
    theta = {name: np.full(shape, 0.5) for name, shape in layers.shapes}
    summed = SecureSum(
        grid, roster, federation, run_config=context.run_config, min_survivors=len(roster), timeout=600
    )
    account = Accountant(delta=1e-5)
    for number in range(1, int(context.run_config["rounds"]) + 1):
        content = RecordDict({"theta": ArrayRecord({name: Array(theta[name]) for name in theta})})
        result = summed.open(content, CountSpec(layers.dimension), round=number)
        account.spend(RELEASE)
        counts = layers.split(result.counts)
        present = {name: len(cohort(name, number, result.survivors)) for name in LAYERS}
        for name in LAYERS:
            mean = debias(counts[name], present[name], RELEASE.flip)
            theta[name] = np.clip(mean, 0.05, 0.95)
        epsilon = account.epsilon(View.SUM, Adjacency.ZERO_OUT)
        with Path(context.run_config["results"]).open("a") as results:
            print(
                f"round {number}: test accuracy {accuracy(theta):.1%}, clients a layer "
                f"{tuple(present.values())} of {len(result.survivors)}, client-level epsilon {epsilon:.0f}",
                file=results,
            )


@torch.no_grad()
def accuracy(theta: dict[str, np.ndarray]) -> float:
    """Of the mask that keeps what θ says is kept more often than not."""
    data, model = load(image_size=28), network()
    load_theta(model, {name: np.where(layer > 0.5, 1.0, 0.0) for name, layer in theta.items()})
    right = model(to_float(data.test_images)).argmax(1) == data.test_labels
    return float(right.double().mean())
