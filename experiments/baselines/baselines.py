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
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prism_crypto import FixedPoint, SessionContext, secure_sum
from prism_privacy import Adjacency, View
from prism_privacy.ledger.entry import json_safe
from prism_privacy.moments.discrete_gaussian import (
    LEAST_SHARE,
    SMOOTHING,
    gaussian_epsilon,
    sample_discrete_gaussian,
)
from prism_privacy.moments.noisy_sums import fresh_coins
from prism_secure.config import Config, load_config
from prism_secure.config.public_seed import public_seed
from prism_secure.learning.aggregation import progress
from prism_secure.learning.moment_matching import FeatureMoments
from prism_secure.learning.training import ClientState, adam_step
from prism_secure.model.deployed import DeployedGenerator
from prism_secure.model.generator import Architecture, ResNetGenerator, draw_latents
from prism_secure.model.supermask import Supermask, deployed_mask, initial_theta, theta_from_scores
from prism_secure.quality.metrics import Evaluator
from prism_secure.quality.networks import metric_features
from prism_secure.rounds.components import Components
from prism_secure.rounds.moment_sum import open_moments
from prism_secure.rounds.moments import ClientMoments
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import client_folder, read_records
from prism_secure.run_folder.records import Quality

sys.path.insert(0, str(Path(__file__).parents[1]))
from results import append, done

NAMES = ("masks", "fedavg", "dp-fedavg", "server", "server-mask")
LEVELS = (1 << 16) - 2
"""Of a move's fixed point without noise."""
CLIP_UNITS = 1 << 16
"""With noise: how many steps of the grid the clip is long."""
CUT = 24
"""A noisy move is cut off so many standard deviations beyond the clip: the sum needs a largest value."""


PROVED = 100.0
"""Above this epsilon that cut is not covered by a proof: inf is what is said."""


class DenseGenerator(DeployedGenerator):
    """As a deployed mask, but every weight has a value of its own."""

    def __init__(self, architecture: Architecture, weights: Tensor) -> None:
        self.architecture = architecture
        self.network = ResNetGenerator(architecture, running_statistics=True)
        torch.nn.utils.vector_to_parameters(weights, self.network.parameters())
        self.network.requires_grad_(False)
        self._calibrate()


class DenseTrainer:
    """Local steps on all weights, with the objective of the recipe."""

    def __init__(self, recipe: Components, learning_rate: float) -> None:
        self.recipe, self.learning_rate = recipe, learning_rate
        network = ResNetGenerator(recipe.architecture)
        self.network = Supermask(network, seed=recipe.model_seed, law="kaiming_normal")
        self.initial = self.network.weights.clone()
        self.network.weights.fill_(1.0)  # a "mask" of any numbers then stands for the weights themselves

    def initial_state(self) -> ClientState:
        """Before a client's first round: Adam's moments, whatever optimizer the recipe's masks have."""
        zeros = torch.zeros_like(self.initial)
        return replace(self.recipe.trainer.initial_state(), first=zeros, second=zeros)

    def train(
        self, weights: Tensor, state: ClientState, target: FeatureMoments, *, steps: int, seed: int
    ) -> tuple[Tensor, ClientState]:
        """Weights (d,) after `steps` steps, and the state to keep; nothing given is changed."""
        training, architecture = self.recipe.config.training, self.recipe.architecture
        draws, averages = torch.Generator().manual_seed(seed), state.averages
        weights, first, second = weights.clone(), state.first.clone(), state.second.clone()
        for step in range(state.step + 1, state.step + steps + 1):
            leaf = weights.clone().requires_grad_(True)
            latents, labels = draw_latents(training.batch_size, architecture, draws)
            features = self.recipe.extractor(self.network(leaf, latents, labels))
            loss, averages = self.recipe.trainer.matching(features, labels, target, averages)
            (gradient,) = torch.autograd.grad(loss, leaf)
            adam_step(weights, gradient, first, second, step, self.learning_rate, training.betas)
        return weights, ClientState(first, second, state.step + steps, averages)


@dataclass(frozen=True)
class Progress:
    """After a round: images from `generator`, bytes sent so far, epsilon of one client to date (SUM)."""

    round: int
    generator: DeployedGenerator
    uplink_bytes: int
    epsilon_client: float


@dataclass(frozen=True)
class Known:
    """What may be known of images before the first round.

    Attributes:
        targets: what each client matches.
        uplink_bytes: sent by all clients to open them; 0 where nothing was opened, as with exact moments, or
            where each client keeps its own release.
        epsilon_client: what having opened them costs a client (SUM, ZERO_OUT); 0 likewise.
    """

    targets: list[FeatureMoments]
    uplink_bytes: int = 0
    epsilon_client: float = 0.0


