"""Directions: what is worth asking comes first, and a Jacobian's directions are those of a dense Jacobian."""

import numpy as np
import pytest
import torch

from prism_secure.data.features import RandomFourierFeatures
from prism_secure.learning.measured.directions import (
    AskedRows,
    class_means,
    jacobian_directions,
    principal_directions,
)
from prism_secure.learning.measured.posterior import Answers, Posterior, Prior
from prism_secure.learning.training import LocalTrainer
from prism_secure.model.generator import Architecture, draw_latents

K, D = 3, 8


def _posterior(answers: Answers | None = None, **settings) -> Posterior:
    prior = Prior(np.zeros((K, D)), np.eye(D)[:4], np.array([4.0, 2.0, 1.0, 0.5]), **settings)
    return Posterior(prior, answers or Answers.none(K, D))


def _chosen(posterior: Posterior, count: int, cost: np.ndarray) -> AskedRows:
    return principal_directions(posterior.prior, posterior.variances, count, cost)


def _asked(posterior: Posterior, count: int, cost: np.ndarray) -> np.ndarray:
    return _chosen(posterior, count, cost).weights(posterior.prior.basis)


def _trainer() -> LocalTrainer:
    return LocalTrainer(
        Architecture(latent=4, width=2, image_size=8, classes=2),
        model_seed=1,
        extractor=RandomFourierFeatures(6, sides=(4, 8), bandwidths=(0.5,)),
        batch_size=8,
    )


def test_what_all_classes_share_comes_before_what_tells_them_apart():
    V = _asked(_posterior(own=0.1, shared=1.0), 4, np.ones(4))
    assert V.shape == (K, D, 4)
    assert np.array_equal(V[0], V[1])
    assert np.abs(V[0]).argmax(0).tolist() == [0, 1, 2, 3]


def test_a_direction_that_is_known_gives_way_to_one_that_is_not():
    prior_first = _asked(_posterior(), 1, np.ones(4))
    forms = prior_first.transpose(2, 0, 1)
    told = Answers.none(K, D).with_round(forms, np.zeros(1), np.array([1e-6]))
    V = _asked(_posterior(told), 1, np.ones(4))
    assert abs(float((V * prior_first).sum())) < 1e-9


def test_weights_leave_the_least_variance_among_powers_of_the_cost():
    """With the clip fixed, Σ q·w² = 1, and noise well under what is open, w = q^(-1/4) is best."""
    cost = np.array([1.0, 0.3, 0.1, 0.02])
    V = _asked(_posterior(shared=0.0), 4 * K, cost)
    weights = np.linalg.norm(V.reshape(-1, 4 * K), axis=0)
    assert weights.max() == pytest.approx(1.0)

    def left(power: float) -> float:
        w2 = cost**power / (cost**power * cost).sum()
        return float((1e-4 / w2).sum())

    assert left(-0.5) < min(left(-0.6), left(-0.4), left(0.0), left(-1.0))
    rows = np.abs(V).sum(0).argmax(0)
    by_row = np.array([weights[rows == row].mean() for row in range(4)])
    assert by_row / by_row[0] == pytest.approx((cost / cost[0]) ** -0.25)


def test_rows_and_class_weights_say_all_of_the_directions():
    found = _chosen(_posterior(), 5, np.ones(4))
    V = found.weights(np.eye(D)[:4])
    for j in range(5):
        assert np.array_equal(V[:, :, j], np.outer(found.by_class[:, j], np.eye(D)[found.rows[j]]))
    assert np.array_equal(found.along(4) @ np.eye(D)[:4], V.transpose(2, 0, 1))


@pytest.mark.parametrize(("count", "cost"), [(0, np.ones(4)), (13, np.ones(4)), (2, np.ones(5))])
def test_more_directions_than_coordinates_are_refused(count, cost):
    with pytest.raises(ValueError, match="1 to 12 directions"):
        _chosen(_posterior(), count, cost)


def test_jacobian_directions_span_what_a_dense_jacobian_says():
    trainer = _trainer()
    dimension = trainer.extractor.dimension
    mask = (torch.rand(trainer.dimension, generator=torch.Generator().manual_seed(3)) > 0.5).float()
    pull = np.random.default_rng(4).standard_normal((3, 2, dimension))
    V = jacobian_directions(trainer, mask, pull, batch_size=8, seed=5)
    assert V.shape == (2, dimension, 3)
    flat = V.reshape(-1, 3)
    assert flat.T @ flat == pytest.approx(np.eye(3), abs=1e-9)
    latents, labels = draw_latents(8, trainer.architecture, torch.Generator().manual_seed(5))
    J = torch.autograd.functional.jacobian(lambda m: class_means(trainer, m, latents, labels).ravel(), mask)
    J = J.double().numpy()
    span = np.linalg.qr(J @ (J.T @ pull.reshape(3, -1).T))[0]
    # Cosines of the angles between the two spans; the passes are float32.
    assert np.linalg.svd(span.T @ flat)[1] == pytest.approx(np.ones(3), abs=1e-3)


def test_jacobian_directions_are_the_same_bit_for_bit():
    trainer = _trainer()
    mask = torch.ones(trainer.dimension)
    pull = np.random.default_rng(4).standard_normal((2, 2, trainer.extractor.dimension))
    one, two = (jacobian_directions(trainer, mask, pull, batch_size=8, seed=5) for _ in range(2))
    assert np.array_equal(one, two)


def test_cotangents_that_move_nothing_are_refused():
    trainer = _trainer()
    same = np.ones((2, 2, trainer.extractor.dimension))
    with pytest.raises(ValueError, match="fewer than 2 directions"):
        jacobian_directions(trainer, torch.ones(trainer.dimension), same, batch_size=8, seed=5)
