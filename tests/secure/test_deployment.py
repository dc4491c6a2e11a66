"""The deployed model is a function of (architecture, seed, mask)."""

from unittest.mock import Mock

import pytest
import torch

from prism_secure.model import deployed as deployment
from prism_secure.model.deployed import DeployedGenerator
from prism_secure.model.generator import Architecture, ResNetGenerator
from prism_secure.model.supermask import Supermask

ARCHITECTURE = Architecture(latent=6, width=4, image_size=8, classes=3)


def _mask(architecture=ARCHITECTURE) -> torch.Tensor:
    d = Supermask(ResNetGenerator(architecture), seed=0).dimension
    return torch.rand(d, generator=torch.Generator().manual_seed(0)) > 0.5


def test_same_architecture_seed_and_mask_give_the_same_images():
    torch.manual_seed(0)
    a, _ = DeployedGenerator(ARCHITECTURE, seed=1, mask=_mask()).generate(9, seed=2)
    torch.manual_seed(1)
    b, _ = DeployedGenerator(ARCHITECTURE, seed=1, mask=_mask()).generate(9, seed=2)
    c, _ = DeployedGenerator(ARCHITECTURE, seed=2, mask=_mask()).generate(9, seed=2)
    d, _ = DeployedGenerator(ARCHITECTURE, seed=1, mask=~_mask()).generate(9, seed=2)
    assert torch.equal(a, b)
    assert not torch.allclose(a, c, atol=1e-2)
    assert not torch.allclose(a, d, atol=1e-2)


def test_an_image_does_not_depend_on_its_batch():
    model = DeployedGenerator(ARCHITECTURE, seed=1, mask=_mask())
    together, labels = model.generate(12, seed=2)
    apart, _ = model.generate(labels=labels, seed=2, batch_size=5)
    assert torch.allclose(together, apart, atol=1e-5)


def test_calibrated_statistics_are_those_of_the_training_network_on_the_same_latents():
    """Eval mode gives nearly what batch statistics over many latents give."""
    mask = _mask()
    model = DeployedGenerator(ARCHITECTURE, seed=1, mask=mask)
    trained = Supermask(ResNetGenerator(ARCHITECTURE), seed=1)
    draws = torch.Generator().manual_seed(3)
    latents, labels = torch.randn(900, 6, generator=draws), torch.arange(900) % 3
    with torch.no_grad():
        assert torch.allclose(
            model.network(latents, labels), trained(mask.float(), latents, labels), atol=0.25
        )
    assert not model.network.training


def test_generating_changes_nothing_in_the_model():
    model = DeployedGenerator(ARCHITECTURE, seed=1, mask=_mask())
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    model.generate(50, seed=9)
    after = model.network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_labels_are_honoured_balanced_by_default_and_checked():
    model = DeployedGenerator(ARCHITECTURE, seed=1, mask=_mask())
    _, labels = model.generate(7, seed=0)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    images, labels = model.generate(labels=torch.tensor([2, 2]), seed=0)
    assert images.shape == (2, 1, 8, 8)
    assert labels.tolist() == [2, 2]
    with pytest.raises(ValueError, match="from 0 to 2"):
        model.generate(labels=torch.tensor([3]), seed=0)
    with pytest.raises(ValueError, match="positive count"):
        model.generate(seed=0)
    with pytest.raises(ValueError, match="but there are"):
        model.generate(3, labels=torch.tensor([1]), seed=0)


def test_unconditional_models_take_a_count_and_no_labels():
    architecture = Architecture(latent=6, width=4, image_size=8)
    model = DeployedGenerator(architecture, seed=1, mask=_mask(architecture))
    images, labels = model.generate(5, seed=0)
    assert images.shape == (5, 1, 8, 8)
    assert labels is None
    with pytest.raises(ValueError, match="takes no labels"):
        model.generate(labels=torch.tensor([0]), seed=0)


def _batches(architecture: Architecture, count: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images go through the network at once: while calibrating, then while generating."""
    sizes: list[int] = []

    def forward(network, latents, labels=None):
        sizes.append(len(latents))
        return latents

    monkeypatch.setattr(ResNetGenerator, "forward", forward)
    monkeypatch.setattr(deployment, "Supermask", lambda *_, **__: Mock())
    monkeypatch.setattr(deployment, "build_network", _SmallNetwork)
    DeployedGenerator(architecture, seed=0, mask=torch.ones(1)).generate(count, seed=0)
    return sizes


class _SmallNetwork(ResNetGenerator):
    """It counts and computes nothing, so it needs no weights."""

    def __init__(self, architecture: Architecture, *, running_statistics: bool) -> None:
        super().__init__(Architecture(latent=1, width=1, image_size=8))


@pytest.mark.parametrize(
    "sizes",
    [{}, {"classes": 10}, {"width": 64}, {"width": 64, "channels": 3}, {"image_size": 64}],
    ids=["default", "conditional", "paper", "colour", "64 pixels"],
)
def test_usual_models_are_computed_in_the_batches_that_they_were_measured_in(sizes, monkeypatch):
    """Other splits of the same latents would change the last digits of every image."""
    assert _batches(Architecture(**sizes), 600, monkeypatch) == [200] * 4 + [250, 250, 100]


def test_large_images_go_through_few_at_once_however_many_channels_they_have(monkeypatch):
    for width, most in ((1, 250), (16, 16), (24, 10), (256, 2)):
        large = Architecture(width=width, image_size=256, max_channels=width)
        sizes = _batches(large, 20, monkeypatch)
        assert max(sizes) <= most
        assert sum(sizes[800 // sizes[0] :]) == 20


@pytest.mark.parametrize(
    "sizes", [{}, {"width": 1, "channels": 3}, {"max_channels": 3}, {"image_size": 32, "width": 2}]
)
def test_no_layer_is_larger_than_is_counted_on(sizes):
    architecture = Architecture(**{"latent": 3, "width": 4, "image_size": 16} | sizes)
    network, seen = ResNetGenerator(architecture), []
    for part in network.modules():
        part.register_forward_hook(lambda _part, _inputs, output: seen.append(output.numel()))
    network(torch.zeros(2, 3))
    assert max(seen) == 2 * deployment.largest_activation(architecture)


def test_a_mask_of_another_network_is_refused():
    with pytest.raises(ValueError, match="shape"):
        DeployedGenerator(ARCHITECTURE, seed=1, mask=torch.ones(10))
