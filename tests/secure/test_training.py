"""Local training: deterministic, from the broadcast θ, with a state that survives a checkpoint."""

import copy
import io
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from prism_secure.config.sections import MaskMode
from prism_secure.data.features import RandomFourierFeatures
from prism_secure.learning.moment_matching import MomentMatching
from prism_secure.learning.training import ClientState, LocalResult, LocalTrainer
from prism_secure.model.deployed import DeployedGenerator
from prism_secure.model.generator import Architecture
from prism_secure.model.supermask import initial_theta, scores_from_theta

ARCHITECTURE = Architecture(latent=6, width=4, image_size=8, classes=2)
EXTRACTOR = RandomFourierFeatures(16, sides=(4, 8), bandwidths=(0.5,))


def _trainer(architecture=ARCHITECTURE, **settings) -> LocalTrainer:
    return LocalTrainer(
        architecture,
        model_seed=1,
        extractor=EXTRACTOR,
        **{"batch_size": 20, "learning_rate": 0.05, **settings},
    )


def _train(trainer, theta, target, *, state=None, **how) -> LocalResult:
    return trainer.train(theta, state or trainer.initial_state(), target, progress=0.0, **how)


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    """Two easy classes: the upper or the lower half is bright."""
    images = -1 + 0.5 * torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(8))
    images[:20, :, :4] += 1.5
    images[20:, :, 4:] += 1.5
    return images, torch.tensor([0] * 20 + [1] * 20)


@pytest.mark.parametrize("mode", get_args(MaskMode))
@pytest.mark.parametrize("averaging", ["ema", "faithful"])
def test_same_arguments_same_scores_bit_for_bit_in_any_process_order(mode, averaging):
    results = []
    for busy in (False, True):
        trainer = _trainer(mask_mode=mode, matching=MomentMatching(averaging=averaging))
        theta = initial_theta(trainer.dimension, seed=0)
        target = trainer.targets(*_data())
        if busy:  # another client trained in this process before
            _train(trainer, theta, target, steps=2, seed=99)
        results.append(_train(trainer, theta, target, steps=3, seed=5))
    assert torch.equal(results[0].scores, results[1].scores)
    assert torch.equal(results[0].state.second, results[1].state.second)
    assert results[0].state.step == 3


@pytest.mark.parametrize("mode", ["hard", "bernoulli"])
@pytest.mark.parametrize("classes", [0, 2])
def test_training_lowers_the_distance_of_the_moments(mode, classes):
    architecture = Architecture(latent=6, width=4, image_size=8, classes=classes)
    trainer = _trainer(architecture, mask_mode=mode)
    target = trainer.targets(*_data())
    result = _train(trainer, initial_theta(trainer.dimension, seed=0), target, steps=60, seed=5)
    assert result.last_loss < 0.7 * result.first_loss


def test_the_trained_weights_follow_the_architectures_law_and_so_do_the_deployed_ones():
    architecture = Architecture(latent=6, width=4, image_size=8, weights="wide_normal")
    weights = _trainer(architecture).supermask.weights
    deployed = DeployedGenerator(architecture, seed=1, mask=torch.ones_like(weights)).network
    assert float(weights.std()) == pytest.approx(10, rel=0.05)
    assert torch.equal(weights, torch.cat([each.flatten() for each in deployed.parameters()]))


def test_scores_start_from_the_broadcast_theta_and_nothing_given_is_changed():
    trainer = _trainer(learning_rate=1e-12)
    theta = initial_theta(trainer.dimension, seed=0)
    kept = theta.clone()
    state, target = trainer.initial_state(), trainer.targets(*_data())
    result = _train(trainer, theta, target, state=state, steps=1, seed=1)
    assert torch.allclose(result.scores, scores_from_theta(theta, trainer.temperature), atol=1e-6)
    assert torch.equal(theta, kept)
    assert float(state.first.abs().sum()) == 0
    assert state.step == 0


def test_two_rounds_with_kept_state_equal_resuming_from_its_arrays():
    trainer = _trainer(matching=MomentMatching(averaging="faithful"))
    theta, target = initial_theta(trainer.dimension, seed=0), trainer.targets(*_data())
    first = _train(trainer, theta, target, steps=2, seed=1)
    file = io.BytesIO()
    np.savez(file, **first.state.to_arrays())
    file.seek(0)
    with np.load(file) as arrays:
        restored = ClientState.from_arrays(dict(arrays))
    straight = _train(trainer, theta, target, state=first.state, steps=2, seed=2)
    resumed = _train(trainer, theta, target, state=restored, steps=2, seed=2)
    assert torch.equal(straight.scores, resumed.scores)
    assert not torch.equal(
        straight.scores,
        _train(trainer, theta, target, steps=2, seed=2).scores,
    )


def test_the_seed_decides_the_latents():
    trainer = _trainer()
    theta, target = initial_theta(trainer.dimension, seed=0), trainer.targets(*_data())
    a, b = (_train(trainer, theta, target, steps=1, seed=s) for s in (1, 2))
    assert not torch.equal(a.scores, b.scores)


