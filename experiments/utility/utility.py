"""Better images from one and the same release: what a classifier learns from them, idea by idea.

    python experiments/utility/utility.py plain-s0 contrast-s0 --out FOLDER --development FOLDER
    python experiments/utility/utility.py plain-s0 --out FOLDER --test
    python experiments/utility/utility.py plain relabel relabel-contrast --model RUN/model.safetensors --test
    python experiments/utility/utility.py relabel-contrast --model RUN/model.safetensors --test --count 60000

A name is an idea (`IDEAS`) and a seed: all of a seed start from one mask, that of the server's training on
one noisy sum of moments, ten clients, epsilon(image) = 2 (`image-10-e2-one-shot` of ../frontier). With the
`--model` of a run's folder it is an idea alone; labels by the release need one with `features.products`.
What an idea adds follows from the release, or the model, and public numbers, so it costs no epsilon. Each
gives a line of `results.jsonl`.

Ideas are compared on development images, the last 500 of each class of the published training file, which are
no client's and not held out; `--development` names the folder of the published files, in which they lie as
downloaded. `--test` opens the held-out images instead, for ideas that are settled. `--count` takes another
number of images than `metrics.utility` does: compare only with as many, real ones included (`ceiling`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from prism_secure.config import load_config
from prism_secure.config.public_seed import public_seed
from prism_secure.data import read_idx
from prism_secure.data.fit import fit
from prism_secure.learning.discriminant import Discriminant
from prism_secure.model.deployed import DeployedGenerator
from prism_secure.model.generated_set import varied
from prism_secure.model.model_file import read_model
from prism_secure.quality.metrics import Evaluator
from prism_secure.quality.utility import IMAGES, accuracy, ceiling, train_classifier
from prism_secure.rounds.components import Components
from prism_secure.rounds.moments import discriminant_of

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "frontier"))
from frontier import CLASSES, Point, keep, opened_means, trained
from results import append, done

RESULTS = Path(__file__).parent / "results.jsonl"
DEVELOPMENT = 500
"""Images of each class."""
AT_ONCE = 2500
"""Images whose features are in memory."""
RIDGE = 1e-3
"""Added to the variance within classes, in squared units of bounded features."""


@dataclass(frozen=True)
class Made:
    """What an idea works with.

    Attributes:
        components: of the run.
        generator: of the mask.
        means: (K, D), the released class means.
        images, labels: by default `IMAGES` of them, as `metrics.utility` draws them.
        draws: for whatever an idea draws.
        discriminant: labels by a release that has second moments, as `generate --relabel` gives them.
    """

    components: Components
    generator: DeployedGenerator
    means: NDArray[np.float64] | None
    images: Tensor
    labels: Tensor
    draws: torch.Generator
    discriminant: Discriminant | None = None

    def features(self, images: Tensor) -> NDArray[np.float64]:
        """(N, D)."""
        return self.components.extractor.in_batches(images).double().numpy()

    def told_apart(self, images: Tensor) -> Tensor:
        """Each image's class by the release: as `discriminant` says, if second moments were released.

        Else by Fisher's linear discriminant in the matched features, with the released means and the variance
        within classes of generated images.
        """
        if self.discriminant is not None:
            return torch.cat([self.discriminant(part) for part in images.split(AT_ONCE)])
        if self.means is None:
            raise SystemExit("labels by the release need one: leave --model out")
        own, labels = self.features(self.images), self.labels.numpy()
        centred = own - np.stack([own[labels == k].mean(0) for k in range(CLASSES)])[labels]
        within = centred.T @ centred / len(own)
        weights = np.linalg.solve(within + RIDGE * np.eye(len(within)), self.means.T)
        scores = self.features(images) @ weights - 0.5 * np.einsum("kd,dk->k", self.means, weights)
        return torch.from_numpy(scores.argmax(1))


Found = tuple[Tensor, Tensor]


def plain(made: Made) -> Found:
    """The images as they are: what `metrics.utility` measures."""
    return made.images, made.labels


def contrast(made: Made) -> Found:
    """Each image's brightness to a random power, times a random gain: `generate --vary-contrast`."""
    return varied(made.images, made.draws), made.labels


def flip(made: Made) -> Found:
    """Every other image mirrored."""
    mirrored = torch.rand(len(made.images), 1, 1, 1, generator=made.draws) < 0.5
    return torch.where(mirrored, made.images.flip(-1), made.images), made.labels


def noise(made: Made) -> Found:
    """Gaussian noise on pixels, deviation 0.1 of a range of 2."""
    drawn = 0.1 * torch.randn(made.images.shape, generator=made.draws)
    return (made.images + drawn).clamp(-1, 1), made.labels


def affine(made: Made) -> Found:
    """Small rotations, stretches, shears and shifts."""
    count = len(made.images)
    angle, stretch_x, stretch_y, shear = 0.1 * torch.randn(4, count, generator=made.draws)
    right, down = 0.06 * torch.randn(2, count, generator=made.draws)
    rows = (
        torch.stack([stretch_x.exp() * angle.cos(), shear - angle.sin(), right], 1),
        torch.stack([angle.sin(), stretch_y.exp() * angle.cos(), down], 1),
    )
    grid = functional.affine_grid(torch.stack(rows, 1), list(made.images.shape), align_corners=False)
    return functional.grid_sample(made.images + 1, grid, align_corners=False) - 1, made.labels


def relabel(made: Made) -> Found:
    """Labels by the release in place of those that were asked for."""
    return made.images, made.told_apart(made.images)