def known(recipe: Components, folder: Path) -> Known:
    """Each client's moments or, where the recipe says so, their securely opened noisy sum."""
    folder.mkdir(exist_ok=True)
    config = recipe.config
    clients = [ClientMoments(client_folder(folder, i), i, recipe) for i in range(config.federation.clients)]
    for client in clients:
        client.prepare(answered=False)
    release = recipe.record_release
    if release is None or not release.summed:
        return Known([client.targets() for client in clients])
    open_moments(release, clients, folder, "baseline")
    return Known(
        [clients[0].targets()] * len(clients),
        _opening_bytes(folder),
        release.client_epsilon(View.SUM, Adjacency.ZERO_OUT),
    )


def _opening_bytes(folder: Path) -> int:
    return int(json.loads((folder / "moments.json").read_text())["uplink_bytes"])


def fedavg(
    recipe: Components, folder: Path, *, learning_rate: float, clip: float | None, noise: float
) -> Iterator[Progress]:
    """Federated averaging of moves, which are clipped and noised where there is a `clip`."""
    config, trainer = recipe.config, DenseTrainer(recipe, learning_rate)
    start = known(recipe, folder)
    states, weights, sent = (
        [trainer.initial_state() for _ in start.targets],
        trainer.initial,
        start.uplink_bytes,
    )
    encode, decode, bound, noise = _grid(
        config, len(weights), learning_rate=learning_rate, clip=clip, noise=noise
    )
    for number in range(1, config.federation.rounds + 1):
        moves = []
        for client, target in enumerate(start.targets):
            seed = public_seed(config.federation.seed, "latents", client, number)
            end, states[client] = trainer.train(
                weights, states[client], target, steps=config.federation.local_steps, seed=seed
            )
            moves.append(encode((end - weights).double().numpy()))
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
        own = own if own <= PROVED else math.inf
        # Moves of opened moments are post-processing of them; no noise on moves takes back what was opened.
        epsilon = start.epsilon_client if config.opens_moments else own
        yield Progress(number, DenseGenerator(recipe.architecture, weights), sent, epsilon)


def _grid(
    config: Config, dimension: int, *, learning_rate: float, clip: float | None, noise: float
) -> tuple[Callable[..., NDArray[np.int64]], Callable[..., NDArray[np.float64]], int, float]:
    """How moves become integers and their sum a mean move, the integers' bound, and the noise multiplier."""
    # What overflowed is no move, here and without a word: an error would tell the server of a client's data.
    if clip is None:
        codec = FixedPoint(4 * learning_rate * config.federation.local_steps, LEVELS)
        return (
            lambda move: codec.encode(_only_finite(move)),
            lambda counts, n: codec.decode_sum(counts, n) / n,
            codec.levels,
            0.0,
        )
    step = clip / CLIP_UNITS
    share = max(LEAST_SHARE, math.ceil(noise * CLIP_UNITS / math.sqrt(config.cohort)))
    offset = CLIP_UNITS + CUT * share
    # Of the smoothing that makes a sum of discrete Gaussians one: `prism_privacy.moments.discrete_gaussian`.
    noise = math.sqrt(config.cohort * (share**2 - SMOOTHING**2)) / CLIP_UNITS

    def encode(move: NDArray[np.float64]) -> NDArray[np.int64]:
        move = _only_finite(move)
        length = float(np.linalg.norm(move))
        inside = move * min(1.0, clip * (1 - 1e-9) / max(length, 1e-300))
        units = np.trunc(inside / step).astype(np.int64)  # towards zero: no longer than the clip
        drawn = sample_discrete_gaussian(share, dimension, fresh_coins())
        return np.clip(units + drawn, -offset, offset) + offset  # whatever is cut, is so after the noise

    def decode(counts: NDArray[np.int64], survivors: int) -> NDArray[np.float64]:
        return (counts - survivors * offset) * (step / survivors)

    return encode, decode, 2 * offset, noise


def _only_finite(move: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(move), move, 0.0)


def server(recipe: Components, folder: Path, *, learning_rate: float) -> Iterator[Progress]:
    """Dense weights, trained on the opened moments by the server: as many steps as one client would make."""
    config, trainer = recipe.config, DenseTrainer(recipe, learning_rate)
    start = known(recipe, folder)
    state, weights = trainer.initial_state(), trainer.initial
    for number in range(1, config.federation.rounds + 1):
        seed = public_seed(config.federation.seed, "latents", 0, number)
        weights, state = trainer.train(
            weights, state, start.targets[0], steps=config.federation.local_steps, seed=seed
        )
        generator = DenseGenerator(recipe.architecture, weights)
        yield Progress(number, generator, start.uplink_bytes, start.epsilon_client)


