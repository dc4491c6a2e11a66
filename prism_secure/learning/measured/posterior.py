"""What all answers so far say of the clients' moments, and how much they leave open.

Moments are K × D numbers: the means of D features in each of K classes. Before the first answer they are a
Gaussian guess m₀ + P₀ that is public. A round measures k linear forms of them, y = B m + noise, with noise of
a known variance N. After it they are Gaussian still (Rasmussen and Williams, "Gaussian Processes for Machine
Learning", 2006, section 2.2):

    mean        m̂ = m₀ + P₀Bᵀ G⁻¹ (y − B m₀)          G = B P₀ Bᵀ + N
    covariance  P = P₀ − P₀Bᵀ G⁻¹ B P₀

P₀ is a covariance of classes times one of features, which has a variance of its own along each row of a
public basis U and a common one in all directions outside it:

    P₀ = (own·I + shared·11ᵀ) ⊗ (Uᵀ diag(spectrum) U + tail·(I − UᵀU))

So P₀ is diagonal in the coordinates of `Prior.coordinates`: the classes' common part and their deviations
from it, along the rows of U. Nothing of size K·D × K·D is made: what costs is G, answers × answers, and it is
factored (Cholesky), never inverted. Float64 throughout, and a pure function of the arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular

Array = NDArray[np.float64]

CHUNK = 256
"""Rows that are turned to float64 at a time."""
ROUNDING = 1e-5
"""How much of a form along rows of a basis may lie along others: forms are rounded for clients."""


@dataclass(frozen=True)
class Prior:
    """A public guess of the moments (K, D), before any answer.

    Args:
        mean: m₀ (K, D).
        basis: U (r, D), orthonormal rows.
        spectrum: (r,), variance along each row, before the factors `own` and `shared`.
        tail: the same along every direction outside the basis.
        own: how much of it each class has for itself.
        shared: how much all classes have in common.

    Raises:
        ValueError: shapes that do not fit, or a negative variance.
    """

    mean: Array
    basis: Array
    spectrum: Array
    tail: float = 0.0
    own: float = 1.0
    shared: float = 1.0

    def grown(self, rows: Array, spectrum: Array, mean: Array) -> Prior:
        """The same with more `rows` (s, D) of the basis, and what is guessed along them: `mean` (K, D).

        `rows` need not be orthogonal to the basis or to each other; along what they add, the mean is that of
        `mean`. What answers told before stays true: along the basis so far nothing changes.

        Raises:
            ValueError: the rows add fewer than s directions.
        """
        outside = rows - (rows @ self.basis.T) @ self.basis
        added = np.linalg.qr(outside.T)
        if not np.all(np.abs(np.diag(added.R)) > 1e-8 * np.linalg.norm(rows, axis=1)):
            raise ValueError(f"{len(rows)} rows add fewer directions to a basis of {len(self.basis)}")
        # Again, for rounding: what lies along the basis by 1e-16 of a long row would show in a short rest.
        new = added.Q.T - (added.Q.T @ self.basis.T) @ self.basis
        guess = self.mean + ((mean - self.mean) @ new.T) @ new
        return Prior(
            guess,
            np.concatenate([self.basis, new]),
            np.concatenate([self.spectrum, spectrum]),
            self.tail,
            self.own,
            self.shared,
        )

    def __post_init__(self) -> None:
        rows, dimension = self.basis.shape
        if self.mean.ndim != 2 or self.mean.shape[1] != dimension or self.spectrum.shape != (rows,):
            raise ValueError(
                f"a prior's mean is (K, D), its basis (r, D) and its spectrum (r,), got {self.mean.shape}, "
                f"{self.basis.shape} and {self.spectrum.shape}"
            )
        if min(self.tail, self.own, self.shared, float(self.spectrum.min(initial=0.0))) < 0:
            raise ValueError("the variances of a prior can't be negative")

    def starts(self, other: Prior) -> bool:
        """Whether `other` is this one, or this one grown."""
        rows = len(self.basis)
        same = (self.tail, self.own, self.shared) == (other.tail, other.own, other.shared)
        return same and np.array_equal(self.basis, other.basis[:rows])

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

    def apply(self, forms: Array) -> Array:
        """P₀ times each of `forms` (..., K, D)."""
        excess = self.variances - self.class_variances[:, None] * self.tail
        found = self.from_coordinates(excess * self.coordinates(forms))
        if self.tail:
            found += self.tail * (self._between_classes @ forms)
        return found

    @cached_property
    def _between_classes(self) -> Array:
        """own·I + shared·11ᵀ (K, K)."""
        return self.own * np.eye(self.classes) + self.shared


@dataclass(frozen=True)
class Answers:
    """The measurements so far, y = B m + noise, in the order in which they came.

    Attributes:
        forms: B (R, K, D), float32: thousands of them must fit in memory, and rounding them changes a value
        by
            1e-7 of it, far less than its noise.
        values: y (R,).
        noise: variance (R,) of each value's noise.
    """

    forms: NDArray[np.float32]
    values: Array
    noise: Array

    @classmethod
    def none(cls, classes: int, dimension: int) -> Answers:
        """Before the first round."""
        return cls(np.zeros((0, classes, dimension), np.float32), np.zeros(0), np.zeros(0))

    def with_round(self, forms: Array, values: Array, noise: Array) -> Answers:
        """These and k more: forms (k, K, D), values (k,), noise (k,).

        Raises:
            ValueError: shapes that do not fit, or noise that is not positive.
        """
        if forms.shape[1:] != self.forms.shape[1:] or not (len(forms),) == values.shape == noise.shape:
            raise ValueError(
                f"a round adds forms (k, {self.forms.shape[1]}, {self.forms.shape[2]}) with k values and k "
                f"variances, got {forms.shape}, {values.shape} and {noise.shape}"
            )
        if not np.all(noise > 0):
            raise ValueError("every answer has noise: its variance must be positive")
        return Answers(
            np.concatenate([self.forms, forms.astype(np.float32)]),
            np.concatenate([self.values, values]),
            np.concatenate([self.noise, noise]),
        )

    def __len__(self) -> int:
        return len(self.values)

    def chunks(self, start: int = 0) -> Iterator[tuple[slice, Array]]:
        """The forms from row `start` on as float64 (rows, K·D), some at a time."""
        for first in range(start, len(self), CHUNK):
            rows = slice(first, min(first + CHUNK, len(self)))
            yield rows, self.forms[rows].reshape(rows.stop - first, -1).astype(np.float64)


class Posterior:
    """The moments (K, D), given a prior and all answers.

    Args:
        prior, answers: of the same K and D.
        before: a posterior after the first of these answers, of this prior or one that it was grown from.
            It saves work, and agrees with a fresh one up to rounding: to resume bit for bit, go on from the
            same rounds again.

    Raises:
        ValueError: shapes that do not fit.
    """

    def __init__(self, prior: Prior, answers: Answers, *, before: Posterior | None = None) -> None:
        if answers.forms.shape[1:] != prior.mean.shape:
            raise ValueError(
                f"the prior is of moments {prior.mean.shape}, the answers are of {answers.forms.shape[1:]}"
            )
        if before is not None and not before.prior.starts(prior):
            raise ValueError("a posterior goes on from one of the same prior, or of one that was grown to it")
        self.prior: Prior = prior
        self.answers: Answers = answers
        if before is not None and not before._has_nothing_along(prior):
            before = None
        self._inside = self._coordinates(before)
        self._outer = self._outer_products(before)
        self._factor, self._half = self._factored(before)

    def _has_nothing_along(self, grown: Prior) -> bool:
        """Whether nothing but rounding of these answers lies along what `grown` adds to the basis."""
        added = grown.basis[len(self.prior.basis) :]
        if not len(added) or not len(self.answers):
            return True
        along = max(
            float(np.abs(part.reshape(-1, added.shape[1]) @ added.T).max())
            for _, part in self.answers.chunks()
        )
        return not grown.tail and along < ROUNDING

    def _coordinates(self, before: Posterior | None) -> Array:
        """The forms in the basis, (R, K·r)."""
        prior = self.prior
        found = np.zeros((len(self.answers), *prior.variances.shape))
        known = 0
        if before is not None:
            known, rows = len(before.answers), len(before.prior.basis)
            found[:known, :, :rows] = before._inside.reshape(known, prior.classes, rows)
        for rows_, part in self.answers.chunks(known):
            found[rows_] = prior.coordinates(part.reshape(len(part), *prior.mean.shape))
        return found.reshape(len(self.answers), prior.variances.size)

    def _outer_products(self, before: Posterior | None) -> Array:
        """B (class covariance ⊗ I) Bᵀ (R, R); nothing without a tail, which it is for."""
        if not self.prior.tail:
            return np.zeros((0, 0))
        found = np.zeros((len(self.answers), len(self.answers)))
        known = 0 if before is None else len(before.answers)
        if before is not None:
            found[:known, :known] = before._outer
        for rows, part in self.answers.chunks(known):
            shaped = part.reshape(len(part), *self.prior.mean.shape)
            spread = (self.prior._between_classes @ shaped).reshape(len(part), -1)
            for others, other in self.answers.chunks():
                if others.start < rows.stop:
                    found[rows, others] = spread @ other.T
                    found[others, rows] = found[rows, others].T
        return found

    def _factored(self, before: Posterior | None) -> tuple[Array, Array]:
        """L with LLᵀ = G, lower triangular (R, R), and L⁻¹B in the coordinates (R, K·r)."""
        prior, inside, count = self.prior, self._inside, len(self.answers)
        known = 0 if before is None else len(before.answers)
        factor, half = np.zeros((count, count)), np.zeros(inside.shape)
        if before is not None:
            rows = len(before.prior.basis)
            factor[:known, :known] = before._factor
            half.reshape(count, prior.classes, -1)[:known, :, :rows] = before._half.reshape(
                known, prior.classes, rows
            )
        if known == count:
            return factor, half
        excess = prior.variances - prior.class_variances[:, None] * prior.tail
        gram = (inside[known:] * excess.ravel()) @ inside.T
        if prior.tail:
            gram += prior.tail * self._outer[known:]
        gram[:, known:][np.diag_indices(count - known)] += self.answers.noise[known:]
        if known:
            factor[known:, :known] = solve_triangular(factor[:known, :known], gram[:, :known].T, lower=True).T
        left = factor[known:, :known]
        factor[known:, known:] = cholesky(gram[:, known:] - left @ left.T, lower=True)
        half[known:] = solve_triangular(
            factor[known:, known:], inside[known:] - left @ half[:known], lower=True
        )
        return factor, half

    @cached_property
    def mean(self) -> Array:
        """m̂ (K, D)."""
        found = self.prior.mean.copy()
        if len(self.answers):
            expected: Array = np.concatenate([part @ found.ravel() for _, part in self.answers.chunks()])
            weights = cho_solve((self._factor, True), self.answers.values - expected)
            if self.prior.tail:
                pulled: Array = np.zeros(found.size)
                for rows, part in self.answers.chunks():
                    pulled += weights[rows] @ part
                found += self.prior.apply(pulled.reshape(found.shape))
            else:
                pulled = (weights @ self._inside).reshape(self.prior.variances.shape)
                found += self.prior.from_coordinates(self.prior.variances * pulled)
        return found

    @cached_property
    def variances(self) -> Array:
        """What is left of each coordinate's variance (K, r)."""
        found = self.prior.variances
        told = np.einsum("ra,ra->a", self._half, self._half).reshape(found.shape)
        return np.asarray(np.maximum(found - found**2 * told, 0.0))

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        """`count` draws (count, K, D) of what the moments may differ from their mean, by public randomness.

        Draw from the prior, answer from the draw, and take away what the answers tell (Matheron's rule).
        """
        prior = self.prior
        shape = (count, *prior.mean.shape)
        inside = rng.standard_normal((count, *prior.variances.shape))
        drawn = prior.from_coordinates(np.sqrt(prior.variances) * inside)
        if prior.tail:
            white = rng.standard_normal(shape)
            white -= (white @ prior.basis.T) @ prior.basis
            axes = prior.class_axes.T * np.sqrt(prior.class_variances * prior.tail)
            drawn += axes @ white
        if not len(self.answers):
            return drawn
        told = self._of_answers(drawn)
        told += np.sqrt(self.answers.noise)[:, None] * rng.standard_normal(told.shape)
        weights = cho_solve((self._factor, True), told)
        pulled = np.zeros((count, prior.mean.size))
        for rows, part in self.answers.chunks():
            pulled += weights[rows].T @ part
        return drawn - prior.apply(pulled.reshape(shape))

    def _of_answers(self, vectors: Array) -> Array:
        """B times each of `vectors` (k, K, D), as (R, k)."""
        flat = vectors.reshape(len(vectors), -1).T
        found = np.zeros((len(self.answers), len(vectors)))
        for rows, part in self.answers.chunks():
            found[rows] = part @ flat
        return found
