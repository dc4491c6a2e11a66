"""The server's training: deterministic, resumed bit for bit, blind to what its metric leaves out."""

import io

import numpy as np
import pytest
import torch

from prism_secure.data.features import RandomFourierFeatures
from prism_secure.learning.measured.server_training import Metric, Rows, ServerState, ServerTraining
from prism_secure.learning.training import LocalTrainer
from prism_secure.model.generator import Architecture
from prism_secure.model.supermask import initial_theta

ARCHITECTURE = Architecture(latent=6, width=4, image_size=8, classes=2)
EXTRACTOR = RandomFourierFeatures(16, sides=(4, 8), bandwidths=(0.5,))


def _training(*, mask_mode="hard", **settings) -> ServerTraining:
    trainer = LocalTrainer(
        ARCHITECTURE, model_seed=1, extractor=EXTRACTOR, batch_size=20, mask_mode=mask_mode
    )
    return ServerTraining(trainer, **{"steps": 60, **settings})


def _start(training: ServerTraining) -> ServerState:
    return ServerState.start(training.trainer, initial_theta(training.trainer.dimension, seed=2))


def _metric(rows: int | None = None) -> Metric:
    axes = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5
    basis = torch.eye(EXTRACTOR.dimension)[:rows]
    return Metric(axes, basis, torch.ones(2, len(basis)))


def _target() -> np.ndarray:
    """Two easy classes: the upper or the lower half is bright."""
    images = -1 + 0.5 * torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(8))
    images[:20, :, :4] += 1.5
    images[20:, :, 4:] += 1.5
    return EXTRACTOR(images).view(2, 20, -1).mean(1).double().numpy()


def _distance(training: ServerTraining, state: ServerState) -> float:
    moments = state.average.double().numpy() / (1 - training.decay**state.step)
    return float(np.linalg.norm(moments - _target()))


def test_training_comes_nearer_to_the_moments():
    training = _training()
    early = training.run(_start(training), _target(), _metric(), steps=5, seed=3)
    late = training.run(early, _target(), _metric(), steps=55, seed=4)
    assert _distance(training, late) < 0.5 * _distance(training, early)


def test_resume_from_a_file_is_bit_for_bit():
    training = _training()
    early = training.run(_start(training), _target(), _metric(), steps=4, seed=3)
    straight = training.run(early, _target(), _metric(), steps=3, seed=4)
    file = io.BytesIO()
    np.savez(file, **early.to_arrays())
    file.seek(0)
    again = _training()
    again.run(_start(again), _target(), _metric(), steps=2, seed=9)  # whatever this process did before
    resumed = again.run(ServerState.from_arrays(dict(np.load(file))), _target(), _metric(), steps=3, seed=4)
    assert resumed.step == straight.step == 7
    for name, value in straight.to_arrays().items():
        assert np.array_equal(value, resumed.to_arrays()[name]), name


def test_the_loss_is_the_mean_over_steps_of_what_they_minimise():
    """By its definition, from the averages that single steps leave; metrics of weights 0 and 1."""
    training, target = _training(), _target()
    for metric, kept in (
        (_metric(), EXTRACTOR.dimension),
        (_metric(10), 10),
        (Rows(torch.tensor([[1.0], [0.0]])), None),
    ):
        state = _start(training)
        assert state.loss is None
        told, seen = [], []
        for number in range(3):
            state = training.run(state, target, metric, steps=1, seed=number)
            apart = state.average.double().numpy() / (1 - training.decay**state.step) - target
            told.append(state.loss)
            seen.append(np.square(apart[:1] if kept is None else apart[:, :kept]).sum())
        assert told == pytest.approx(seen, rel=1e-5)
    whole = [training.run(_start(training), target, metric, steps=count, seed=3) for count in (1, 2, 3)]
    means = [state.loss * state.step for state in whole]
    assert means[0] < means[1] < means[2]
    apart = whole[2].average.double().numpy() / (1 - training.decay**3) - target
    assert means[2] - means[1] == pytest.approx(np.square(apart[:1]).sum(), rel=1e-4)
    assert "loss" not in state.to_arrays()


def test_another_seed_gives_other_scores():
    training = _training()
    one, two = (training.run(_start(training), _target(), _metric(), steps=3, seed=s) for s in (3, 4))
    assert not torch.equal(one.scores, two.scores)


def test_the_state_given_is_not_changed():
    training = _training()
    state = _start(training)
    kept = {name: value.copy() for name, value in state.to_arrays().items()}
    training.run(state, _target(), _metric(), steps=3, seed=3)
    for name, value in kept.items():
        assert np.array_equal(value, state.to_arrays()[name]), name


def test_what_the_metric_leaves_out_has_no_say():
    """A target that differs only outside the metric's basis gives the same scores, bit for bit."""
    training, target = _training(), _target()
    other = target.copy()
    other[:, 10:] += 5.0
    one, two = (training.run(_start(training), t, _metric(10), steps=3, seed=3) for t in (target, other))
    assert torch.equal(one.scores, two.scores)
    seen = target.copy()
    seen[:, 3] += 5.0
    three = training.run(_start(training), seen, _metric(10), steps=3, seed=3)
    assert not torch.equal(one.scores, three.scores)


def test_deployed_scores_move_less_than_adams():
    training = _training(smoothing=0.98)
    before = training.run(_start(training), _target(), _metric(), steps=30, seed=3)
    after = training.run(before, _target(), _metric(), steps=1, seed=4)
    moved, apart = (after.smoothed - before.smoothed).norm(), (after.scores - before.smoothed).norm()
    assert float(moved) == pytest.approx(0.02 * float(apart), rel=1e-3)


def test_theta_is_that_of_the_smoothed_scores():
    training = _training()
    state = training.run(_start(training), _target(), _metric(), steps=25, seed=3)
    theta = state.theta(training.trainer.temperature, 0.2)
    assert theta.dtype == np.float64
    assert (theta.min(), theta.max()) == (0.2, 0.8)
    assert np.array_equal(theta > 0.5, (state.smoothed > 0).numpy())


@pytest.mark.parametrize("settings", [{"mask_mode": "bernoulli"}, {"smoothing": 1.0}, {"decay": -0.1}])
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ValueError, match=r"hard masks|lie in"):
        _training(**settings)
