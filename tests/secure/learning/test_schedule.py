"""Public rules: shares of the budget, and clips that are as long as answers are."""

from itertools import pairwise

import numpy as np
import pytest

from prism_secure.accounting.clip_rules import clip_shares
from prism_secure.learning.measured.directions import principal_directions
from prism_secure.learning.measured.prior import Prior
from prism_secure.learning.measured.row_posterior import RowPosterior
from prism_secure.learning.measured.schedule import answer_clips, rate, steps_after

from .dense_directions import dense


def _drawn(posterior: RowPosterior, seed: int) -> np.ndarray:
    """How far the moments may lie from the posterior's mean, (K, D)."""
    white = np.random.default_rng(seed).standard_normal(posterior.variances.shape)
    return posterior.prior.from_coordinates(np.sqrt(posterior.variances) * white)


@pytest.mark.parametrize(("first", "growth"), [(1.0, 1.0), (0.5, 1.0), (0.3, 1.2), (1.0, 0.8)])
def test_shares_spend_the_budget_once(first, growth):
    shares = clip_shares(6, first=first, growth=growth)
    assert np.sum(shares**2) == pytest.approx(1.0)
    assert shares[2:] / shares[1:-1] == pytest.approx(np.full(4, growth))
    assert shares[1] / shares[0] == pytest.approx(growth / first)


def test_a_single_round_has_all_of_it():
    assert clip_shares(1, first=0.2).tolist() == [1.0]


@pytest.mark.parametrize(
    ("rounds", "first", "growth"), [(0, 1, 1), (3, 0, 1), (3, 1, 0), (3, float("nan"), 1)]
)
def test_shares_without_a_budget_are_refused(rounds, first, growth):
    with pytest.raises(ValueError, match="shared out"):
        clip_shares(rounds, first=first, growth=growth)


@pytest.mark.parametrize("told", [False, True])
def test_clips_are_the_root_mean_square_of_answers_under_the_model(told):
    """Clients are drawn from the model itself: moments, then images around them."""
    rng = np.random.default_rng(1)
    classes, dimension, records = 4, 12, 20
    basis = np.linalg.qr(rng.standard_normal((dimension, 6)))[0].T
    prior = Prior(np.zeros((classes, dimension)), basis, np.linspace(1.0, 0.1, 6), own=0.5, shared=0.2)
    within = np.linspace(2.0, 0.2, 6)
    posterior = RowPosterior.start(prior)
    if told:
        asked = principal_directions(prior, prior.variances, 8, within)
        posterior = posterior.answered(asked, np.zeros(8), 1e-4)
    asked = principal_directions(prior, posterior.variances, 10, within)
    V = dense(asked, basis)
    client, image = [], []
    for draw in range(400):
        off = _drawn(posterior, draw)
        labels = np.arange(records) % classes
        seen = off[labels] + (rng.standard_normal((records, 6)) * np.sqrt(within)) @ basis
        r = np.einsum("idk,id->ik", V[labels], seen)
        client.append(np.sum(r.mean(0) ** 2))
        image.append(np.mean(np.sum(r**2, axis=1)))
    found = answer_clips(prior, posterior.variances, asked, within, records=records, margin=1.0)
    assert found == pytest.approx((np.mean(client) ** 0.5, np.mean(image) ** 0.5), rel=0.05)
    wider = answer_clips(prior, posterior.variances, asked, within, records=records, margin=1.2)
    assert wider == pytest.approx((1.2 * found[0], 1.2 * found[1]))


@pytest.mark.parametrize("held", [1, 2, 4])
def test_clients_of_few_classes_are_given_longer_answers(held):
    rng = np.random.default_rng(1)
    classes, dimension, records = 4, 8, 12
    prior = Prior(
        np.zeros((classes, dimension)), np.eye(dimension)[:3], np.array([1.0, 0.5, 0.2]), shared=0.3
    )
    within = np.array([2.0, 1.0, 0.4])
    asked = principal_directions(prior, prior.variances, 9, within)
    V = dense(asked, prior.basis)
    posterior, found = RowPosterior.start(prior), []
    for draw in range(600):
        off = _drawn(posterior, draw)
        labels = np.resize(rng.permutation(classes)[:held], records)
        seen = off[labels] + (rng.standard_normal((records, 3)) * np.sqrt(within)) @ prior.basis
        found.append(np.sum(np.einsum("idk,id->ik", V[labels], seen).mean(0) ** 2))
    clip, _ = answer_clips(
        prior, prior.variances, asked, within, records=records, margin=1.0, concentration=1 / held
    )
    assert clip == pytest.approx(np.mean(found) ** 0.5, rel=0.06)


def test_the_rate_falls_and_then_stays():
    rates = [rate(step, 10, start=0.03, end=0.003) for step in range(13)]
    assert rates[0] == pytest.approx(0.03)
    assert rates[10:] == pytest.approx([0.003] * 3)
    assert all(a > b for a, b in pairwise(rates[:11]))


def test_all_steps_are_made():
    assert sum(steps_after(t, rounds=4, each=30, end=100) for t in range(1, 5)) == 220