def test_only_the_moments_connect_scores_to_the_data():
    """Two data sets with equal moments train to equal scores."""
    trainer = _trainer()
    images, labels = _data()
    theta = initial_theta(trainer.dimension, seed=0)
    doubled = trainer.targets(images.repeat(2, 1, 1, 1), labels.repeat(2))
    single = trainer.targets(images, labels)
    a, b = (_train(trainer, theta, t, steps=3, seed=4) for t in (single, doubled))
    assert torch.allclose(a.scores, b.scores, atol=1e-5)


def test_a_client_with_one_class_trains_as_well():
    trainer = _trainer()
    images, labels = _data()
    target = trainer.targets(images[:20], labels[:20])
    result = _train(trainer, initial_theta(trainer.dimension, seed=0), target, steps=3, seed=0)
    assert bool(torch.isfinite(result.scores).all())


def test_batches_that_cannot_be_balanced_are_refused():
    with pytest.raises(ValueError, match="multiple of the 2 classes"):
        _trainer(batch_size=21)


def test_root_steps_are_signed_roots_of_the_gradient_and_keep_no_moments():
    trainer = _trainer(optimizer="root", learning_rate=0.02)
    theta, target = initial_theta(trainer.dimension, seed=0), trainer.targets(*_data())
    start = scores_from_theta(theta, trainer.temperature)
    moved = _train(trainer, theta, target, steps=1, seed=1)
    step = moved.scores - start
    assert float(step.square().mean().sqrt()) == pytest.approx(0.02, rel=1e-3)
    assert moved.state.first.numel() == moved.state.second.numel() == 0
    # Adam's first step is the sign of the same gradient.
    adam = _train(_trainer(learning_rate=0.02), theta, target, steps=1, seed=1).scores
    large = step.abs() > 1e-3
    assert torch.equal(step[large].sign(), (adam - start)[large].sign())
    # Roots: twice the logarithm of the step is that of the gradient, so steps differ by more than signs do.
    assert float(step[large].abs().max() / step[large].abs().min()) > 5


def test_root_training_lowers_the_distance_of_the_moments():
    trainer = _trainer(optimizer="root", learning_rate=0.02)
    target = trainer.targets(*_data())
    result = _train(trainer, initial_theta(trainer.dimension, seed=0), target, steps=60, seed=5)
    assert result.last_loss < 0.7 * result.first_loss


@pytest.mark.parametrize("mode", ["hard", "bernoulli"])
def test_images_kept_for_the_next_client_change_no_result(mode):
    """Two clients of a group, then another round: as if each had generated everything itself."""
    images, labels = _data()
    trainer = _trainer(mask_mode=mode)
    targets = [trainer.targets(images[i::2], labels[i::2]) for i in range(2)]
    thetas = [initial_theta(trainer.dimension, seed=s) for s in (0, 1)]
    jobs = [(0, 0, 3), (0, 1, 3), (1, 1, 3), (0, 0, 4)]
    results = [
        [_train(trainer, thetas[t], targets[i], steps=2, seed=seed, shared=shared) for t, i, seed in jobs]
        for trainer, shared in ((_trainer(mask_mode=mode), False), (_trainer(mask_mode=mode), True))
    ]
    for own, kept in zip(*results, strict=True):
        assert torch.equal(own.scores, kept.scores)
    assert not torch.equal(results[0][0].scores, results[0][1].scores)


@pytest.mark.parametrize("optimizer", ["adam", "root"])
@pytest.mark.parametrize("averaging", ["ema", "faithful"])
def test_a_training_is_repeated_only_where_something_differs(averaging, optimizer):
    """Equal arguments in other tensors are one training; whatever differs makes another."""
    matching = MomentMatching(averaging=averaging)
    shared = _trainer(matching=matching, optimizer=optimizer)
    target = shared.targets(*_data())
    theta = initial_theta(shared.dimension, seed=0)
    state = _train(shared, theta, target, steps=1, seed=3).state
    how = {"steps": 2, "seed": 4, "progress": 0.5}

    def train(theta, state, target, **how):
        alone = _trainer(matching=matching, optimizer=optimizer).train(theta, state, target, **how)
        together = shared.train(theta, state, target, shared=True, **how)
        for name, array in alone.state.to_arrays().items():
            assert np.array_equal(array, together.state.to_arrays()[name]), name
        assert torch.equal(alone.scores, together.scores)
        return together

    def nudged(tensor):
        changed = tensor.clone()
        changed.view(-1)[0] += 1e-3
        return changed

    first = train(theta, state, target, **how)
    assert train(*copy.deepcopy((theta, state, target)), **how) is first
    others = [
        (nudged(theta), state, target, how),
        *((theta, state, replace(target, **{name: nudged(value)}), how)
          for name, value in vars(target).items()),
        *((theta, state, target, how | different)
          for different in ({"steps": 1}, {"seed": 5}, {"progress": 0.6})),
        *((theta, replace(state, averages=replace(state.averages, **{name: nudged(value)})), target, how)
          for name, value in vars(state.averages).items() if torch.is_tensor(value) and value.numel()),
        *((theta, replace(state, **{name: nudged(getattr(state, name))}), target, how)
          for name in ("first", "second") if optimizer == "adam"),
        (theta, replace(state, step=7), target, how),
    ]  # fmt: skip
    for *arguments, chosen in others:
        train(theta, state, target, **how)
        assert train(*arguments, **chosen) is not first
