"""The small Fashion-MNIST classifier whose features the metrics are computed on.

It ships with the package (`assets/fashion_classifier.safetensors`) so that FID and its companions need no
download. It was trained on the 50,000 Fashion-MNIST training images that are *not* in the bundled set, so it
has seen neither a client's image nor a held-out one; `experiments/classifier/` holds the script, its log, its
accuracy and reference figures.

Figures on these features are comparable with each other only, never with an InceptionV3 FID.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from prism_secure.data.bundled import CLASSES
from prism_secure.data.pinned import read_pinned
from prism_secure.errors import FeatureError
from prism_secure.storage import write_atomic

__all__ = ["CLASSES", "FEATURE_DIM", "FashionClassifier", "load_classifier", "save_classifier"]

FEATURE_DIM = 128
"""Length of the feature vector of one image."""

WEIGHTS = Path(__file__).parents[1] / "assets" / "fashion_classifier.safetensors"
SHA256 = "4c500dff248ddb25496004b9925d733ea2afd9ccd20e48999940cc340ce95c3a"
"""Of these weights."""


def _block(channels_in: int, channels_out: int, *, pool: bool) -> list[nn.Module]:
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    ]
    return [*layers, nn.MaxPool2d(2)] if pool else layers


class FashionClassifier(nn.Module):
    """Four convolutions and two linear layers over images of 32×32 pixels.

    Input: float32 `(N, channels, 32, 32)` in [-1, 1], the layout of `prism_secure.data.to_float`.
    The features are the activations before the last layer: after ReLU, so non-negative, and not normalised.

    Args:
        channels: of the images; the shipped weights are for grey ones.
        classes: how many labels there are.
        names: what they are called, where that is known.
    """

    def __init__(
        self, channels: int = 1, classes: int = len(CLASSES), *, names: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.channels, self.names = channels, names
        self.trunk = nn.Sequential(
            *_block(channels, 32, pool=True),
            *_block(32, 64, pool=True),
            *_block(64, 128, pool=True),
            *_block(128, 128, pool=False),
            nn.Flatten(),
            nn.Linear(128 * 4 * 4, FEATURE_DIM),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURE_DIM, classes)

    def features(self, images: Tensor) -> Tensor:
        """Features of `images`: float32 `(N, 128)`, each ≥ 0."""
        out: Tensor = self.trunk(images)
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the classes: float32 `(N, classes)`."""
        out: Tensor = self.head(self.features(images))
        return out


def save_classifier(model: nn.Module, path: Path, *, names: Sequence[str]) -> None:
    """Write a classifier of one's own, and what its classes are called, for `load_classifier`.

    Raises:
        StorageError: the disk refused.
    """
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_atomic(path, save(state, metadata={"classes": msgspec.json.encode(tuple(names)).decode()}))


def _names(data: bytes) -> tuple[str, ...]:
    """The names in a file that could be read, () if it has none: its header is JSON behind eight bytes."""
    header = msgspec.json.decode(data[8 : 8 + int.from_bytes(data[:8], "little")])
    told = header.get("__metadata__", {}).get("classes", "[]")
    return msgspec.json.decode(told, type=tuple[str, ...])


def load_classifier(path: Path | None = None, device: torch.device | str = "cpu") -> FashionClassifier:
    """The trained classifier, frozen and in eval mode.

    `path` defaults to the weights that ship with the package, which must have the known SHA-256. A file of
    one's own (`save_classifier`) says itself how many channels and classes there are, and their names. Raises
    `FeatureError` when the file is missing, damaged, another one, or holds weights of another network.

    >>> model = load_classifier()
    >>> model.features(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 128])
    """
    pin, path = SHA256 if path is None else "", WEIGHTS if path is None else Path(path)
    data = read_pinned(path, pin, FeatureError, "reinstall prism-secure")
    try:
        state = load(data)
        first, last = state.get("trunk.0.weight"), state.get("head.bias")
        channels = 1 if first is None or first.ndim < 2 else first.shape[1]
        classes = len(CLASSES) if last is None else len(last)
        model = FashionClassifier(channels, classes, names=CLASSES if pin else _names(data))
        model.load_state_dict(state)
    except SafetensorError as error:
        raise FeatureError(
            f"classifier weights at {path} cannot be read ({error}): reinstall prism-secure"
        ) from None
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise FeatureError(f"{path} does not hold the weights of FashionClassifier: {reason}") from None
    return model.requires_grad_(False).eval().to(device)
