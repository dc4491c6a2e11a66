"""DP-SGD on scores: gradients per example are right, clipped, drowned in secret noise, and accounted for."""

import copy
import importlib
import math
import sys

import dp_accounting
import numpy as np
import pytest
import torch
from dp_accounting.rdp import RdpAccountant
from opacus import GradSampleModule, PrivacyEngine
from opacus.accountants import RDPAccountant
from opacus.validators import ModuleValidator
from scipy import stats
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils.data import DataLoader, TensorDataset

from prism_privacy import BudgetExceeded, CoinSecret, Ledger, LedgerKey, MaskRelease
from prism_secure.errors import ConfigError
from prism_secure.model.supermask import Supermask, deployed_mask, initial_theta, scores_from_theta
from prism_secure.plug_in.dp_scores import DpSgd, make_private
from prism_secure.plug_in.masked_layers import MaskedConv2d, MaskedLinear, mask_layers, trainable

# Opacus hooks the first layer, whose input (images) needs no gradient.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing", "ignore:Using padding='same'")

LAYERS = {
    "linear": lambda **how: MaskedLinear(6, 4, **how),
    "linear on a sequence": lambda **how: MaskedLinear(5, 4, **how),
    "plain": lambda **how: MaskedConv2d(4, 6, 3, **how),
    "stride and padding": lambda **how: MaskedConv2d(4, 6, 3, stride=2, padding=1, **how),
    "uneven": lambda **how: MaskedConv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 0), **how),
    "groups": lambda **how: MaskedConv2d(4, 6, 3, padding=1, groups=2, **how),
    "depthwise": lambda **how: MaskedConv2d(4, 8, 3, groups=4, **how),
    "dilation": lambda **how: MaskedConv2d(4, 6, 3, padding=2, dilation=2, **how),
    "same, even kernel": lambda **how: MaskedConv2d(4, 6, 4, padding="same", **how),
    "valid": lambda **how: MaskedConv2d(4, 6, 3, padding="valid", **how),
    "reflected": lambda **how: MaskedConv2d(4, 6, 3, padding=1, padding_mode="reflect", **how),
    "all at once": lambda **how: MaskedConv2d(4, 8, 3, stride=2, padding=2, dilation=2, groups=2, **how),
}  # fmt: skip
INPUTS = {"linear": (6,), "linear on a sequence": (3, 5)}


def _net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, stride=2, bias=False),
        nn.ReLU(),
        nn.GroupNorm(2, 4, affine=False),
        nn.Conv2d(4, 4, 3, groups=2, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 3, bias=False),
    )


def _images(count: int) -> TensorDataset:
    draws = torch.Generator().manual_seed(1)
    return TensorDataset(
        torch.randn(count, 1, 8, 8, generator=draws), torch.randint(0, 3, (count,), generator=draws)
    )


def _loader(count: int) -> DataLoader:
    return DataLoader(_images(count), batch_size=4)


def _one_by_one(network, draws, seed, loss, examples):
    """The oracle: each example alone, under the very mask that the batch had."""
    gradients = []
    for example in examples:
        draws.manual_seed(seed)
        found = torch.autograd.grad(loss(network, example), trainable(network))
        gradients.append(torch.cat([each.flatten() for each in found]))
    return torch.stack(gradients)


def _samples(network) -> torch.Tensor:
    return torch.cat([each.grad_sample.flatten(1) for each in trainable(network)], dim=1)


@pytest.mark.parametrize("mode", ["hard", "bernoulli"])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_one_layer_are_those_of_each_example_alone(name, mode):
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(7)
    layer = LAYERS[name](mode=mode, temperature=0.5, generator=draws).double()
    x = torch.randn(5, *INPUTS.get(name, (4, 7, 8)), dtype=torch.float64)

    def loss(network, batch):
        return (network(batch).flatten(1).sin() ** 2).sum(1).mean()

    alone = _one_by_one(layer, draws, 7, loss, x.split(1))
    hooked = GradSampleModule(copy.deepcopy(layer))
    hooked._module.generator.manual_seed(7)
    loss(hooked, x).backward()
    assert torch.allclose(_samples(hooked._module), alone, rtol=1e-10, atol=1e-12)
    assert alone.abs().max() > 0.01


