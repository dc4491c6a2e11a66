"""The posterior's formulas against dense matrices, which are slow and obvious."""

import numpy as np
import pytest

from prism_secure.learning.measured.posterior import Answers, Posterior, Prior

K, D = 3, 7


def _prior(rng, *, rows=4, tail=0.02, **settings) -> Prior:
    basis = np.linalg.qr(rng.standard_normal((D, rows)))[0].T
    spectrum = rng.uniform(0.1, 1.0, rows)
    return Prior(rng.standard_normal((K, D)), basis, spectrum, tail=tail, own=0.6, shared=0.3, **settings)


def _answers(rng, *sizes: int) -> Answers:
    answers = Answers.none(K, D)
    for size in sizes:
        forms = rng.standard_normal((size, K, D)).astype(np.float32).astype(np.float64)
        answers = answers.with_round(forms, rng.standard_normal(size), rng.uniform(0.01, 0.1, size))
    return answers


def _dense(prior: Prior) -> np.ndarray:
    """P₀ (K·D, K·D) as the module's text has it."""
    inside = prior.basis.T @ np.diag(prior.spectrum) @ prior.basis
    features = inside + prior.tail * (np.eye(D) - prior.basis.T @ prior.basis)
    return np.kron(prior.own * np.eye(K) + prior.shared * np.ones((K, K)), features)


