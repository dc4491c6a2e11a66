"""Supermasks: a model is (architecture, seed, mask), and nothing else leaks in."""

import math

import pytest
import torch
from torch import nn

from prism_secure.model.supermask import (
    Supermask,
    deployed_mask,
    initial_theta,
    scores_from_theta,
    theta_from_scores,
    training_mask,
)


def _net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16, 5, bias=False),
    )


def test_weights_are_signed_constants_of_the_fan_in_and_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one = Supermask(_net(), seed=3)
    torch.manual_seed(2)
    two = Supermask(_net(), seed=3)
    other = Supermask(_net(), seed=4)
    assert torch.equal(one.weights, two.weights)
    assert not torch.equal(one.weights, other.weights)
    conv, linear = one.weights[:108].abs().unique(), one.weights[108:].abs().unique()
    assert conv.tolist() == pytest.approx([math.sqrt(2 / 18)])
    assert linear.tolist() == pytest.approx([math.sqrt(2 / 96)])
    assert abs(float(one.weights.sign().mean())) < 0.15


@pytest.mark.parametrize(
    ("law", "deviation"),
    [
        ("signed_constant", math.sqrt(2 / 64)),
        ("kaiming_normal", math.sqrt(2 / 64)),
        ("wide_normal", 10.0),
        ("signed_e", math.e / 8),
    ],
)
def test_every_weight_law_has_its_size_and_draws_from_the_seed_alone(law, deviation):
    def drawn():
        return Supermask(nn.Linear(64, 200, bias=False), seed=3, law=law).weights

    weights = drawn()
    assert torch.equal(weights, drawn())
    assert float(weights.square().mean().sqrt()) == pytest.approx(deviation, rel=0.03)
    assert abs(float(weights.mean())) < 0.05 * deviation
    assert (len(weights.abs().unique()) == 1) == law.startswith("signed")


def test_first_scores_are_as_wide_as_they_are_told():
    normal = torch.logit(initial_theta(20_000, seed=1, spread=0.5))
    assert float(normal.std()) == pytest.approx(0.5, rel=0.03)
    uniform = torch.logit(initial_theta(20_000, seed=1, spread=0.1, law="uniform"))
    assert float(uniform.abs().max()) <= 0.1 + 1e-9
    assert float(uniform.std()) == pytest.approx(0.1 / math.sqrt(3), rel=0.03)


def test_global_random_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    net = _net()
    torch.manual_seed(5)
    Supermask(net, seed=3)
    initial_theta(10, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_masked_forward_equals_the_dense_network_with_the_same_weights_zeroed():
    masked = Supermask(_net(), seed=0)
    mask = deployed_mask(torch.rand(masked.dimension), "hard")
    x = torch.randn(4, 2, 4, 4)
    under = masked(mask, x)
    dense = masked.load_mask(mask)
    assert torch.allclose(dense(x), under)
    flat = torch.cat([p.flatten() for p in dense.parameters()])
    assert torch.equal(flat == 0, ~mask)


def test_running_under_a_mask_leaves_the_frozen_weights_untouched():
    masked = Supermask(_net(), seed=0)
    before = [p.clone() for p in masked.module.parameters()]
    masked(torch.zeros(masked.dimension), torch.randn(1, 2, 4, 4))
    assert all(torch.equal(a, b) for a, b in zip(before, masked.module.parameters(), strict=True))
    assert not any(p.requires_grad for p in masked.module.parameters())


def test_transposed_convolutions_count_the_taps_that_reach_one_output():
    net = nn.Sequential(
        nn.ConvTranspose2d(8, 4, 4, bias=False), nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1, bias=False)
    )
    weights = Supermask(net, seed=0).weights.abs()
    assert weights[:512].unique().tolist() == pytest.approx([math.sqrt(2 / 8)])
    assert weights[512:].unique().tolist() == pytest.approx([math.sqrt(2 / 16)])


@pytest.mark.parametrize(
    "net", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2))]
)
def test_parameters_that_no_mask_describes_are_refused(net):
    with pytest.raises(ValueError, match="not part of a mask"):
        Supermask(net, seed=0)


