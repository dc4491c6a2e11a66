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
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

from prism_privacy import CoinSecret, MomentRelease, NoisySums, SummedMoments, noisy_moments, release_moments
from prism_secure.config import load_config
from prism_secure.deployment import DeployedGenerator
from prism_secure.mada import aggregate, progress
from prism_secure.metric_features import ClassifierFeatures
from prism_secure.metrics import Evaluator
from prism_secure.moments import FeatureMoments
from prism_secure.public_seed import public_seed
from prism_secure.recipe import Recipe
from prism_secure.samples import encode_png, sample_grid
from prism_secure.supermask import deployed_mask, initial_theta, theta_from_scores

RECIPE = ("features.bounded=true", "training.variance_weight=0")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Learning from noisy moments, with the wire left out.")
    parser.add_argument("name")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    parser.add_argument("--out", type=Path, default=Path("record-level-results"))
    parser.add_argument("--release", choices=("exact", "client", "shared", "summed"), default="exact")
    parser.add_argument("--epsilon", type=float, default=2.0)
    parser.add_argument("--noise-seed", type=int, default=0)
    parser.add_argument("--images", type=int, help="take only so many of each client's images")
    parser.add_argument("--every", type=int, default=2, help="rounds between evaluations")
    return parser.parse_args()


def _matched(sums: NoisySums) -> FeatureMoments:
    found = noisy_moments(sums)
    variance = np.zeros_like(found.mean) if found.variance is None else found.variance
    counts = np.where(found.present, found.counts, 0.0)
    return FeatureMoments(*(torch.from_numpy(x).float() for x in (found.mean, variance, counts)))


def targets(recipe: Recipe, options: argparse.Namespace) -> list[FeatureMoments]:
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
            _matched(release_moments(*features(client), release(sizes[client]), coins[client]))
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
    return [_matched(opened)] * len(sizes)


def main() -> None:
    """One run."""
    options = _arguments()
    torch.set_num_threads(1)
    config = load_config(None, [*RECIPE, *options.overrides])
    federation, privacy = config.federation, config.privacy
    recipe = Recipe(config)
    trainer, dataset = recipe.trainer, recipe.dataset
    evaluator = Evaluator(dataset.test_images, features=ClassifierFeatures(), classes=dataset.classes)
    matched = targets(recipe, options)
    states = [trainer.initial_state() for _ in matched]
    low, flip = privacy.theta_min, privacy.flip
    start = initial_theta(trainer.dimension, seed=public_seed(federation.seed, "scores")).numpy()
    theta, move = np.clip(start, low, 1 - low), None
    history, seconds = [], 0.0
    options.out.mkdir(parents=True, exist_ok=True)
    for number in range(federation.rounds):
        counts = np.zeros(trainer.dimension, dtype=np.int64)
        began = time.process_time()
        for client, target in enumerate(matched):
            result = trainer.train(
                torch.from_numpy(theta),
                states[client],
                target,
                steps=federation.local_steps,
                progress=progress(number, federation.rounds),
                seed=public_seed(federation.seed, "latents", client, number + 1),
            )
            states[client] = result.state
            p = flip + (1 - 2 * flip) * theta_from_scores(result.scores, config.mask.temperature).numpy()
            counts += np.random.default_rng([federation.seed, number, client]).random(len(p)) < p
        seconds += time.process_time() - began
        step = aggregate(
            theta,
            counts,
            clients=federation.clients,
            flip=flip,
            progress=number / max(federation.rounds - 1, 1),
            aggregation=config.aggregation,
            theta_min=low,
            move=move,
            rng=np.random.default_rng([federation.seed, number]),
        )
        theta, move = step.theta, step.move
        if (number + 1) % options.every and number + 1 < federation.rounds:
            continue
        mask = deployed_mask(torch.from_numpy(theta), config.mask.mode, seed=federation.seed)
        model = DeployedGenerator(recipe.architecture, seed=recipe.model_seed, mask=mask)
        images, labels = model.generate(2000, seed=public_seed(federation.seed, "evaluation"))
        quality = evaluator(images, labels)
        history.append({"round": number + 1, "seconds": round(seconds, 1), **quality})
        print(options.name, {k: round(v, 3) for k, v in history[-1].items()}, flush=True)
    shown = None if labels is None else labels[:100].numpy()
    grid = sample_grid(images[:100].numpy(), shown, names=dataset.classes)
    (options.out / f"{options.name}.png").write_bytes(encode_png(grid))
    line = {
        "name": options.name,
        "options": {k: str(v) for k, v in vars(options).items() if k != "out"},
        "history": history,
    }
    with (options.out / "results.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
