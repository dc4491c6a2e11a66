"""A client: FedPM's local training; of its mask the layers whose turn it is, zeros for the others."""

from __future__ import annotations

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch.nn.functional import cross_entropy

from app.task import CLIENTS, LAYERS, RELEASE, load_theta, network, turns
from prism_privacy import CoinSecret
from prism_secure.data import load, to_float
from prism_secure.flower import client_folder, secure_sum
from prism_secure.plug_in import release_mask
from prism_secure.plug_in.masked_layers import trainable

app = ClientApp()


@secure_sum(app)
def train(message: Message, context: Context) -> Message:
    folder = client_folder(context)
    client, number = int(folder.name), int(message.content["secure_sum"]["round"])
    theta = {name: array.numpy() for name, array in message.content["theta"].items()}
    probabilities = local_training(client, theta)
    coins = folder / "mask-coins.key"
    secret = CoinSecret.load(coins) if coins.exists() else CoinSecret.create(coins)
    mine = turns(client, number)
    bits = release_mask(
        {name: probabilities[name] for name in mine},
        {name: theta[name] for name in mine},
        RELEASE,
        secret,
        federation=f"run {context.run_id}",
        round=number,
    )
    mask = {name: Array(bits.get(name, np.zeros(theta[name].shape, np.uint8))) for name in theta}
    return Message(RecordDict({"mask": ArrayRecord(mask)}), reply_to=message)


def local_training(client: int, theta: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """θ of each layer after two passes over this client's images."""
    data = load(image_size=28)
    images, labels = to_float(data.train_images[client::CLIENTS]), data.train_labels[client::CLIENTS]
    model = network()
    load_theta(model, theta)
    optimizer = torch.optim.Adam(trainable(model), lr=0.3)
    for _ in range(2):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    scores = {name: p.detach() for name, p in model.named_parameters() if name in LAYERS}
    return {name: p.double().sigmoid().numpy() for name, p in scores.items()}
