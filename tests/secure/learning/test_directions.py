"""Directions: what is worth asking comes first."""

import numpy as np
import pytest

from prism_secure.learning.measured.directions import principal_directions
from prism_secure.learning.measured.prior import Prior
from prism_secure.learning.measured.row_posterior import RowPosterior

from .dense_directions import dense

K, D = 3, 8


def _start(**settings) -> RowPosterior:
    return RowPosterior.start(
        Prior(np.zeros((K, D)), np.eye(D)[:4], np.array([4.0, 2.0, 1.0, 0.5]), **settings)
    )


def _asked(posterior: RowPosterior, count: int, cost: np.ndarray) -> np.ndarray:
    found = principal_directions(posterior.prior, posterior.variances, count, cost)
    return dense(found, posterior.prior.basis)


def test_what_all_classes_share_comes_before_what_tells_them_apart():
    V = _asked(_start(own=0.1, shared=1.0), 4, np.ones(4))
    assert V.shape == (K, D, 4)
    assert np.array_equal(V[0], V[1])
    assert np.abs(V[0]).argmax(0).tolist() == [0, 1, 2, 3]


def test_a_direction_that_is_known_gives_way_to_one_that_is_not():
    start = _start()
    first = principal_directions(start.prior, start.variances, 1, np.ones(4))
    V = _asked(start.answered(first, np.zeros(1), 1e-6), 1, np.ones(4))
    assert abs(float((V * dense(first, start.prior.basis)).sum())) < 1e-9


def test_weights_leave_the_least_variance_among_powers_of_the_cost():
    """With the clip fixed, Σ q·w² = 1, and noise well under what is open, w = q^(-1/4) is best."""
    cost = np.array([1.0, 0.3, 0.1, 0.02])
    V = _asked(_start(shared=0.0), 4 * K, cost)
    weights = np.linalg.norm(V.reshape(-1, 4 * K), axis=0)
    assert weights.max() == pytest.approx(1.0)

    def left(power: float) -> float:
        w2 = cost**power / (cost**power * cost).sum()
        return float((1e-4 / w2).sum())

    assert left(-0.5) < min(left(-0.6), left(-0.4), left(0.0), left(-1.0))
    rows = np.abs(V).sum(0).argmax(0)
    by_row = np.array([weights[rows == row].mean() for row in range(4)])
    assert by_row / by_row[0] == pytest.approx((cost / cost[0]) ** -0.25)


@pytest.mark.parametrize(("count", "cost"), [(0, np.ones(4)), (13, np.ones(4)), (2, np.ones(5))])
def test_more_directions_than_coordinates_are_refused(count, cost):
    with pytest.raises(ValueError, match="1 to 12 directions"):
        _asked(_start(), count, cost)
