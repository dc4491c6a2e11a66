"""FedPM with a secure sum and DP-SGD on the scores: epsilon for one image, from an observer of masks."""

import numpy as np
import torch
from setting import BATCH, CLIENTS, EPOCHS, LOT, RATE, RECORDS, ROUNDS, STEPS, accuracy, build, shares
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from prism_secure.plug_in import secure_counts
from prism_secure.plug_in.dp_scores import DpSgd, make_private
from prism_secure.plug_in.masked_layers import MaskedConv2d, MaskedLinear

draws = np.random.default_rng(0)
plan = DpSgd.calibrated(epsilon=8, delta=1e-5, records=RECORDS, batch=LOT, steps=STEPS, clip=0.15)


class Client:
    def __init__(self, images, labels):
        self.model = build(MaskedConv2d, MaskedLinear)
        self.loader = DataLoader(TensorDataset(images, labels), batch_size=BATCH, shuffle=True)
        self.scores = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.Adam(self.scores.values(), lr=RATE)
        self.optimizer, self.loader = make_private(self.model, self.optimizer, self.loader, plan)

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
        return {name: draws.binomial(1, p) for name, p in mine.items()}


class Server:
    def __init__(self):
        self.model = build(MaskedConv2d, MaskedLinear)
        scores = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.theta = {name: p.detach().double().sigmoid().numpy() for name, p in scores.items()}

    def aggregate(self, masks):
        """The mode of the Beta posterior, its prior reset to Beta(1, 1) every round."""
        ones = secure_counts(masks)
        for name in self.theta:
            alpha, beta = 1 + ones[name], 1 + len(masks) - ones[name]
            self.theta[name] = np.clip((alpha - 1) / (alpha + beta - 2), 0.01, 0.99)


server, clients = Server(), [Client(*share) for share in shares(CLIENTS)]
for number in range(1, ROUNDS + 1):
    server.aggregate([client.update(server.theta, number) for client in clients])
    print(f"round {number:2}: test accuracy {accuracy(server.model, server.theta):.1%}", flush=True)
print(f"record-level epsilon: {plan.epsilon(1e-5):.2f} (one image, add_remove)")
