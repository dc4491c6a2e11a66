"""The rounds of a large cohort, many clients to a process, with plain sums: how the recipes here were found.

    python experiments/cohort/simulate.py NAME [--config FILE] [--set section.key=value ...] [options]

Training, clip, randomized response and server are those of `prism-secure run`; left out are folders, secret
coins and the secure sum, which changes no count. Coins are seeded here, so a setting can be repeated; a run
of this script protects nobody and claims no epsilon.

    --distinct M   train M clients only, each of which casts n/M of the n votes: the noise is that of n, the
                   agreement of M with each other too, and the time is M/n. A proxy for searching
    --exact        add up the clipped probabilities themselves: what the clip costs, without the noise
    --epsilon E    set privacy.clip to the largest with which all rounds stay within E, epsilon(SUM, ZERO_OUT)

Each evaluation prints FID and the agreement: the length of the clients' mean move over the clip. What the
server receives is n·C·agreement in length, against a noise of √(n·Σp(1−p)).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import msgspec
import numpy as np
import torch

from prism_privacy import Adjacency, View, calibrate, clip_toward
from prism_secure.clip_filling import fill_clip
from prism_secure.config import Config, load_config
from prism_secure.evaluation import Evaluation
from prism_secure.mada import aggregate, progress
from prism_secure.public_seed import public_seed
from prism_secure.recipe import Recipe
from prism_secure.supermask import deployed_mask, initial_theta, theta_from_scores

SCALE = 2**24


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The rounds of a large cohort with plain sums.")
    parser.add_argument("name")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "n1000.toml")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    parser.add_argument("--out", type=Path, default=Path("cohort-results"))
    parser.add_argument("--distinct", type=int, help="clients that are trained; left out: all")
    parser.add_argument("--exact", action="store_true", help="no randomized response")
    parser.add_argument("--epsilon", type=float, help="calibrate privacy.clip to this")
    return parser.parse_args()


def calibrated(config: Config, epsilon: float) -> Config:
    """The configuration with the largest clip whose rounds together stay within epsilon(SUM, ZERO_OUT)."""
    privacy = config.privacy
    found = calibrate(
        epsilon=epsilon,
        delta=privacy.delta,
        rounds=config.federation.rounds,
        cohort=config.cohort,
        flip=privacy.flip,
        view=View.SUM,
        adjacency=Adjacency.ZERO_OUT,
        sum_failure=config.sum_failure,
    )
    return msgspec.structs.replace(config, privacy=msgspec.structs.replace(privacy, clip=found.clip))


def main() -> None:
    """Run one setting."""
    options = _arguments()
    torch.set_num_threads(1)
    config = load_config(options.config, options.overrides)
    if options.epsilon:
        config = calibrated(config, options.epsilon)
    federation, privacy, tau = config.federation, config.privacy, config.mask.temperature
    n, flip = federation.clients, privacy.flip
    distinct = options.distinct or n
    votes = n // distinct
    recipe = Recipe(config)
    trainer, measure = recipe.trainer, Evaluation(recipe)
    targets = [recipe.targets(client) for client in range(distinct)]
    states = [trainer.initial_state() for _ in targets]
    low = privacy.theta_min
    start = initial_theta(trainer.dimension, seed=public_seed(federation.seed, "scores")).numpy()
    theta, move = np.clip(start, low, 1 - low), None
    coins = np.random.default_rng([federation.seed, 1])
    history, began = [], time.process_time()
    options.out.mkdir(parents=True, exist_ok=True)
    for number in range(federation.rounds):
        counts = np.zeros(trainer.dimension, dtype=np.int64)
        mean_move = np.zeros(trainer.dimension)
        centre = clip_toward(theta, theta, flip=flip, clip=privacy.clip).astype(np.int64)
        for i, target in enumerate(targets):
            group = config.latent_group(i * n // distinct)
            result = trainer.train(
                torch.from_numpy(theta),
                states[i],
                target,
                steps=federation.local_steps,
                progress=progress(number, federation.rounds),
                seed=public_seed(federation.seed, "latents", group, number + 1),
                shared=config.training.latent_groups > 0,
            )
            states[i] = result.state
            values = theta_from_scores(result.scores, tau).numpy()
            if config.training.fill_clip and privacy.clip is not None:
                values = fill_clip(values, theta, flip=flip, clip=privacy.clip)
            k = clip_toward(values, theta, flip=flip, clip=privacy.clip).astype(np.int64)
            mean_move += (k - centre) / (SCALE * distinct)
            counts += k if options.exact else coins.binomial(votes, k / SCALE)
        step = aggregate(
            theta,
            counts,
            clients=distinct * (SCALE if options.exact else votes),
            flip=flip,
            progress=number / max(federation.rounds - 1, 1),
            aggregation=config.aggregation,
            theta_min=low,
            move=move,
        )
        theta, move = step.theta, step.move
        if (number + 1) % config.metrics.every and number + 1 < federation.rounds:
            continue
        mask = deployed_mask(torch.from_numpy(theta), config.mask.mode, density=config.mask.density).numpy()
        quality = measure(mask, options.out / f"{options.name}.png")
        length = float(np.linalg.norm(mean_move))
        p = centre / SCALE
        history.append(
            {
                "round": number + 1,
                "fid": round(quality.fid, 1),
                "label_accuracy": quality.label_accuracy,
                "agreement": round(length / privacy.clip, 3) if privacy.clip else None,
                "signal_to_noise": round(length / float(np.sqrt((p * (1 - p)).sum() / n)), 3),
                "seconds": round(time.process_time() - began, 1),
            }
        )
        print(options.name, trainer.dimension, history[-1], flush=True)
    line = {
        "name": options.name,
        "dimension": trainer.dimension,
        "clip": privacy.clip,
        "options": {k: str(v) for k, v in vars(options).items()},
        "history": history,
    }
    with (options.out / "results.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
