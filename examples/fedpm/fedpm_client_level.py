"""FedPM with a secure sum and client-level privacy: masks are clipped, randomized, accounted for."""

import numpy as np
import torch
from layers import MaskedConv2d, MaskedLinear
from setting import BATCH, CLIENTS, EPOCHS, RATE, ROUNDS, accuracy, build, shares
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from prism_privacy import Accountant, Adjacency, CoinSecret, MaskRelease, View
from prism_secure.plug_in import release_mask, secure_counts

draws = np.random.default_rng(0)
release = MaskRelease(flip=0.25, clip=4.0, cohort=CLIENTS)
account = Accountant(delta=1e-5)


class Client:
    def __init__(self, images, labels):
        self.model = build(MaskedConv2d, MaskedLinear)
        self.loader = DataLoader(TensorDataset(images, labels), batch_size=BATCH, shuffle=True)
        self.scores = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.coins = CoinSecret()
        self.optimizer = torch.optim.Adam(self.scores.values(), lr=RATE)

    def update(self, theta, number):
        """Train from the broadcast probabilities; the mask to send, one array a layer."""
        for name, scores in self.scores.items():
            scores.data = torch.from_numpy(theta[name]).logit().float()
        for _ in range(EPOCHS):
            for images, labels in self.loader:
                self.optimizer.zero_grad()
                cross_entropy(self.model(images), labels).backward()
                self.optimizer.step()
        mine = {name: scores.detach().double().sigmoid().numpy() for name, scores in self.scores.items()}
        return release_mask(mine, theta, release, self.coins, federation="fedpm", round=number)


class Server:
    def __init__(self):
        self.model = build(MaskedConv2d, MaskedLinear)
        scores = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.theta = {name: p.detach().double().sigmoid().numpy() for name, p in scores.items()}

    def aggregate(self, masks):
        """The mode of the Beta posterior, its prior reset to Beta(1, 1) every round."""
        ones = secure_counts(masks, release)
        for name in self.theta:
            alpha, beta = 1 + ones[name], 1 + len(masks) - ones[name]
            self.theta[name] = np.clip((alpha - 1) / (alpha + beta - 2), 0.01, 0.99)


server, clients = Server(), [Client(*share) for share in shares(CLIENTS)]
for number in range(1, ROUNDS + 1):
    server.aggregate([client.update(server.theta, number) for client in clients])
    account.spend(release)
    print(f"round {number:2}: test accuracy {accuracy(server.model, server.theta):.1%}", flush=True)
print(f"client-level epsilon: {account.epsilon(View.SUM, Adjacency.ZERO_OUT):.1f} (sum, zero_out)")
