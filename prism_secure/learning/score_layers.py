"""PRISM-alpha: the last layers send their scores, as fixed-point numbers through the same secure sum.

A bit says of a weight whether to keep it; a score says how sure the client is, and the mean of scores is
worth more than that of bits, at several times the bytes. What travels is the log-odds s/τ, clipped to a
public limit and rounded to a public grid, so that the sum of the clients' integers is exact. It leaves
without noise: only the secure sum stands before it, epsilon for what a client contributes is inf, and the
configuration asks for `privacy.flip = 0`, so that no other figure is suggested. A record-level claim stands,
because scores are computed from the noisy moments alone.

Source: Seo, Han, Yoo, PRISM (ICLR 2025), the hybrid "PRISM-α".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from prism_crypto import FixedPoint
from prism_secure.config import Mask

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreLayers:
    """Which coordinates travel as scores, and how.

    Args:
        start: the first of them; all after it are scores, too.
        codec: the grid of fixed-point numbers.
    """

    start: int
    codec: FixedPoint

    @classmethod
    def of(cls, mask: Mask, layer_sizes: Sequence[int]) -> ScoreLayers | None:
        """The last ⌊score_layers · layers⌋ layers, at least one; None where the share is 0.

        >>> ScoreLayers.of(Mask(score_layers=0.5), (40, 10, 5)).start
        50
        """
        if not mask.score_layers:
            return None
        # A share such as 15/22 may fall short of a whole layer by a rounding error.
        count = max(1, int(mask.score_layers * len(layer_sizes) + 1e-9))
        # An even number of levels puts 0 on the grid.
        return cls(sum(layer_sizes[:-count]), FixedPoint(mask.score_limit, (1 << mask.score_bits) - 2))

    def encode(self, theta: Vector) -> NDArray[np.int64]:
        """The integers that stand for a client's probabilities (k,) of these coordinates."""
        inside = np.clip(theta, 1e-12, 1 - 1e-12)
        return self.codec.encode(logit(inside))

    def mean_theta(self, counts: NDArray[np.integer], survivors: int) -> Vector:
        """σ of the clients' mean log-odds, float64 (k,), from the opened sum of their integers."""
        mean = self.codec.decode_sum(counts, survivors) / survivors
        return np.asarray(expit(mean))
