"""The frozen networks on whose features generated and held-out images are compared.

`ClassifierFeatures` ships with the package, and the weights of `EfficientNetFeatures` are installed with it.
`prism_secure.quality.inception_fid` has the network of published FID figures, and needs FID's own weights on
this machine. `InceptionFeatures` needs torchvision's InceptionV3 weights: another network, whose figures do
not compare with papers'. Figures of two networks never compare.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from prism_secure.config.plugged import built, is_reference
from prism_secure.data.features.efficientnet_lite0 import POOLED_TAPS, EfficientNetLite0
from prism_secure.data.pinned import read_pinned
from prism_secure.errors import ConfigError, FeatureError
from prism_secure.quality.classifier import FEATURE_DIM, load_classifier

__all__ = [
    "ClassifierFeatures",
    "EfficientNetFeatures",
    "InceptionFeatures",
    "MetricFeatures",
    "metric_features",
    "weights_digest",
]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class MetricFeatures(nn.Module):
    """Images float32 `(N, 1 or 3, H, W)` in [-1, 1] → features float32 `(N, num_features)`, and logits.

    Attributes:
        name: for reports; figures under different names are not comparable.
        num_features: length of the feature vector.
        classes: names of the labels that the logits stand for; empty where no data set here has them.
    """

    name: str
    num_features: int
    classes: tuple[str, ...] = ()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError


def resized(images: Tensor, side: int) -> Tensor:
    """Images (N, C, H, W) at side×side."""
    if images.shape[-2:] == (side, side):
        return images
    return functional.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)


class ClassifierFeatures(MetricFeatures):
    """The shipped Fashion-MNIST classifier: 128 non-negative features of the grey image at 32×32.

    Colour is reduced to luma and other sizes are resized, so that any data set can be measured; label
    accuracy means something for the classifier's own classes only.

    Args:
        weights: a file that `experiments/classifier/own.py` made, for a classifier of one's own: of its
            channels, and with the names of its classes.

    Raises:
        FeatureError: see `load_classifier`.
    """

    name = "classifier"
    num_features = FEATURE_DIM
    luma: Tensor

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        found = load_classifier(weights)
        self.classes, self.channels = found.names, found.channels
        self.network = found.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_buffer("luma", torch.tensor(_LUMA).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        if images.shape[1] > self.channels:
            images = (images * self.luma).sum(1, keepdim=True)
        features = self.network.features(resized(images.expand(-1, self.channels, -1, -1), 32))
        return features, self.network.head(features)


class EfficientNetFeatures(MetricFeatures):
    """192 averages of EfficientNet-Lite0's maps over the whole image, of whatever size that comes.

    What `features.extractors` calls "efficientnet_lite0_pooled". Grey images are repeated over the three
    channels. There are no logits.

    Raises:
        FeatureError: the weights are missing, or others.
    """

    name = "efficientnet_lite0"

    def __init__(self) -> None:
        super().__init__()
        self.network = EfficientNetLite0(POOLED_TAPS)
        self.num_features = self.network.dimension

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.network(images), None


class InceptionFeatures(MetricFeatures):
    """The 2,048 pooled features of torchvision's InceptionV3, of the image resized to 299×299.

    Grey images are repeated over the three channels.

    Args:
        weights: file of torchvision's IMAGENET1K_V1 weights; by default where torch hub keeps them, if their
            SHA-256 starts as their name says.

    Raises:
        FeatureError: the weights are not on this machine, or others, or do not fit. Nothing is downloaded.
    """

    FILE = "inception_v3_google-0cc3c7bd.pth"
    SHA256 = "0cc3c7bd"
    name = "inception_v3"
    num_features = 2048

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        path = weights or Path(torch.hub.get_dir()) / "checkpoints" / self.FILE
        if not path.is_file():
            raise FeatureError(
                f"InceptionV3 needs torchvision's weights at {path}; nothing is downloaded. Put {self.FILE} "
                "there, or set metrics.features = 'efficientnet_lite0'"
            )
        again = f"put torchvision's {self.FILE} there again"
        file = path if weights else io.BytesIO(read_pinned(path, self.SHA256, FeatureError, again))
        from prism_secure.data.torchvision_shim import torchvision

        network = torchvision.models.inception_v3(weights=None, init_weights=False)
        try:
            network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        # torch.load and load_state_dict fail in many ways on a foreign or damaged file.
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise FeatureError(f"cannot load InceptionV3 from {path}: {reason}") from None
        # Inputs stay in [-1, 1], which this network was trained on; torchvision's option transform_input only
        # undoes the normalisation of its own preprocessing.
        network.transform_input = False
        network.AuxLogits = None
        self.head, network.fc = network.fc.requires_grad_(False), nn.Identity()
        self.network = network.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        colour = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        features = self.network(resized(colour, 299))
        return features, self.head(features)


def metric_features(name: str) -> MetricFeatures:
    """The network that `metrics.features` names: one of the package, or "package.module:name" of the user's.

    The latter is called without arguments, and gives `MetricFeatures`.

    Raises:
        ConfigError: the user's cannot be imported or called, or gives something else.
        FeatureError: there is none of that name, or its weights are missing or others.
    """
    if is_reference(name):
        return _own(name)
    known: dict[str, Callable[[], MetricFeatures]] = {
        "classifier": ClassifierFeatures,
        "efficientnet_lite0": EfficientNetFeatures,
        "inception_v3": InceptionFeatures,
        "inception_fid": _fid_inception,
    }
    if name not in known:
        raise FeatureError(f"unknown metric features {name!r}, expected one of {', '.join(known)}")
    return known[name]().eval()


def _fid_inception() -> MetricFeatures:
    from prism_secure.quality.inception_fid import FidInceptionFeatures  # which needs this module

    return FidInceptionFeatures()


def _own(reference: str) -> MetricFeatures:
    made = built(reference, "metrics.features", called="without arguments", passes=(FeatureError,))
    if not isinstance(made, MetricFeatures):
        raise ConfigError(
            f"metrics.features = {reference!r} must give a prism_secure.quality.networks.MetricFeatures, got "
            f"{made!r}"
        )
    return made.requires_grad_(False).eval()


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of a network's parameters and buffers with their names: the same on every device."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        plain = value.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\0".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()
