"""One setting of the learning, with the wire left out: what the table in README.md was made with.

    python experiments/search/search.py NAME [--set section.key=value ...] [options]

Every round is the one that `prism-secure run` does, apart from the secure sum (which changes no count) and
the source of the coins: here they are seeded, so that a setting can be repeated. A run of it protects
nobody and claims no ε. It writes NAME.png (ten of each class) and appends a line to results.jsonl.

`--pool` is a cheap stand-in: one trainer holds all clients' images, and each of the n votes is drawn from its
scores. It ranks settings of the loss at a tenth of the time. Its FID is worse than the real one, because
n votes of one client do not average what n clients do.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from prism_secure.config import Config, load_config
from prism_secure.data import to_float
from prism_secure.data.features import (
    DEFAULT_TAPS,
    Concatenated,
    EfficientNetLite0,
    FeatureExtractor,
    RandomFourierFeatures,
)
from prism_secure.learning.moment_matching import FeatureMoments
from prism_secure.rounds.components import Components
from prism_secure.rounds.evaluation import Evaluation

sys.path.insert(0, str(Path(__file__).parents[1]))
from plain_rounds import PlainRounds, require
from results import append

BASE = ("privacy.record_epsilon=inf", "features.bounded=false", "training.variance_weight=1")
"""Exact moments, each feature in units of a client's own variance."""
UNHEEDED = {
    "privacy.clip": None,
    "privacy.record_epsilon": math.inf,
    "features.bounded": False,
    "features.extractors": Config().features.extractors,
}
"""Features are those of the options here."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One setting of the learning, with the wire left out.")
    parser.add_argument("name")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    parser.add_argument("--out", type=Path, default=Path("search-results"))
    parser.add_argument("--pool", action="store_true", help="one trainer with all images, n votes from it")
    parser.add_argument("--taps", type=json.loads, help='as {"block": cells}, e.g. {"2": 4, "10": 1}')
    parser.add_argument("--resize", type=int, default=0, help="side that EfficientNet sees; 0: as it is")
    parser.add_argument("--fourier", type=int, default=200, help="random Fourier features a kernel; 0: none")
    parser.add_argument("--decay", type=float, default=0.9, help="memory of the fakes' moving averages")
    return parser.parse_args()


class Searched(Components):
    """A recipe with the features of the options."""

    def __init__(self, config: Config, options: argparse.Namespace) -> None:
        super().__init__(config)
        self._options = options

    @cached_property
    def extractor(self) -> FeatureExtractor:
        options, size = self._options, self.config.model.image_size
        taps = {int(k): v for k, v in options.taps.items()} if options.taps else DEFAULT_TAPS
        parts: list[FeatureExtractor] = [EfficientNetLite0(taps, image_size=size, resize=options.resize)]
        if options.fourier:
            parts.append(RandomFourierFeatures(options.fourier, channels=self.dataset.channels))
        return Concatenated(parts)

    def pooled(self) -> FeatureMoments:
        """The moments of all clients' images together."""
        chosen = torch.from_numpy(np.concatenate(self.partition.indices))
        images, labels = self.dataset.train_images[chosen], self.dataset.train_labels[chosen]
        return self.trainer.targets(to_float(images), labels)


def main() -> None:
    """Run one setting."""
    options = _arguments()
    torch.set_num_threads(1)
    config = load_config(None, [*BASE, *options.overrides])
    require(config, UNHEEDED)
    clients, seed, flip = config.federation.clients, config.federation.seed, config.privacy.flip
    recipe = Searched(config, options)
    recipe.trainer.matching.decay = options.decay
    measure = Evaluation(recipe)
    targets = [recipe.pooled()] if options.pool else [recipe.targets(client) for client in range(clients)]
    rounds, history = PlainRounds(recipe, targets), []
    server = rounds.server
    options.out.mkdir(parents=True, exist_ok=True)
    for number in range(config.federation.rounds):
        counts = np.zeros(recipe.trainer.dimension, dtype=np.int64)
        for i in range(len(targets)):
            p = flip + (1 - 2 * flip) * rounds.train(i, i)
            coins = np.random.default_rng([seed, number, i])
            counts += coins.binomial(clients, p) if options.pool else coins.random(len(p)) < p
        server.absorb(counts, clients, planned_rounds=config.federation.rounds)
        if server.is_evaluated(config.federation.rounds):
            history.append(rounds.row(measure(server.deployed(), options.out / f"{options.name}.png")))
            print(options.name, {k: round(v, 3) for k, v in history[-1].items()}, flush=True)
    said = {k: str(v) for k, v in vars(options).items()}
    append(options.out / "results.jsonl", [{"name": options.name, "options": said, "history": history}])


if __name__ == "__main__":
    main()
