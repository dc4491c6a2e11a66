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
import time
from pathlib import Path

import numpy as np
import torch

from prism_secure.config import load_config
from prism_secure.data import to_float
from prism_secure.deployment import DeployedGenerator
from prism_secure.features import DEFAULT_TAPS, Concatenated, EfficientNetLite0, RandomFourierFeatures
from prism_secure.mada import aggregate, progress
from prism_secure.metric_features import ClassifierFeatures
from prism_secure.metrics import Evaluator
from prism_secure.moments import MomentMatching
from prism_secure.public_seed import public_seed
from prism_secure.recipe import Recipe
from prism_secure.samples import encode_png, sample_grid
from prism_secure.supermask import deployed_mask, initial_theta, theta_from_scores
from prism_secure.training import LocalTrainer


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One setting of the learning, with the wire left out.")
    parser.add_argument("name")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    parser.add_argument("--out", type=Path, default=Path("search-results"))
    parser.add_argument("--pool", action="store_true", help="one trainer with all images, n votes from it")
    parser.add_argument("--shared", action="store_true", help="the same latents for all clients of a round")
    parser.add_argument("--taps", type=json.loads, help='as {"block": cells}, e.g. {"2": 4, "10": 1}')
    parser.add_argument("--resize", type=int, default=0, help="side that EfficientNet sees; 0: as it is")
    parser.add_argument("--fourier", type=int, default=200, help="random Fourier features a kernel; 0: none")
    parser.add_argument("--decay", type=float, default=0.9, help="memory of the fakes' moving averages")
    parser.add_argument("--variance-weight", type=float, default=1.0)
    parser.add_argument("--every", type=int, default=1, help="rounds between evaluations")
    return parser.parse_args()


def _trainer(recipe: Recipe, options: argparse.Namespace) -> LocalTrainer:
    config = recipe.config
    taps = {int(k): v for k, v in options.taps.items()} if options.taps else DEFAULT_TAPS
    parts = [EfficientNetLite0(taps, image_size=config.model.image_size, resize=options.resize)]
    if options.fourier:
        parts.append(RandomFourierFeatures(options.fourier, channels=recipe.dataset.channels))
    return LocalTrainer(
        recipe.architecture,
        model_seed=recipe.model_seed,
        extractor=Concatenated(parts),
        mask_mode=config.mask.mode,
        temperature=config.mask.temperature,
        learning_rate=config.training.learning_rate,
        batch_size=config.training.batch_size,
        matching=MomentMatching(decay=options.decay, variance_weight=options.variance_weight),
    )


def main() -> None:
    """Run one setting."""
    options = _arguments()
    torch.set_num_threads(1)
    config = load_config(None, options.overrides)
    federation, privacy = config.federation, config.privacy
    recipe = Recipe(config)
    trainer, dataset = _trainer(recipe, options), recipe.dataset
    evaluator = Evaluator(dataset.test_images, features=ClassifierFeatures(), classes=dataset.classes)
    shares = recipe.partition.indices
    if options.pool:
        shares = [np.concatenate(shares)]
    targets = []
    for share in shares:
        chosen = torch.from_numpy(share)
        targets.append(trainer.targets(to_float(dataset.train_images[chosen]), dataset.train_labels[chosen]))
    states = [trainer.initial_state() for _ in targets]
    low, flip, clients = privacy.theta_min, privacy.flip, federation.clients
    start = initial_theta(trainer.dimension, seed=public_seed(federation.seed, "scores")).numpy()
    theta, move = np.clip(start, low, 1 - low), None
    history, began = [], time.process_time()
    options.out.mkdir(parents=True, exist_ok=True)
    for number in range(federation.rounds):
        counts = np.zeros(trainer.dimension, dtype=np.int64)
        for i, target in enumerate(targets):
            who = 0 if options.shared else i
            result = trainer.train(
                torch.from_numpy(theta),
                states[i],
                target,
                steps=federation.local_steps,
                progress=progress(number, federation.rounds),
                seed=public_seed(federation.seed, "latents", who, number + 1),
            )
            states[i] = result.state
            p = flip + (1 - 2 * flip) * theta_from_scores(result.scores, config.mask.temperature).numpy()
            coins = np.random.default_rng([federation.seed, number, i])
            counts += coins.binomial(clients, p) if options.pool else coins.random(len(p)) < p
        step = aggregate(
            theta,
            counts,
            clients=clients,
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
        history.append({"round": number + 1, "seconds": round(time.process_time() - began, 1), **quality})
        print(options.name, {k: round(v, 3) for k, v in history[-1].items()}, flush=True)
    grid = sample_grid(
        images[:100].numpy(), None if labels is None else labels[:100].numpy(), names=dataset.classes
    )
    (options.out / f"{options.name}.png").write_bytes(encode_png(grid))
    line = {
        "name": options.name,
        "options": {k: str(v) for k, v in vars(options).items()},
        "history": history,
    }
    with (options.out / "results.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
