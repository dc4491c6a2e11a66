"""The rounds of `prism-secure run` with the wire left out: no folders, no secret coins, uploads summed bare.

Training and the server's step are the product's. How a client's probabilities become its vote is up to the
script: coins are seeded there, so that a setting can be repeated. Whatever is made of this protects nobody
and claims no epsilon.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from prism_secure.config import Config
from prism_secure.config.public_seed import public_seed
from prism_secure.learning.aggregation import progress
from prism_secure.learning.moment_matching import FeatureMoments
from prism_secure.model.supermask import theta_from_scores
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.run_folder.records import Quality

WIRE = {"federation.client_fraction": 1.0, "mask.score_layers": 0.0, "privacy.clip_space": "probability"}
"""Settings of what is left out, as they must be."""


class PlainRounds:
    """One server, and clients that are trained in turn.

    Args:
        recipe: of the network, the loss and the server.
        targets: what each of the clients matches.
    """

    def __init__(self, recipe: Components, targets: Sequence[FeatureMoments]) -> None:
        self.server = Server.of(recipe, "plain")
        self.seconds = 0.0
        """CPU time of training so far."""
        self._recipe, self._targets = recipe, targets
        self._states = [recipe.trainer.initial_state() for _ in targets]

    def train(self, index: int, client: int) -> NDArray[np.float64]:
        """Mask probabilities (d,) after the steps for `targets[index]`, with the latents of `client`."""
        config, trainer, done = self._recipe.config, self._recipe.trainer, self.server.round
        began = time.process_time()
        result = trainer.train(
            torch.from_numpy(self.server.theta),
            self._states[index],
            self._targets[index],
            steps=config.federation.local_steps,
            progress=progress(done, config.federation.rounds),
            seed=public_seed(config.federation.seed, "latents", config.latent_group(client), done + 1),
            shared=config.training.latent_groups > 0,
        )
        self._states[index] = result.state
        self.seconds += time.process_time() - began
        return theta_from_scores(result.scores, config.mask.temperature).numpy()

    def row(self, quality: Quality) -> dict[str, float]:
        """What the last round gave: its number, the seconds so far, all metrics that there are."""
        found = {name: value for name, value in msgspec.structs.asdict(quality).items() if value is not None}
        return {"round": self.server.round, "seconds": round(self.seconds, 1), **found}


def require(config: Config, needed: Mapping[str, object]) -> None:
    """Refuse unless these settings, and those of the wire, have these values.

    Raises:
        SystemExit: one has another, which the script would not heed.
    """
    for name, value in {**WIRE, **needed}.items():
        section, key = name.split(".")
        found = getattr(getattr(config, section), key)
        if found != value:
            raise SystemExit(f"{name} is {found!r}, which this script does not heed: leave it at {value!r}")
