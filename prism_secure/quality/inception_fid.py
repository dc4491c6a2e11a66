"""The Inception network of published FID figures, from the weights file that the field uses.

FID was defined on a network that Google released for TensorFlow in 2015 (Heusel et al. 2017, "GANs Trained by
a Two Time-Scale Update Rule"). Its weights for torch are one file under two names, that of pytorch-fid and
that of torch-fidelity. Beside torchvision's InceptionV3 the network differs in that average pools leave
padding out of the mean, the last block's pool takes the maximum, and there are 1,008 classes. Images are
rounded to 256 levels, as files hold them, resized as TensorFlow 1 resizes, and scaled to (x - 128)/128.

A figure on these features compares with a published one of as many generated images against the same real
ones. Most papers compare with training images; here it is always with held-out ones.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from prism_secure.data.pinned import read_pinned
from prism_secure.errors import FeatureError
from prism_secure.quality.networks import MetricFeatures

__all__ = ["FILES", "SHA256", "FidInceptionFeatures"]

FILES = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth")
"""What pytorch-fid and torch-fidelity call the file."""
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of the file, under either name."""
SIDE = 299


def resized_as_tensorflow_1(images: Tensor, side: int) -> Tensor:
    """Images (N, C, H, W) at side×side: pixel i of `side` is read at i·H/side, its corner and not its centre,
    linearly between the two rows (columns) around, without smoothing where an image shrinks."""
    for axis in (2, 3):
        length = images.shape[axis]
        at = torch.arange(side, dtype=torch.float32, device=images.device) * (length / side)
        low = at.floor().long().clamp(max=length - 1)
        share = (at - low).view(-1, 1) if axis == 2 else at - low
        first = images.index_select(axis, low)
        second = images.index_select(axis, (low + 1).clamp(max=length - 1))
        images = first + (second - first) * share
    return images


class FidInceptionFeatures(MetricFeatures):
    """The 2,048 pooled features of published FID figures; grey images are repeated over the three channels.

    The logits leave out the last layer's bias, as published inception scores do.

    Args:
        weights: the file; by default where torch hub keeps files, under either of its names.
        sha256: what the file must have.

    Raises:
        FeatureError: the file is not there, another one, or does not fit. Nothing is downloaded.
    """

    name = "inception_fid"
    num_features = 2048

    def __init__(self, weights: Path | None = None, *, sha256: str = SHA256) -> None:
        super().__init__()
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        path = weights or next((folder / name for name in FILES if (folder / name).is_file()), None)
        if path is None:
            raise FeatureError(
                f"metrics.features = 'inception_fid' needs FID's own weights, and nothing is downloaded: put "
                f"{FILES[0]} of pytorch-fid, or {FILES[1]} of torch-fidelity, into {folder}"
            )
        again = f"put {FILES[0]} of pytorch-fid there"
        file = io.BytesIO(read_pinned(path, sha256, FeatureError, again))
        from prism_secure.quality.inception_blocks import network  # loads torchvision

        self.network = network()
        try:
            self.network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as error:  # both fail in many ways on a foreign file
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise FeatureError(f"{path} does not hold FID's Inception: {reason}; {again}") from None
        head = self.network.fc
        assert isinstance(head, nn.Linear)
        self.head, self.network.fc = head, nn.Identity()
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        levels = ((images.clamp(-1, 1) + 1) * 127.5).round()
        colour = levels.expand(-1, 3, -1, -1) if levels.shape[1] == 1 else levels
        features: Tensor = self.network((resized_as_tensorflow_1(colour, SIDE) - 128) / 128)
        return features, functional.linear(features, self.head.weight)
