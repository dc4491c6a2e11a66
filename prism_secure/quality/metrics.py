"""How good generated images are: FID, KID, precision, recall, density, coverage, inception score.

    evaluator = Evaluator(dataset.test_images, classes=dataset.classes)     # once
    evaluator(generated, labels)                                            # each round

The features come from `prism_secure.quality.networks`. Give held-out images only: against training images a
generator that copies them would look perfect. All that is random is the choice of subsets, from a fixed seed;
the same images give the same figures (on one machine and number of threads: floating point sums depend on
them in the last digits).

- FID (Heusel et al. 2017): the Fréchet distance of two Gaussians fitted to the features; 0 is best. It is
  biased upward for few images, so compare figures of equal numbers only.
- KID (Bińkowski et al. 2018): squared maximum mean discrepancy under a cubic kernel, unbiased; the mean over
  20 subsets of (up to) 1,000 images; 0 is best, and small negative values are noise around it.
- precision, recall (Kynkäänniemi et al. 2019): share of generated images inside the neighbourhoods of real
  ones, and the reverse; in [0, 1].
- density, coverage (Naeem et al. 2020): how many real neighbourhoods hold a generated image, on average (may
  exceed 1), and the share of real neighbourhoods that hold any. Neighbourhoods reach to the 5th neighbour.
  These four look at all pairs, so they take at most 4,000 images of each kind, chosen at random once.
- inception score (Salimans et al. 2016): how sure the network is of each image's class and how even classes
  are over all images, mean over ten parts; from 1 to the number of classes. It knows no real images. The
  shipped classifier gives a figure of its own, `inception_fid` that of the literature.
- sliced Wasserstein distance: root mean square, over 200 random directions, of the 2-Wasserstein distance of
  the features' projections; 0 is best. Matching moments lowers FID, which knows two of them, and this less.
- copies: where the clients' images are public, the share of generated images that are nearer to one of these
  than to any held-out one, of as many of each (Meehan et al. 2020): ½ where nothing is copied, 1 for copies.
- label accuracy: share of class-conditional images that the shipped classifier puts into their class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prism_secure.data import to_float
from prism_secure.errors import DataError
from prism_secure.quality.networks import ClassifierFeatures, MetricFeatures

__all__ = ["Evaluator", "evaluate", "nearest"]

NEIGHBOURS = 5
KID_SUBSETS, KID_SUBSET_SIZE = 20, 1000
MANIFOLD_LIMIT = 4000
SLICES = 200
_PARTS = 10
"""Of the images, for the inception score."""
_BATCH = 250
_COMPARED = 5000
"""Images that others are compared with at once."""
_SEED = 0


class RealFeatures(NamedTuple):
    """Features of the images that generated ones are compared with, float64 (N, D) on the CPU."""

    held_out: NDArray[np.float64]
    training: NDArray[np.float64] | None
    """The clients', where these are public."""


