"""One run of learning from noisy moments, with the wire left out: what the table in README.md was made with.

    python experiments/record_level/record_level.py NAME --release shared --epsilon 2 [--set ...]

Every round is the one that `prism-secure run` does, apart from the secure sum (which changes no count) and
the source of the coins: here all of them are seeded, so that a run can be repeated. It protects nobody and
claims no epsilon. It writes NAME.png (ten of each class) and appends a line to results.jsonl.

    exact    no noise, the same recipe
    client   each client draws its own noise and trains from its own release
    shared   each client draws its own noise, all of it; only the sum of the releases opens; all train from it
    summed   each client draws a share of the noise of one release over all clients; only the sum opens
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch

from prism_privacy import CoinSecret, MomentRelease, SummedMoments, release_moments
from prism_secure.config import load_config
from prism_secure.learning.moment_matching import FeatureMoments
from prism_secure.rounds.components import Components
from prism_secure.rounds.evaluation import Evaluation

sys.path.insert(0, str(Path(__file__).parents[1]))
from plain_rounds import PlainRounds, require
from results import append

RECIPE = ("features.bounded=true", "training.variance_weight=0", "metrics.every=2")
UNHEEDED = {
    "privacy.clip": None,
    "privacy.record_epsilon": 2.0,
    "privacy.record_release": "summed",
    "privacy.record_cohort": 0,
    "model.conditional": True,
}
"""The release is that of the options here."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Learning from noisy moments, with the wire left out.")
    parser.add_argument("name")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    parser.add_argument("--out", type=Path, default=Path("record-level-results"))
    parser.add_argument("--release", choices=("exact", "client", "shared", "summed"), default="exact")
    parser.add_argument("--epsilon", type=float, default=2.0)
    parser.add_argument("--noise-seed", type=int, default=0)
    parser.add_argument("--images", type=int, help="take only so many of each client's images")
    return parser.parse_args()


def targets(recipe: Components, options: argparse.Namespace) -> list[FeatureMoments]:
    """What each client matches."""
    clients = range(recipe.config.federation.clients)
    sizes = [options.images or size for size in recipe.partition.sizes]
    if options.release == "exact":
        return [recipe.targets(client) for client in clients]  # of all its images
    second = 0.0 if recipe.config.training.variance_weight == 0 else math.sqrt(0.5)

    def release(records: int) -> MomentRelease:
        return MomentRelease.calibrated(
            epsilon=options.epsilon,
            delta=recipe.config.privacy.delta,
            records=records,
            classes=len(recipe.dataset.classes),
            second_weight=second,
            count_weight=math.sqrt(1 - second**2),
        )

    def features(client: int) -> tuple[np.ndarray, np.ndarray]:
        found, labels = recipe.features(client)
        return found[: sizes[client]], labels[: sizes[client]]

    coins = [
        CoinSecret.for_test(bytes([options.noise_seed, client] * 16)).stream("x", 0, bytes(32), "moments")
        for client in clients
    ]
    if options.release == "client":
        return [
            FeatureMoments.of_release(
                release_moments(*features(client), release(sizes[client]), coins[client])
            )
            for client in clients
        ]
    plan = SummedMoments(
        release(sum(sizes)),
        cohort=1 if options.release == "shared" else len(sizes),
        dimension=recipe.extractor.dimension,
        most_records=max(sizes),
    )
    shares = (plan.share(*features(client), coins[client]) for client in clients)
    opened = plan.open(sum(shares, np.zeros(plan.size, np.int64)), len(sizes), is_test=True)
    return [FeatureMoments.of_release(opened)] * len(sizes)


def main() -> None:
    """One run."""
    options = _arguments()
    torch.set_num_threads(1)
    config = load_config(None, [*RECIPE, *options.overrides])
    require(config, UNHEEDED)
    clients, seed, flip = config.federation.clients, config.federation.seed, config.privacy.flip
    recipe = Components(config)
    measure = Evaluation(recipe)
    rounds, history = PlainRounds(recipe, targets(recipe, options)), []
    server = rounds.server
    options.out.mkdir(parents=True, exist_ok=True)
    for number in range(config.federation.rounds):
        counts = np.zeros(recipe.trainer.dimension, dtype=np.int64)
        for client in range(clients):
            p = flip + (1 - 2 * flip) * rounds.train(client, client)
            counts += np.random.default_rng([seed, number, client]).random(len(p)) < p
        server.absorb(counts, clients, planned_rounds=config.federation.rounds)
        if server.is_evaluated(config.federation.rounds):
            history.append(rounds.row(measure(server.deployed(), options.out / f"{options.name}.png")))
            print(options.name, {k: round(v, 3) for k, v in history[-1].items()}, flush=True)
    said = {k: str(v) for k, v in vars(options).items() if k != "out"}
    append(options.out / "results.jsonl", [{"name": options.name, "options": said, "history": history}])


if __name__ == "__main__":
    main()
