"""signSGD with majority vote, every vote seen by the server (Bernstein et al., ICML 2018, algorithm 3)."""

import os

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from prism_secure.data import load, to_float

WORKERS, BATCH, RATE, MOMENTUM = 11, 64, 1e-3, 0.9
STEPS = int(os.environ.get("STEPS", "150"))

draws = np.random.default_rng(0)
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
data = load(image_size=28)
images, labels = to_float(data.train_images), data.train_labels
shares = torch.randperm(len(images)).chunk(WORKERS)
momenta = torch.zeros(WORKERS, len(parameters_to_vector(model.parameters())))


def vote(worker):
    """The signs of this worker's momentum, +1 as 1 and -1 as 0; an exact zero is left to a coin."""
    batch = draws.choice(shares[worker].numpy(), BATCH, replace=False)
    loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
    gradient = parameters_to_vector(torch.autograd.grad(loss, list(model.parameters())))
    momenta[worker] = MOMENTUM * momenta[worker] + (1 - MOMENTUM) * gradient
    coins = torch.from_numpy(draws.integers(0, 2, len(gradient)))
    return torch.where(momenta[worker] == 0, coins, momenta[worker] > 0).numpy()


for step in range(1, STEPS + 1):
    votes = [vote(worker) for worker in range(WORKERS)]
    ones = sum(votes)
    majority = torch.from_numpy(np.sign(2 * ones - WORKERS))
    with torch.no_grad():
        moved = parameters_to_vector(model.parameters()) - RATE * majority
        vector_to_parameters(moved.float(), model.parameters())
        if step % 25 == 0 or step == STEPS:
            right = model(to_float(data.test_images)).argmax(1) == data.test_labels
            print(f"step {step:3}: test accuracy {right.double().mean():.1%}", flush=True)
