"""How long a mask and a vector of features will be, from the settings alone: nothing is built, no torch.

The networks themselves say the same of what they are; the tests hold the two together.
"""

from __future__ import annotations

from itertools import pairwise

from prism_secure.config import Config
from prism_secure.errors import ConfigError

__all__ = ["check_batch", "feature_dimension", "mask_dimension"]

# Channels of EfficientNet-Lite0's stem and blocks, and which of them halve the side.
_LITE0_CHANNELS = (32, 16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320)
_LITE0_HALVING = (True, False, True, False, True, False, True) + (False,) * 5 + (True,) + (False,) * 4
_LITE0_TAPS = {
    "efficientnet_lite0": {-1: 4, 0: 4, 2: 4, 4: 4, 7: 2, 10: 1},
    "efficientnet_lite0_pooled": {0: 1, 2: 1, 4: 1, 10: 1},
}
# Channels of VGG19-BN's ReLU maps; a row has one side, half of that above.
_VGG19 = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
_FOURIER = 200 * 2 * 2  # features of each of two sides and two bandwidths


def mask_dimension(config: Config, *, channels: int, classes: int) -> int:
    """d, the weights of the built-in network, for images of 1 or 3 channels; 0 classes: unconditional."""
    model = config.model
    doublings = model.image_size.bit_length() - 3
    stages = [model.width << (doublings - i) for i in range(doublings + 1)]
    if model.max_channels:
        stages = [min(stage, model.max_channels) for stage in stages]
    stem = (model.latent + classes) * 16 * stages[0]
    blocks = sum(9 * a * b + 9 * b * b + a * b for a, b in pairwise(stages))
    return stem + blocks + 9 * stages[-1] * channels


def check_batch(config: Config, classes: int) -> None:
    """Refuse unless a batch has as many images of one class as of another; 0 classes: unconditional.

    Raises:
        ConfigError: it has not; the nearest size that has is named.
    """
    size = config.training.batch_size
    if classes and size % classes:
        raise ConfigError(
            f"training.batch_size must be a multiple of the {classes} classes, got {size}: take "
            f"{max(1, round(size / classes)) * classes}, or model.conditional = false"
        )


def feature_dimension(config: Config) -> int:
    """D, the number of features of an image."""
    size = config.model.image_size
    found = sum(
        _FOURIER
        if name == "fourier"
        else _vgg19_dimension(size, config.features.vgg_layers)
        if name == "vgg19_bn"
        else _lite0_dimension(size, _LITE0_TAPS[name])
        for name in config.features.extractors
    )
    return found + config.features.products * (config.features.products + 1) // 2


def _lite0_dimension(side: int, taps: dict[int, int]) -> int:
    found = 0
    for block, (channels, halves) in enumerate(zip(_LITE0_CHANNELS, _LITE0_HALVING, strict=True), start=-1):
        side = -(-side // 2) if halves else side
        found += channels * min(taps.get(block, 0), side) ** 2
    return found


def _vgg19_dimension(side: int, layers: tuple[int, ...]) -> int:
    sizes = [channels * (side >> row) ** 2 for row, maps in enumerate(_VGG19) for channels in maps]
    return sum(sizes[layer - 1] for layer in layers or range(1, len(sizes) + 1))
