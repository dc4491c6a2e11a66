"""Directions as the matrices that they stand for."""

import numpy as np

from prism_secure.learning.measured.directions import AskedRows


def dense(asked: AskedRows, basis: np.ndarray) -> np.ndarray:
    """V (K, D, k) for the basis U (r, D)."""
    return asked.by_class[:, None, :] * basis[asked.row_numbers].T
