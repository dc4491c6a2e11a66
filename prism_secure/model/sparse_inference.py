"""The deployed network computed from the weights that the mask keeps, and from no others.

Each layer is a sparse matrix in CSR form times the columns of its input (im2col). Activations lie as
(channels, height, width, batch), so that a kept weight multiplies one long row of numbers. Nearest upsampling
and the 3×3 convolution after it are one matrix, of four rows an output channel, one for each parity of its
pixels: the columns are those of the small image.

Same images as the dense network, up to rounding. Dense convolutions reach so much more of a processor's speed
that this is faster only where one weight in twenty is kept, or fewer, of a large network:
`experiments/deployment` has figures.
"""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prism_secure.errors import ModelError
from prism_secure.model.deployed import DeployedGenerator
from prism_secure.model.generator import ResNetGenerator, UpBlock

__all__ = ["sparse_generator", "weight_bytes"]

IMAGES_AT_ONCE = 16
COLUMNS_AT_ONCE = 512
"""So that a kept weight multiplies rows that are long, and that still stay in the cache."""

# _PARITY[a, p, t]: does tap t (-1, 0, 1) of an output pixel of parity a lie in the small pixel p (-1, 0, 1)?
_PARITY = torch.tensor([[[1, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]]).float()


def sparse_generator(model: DeployedGenerator) -> DeployedGenerator:
    """The same model with sparse weights in its first layer and its blocks; `model` stays as it is.

    The last convolution stays dense: it has a thousandth of the weights.

    Raises:
        ModelError: its network is of the user's own.
    """
    dense = model.network
    if not isinstance(dense, ResNetGenerator):
        raise ModelError(f"sparse weights are for the built-in network, got {model.architecture.network}")
    other = copy.copy(model)
    other.network = copy.deepcopy(dense)
    other.network.add_module("stem", _SparseLinear(dense.stem.weight))
    other.network.add_module("blocks", _SparseBlocks(dense.blocks))
    return other


def weight_bytes(model: DeployedGenerator) -> int:
    """What the weights of a model, dense or sparse, take in memory."""
    network = model.network
    dense = sum(each.nbytes for each in network.parameters())
    return dense + sum(each.nbytes for each in network.modules() if isinstance(each, _Matrix))


class _SparseLinear(nn.Module):
    """(B, inputs) to (B, outputs)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.matrix = _Matrix(weight)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = self.matrix(x.T.contiguous())
        return product.T


class _SparseBlocks(nn.Module):
    """(B, C, H, W) through all blocks, so many images at a time."""

    def __init__(self, blocks: nn.Sequential) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*map(_SparseUpBlock, blocks))

    def forward(self, x: Tensor) -> Tensor:
        done = [self.blocks(part.permute(1, 2, 3, 0)) for part in torch.split(x, IMAGES_AT_ONCE)]
        return torch.cat(done, dim=3).permute(3, 0, 1, 2)


class _SparseUpBlock(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        assert isinstance(block, UpBlock)
        weight = block.conv1.weight
        self.channels = len(weight)
        both = torch.einsum("apt,bqs,oits->aboipq", _PARITY, _PARITY, weight)
        self.norm1, self.norm2 = _Affine(block.norm1), _Affine(block.norm2)
        self.up = _Matrix(_as_rows(both.flatten(0, 2)))
        self.conv2 = _Matrix(_as_rows(block.conv2.weight))
        self.skip = _Matrix(block.skip.weight.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, count = x.shape
        h = _convolved(torch.relu(self.norm1(x)), self.up)
        # (parity of rows, of columns, channels, rows, columns, images) to whole images.
        h = h.view(2, 2, self.channels, height, width, count).permute(2, 3, 0, 4, 1, 5)
        h = h.reshape(self.channels, 2 * height, 2 * width, count)
        h = _convolved(torch.relu(self.norm2(h)), self.conv2)
        skip = self.skip(x.reshape(len(x), -1)).view(self.channels, height, 1, width, 1, count)
        h.view(self.channels, height, 2, width, 2, count).add_(skip)
        return h


class _Affine(nn.Module):
    """Batch normalisation by its running statistics, of (channels, height, width, batch)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        self.register_buffer("scale", scale.view(-1, 1, 1, 1))
        self.register_buffer("shift", (-norm.running_mean * scale).view(-1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


class _Matrix(nn.Module):
    """A constant (rows, columns) matrix in CSR form; multiplies a dense one from the left."""

    def __init__(self, dense: Tensor) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            sparse = dense.detach().to_sparse_csr()
        # 32-bit indices: half the memory, and what the fast kernels take.
        rows, columns = sparse.crow_indices().int(), sparse.col_indices().int()
        self.weight = torch.sparse_csr_tensor(
            rows, columns, sparse.values(), sparse.shape, check_invariants=True
        )

    @property
    def nbytes(self) -> int:
        parts = (self.weight.crow_indices(), self.weight.col_indices(), self.weight.values())
        return sum(part.nbytes for part in parts)

    def forward(self, x: Tensor) -> Tensor:
        # In place: the plain product makes zeros and copies them.
        product = x.new_zeros(self.weight.shape[0], x.shape[1])
        return torch.addmm(product, self.weight, x, out=product)


def _as_rows(weight: Tensor) -> Tensor:
    """(outputs, inputs, 3, 3) to (outputs, 9 * inputs), in the order of `_convolved`."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _convolved(x: Tensor, matrix: _Matrix) -> Tensor:
    """A 3×3 convolution: (C, H, W, B) to (outputs, H, W, B), zeros beyond the border.

    So few rows of the picture at a time that their columns stay in the cache.
    """
    channels, height, width, count = x.shape
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    out = x.new_empty(matrix.weight.shape[0], height, width, count)
    rows = max(1, COLUMNS_AT_ONCE // (width * count))
    for top in range(0, height, rows):
        some = min(rows, height - top)
        taps = [padded[:, top + i : top + i + some, j : j + width] for i in range(3) for j in range(3)]
        columns = torch.stack(taps).view(9 * channels, -1)
        out[:, top : top + some] = matrix(columns).view(-1, some, width, count)
    return out