class Evaluator:
    """Compares generated images with one fixed set of held-out images.

    The features of the held-out images and their Gaussian are computed here, once.

    Args:
        test_images: held-out images, uint8 `(N, C, H, W)`, or float32 in [-1, 1]; N ≥ 7.
        features: the network to compare in; by default the shipped classifier.
        classes: the data set's names of its labels. Label accuracy is measured when they are those of the
            network's own labels.
        train_images: the clients' images, in the form of `test_images`, where these are public: then copies
            are looked for.
        known: `real` of another evaluator with the same images and network: nothing is computed again.

    Raises:
        DataError: images are of another form, or too few.

    >>> from prism_secure.data import load
    >>> dataset = load()
    >>> evaluator = Evaluator(dataset.test_images[:1000:4], classes=dataset.classes)
    >>> quality = evaluator(dataset.test_images[1:1000:4], dataset.test_labels[1:1000:4])
    >>> quality["fid"] < 50 and quality["label_accuracy"] > 0.85
    True
    """

    def __init__(
        self,
        test_images: Tensor,
        *,
        features: MetricFeatures | None = None,
        classes: Sequence[str] = (),
        train_images: Tensor | None = None,
        known: RealFeatures | None = None,
    ) -> None:
        self.network = (ClassifierFeatures() if features is None else features).eval()
        self._labelled = bool(self.network.classes) and tuple(classes) == self.network.classes
        held_out, training = known or self._real_of(test_images, train_images)
        # In memory of torch's own: how rows are aligned may show in the last digits of their products.
        self._real = torch.tensor(held_out)
        self._train = None if training is None else torch.tensor(training)
        self._gaussian = _gaussian(self._real)

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> dict[str, float]:
        """Measure generated `images`, in the form of `test_images`, with the classes they were meant to show.

        Returns `fid`, `kid`, `precision`, `recall`, `density`, `coverage`, `sliced_wasserstein`,
        `inception_score` where the network has logits, `copies` where it was given training images, and
        `label_accuracy` when `labels` (integers `(N,)`) are given and the network knows these classes.

        Raises:
            DataError: the images are of another form, too few, or not finite.
        """
        fake, logits = self._features(images, "generated")
        measured = {"fid": self._frechet(fake), "kid": self._kernel(fake), **self._manifold(fake)}
        measured["sliced_wasserstein"] = self._sliced(fake)
        if self._train is not None:
            measured["copies"] = self._copies(_some(fake))
        if logits is not None:
            measured["inception_score"] = _inception_score(logits)
        if labels is not None:
            if labels.shape != (len(images),):
                raise DataError(f"{len(images)} generated images but labels of shape {tuple(labels.shape)}")
            if self._labelled and logits is not None:
                hits = logits.argmax(1) == labels.to(logits.device)
                measured["label_accuracy"] = float(hits.double().mean())
        return measured

    @property
    def real(self) -> RealFeatures:
        """The features that it compares with."""
        return RealFeatures(self._real.numpy(), None if self._train is None else self._train.numpy())

    def _real_of(self, test_images: Tensor, train_images: Tensor | None) -> RealFeatures:
        held_out, _ = self._features(test_images, "held-out")
        if train_images is None:
            return RealFeatures(held_out.numpy(), None)
        # As many of each, for a fair chance: the nearest of more images is nearer.
        training, _ = self._features(_some(train_images, len(_some(held_out))), "training")
        return RealFeatures(held_out.numpy(), training.numpy())

    def _features(self, images: Tensor, which: str) -> tuple[Tensor, Tensor | None]:
        """Features, float64 on the CPU, and logits where the network has them."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise DataError(f"{which} images must be (N, 1 or 3, height, width), got {tuple(images.shape)}")
        if len(images) < NEIGHBOURS + 2:
            text = f"metrics need at least {NEIGHBOURS + 2} {which} images, got {len(images)}"
            raise DataError(text, public=text)  # names no file
        device = next(self.network.parameters()).device
        features, logits = [], []
        with torch.no_grad():
            for batch in torch.split(images, _BATCH):
                x = batch.to(device)
                x = to_float(x) if x.dtype == torch.uint8 else _checked(x, which)
                found, scores = self.network(x)
                features.append(found.double().cpu())
                if scores is not None:
                    logits.append(scores)
        return torch.cat(features), torch.cat(logits) if logits else None

    def _frechet(self, fake: Tensor) -> float:
        (mean, covariance), (made, spread) = self._gaussian, _gaussian(fake)
        # The trace of (covariance · spread)^½: its eigenvalues are the roots of the product's.
        shared = torch.linalg.eigvals(covariance @ spread).sqrt().real.sum()
        return float((mean - made).square().sum() + covariance.trace() + spread.trace() - 2 * shared)

    def _kernel(self, fake: Tensor) -> float:
        size = min(KID_SUBSET_SIZE, len(fake), len(self._real))
        draws = torch.Generator().manual_seed(_SEED)
        found = 0.0
        for _ in range(KID_SUBSETS):
            real, made = (
                rows[torch.randperm(len(rows), generator=draws)[:size]] for rows in (self._real, fake)
            )
            found += _discrepancy(real, made)
        return found / KID_SUBSETS

    def _sliced(self, fake: Tensor) -> float:
        draws = torch.Generator().manual_seed(_SEED)
        directions = torch.randn(fake.shape[1], SLICES, generator=draws, dtype=torch.float64)
        directions /= directions.norm(dim=0)
        count = min(len(fake), len(self._real))
        real, made = (_quantiles(features @ directions, count) for features in (self._real, fake))
        return float((real - made).square().mean().sqrt())

    def _copies(self, fake: Tensor) -> float:
        assert self._train is not None
        count = min(len(self._train), len(self._real))
        trained, held_out = (
            torch.cdist(fake, some).amin(1) for some in (self._train[:count], _some(self._real, count))
        )
        # An image that is in both, or as near to both, speaks for neither.
        nearer = (trained < held_out).double() + 0.5 * (trained == held_out).double()
        return float(nearer.mean())

    def _manifold(self, fake: Tensor) -> dict[str, float]:
        real, fake = _some(self._real), _some(fake)
        apart = torch.cdist(real, fake)
        near_real, near_fake = apart < _reach(real)[:, None], apart < _reach(fake)
        return {
            "precision": float(near_real.any(0).double().mean()),
            "recall": float(near_fake.any(1).double().mean()),
            "density": float(near_real.sum(0).double().mean()) / NEIGHBOURS,
            "coverage": float(near_real.any(1).double().mean()),
        }


def _reach(features: Tensor) -> Tensor:
    """How far each row's neighbourhood reaches, (N,): to its 5th nearest other row."""
    return torch.cdist(features, features).kthvalue(NEIGHBOURS + 1).values  # the nearest is the row itself


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of the rows of `features` (N, D)."""
    return features.mean(0), torch.cov(features.T).reshape(features.shape[1], -1)


def _discrepancy(real: Tensor, fake: Tensor) -> float:
    """Squared maximum mean discrepancy of as many rows each, without bias; the kernel is (x·y/D + 1)³."""
    count, width = real.shape

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / width + 1) ** 3

    alike = 0.0
    for rows in (real, fake):
        pairs = kernel(rows, rows)
        alike += float(pairs.sum() - pairs.trace()) / (count * (count - 1))
    return alike - 2 * float(kernel(real, fake).mean())


def _inception_score(logits: Tensor) -> float:
    logits = logits.double().cpu()
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(_SEED))
    scores = []
    for part in logits[order].log_softmax(1).chunk(_PARTS):
        mean = part.logsumexp(0) - math.log(len(part))
        scores.append(math.exp((part.exp() * (part - mean)).sum(1).mean()))
    return sum(scores) / len(scores)


def _some(rows: Tensor, most: int | None = None) -> Tensor:
    """At most `most` of `rows`, else `MANIFOLD_LIMIT`, in an order that does not follow the classes."""
    most = MANIFOLD_LIMIT if most is None else most
    if len(rows) > most:
        seed = torch.Generator().manual_seed(_SEED)
        rows = rows[torch.randperm(len(rows), generator=seed)[:most]]
    return rows


def _quantiles(values: Tensor, count: int) -> Tensor:
    """(count, S): of each column of `values` (N, S), N >= count, its quantiles (i + ½)/count."""
    ordered = values.sort(dim=0).values
    at = (torch.arange(count, dtype=torch.float64) + 0.5) * (len(values) / count) - 0.5
    low = at.floor().long().clamp(0, len(values) - 1)
    share = (at - low)[:, None]
    return ordered[low] * (1 - share) + ordered[(low + 1).clamp(max=len(values) - 1)] * share


def _checked(images: Tensor, which: str) -> Tensor:
    if not images.is_floating_point():
        raise DataError(f"{which} images must be uint8, or floats in [-1, 1], got {images.dtype}")
    images = images.float()
    if not bool(images.isfinite().all()):
        raise DataError(f"{which} images contain NaN or infinity")
    # Slack for the rounding of a tanh or a resize, not for another range.
    low, high = float(images.min()), float(images.max())
    if low < -1.01 or high > 1.01:
        raise DataError(f"{which} images must lie in [-1, 1], found {low:.3g} to {high:.3g}")
    return images


def nearest(images: Tensor, among: Tensor) -> Tensor:
    """Index into `among` of the one nearest in pixels (L2) to each of `images`, (N,); forms as above."""
    own = to_float(images) if images.dtype == torch.uint8 else images
    best = torch.full((len(own),), float("inf"))
    found = torch.zeros(len(own), dtype=torch.int64)
    for start in range(0, len(among), _COMPARED):
        part = among[start : start + _COMPARED]
        others = to_float(part) if part.dtype == torch.uint8 else part
        distance, index = torch.cdist(own.flatten(1), others.flatten(1)).min(1)
        nearer = distance < best
        best[nearer], found[nearer] = distance[nearer], index[nearer] + start
    return found


def evaluate(
    test_images: Tensor,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    features: MetricFeatures | None = None,
    classes: Sequence[str] = (),
) -> dict[str, float]:
    """Measure `images` against `test_images` once; for many rounds keep an `Evaluator`."""
    return Evaluator(test_images, features=features, classes=classes)(images, labels)
