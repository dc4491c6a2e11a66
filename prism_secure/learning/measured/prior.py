"""What is public of the clients' moments before any answer: a Gaussian guess m₀, P₀.

Moments are K × D numbers: the means of D features in each of K classes. P₀ is a covariance of classes times
one of features, which has a variance along each row of a public basis U; outside the basis the guess is taken
for the truth:

    P₀ = (own·I + shared·11ᵀ) ⊗ Uᵀ diag(spectrum) U

So P₀ is diagonal in the coordinates of `Prior.coordinates`: the classes' common part and their deviations
from it, along the rows of U. Float64 throughout, and a pure function of the arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prior:
    """A public guess of the moments (K, D), before any answer.

    Args:
        mean: m₀ (K, D).
        basis: U (r, D), orthonormal rows.
        spectrum: (r,), variance along each row, before the factors `own` and `shared`.
        own: how much of it each class has for itself.
        shared: how much all classes have in common.

    Raises:
        ValueError: shapes that do not fit, or a negative variance.
    """

    mean: Array
    basis: Array
    spectrum: Array
    own: float = 1.0
    shared: float = 1.0

    def __post_init__(self) -> None:
        rows, dimension = self.basis.shape
        if self.mean.ndim != 2 or self.mean.shape[1] != dimension or self.spectrum.shape != (rows,):
            raise ValueError(
                f"a prior's mean is (K, D), its basis (r, D) and its spectrum (r,), got {self.mean.shape}, "
                f"{self.basis.shape} and {self.spectrum.shape}"
            )
        if min(self.own, self.shared, float(self.spectrum.min(initial=0.0))) < 0:
            raise ValueError("the variances of a prior can't be negative")

    @property
    def classes(self) -> int:
        """K."""
        return len(self.mean)

    @cached_property
    def class_axes(self) -> Array:
        """(K, K), orthonormal rows: all classes alike first, then what tells them apart (Helmert)."""
        count = self.classes
        axes = np.tril(np.ones((count, count)), -1) - np.diag(np.arange(count, dtype=np.float64))
        axes[0] = 1.0
        found: Array = axes / np.linalg.norm(axes, axis=1, keepdims=True)
        return found

    @cached_property
    def class_variances(self) -> Array:
        """(K,): along each of `class_axes`."""
        found = np.full(self.classes, float(self.own))
        found[0] += self.classes * self.shared
        return found

    @cached_property
    def variances(self) -> Array:
        """(K, r): the diagonal of P₀ in the coordinates."""
        return self.class_variances[:, None] * self.spectrum

    def coordinates(self, forms: Array) -> Array:
        """Of `forms` (..., K, D) what lies in the basis, (..., K, r)."""
        found: Array = self.class_axes @ (forms @ self.basis.T)
        return found

    def from_coordinates(self, coordinates: Array) -> Array:
        """(..., K, r) back to (..., K, D)."""
        found: Array = (self.class_axes.T @ coordinates) @ self.basis
        return found
