"""What one could do instead of sending masks, behind the same data, features, steps, secure sum and metrics.

    python experiments/baselines/baselines.py NAME --out FOLDER [--config F] [--set SECTION.KEY=VALUE ...]

    masks        prism-secure itself
    fedavg       dense weights: each client trains all of them, the secure sum adds up moves in fixed point
    dp-fedavg    the same with the move clipped in L2 and a share of discrete Gaussian noise on it
    server       nobody trains but the server, on noisy moments that the secure sum opened once: dense weights
    server-mask  the same, a mask

It appends a line a measured round to FOLDER/results.jsonl; a name that is there already is left alone. Dense
weights start as wide as the frozen ones. Servers need a finite `privacy.record_epsilon`; `dp-fedavg`
claims an epsilon of its own, for everything of a client, and is meant for exact moments.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prism_crypto import FixedPoint, SessionContext, secure_sum
from prism_privacy import Adjacency, View
from prism_privacy.discrete_gaussian import SMOOTHING, gaussian_epsilon, sample_discrete_gaussian
from prism_privacy.noisy_sums import fresh_coins
from prism_secure.client_release import ClientRelease
from prism_secure.config import Config, load_config
from prism_secure.deployment import DeployedGenerator
from prism_secure.federation import run
from prism_secure.generator import Architecture, ResNetGenerator, draw_latents
from prism_secure.mada import progress
from prism_secure.metric_features import metric_features
from prism_secure.metrics import Evaluator
from prism_secure.moment_sum import open_moments
from prism_secure.moments import FakeAverages, FeatureMoments
from prism_secure.public_seed import public_seed
from prism_secure.recipe import Recipe
from prism_secure.records import finite
from prism_secure.run_folder import client_folder, read_records
from prism_secure.supermask import Supermask, deployed_mask, initial_theta, theta_from_scores
from prism_secure.training import adam_step

NAMES = ("masks", "fedavg", "dp-fedavg", "server", "server-mask")
LEVELS = (1 << 16) - 2
"""Of a move's fixed point without noise."""
CLIP_UNITS = 1 << 16
"""With noise: how many steps of the grid the clip is long."""
CUT = 24
"""A noisy move is cut off so many standard deviations beyond the clip: the sum needs a largest value."""


class DenseGenerator(DeployedGenerator):
    """As a deployed mask, but every weight has a value of its own."""

    def __init__(self, architecture: Architecture, weights: Tensor) -> None:
        self.architecture = architecture
        self.network = ResNetGenerator(architecture, running_statistics=True)
        torch.nn.utils.vector_to_parameters(weights, self.network.parameters())
        self.network.requires_grad_(False)
        self._calibrate()


@dataclass
class Kept:
    """What a trainer of dense weights keeps between rounds."""

    first: Tensor
    second: Tensor
    averages: FakeAverages
    step: int = 0


class DenseTrainer:
    """Local steps on all weights, with the objective of the recipe."""

    def __init__(self, recipe: Recipe, learning_rate: float) -> None:
        self.recipe, self.learning_rate = recipe, learning_rate
        network = ResNetGenerator(recipe.architecture)
        self.network = Supermask(network, seed=recipe.model_seed, law="kaiming_normal")
        self.initial = self.network.weights.clone()
        self.network.weights.fill_(1.0)  # a "mask" of any numbers then stands for the weights themselves

    def new(self) -> Kept:
        zeros = torch.zeros_like(self.initial)
        trainer, matching = self.recipe.trainer, self.recipe.trainer.matching
        rows = self.recipe.architecture.classes or 1
        return Kept(
            zeros,
            zeros.clone(),
            FakeAverages.zero(rows, trainer.extractor.dimension, matching.averaging),
        )

    def train(self, weights: Tensor, kept: Kept, target: FeatureMoments, steps: int, seed: int) -> Tensor:
        training, architecture = self.recipe.config.training, self.recipe.architecture
        draws, weights = torch.Generator().manual_seed(seed), weights.clone()
        for _ in range(steps):
            leaf = weights.clone().requires_grad_(True)
            latents, labels = draw_latents(training.batch_size, architecture, draws)
            features = self.recipe.extractor(self.network(leaf, latents, labels))
            loss, kept.averages = self.recipe.trainer.matching(features, labels, target, kept.averages)
            (gradient,) = torch.autograd.grad(loss, leaf)
            kept.step += 1
            adam_step(
                weights, gradient, kept.first, kept.second, kept.step, self.learning_rate, training.betas
            )
        return weights


@dataclass(frozen=True)
class Progress:
    """After a round: images from `generator`, bytes sent so far, epsilon of one client to date (SUM)."""

    round: int
    generator: DeployedGenerator
    uplink_bytes: int
    epsilon_client: float


