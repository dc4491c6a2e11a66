"""Measured rounds, with the wire left out: what a setting of the learning side reaches.

    python experiments/measured_rounds/simulate.py NAME --out FOLDER --unit client --epsilon 2
    python experiments/measured_rounds/simulate.py NAME --out FOLDER --unit record --epsilon 2 --rows 400

Clients' answers are clipped in floating point, embedded and drawn as bits by seeded coins, and summed bare:
this protects nobody. The ε that a line states is the accountant's, for these clips of the exact mechanism. A
line is added to `results.jsonl` for each run; features of images are kept in FOLDER and used again.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.linalg import block_diag

sys.path.insert(0, str(Path(__file__).parents[1]))
from results import append, done

from prism_privacy import Accountant, Adjacency, MaskRelease, View, calibrate
from prism_secure.accounting.clip_rules import clip_shares
from prism_secure.config import load_config
from prism_secure.config.public_seed import public_seed
from prism_secure.data.public_images import dead_leaves
from prism_secure.learning.measured.directions import principal_directions
from prism_secure.learning.measured.prior import Prior
from prism_secure.learning.measured.row_posterior import RowPosterior
from prism_secure.learning.measured.schedule import answer_clips, steps_after
from prism_secure.learning.measured.server_training import Metric, ServerState, ServerTraining
from prism_secure.model.generator import draw_latents
from prism_secure.model.supermask import initial_theta
from prism_secure.rounds.components import Components
from prism_secure.rounds.evaluation import Evaluation

RESULTS = Path(__file__).parent / "results.jsonl"
RECORD_COORDINATES = 262_144
PUBLIC_IMAGES = 3000
MOST_ROWS = 1500


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("name", help="of the line in results.jsonl; one that is there is not made again")
    add("--out", type=Path, required=True, help="folder for features and samples")
    add("--unit", choices=("client", "record"), default="client")
    add("--clients", type=int, help="by default 1,000, or 10 with --unit record")
    add(
        "--epsilon", type=float, default=2.0, help="SUM; zero-out of a client or swap of an image, delta 1e-5"
    )
    add("--rounds", type=int, default=8)
    add("--directions", type=int, default=384)
    add("--flip", type=float, default=0.45)
    add("--first", type=float, default=0.5, help="clip of the first round, as a share of the others'")
    add("--growth", type=float, default=1.0, help="of the clip, from round to round")
    add("--coordinates", type=int, default=16_384, help="bits a client sends; 262,144 with --unit record")
    add("--margin", type=float, default=1.15, help="of the answers' clip over what is expected")
    add("--concentration", type=float, help="expected sum of squares of a client's class shares; default 1/K")
    add("--rows", type=int, default=300, help="of the public basis")
    add(
        "--grow",
        type=int,
        default=0,
        help="rows that the basis gets from generated images before each later round",
    )
    add("--grow-from", type=int, default=3, help="the first round before which it does")
    add(
        "--grow-prior",
        type=float,
        default=0.15,
        help="prior variance along them, in units of generated images'",
    )
    add(
        "--own",
        type=float,
        default=0.7,
        help="prior variance of a class, in units of public images' spectrum",
    )
    add("--shared", type=float, default=0.7)
    add("--metric", choices=("flat", "known", "sure"), default="known")
    add("--width", type=int, default=16)
    add("--batch", type=int, default=40)
    add("--steps", type=int, default=60, help="of the server, a round")
    add("--end", type=int, default=500, help="more, after the last round")
    add("--rate", type=float, default=0.03)
    add("--smoothing", type=float, default=0.98)
    add("--random", action="store_true", help="ask along random coordinates, not those that are worth most")
    add("--uncentred", action="store_true", help="ask around the prior's mean, not around the posterior's")
    add(
        "--centre",
        choices=("half", "theta", "mask", "room"),
        default="half",
        help="p_t: 1/2; f + (1 - 2f) theta_t, or that of its mask; or theta_t clipped, moves having room",
    )
    add("--pairs", type=int, default=0, help="second moments of so many leading coordinates, too")
    add("--pairs-from", type=int, default=5, help="the round in which they are asked for first")
    add("--pairs-prior", type=float, default=0.05, help="prior variance of them, in units of images'")
    add("--partition", choices=("iid", "shards", "dirichlet"), default="iid")
    add("--seed", type=int, default=1)
    add("--threads", type=int, default=1)
    add("--every", type=int, default=0, help="evaluate after so many rounds, too")
    add("--static", action="store_true", help="no training: how near the posterior comes")
    add(
        "--exact",
        action="store_true",
        help="train on the exact moments in the basis: what noise costs nothing of",
    )
    found = parser.parse_args()
    if found.pairs and found.grow:
        parser.error("--pairs must be 0 where the basis grows")
    return found


def features_of(
    recipe: Components, folder: Path, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All clients' images in the data set's order, their labels, and public images: features (N, D)."""
    kept = folder / f"features-{seed}-3000.pt"
    if not kept.exists():
        images = recipe.dataset.train_images
        public = dead_leaves(
            PUBLIC_IMAGES,
            side=recipe.config.model.image_size,
            channels=recipe.dataset.channels,
            seed=public_seed(seed, "basis"),
        )
        with torch.no_grad():
            scaled = [part.float() / 127.5 - 1 for part in images.split(250)]
            found = torch.cat([recipe.extractor(part) for part in scaled])
            basis = recipe.extractor.in_batches(public)
        torch.save((found, recipe.dataset.train_labels.long(), basis), kept)
    loaded: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = torch.load(kept)
    return loaded


