"""Quality against epsilon: measured rounds beside one noisy sum of moments, at equal epsilon and unit.

    python experiments/frontier/frontier.py client-1000-e2-measured-s0 --out FOLDER
    python experiments/frontier/frontier.py image-10-e2-one-shot-s0 ceiling-12k-s0 --out FOLDER
    python experiments/frontier/frontier.py client-6000-e1-measured-s0 --out FOLDER --full FOLDER
    python experiments/frontier/frontier.py client-1000-e2-clipped-s0 --out FOLDER

A name says all: unit, clients, epsilon(SUM), method, seed; `-r300` at its end sets the rows that a rule would
choose (one shot has none; with them it trains towards a posterior), `-t4000` the steps that the server trains
in all, `-real` runs the secure sum. Measured rounds are eight; with `-t4000`, as many as in their recipe.
Each name gives a line of `results.jsonl`, and one that is there is not made again. All go through the product
(`prism_secure.rounds.simulation.run`): clients, coins, ledger. `one-shot` stops it once the summed moments
are open, and trains the server on them as measured rounds do: same start, same steps. `clipped` is local
training, whose masks are clipped and flipped: a thousand clients with the settings of `cohort/n1000.toml`.
6,000 clients have the published Fashion-MNIST, which lies in the folder of `--full` as torchvision keeps it.
"""

from __future__ import annotations

import argparse
import math
import re
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from prism_privacy import Adjacency, MeasuredRelease, View, calibrate, verify_ledger
from prism_privacy.moments.store import load_moments
from prism_secure.accounting.measured import concentration, releases
from prism_secure.accounting.record_release import RecordRelease, opened_epsilon
from prism_secure.config import Config, load_config
from prism_secure.config.public_seed import public_seed
from prism_secure.data import to_float
from prism_secure.learning.measured.directions import AskedRows
from prism_secure.learning.measured.prior import Prior
from prism_secure.learning.measured.row_posterior import RowPosterior
from prism_secure.learning.measured.rows import ROWS, SPECTRUM, Expected, best_rows, expected_rounds
from prism_secure.learning.measured.schedule import answer_clips
from prism_secure.learning.measured.server_training import Metric, Rows, ServerState, ServerTraining
from prism_secure.quality.utility import IMAGES, accuracy, train_classifier
from prism_secure.rounds.components import Components
from prism_secure.rounds.evaluation import Evaluation
from prism_secure.rounds.server import Server
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import read_records
from prism_secure.run_folder.records import Quality

sys.path.insert(0, str(Path(__file__).parents[1]))
from results import append, done

Array = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results.jsonl"
CLASSES = 10
ROOM = 1 / 3
"""How much of 1/2 - f the moves of bits may fill, as a root mean square."""
FLIPS = (0.35, 0.25, 0.15)
FEWEST_BITS, MOST_BITS = 1 << 12, 1 << 18
ALL_BITS = 1 << 28
"""Of all clients in a round, at most: a simulation draws coins for each of them."""
_NAME = re.compile(
    r"(client|image)-(\d+)-e([\d.]+)-(measured|one-shot|clipped)-s(\d+)(?:-r(\d+))?(?:-t(\d+))?(-real)?"
)


