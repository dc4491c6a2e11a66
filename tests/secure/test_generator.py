"""PRISM's generator: shapes, conditioning, and the fast upsampling convolution against the plain one."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from prism_secure.model.deployed import DeployedGenerator
from prism_secure.model.generator import (
    Architecture,
    ResNetGenerator,
    _BoxSum,
    _upsample_convolve,
    draw_latents,
)
from prism_secure.model.model_file import read_model, write_model
from prism_secure.model.supermask import Supermask


@pytest.mark.parametrize(("size", "channels", "classes"), [(8, 1, 0), (32, 1, 10), (16, 3, 4), (64, 3, 0)])
def test_images_have_the_asked_shape_and_range(size, channels, classes):
    architecture = Architecture(latent=6, width=4, image_size=size, channels=channels, classes=classes)
    network = Supermask(ResNetGenerator(architecture), seed=0)
    draws = torch.Generator().manual_seed(0)
    latents, labels = draw_latents(12, architecture, draws)
    images = network(torch.ones(network.dimension), latents, labels)
    assert images.shape == (12, channels, size, size)
    assert float(images.abs().max()) <= 1
    assert float(images.std()) > 0.01


def test_upsampling_convolution_equals_upsample_then_convolve_with_its_gradients():
    x = torch.randn(2, 5, 6, 6, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 5, 3, 3, dtype=torch.float64, requires_grad=True)
    plain = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), w, padding=1)
    fast = _upsample_convolve(x, w)
    assert torch.allclose(fast, plain)
    probe = torch.randn_like(plain)
    for a, b in zip(
        torch.autograd.grad(plain, (x, w), probe), torch.autograd.grad(fast, (x, w), probe), strict=True
    ):
        assert torch.allclose(a, b)


@pytest.mark.parametrize("shape", [(64, 128), (1, 2), (3, 5)])
def test_kernels_of_upsampling_have_the_bits_of_an_average_pool(shape):
    """Those by which the published results were computed, and its gradient's."""
    weight = torch.randn(*shape, 3, 3, requires_grad=True)
    pooled = 4 * F.avg_pool2d(F.pad(weight, (1, 1, 1, 1)), 2, stride=1)
    found = _BoxSum.apply(weight).permute(2, 3, 0, 1)
    probe = torch.randn_like(pooled)
    assert torch.equal(found, pooled)
    assert torch.equal(*(torch.autograd.grad(kernels, weight, probe)[0] for kernels in (found, pooled)))


def test_the_stem_is_a_transposed_convolution_of_the_latent():
    network = ResNetGenerator(Architecture(latent=7, width=2, image_size=8))
    weight = network.stem.weight  # ((4·4·channels), latent)
    kernel = weight.view(4, 4, 4, 7).permute(3, 2, 0, 1)
    z = torch.randn(3, 7)
    expected = F.conv_transpose2d(z[:, :, None, None], kernel)
    found = network.stem(z).view(3, 4, 4, -1).permute(0, 3, 1, 2)
    assert torch.allclose(found, expected, atol=1e-6)


def test_no_parameter_escapes_the_mask_and_training_keeps_no_statistics():
    network = ResNetGenerator(Architecture(latent=4, width=2, image_size=16, classes=3))
    assert all(p.dim() >= 2 for p in network.parameters())
    assert list(network.buffers()) == []


def test_labels_change_the_image_and_are_required_exactly_when_conditional():
    conditional = ResNetGenerator(Architecture(latent=4, width=4, image_size=8, classes=3))
    z = torch.randn(6, 4)
    a = conditional(z, torch.tensor([0, 1, 2, 0, 1, 2]))
    b = conditional(z, torch.tensor([1, 2, 0, 1, 2, 0]))
    assert not torch.allclose(a, b, atol=1e-3)
    with pytest.raises(ValueError, match="needs labels"):
        conditional(z)
    with pytest.raises(ValueError, match="takes no labels"):
        ResNetGenerator(Architecture(latent=4, width=4, image_size=8))(z, torch.zeros(6, dtype=torch.int64))


def test_batches_are_balanced_over_classes_and_follow_the_generator():
    architecture = Architecture(latent=3, width=2, image_size=8, classes=5)
    latents, labels = draw_latents(20, architecture, torch.Generator().manual_seed(1))
    again, _ = draw_latents(20, architecture, torch.Generator().manual_seed(1))
    assert torch.equal(latents, again)
    assert torch.bincount(labels).tolist() == [4] * 5


@pytest.mark.parametrize(
    "wrong",
    [{"image_size": 24}, {"image_size": 4}, {"channels": 2}, {"width": 0}, {"latent": 0}, {"classes": -1}],
)
def test_impossible_architectures_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Architecture(**wrong)


def test_channels_double_down_to_the_cap():
    assert Architecture(width=8, image_size=64).stage_channels == (128, 64, 32, 16, 8)
    assert Architecture(width=8, image_size=64, max_channels=40).stage_channels == (40, 40, 32, 16, 8)


def test_a_model_file_remembers_how_its_weights_were_drawn(tmp_path):
    architecture = Architecture(latent=4, width=2, image_size=8, weights="kaiming_normal")
    mask = np.arange(Supermask(ResNetGenerator(architecture), seed=5).dimension) % 3 > 0
    write_model(tmp_path / "model.safetensors", architecture, 5, mask)
    found = read_model(tmp_path / "model.safetensors")
    assert found.architecture == architecture
    built = DeployedGenerator(architecture, seed=5, mask=torch.from_numpy(mask))
    assert torch.equal(found.generate(3, seed=1)[0], built.generate(3, seed=1)[0])
    as_before = Architecture(latent=4, width=2, image_size=8)
    usual = DeployedGenerator(as_before, seed=5, mask=torch.from_numpy(mask))
    assert not torch.equal(found.generate(3, seed=1)[0], usual.generate(3, seed=1)[0])
    assert "weights" not in usual.architecture.as_dict()  # files of before did not say
    with pytest.raises(ValueError, match="weights must be one of"):
        Architecture(weights="tiny")