def targets(recipe: Recipe, folder: Path) -> tuple[list[FeatureMoments], int, float]:
    """What each client may know of images, bytes that opening it took, and what having opened it costs a
    client: with exact moments, and where each client keeps its own, nothing was opened."""
    config = recipe.config
    clients = [ClientRelease(client_folder(folder, i), i, recipe) for i in range(config.federation.clients)]
    for client in clients:
        client.prepare(answered=False)
    release = recipe.record_release
    if release is None or not release.summed:
        return [client.targets() for client in clients], 0, 0.0
    open_moments(release, clients, folder, "baseline")
    sent = json.loads((folder / "moments.json").read_text())["uplink_bytes"]
    return [clients[0].targets()] * len(clients), sent, release.client_epsilon(View.SUM, Adjacency.ZERO_OUT)


def fedavg(recipe: Recipe, folder: Path, options: argparse.Namespace) -> Iterator[Progress]:
    """Federated averaging of moves, clipped and noised when `options.clip` says so."""
    config, trainer = recipe.config, DenseTrainer(recipe, options.learning_rate)
    found, sent, opened = targets(recipe, folder)
    kept, weights = [trainer.new() for _ in found], trainer.initial.clone()
    steps = config.federation.local_steps
    encode, decode, bound, noise = _grid(config, options, len(weights))
    for number in range(1, config.federation.rounds + 1):

        def move(client: int, start: Tensor = weights, number: int = number) -> NDArray[np.int64]:
            seed = public_seed(config.federation.seed, "latents", client, number)
            end = trainer.train(start, kept[client], found[client], steps, seed)
            return encode((end - start).double().numpy())

        moves = [move(client) for client in range(len(found))]
        result = secure_sum(
            moves,
            bound=bound,
            threshold=config.threshold,
            min_survivors=config.min_survivors,
            colluders=config.privacy.colluders,
            context=SessionContext(federation="baseline", number=number + 1, round=number),
        )
        weights = weights + torch.from_numpy(decode(result.counts, len(result.survivors))).float()
        sent += sum(result.uplink_bytes.values())
        # Rounds compose as one Gaussian mechanism with sqrt(rounds) times less noise.
        own = gaussian_epsilon(noise / math.sqrt(number), config.privacy.delta) if noise else math.inf
        # Moves of opened moments are post-processing of them; no noise on moves takes back what was opened.
        epsilon = opened if config.opens_moments else own
        yield Progress(number, DenseGenerator(recipe.architecture, weights), sent, epsilon)


def _grid(
    config: Config, options: argparse.Namespace, dimension: int
) -> tuple[Callable[..., NDArray[np.int64]], Callable[..., NDArray[np.float64]], int, float]:
    """How moves become integers and their sum a mean move, the integers' bound, and the noise multiplier."""
    # What overflowed is no move, here and without a word: an error would tell the server of a client's data.
    if not options.clip:
        codec = FixedPoint(4 * options.learning_rate * config.federation.local_steps, LEVELS)
        return (
            lambda move: codec.encode(_only_finite(move)),
            lambda counts, n: codec.decode_sum(counts, n) / n,
            codec.levels,
            0.0,
        )
    step, share = options.clip / CLIP_UNITS, math.ceil(options.noise * CLIP_UNITS / math.sqrt(config.cohort))
    offset = CLIP_UNITS + CUT * share
    # Of the smoothing that makes a sum of discrete Gaussians one, see `prism_privacy.discrete_gaussian`.
    noise = math.sqrt(config.cohort * (share**2 - SMOOTHING**2)) / CLIP_UNITS

    def encode(move: NDArray[np.float64]) -> NDArray[np.int64]:
        move = _only_finite(move)
        length = float(np.linalg.norm(move))
        inside = move * min(1.0, options.clip * (1 - 1e-9) / max(length, 1e-300))
        units = np.trunc(inside / step).astype(np.int64)  # towards zero: no longer than the clip
        drawn = sample_discrete_gaussian(share, dimension, fresh_coins())
        return np.clip(units + drawn, -offset, offset) + offset  # whatever is cut, is so after the noise

    def decode(counts: NDArray[np.int64], survivors: int) -> NDArray[np.float64]:
        return (counts - survivors * offset) * (step / survivors)

    return encode, decode, 2 * offset, noise


def _only_finite(move: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(move), move, 0.0)


def server(recipe: Recipe, folder: Path, options: argparse.Namespace) -> Iterator[Progress]:
    """Dense weights, trained on the opened moments by the server: as many steps as one client would make."""
    config, trainer = recipe.config, DenseTrainer(recipe, options.learning_rate)
    found, sent, opened = targets(recipe, folder)
    kept, weights = trainer.new(), trainer.initial.clone()
    for number in range(1, config.federation.rounds + 1):
        seed = public_seed(config.federation.seed, "latents", 0, number)
        weights = trainer.train(weights, kept, found[0], config.federation.local_steps, seed)
        yield Progress(number, DenseGenerator(recipe.architecture, weights), sent, opened)


