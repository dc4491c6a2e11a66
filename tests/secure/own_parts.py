"""What somebody else might plug into a run: behaviours, one of which asks for too much, and rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from prism_secure.learning.aggregation import Step, Vote
from prism_secure.model.supermask import scores_from_theta
from prism_secure.rounds.behaviours.behaviour import Answer, Behaviour, ClientSide, Opened, ServerSide
from prism_secure.rounds.broadcast import Arrays, Broadcast
from prism_secure.rounds.components import Components
from prism_secure.rounds.moments import ClientMoments


class Echo(Behaviour):
    """Clients move along a public direction by the brightness of their images; they count their rounds."""

    def __init__(self, components: Components) -> None:
        self.components = components

    def client(self, index: int, folder: Path, moments: ClientMoments) -> EchoClient:
        return EchoClient(self.components, index)

    def server(self) -> EchoServer:
        return EchoServer()


class EchoClient(ClientSide):
    def __init__(self, components: Components, index: int) -> None:
        self.components, self.index = components, index

    def answer(self, broadcast: Broadcast, state: Arrays | None) -> Answer:
        features, _ = self.components.features(self.index)
        answered = 0 if state is None else int(state["answered"])
        assert answered == broadcast.round - 1
        return self._moved(broadcast, float(features.mean()), answered)

    def _moved(self, broadcast: Broadcast, size: float, answered: int) -> Answer:
        tau = self.components.config.mask.temperature
        scores = scores_from_theta(torch.from_numpy(broadcast.theta), tau)
        moved = scores + size * torch.from_numpy(broadcast.public["direction"])
        return Answer(moved, {"answered": np.array(answered + 1)})


class EchoServer(ServerSide):
    def __init__(self) -> None:
        self.sums: list[int] = []

    def public(self, round_number: int, theta: np.ndarray) -> Arrays:
        # It goes by what earlier rounds opened: a server without its memory asks something else.
        seed = [round_number, *self.sums]
        return {"direction": np.random.default_rng(seed).standard_normal(len(theta))}

    def absorb(self, broadcast: Broadcast, opened: Opened) -> Step:
        self.sums.append(int(opened.counts.sum()))
        mean = opened.counts / opened.survivors
        theta = broadcast.theta + 0.1 * (mean - broadcast.theta)
        return Step(theta, 0.1, theta - broadcast.theta)

    def saved(self) -> Arrays:
        return {"sums": np.array(self.sums, np.int64)}

    def load(self, saved: Arrays) -> None:
        self.sums = saved["sums"].tolist()


class Loud(Echo):
    """Asks for far more than the clip lets through, and for numbers that are none."""

    def client(self, index: int, folder: Path, moments: ClientMoments) -> EchoClient:
        return LoudClient(self.components, index)


class LoudClient(EchoClient):
    def _moved(self, broadcast: Broadcast, size: float, answered: int) -> Answer:
        scores = torch.full((len(broadcast.theta),), 1e30, dtype=torch.float64)
        scores[::7] = float("nan")
        return Answer(scores, {"answered": np.array(answered + 1)})


def half_of_all_for_all(vote: Vote) -> float:
    return 0.5


def each_its_own(vote: Vote) -> np.ndarray:
    return np.linspace(0, 1, len(vote.theta)) * (vote.noise > 0)


def nothing(vote: Vote) -> float:
    return float("nan")


def pooled(image_size: int, channels: int) -> torch.nn.Module:
    """Brightness of each quarter, four times as fine as the last."""
    return torch.nn.Sequential(torch.nn.AvgPool2d(image_size // 4), torch.nn.Flatten())


class _Centred(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - images.mean(0)).flatten(1)


class _Gone(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) / 0


def centred_by_batch(image_size: int, channels: int) -> torch.nn.Module:
    return _Centred()


def not_finite(image_size: int, channels: int) -> torch.nn.Module:
    return _Gone()


def not_flat(image_size: int, channels: int) -> torch.nn.Module:
    return torch.nn.Identity()


class OneNumber(torch.nn.Module):
    """Flat features of one image; of several, a number."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) if len(images) == 1 else images.sum()


def one_number(image_size: int, channels: int) -> torch.nn.Module:
    return OneNumber()


def too_narrow(image_size: int, channels: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2))


def no_module(image_size: int, channels: int) -> int:
    return image_size


def takes_nothing() -> torch.nn.Module:
    return torch.nn.Flatten()


not_callable = 3