def class_means_of(phi: torch.Tensor, label: torch.Tensor) -> np.ndarray:
    """(K, D), float64, of features (N, D) and labels (N,)."""
    means = [phi[label == c].double().mean(0) for c in range(int(label.max()) + 1)]
    return torch.stack(means).numpy()


class WithPairs:
    """A trainer whose features (N, D) go on with products of their leading coordinates around class centres.

    With z = A(φ − centre of the class) and λ the variances along A's rows, the products are
    z_i z_j / √(λ_i + λ_j) for i < j and (z_i² − λ_i) / √(4 λ_i): the squared length of their mean is what a
    covariance other than diag(λ) adds to Fréchet's distance, to second order.

    Args:
        trainer: any; all else is taken from it.
        axes: A (r, D), orthonormal rows.
        within: λ (r,).
        classes: K; all centres begin at 0.
    """

    def __init__(self, trainer: Any, axes: np.ndarray, within: np.ndarray, classes: int) -> None:
        self.trainer, self.axes = trainer, torch.from_numpy(axes).float()
        self.centres = torch.zeros(classes, axes.shape[1])
        rows, columns = self.places = np.triu_indices(len(axes))
        scale = np.where(rows == columns, 0.5, 1.0) / (within[rows] + within[columns])
        self.variances = np.where(rows == columns, 2, 1) * within[rows] * within[columns] * scale
        self.scale = torch.from_numpy(np.sqrt(scale)).float()
        self.guess = torch.from_numpy(np.where(rows == columns, within[rows], 0)).float()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)

    def extended(self, phi: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Features (N, D) and their products (N, r(r+1)/2)."""
        z = (phi - self.centres[label.long()]) @ self.axes.T
        rows, columns = self.places
        return torch.cat([phi, (z[:, rows] * z[:, columns] - self.guess) * self.scale], dim=1)

    def features(self, mask: torch.Tensor, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Of generated images."""
        return self.extended(self.trainer.features(mask, latents, labels), labels)


def pairs_error(posterior: RowPosterior, truth: np.ndarray, pairs: int) -> dict[str, float]:
    """How far guess and posterior are from the true means of the last `pairs`: a mean over classes."""
    off = {"pairs_guess": truth[:, -pairs:], "pairs": (posterior.mean - truth)[:, -pairs:]}
    return {name: round(float(np.linalg.norm(rest, axis=1).mean()), 4) for name, rest in off.items()}


def principal(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal directions (count, D) of rows (N, D), and the second moment along each."""
    small = len(rows) < rows.shape[1]
    sizes, axes = np.linalg.eigh((rows @ rows.T if small else rows.T @ rows) / len(rows))
    sizes, axes = sizes[::-1][:count], axes[:, ::-1][:, :count]
    basis = axes.T @ rows if small else axes.T
    return basis / np.linalg.norm(basis, axis=1, keepdims=True), np.maximum(sizes, 0)


def main() -> None:
    o = arguments()
    if done(RESULTS, o.name):
        return
    torch.set_num_threads(o.threads)
    o.out.mkdir(parents=True, exist_ok=True)
    n = o.clients or (1000 if o.unit == "client" else 10)
    cohort = n - n // 20 if o.unit == "client" else n
    coordinates = o.coordinates if o.unit == "client" else RECORD_COORDINATES
    recipe = Components(
        load_config(
            None,
            [
                f"model.width={o.width}", f"training.batch_size={o.batch}", f"federation.seed={o.seed}",
                f"federation.clients={n}", f"data.partition={o.partition}",
                "data.shards_per_client=2", "data.dirichlet_alpha=0.005",
            ],
        )
    )  # fmt: skip
    trainer = recipe.trainer
    phi, label, public = features_of(recipe, o.out, o.seed)
    classes, dimension = 10, trainer.extractor.dimension
    held = recipe.partition.indices if o.partition != "dirichlet" else dirichlet(label.numpy(), n, o.seed)
    owner = torch.zeros(len(phi), dtype=torch.long)
    for client, images in enumerate(held):
        owner[torch.from_numpy(images)] = client
    records = len(phi) // n

    clips = calibrate(
        epsilon=o.epsilon, delta=1e-5, rounds=o.rounds, cohort=cohort, flip=o.flip, view=View.SUM,
        adjacency=Adjacency.ZERO_OUT,
    ).clip * math.sqrt(o.rounds) * clip_shares(o.rounds, first=o.first, growth=o.growth)  # fmt: skip
    account = Accountant(delta=1e-5)
    for clip in clips:
        account.spend(MaskRelease(flip=o.flip, clip=float(clip), cohort=cohort))
    spent = {view.name.lower(): account.epsilon(view, Adjacency.ZERO_OUT) for view in (View.SUM, View.UPLOAD)}
    print(vars(o), spent, clips.round(2).tolist(), flush=True)

    centred = (public - public.mean(0)).double().numpy()
    kept = o.out / f"basis-{o.seed}.npz"
    if not kept.exists():
        basis, spectrum = principal(centred, MOST_ROWS)
        np.savez(kept, basis=basis, spectrum=spectrum)
    basis, spectrum = (np.load(kept)[name][: o.rows] for name in ("basis", "spectrum"))
    # Dead leaves have no classes, so part of their variance is that between classes.
    within = 0.5 * spectrum
    prior = Prior(np.zeros((classes, dimension)), basis, 0.5 * spectrum, own=o.own, shared=o.shared)
    pairs = o.pairs * (o.pairs + 1) // 2
    if pairs:
        trainer = WithPairs(trainer, basis[: o.pairs], within[: o.pairs], classes)
        spread = trainer.variances
        prior = Prior(
            np.zeros((classes, dimension + pairs)),
            block_diag(basis, np.eye(pairs)),
            np.concatenate([prior.spectrum, o.pairs_prior / o.own * spread]),
            own=o.own,
            shared=o.shared,
        )
        within = np.concatenate([within, spread])
        phi = trainer.extended(phi, label)
    truth = class_means_of(phi, label)  # for print only
    posterior = RowPosterior.start(prior)
    state = ServerState.start(trainer, initial_theta(trainer.dimension, seed=public_seed(o.seed, "theta")))
    state = replace(state, average=torch.zeros(prior.mean.shape))
    training = ServerTraining(
        trainer, steps=o.rounds * o.steps + o.end, start=o.rate, end=0.1 * o.rate, smoothing=o.smoothing
    )
    evaluation = Evaluation(recipe)
    coins = np.random.default_rng(1000 + o.seed)
    began, log = time.process_time(), []

    def evaluate(when: str) -> dict[str, float]:
        quality = evaluation((state.smoothed > 0).numpy(), o.out / f"{o.name}.png")
        names = ("fid", "recall", "coverage", "precision", "label_accuracy")
        measured = {name: round(float(getattr(quality, name)), 4) for name in names}
        print(when, measured, f"cpu {time.process_time() - began:.0f}", flush=True)
        return measured

    for t in range(1, o.rounds + 1):
        if o.grow and t >= o.grow_from:
            made = generated(trainer, state, public_seed(o.seed, "basis", t), rows=1000)
            rest = made - (made @ prior.basis.T) @ prior.basis
            # Not centred: what all these images have in common beyond the basis is its first row.
            rows, second = principal(rest, o.grow)
            by_class = made.reshape(-1, classes, dimension).mean(0)
            along = np.maximum(second - ((by_class @ rows.T) ** 2).mean(0), 0.1 * second)
            posterior = grown(posterior, rows, o.grow_prior / o.own * second, by_class)
            prior = posterior.prior
            within = np.concatenate([within, 1.3 * along])
        if pairs and t == o.pairs_from:
            trainer.centres = torch.from_numpy(posterior.mean[:, :dimension]).float()
            phi = trainer.extended(phi[:, :dimension], label)
            truth = class_means_of(phi, label)
        # Public: what is asked, around which reference, under which clips.
        around = RowPosterior.start(prior) if o.uncentred else posterior
        reference = around.mean
        rest = phi - torch.from_numpy(reference).float()[label]
        later = pairs if t < o.pairs_from else 0
        directions = min(o.directions, prior.variances.size - classes * later)
        numbers = torch.zeros(len(phi), directions)
        worth = posterior.variances.copy()
        if o.random:
            worth = np.random.default_rng([o.seed, t]).random(worth.shape) * np.sqrt(within)
        worth[:, worth.shape[1] - later :] = 0
        asked = principal_directions(prior, worth, directions, within)
        seen = rest @ torch.from_numpy(prior.basis).float().T
        for c in range(classes):
            of = label == c
            numbers[of] = seen[of][:, asked.row_numbers] * torch.from_numpy(asked.by_class[c]).float()
        limit = answer_clips(
            prior,
            around.variances,
            asked,
            within,
            records=records,
            margin=o.margin,
            concentration=o.concentration,
        )
        limit_ = limit[0] if o.unit == "client" else limit[1]
        # Clients: clipped, and each image's part before, at sqrt(N) A where a client is protected.
        norm = numbers.norm(dim=1)
        most = limit_ * (math.sqrt(records) if o.unit == "client" else 1)
        numbers *= (most / norm).clamp(max=1)[:, None]
        a = torch.zeros(n, directions).index_add_(0, owner, numbers / records)
        if o.unit == "client":
            norm = a.norm(dim=1)
            a *= (limit_ / norm).clamp(max=1)[:, None]
        reach = clips[t - 1] if o.unit == "client" else clips[t - 1] * records / 2
        # Bits of the mask, and what opens of their sum.
        draw = np.random.default_rng(public_seed(o.seed, "embedding", t))
        columns = draw.permutation(coordinates)[:directions]
        signs = draw.integers(0, 2, coordinates, dtype=np.int8).astype(np.float32) * 2 - 1
        centre = np.full(coordinates, 0.5, np.float32)
        if o.centre != "half":
            theta = state.theta(trainer.temperature, 0.01)
            theta = draw.permutation(theta > 0.5 if o.centre == "mask" else theta)
            theta = theta[:coordinates].astype(np.float32)
            room = min(0.5, o.flip + 3 * reach / math.sqrt(coordinates))
            centre = theta.clip(room, 1 - room) if o.centre == "room" else o.flip + (1 - 2 * o.flip) * theta
        low, high = o.flip - centre, 1 - o.flip - centre
        votes, boxed = np.zeros(coordinates, np.float32), 0.0
        for start in range(0, n, 100):
            placed = np.zeros((min(100, n - start), coordinates), np.float32)
            placed[:, columns] = (reach / limit_) * a[start : start + 100].numpy()
            move = signs * hadamard(placed)
            boxed += float(np.count_nonzero((move < low) | (move > high))) / (n * coordinates)
            p = centre + np.clip(move, low, high)
            votes += (coins.random(p.shape, dtype=np.float32) < p).sum(0, dtype=np.float32)
        opened = hadamard(signs * (votes / n - centre)[None])[0, columns].astype(np.float64) * limit_ / reach
        noise = math.sqrt(float(np.mean(centre * (1 - centre))) / n) * limit_ / reach
        # Server: one measurement more.
        posterior = posterior.answered(asked, opened + around.expected(asked), noise**2)
        error = ((posterior.mean - truth) @ prior.basis.T)[:, : within.size - pairs]
        beyond = truth - (truth @ prior.basis.T) @ prior.basis
        log.append(
            {
                "clip": round(float(limit_), 4),
                "norm": round(float(norm.median()), 4),
                "clipped": round(float((norm > limit_).float().mean()), 3),
                "boxed": round(boxed, 4),
                "noise": round(float(classes * noise), 5),
                "error": round(float(np.linalg.norm(error, axis=1).mean()), 4),
                "beyond": round(float(np.linalg.norm(beyond, axis=1).mean()), 4),
                "expected": round(
                    math.sqrt(posterior.variances[:, : within.size - pairs].sum() / classes), 4
                ),
                "cpu": round(time.process_time() - began),
            }
            | ({"centre": round(float(np.mean(centre * (1 - centre))), 4)} if o.centre != "half" else {})
            | (pairs_error(posterior, truth, pairs) if pairs else {})
        )
        print(t, log[-1], flush=True)
        if o.static:
            continue
        weights = np.ones(prior.variances.shape)
        if o.metric == "known":
            weights = 1 - posterior.variances / np.maximum(prior.variances, 1e-12)
        if o.metric == "sure":
            weights = weights**2
        metric = Metric(*(torch.from_numpy(x).float() for x in (prior.class_axes, prior.basis, weights)))
        target = truth if o.exact else posterior.mean
        steps = steps_after(t, rounds=o.rounds, each=o.steps, end=o.end)
        state = training.run(state, target, metric, steps=steps, seed=public_seed(o.seed, "latents", t))
        if o.every and t % o.every == 0 and t < o.rounds:
            log[-1].update(evaluate(f"round {t}"))
    if o.static:
        return
    settings = {k: v for k, v in vars(o).items() if k not in ("name", "out", "static", "every", "threads")}
    line: dict[str, Any] = {
        "name": o.name,
        **evaluate("end"),
        "epsilon_sum": round(spent["sum"], 3),
        "epsilon_upload": round(spent["upload"], 2),
        "cpu_seconds": round(time.process_time() - began),
        "settings": settings,
        "rounds": log,
        "command": "python experiments/measured_rounds/simulate.py " + " ".join(sys.argv[1:]),
    }
    append(RESULTS, [line])


def hadamard(rows: np.ndarray) -> np.ndarray:
    """Each row (..., m), m a power of two, times the orthonormal Hadamard matrix."""
    found, width = rows, rows.shape[-1]
    step = 1
    while step < width:
        pairs = found.reshape(len(rows), -1, 2, step)
        left, right = pairs[:, :, 0], pairs[:, :, 1]
        found = np.stack([left + right, left - right], axis=2)
        step *= 2
    return found.reshape(rows.shape) / np.float32(width**0.5)


def grown(posterior: RowPosterior, rows: np.ndarray, spectrum: np.ndarray, mean: np.ndarray) -> RowPosterior:
    """The same with more `rows` (s, D) of the basis, and what is guessed along them: `mean` (K, D).

    Rows need not be orthogonal; along the basis so far nothing changes.
    """
    prior, old = posterior.prior, len(posterior.prior.basis)
    new = np.linalg.qr((rows - (rows @ prior.basis.T) @ prior.basis).T).Q.T
    # Again, for rounding: what lies along the basis by 1e-16 of a long row would show in a short rest.
    new -= (new @ prior.basis.T) @ prior.basis
    wider = Prior(
        prior.mean + ((mean - prior.mean) @ new.T) @ new,
        np.concatenate([prior.basis, new]),
        np.concatenate([prior.spectrum, spectrum]),
        prior.own,
        prior.shared,
    )
    coordinates, variances = wider.coordinates(wider.mean), wider.variances.copy()
    coordinates[:, :old], variances[:, :old] = posterior.coordinates, posterior.variances
    return RowPosterior(wider, coordinates, variances)


def generated(trainer: Any, state: ServerState, seed: int, *, rows: int) -> np.ndarray:
    """Features (rows, D), float64, of images that the deployed mask makes, labels 0, 1, ... in turn."""
    draws, mask, found = torch.Generator().manual_seed(seed), (state.smoothed > 0).float(), []
    with torch.no_grad():
        for _ in range(rows // 100):
            latents, labels = draw_latents(100, trainer.architecture, draws)
            found.append(trainer.extractor(trainer.supermask(mask, latents, labels)))
    return torch.cat(found).double().numpy()


def dirichlet(labels: np.ndarray, clients: int, seed: int) -> list[np.ndarray]:
    """Label proportions of each client from Dirichlet(0.005), sizes about equal, each image to one client.

    The product's partition draws sizes, too: with a thousand clients nearly all would have none.
    """
    rng = np.random.default_rng(seed)
    pools = [rng.permutation(np.flatnonzero(labels == c)).tolist() for c in range(labels.max() + 1)]
    held = []
    for _ in range(clients):
        share = rng.dirichlet(np.full(len(pools), 0.005))
        mine = []
        for _ in range(len(labels) // clients):
            left = np.array([p * bool(pool) for p, pool in zip(share, pools, strict=True)])
            if not left.sum() > 1e-12:
                left = np.array([float(len(pool)) for pool in pools])
            mine.append(pools[rng.choice(len(pools), p=left / left.sum())].pop())
        held.append(np.array(mine))
    return held


if __name__ == "__main__":
    main()