def server_mask(recipe: Components, folder: Path) -> Iterator[Progress]:
    """A mask, trained likewise: the scores are simply kept."""
    config, trainer = recipe.config, recipe.trainer
    start = known(recipe, folder)
    low, state = config.privacy.theta_min, trainer.initial_state()
    seed = public_seed(config.federation.seed, "scores")
    theta = initial_theta(trainer.dimension, seed=seed, spread=config.mask.spread, law=config.mask.initial)
    for number in range(1, config.federation.rounds + 1):
        seed = public_seed(config.federation.seed, "latents", 0, number)
        result = trainer.train(
            theta.clamp(low, 1 - low),
            state,
            start.targets[0],
            steps=config.federation.local_steps,
            progress=progress(number - 1, config.federation.rounds),
            seed=seed,
        )
        state, theta = result.state, theta_from_scores(result.scores, config.mask.temperature)
        mask = deployed_mask(theta, config.mask.mode, density=config.mask.density)
        generator = DeployedGenerator(recipe.architecture, seed=recipe.model_seed, mask=mask.float())
        yield Progress(number, generator, start.uplink_bytes, start.epsilon_client)


def row(number: int, uplink_bytes: int, epsilon_client: float, quality: Quality) -> dict[str, object]:
    """What is kept of a measured round."""
    names = ("fid", "kid", "coverage", "label_accuracy")
    found = {name: getattr(quality, name) for name in names}
    return {"round": number, "uplink_bytes": uplink_bytes, "epsilon_client": epsilon_client, **found}


def masks(config: Config, folder: Path) -> Iterator[dict[str, object]]:
    """prism-secure, as its run folder tells it."""
    run(config, folder)
    sent = _opening_bytes(folder) if config.opens_moments else 0
    for record in read_records(folder):
        sent += record.uplink_bytes
        if record.quality is not None:
            yield row(record.round, sent, record.epsilon.sum_zero_out, record.quality)


def measured(recipe: Components, rounds: Iterator[Progress]) -> Iterator[dict[str, object]]:
    """Metrics of each round that `metrics.every` asks for, as a run measures them."""
    config, dataset = recipe.config, recipe.dataset
    network = metric_features(config.metrics.features)
    evaluator = Evaluator(dataset.test_images, features=network, classes=dataset.classes)
    for after in rounds:
        if after.round % config.metrics.every and after.round != config.federation.rounds:
            continue
        seed = public_seed(config.federation.seed, "evaluation")
        quality = Quality(**evaluator(*after.generator.generate(config.metrics.samples, seed=seed)))
        yield row(after.round, after.uplink_bytes, after.epsilon_client, quality)


def main() -> None:
    """One baseline."""
    parser = argparse.ArgumentParser(description="What one could do instead of sending masks.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--as", dest="label", help="what the lines are called; left out: the name")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="of dense weights")
    parser.add_argument("--clip", type=float, help="dp-fedavg: L2 norm of a client's move")
    parser.add_argument("--noise", type=float, default=1.0, help="dp-fedavg: noise on the sum, in clips")
    options = parser.parse_args()
    if (options.name == "dp-fedavg") != (options.clip is not None):
        parser.error("--clip is for dp-fedavg, which needs it")
    for name in ("learning_rate", "clip", "noise"):
        if (value := getattr(options, name)) is not None and not 0 < value < math.inf:
            parser.error(f"--{name.replace('_', '-')} must be a positive number, got {value}")
    config = load_config(options.config, options.overrides)
    recipe, label = Components(config), options.label or options.name
    if options.name.startswith("server") and not config.opens_moments:
        parser.error("a server that trains alone needs moments that the secure sum opened: record_epsilon")
    if config.privacy.record_store is not None:
        parser.error("each baseline opens moments of its own, whose bytes count: leave record_store out")
    results, folder = options.out / "results.jsonl", options.out / label
    options.out.mkdir(parents=True, exist_ok=True)
    if done(results, label):
        print(f"{label} is in {results} already")
        return
    if options.name == "dp-fedavg" and folder.exists():
        parser.error(
            f"{folder} was begun and not finished; beginning again would release the same moves under other "
            "noise: choose another --as, and count both"
        )
    torch.set_num_threads(1)
    rate = options.learning_rate
    if options.name == "masks":
        rows = masks(config, folder)
    elif options.name == "server":
        rows = measured(recipe, server(recipe, folder, learning_rate=rate))
    elif options.name == "server-mask":
        rows = measured(recipe, server_mask(recipe, folder))
    else:
        noised = {"clip": options.clip, "noise": options.noise}
        rows = measured(recipe, fedavg(recipe, folder, learning_rate=rate, **noised))
    lines = []
    for each in rows:
        lines.append({"name": label, "epsilon_image": config.privacy.record_epsilon, **each})
        print(json.dumps(json_safe(lines[-1], nan=True)), flush=True)
    append(results, lines)


if __name__ == "__main__":
    main()