def _oracle(prior: Prior, answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance, in information form: another formula than the module's."""
    P0, B = _dense(prior), answers.forms.reshape(len(answers), K * D).astype(np.float64)
    known = B.T @ np.diag(1 / answers.noise) @ B
    P = np.linalg.solve(np.eye(K * D) + P0 @ known, P0)
    innovation = answers.values - B @ prior.mean.ravel()
    return prior.mean.ravel() + P @ B.T @ (innovation / answers.noise), P


@pytest.mark.parametrize("tail", [0.0, 0.02])
@pytest.mark.parametrize("sizes", [(), (5,), (4, 3, 6), (30,)])
def test_mean_and_variances_are_those_of_dense_matrices(tail, sizes):
    rng = np.random.default_rng(1)
    prior, answers = _prior(rng, tail=tail), _answers(rng, *sizes)
    posterior = Posterior(prior, answers)
    mean, P = _oracle(prior, answers)
    assert posterior.mean.ravel() == pytest.approx(mean, abs=1e-9)
    axes = np.kron(prior.class_axes, prior.basis)
    assert posterior.variances.ravel() == pytest.approx(np.diag(axes @ P @ axes.T), abs=1e-9)


@pytest.mark.parametrize("tail", [0.0, 0.02])
def test_going_on_from_an_earlier_posterior_changes_nothing(tail):
    rng = np.random.default_rng(2)
    prior = _prior(rng, tail=tail)
    first, both = _answers(np.random.default_rng(7), 5), _answers(np.random.default_rng(7), 5, 4)
    on = Posterior(prior, both, before=Posterior(prior, first))
    assert on.mean == pytest.approx(Posterior(prior, both).mean, abs=1e-12)
    assert on.variances == pytest.approx(Posterior(prior, both).variances, abs=1e-12)
    again = Posterior(prior, both, before=Posterior(prior, first))
    assert np.array_equal(on.mean, again.mean)


@pytest.mark.parametrize("tail", [0.0, 0.02])
def test_a_grown_basis_keeps_what_was_told_along_the_old_one(tail):
    rng = np.random.default_rng(3)
    prior, answers = _prior(rng, tail=tail), _answers(rng, 6)
    before = Posterior(prior, answers)
    grown = prior.grown(rng.standard_normal((2, D)), np.array([0.4, 0.2]), rng.standard_normal((K, D)))
    after = Posterior(grown, answers, before=before)
    fresh = Posterior(grown, answers)
    assert after.mean == pytest.approx(fresh.mean, abs=1e-12)
    assert after.variances == pytest.approx(fresh.variances, abs=1e-12)
    assert after.mean.ravel() == pytest.approx(_oracle(grown, answers)[0], abs=1e-9)
    assert grown.basis @ grown.basis.T == pytest.approx(np.eye(6), abs=1e-12)
    assert np.array_equal(grown.basis[:4], prior.basis)


def test_answers_along_the_basis_are_not_factored_again_when_it_grows():
    rng = np.random.default_rng(9)
    prior = _prior(rng, tail=0.0)
    forms = np.round(prior.from_coordinates(rng.standard_normal((5, K, 4))) * 2**20) / 2**20
    answers = Answers.none(K, D).with_round(forms, rng.standard_normal(5), np.full(5, 0.01))
    before = Posterior(prior, answers)
    grown = prior.grown(rng.standard_normal((2, D)), np.array([0.4, 0.2]), rng.standard_normal((K, D)))
    asked = np.round(grown.from_coordinates(rng.standard_normal((3, K, 6))) * 2**20) / 2**20
    more = answers.with_round(asked, rng.standard_normal(3), np.full(3, 0.01))
    after = Posterior(grown, more, before=before)
    assert np.array_equal(after._factor[:5, :5], before._factor)
    mean, P = _oracle(grown, more)
    assert after.mean.ravel() == pytest.approx(mean, abs=1e-5)  # forms were rounded to 2^-20
    axes = np.kron(grown.class_axes, grown.basis)
    assert after.variances.ravel() == pytest.approx(np.diag(axes @ P @ axes.T), abs=1e-5)


def test_growing_by_what_is_there_already_is_refused():
    prior = _prior(np.random.default_rng(4))
    with pytest.raises(ValueError, match="fewer directions"):
        prior.grown(prior.basis[:1] * 2, np.array([0.1]), prior.mean)


def test_samples_have_the_posteriors_covariance():
    rng = np.random.default_rng(5)
    prior, answers = _prior(rng), _answers(rng, 8)
    drawn = Posterior(prior, answers).sample(60_000, np.random.default_rng(6)).reshape(60_000, -1)
    _, P = _oracle(prior, answers)
    # 60,000 draws estimate an entry to about √(2/60,000) of the variances.
    assert drawn.T @ drawn / len(drawn) == pytest.approx(P, abs=6 * P.max() * (2 / 60_000) ** 0.5)
    assert drawn.mean(0) == pytest.approx(np.zeros(K * D), abs=6 * (P.max() / 60_000) ** 0.5)


def test_precise_answers_pin_the_moments_down_to_float64():
    """Thirty answers to the same nine questions, noise 1e-12 of the prior: G is almost singular."""
    rng = np.random.default_rng(7)
    prior = Prior(np.zeros((K, D)), np.eye(D)[:3], np.ones(3))
    truth = np.zeros((K, D))
    truth[:, :3] = rng.standard_normal((K, 3))
    forms = np.eye(K * D).reshape(-1, K, D)[[c * D + f for c in range(K) for f in range(3)]]
    answers = Answers.none(K, D)
    for _ in range(30):
        answers = answers.with_round(forms, forms.reshape(9, -1) @ truth.ravel(), np.full(9, 1e-12))
    posterior = Posterior(prior, answers)
    assert posterior.mean == pytest.approx(truth, abs=1e-6)
    assert posterior.variances.max() < 1e-10


@pytest.mark.parametrize(
    ("forms", "values", "noise", "message"),
    [
        ((2, K, D + 1), 2, [1.0, 1.0], "a round adds forms"),
        ((2, K, D), 3, [1.0, 1.0], "a round adds forms"),
        ((2, K, D), 2, [1.0, 0.0], "must be positive"),
        ((2, K, D), 2, [1.0, float("nan")], "must be positive"),
    ],
)
def test_answers_that_do_not_fit_are_refused(forms, values, noise, message):
    with pytest.raises(ValueError, match=message):
        Answers.none(K, D).with_round(np.zeros(forms), np.zeros(values), np.array(noise))


def test_a_posterior_does_not_go_on_from_another_prior():
    rng = np.random.default_rng(8)
    answers = _answers(rng, 3)
    with pytest.raises(ValueError, match="the same prior"):
        Posterior(_prior(rng), answers, before=Posterior(_prior(rng), answers))
