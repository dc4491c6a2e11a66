"""Measured rounds for any loss that is a sum over examples: what crosses is a gradient in few public directions.

Where local training moves every score of a mask, and its noise lies in all of them, a measured round asks one
thing: which way do the clients' examples pull k public parameters, at the scores that the server has just sent?

    client   r_i = gradient of the loss of example i at zero moves, (k,); a broken one is zero; clipped: |r_i| <= c
             a   = (1/N) sum r_i, exact, clipped to |a| <= A, carried by m secret coins around 1/2
    server   the opened counts give the mean of the clients' a, with noise whose size is known; what follows
             (a step of an optimizer, another mask) is post-processing

The mechanism, its radii and their proof are those of :mod:`prism_privacy.measured` as they are: the gradients
are the features, V is the identity, m is zero. Only what a record's numbers are is new here.

    releases = calibrate_measured([release] * rounds, epsilon=2, ...).releases        # what the accountant is told
    asked = MeasuredGradient(releases[t], loss, {"head": head}, federation="...", round=t)   # every party, alike
    bits = asked.bits(coins, images, labels)                                          # each client
    gradient = asked.mean(counts, survivors).value                                    # the server, after the sum

Per-example gradients in few directions that public data give are those of GEP (Yu, Zhang, Chen, Liu, "Do not
let privacy overbill utility", ICLR 2021); here there is no noise but the mask bits' own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.func import grad, vmap

from prism_privacy import (
    CoinSecret,
    Directions,
    HadamardEmbedding,
    MeasuredMean,
    MeasuredRelease,
    MeasuredRound,
    measured_mean,
    quantise_features,
    release_bits,
)
from prism_secure.errors import ConfigError

__all__ = ["MeasuredGradient", "principal_directions"]

_HEADER = b"prism-secure/v1/measured gradient"
_UNITS = 1 << 20
"""Gradients and V are integers in units of 2^-20."""
_MOST = 1 << 10
"""The widest range of one number of a gradient."""
_EXACT = 1 << 13
"""k times that range: with V = 1 every product is then below 2^53."""
_HALF = 1 << 23
"""p_t = 1/2 in units of 2^-24: where bits have the most room."""


@dataclass(frozen=True, eq=False)
class MeasuredGradient:
    """One round as every party knows it; making one reads no data.

    Attributes:
        release: what the bits may depend on, and how much. A client takes it from its own plan, never from
            the server. `record_clip` (c) and `client_clip` (A) are in units of the gradient: the same number for
            both means that no more than c is ever needed for A.
        loss: ``loss(moves, public, *example)``, the loss of one example as a tensor of no dimensions, where
            `moves` (k,) are what is differentiated, at zero. Through torch functions that `torch.func` knows;
            it draws no random numbers, has no state, and raises for no value of an example.
        public: all tensors that `loss` may use beside the example, such as θ_t and the directions; copied. They
            go into the digest, so whatever is not fixed by the code must be here and nowhere else.
        federation: a name that no other experiment with the same coins has.
        round: the round's number.
        batch: how many examples are computed at once. It is the same for all batches (the last one is filled
            up): a float may change with the size of a batch, and must not change with what else is in it.

    A record's numbers are rounded by themselves to 2^-20; what lies beyond `limit` goes there, and a gradient
    with a NaN or an infinity in it is zero. So no value of an example raises, and r_i follows from example i and
    what is public, to the last bit.

    Raises:
        ConfigError: a record clip beyond `limit`, or a batch that is not positive.
        InvalidParameter: see `MeasuredRound`.

    >>> release = MeasuredRelease(flip=0.25, clip=0.5, client_clip=1.0, record_clip=1.0, records=2,
    ...                           coordinates=16, directions=2)
    >>> def loss(moves, public, x, y):
    ...     return (public["theta"] @ x + moves @ x - y) ** 2 / 2
    >>> asked = MeasuredGradient(release, loss, {"theta": torch.zeros(2)}, federation="docs", round=1)
    >>> x, y = torch.tensor([[0.5, 0.0], [0.0, 1.0]]), torch.tensor([1.0, float("nan")])
    >>> asked.gradients(x, y) / 2**20
    array([[-0.5,  0. ],
           [ 0. ,  0. ]])
    >>> asked.bits(CoinSecret.for_test(bytes(32)), x, y).shape
    (16,)
    """

    release: MeasuredRelease
    loss: Callable[..., Tensor]
    public: Mapping[str, Tensor]
    federation: str
    round: int
    batch: int = 250

    def __post_init__(self) -> None:
        if self.release.record_clip > self.limit:
            raise ConfigError(
                f"record_clip must be at most {self.limit:g} with {self.release.directions} directions, got "
                f"{self.release.record_clip:g}: scale the loss and the clips down by the same number"
            )
        if self.batch < 1:
            raise ConfigError(f"batch must be at least 1, got {self.batch}")
        kept = {name: tensor.detach().clone() for name, tensor in sorted(self.public.items())}
        object.__setattr__(self, "public", MappingProxyType(kept))
        _ = self.asked

    @property
    def limit(self) -> float:
        """The range of one number of a gradient, 2^13 / k and at most 1024: within it all products are exact."""
        return min(_MOST, (_EXACT * _UNITS // self.release.directions) / _UNITS)

    @cached_property
    def asked(self) -> MeasuredRound:
        """The round in the mechanism's own terms: V = 1, m = 0, p_t = 1/2."""
        directions, coordinates = self.release.directions, self.release.coordinates
        seed = hashlib.sha256(_HEADER + b"/embedding\0" + f"{self.round}\0{self.federation}".encode())
        return MeasuredRound(
            self.release,
            Directions.of(np.eye(directions)[None], np.zeros((1, directions)), limit=self.limit),
            HadamardEmbedding(seed.digest(), dimension=coordinates, size=coordinates, directions=directions),
            np.full(coordinates, _HALF, np.int64),
            self.federation,
            self.round,
        )

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over the mechanism's digest and every public tensor: what coins and sessions are bound to."""
        digest = hashlib.sha256(_HEADER + b"\0" + self.asked.digest + self.batch.to_bytes(8, "little"))
        for name, tensor in self.public.items():
            flat = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            for part in (repr((name, str(tensor.dtype), tuple(tensor.shape))).encode(), flat):
                digest.update(len(part).to_bytes(8, "little") + part)
        return digest.digest()

    def gradients(self, *examples: Tensor) -> NDArray[np.int32]:
        """Each example's gradient before any clip, int32 (N, k), units of 2^-20; zero where it is not finite.

        Args:
            examples: the parts of all examples, each (N, ...), such as images and labels.

        Raises:
            ConfigError: no parts, or parts that differ in N.
        """
        if not examples or len({len(part) for part in examples}) != 1:
            raise ConfigError(
                f"examples must be tensors of one length, got {[tuple(part.shape) for part in examples]}"
            )
        count, directions = len(examples[0]), self.release.directions
        found = np.zeros((count, directions), dtype=np.int32)
        moves = torch.zeros(directions)
        each = vmap(grad(self.loss), in_dims=(None, None, *[0] * len(examples)))
        for start in range(0, count, self.batch):
            parts = [part[start : start + self.batch] for part in examples]
            filled = [
                torch.cat([part, part.new_zeros((self.batch - len(part), *part.shape[1:]))]) for part in parts
            ]
            moved = each(moves.to(filled[0].device), dict(self.public), *filled)[: len(parts[0])]
            rows = moved.detach().cpu().double().numpy()
            rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
            found[start : start + self.batch] = quantise_features(rows, self.limit)
        return found

    def bits(self, coins: CoinSecret, *examples: Tensor) -> NDArray[np.uint8]:
        """What one client uploads, 0 or 1, uint8 (m,).

        The same examples give the same bits, so a repeated round releases nothing new; another answer has coins
        of its own, as in `release_mask`.

        Args:
            coins: this client's secret.
            examples: all of its examples, see `gradients`.
        """
        answer = self.asked.answers(self.gradients(*examples), np.zeros(len(examples[0]), np.int64))
        p = self.asked.probabilities(answer)[0]
        seen = hashlib.sha256(self.digest + p.astype("<u4").tobytes()).digest()
        return release_bits(p, coins.stream(self.federation, self.round, seen, "mask"))

    def mean(self, counts: ArrayLike, survivors: int) -> MeasuredMean:
        """The mean of the clients' clipped mean gradients, (k,), and the variance of its noise: `measured_mean`.

        Args:
            counts: the opened sum of the bits, (m,).
            survivors: how many clients it holds.
        """
        return measured_mean(self.asked, counts, survivors)


def principal_directions(inputs: Tensor, count: int, *, whitening: float = 0.8) -> Tensor:
    """Directions (count, D) in which public inputs (N, D) of a layer differ most, for moves of its scores.

    Principal axes of the inputs around zero, each stretched by (largest spread / its own)^whitening, so that
    the clip and the noise do not go to the first few; all scaled so that public inputs have a mean length of 1.
    The inputs must be public (`prism_secure.data.dead_leaves` through the frozen layers below, say): what is
    fitted on clients' data would have to be accounted for.

    Raises:
        ConfigError: the inputs do not span `count` directions.
    """
    wide = inputs.double()
    squares, axes = torch.linalg.eigh(wide.T @ wide)
    spread = squares.flip(0)[:count].clamp(min=0).sqrt()
    if len(spread) < count or not spread[-1] > 1e-6 * spread[0]:
        raise ConfigError(
            f"public inputs {tuple(inputs.shape)} do not span {count} directions: fewer, or more inputs"
        )
    found = axes.flip(1)[:, :count].T * (spread[0] / spread)[:, None] ** whitening
    return (found / (wide @ found.T).norm(dim=1).mean()).to(inputs.dtype)
