"""FedPM by measured rounds: epsilon for one image, from the very bits that the secure sum adds up."""

from functools import partial

import torch
from setting import ASKED, CLIENTS, DIRECTIONS, RECORDS, SHARPNESS, STEP, accuracy, build, shares
from torch.nn.functional import cross_entropy

from prism_crypto import secure_sum
from prism_privacy import CoinSecret, MeasuredRelease, Unit, View, calibrate_measured
from prism_secure.data.public_images import dead_leaves
from prism_secure.plug_in.masked_layers import MaskedConv2d, MaskedLinear
from prism_secure.plug_in.measured_gradient import MeasuredGradient, principal_directions

release = MeasuredRelease(
    flip=0.4, clip=1.0, client_clip=0.5, record_clip=0.5, records=RECORDS,
    coordinates=2**16, directions=10 * DIRECTIONS, cohort=CLIENTS,
)  # fmt: skip
plan = calibrate_measured(
    [release] * ASKED, epsilon=2, delta=1e-5, unit=Unit.RECORD, view=View.SUM, adjacency="swap"
)


def network():
    return build(partial(MaskedConv2d, mode="hard"), partial(MaskedLinear, mode="hard"))


def loss(moves, public, features, label):
    """One image's, as the last layer's scores begin to move from the mask of the round."""
    logits = SHARPNESS * (public["kept"] @ features)
    return cross_entropy(logits + moves.view(10, -1) @ (public["directions"] @ features), label)


class Client:
    def __init__(self, images, labels):
        self.features, self.labels = network()[:-1](images).detach(), labels
        self.coins = CoinSecret()

    def update(self, asked):
        """Which way its images pull the scores: the bits to send."""
        return asked.bits(self.coins, self.features, self.labels)


class Server:
    def __init__(self):
        self.model = network()
        scores = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.theta = {name: p.detach().double().sigmoid().numpy() for name, p in scores.items()}
        self.weight, self.scores = self.model[-1].weight, self.model[-1].scores.detach().clone()
        public = self.model[:-1](dead_leaves(40 * DIRECTIONS, side=28, seed=1)).detach()
        self.directions = principal_directions(public, DIRECTIONS)
        self.speed, self.path = torch.zeros(10, DIRECTIONS), [torch.zeros(10, DIRECTIONS)]

    def moved(self, moves):
        """The last layer's scores, `moves` along the directions from where they began."""
        return self.scores + self.weight.sign() * (moves @ self.directions)

    def ask(self, number):
        """What every party knows of a round."""
        public = {"kept": self.weight * (self.moved(self.path[-1]) > 0), "directions": self.directions}
        return MeasuredGradient(plan.releases[number - 1], loss, public, federation="fedpm", round=number)

    def aggregate(self, asked, bits):
        """A step with momentum; theta is that of the last moves' mean."""
        counts = secure_sum(bits, min_survivors=CLIENTS).counts
        gradient = torch.from_numpy(asked.mean(counts, len(bits)).value).float().view(10, -1)
        self.speed = 0.8 * self.speed + 0.2 * gradient
        self.path.append(self.path[-1] - STEP * self.speed)
        recent = torch.stack(self.path[-(ASKED // 5) :]).mean(0)
        self.theta["5.scores"] = self.moved(recent).double().sigmoid().numpy()


server, clients = Server(), [Client(*share) for share in shares(CLIENTS)]
for number in range(1, ASKED + 1):
    asked = server.ask(number)
    server.aggregate(asked, [client.update(asked) for client in clients])
    print(f"round {number:2}: test accuracy {accuracy(server.model, server.theta):.1%}", flush=True)
print(f"record-level epsilon: {plan.epsilon:.2f} (one image, sum, swap)")