def server_mask(recipe: Recipe, folder: Path, options: argparse.Namespace) -> Iterator[Progress]:
    """A mask, trained likewise: the scores are simply kept."""
    config, trainer = recipe.config, recipe.trainer
    found, sent, opened = targets(recipe, folder)
    low, state = config.privacy.theta_min, trainer.initial_state()
    seed = public_seed(config.federation.seed, "scores")
    theta = initial_theta(trainer.dimension, seed=seed, spread=config.mask.spread, law=config.mask.initial)
    for number in range(1, config.federation.rounds + 1):
        seed = public_seed(config.federation.seed, "latents", 0, number)
        result = trainer.train(
            theta.clamp(low, 1 - low),
            state,
            found[0],
            steps=config.federation.local_steps,
            progress=progress(number - 1, config.federation.rounds),
            seed=seed,
        )
        state, theta = result.state, theta_from_scores(result.scores, config.mask.temperature)
        mask = deployed_mask(theta, config.mask.mode, density=config.mask.density)
        generator = DeployedGenerator(recipe.architecture, seed=recipe.model_seed, mask=mask.float())
        yield Progress(number, generator, sent, opened)


def masks(config: Config, folder: Path) -> Iterator[dict[str, object]]:
    """prism-secure, as its run folder tells it."""
    run(config, folder)
    moments = folder / "moments.json"
    sent = json.loads(moments.read_text())["uplink_bytes"] if moments.exists() else 0
    for record in read_records(folder):
        sent += record.uplink_bytes
        if record.quality is not None:
            quality = {name: getattr(record.quality, name) for name in ("fid", "kid", "coverage")}
            accuracy = record.quality.label_accuracy
            yield {
                "round": record.round,
                "uplink_bytes": sent,
                "epsilon_client": record.epsilon.sum_zero_out,
                **quality,
                "label_accuracy": accuracy,
            }


def measured(recipe: Recipe, rounds: Iterator[Progress]) -> Iterator[dict[str, object]]:
    """Metrics of each round that `metrics.every` asks for, as a run measures them."""
    config, dataset = recipe.config, recipe.dataset
    network = metric_features(config.metrics.features)
    evaluator = Evaluator(dataset.test_images, features=network, classes=dataset.classes)
    for after in rounds:
        if after.round % config.metrics.every and after.round != config.federation.rounds:
            continue
        seed = public_seed(config.federation.seed, "evaluation")
        quality = evaluator(*after.generator.generate(config.metrics.samples, seed=seed))
        kept = {name: quality[name] for name in ("fid", "kid", "coverage")}
        yield {
            "round": after.round,
            "uplink_bytes": after.uplink_bytes,
            "epsilon_client": after.epsilon_client,
            **kept,
            "label_accuracy": quality.get("label_accuracy"),
        }


def main() -> None:
    """One baseline."""
    parser = argparse.ArgumentParser(description="What one could do instead of sending masks.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--as", dest="label", help="what the lines are called; left out: the name")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="of dense weights")
    parser.add_argument("--clip", type=float, default=0.0, help="dp-fedavg: L2 norm of a client's move")
    parser.add_argument("--noise", type=float, default=1.0, help="dp-fedavg: noise on the sum, in clips")
    options = parser.parse_args()
    if (options.name == "dp-fedavg") != bool(options.clip):
        parser.error("--clip is for dp-fedavg, which needs it")
    config = load_config(options.config, options.overrides)
    recipe, label = Recipe(config), options.label or options.name
    if options.name.startswith("server") and not config.opens_moments:
        parser.error("a server that trains alone needs moments that the secure sum opened: record_epsilon")
    results, folder = options.out / "results.jsonl", options.out / label
    options.out.mkdir(parents=True, exist_ok=True)
    if results.exists() and any(json.loads(line)["name"] == label for line in results.open()):
        print(f"{label} is in {results} already")
        return
    torch.set_num_threads(1)
    if options.name == "masks":
        rows = masks(config, folder)
    else:
        make = {"fedavg": fedavg, "dp-fedavg": fedavg, "server": server, "server-mask": server_mask}
        folder.mkdir(exist_ok=True)
        rows = measured(recipe, make[options.name](recipe, folder, options))
    lines = []
    for row in rows:
        lines.append({"name": label, "epsilon_image": config.privacy.record_epsilon, **row})
        print(json.dumps(finite(lines[-1])), flush=True)
    with results.open("a") as file:  # all of it or nothing, so that a name stands for a whole run
        file.writelines(json.dumps(finite(line)) + "\n" for line in lines)


if __name__ == "__main__":
    main()