def mixed(made: Made) -> Found:
    """Six of ten images are asked for as something between two classes; labels by the release."""
    count, architecture = len(made.images), made.generator.architecture
    latents = torch.randn(count, architecture.latent, generator=made.draws)
    other = torch.randint(0, CLASSES, (count,), generator=made.draws)
    share = 0.5 + 0.5 * torch.rand(count, 1, generator=made.draws)
    share[torch.rand(count, 1, generator=made.draws) < 0.4] = 1.0
    asked = functional.one_hot(made.labels, CLASSES) * share
    asked = asked + functional.one_hot(other, CLASSES) * (1 - share)
    code = torch.cat([latents, asked * architecture.latent**0.5], 1)
    network = made.generator.network
    with torch.no_grad():
        found = []
        for part in code.split(250):
            hidden = network.stem(part).unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2)
            hidden = network.blocks(hidden)
            found.append(torch.tanh(network.head(functional.relu(network.norm(hidden)))))
    images = torch.cat(found)
    return images, made.told_apart(images)


def mixed_contrast(made: Made) -> Found:
    """`mixed`, then `contrast`."""
    images, labels = mixed(made)
    return varied(images, made.draws), labels


def relabel_contrast(made: Made) -> Found:
    """`relabel`, then `contrast`: `generate --relabel --vary-contrast`."""
    images, labels = relabel(made)
    return varied(images, made.draws), labels


IDEAS: dict[str, Callable[[Made], Found]] = {
    each.__name__.replace("_", "-"): each
    for each in (plain, contrast, flip, noise, affine, relabel, relabel_contrast, mixed, mixed_contrast)
}


def made_of(seed: int, out: Path, command: str, count: int) -> Made:
    """The release and the mask of a seed, made once, and its images."""
    point = Point.of(f"image-10-e2-one-shot-s{seed}", None)
    _, _, means, deviation = opened_means(point, out / f"release-s{seed}", command)
    components, kept = Components(point.measured()), out / f"mask-s{seed}.npy"
    if not kept.exists():
        np.save(kept, trained(components, means, deviation, posterior=False))
    mask = torch.from_numpy(np.load(kept).astype(np.float32))
    generator = DeployedGenerator(components.architecture, seed=components.model_seed, mask=mask)
    images, labels = generator.generate(count, seed=public_seed(seed, "utility"))
    assert labels is not None
    return Made(components, generator, means, images, labels, torch.Generator().manual_seed(seed))


def made_from(model: Path, count: int) -> Made:
    """The images of a run's model, drawn by its own seed as the run drew them."""
    config = load_config(model.parent / "config.toml")
    generator = read_model(model)
    images, labels = generator.generate(count, seed=public_seed(config.federation.seed, "utility"))
    assert labels is not None
    components, draws = Components(config), torch.Generator().manual_seed(0)
    discriminant = discriminant_of(components, model.parent) if config.features.products else None
    return Made(components, generator, None, images, labels, draws, discriminant)


def development(folder: Path) -> tuple[Tensor, Tensor]:
    """Images uint8 (5000, 1, 32, 32) and labels that no client of the bundled set has, nor its metrics."""
    images = read_idx(folder / "train-images-idx3-ubyte.gz")
    labels = read_idx(folder / "train-labels-idx1-ubyte.gz")
    last = np.concatenate([np.flatnonzero(labels == k)[-DEVELOPMENT:] for k in range(CLASSES)])
    return fit(torch.from_numpy(images[last])[:, None], 32), torch.from_numpy(labels[last].astype(np.int64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"IDEA-sSEED, of {', '.join(IDEAS)}")
    of = parser.add_mutually_exclusive_group(required=True)
    of.add_argument("--out", type=Path, help="folder for releases and masks")
    of.add_argument("--model", type=Path, help="model.safetensors of a run on the bundled images")
    on = parser.add_mutually_exclusive_group(required=True)
    on.add_argument("--development", type=Path, help="folder of the published files")
    on.add_argument("--test", action="store_true", help="on the held-out images")
    parser.add_argument("--count", type=int, default=IMAGES, help="how many images, generated or real")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        keep(options.out)
    for name in options.names:
        idea, _, seed = (name, "", "") if options.model else name.rpartition("-s")
        if idea not in IDEAS or seed.isdecimal() == bool(options.model):
            raise SystemExit(f"a name is IDEA-sSEED, of {', '.join(IDEAS)}; got {name!r}")
        of = f" of {options.model.parent.name}" if options.model else ""
        line = f"{name}{of} on {'held-out' if options.test else 'development'} images"
        more = "" if options.count == IMAGES else f" --count {options.count}"
        line += more and f", of {options.count:,}"
        if done(RESULTS, line):
            continue
        where = "--test" if options.test else "--development FOLDER"
        whose = "--model FILE" if options.model else "--out FOLDER"
        command = f"python experiments/utility/utility.py {name} {whose} {where}{more}"
        if options.model:
            made = made_from(options.model, options.count)
        else:
            made = made_of(int(seed), options.out, command, options.count)
        images, labels = IDEAS[idea](made)
        data = made.components.dataset
        real = (data.test_images, data.test_labels) if options.test else development(options.development)
        network = train_classifier(images, labels, classes=CLASSES)
        found = {"gen2real": accuracy(network, *real)}
        if options.test:
            if options.count <= len(data.train_labels):
                found["gen2real_ceiling"] = ceiling(data, options.count)
            count = made.components.config.metrics.samples
            found |= Evaluator(data.test_images, classes=data.classes)(images[:count], labels[:count])
        row = {"name": line, "idea": idea, "held_out": options.test, "command": command}
        append(RESULTS, [row | {key: float(f"{value:.5g}") for key, value in found.items()}])
        print(line, {key: round(value, 4) for key, value in found.items()}, flush=True)


if __name__ == "__main__":
    main()
