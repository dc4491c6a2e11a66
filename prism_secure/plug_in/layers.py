"""For other people's mask-based federated learning: dictionaries of layers in, dictionaries of layers out.

Code bases like FedPM's pass masks around as one array a layer. The secure sum and the privacy mechanism work
on one flat vector. What lies between is here, so that both fit in without moving anything:

    counts = secure_counts(masks)                                   # a secure sum in one process
    mask = release_mask(mine, theta, release, coins, federation=name, round=7)   # clipped, randomized bits
    counts = secure_counts(masks, release)                          # their sum, with the flips taken out

and `Layers` where a transport of your own carries the vectors. NumPy arrays and torch tensors alike; nothing
here imports torch.

>>> secure_counts([{"conv": np.array([[1, 0]]), "head": np.array([i])} for i in (0, 1, 1)])
{'conv': array([[3, 0]]), 'head': array([2])}
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_crypto import secure_sum
from prism_privacy import CoinSecret, MaskRelease, clip_toward, debias, release_bits

__all__ = ["Layers", "release_mask", "secure_counts"]


@dataclass(frozen=True)
class Layers:
    """The names and shapes of layers, and their order in a flat vector: by name, whatever a dict's order is.

    >>> layers = Layers.of({"b": np.zeros((2, 2)), "a": np.zeros(3)})
    >>> layers.dimension
    7
    >>> layers.split(layers.flatten({"b": np.array([[4, 5], [6, 7]]), "a": np.array([1, 2, 3])}))
    {'a': array([1, 2, 3]), 'b': array([[4, 5],
           [6, 7]])}
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, arrays: Mapping[str, ArrayLike]) -> Self:
        """The layers of this dictionary."""
        return cls(tuple((name, np.shape(arrays[name])) for name in sorted(arrays)))

    @property
    def dimension(self) -> int:
        """d: the length of the flat vector."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    @property
    def digest(self) -> bytes:
        """SHA-256 of names and shapes: bind it into a session whose parties may disagree about them."""
        return hashlib.sha256(b"prism-secure/v1/layers\0" + repr(self.shapes).encode()).digest()

    def flatten(self, arrays: Mapping[str, ArrayLike]) -> NDArray[Any]:
        """One vector (d,) from one array a layer; the dtype that holds all of theirs.

        Raises:
            ValueError: a layer is missing, unknown, or of another shape.
        """
        if (found := Layers.of(arrays)) != self:
            odd = sorted(str(each) for each in set(found.shapes) ^ set(self.shapes))
            raise ValueError(f"layers differ from what was agreed on: {', '.join(odd)}")
        return np.concatenate([np.asarray(arrays[name]).reshape(-1) for name, _ in self.shapes])

    def split(self, vector: ArrayLike) -> dict[str, NDArray[Any]]:
        """One array a layer from one vector (d,).

        Raises:
            ValueError: a vector of another length.
        """
        flat = np.asarray(vector)
        if flat.shape != (self.dimension,):
            raise ValueError(f"expected a vector of shape ({self.dimension},), got {flat.shape}")
        ends = np.cumsum([math.prod(shape) for _, shape in self.shapes])[:-1]
        pieces = np.split(flat, ends)
        return {name: piece.reshape(shape) for (name, shape), piece in zip(self.shapes, pieces, strict=True)}


def secure_counts(
    masks: Sequence[Mapping[str, ArrayLike]], release: MaskRelease | None = None, **settings: Any
) -> dict[str, NDArray[Any]]:
    """Add up the clients' layers by the real protocol, every party in this process: it protects nobody.

    Args:
        masks: for each client one array of integers a layer, 0 and 1 unless `bound` says more.
        release: what `release_mask` made the masks with: the flips are then taken out of the sums, which
            become estimates of what the masks would have added up to, now and then below 0 or above n.
        settings: those of `prism_crypto.secure_sum`. `min_survivors` is what an accountant may assume to be
            in every sum; by default the release's cohort, and all clients without one.

    Returns:
        The sum for each layer: int64 and exact, or float64 where a release is given.

    Raises:
        ValueError: the clients' layers differ.
        prism_crypto.SecureSumError: a value is out of range, or too few clients are left.
    """
    layers = Layers.of(masks[0])
    least = {"min_survivors": len(masks) if release is None else release.cohort}
    result = secure_sum([layers.flatten(mask) for mask in masks], **least | settings)
    counts: NDArray[Any] = result.counts
    if release is not None:
        counts = len(result.survivors) * debias(counts, len(result.survivors), release.flip)
    return layers.split(counts)


def release_mask(
    probabilities: Mapping[str, ArrayLike],
    broadcast: Mapping[str, ArrayLike],
    release: MaskRelease,
    coins: CoinSecret,
    *,
    federation: str,
    round: int,
) -> dict[str, NDArray[np.uint8]]:
    """A client's mask of one round: clipped around the broadcast, randomized, drawn from its secret coins.

    p = f + (1-2f)θ, moved toward the broadcast's until its distance is at most the clip; bits ~ Ber(p). The
    same p gives the same bits, so a round that is repeated after a crash releases nothing new; another p, in
    whatever round or experiment, has coins of its own, or the bits that differ would betray what changed.
    (A repeated training that ends elsewhere is then a second release, and is charged as one.)

    Args:
        probabilities: this client's θ after local training, in [0, 1], one float array a layer.
        broadcast: the θ that the server sent before this round, as this client loaded it.
        release: what the accountant is told.
        coins: this client's secret; keep it in a file (`CoinSecret.create`), one for each client.
        federation: a name that no other experiment has, for example a UUID kept beside the coins.
        round: the round's number.

    Returns:
        0 or 1, uint8, one array a layer.

    Raises:
        ValueError: the layers differ, or `release` clips in score space.
        prism_privacy.PrivacyError: a probability is out of range. NaN and infinities are no error, they
            stand for the broadcast's.

    >>> theta = {"head": np.full(4, 0.5)}
    >>> coins = CoinSecret.for_test(bytes(32))
    >>> mine = {"head": np.array([0.9, 0.1, 0.5, 0.5])}
    >>> release_mask(mine, theta, MaskRelease(0.25, 0.1), coins, federation="docs", round=1)
    {'head': array([0, 1, 0, 0], dtype=uint8)}
    """
    if release.space != "probability":
        raise ValueError("release_mask clips probabilities: the release's space must be 'probability'")
    layers = Layers.of(broadcast)
    public = layers.flatten(broadcast).astype(np.float64)
    own = layers.flatten(probabilities).astype(np.float64)
    # What overflowed in training stands for the broadcast, without a word: an error would tell of the data.
    own = np.where(np.isfinite(own), own, public)
    p = clip_toward(own, public, flip=release.flip, clip=release.clip)
    seen = hashlib.sha256(layers.digest + public.astype("<f8").tobytes() + p.astype("<f8").tobytes()).digest()
    return layers.split(release_bits(p, coins.stream(federation, round, seen, "mask")))