@pytest.mark.parametrize("mode", ["hard", "bernoulli"])
def test_gradients_of_a_whole_network_are_those_of_each_example_alone(mode):
    draws = torch.Generator()
    network = mask_layers(_net(), seed=3, mode=mode, generator=draws).double()
    images, labels = _images(6).tensors
    images = images.double()

    def loss(model, chosen):
        return nn.functional.cross_entropy(model(images[chosen]), labels[chosen])

    alone = _one_by_one(network, draws, 5, loss, [torch.tensor([i]) for i in range(6)])
    hooked = GradSampleModule(network)
    draws.manual_seed(5)
    loss(hooked, torch.arange(6)).backward()
    assert torch.allclose(_samples(network), alone, rtol=1e-9, atol=1e-12)
    # and their mean is what a plain backward pass leaves
    plain = torch.cat([each.grad.flatten() for each in trainable(network)])
    assert torch.allclose(plain, alone.mean(0), rtol=1e-9, atol=1e-12)


def test_a_mask_trained_in_layers_runs_in_the_supermask_of_the_same_seed():
    network = mask_layers(_net(), seed=3, mode="hard")
    flat = Supermask(_net(), seed=3)
    start = scores_from_theta(initial_theta(flat.dimension, seed=4), 1.0)
    assert torch.equal(parameters_to_vector(trainable(network)), start)
    theta = torch.rand(flat.dimension)
    vector_to_parameters(scores_from_theta(theta, 1.0), trainable(network))
    images = _images(4).tensors[0]
    assert torch.allclose(network(images), flat(deployed_mask(theta, "hard"), images))


def test_masking_layers_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    network = _net()
    torch.manual_seed(5)
    mask_layers(network, seed=3)
    assert torch.equal(torch.rand(3), expected)


def test_weights_are_frozen_and_layers_that_cannot_be_masked_are_named():
    network = mask_layers(_net(), seed=0)
    assert all(name.endswith("scores") == p.requires_grad for name, p in network.named_parameters())
    with pytest.raises(ValueError, match="'1' is a Embedding"):
        mask_layers(nn.Sequential(nn.Linear(2, 2, bias=False), nn.Embedding(3, 2)), seed=0)
    with pytest.raises(ValueError, match="'bernoulli' or 'hard', not 'topk'"):
        MaskedLinear(2, 2, mode="topk")


def _train(plan, *, size=24, steps=None, rate=1.0):
    """Run a plan with known coins; returns each step's clipped sums, noisy gradients and batch sizes."""
    network = mask_layers(_net(), seed=1, generator=torch.Generator().manual_seed(0))
    coins = CoinSecret.for_test(bytes(range(32)))
    private, batches = make_private(
        network,
        torch.optim.SGD(trainable(network), lr=rate),
        _loader(size),
        plan,
        steps_per_pass=steps,
        coins=coins,
    )
    seen = []
    for images, labels in batches:
        private.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        norms = _samples(network).norm(dim=1)
        private.step()
        noisy = torch.cat([each.grad.flatten() for each in trainable(network)])
        clipped = torch.cat([each.summed_grad.flatten() for each in trainable(network)])
        seen.append((norms, clipped, noisy, len(images)))
    return network, private, seen


def test_no_example_moves_the_sum_by_more_than_the_clip():
    """With one example in the batch at most, the sum is that example's clipped gradient."""
    clip = 0.05
    plan = DpSgd(records=24, batch=1, steps=40, clip=clip, noise=1.0)
    _, _, seen = _train(plan, steps=40)
    single = [clipped.norm() for norms, clipped, _, _ in seen if len(norms) == 1]
    assert len(single) > 5
    assert all(float(norm) <= clip for norm in single)
    # ... and was longer before, or the test would show nothing
    assert all(float(norms.min()) > 2 * clip for norms, *_ in seen if len(norms))