def test_a_network_without_weights_and_a_mask_of_the_wrong_length_are_refused():
    with pytest.raises(ValueError, match="no weights"):
        Supermask(nn.ReLU(), seed=0)
    with pytest.raises(ValueError, match="shape"):
        Supermask(_net(), seed=0)(torch.ones(3), torch.ones(1, 2, 4, 4))


def test_hard_and_topk_masks_pass_the_gradient_straight_through():
    scores = torch.tensor([-1.0, 0.5, 2.0, 0.0], requires_grad=True)
    mask = training_mask(scores, "hard")
    assert mask.tolist() == [0, 1, 1, 0]
    (gradient,) = torch.autograd.grad((mask * torch.arange(4.0)).sum(), scores)
    assert gradient.tolist() == [0, 1, 2, 3]
    assert training_mask(scores, "topk", density=0.25).tolist() == [0, 0, 1, 0]


def test_bernoulli_masks_follow_theta_and_carry_the_slope_of_the_sigmoid():
    draws = torch.Generator().manual_seed(0)
    scores = torch.full((40_000,), 0.2, requires_grad=True)
    mask = training_mask(scores, "bernoulli", temperature=0.2, generator=draws)
    theta = 1 / (1 + math.exp(-1))
    assert float(mask.detach().mean()) == pytest.approx(theta, abs=0.01)
    (gradient,) = torch.autograd.grad(mask.sum(), scores)
    assert gradient[0].item() == pytest.approx(theta * (1 - theta) / 0.2, rel=1e-4)


def test_annealed_masks_go_from_bernoulli_to_hard():
    scores = torch.full((40_000,), 0.2, requires_grad=True)
    for progress, log_odds in ((0.0, 1.0), (0.5, 2.0), (0.75, 4.0)):
        draws = torch.Generator().manual_seed(0)
        mask = training_mask(scores, "annealed", temperature=0.2, generator=draws, progress=progress)
        assert float(mask.detach().mean()) == pytest.approx(1 / (1 + math.exp(-log_odds)), abs=0.01)
        (gradient,) = torch.autograd.grad(mask.sum(), scores)
        assert gradient.unique().tolist() == [1.0]
    values = torch.tensor([-0.01, 0.0, 0.01])
    assert torch.equal(training_mask(values, "annealed", progress=1.0), training_mask(values, "hard"))


def test_the_deployed_mask_is_one_fixed_mask():
    theta = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(deployed_mask(theta, "bernoulli", seed=1), deployed_mask(theta, "bernoulli", seed=1))
    assert not torch.equal(
        deployed_mask(theta, "bernoulli", seed=1), deployed_mask(theta, "bernoulli", seed=2)
    )
    assert int(deployed_mask(theta, "topk", density=0.3).sum()) == 300
    assert torch.equal(deployed_mask(theta, "hard"), theta > 0.5)
    assert torch.equal(deployed_mask(theta, "annealed"), theta > 0.5)


def test_topk_breaks_ties_by_position():
    assert deployed_mask(torch.full((6,), 0.5), "topk", density=0.5).tolist() == [True] * 3 + [False] * 3


def test_scores_and_theta_are_inverse_under_the_temperature():
    theta = torch.tensor([0.01, 0.4, 0.99], dtype=torch.float64)
    scores = scores_from_theta(theta, 0.1)
    assert scores.dtype == torch.float32
    assert torch.allclose(theta_from_scores(scores, 0.1), theta, atol=1e-6)
    assert scores[0].item() == pytest.approx(0.1 * math.log(0.01 / 0.99), rel=1e-5)


def test_unknown_mode_and_density_are_refused():
    with pytest.raises(ValueError, match="is not one of"):
        training_mask(torch.zeros(2), "soft")
    with pytest.raises(ValueError, match="is not one of"):
        deployed_mask(torch.zeros(2), "soft")
    with pytest.raises(ValueError, match="density"):
        deployed_mask(torch.zeros(2), "topk", density=0.0)
