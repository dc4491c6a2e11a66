"""What the server asks next: k directions V (K, D, k) in the space of the moments, all from public values.

A client answers with V[y]ᵀ(φ(x) − m[y]), summed over its images. Two ways to choose V:

    "principal"  along the rows of a public basis of features, where what is left open is large against what
                 asking costs. A client's answers must fit a clip, so each direction takes part of the clip by
                 the variance `cost` that images have along it, and gets noise in return
    "jacobian"   what the generator can move: vector-Jacobian products of its moments say which masks move
                 cotangents, Jacobian-vector products what these masks move (Halko, Martinsson, Tropp, 2011,
                 with the Jacobian times its transpose as the operator). Cotangents are random, or drawn from
                 what is left open (`Posterior.sample`)

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

from prism_secure.learning.measured.posterior import Prior
from prism_secure.learning.training import LocalTrainer
from prism_secure.model.generator import draw_latents

Array = NDArray[np.float64]

LEAST_COST = 1e-3
"""Least cost of a direction, as a share of the largest: it keeps weights within 5.6 of each other."""


@dataclass(frozen=True)
class AskedRows:
    """Directions along rows of a basis, in few numbers: V[c, :, j] = by_class[c, j] · U[rows[j]].

    A basis of a few hundred rows and these are a hundredth of V (K, D, k); clients compute with them as
    `prism_privacy.RowDirections`.

    Attributes:
        rows: int64 (k,), rows of the basis.
        by_class: float64 (K, k).
    """

    rows: NDArray[np.int64]
    by_class: Array

    def along(self, rows: int) -> Array:
        """The directions in the coordinates of a basis of so many `rows`, (k, K, rows)."""
        count = len(self.rows)
        found = np.zeros((count, len(self.by_class), rows))
        found[np.arange(count), :, self.rows] = self.by_class.T
        return found

    def weights(self, basis: Array) -> Array:
        """V (K, D, k) for the basis U (r, D)."""
        found: Array = self.by_class[:, None, :] * basis[self.rows].T
        return found


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


def jacobian_directions(
    trainer: LocalTrainer, mask: Tensor, cotangents: Array, *, batch_size: int, seed: int
) -> Array:
    """V (K, D, k), orthonormal: what the class means of generated images can do along `cotangents` (k, K, D).

    Linearised at `mask` (d,), on one batch of latents from `seed`. Takes two backward passes of the generator
    and the features for each direction.

    Raises:
        ValueError: the moments of `mask` move in fewer than k directions.
    """
    count, classes, dimension = cotangents.shape
    latents, labels = draw_latents(batch_size, trainer.architecture, torch.Generator().manual_seed(seed))
    leaf = mask.detach().to(torch.float32).clone().requires_grad_(True)
    moments = class_means(trainer, leaf, latents, labels)
    # Jᵀu is linear in u, so its gradient by u is J: no forward mode, for which torch lacks some operations.
    dummy = torch.zeros_like(moments, requires_grad=True)
    (linear,) = torch.autograd.grad(moments, leaf, dummy, create_graph=True)
    moved = np.zeros((count, classes * dimension))
    for row, cotangent in enumerate(torch.from_numpy(cotangents).float()):
        (pulled,) = torch.autograd.grad(moments, leaf, cotangent, retain_graph=True)
        (pushed,) = torch.autograd.grad(linear, dummy, pulled / (pulled.norm() + 1e-30), retain_graph=True)
        moved[row] = pushed.reshape(-1).double().numpy()
    _, sizes, axes = np.linalg.svd(moved, full_matrices=False)
    if not sizes[-1] > 1e-7 * sizes[0]:
        raise ValueError(f"the generator's moments move in fewer than {count} directions: ask fewer")
    return axes.reshape(count, classes, dimension).transpose(1, 2, 0)


def class_means(trainer: LocalTrainer, mask: Tensor, latents: Tensor, labels: Tensor | None) -> Tensor:
    """Mean features (K, D) of the images that `mask` makes, by class; labels are balanced."""
    features: Tensor = trainer.extractor(trainer.supermask(mask, latents, labels))
    if labels is None:
        return features.mean(0, keepdim=True)
    member = torch.nn.functional.one_hot(labels.long(), trainer.architecture.classes).to(features.dtype)
    return (member / member.sum(0)).T @ features
