"""The network of published FID figures, made of torchvision's blocks: what differs is written here.

Apart from `inception_fid`, which has no use for it without the weights: torchvision takes a second to import.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prism_secure.data.torchvision_shim import torchvision

__all__ = ["network"]

CLASSES = 1008

_blocks = torchvision.models.inception


def _mean(x: Tensor) -> Tensor:
    """The mean of each pixel's neighbourhood of 3×3, of those in it that lie inside the image."""
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _A(_blocks.InceptionA):  # type: ignore[misc,name-defined]
    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_mean(x))], 1)


class _C(_blocks.InceptionC):  # type: ignore[misc,name-defined]
    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_2(self.branch7x7dbl_1(x))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(self.branch7x7dbl_3(twice)))
        return torch.cat([self.branch1x1(x), seven, twice, self.branch_pool(_mean(x))], 1)


class _E(_blocks.InceptionE):  # type: ignore[misc,name-defined]
    def forward(self, x: Tensor) -> Tensor:
        three, twice = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(three),
                self.branch3x3_2b(three),
                self.branch3x3dbl_3a(twice),
                self.branch3x3dbl_3b(twice),
                self.branch_pool(self._pool(x)),
            ],
            1,
        )

    def _pool(self, x: Tensor) -> Tensor:
        return _mean(x)


class _LastE(_E):
    def _pool(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, stride=1, padding=1)


def network() -> nn.Module:
    """The network without weights: its `state_dict` has the names and shapes of the file's."""
    made: nn.Module = _blocks.Inception3(
        num_classes=CLASSES,
        aux_logits=False,
        inception_blocks=[
            *(_blocks.BasicConv2d, _A, _blocks.InceptionB, _C, _blocks.InceptionD, _E, _blocks.InceptionAux)
        ],
        init_weights=False,
    )
    made.Mixed_7c = _LastE(2048)
    return made
