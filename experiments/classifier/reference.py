"""What the metrics say of images whose quality is known: the scale on which to read a run.

    python experiments/classifier/reference.py

All sets hold 2,000 images and are measured against the 2,000 bundled test images. Prints a Markdown table.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn import functional

from prism_secure.data import Dataset, load, to_float
from prism_secure.model.deployed import DeployedGenerator
from prism_secure.model.generator import Architecture, ResNetGenerator
from prism_secure.model.supermask import Supermask, deployed_mask, initial_theta
from prism_secure.quality.metrics import Evaluator

COUNT = 2000


def balanced(dataset: Dataset, skip: int = 0) -> Tensor:
    """Indices of 200 training images of each class, in file order, after the first `skip`."""
    return torch.cat([torch.where(dataset.train_labels == c)[0][skip : skip + 200] for c in range(10)])


def blur(images: Tensor, sigma: float) -> Tensor:
    radius = round(3 * sigma)
    taps = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    kernel = (taps / taps.sum()).view(1, 1, 1, -1)
    padded = functional.pad(images, (radius,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(padded, kernel), kernel.transpose(2, 3))


def untrained(seed: int) -> tuple[Tensor, Tensor]:
    """Class-conditional samples of the default architecture under a mask of random scores."""
    architecture = Architecture(classes=10)
    dimension = Supermask(ResNetGenerator(architecture), seed=seed).dimension
    mask = deployed_mask(initial_theta(dimension, seed=seed), "hard")
    images, labels = DeployedGenerator(architecture, seed=seed, mask=mask).generate(COUNT, seed=seed)
    assert labels is not None
    return images, labels


def main() -> None:
    torch.set_num_threads(1)
    dataset = load()
    evaluator = Evaluator(dataset.test_images, classes=dataset.classes)
    chosen = balanced(dataset)
    reals, labels = to_float(dataset.train_images[chosen]), dataset.train_labels[chosen]
    other = balanced(dataset, skip=200)
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(reals.shape, generator=random)
    mean_of_class = torch.stack([reals[labels == c].mean(0) for c in range(10)])[labels]
    one_class = torch.where(labels == 0)[0].repeat(10)
    rows: list[tuple[str, Tensor, Tensor | None]] = [
        ("real training images", reals, labels),
        ("other real training images", to_float(dataset.train_images[other]), dataset.train_labels[other]),
        ("real, noise of 0.1 (levels in [-1, 1])", (reals + 0.1 * noise).clamp(-1, 1), labels),
        ("real, noise of 0.3", (reals + 0.3 * noise).clamp(-1, 1), labels),
        ("real, blurred, σ = 1 pixel", blur(reals, 1.0), labels),
        ("real, blurred, σ = 2 pixels", blur(reals, 2.0), labels),
        ("real, upside down", reals.flip(2), labels),
        ("real, T-shirts only", reals[one_class], labels[one_class]),
        ("the mean image of each class, 200 times", mean_of_class, labels),
        ("untrained generator, seed 0", *untrained(0)),
        ("untrained generator, seed 1", *untrained(1)),
        ("black images", torch.full_like(reals, -1.0), None),
        ("uniform noise", torch.rand(reals.shape, generator=random) * 2 - 1, None),
    ]
    print("| images | FID | KID | precision | recall | density | coverage | label accuracy |")
    print("|---|---|---|---|---|---|---|---|")
    seconds = []
    for name, images, of_class in rows:
        start = time.process_time()
        q = evaluator(images, of_class)
        seconds.append(time.process_time() - start)
        cells = [f"{q['fid']:.1f}", f"{q['kid']:.1f}"]
        cells += [f"{q[key]:.3f}" for key in ("precision", "recall", "density", "coverage")]
        cells.append(f"{q['label_accuracy']:.3f}" if "label_accuracy" in q else "–")
        print(f"| {name} | " + " | ".join(cells) + " |")
    seconds.sort()
    print(f"\nCPU seconds an evaluation, one thread: median {seconds[len(seconds) // 2]:.2f}")


if __name__ == "__main__":
    main()