@dataclass(frozen=True)
class Point:
    """One point of the frontier, as its name says it."""

    unit: str
    clients: int
    epsilon: float
    method: str
    seed: int
    given_rows: int | None
    given_steps: int | None
    real: bool
    full: str | None

    @classmethod
    def of(cls, name: str, full: str | None) -> Point:
        found = _NAME.fullmatch(name)
        if found is None:
            raise SystemExit(f"a point is named {_NAME.pattern}, got {name!r}")
        unit, clients, epsilon, method, seed, rows, steps, real = found.groups()
        if steps and method == "clipped":
            raise SystemExit(f"clipped rounds have their recipe's steps, got {name!r}")
        if method == "clipped" and (rows or (unit, clients) != ("client", "1000")):
            raise SystemExit(f"clipped rounds are of 1,000 clients, at client level, got {name!r}")
        given = [int(each) if each else None for each in (rows, steps)]
        return cls(unit, int(clients), float(epsilon), method, int(seed), *given, bool(real), full)

    @property
    def images(self) -> int:
        """Of a client."""
        return 60_000 // self.clients if self.clients > 1000 else 10_000 // self.clients

    @property
    def shared(self) -> list[str]:
        """Settings of both methods."""
        found = [
            f"federation.clients={self.clients}", f"federation.seed={self.seed}", "federation.workers=1",
            f"secure_sum.simulate={'false' if self.real else 'true'}", "metrics.every=1000",
        ]  # fmt: skip
        if self.unit == "client":
            found += [f"privacy.colluders={self.clients // 20}", "secure_sum.mode=semi_honest"]
        if self.clients > 1000:
            if self.full is None:
                raise SystemExit(
                    "more than 1,000 clients have the published images: name their folder, --full"
                )
            found += ["data.source=fashion_mnist", f"data.folder={self.full}"]
        return found

    def measured(self, *changes: str) -> Config:
        """The recipe for this unit, at this epsilon."""
        recipe = "cross-device" if self.unit == "client" else "cross-silo"
        lasts = ["federation.rounds=8", "measured.end_steps=900"]
        if self.given_steps:
            bare = load_config(None, [], recipe=recipe)
            left = self.given_steps - bare.federation.rounds * bare.measured.steps
            lasts = [f"measured.end_steps={left}"]
        own = [f"measured.epsilon={self.epsilon:g}", *lasts]
        return load_config(None, [*self.shared, *own, *changes], recipe=recipe)

    def one_shot(self, record_epsilon: float) -> Config:
        """One summed release of moments; nobody trains but the script."""
        return load_config(
            None,
            [
                *self.shared,
                "model.width=16",
                f"privacy.record_epsilon={record_epsilon}",
            ],
            recipe="one-shot",
        )

    def clipped(self) -> Config:
        """Local training with the largest clip whose rounds together come to this epsilon."""
        recipe = Path(__file__).parents[1] / "cohort" / "n1000.toml"
        changes = [*self.shared, f"budget.epsilon={self.epsilon:g}"]
        config = load_config(recipe, changes)
        found = calibrate(
            epsilon=self.epsilon,
            delta=config.privacy.delta,
            rounds=config.federation.rounds,
            cohort=config.cohort,
            flip=config.privacy.flip,
            view=View.SUM,
            adjacency=Adjacency.ZERO_OUT,
            sum_failure=config.sum_failure,
        )
        return load_config(recipe, [*changes, f"privacy.clip={found.clip}"])


# What the public model expects: no image is read for any of it.


def keep(folder: Path) -> None:
    """Compute once for all runs, and keep in `folder`, what follows from images and seed alone.

    That is the features of all images, and the public basis, of which each run takes its first rows.
    """
    own_basis, own_features = Components.public_basis.func, Components.features

    def basis_of(config: Config) -> tuple[Array, Array]:
        path = folder / f"basis-s{config.federation.seed}.npz"
        if not path.exists():
            widest = msgspec.structs.replace(config.measured, rows=SPECTRUM)
            basis, spectrum = own_basis(Components(msgspec.structs.replace(config, measured=widest)))
            np.savez(path, basis=basis, spectrum=spectrum)
        kept = np.load(path)
        return kept["basis"], kept["spectrum"]

    def public_basis(self: Components) -> tuple[Array, Array]:
        basis, spectrum = basis_of(self.config)
        rows = self.config.measured.rows
        return basis[:rows].copy(), spectrum[:rows].copy()

    def features(self: Components, client: int, *, alike: bool = False) -> tuple[Any, Any]:
        if type(self) is not Components:  # a rehearsal's images are its own
            return own_features(self, client, alike=alike)
        path = folder / f"features-{self.config.data.source}-s{self.config.federation.seed}.npy"
        if not path.exists():
            with torch.no_grad():
                parts = [self.extractor(to_float(part)) for part in self.dataset.train_images.split(250)]
            np.save(path, torch.cat(parts).numpy())
        mine = self.partition.indices[client]
        labels = self.dataset.train_labels[torch.from_numpy(mine)].to(torch.int64).numpy()
        return np.load(path, mmap_mode="r")[mine], labels

    kept_basis = cached_property(public_basis)
    kept_basis.__set_name__(Components, "public_basis")
    Components.public_basis = kept_basis  # type: ignore[assignment]
    Components.features = features  # type: ignore[method-assign]


def public_spectrum() -> Array:
    """Variance of dead leaves along their principal directions, seed 0, the longest first."""
    config = load_config(None, [f"measured.rows={SPECTRUM}"], recipe="cross-device")
    return Components(config).public_basis[1]


def guess(spectrum: Array, prior: float, basis: Array | None = None) -> Prior:
    """The product's prior over a basis, by default its own coordinates."""
    basis = np.eye(len(spectrum)) if basis is None else basis
    return Prior(np.zeros((CLASSES, basis.shape[1])), basis, 0.5 * spectrum, own=prior, shared=prior)


