"""What all answers so far say of the clients' moments, and how much they leave open.

Before the first answer the moments are the Gaussian guess of `Prior`, and after each they are Gaussian still
(Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, section 2.2). `AskedRows` ask for
one coordinate each, x = q_aᵀ m u_i, and the prior says nothing of one coordinate by another. So each has a
Gaussian of its own, and an answer moves only that: two numbers a coordinate, whatever was asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_secure.learning.measured.directions import AskedRows
from prism_secure.learning.measured.prior import Prior

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RowPosterior:
    """The moments, given answers to `AskedRows`.

    Attributes:
        prior: its basis has the coordinates.
        coordinates: float64 (K, r), the mean of each.
        variances: float64 (K, r), what is left of each one's variance.
    """

    prior: Prior
    coordinates: Array
    variances: Array

    @classmethod
    def start(cls, prior: Prior) -> RowPosterior:
        """Before the first answer."""
        return cls(prior, prior.coordinates(prior.mean), prior.variances.copy())

    @property
    def mean(self) -> Array:
        """m̂ (K, D): outside the basis, the prior's."""
        prior = self.prior
        return prior.mean + prior.from_coordinates(self.coordinates - prior.coordinates(prior.mean))

    def answered(self, asked: AskedRows, values: Array, noise: float) -> RowPosterior:
        """After a round.

        Args:
            asked: k directions, each coordinate at most once.
            values: y (k,), the mean over the classes of V[c]ᵀ m[c]: of each direction the clients' mean.
            noise: variance of each value's noise.

        Raises:
            ValueError: shapes that do not fit, noise that is not positive, or directions of another kind.
        """
        axis, weight = self._axes(asked)
        if values.shape != axis.shape or not noise > 0:
            raise ValueError(
                f"{len(axis)} directions need as many values and positive noise, got {values.shape}, {noise}"
            )
        scale = weight / self.prior.classes
        where = (axis, asked.row_numbers)
        before, variance = self.coordinates[where], noise / scale**2
        gain = self.variances[where] / (self.variances[where] + variance)
        coordinates, variances = self.coordinates.copy(), self.variances.copy()
        coordinates[where] = before + gain * (values / scale - before)
        variances[where] = gain * variance
        return RowPosterior(self.prior, coordinates, variances)

    def expected(self, asked: AskedRows) -> Array:
        """y (k,) that the posterior's mean would give."""
        axis, weight = self._axes(asked)
        found: Array = self.coordinates[axis, asked.row_numbers] * weight / self.prior.classes
        return found

    def _axes(self, asked: AskedRows) -> tuple[NDArray[np.int64], Array]:
        """Which class axis each direction lies along, and its length."""
        along = self.prior.class_axes @ asked.by_class
        axis = np.abs(along).argmax(0)
        weight = along[axis, np.arange(len(axis))]
        rest = np.linalg.norm(along, axis=0) - np.abs(weight)
        twice = len(np.unique(axis * len(self.prior.basis) + asked.row_numbers)) < len(axis)
        if twice or np.any(rest > 1e-6 * np.abs(weight)):
            raise ValueError(
                "each direction must be one coordinate of the prior, and each asked once a round"
            )
        return axis, weight
