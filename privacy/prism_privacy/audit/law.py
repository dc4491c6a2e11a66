"""The claimed law, computed from its definition and from nothing else of this package.

An audit that asked the code under audit what it should have done would agree with it whatever it did. So the
few lines below are a second implementation: binary64, no fixed point, norms by an exactly rounded sum.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from prism_privacy.audit.claim import Claim

__all__ = ["public_probabilities", "released_probabilities"]

Floats = NDArray[np.float64]


def public_probabilities(claim: Claim, theta: Floats) -> Floats:
    """p_t = f + (1−2f)θ, shape (d,)."""
    return claim.flip + claim.width * theta


def released_probabilities(claim: Claim, values: NDArray[np.generic], theta: Floats) -> Floats:
    """P(bit = 1), shape (d,), for a client whose input is `values` (bits or scores, shape (d,)) at θ.

    >>> half = np.full(4, 0.5)
    >>> released_probabilities(Claim(flip=0.25, clip=0.25), np.array([1, 1, 0, 0]), half)
    array([0.625, 0.625, 0.375, 0.375])
    """
    wide = np.asarray(values, dtype=np.float64)
    if claim.input == "scores":
        scores = wide / claim.temperature
        if claim.clip_space == "score":
            start = np.log(theta) - np.log1p(-theta)
            return claim.flip + claim.width * _sigmoid(start + _clipped(scores - start, claim.clip))
        wide = _sigmoid(scores)
    unclipped = claim.flip + claim.width * wide
    public = public_probabilities(claim, theta)
    return public + _clipped(unclipped - public, claim.clip)


def _clipped(move: Floats, clip: float | None) -> Floats:
    norm = math.sqrt(math.fsum(np.square(move)))
    return move if clip is None or norm <= clip else move * (clip / norm)


def _sigmoid(scores: Floats) -> Floats:
    small = np.exp(-np.abs(scores))
    return np.where(scores >= 0.0, 1.0, small) / (1.0 + small)
