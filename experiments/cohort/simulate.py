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
import math
import sys
from pathlib import Path

import msgspec
import numpy as np
import torch

from prism_privacy import Adjacency, View, calibrate, clip_toward
from prism_secure.config import Config, load_config
from prism_secure.learning.clip_filling import fill_clip
from prism_secure.rounds.components import Components
from prism_secure.rounds.evaluation import Evaluation

sys.path.insert(0, str(Path(__file__).parents[1]))
from plain_rounds import PlainRounds, require
from results import append

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
    require(config, {"privacy.record_epsilon": math.inf})
    if options.epsilon:
        config = calibrated(config, options.epsilon)
    n, flip, clip = config.federation.clients, config.privacy.flip, config.privacy.clip
    distinct = options.distinct or n
    votes = n // distinct
    recipe = Components(config)
    measure = Evaluation(recipe)
    rounds, history = PlainRounds(recipe, [recipe.targets(client) for client in range(distinct)]), []
    server, d = rounds.server, recipe.trainer.dimension
    coins = np.random.default_rng([config.federation.seed, 1])
    options.out.mkdir(parents=True, exist_ok=True)
    for _ in range(config.federation.rounds):
        theta, counts, mean_move = server.theta, np.zeros(d, dtype=np.int64), np.zeros(d)
        centre = clip_toward(theta, theta, flip=flip, clip=clip).astype(np.int64)
        for i in range(distinct):
            values = rounds.train(i, i * n // distinct)
            if config.training.fill_clip and clip is not None:
                values = fill_clip(values, theta, flip=flip, clip=clip)
            k = clip_toward(values, theta, flip=flip, clip=clip).astype(np.int64)
            mean_move += (k - centre) / (SCALE * distinct)
            counts += k if options.exact else coins.binomial(votes, k / SCALE)
        voters = distinct * (SCALE if options.exact else votes)
        server.absorb(counts, voters, planned_rounds=config.federation.rounds)
        if not server.is_evaluated(config.federation.rounds):
            continue
        utility = server.evaluates_utility(config.federation.rounds)
        quality = measure(server.deployed(), options.out / f"{options.name}.png", utility=utility)
        length, p = float(np.linalg.norm(mean_move)), centre / SCALE
        history.append(
            {
                "round": server.round,
                "fid": round(quality.fid, 1),
                "recall": quality.recall,
                "gen2real": quality.gen2real,
                "label_accuracy": quality.label_accuracy,
                "agreement": round(length / clip, 3) if clip else None,
                "signal_to_noise": round(length / float(np.sqrt((p * (1 - p)).sum() / n)), 3),
                "seconds": round(rounds.seconds, 1),
            }
        )
        print(options.name, d, history[-1], flush=True)
    said = {k: str(v) for k, v in vars(options).items()}
    line = {"name": options.name, "dimension": d, "clip": clip, "options": said, "history": history}
    append(options.out / "results.jsonl", [line])


if __name__ == "__main__":
    main()
