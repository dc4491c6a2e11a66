"""Training: a client makes local steps on the scores, and the server moves theta to the vote by MADA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from prism_secure.config.public_seed import public_seed
from prism_secure.errors import RoundError
from prism_secure.learning.aggregation import Step, aggregate, progress
from prism_secure.learning.measured.server_training import Rows, ServerState, ServerTraining
from prism_secure.learning.moment_matching import FeatureMoments
from prism_secure.learning.training import ClientState
from prism_secure.rounds.behaviours.behaviour import Answer, Behaviour, ClientSide, Opened, ServerSide
from prism_secure.rounds.broadcast import Arrays, Broadcast
from prism_secure.rounds.components import Components
from prism_secure.rounds.moments import ClientMoments
from prism_secure.rounds.threads import one_thread


class Train(Behaviour):
    """See the module."""

    def __init__(self, components: Components) -> None:
        self._components = components

    def together(self, broadcast: Broadcast, clients: Sequence[ClientSide]) -> None:
        """Nothing: what one client computes is of no use to another."""

    def client(self, index: int, folder: Path, moments: ClientMoments) -> TrainingClient:
        return TrainingClient(self._components, index, moments)

    def server(self) -> VotingServer:
        return VotingServer(self._components)


class TrainingClient:
    """Trains from the moments of its images; keeps its optimizer's moments and its loss's averages."""

    def __init__(self, components: Components, index: int, moments: ClientMoments) -> None:
        self._components = components
        self._index = index
        self._moments = moments

    def prepare(self, *, answered: bool) -> None:
        self._moments.prepare(answered=answered)

    def require(self) -> None:
        self._moments.require()

    def answer(self, broadcast: Broadcast, state: Arrays | None) -> Answer:
        config, trainer = self._components.config, self._components.trainer
        group = config.latent_group(self._index)
        result = trainer.train(
            torch.from_numpy(broadcast.theta),
            trainer.initial_state() if state is None else ClientState.from_arrays(dict(state)),
            self._moments.targets(),
            steps=config.federation.local_steps,
            seed=public_seed(config.federation.seed, "latents", group, broadcast.round),
            progress=progress(broadcast.round - 1, config.federation.rounds),
            shared=config.training.latent_groups > 0,
        )
        return Answer(result.scores, result.state.to_arrays())


class VotingServer(ServerSide):
    """Moves theta towards the debiased mean of the bits, as `aggregation.rule` says.

    After the last round it may train on by itself, towards moments that opened before the first
    (`training.end_steps`): what follows from them and from votes for them costs no epsilon.
    """

    def __init__(self, components: Components) -> None:
        self._components = components
        self._move: NDArray[np.float64] | None = None

    def absorb(self, broadcast: Broadcast, opened: Opened) -> Step:
        config = self._components.config
        step = aggregate(
            broadcast.theta,
            opened.counts,
            survivors=opened.survivors,
            flip=config.privacy.flip,
            progress=opened.progress,
            aggregation=config.aggregation,
            theta_min=config.privacy.theta_min,
            move=self._move,
            rng=np.random.default_rng(public_seed(config.federation.seed, "mada", broadcast.round - 1)),
            score_mean=opened.score_mean,
        )
        self._move = step.move
        ended = self._ended(step.theta, broadcast, opened.moments)
        if ended is None:
            return step
        return replace(step, theta=self._theta(ended), loss=ended.loss)

    def lost(self, broadcast: Broadcast, moments: FeatureMoments | None) -> Step | None:
        ended = self._ended(broadcast.theta, broadcast, moments)
        if ended is None:
            return None
        theta = self._theta(ended)
        return Step(theta, 1.0, theta - broadcast.theta, ended.loss)

    def _ended(
        self, theta: NDArray[np.float64], broadcast: Broadcast, moments: FeatureMoments | None
    ) -> ServerState | None:
        """Where the server's own training leads from theta, after the last round; None if there is none."""
        config, trainer = self._components.config, self._components.trainer
        steps = config.training.end_steps
        if not steps or broadcast.round < self._components.plan.rounds:
            return None
        if moments is None:
            raise RoundError("training.end_steps needs the moments that opened before round 1, and got none")
        rate = config.training.learning_rate
        with one_thread(config.federation.device):
            return ServerTraining(trainer, steps=steps, start=rate, end=0.1 * rate).run(
                ServerState.start(trainer, torch.from_numpy(theta)),
                moments.mean.numpy(),
                Rows(moments.present[:, None]),
                steps=steps,
                seed=public_seed(config.federation.seed, "server latents", broadcast.round),
            )

    def _theta(self, state: ServerState) -> NDArray[np.float64]:
        config = self._components.config
        return state.theta(config.mask.temperature, config.privacy.theta_min)

    def saved(self) -> Arrays:
        return {"move": np.zeros(0) if self._move is None else self._move}

    def load(self, saved: Arrays) -> None:
        move = saved["move"]
        self._move = np.asarray(move, np.float64) if len(move) else None
