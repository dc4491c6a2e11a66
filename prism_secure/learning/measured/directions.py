"""What the server asks next: k directions V (K, D, k) in the space of the moments, all from public values.

A client answers with V[y]ᵀ(φ(x) − m[y]), summed over its images. Directions lie along the rows of a public
basis of features, where what is left open is large against what asking costs. A client's answers must fit a
clip, so each direction takes part of it by the variance `cost` that images have along it, and gets noise in
return.

With variances p and costs q, independent, and the sum of all q·w² fixed by the clip, the weights that leave
the least total variance are w² ∝ (1/√q − const/p)₊: ask where p/√q is largest, with weight q^(-1/4) where p
is well above the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prism_secure.learning.measured.prior import Prior
from prism_secure.learning.training import LocalTrainer

Array = NDArray[np.float64]

LEAST_COST = 1e-3
"""Least cost of a direction, as a share of the largest: it keeps weights within 5.6 of each other."""


@dataclass(frozen=True)
class AskedRows:
    """Directions along rows of a basis, in few numbers: V[c, :, j] = by_class[c, j] · U[row_numbers[j]].

    A basis of a few hundred rows and these are a hundredth of V (K, D, k); clients compute with them as
    `prism_privacy.RowDirections`.

    Attributes:
        row_numbers: int64 (k,), the row of the basis that each direction lies along.
        by_class: float64 (K, k).
    """

    row_numbers: NDArray[np.int64]
    by_class: Array


def principal_directions(prior: Prior, variances: Array, count: int, cost: Array) -> AskedRows:
    """The `count` coordinates of the prior's basis that are worth asking; the longest direction has norm 1.

    Args:
        prior: its basis.
        variances: (K, r), what answers so far left of each coordinate's.
        count: k, at most K·r.
        cost: (r,), the variance of images within a class along the rows of the basis; public.

    Raises:
        ValueError: more directions than coordinates, or a cost of another shape.
    """
    if cost.shape != prior.spectrum.shape or not 0 < count <= prior.variances.size:
        raise ValueError(
            f"a basis of {len(prior.spectrum)} rows for {prior.classes} classes has costs "
            f"{prior.spectrum.shape} and 1 to {prior.variances.size} directions, got {cost.shape} and {count}"
        )
    cost = np.maximum(cost, LEAST_COST * cost.max())
    worth = variances / np.sqrt(cost)
    # A stable sort: equal worth falls the same way on every machine.
    chosen = np.argsort(-worth.ravel(), kind="stable")[:count]
    axis, row = np.unravel_index(chosen, worth.shape)
    weight = (cost[row] / cost[row].min()) ** -0.25
    return AskedRows(row.astype(np.int64), prior.class_axes[axis].T * weight)


def class_means(trainer: LocalTrainer, mask: Tensor, latents: Tensor, labels: Tensor | None) -> Tensor:
    """Mean features (K, D) of the images that `mask` makes, by class; labels are balanced. All on the
    trainer's device."""
    features = trainer.features(mask, latents, labels)
    if labels is None:
        return features.mean(0, keepdim=True)
    member = torch.nn.functional.one_hot(labels.long(), trainer.architecture.classes).to(features.dtype)
    return (member / member.sum(0)).T @ features
