"""Black boxes with one defect each, and honest ones: (input, theta, seed) -> bits.

Every defect is one that was published or is easily made. What a mechanism claims is in `PLANTED`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prism_privacy import CoinSecret, clip_toward, release_bits
from prism_privacy.audit import Claim, Mechanism, make_seed, read_seed

FLIP, CLIP = 0.25, 1.0
Floats = NDArray[np.float64]


def sigmoid(scores: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-scores))


def draw(p: Floats, seed: Any) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(p.size) < p


def public_point(theta: Floats) -> Floats:
    return FLIP + (1.0 - 2.0 * FLIP) * theta


def box(v: Floats) -> Floats:
    return FLIP + (1.0 - 2.0 * FLIP) * v


def clipped(p: Floats, centre: Floats) -> Floats:
    return centre + min(1.0, CLIP / float(np.linalg.norm(p - centre))) * (p - centre)


# Honest: the product's own mechanism, its coins from a secret for each run and client.


def product(*, clip: float | None, scores: bool) -> Mechanism:
    def release(values: NDArray[Any], theta: Floats, seed: int) -> NDArray[np.uint8]:
        v = sigmoid(values) if scores else values.astype(np.float64)
        p = clip_toward(v, theta, flip=FLIP, clip=clip)
        run, client, round_number = read_seed(seed)
        secret = CoinSecret.for_test(make_seed(run, client, 0).to_bytes(32, "big"))
        return release_bits(p, secret.stream("audit", round_number, bytes(32), "mask"))

    return release


def product_score_clip(values: Floats, theta: Floats, seed: int) -> NDArray[np.uint8]:
    p = clip_toward(values, theta, flip=FLIP, clip=CLIP, space="score", temperature=0.1)
    return release_bits(
        p, CoinSecret.for_test(seed.to_bytes(32, "big")).stream("audit", 1, bytes(32), "mask")
    )


# Noise.


def noise_dropped(bits: NDArray[np.int64], theta: Floats, seed: int) -> NDArray[np.int64]:
    return bits


def noise_dropped_from_scores(scores: Floats, theta: Floats, seed: int) -> NDArray[np.bool_]:
    return draw(sigmoid(scores), seed)


def noise_overwritten(scores: Floats, theta: Floats, seed: int) -> NDArray[np.bool_]:
    """As in the published PRISM code: theta gets its noise, then is assigned again from the bare scores."""
    rng = np.random.default_rng(seed)
    mask_probability = sigmoid(scores) + rng.normal(0.0, 0.5, scores.size)
    mask_probability = np.clip(scores, 0.1, 0.9)
    return rng.random(scores.size) < mask_probability


def flips_with(flip: float) -> Mechanism:
    def release(bits: NDArray[np.int64], theta: Floats, seed: int) -> NDArray[np.int64]:
        return bits ^ draw(np.full(bits.size, flip), seed)

    return release


def random_bit_with_probability_f(bits: NDArray[np.int64], theta: Floats, seed: int) -> NDArray[np.int64]:
    """A random bit with probability f, where 2f is meant: flips half as often as claimed."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(bits.size) < FLIP, rng.integers(0, 2, bits.size), bits)


# Coins.


def flips_from(choose: Callable[[int, Floats], Any]) -> Mechanism:
    def release(bits: NDArray[np.int64], theta: Floats, seed: int) -> NDArray[np.int64]:
        return bits ^ draw(np.full(bits.size, FLIP), choose(seed, theta))

    return release


def scrambled_to_16_bits(seed: int, theta: Floats) -> int:
    return int(np.random.default_rng(seed).integers(1 << 16))


def tiled_coins(bits: NDArray[np.int64], theta: Floats, seed: int) -> NDArray[np.int64]:
    """64 coins for all bits of an upload."""
    return bits ^ np.resize(draw(np.full(64, FLIP), seed), bits.size)


def last_bit_bare(bits: NDArray[np.int64], theta: Floats, seed: int) -> NDArray[np.int64]:
    """Off by one: the last coordinate gets no noise."""
    flips = draw(np.full(bits.size, FLIP), seed)
    flips[-1] = False
    return bits ^ flips


# Clip.


def clip_absent(bits: NDArray[np.int64], theta: Floats, seed: int) -> NDArray[np.bool_]:
    return draw(box(bits.astype(np.float64)), seed)


def clip_around_theta(bits: NDArray[np.int64], theta: Floats, seed: int) -> NDArray[np.bool_]:
    return draw(clipped(box(bits.astype(np.float64)), theta), seed)


def clip_around_theta_from_scores(scores: Floats, theta: Floats, seed: int) -> NDArray[np.bool_]:
    return draw(clipped(box(sigmoid(scores)), theta), seed)


def clip_each_coordinate(bits: NDArray[np.int64], theta: Floats, seed: int) -> NDArray[np.bool_]:
    """Every coordinate limited to C/√d: the norm holds, the law is not the claimed one."""
    centre, limit = public_point(theta), CLIP / np.sqrt(theta.size)
    return draw(centre + np.clip(box(bits.astype(np.float64)) - centre, -limit, limit), seed)


