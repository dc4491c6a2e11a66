"""The rule for rows: the least unknown among those of little noise, by the public model alone."""

import math

import numpy as np
import pytest

from prism_privacy import MeasuredRelease
from prism_secure.learning.measured.directions import principal_directions
from prism_secure.learning.measured.prior import Prior
from prism_secure.learning.measured.row_posterior import RowPosterior
from prism_secure.learning.measured.rows import NOISE, ROWS, Expected, best_rows, expected_rounds

K, CLIENTS = 4, 50
SPECTRUM = np.geomspace(1.0, 1e-5, 1200)


def _expected(rows: int, clip: float, rounds: int = 3) -> Expected:
    prior = Prior(np.zeros((K, rows)), np.eye(rows), SPECTRUM[:rows], own=0.5, shared=0.2)
    release = MeasuredRelease(0.25, clip, 1.0, 1.0, 10, 4096, 600)
    return expected_rounds([release] * rounds, prior, SPECTRUM, clients=CLIENTS, length=lambda *_: 0.5)


def test_noise_and_the_unknown_are_those_of_drawn_moments_and_answers():
    """Moments from the guess, over all rows there are; answers with the noise of each round."""
    rng, rows, clip = np.random.default_rng(1), 120, 0.4
    prior = Prior(np.zeros((K, rows)), np.eye(rows), SPECTRUM[:rows], own=0.5, shared=0.2)
    scale = np.sqrt(prior.variances)
    beyond = np.sqrt(prior.class_variances[:, None] * SPECTRUM[rows:])
    deviation = math.sqrt(0.25 / CLIENTS) * 0.5 / clip
    noisy, left = [], []
    for _ in range(60):
        truth = scale * rng.standard_normal(prior.variances.shape)
        outside = beyond * rng.standard_normal(beyond.shape)
        ends = []
        for noise in (deviation, 0.0):
            posterior = RowPosterior.start(prior)
            for _ in range(3):
                asked = principal_directions(prior, posterior.variances, 400, prior.spectrum)
                told = RowPosterior(prior, truth, posterior.variances).expected(asked)
                told = told + noise * rng.standard_normal(400)
                posterior = posterior.answered(asked, told, deviation**2)
            ends.append(posterior.coordinates)
        noisy.append(np.square(ends[0] - ends[1]).sum() / K)
        left.append((np.square(ends[1] - truth).sum() + np.square(outside).sum()) / K)
    release = MeasuredRelease(0.25, clip, 1.0, 1.0, 10, 4096, 400)
    found = expected_rounds([release] * 3, prior, SPECTRUM, clients=CLIENTS, length=lambda *_: 0.5)
    assert found.noise == pytest.approx(np.mean(noisy) ** 0.5, rel=0.05)
    assert found.unknown == pytest.approx(np.mean(left) ** 0.5, rel=0.05)


def test_the_rule_takes_what_leaves_the_least_unknown_among_rows_of_little_noise():
    clips = (0.02, 0.1, 0.5, 2.0, 8.0)
    chosen = [best_rows(lambda rows, c=clip: _expected(rows, c), 1200) for clip in clips]
    assert chosen == sorted(chosen)  # a smaller budget has no more rows, however small it is
    assert len(set(chosen)) == 3
    for clip, rows in zip(clips, chosen, strict=True):
        left = {each: _expected(each, clip) for each in ROWS}
        assert left[rows].noise <= NOISE * left[rows].unknown
        for other in left.values():
            assert other.noise > NOISE * other.unknown or other.unknown >= left[rows].unknown


@pytest.mark.parametrize(("most", "found"), [(64, 64), (120, 120), (130, 130), (1000, 1000), (1001, 1000)])
def test_a_short_basis_is_used_as_far_as_it_goes(most, found):
    assert best_rows(lambda rows: Expected(0.0, 1.0 / rows), most) == found


def test_without_room_it_takes_the_fewest():
    assert best_rows(lambda rows: Expected(1.0, 1.0), 1200) == ROWS[0]