def expected(config: Config, sizes: Sequence[int], spectrum: Array) -> tuple[Expected, float]:
    """What measured rounds leave of a class's mean, by the public model, and how far they move bits.

    Returns:
        (noise and unknown; the largest root mean square move of a bit)
    """
    measured, moves = config.measured, [0.0]

    def length(posterior: RowPosterior, asked: AskedRows, planned: MeasuredRelease) -> float:
        prior = posterior.prior
        client, image = answer_clips(
            prior, posterior.variances, asked, prior.spectrum, records=planned.records,
            margin=measured.margin, concentration=concentration(config, planned.records, CLASSES),
        )  # fmt: skip
        found = client if measured.unit == "client" else image / planned.record_clip
        moves.append(planned.clip * client / found / math.sqrt(planned.coordinates))
        return found

    prior, plan = guess(spectrum[: measured.rows], measured.prior), releases(config, 1 << 20, sizes)
    left = expected_rounds(plan, prior, 0.5 * spectrum, clients=len(sizes), length=length)
    return left, max(moves)


def settings_of(point: Point, spectrum: Array) -> Config:
    """Rows (the product's rule), f and m of measured rounds, by public numbers: see `ROOM`."""
    sizes = [point.images] * point.clients
    most = min(MOST_BITS, 2 ** int(math.log2(ALL_BITS / point.clients)))
    for flip in FLIPS:
        fixed = f"privacy.flip={flip}", f"measured.coordinates={most}"

        def of(rows: int, fixed: tuple[str, ...] = fixed) -> tuple[Expected, float]:
            return expected(point.measured(*fixed, f"measured.rows={rows}"), sizes, spectrum)

        rows = point.given_rows or best_rows(lambda rows: of(rows)[0], SPECTRUM)
        filled = of(rows)[1] / (ROOM * (0.5 - flip))
        if filled <= 1:  # bits move by C/√m
            bits = max(FEWEST_BITS, 2 ** math.ceil(math.log2(most * filled**2)))
            return point.measured(
                f"privacy.flip={flip}", f"measured.coordinates={bits}", f"measured.rows={rows}"
            )
    raise SystemExit(f"no f of {FLIPS} and m up to {most} have room for {point}")


# The methods.


def measured(config: Config, run_folder: Path, command: str) -> dict[str, Any]:
    """Measured rounds, the whole product."""
    found = rounds(config, run_folder, command)
    return found | {"rows": config.measured.rows, "coordinates": config.measured.coordinates}


def rounds(config: Config, run_folder: Path, command: str) -> dict[str, Any]:
    """All rounds of a configuration, the whole product."""
    run(config, run_folder, command=command)
    record = read_records(run_folder)[-1]
    assert record.quality is not None
    image = record.record
    return {
        **_quality(record.quality),
        "epsilon_client_sum": record.epsilon.sum_zero_out,
        "epsilon_client_upload": record.epsilon.upload_zero_out,
        "epsilon_image_sum": image.epsilon if image else math.inf,
        "epsilon_image_upload": image.upload if image else math.inf,
        "rows": None,
        "flip": config.privacy.flip,
    }


def one_shot(point: Point, run_folder: Path, command: str) -> dict[str, Any]:
    """The product's one noisy sum of moments, and the same training on what it says."""
    config, release, means, noise = opened_means(point, run_folder, command)
    components = Components(point.measured(f"measured.rows={point.given_rows or ROWS[-1]}"))
    posterior = point.given_rows is not None
    mask = trained(components, means, noise, posterior=posterior, steps=point.given_steps)
    quality = Evaluation(components)(mask, run_folder / "samples" / "one-shot.png", utility=True)
    image = release.guarantee.epsilon
    return {
        **_quality(quality),
        "epsilon_client_sum": release.client_epsilon(View.SUM, Adjacency.ZERO_OUT),
        "epsilon_client_upload": release.client_epsilon(View.UPLOAD, Adjacency.ZERO_OUT),
        "epsilon_image_sum": image,
        "epsilon_image_upload": opened_epsilon(
            release.plan.release,
            1,
            release.plan.cohort,
            View.UPLOAD,
            Adjacency.REPLACE_ONE,
            config.privacy.delta,
        ),
        "rows": point.given_rows,
        "record_epsilon": config.privacy.record_epsilon,
    }


def opened_means(point: Point, run_folder: Path, command: str) -> tuple[Config, RecordRelease, Array, float]:
    """One shot's recipe and release, the class means (K, D) that it opened, and the deviation of their noise.

    Classes are taken for equally large, as measured rounds take them. A folder keeps its moments.
    """
    config = point.one_shot(_record_epsilon(point))
    release = Components(config).record_release
    assert release is not None
    run(config, run_folder, command=command, stop=lambda _: "the server goes on by itself")
    moments = load_moments(
        release.opened_file(run_folder / "checkpoint"), release.plan.release, release.context(None)
    )
    assert moments is not None
    opened, images = release.as_opened(moments), point.clients * point.images / CLASSES
    return config, release, opened.first / images, opened.release.noise / images


