"""Measured rounds for any loss that is a sum over examples: bits carry a gradient in few public directions.

Local training moves every score of a mask, so its noise lies in all of them. A measured round asks one thing:
which way do the clients' examples pull k public numbers, at the scores that the server has just sent?

    client   r_i = gradient of example i's loss at zero moves, (k,), as integers; clipped: ||r_i|| <= c
             a   = (1/N) sum r_i, exact; clipped: ||a|| <= A; carried by m secret coins around 1/2
    server   the opened counts give the mean of the clients' a, with noise whose size is known; what follows
             (a step of an optimizer, the next mask) is post-processing

The mechanism, its radii and their proof are those of `prism_privacy.measured` as they are: the gradients are
the features, V is the identity, m is zero. Only what a record's numbers are is new here.

    plan = calibrate_measured([release] * rounds, epsilon=2, ...)       # also what the accountant is told
    asked = MeasuredGradient(plan.releases[t], loss, public, federation="...", round=t)    # every party
    bits = asked.bits(coins, images, labels)                            # a client
    gradient = asked.mean(counts, survivors).value                      # the server, after the secure sum

Per-example gradients in directions that public data give are those of GEP (Yu, Zhang, Chen, Liu, "Do not
let privacy overbill utility: gradient embedding perturbation for private learning", ICLR 2021); here the
coins of the bits are all the noise there is.
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
        release: what the bits may depend on, and how much; c and A are in units of the gradient. A client
            takes it from its own plan, never from the server.
        loss: ``loss(moves, public, *example)``: one example's loss, a tensor of no dimensions. `moves` (k,),
            float32, is zero and is what it is differentiated by; `public` is as below. Made of what
            `torch.func` can differentiate; draws no random numbers, keeps no state, raises for no value of
            an example.
        public: all that the loss looks at beside the example and is not fixed by the code, such as the mask
            of the round and the directions, one tensor a name; copied. It enters the digest.
        federation: a name that no other experiment on the same coins has.
        round: the round's number.
        batch: how many examples are computed at once: in every batch so many, the last one filled up, as a
            float may change with the size of its batch.

    What a record becomes follows from it and from public values alone, to the last bit, while it stays in its
    place: the guarantee is for a swap ("swap" in `MeasuredRelease.record_radius`), the number of records is
    public. Its numbers are rounded to 2^-20, beyond `limit` they are the limit, and a gradient that holds a
    NaN or an infinity is zero; so nothing raises.

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
        """The range of one number of a gradient: 2^13 / k, at most 1024, so that all products are exact."""
        return min(float(_MOST), (_EXACT * _UNITS // self.release.directions) / _UNITS)

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
        """SHA-256 over the mechanism's digest and all of `public`: for coins and the secure sum's session."""
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
            parts = [part[start : start + self.batch].detach() for part in examples]
            filled = [
                torch.cat([part, part.new_zeros((self.batch - len(part), *part.shape[1:]))]) for part in parts
            ]
            moved = each(moves.to(filled[0].device), dict(self.public), *filled)[: len(parts[0])]
            rows = moved.cpu().double().numpy()
            rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
            found[start : start + self.batch] = quantise_features(rows, self.limit)
        return found

    def bits(self, coins: CoinSecret, *examples: Tensor) -> NDArray[np.uint8]:
        """What one client uploads, 0 or 1, uint8 (m,).

        The same examples give the same bits, so that a repeated round releases nothing new; another answer
        has coins of its own, as in `release_mask`.

        Args:
            coins: this client's secret.
            examples: all of its examples, see `gradients`.
        """
        answer = self.asked.answers(self.gradients(*examples), np.zeros(len(examples[0]), np.int64))
        p = self.asked.probabilities(answer)[0]
        seen = hashlib.sha256(self.digest + p.astype("<u4").tobytes()).digest()
        return release_bits(p, coins.stream(self.federation, self.round, seen, "mask"))

    def mean(self, counts: ArrayLike, survivors: int) -> MeasuredMean:
        """The mean of the clients' clipped answers, float64 (k,), and the variance of its noise.

        Args:
            counts: the opened sum of the bits, (m,).
            survivors: how many clients it holds.
        """
        return measured_mean(self.asked, counts, survivors)


def principal_directions(inputs: Tensor, count: int, *, whitening: float = 0.8) -> Tensor:
    """Directions (count, D) in which public inputs (N, D) of a layer differ most, for moves of its scores.

    Principal axes of the inputs around zero, each stretched by (largest spread / its own)^whitening, so that
    clip and noise are not all about the first few; scaled together so that public inputs have a mean length
    of 1 in them. The inputs must be public (`dead_leaves` through the frozen layers below, say): what is
    fitted on clients' data would have to be accounted for.

    Raises:
        ConfigError: the inputs do not span `count` directions.
    """
    wide = inputs.double()
    few = len(wide) < wide.shape[1]  # the smaller of the two products has the same spreads
    squares, axes = torch.linalg.eigh(wide @ wide.T if few else wide.T @ wide)
    spread, axes = squares.flip(0)[:count].clamp(min=0).sqrt(), axes.flip(1)[:, :count]
    if len(spread) < count or not spread[-1] > 1e-6 * spread[0]:
        raise ConfigError(
            f"public inputs {tuple(inputs.shape)} do not span {count} directions: fewer, or more inputs"
        )
    if few:
        axes = wide.T @ axes / spread
    found = axes.T * (spread[0] / spread)[:, None] ** whitening
    scaled: Tensor = found / (wide @ found.T).norm(dim=1).mean()
    return scaled.to(inputs.dtype)
