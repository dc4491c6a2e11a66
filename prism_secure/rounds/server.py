"""The server: theta and the step towards an opened sum. It never holds a client's mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from prism_secure.config import Config
from prism_secure.errors import RunFolderError
from prism_secure.learning.aggregation import aggregate, progress
from prism_secure.model.supermask import deployed_mask, initial_theta
from prism_secure.public_seed import public_seed
from prism_secure.rounds.client import Broadcast
from prism_secure.storage import write_atomic

Vector = NDArray[np.float64]


class Server:
    """theta after `round` finished rounds.

    Args:
        config: the run's configuration.
        federation: the run's id.
        dimension: d, the length of a mask.
    """

    def __init__(self, config: Config, federation: str, dimension: int) -> None:
        self.round = 0
        self._config = config
        self._federation = federation
        low = config.privacy.theta_min
        mask, seed = config.mask, public_seed(config.federation.seed, "scores")
        start = initial_theta(dimension, seed=seed, spread=mask.spread, law=mask.initial).numpy()
        self.theta: Vector = np.clip(start, low, 1 - low)
        self._move: Vector | None = None

    def broadcast(self) -> Broadcast:
        """What the clients of the next round start from."""
        return Broadcast(self._federation, self.round + 1, self.theta)

    def absorb(
        self,
        counts: NDArray[np.int64],
        survivors: int,
        *,
        planned_rounds: int,
        score_mean: Vector | None = None,
    ) -> float:
        """Move theta towards the debiased mean of the opened counts; returns the mean step lambda.

        Args:
            counts: int64 (d,), the sum of the survivors' bits.
            survivors: how many clients are in the sum.
            planned_rounds: how many there will be; schedules end with the last.
            score_mean: theta bar of the last coordinates, where these send scores and `counts` lacks them.
        """
        config = self._config
        step = aggregate(
            self.theta,
            counts,
            survivors=survivors,
            flip=config.privacy.flip,
            progress=progress(self.round, planned_rounds),
            aggregation=config.aggregation,
            theta_min=config.privacy.theta_min,
            move=self._move,
            rng=np.random.default_rng(public_seed(config.federation.seed, "mada", self.round)),
            score_mean=score_mean,
        )
        self.theta, self._move = step.theta, step.move
        self.round += 1
        return step.mean_lambda

    def deployed(self) -> NDArray[np.bool_]:
        """The one mask that would be deployed now, bool (d,)."""
        seed = public_seed(self._config.federation.seed, "deployed")
        mask = self._config.mask
        return deployed_mask(torch.from_numpy(self.theta), mask.mode, seed=seed, density=mask.density).numpy()

    def changed(self, before: NDArray[np.bool_]) -> int:
        """How many bits of the deployed mask differ from those of an earlier one."""
        return int(np.count_nonzero(self.deployed() != before))

    def is_measured(self, planned_rounds: int) -> bool:
        """Whether the last finished round is one whose deployed mask is evaluated."""
        return self.round % self._config.metrics.every == 0 or self.round == planned_rounds

    def save(self, path: Path) -> None:
        """Replace the checkpoint; readers find the old one or the new one."""
        move = np.zeros(0) if self._move is None else self._move
        write_atomic(path, save({"round": np.array(self.round), "theta": self.theta, "move": move}))

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            RunFolderError: it is damaged, or of another model.
        """
        try:
            arrays = load(path.read_bytes())
            round_number, theta, move = int(arrays["round"]), arrays["theta"], arrays["move"]
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise RunFolderError(f"{path} is damaged: {error}") from None
        if theta.shape != self.theta.shape:
            raise RunFolderError(f"{path} is of a model with {len(theta)} weights, not {len(self.theta)}")
        self.round, self.theta, self._move = round_number, theta, move if len(move) else None
