"""The server's estimate is unbiased, and its noise is as large as it is said to be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from prism_privacy import CoinSecret, InvalidParameter, release_bits
from prism_privacy.measured import MeasuredRound, measured_mean, noise_covariance, quantise_features

CLIENTS, DIRECTIONS, SIZE = 60, 12, 2048


@pytest.fixture
def asked(make_round: Callable[..., MeasuredRound]) -> MeasuredRound:
    # two kinds of coordinates, so that the noise of different directions is correlated
    public = np.where(np.random.default_rng(1).random(SIZE) < 0.4, int(0.27 * 2**24), 1 << 23)
    return make_round(
        features=30,
        directions=DIRECTIONS,
        coordinates=SIZE,
        clip=0.8,
        client_clip=0.4,
        record_clip=0.5,
        records=4,
        public=public,
        flip=0.2,
    )


def test_the_estimate_is_the_mean_answer_with_the_noise_that_is_stated(asked: MeasuredRound) -> None:
    rng = np.random.default_rng(2)
    features = quantise_features(rng.normal(0, 0.2, (4 * CLIENTS, 30)))
    labels = rng.integers(0, 2, 4 * CLIENTS)
    answers = asked.answers(features, labels, np.repeat(np.arange(CLIENTS), 4), CLIENTS)
    p = asked.probabilities(answers)
    truth = asked.real(answers).mean(axis=0)
    assert np.linalg.norm(truth) > 0.01

    # without coins: p itself as the mean of bits, up to rounding toward p_t
    exact = asked.embedding.project(p.mean(axis=0) / 2**24 - asked.public / 2**24) * (0.4 / 0.8)
    assert np.allclose(exact, truth, atol=0.4 / 0.8 * SIZE**0.5 * 2.0**-24)

    covariance = noise_covariance(asked, CLIENTS)
    root = np.linalg.inv(np.linalg.cholesky(covariance))
    errors = []
    for seed in range(150):
        stream = CoinSecret.for_test(seed.to_bytes(32, "big")).stream("test", 1, asked.digest, "mask")
        counts = release_bits(p, stream).sum(axis=0)
        mean = measured_mean(asked, counts, CLIENTS)
        assert mean.variance == pytest.approx(covariance[0, 0])
        errors.append(root @ (mean.value - truth))
    white = np.array(errors)
    total = float((white**2).sum())
    assert 1e-4 < stats.chi2.cdf(total, white.size) < 1 - 1e-4
    assert abs(white.mean(axis=0)).max() < 4.5 / 150**0.5
    assert stats.kstest(white.ravel(), "norm").pvalue > 1e-4


def test_each_direction_has_one_variance_and_one_p_t_makes_the_noise_uncorrelated(
    asked: MeasuredRound, make_round: Callable[..., MeasuredRound]
) -> None:
    covariance = noise_covariance(asked, CLIENTS)
    p = asked.public / 2**24
    columns = asked.embedding.signs.T / SIZE**0.5
    slow = (0.4 / 0.8) ** 2 / CLIENTS * columns.T @ np.diag(p * (1 - p)) @ columns
    assert np.allclose(covariance, slow, rtol=1e-10, atol=1e-16)
    assert np.ptp(np.diag(covariance)) < 1e-15
    even = make_round()
    assert np.allclose(
        noise_covariance(even, 7),
        np.eye(2) * measured_mean(even, np.zeros(16, int), 7).variance,
        atol=1e-18,
    )


@pytest.mark.parametrize(
    ("counts", "survivors"),
    [([0] * 15, 3), ([0.0] * 16, 3), ([4] + [0] * 15, 3), ([-1] + [0] * 15, 3), ([0] * 16, 0)],
)
def test_counts_that_do_not_fit_are_refused(
    make_round: Callable[..., MeasuredRound], counts: list[int], survivors: int
) -> None:
    with pytest.raises(InvalidParameter):
        measured_mean(make_round(), counts, survivors)
