"""The server: theta and the step towards an opened sum. It never holds a client's mask."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from prism_secure.config import Config
from prism_secure.config.public_seed import public_seed
from prism_secure.errors import RunFolderError
from prism_secure.learning.aggregation import Step, progress
from prism_secure.learning.moment_matching import FeatureMoments
from prism_secure.model.supermask import deployed_mask, initial_theta
from prism_secure.rounds.arrays import packed
from prism_secure.rounds.behaviours.behaviour import Opened, ServerSide
from prism_secure.rounds.behaviours.choice import behaviour_of
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.components import Components
from prism_secure.storage import write_atomic

Vector = NDArray[np.float64]


class Moved(NamedTuple):
    """What moved theta in a round.

    Attributes:
        step: the mean step lambda; 0 where theta stays.
        loss: mean loss of the server's own training on what was opened; None where it does not train.
    """

    step: float
    loss: float | None


class Server:
    """theta after `round` finished rounds.

    Args:
        config: the run's configuration.
        federation: the run's id.
        dimension: d, the length of a mask.
        side: the server's part of the behaviour.
    """

    def __init__(self, config: Config, federation: str, dimension: int, side: ServerSide) -> None:
        self.round = 0
        self._config = config
        self._federation = federation
        low = config.privacy.theta_min
        mask, seed = config.mask, public_seed(config.federation.seed, "scores")
        start = initial_theta(dimension, seed=seed, spread=mask.spread, law=mask.initial).numpy()
        self.theta: Vector = np.clip(start, low, 1 - low)
        self._side = side
        self._sent: Broadcast | None = None

    @classmethod
    def of(cls, components: Components, federation: str) -> Server:
        """The server of a configuration, before round 1."""
        side = behaviour_of(components).server()
        return cls(components.config, federation, components.trainer.dimension, side)

    def broadcast(self) -> Broadcast:
        """What the clients of the next round start from."""
        number, sent = self.round + 1, self._sent
        if sent is None or sent.round != number or sent.theta is not self.theta:
            sent = Broadcast(self._federation, number, self.theta, self._side.public(number, self.theta))
            self._sent = sent
        return sent

    def absorb(
        self,
        counts: NDArray[np.int64],
        survivors: int,
        *,
        planned_rounds: int,
        score_mean: Vector | None = None,
        moments: FeatureMoments | None = None,
    ) -> Moved:
        """Move theta by what a round opened.

        Args:
            counts: int64 (k,), the sum of the survivors' bits.
            survivors: how many clients are in the sum.
            planned_rounds: how many there will be; schedules end with the last.
            score_mean: theta bar of the last coordinates, where these send scores and `counts` lacks them.
            moments: what opened before round 1, with a summed record-level release.
        """
        done = progress(self.round, planned_rounds)
        opened = Opened(counts, survivors, done, score_mean, moments)
        return self._move(self._side.absorb(self.broadcast(), opened))

    def lose(self, moments: FeatureMoments | None = None) -> Moved:
        """Go on after a round that opened nothing."""
        return self._move(self._side.lost(self.broadcast(), moments))

    def _move(self, step: Step | None) -> Moved:
        self.round += 1
        if step is None:
            return Moved(0.0, None)
        low = self._config.privacy.theta_min
        self.theta = np.clip(np.asarray(step.theta, np.float64), low, 1 - low)
        return Moved(step.mean_lambda, step.loss)

    def deployed(self) -> NDArray[np.bool_]:
        """The one mask that would be deployed now, bool (d,)."""
        seed = public_seed(self._config.federation.seed, "deployed")
        mask = self._config.mask
        return deployed_mask(torch.from_numpy(self.theta), mask.mode, seed=seed, density=mask.density).numpy()

    def changed(self, before: NDArray[np.bool_]) -> int:
        """How many bits of the deployed mask differ from those of an earlier one."""
        return int(np.count_nonzero(self.deployed() != before))

    def is_evaluated(self, planned_rounds: int) -> bool:
        """Whether the last finished round is one whose deployed mask is evaluated."""
        due = self.round % self._config.metrics.every == 0 or self.round == planned_rounds
        return due or self.evaluates_utility(planned_rounds)

    def evaluates_utility(self, planned_rounds: int) -> bool:
        """Whether utility, too, is measured after the last finished round."""
        utility, last = self._config.metrics.utility, self.round == planned_rounds
        return utility != "off" and (last or (utility != "end" and self.round % utility == 0))

    def save(self, path: Path) -> None:
        """Replace the checkpoint; readers find the old one or the new one."""
        kept = {**self._side.saved(), "round": np.array(self.round), "theta": self.theta}
        write_atomic(path, packed(kept))

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            RunFolderError: it is damaged, or of another model.
        """
        try:
            arrays = load(path.read_bytes())
            round_number, theta = int(arrays.pop("round")), arrays.pop("theta")
            if theta.shape != self.theta.shape:
                raise RunFolderError(f"{path} is of a model with {len(theta)} weights, not {len(self.theta)}")
            self._side.load(arrays)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise RunFolderError(f"{path} is damaged: {error}") from None
        self.round, self.theta = round_number, theta