def test_a_sum_is_of_the_clipped_gradients_and_noise_is_the_plans():
    clip, noise = 0.05, 2.0
    plan = DpSgd(records=24, batch=8, steps=60, clip=clip, noise=noise)
    network, _, seen = _train(plan, steps=60, rate=1e-3)
    draws = torch.cat([noisy * plan.batch - clipped for _, clipped, noisy, _ in seen]).double().numpy()
    assert all(float(clipped.norm()) <= clip * size for _, clipped, _, size in seen)
    assert draws.size == 60 * len(parameters_to_vector(trainable(network)))
    assert stats.kstest(draws / (noise * clip), "norm").pvalue > 1e-3
    # a fresh draw for each coordinate and step: no two values repeat beyond what float32 rounding explains
    assert np.unique(draws.round(6)).size > 0.9 * draws.size
    lag = draws.reshape(60, -1)
    assert abs(np.corrcoef(lag[:-1].ravel(), lag[1:].ravel())[0, 1]) < 4 / math.sqrt(lag[1:].size)


@pytest.mark.parametrize("pixel", [1e20, 3e38, math.inf, -math.inf, math.nan])
def test_an_example_whose_gradient_overflows_counts_as_none_and_spoils_nothing(pixel):
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(2)
    images, labels = torch.rand(6, 16, generator=draws), torch.arange(6) % 2
    images[3] = pixel
    plan = DpSgd(records=6, batch=6, steps=1, clip=0.02, noise=5.0)
    network = mask_layers(
        nn.Sequential(nn.Linear(16, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False)), seed=0
    )
    private, batches = make_private(
        network,
        torch.optim.SGD(trainable(network), lr=0.1),
        DataLoader(TensorDataset(images, labels), batch_size=6),
        plan,
        coins=CoinSecret.for_test(bytes(32)),
    )
    (batch,) = batches
    private.zero_grad()
    nn.functional.cross_entropy(network(batch[0]), batch[1]).backward()
    samples = _samples(network)
    norms = samples.norm(dim=1)
    others = torch.arange(6) != 3
    assert norms[others].min() > plan.clip
    assert not norms[3] < 1e18
    private.step()
    summed = torch.cat([each.summed_grad.flatten() for each in trainable(network)])
    expected = (samples[others] / norms[others, None]).sum(0) * plan.clip
    moved = float((summed - expected).norm())
    assert moved < 1e-4 if not norms[3] < 1e37 else moved <= plan.clip
    assert all(torch.isfinite(each).all() for each in trainable(network))


def test_an_empty_batch_still_gets_its_noise():
    plan = DpSgd(records=1000, batch=1, steps=30, clip=1.0, noise=1.0)
    _, _, seen = _train(plan, size=3, steps=30)
    empty = [(clipped, noisy) for _, clipped, noisy, size in seen if size == 0]
    assert len(empty) > 20
    for clipped, noisy in empty:
        assert not clipped.any()
        assert torch.isfinite(noisy).all()
        assert 0.5 < float(noisy.std()) < 1.5


def test_sampling_is_poisson_at_the_public_rate_and_differs_between_clients():
    plan = DpSgd(records=100, batch=10, steps=200, clip=1.0, noise=1.0)
    sizes = [size for *_, size in _train(plan, size=60, steps=200)[2]]
    # 60 examples, though the plan says 100: the rate is the plan's, the number is the client's
    assert abs(sum(sizes) / 200 - 6.0) < 4 * math.sqrt(60 * 0.1 * 0.9 / 200)
    assert stats.chisquare(*_binned(sizes, 60, 0.1)).pvalue > 1e-3

    def first(batches):
        return [len(labels) for _, labels in batches]

    def fresh():
        network = mask_layers(_net(), seed=1)
        return make_private(
            network,
            torch.optim.SGD(trainable(network), 1.0),
            DataLoader(_images(60)),
            plan,
            steps_per_pass=50,
        )[1]

    one = fresh()
    assert first(one) != first(one) != first(fresh())


