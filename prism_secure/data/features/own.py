"""Features of the user's own: what `features.extractors = ["package.module:name"]` names.

It is called with the images' side and channels, and gives a `torch.nn.Module` from images (N, C, H, W),
float32 in [-1, 1], to features (N, D). Two things are made sure of, for the claims that rest on them: it
stays frozen and in eval mode, and images of clients go through it one at a time, so that the features of one
say nothing of another. A third nothing can check: that it keeps no memory of images it saw.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prism_secure.config.plugged import built
from prism_secure.data.features.extractor import FeatureExtractor
from prism_secure.data.public_images import dead_leaves
from prism_secure.errors import ConfigError, FeatureError

__all__ = ["OwnFeatures"]

_TRIED = 4


class OwnFeatures(FeatureExtractor):
    """A module of the user's own as an extractor.

    Args:
        network: the module; its weights are frozen.
        name: what it is called in messages.
        image_size, channels: of its images; its dimension is found by trying it on some that are no one's.

    Raises:
        FeatureError: it fails, gives no (N, D) of finite numbers, or one image's features depend on others.
    """

    def __init__(self, network: nn.Module, name: str, *, image_size: int, channels: int) -> None:
        super().__init__()
        self.network = network
        self.freeze()
        tried = dead_leaves(_TRIED, side=image_size, channels=channels, seed=0)
        try:
            with torch.no_grad():
                alone = [network(image[None]) for image in tried]
                together = network(tried)
        except Exception as error:  # a user's code may raise anything
            raise FeatureError(f"{name} cannot take images: {type(error).__name__}: {error}") from error
        for one in alone:
            if not isinstance(one, Tensor) or one.ndim != 2 or one.shape != alone[0].shape or len(one) != 1:
                got = tuple(one.shape) if isinstance(one, Tensor) else one
                raise FeatureError(f"{name} must give features (N, D) of N images, got {got} of one")
        found = torch.cat(alone)
        if not bool(torch.isfinite(found).all()):
            raise FeatureError(f"{name} must give finite features, got NaN or infinity")
        if not isinstance(together, Tensor) or together.shape != found.shape:
            got = tuple(together.shape) if isinstance(together, Tensor) else together
            raise FeatureError(f"{name} must give {tuple(found.shape)} of {len(tried)} images, got {got}")
        if not torch.allclose(together, found, rtol=1e-3, atol=1e-4):
            raise FeatureError(
                f"{name} must give an image the same features whatever other images are beside it: a layer "
                "that looks at the whole batch, such as BatchNorm in training, is not for features"
            )
        self.dimension = int(found.shape[1])

    @classmethod
    def of(cls, reference: str, *, image_size: int, channels: int) -> OwnFeatures:
        """What a reference names, called.

        Raises:
            ConfigError: it cannot be imported, called, or gives no module.
            FeatureError: as above.
        """
        made = built(
            reference,
            "features.extractors",
            called=f"with image_size={image_size} and channels={channels}",
            image_size=image_size,
            channels=channels,
        )
        if not isinstance(made, nn.Module):
            raise ConfigError(
                f"features.extractors = {reference!r} must give a torch.nn.Module, got {made!r}"
            )
        return cls(made, reference, image_size=image_size, channels=channels)

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # generated ones, in training
            return self._network(images)
        return torch.cat([self._network(image[None]) for image in images])

    def _network(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(images)
        return found.float()