def clip_in_bfloat16(bits: NDArray[np.int64], theta: Floats, seed: int) -> NDArray[np.bool_]:
    v = torch.from_numpy(bits).bfloat16()
    centre = FLIP + (1.0 - 2.0 * FLIP) * torch.from_numpy(theta).bfloat16()
    move = FLIP + (1.0 - 2.0 * FLIP) * v - centre
    p = centre + move * torch.clamp(CLIP / move.norm(), max=1.0)
    return draw(p.double().numpy(), seed)


# State.


@dataclass
class ErrorFeedback:
    """What the noise took away is put back in the next call."""

    residual: Floats = field(default_factory=lambda: np.zeros(1))

    def __call__(self, bits: NDArray[np.int64], theta: Floats, seed: int) -> NDArray[np.bool_]:
        wanted = bits + np.resize(self.residual, bits.size)
        out = draw(box(np.clip(wanted, 0.0, 1.0)), seed)
        self.residual = wanted - (out - FLIP) / (1.0 - 2.0 * FLIP)
        return out


@dataclass
class ComplementOfTheLastCoin:
    """Right in every single round, but half of the time a flip is the opposite of the last one there."""

    last: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1, dtype=np.bool_))

    def __call__(self, bits: NDArray[np.int64], theta: Floats, seed: int) -> NDArray[np.int64]:
        rng = np.random.default_rng(seed)
        fresh = rng.random(bits.size) < FLIP
        # After a flip none; otherwise with the probability that keeps the rate at FLIP.
        fed_back = ~np.resize(self.last, bits.size) & (rng.random(bits.size) < FLIP / (1.0 - FLIP))
        flips = np.where(rng.random(bits.size) < 0.5, fresh, fed_back)
        self.last = flips
        return bits ^ flips


@dataclass(frozen=True)
class Case:
    """A mechanism and its claim; `make` gives a new black box.

    trials   calls of one probe that find the defect in at least 95 of 100 seeds (the default is 2048)
    """

    name: str
    claim: Claim
    make: Callable[[], Mechanism]
    trials: int = 128


_BITS = Claim(flip=FLIP)
_CLIPPED = Claim(flip=FLIP, clip=CLIP)
_SCORES = Claim(flip=FLIP, clip=CLIP, input="scores")

HONEST = (
    Case("product, bits, no clip", _BITS, lambda: product(clip=None, scores=False)),
    Case("product, bits, clip", _CLIPPED, lambda: product(clip=CLIP, scores=False)),
    Case(
        "product, scores, no clip", Claim(flip=FLIP, input="scores"), lambda: product(clip=None, scores=True)
    ),
    Case("product, scores, clip", _SCORES, lambda: product(clip=CLIP, scores=True)),
    Case(
        "product, scores, clip in score space",
        Claim(flip=FLIP, clip=CLIP, input="scores", clip_space="score", temperature=0.1),
        lambda: product_score_clip,
    ),
)

PLANTED = (
    Case("noise dropped", _BITS, lambda: noise_dropped),
    Case("noise dropped (scores)", Claim(flip=FLIP, input="scores"), lambda: noise_dropped_from_scores),
    Case(
        "noise overwritten, as published",
        Claim(flip=0.1, input="scores", epsilon=9.8, delta=1e-5),
        lambda: noise_overwritten,
    ),
    Case("flip halved", _BITS, lambda: flips_with(FLIP / 2.0)),
    Case("flip doubled", Claim(flip=0.1), lambda: flips_with(0.2)),
    Case("flip 4% low", _BITS, lambda: flips_with(0.96 * FLIP)),
    Case("flip 4% high", _BITS, lambda: flips_with(1.04 * FLIP)),
    Case("flip 4% low at f=.02", Claim(flip=0.02), lambda: flips_with(0.96 * 0.02), 2048),
    Case("2f/f swapped", _BITS, lambda: random_bit_with_probability_f),
    Case("coins reused across rounds", _BITS, lambda: flips_from(lambda seed, _: seed >> 8)),
    Case("coins reused across clients", _BITS, lambda: flips_from(lambda seed, _: read_seed(seed)[::2])),
    Case("coins of 2^16 streams", _BITS, lambda: flips_from(scrambled_to_16_bits), 2048),
    Case("seed modulo 2^16", _BITS, lambda: flips_from(lambda seed, _: seed % (1 << 16)), 2048),
    Case(
        "coins from public theta",
        _BITS,
        lambda: flips_from(lambda _, theta: int(np.sum(theta * 1e6))),
    ),
    Case("64 coins for an upload", _BITS, lambda: tiled_coins),
    Case("last bit bare", _BITS, lambda: last_bit_bare),
    Case("clip absent", _CLIPPED, lambda: clip_absent),
    Case("clip around theta", _CLIPPED, lambda: clip_around_theta),
    Case("clip around theta (scores)", _SCORES, lambda: clip_around_theta_from_scores),
    Case("clip of each coordinate", _CLIPPED, lambda: clip_each_coordinate),
    Case("clip in bfloat16", _CLIPPED, lambda: clip_in_bfloat16, 1024),
    Case("error feedback", _BITS, ErrorFeedback),
    Case("complement of the last coin", _BITS, ComplementOfTheLastCoin),
)
