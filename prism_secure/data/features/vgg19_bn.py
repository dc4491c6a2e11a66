"""torchvision's VGG19-BN, the paper's extractor."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from prism_secure.data.features.extractor import FeatureExtractor
from prism_secure.data.pinned import read_pinned
from prism_secure.errors import FeatureError


class Vgg19Bn(FeatureExtractor):
    """The 16 ReLU maps of torchvision's VGG19-BN, flattened: the paper's features (303,104 at 32×32).

    In eval mode, with ImageNet normalisation for reals and fakes alike.

    Args:
        image_size: side of the images that will come.
        weights: file of torchvision's VGG19_BN_Weights.IMAGENET1K_V1; by default where torch hub keeps it, if
            its SHA-256 starts as its name says.
        layers: which maps, counted from 1 at the image; none named: all.

    Raises:
        FeatureError: the weights are not on this machine, or are others. Nothing is downloaded.
    """

    mean: Tensor
    std: Tensor

    FILE = "vgg19_bn-c79401a0.pth"
    SHA256 = "c79401a0"

    @classmethod
    def weights_file(cls, given: Path | None = None) -> Path:
        """Where the weights are, which need not be loaded to know that.

        Raises:
            FeatureError: they are not there.
        """
        path = given or Path(torch.hub.get_dir()) / "checkpoints" / cls.FILE
        if not path.is_file():
            raise FeatureError(
                f"VGG19-BN needs torchvision's weights at {path}; nothing is downloaded. Put {cls.FILE} "
                "there, or choose the efficientnet_lite0 features"
            )
        return path

    def __init__(
        self, *, image_size: int = 32, weights: Path | None = None, layers: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.taken = frozenset(layers or range(1, 17))
        if not self.taken <= set(range(1, 17)):
            raise FeatureError(f"VGG19-BN has ReLU maps 1 to 16, not {sorted(self.taken)}")
        path = self.weights_file(weights)
        again = f"put torchvision's {self.FILE} there again"
        file = path if weights else io.BytesIO(read_pinned(path, self.SHA256, FeatureError, again))
        from prism_secure.data.torchvision_shim import torchvision

        vgg = torchvision.models.vgg

        # Only the convolutions: building the classifier's 120 million weights would take most of the time.
        self.layers = vgg.make_layers(vgg.cfgs["E"], batch_norm=True)
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            self.layers.load_state_dict(
                {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
            )
        except Exception as error:
            raise FeatureError(f"can't read VGG19-BN weights from {path}: {error}") from error
        for layer in self.layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
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
                    found.append(x.flatten(1))
                if number == max(self.taken):
                    break
        return torch.cat(found, dim=1)
