"""Moments of frozen features: all that training ever reads from a client's images.

A client computes the mean and the variance of its features once, per class or over everything, and trains
its mask until generated images have the same (GFMN: Santos et al., "Learning Implicit Generative Models by
Matching Perceptual Features", 2019). A batch estimates the generator's moments with noise of its own, and
the square of a noisy difference pulls the generator towards one image a class. So the fake moments are moving
averages over steps, with the gradient through the newest batch only:

    "ema"      bias-corrected exponential averages of the fakes' first and second moments
    "faithful" the paper's Adam moving averages: the *difference* of moments is tracked by a variable that
               Adam moves towards the newest difference, and the generator descends on its inner product
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prism_privacy import NoisySums, noisy_moments
from prism_secure.config.sections import Averaging
from prism_secure.data.features import FeatureExtractor


@dataclass(frozen=True)
class FeatureMoments:
    """Moments of features by class; one row when there are no classes.

    Attributes:
        mean: float32 (K, D).
        variance: float32 (K, D), biased (divided by the count); zeros where a class is absent.
        counts: float32 (K,), images of each class; 0 where absent.
    """

    mean: Tensor
    variance: Tensor
    counts: Tensor

    @classmethod
    def of_release(cls, sums: NoisySums) -> FeatureMoments:
        """Moments from a release: noisy counts divide, and they alone say which classes there are."""
        found = noisy_moments(sums)
        variance = np.zeros_like(found.mean) if found.variance is None else found.variance
        counts = np.where(found.present, found.counts, 0.0)
        return cls(*(torch.from_numpy(each).float() for each in (found.mean, variance, counts)))

    def to(self, device: torch.device | str) -> FeatureMoments:
        """A copy on a device."""
        return FeatureMoments(self.mean.to(device), self.variance.to(device), self.counts.to(device))

    @property
    def present(self) -> Tensor:
        """float32 (K,): 1 for classes that this client has, else 0."""
        return (self.counts > 0).to(torch.float32)

    def pooled_variance(self) -> Tensor:
        """float32 (D,): variance over all images together, within and between classes."""
        share = (self.counts / self.counts.sum())[:, None]
        centre = (share * self.mean).sum(0)
        return (share * (self.variance + (self.mean - centre) ** 2)).sum(0)


@torch.no_grad()
def feature_moments(
    extractor: FeatureExtractor,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    classes: int = 0,
    batch_size: int = 250,
) -> FeatureMoments:
    """Mean and variance of the features of images (N, C, H, W) in [-1, 1], by class when `classes` > 0.

    Sums run in float64, in file order: the same images give the same moments.
    """
    if len(images) == 0:
        raise ValueError("a client without images has no moments")
    if classes and (labels is None or len(labels) != len(images)):
        raise ValueError("moments by class need one label for each image")
    rows = classes or 1
    total = torch.zeros(rows, extractor.dimension, dtype=torch.float64)
    square = torch.zeros_like(total)
    counts = torch.zeros(rows, dtype=torch.float64)
    for start in range(0, len(images), batch_size):
        found = extractor(images[start : start + batch_size]).to(torch.float64)
        row = (
            labels[start : start + batch_size].to(torch.int64)
            if classes and labels is not None
            else torch.zeros(len(found), dtype=torch.int64)
        )
        total.index_add_(0, row, found)
        square.index_add_(0, row, found**2)
        counts += torch.bincount(row, minlength=rows)
    divisor = counts.clamp(min=1)[:, None]
    mean = total / divisor
    variance = (square / divisor - mean**2).clamp(min=0)
    return FeatureMoments(mean.float(), variance.float(), counts.float())


@dataclass(frozen=True)
class FakeAverages:
    """The moving averages of one client: what has to survive between its rounds.

    Attributes:
        first, second: float32 (K, D). "ema": uncorrected averages of φ and φ²; "faithful": the tracked
            differences of means and of variances.
        moments: float32 (4, K, D): Adam's moments of the two tracked differences; empty for "ema".
        step: how many updates were made.
    """

    first: Tensor
    second: Tensor
    moments: Tensor
    step: int

    @classmethod
    def zero(cls, rows: int, dimension: int, averaging: Averaging) -> FakeAverages:
        """Before the first step."""
        shape = (4, rows, dimension) if averaging == "faithful" else (0,)
        return cls(torch.zeros(rows, dimension), torch.zeros(rows, dimension), torch.zeros(shape), 0)

    def to(self, device: torch.device | str) -> FakeAverages:
        """A copy on a device."""
        return FakeAverages(self.first.to(device), self.second.to(device), self.moments.to(device), self.step)


class MomentMatching:
    """The loss between generated features and a client's moments.

    "ema": Σ over present classes and features of (m − μ)²/σ² + variance_weight·(√v − √ν)²/σ²; m, v are the
    averaged fake mean and variance, μ, ν the real ones, and σ² the pooled variance of the real features, so
    that every feature counts in its own unit. Not `scaled`, "ema" leaves out the division by σ²: for features
    that have one unit already, as those of a noisy release must. There the noise is the same on every
    feature, and with all weights the same it hardly matters: the loss has a large part that no generator can
    remove, while the slope sees of the noise only what lies along directions in which images can move.
    "faithful" follows the paper: unscaled inner products with the tracked differences.

    Args:
        averaging: see the module's text.
        decay: weight of the past in "ema"; 0 uses the newest batch only.
        variance_weight: weight of the second-moment term.
        scaled: whether "ema" divides by the pooled variance of the real features.
        tracking_rate: Adam's step for the tracked differences of "faithful" (the paper: 1e-5).
        betas: its decay rates (the published code: those of the scores' Adam, 0.5 and 0.999).
    """

    def __init__(
        self,
        *,
        averaging: Averaging = "ema",
        decay: float = 0.9,
        variance_weight: float = 1.0,
        scaled: bool = True,
        tracking_rate: float = 1e-5,
        betas: tuple[float, float] = (0.5, 0.999),
    ) -> None:
        if averaging not in ("ema", "faithful"):
            raise ValueError(f"averaging is 'ema' or 'faithful', not {averaging!r}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), not {decay}")
        self.averaging: Averaging = averaging
        self.decay = decay
        self.variance_weight = variance_weight
        self.scaled = scaled
        self.tracking_rate = tracking_rate
        self.betas = betas

    def __call__(
        self, fake: Tensor, labels: Tensor | None, target: FeatureMoments, past: FakeAverages
    ) -> tuple[Tensor, FakeAverages]:
        """Loss (scalar, differentiable in `fake` (B, D)) and the averages after this batch.

        With classes, `labels` (B,) are the labels the batch was generated for; each class must occur.
        """
        first, second = _batch_moments(fake, labels, len(target.mean))
        if self.averaging == "faithful":
            return self._faithful(first, second, target, past)
        step = past.step + 1
        blended1 = self.decay * past.first + (1 - self.decay) * first
        blended2 = self.decay * past.second + (1 - self.decay) * second
        correction = 1 - self.decay**step
        mean = blended1 / correction
        variance = (blended2 / correction - mean**2).clamp(min=0)
        terms = (mean - target.mean) ** 2
        if self.variance_weight:
            # Deviations are in the features' unit; a little under the root gives it a slope at 0.
            spread = torch.sqrt(variance + 1e-6) - torch.sqrt(target.variance + 1e-6)
            terms = terms + self.variance_weight * spread**2
        if self.scaled:
            per_class = (terms * (1.0 / (target.pooled_variance() + 1e-6))).mean(dim=1)
        else:
            per_class = terms.sum(dim=1)
        # Noisy counts may say that no class is present: then nothing is known, and nothing is learned.
        loss = (per_class * target.present).sum() / target.present.sum().clamp(min=1)
        # The gradient passes only a share (1 − decay)/correction of the average; undo that, not the value.
        gain = correction / (1 - self.decay)
        loss = loss + (gain - 1) * (loss - loss.detach())
        return loss, FakeAverages(blended1.detach(), blended2.detach(), past.moments, step)

    def _faithful(
        self, first: Tensor, second: Tensor, target: FeatureMoments, past: FakeAverages
    ) -> tuple[Tensor, FakeAverages]:
        variance = second - first**2
        present = target.present[:, None]
        gaps = torch.stack([(target.mean - first) * present, (target.variance - variance) * present])
        step = past.step + 1
        tracked = torch.stack([past.first, past.second])
        m, v = past.moments[:2], past.moments[2:]
        fast, slow = self.betas
        # Adam on ½‖tracked − gap‖².
        gradient = tracked - gaps.detach()
        m = fast * m + (1 - fast) * gradient
        v = slow * v + (1 - slow) * gradient**2
        move = (m / (1 - fast**step)) / (torch.sqrt(v / (1 - slow**step)) + 1e-8)
        tracked = tracked - self.tracking_rate * move
        weight = torch.tensor([1.0, self.variance_weight], device=gaps.device)[:, None, None]
        loss = (weight * tracked.detach() * gaps).sum()
        return loss, FakeAverages(tracked[0], tracked[1], torch.cat([m, v]), step)


def _batch_moments(fake: Tensor, labels: Tensor | None, rows: int) -> tuple[Tensor, Tensor]:
    """Means of φ and of φ² by class, (K, D) each, as one small matrix product."""
    if labels is None:
        return fake.mean(0, keepdim=True), (fake**2).mean(0, keepdim=True)
    member = torch.nn.functional.one_hot(labels, rows).to(fake.dtype)
    counts = member.sum(0)
    if not bool((counts > 0).all()):
        raise ValueError(f"a batch must hold each of the {rows} classes; {len(labels)} labels don't")
    average = (member / counts).T
    return average @ fake, average @ fake**2