def _record_epsilon(point: Point) -> float:
    """The `privacy.record_epsilon` that comes to the point's epsilon for its unit, to four digits."""
    if point.unit == "image":
        return point.epsilon
    release = Components(point.one_shot(1.0)).record_release
    assert release is not None
    low, high = 1e-4, point.epsilon
    while high / low > 1 + 1e-5:
        middle = math.sqrt(low * high)
        below = release.at(middle).client_epsilon(View.SUM, Adjacency.ZERO_OUT) <= point.epsilon
        low, high = (middle, high) if below else (low, middle)
    return float(f"{low * (1 - 1e-4):.4g}")


def trained(
    components: Components, means: Array, noise: float, *, posterior: bool, steps: int | None = None
) -> NDArray[np.bool_]:
    """The mask of the server's training on noisy class means (K, D), by default in measured rounds' steps.

    Towards the means as they are, and all features count alike.

    Args:
        noise: its deviation on each number.
        posterior: draw them towards the prior and weigh them by what is known, along the basis's rows.
    """
    config, trainer = components.config, components.trainer
    metric: Metric | Rows = Rows(torch.ones(CLASSES, 1))
    if posterior:
        basis, spectrum = components.public_basis
        prior = guess(spectrum, config.measured.prior, basis)
        gain = prior.variances / (prior.variances + noise**2)
        means = prior.from_coordinates(gain * prior.coordinates(means))
        # 1 - what is left of a coordinate's variance, as a share of what it was, is the gain.
        metric = Metric(*(torch.from_numpy(part).float() for part in (prior.class_axes, basis, gain)))
    steps = steps or config.federation.rounds * config.measured.steps + config.measured.end_steps
    training = ServerTraining(
        trainer,
        steps=steps,
        start=config.training.learning_rate,
        end=0.1 * config.training.learning_rate,
        smoothing=config.measured.smoothing,
    )
    server = Server.of(components, "one-shot")
    state = training.run(
        ServerState.start(trainer, torch.from_numpy(server.theta)),
        means,
        metric,
        steps=steps,
        seed=public_seed(config.federation.seed, "server latents", 1),
    )
    server.theta = state.theta(config.mask.temperature, config.privacy.theta_min)
    return server.deployed()


# What they are worth.


def _quality(quality: Quality) -> dict[str, float]:
    names = (
        "recall", "coverage", "gen2real", "fid", "kid", "sliced_wasserstein", "precision", "density",
        "label_accuracy",
    )  # fmt: skip
    return {name: float(getattr(quality, name)) for name in names}


def full_ceiling(seed: int, full: str | None) -> dict[str, Any]:
    """gen2real with as many real training images, drawn by `seed`."""
    source = ["data.source=fashion_mnist", f"data.folder={full}"] if full else []
    data = Components(load_config(None, source, recipe="cross-device")).dataset
    chosen = torch.randperm(len(data.train_images), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    network = train_classifier(data.train_images[chosen], data.train_labels[chosen], classes=CLASSES)
    return {"gen2real": accuracy(network, data.test_images, data.test_labels)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="of a point, or ceiling-12k-s0, ceiling-full-s0"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for run folders and the spectrum")
    parser.add_argument("--full", help="folder of the published Fashion-MNIST")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    keep(options.out)
    for name in options.names:
        if done(RESULTS, name):
            continue
        full = " --full FOLDER" if "6000" in name or "full" in name else ""
        command = f"python experiments/frontier/frontier.py {name} --out FOLDER{full}"
        began = _cpu()
        if name.startswith("ceiling-"):
            seed = int(name.rpartition("-s")[2])
            images = options.full if name.startswith("ceiling-full-s") else None
            line: dict[str, Any] = {"seed": seed, **full_ceiling(seed, images)}
        else:
            point = Point.of(name, options.full)
            if point.method == "clipped":
                found = rounds(point.clipped(), options.out / name, command)
            elif point.method == "measured":
                config = settings_of(point, public_spectrum())
                found = measured(config, options.out / name, command)
            else:
                found = one_shot(point, options.out / name, command)
            shown = {key: value for key, value in vars(point).items() if key != "full"}
            head = verify_ledger(options.out / name / "ledger.jsonl").head
            line = {**shown, "images": point.images, **found, "ledger_head": head}
        line |= {"command": command, "cpu_seconds": round(_cpu() - began)}
        append(RESULTS, [{"name": name, **{k: _short(v) for k, v in line.items()}}])
        print(name, {k: v for k, v in line.items() if isinstance(v, float)}, flush=True)


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _cpu() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
