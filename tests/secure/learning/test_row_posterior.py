"""One number a coordinate says what dense matrices say, which are slow and obvious."""

import numpy as np
import pytest

from prism_secure.learning.measured.directions import AskedRows, principal_directions
from prism_secure.learning.measured.prior import Prior
from prism_secure.learning.measured.row_posterior import RowPosterior

from .dense_directions import dense

K, D = 3, 9


def _prior(rng) -> Prior:
    basis = np.linalg.qr(rng.standard_normal((D, 4)))[0].T
    return Prior(rng.standard_normal((K, D)), basis, rng.uniform(0.1, 1.0, 4), own=0.6, shared=0.3)


def _covariance(prior: Prior) -> np.ndarray:
    """P₀ (K·D, K·D) as the prior's text has it."""
    features = prior.basis.T @ np.diag(prior.spectrum) @ prior.basis
    return np.kron(prior.own * np.eye(K) + prior.shared * np.ones((K, K)), features)


def test_rounds_of_answers_give_the_posterior_of_all_of_them():
    """Mean and covariance of all answers at once, in information form: another formula than the module's."""
    rng = np.random.default_rng(1)
    prior, truth = _prior(rng), rng.standard_normal((K, D))
    ours, forms, told, noises = RowPosterior.start(prior), [], [], []
    for noise in (0.01, 0.1, 0.02, 0.05):
        asked = principal_directions(prior, ours.variances, 7, rng.uniform(0.1, 1.0, 4))
        B = dense(asked, prior.basis).transpose(2, 0, 1).reshape(7, -1) / K
        values = B @ truth.ravel() + noise**0.5 * rng.standard_normal(7)
        assert ours.expected(asked) == pytest.approx(B @ ours.mean.ravel(), abs=1e-9)
        ours = ours.answered(asked, values, noise)
        forms, told, noises = [*forms, B], [*told, values], [*noises, np.full(7, noise)]
    B, values, precision = np.concatenate(forms), np.concatenate(told), 1 / np.concatenate(noises)
    P0 = _covariance(prior)
    P = np.linalg.solve(np.eye(K * D) + P0 @ (B.T * precision) @ B, P0)
    mean = prior.mean.ravel() + P @ B.T @ (precision * (values - B @ prior.mean.ravel()))
    assert ours.mean.ravel() == pytest.approx(mean, abs=1e-9)
    axes = np.kron(prior.class_axes, prior.basis)
    assert ours.variances.ravel() == pytest.approx(np.diag(axes @ P @ axes.T), abs=1e-9)


def test_precise_answers_pin_the_moments_down():
    """Thirty answers to the same questions, noise 1e-12 of the prior."""
    rng = np.random.default_rng(7)
    prior, truth = Prior(np.zeros((K, D)), np.eye(D)[:3], np.ones(3)), np.zeros((K, D))
    truth[:, :3] = rng.standard_normal((K, 3))
    asked = principal_directions(prior, prior.variances, 9, np.ones(3))
    values = dense(asked, prior.basis).transpose(2, 0, 1).reshape(9, -1) @ truth.ravel() / K
    ours = RowPosterior.start(prior)
    for _ in range(30):
        ours = ours.answered(asked, values, 1e-12)
    assert ours.mean == pytest.approx(truth, abs=1e-6)
    assert ours.variances.max() < 1e-10


@pytest.mark.parametrize(
    ("mean", "spectrum", "own", "message"),
    [
        (np.zeros((K, D - 1)), np.ones(4), 0.5, "a prior's mean is"),
        (np.zeros((K, D)), np.ones(3), 0.5, "a prior's mean is"),
        (np.zeros((K, D)), np.ones(4), -0.5, "can't be negative"),
        (np.zeros((K, D)), -np.ones(4), 0.5, "can't be negative"),
    ],
)
def test_a_prior_that_does_not_fit_is_refused(mean, spectrum, own, message):
    with pytest.raises(ValueError, match=message):
        Prior(mean, np.eye(D)[:4], spectrum, own=own)


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
