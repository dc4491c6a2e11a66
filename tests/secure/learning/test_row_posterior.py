"""One number a coordinate says what the posterior of all answers says."""

import numpy as np
import pytest

from prism_secure.learning.measured.directions import AskedRows, principal_directions
from prism_secure.learning.measured.posterior import Answers, Posterior, Prior
from prism_secure.learning.measured.row_posterior import RowPosterior

K, D = 3, 9


def _prior(rng) -> Prior:
    basis = np.linalg.qr(rng.standard_normal((D, 4)))[0].T
    return Prior(rng.standard_normal((K, D)), basis, rng.uniform(0.1, 1.0, 4), own=0.6, shared=0.3)


@pytest.mark.parametrize("grows", [False, True])
def test_rounds_of_answers_give_the_posterior_of_all_of_them(grows):
    rng = np.random.default_rng(1)
    prior, truth = _prior(rng), rng.standard_normal((K, D))
    ours, answers = RowPosterior.start(prior), Answers.none(K, D)
    for t in range(4):
        if grows and t == 2:
            ours = ours.grown(rng.standard_normal((2, D)), np.array([0.4, 0.2]), rng.standard_normal((K, D)))
        cost = rng.uniform(0.1, 1.0, len(ours.prior.basis))
        asked = principal_directions(ours.prior, ours.variances, 7, cost)
        forms = asked.weights(ours.prior.basis).transpose(2, 0, 1) / K
        values = forms.reshape(7, -1) @ truth.ravel() + 0.1 * rng.standard_normal(7)
        assert ours.expected(asked) == pytest.approx(forms.reshape(7, -1) @ ours.mean.ravel(), abs=1e-9)
        ours = ours.answered(asked, values, 0.01)
        answers = answers.with_round(forms, values, np.full(7, 0.01))
    dense = Posterior(ours.prior, answers)
    assert ours.mean == pytest.approx(dense.mean, abs=1e-5)  # forms are kept in float32 there
    assert ours.variances == pytest.approx(dense.variances, abs=1e-5)


@pytest.mark.parametrize(
    ("by_class", "rows"),
    [
        (np.array([[1.0], [0.0], [0.0]]), [0]),  # one class alone is no coordinate: it lies along three
        (np.ones((3, 2)), [1, 1]),  # asked twice
    ],
)
def test_what_is_no_coordinate_is_refused(by_class, rows):
    ours = RowPosterior.start(_prior(np.random.default_rng(2)))
    with pytest.raises(ValueError, match="one coordinate"):
        ours.answered(AskedRows(np.array(rows), by_class), np.zeros(len(rows)), 0.1)


@pytest.mark.parametrize(("values", "noise"), [(2, 0.1), (1, 0.0), (1, float("nan"))])
def test_answers_that_do_not_fit_are_refused(values, noise):
    ours = RowPosterior.start(_prior(np.random.default_rng(2)))
    with pytest.raises(ValueError, match="positive noise"):
        ours.answered(AskedRows(np.array([0]), np.ones((3, 1))), np.zeros(values), noise)