def _binned(sizes, count, rate):
    edges = [0, 4, 5, 6, 7, 8, count + 1]
    law = stats.binom(count, rate)
    observed = np.histogram(sizes, bins=edges)[0]
    expected = np.diff([law.cdf(edge - 1) for edge in edges])
    return observed, expected / expected.sum() * len(sizes)


def test_the_same_test_coins_give_the_same_training_and_others_another():
    plan = DpSgd(records=24, batch=8, steps=5, clip=1.0, noise=1.0)
    one, two = (parameters_to_vector(trainable(_train(plan, steps=5)[0])) for _ in range(2))
    assert torch.equal(one, two)
    network = mask_layers(_net(), seed=1)
    with pytest.raises(ValueError, match="noise from a secret that is used twice cancels"):
        make_private(
            network,
            torch.optim.SGD(trainable(network), 1.0),
            DataLoader(_images(9)),
            plan,
            coins=CoinSecret(),
        )


def test_the_step_after_the_plans_last_is_refused_and_changes_nothing():
    plan = DpSgd(records=24, batch=8, steps=3, clip=1.0, noise=1.0)
    network, private, seen = _train(plan)
    assert len(seen) == 3
    before = parameters_to_vector(trainable(network)).clone()
    private.zero_grad()
    images, labels = _images(4).tensors
    nn.functional.cross_entropy(network(images), labels).backward()
    with pytest.raises(BudgetExceeded, match="all 3 steps"):
        private.step()
    assert torch.equal(parameters_to_vector(trainable(network)), before)


def test_a_gradient_is_not_used_twice():
    plan = DpSgd(records=8, batch=4, steps=9, clip=1.0, noise=1.0)
    network = mask_layers(_net(), seed=1)
    private, _ = make_private(network, torch.optim.SGD(trainable(network), 1.0), _loader(8), plan)
    images, labels = _images(8).tensors
    nn.functional.cross_entropy(network(images), labels).backward()
    private.step()
    with pytest.raises(ValueError, match="zero_grad"):
        private.step()
    with pytest.raises(ValueError, match="accumulation"):
        nn.functional.cross_entropy(network(images), labels).backward()


def test_batch_normalisation_is_refused_though_opacus_does_not_see_it():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False), nn.Flatten())
    mask_layers(network, seed=0)
    assert ModuleValidator.validate(network) == []
    plan = DpSgd(records=8, batch=4, steps=2, clip=1.0, noise=1.0)
    with pytest.raises(ValueError, match="'1' is a BatchNorm2d, which mixes examples"):
        make_private(network, torch.optim.SGD(trainable(network), 1.0), _loader(8), plan)
    network[1] = nn.InstanceNorm2d(4, track_running_stats=True)
    with pytest.raises(ValueError, match="keeps statistics"):
        make_private(network, torch.optim.SGD(trainable(network), 1.0), _loader(8), plan)


def test_scores_that_the_optimizer_does_not_move_are_refused():
    network = mask_layers(_net(), seed=1)
    plan = DpSgd(records=8, batch=4, steps=2, clip=1.0, noise=1.0)
    with pytest.raises(ValueError, match="other parameters"):
        make_private(network, torch.optim.SGD(trainable(network)[:1], 1.0), _loader(8), plan)


@pytest.mark.filterwarnings("ignore:Secure RNG turned off", "ignore:Optimal order")
def test_opacus_own_engine_trains_the_layers_and_counts_as_dp_accounting_does():
    network = mask_layers(_net(), seed=1)
    start = parameters_to_vector(trainable(network)).clone()
    engine = PrivacyEngine(accountant="rdp")
    model, optimizer, loader = engine.make_private(
        module=network,
        optimizer=torch.optim.Adam(trainable(network), lr=0.1),
        data_loader=_loader(40),
        noise_multiplier=1.2,
        max_grad_norm=0.5,
    )
    for images, labels in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert not torch.equal(parameters_to_vector(trainable(network)), start)
    event = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(1.2)), len(loader)
    )
    orders = [1 + x / 10.0 for x in range(1, 100)] + list(range(12, 64))
    theirs = RdpAccountant(orders).compose(event).get_epsilon(1e-5)
    assert engine.get_epsilon(1e-5) == pytest.approx(theirs, rel=1e-5)


@pytest.mark.filterwarnings("ignore:Optimal order")
@pytest.mark.parametrize(("batch", "noise", "steps"), [(50, 1.0, 400), (10, 0.8, 100), (200, 4.0, 50)])
def test_epsilon_is_below_that_of_renyi_accounting_and_exact_for_one_step(batch, noise, steps):
    plan = DpSgd(records=1000, batch=batch, steps=steps, clip=1.0, noise=noise)
    opacus = RDPAccountant()
    opacus.history = [(noise, plan.sampling_rate, steps)]
    rdp = RdpAccountant().compose(plan.event()).get_epsilon(1e-5)
    assert opacus.get_epsilon(1e-5) == pytest.approx(rdp, rel=0.01)
    assert 0.65 * rdp < plan.epsilon(1e-5) < rdp
    # By hand: with one step the worst event of the mixture q·N(1, z²) + (1-q)·N(0, z²) against N(0, z²)
    # is a half-line, so its (ε, δ) curve is two normal tails.
    alone = DpSgd(records=1000, batch=batch, steps=1, clip=1.0, noise=noise)
    epsilon, q = alone.epsilon(1e-5), plan.sampling_rate
    cut = noise**2 * math.log1p(math.expm1(epsilon) / q) + 0.5
    tail = stats.norm.sf(cut / noise)
    exact = q * stats.norm.sf((cut - 1) / noise) + (1 - q) * tail - math.exp(epsilon) * tail
    assert 0.97e-5 < exact <= 1e-5 * (1 + 1e-6)


def test_the_calibrated_noise_is_the_least_and_a_ledger_takes_its_guarantee(tmp_path):
    plan = DpSgd.calibrated(epsilon=2.0, delta=1e-5, records=500, batch=25, steps=60, clip=0.3)
    louder = DpSgd(500, 25, 60, 0.3, plan.noise * 0.99)
    assert plan.epsilon(1e-5) <= 2.0 < louder.epsilon(1e-5)
    guarantee = plan.guarantee(1e-5)
    with Ledger.create(tmp_path / "l.jsonl", LedgerKey(), federation="t", records=500) as ledger:
        for number in (1, 2):
            ledger.append(
                round=number,
                release=MaskRelease(0.0, None, cohort=3, dim=10),
                delta=1e-5,
                epsilon=None,
                record=guarantee,
            )
    entries = Ledger.verify(tmp_path / "l.jsonl").entries
    assert [entry.record for entry in entries] == [guarantee, guarantee]
    assert entries[0].record.release["mechanism"] == "dp-sgd"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": 101}, "batch 101 exceeds"),
        ({"noise": 0.0}, "noise must be positive"),
        ({"steps": 0}, "steps"),
    ],
)
def test_impossible_plans_are_refused(change, said):
    good = {"records": 100, "batch": 10, "steps": 5, "clip": 1.0, "noise": 1.0}
    with pytest.raises(ValueError, match=said):
        DpSgd(**good | change)
    with pytest.raises(ValueError, match="epsilon > 0"):
        DpSgd.calibrated(epsilon=0.0, delta=1e-5, records=10, batch=1, steps=1, clip=1.0)


def test_without_opacus_one_line_names_the_extra(monkeypatch):
    name = "prism_secure.plug_in.dp_scores"
    monkeypatch.setitem(sys.modules, "opacus", None)
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError) as caught:
        importlib.import_module(name)
    assert str(caught.value).endswith(
        "Opacus is not installed: in a clone of the repository, pip install '.[dp-sgd]'"
    )


def test_torch_s_own_generator_has_a_seed_of_32_bits_which_is_why_it_draws_no_noise_here():
    one, two = (torch.randn(9, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5 + 2**32))
    assert torch.equal(one, two)
