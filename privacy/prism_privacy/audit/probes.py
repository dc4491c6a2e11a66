"""What the auditor asks, and the counts that it keeps of the answers.

At θ = ½ all inputs at the edge of the box have one law: each bit agrees with the sign of its input with the
same probability π = P(bit = 1 | input 1), independently. So most probes are asked there and kept as numbers
of agreements. The others vary θ (where a clip is centred), the inputs between the edges (scores), and put p
halfway between two bfloat16 numbers (precision). Nothing but counts and digests is kept: an audit of long
uploads needs no more memory than one of short ones.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_privacy.audit.black_box import SEED_BITS, Bits, BlackBox, Seeds
from prism_privacy.audit.claim import Claim
from prism_privacy.audit.law import released_probabilities
from prism_privacy.units import Adjacency

__all__ = ["Federation", "Group", "Probes", "Repeated"]

CLIENTS = ROUNDS = 16
REPLAYS = 8
THETAS = (0.2, 0.7)
EDGE_SCORE = 20.0
"""σ(±20) is within 2.1e-9 of the edge, and finite in every float type."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Repeated:
    """One input, many seeds: agreements of each call (N,) and of each coordinate (d,), all out of N·d.

    pair_agreements   bits that are equal in calls 2k and 2k+1, over all pairs
    digests           one digest of each upload
    """

    per_call: Counts
    per_coordinate: Counts
    pair_agreements: int
    digests: tuple[bytes, ...]

    @property
    def total(self) -> int:
        """Agreements in all."""
        return int(self.per_call.sum())


@dataclass(frozen=True)
class Group:
    """Bits that all have the same claimed law: `ones` of `bits`, claimed P(1) = `rate`."""

    theta: float
    value: float
    rate: float
    ones: int
    bits: int


@dataclass(frozen=True)
class Federation:
    """One input for 16 clients in 16 rounds; bits that differ, and agreements summed over the clients.

    across_rounds    bits that differ between rounds 2k and 2k+1 of a client
    across_clients   bits that differ between clients 2k and 2k+1 in a round
    compared         bits compared in each of the two
    counts           shape (rounds·d,): how many clients agree with the input
    """

    across_rounds: int
    across_clients: int
    compared: int
    counts: Counts


class Probes:
    """The questions of one audit. `trials` is the number of calls of a probe."""

    def __init__(
        self, claim: Claim, box: BlackBox, dim: int, trials: int, rng: np.random.Generator, seeds: Seeds
    ) -> None:
        self._claim, self._box, self._dim, self._trials, self._rng, self._seeds = (
            claim,
            box,
            dim,
            trials,
            rng,
            seeds,
        )
        self._half = np.full(dim, 0.5)
        self._signs = rng.integers(0, 2, dim)
        self._asked: list[tuple[int, bytes]] = []

    @staticmethod
    def calls(claim: Claim, trials: int) -> int:
        """How many calls all probes make; fewer where no p lies between two bfloat16 numbers."""
        asked = 3 + (not _public_neighbour(claim)) + (0 if claim.clip is None else 2)
        return asked * trials + CLIENTS * ROUNDS + SEED_BITS + 1 + REPLAYS

    def edge(self, signs: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """The input at the box edge for 0/1 `signs`."""
        if self._claim.input == "bits":
            return np.asarray(signs, dtype=np.int64)
        return self._claim.temperature * EDGE_SCORE * (2.0 * signs - 1.0)

    def agreement(self) -> float:
        """π, claimed, at θ = ½ and the edges."""
        ones = np.ones(self._dim, dtype=np.int64)
        return float(released_probabilities(self._claim, self.edge(ones), self._half)[0])

    def repeated(self) -> Repeated:
        """The same input with fresh seeds."""
        values = self.edge(self._signs)
        per_call = np.empty(self._trials, dtype=np.int64)
        per_coordinate = np.zeros(self._dim, dtype=np.int64)
        digests, pairs, last = [], 0, self._half
        for call in range(self._trials):
            seed = self._seeds.fresh()
            bits = self._box(values, self._half, seed, "one input, many seeds")
            agreeing = bits == self._signs
            per_call[call] = np.count_nonzero(agreeing)
            per_coordinate += agreeing
            digests.append(_digest(bits))
            if call % 2:
                pairs += int(np.count_nonzero(bits == last))
            last = bits
            if call < REPLAYS:
                self._asked.append((seed, digests[-1]))
        return Repeated(per_call, per_coordinate, pairs, tuple(digests))

    def random_signs(self) -> Counts:
        """Agreements of each call, (N,), where each call has fresh random signs: N·d canaries of one run."""
        per_call = np.empty(self._trials, dtype=np.int64)
        for call in range(self._trials):
            signs = self._rng.integers(0, 2, self._dim)
            bits = self._box(self.edge(signs), self._half, self._seeds.fresh(), "random canaries")
            per_call[call] = np.count_nonzero(bits == signs)
        return per_call

    def neighbour(self) -> Counts:
        """Agreements with the signs of `repeated` in the neighbouring world, (N,).

        Without a clip, and for REPLACE_ONE, the neighbour has the opposite input. For ZERO_OUT it sends coins
        of the public p_t = ½, which no 0/1 input has as its law: the auditor tosses them itself.
        """
        if _public_neighbour(self._claim):
            return self._rng.binomial(self._dim, 0.5, self._trials).astype(np.int64)
        values = self.edge(1 - self._signs)
        per_call = np.empty(self._trials, dtype=np.int64)
        for call in range(self._trials):
            bits = self._box(values, self._half, self._seeds.fresh(), "the neighbouring world")
            per_call[call] = np.count_nonzero(bits == self._signs)
        return per_call

    def mixed(self) -> list[Group]:
        """Several θ and several inputs in one upload.

        With bits, ones are as frequent as θ says, so that the moves cancel and the mean of all bits is p_t
        however strong the clip is; with scores, the value v = θ is among the inputs, and is p_t itself.
        """
        theta = np.resize(np.array(THETAS), self._dim)
        if self._claim.input == "bits":
            values: NDArray[Any] = np.zeros(self._dim, dtype=np.int64)
            for public in THETAS:
                places = np.flatnonzero(theta == public)
                values[places[: round(public * places.size)]] = 1
            inputs = values.astype(np.float64)
        else:
            inputs = np.repeat([0.1, 0.2, 0.5, 0.7, 0.9], -(-self._dim // 5))[: self._dim]
            values = self._claim.temperature * np.log(inputs / (1.0 - inputs))
        order = self._rng.permutation(self._dim)
        theta, values, inputs = theta[order], values[order], inputs[order]
        ones = np.zeros(self._dim, dtype=np.int64)
        for _ in range(self._trials):
            ones += self._box(values, theta, self._seeds.fresh(), "mixed inputs and thetas")
        law = released_probabilities(self._claim, values, theta)
        groups = []
        for public in THETAS:
            for value in np.unique(inputs):
                places = np.flatnonzero((theta == public) & (inputs == value))
                if places.size:
                    groups.append(
                        Group(
                            public,
                            float(value),
                            float(law[places[0]]),
                            int(ones[places].sum()),
                            places.size * self._trials,
                        )
                    )
        return groups

    def halfway(self) -> Group | None:
        """All p at the midpoint of two bfloat16 numbers, where rounding moves them farthest; two probes long.

        None where the claimed clip does not bind or no θ in [0.1, 0.9] gives such a p.
        """
        claim, dim = self._claim, self._dim
        if claim.clip is None:
            return None
        ones, best = self.edge(np.ones(dim, dtype=np.int64)), (0.0, 0.0, 0.0)
        for theta, p, gap in self._midpoints():
            law = released_probabilities(claim, ones, np.full(dim, theta))
            if abs(law[0] - p) < 1e-9:  # else the clip does not bind there
                best = max(best, (gap / math.sqrt(p * (1.0 - p)), theta, p))
        _, theta, rate = best
        if rate == 0.0:
            return None
        public, seen = np.full(dim, theta), 0
        for _ in range(2 * self._trials):
            bits = self._box(ones, public, self._seeds.fresh(), "between two bfloat16 numbers")
            seen += int(np.count_nonzero(bits))
        return Group(theta, 1.0, rate, seen, 2 * self._trials * dim)

    def _midpoints(self) -> list[tuple[float, float, float]]:
        """(θ, p, distance to the lattice): p = p_t + step for a midpoint p, θ in [0.1, 0.9]."""
        claim, found = self._claim, []
        assert claim.clip is not None
        step = claim.clip / math.sqrt(self._dim)
        for exponent in range(8):  # [2^-(e+1), 2^-e) holds 128 bfloat16 numbers
            gap = 2.0 ** -(exponent + 9)
            for index in range(128):
                p = 2.0 ** -(exponent + 1) + gap * (2 * index + 1)
                if not claim.flip < p < 1.0 - claim.flip:
                    continue
                if claim.clip_space == "score":
                    odds = (p - claim.flip) / (1.0 - claim.flip - p)
                    theta = 1.0 / (1.0 + math.exp(step) / odds)
                else:
                    theta = (p - step - claim.flip) / claim.width
                if 0.1 <= theta <= 0.9:
                    found.append((theta, p, gap))
        return found

    def federation(self) -> Federation:
        """Rounds in order, client after client, all with the same input."""
        values = self.edge(self._signs)
        across_rounds = across_clients = 0
        counts = np.zeros((ROUNDS, self._dim), dtype=np.int64)
        before: list[Bits] = []
        for client, seeds in enumerate(self._seeds.federation(CLIENTS, ROUNDS)):
            bits = [self._box(values, self._half, seed, "clients and rounds") for seed in seeds]
            across_rounds += sum(_differing(bits[at], bits[at + 1]) for at in range(0, ROUNDS, 2))
            if client % 2:
                across_clients += sum(map(_differing, before, bits))
            before = bits
            counts += np.array(bits) == self._signs
        compared = CLIENTS * ROUNDS // 2 * self._dim
        return Federation(across_rounds, across_clients, compared, counts.reshape(-1))

    def ignored_seed_bits(self) -> list[int]:
        """The bits of the seed that change nothing, 0 (of the round) to 30 (of the run)."""
        values, seed = self.edge(self._signs), self._seeds.fresh()
        uploads = [
            self._box(values, self._half, other, "one bit of the seed")
            for other in [seed, *(seed ^ (1 << bit) for bit in range(SEED_BITS))]
        ]
        return [bit for bit in range(SEED_BITS) if np.array_equal(uploads[0], uploads[bit + 1])]

    def replays_that_differ(self) -> int:
        """How many of the first 8 calls, last one first, have another answer now: 0 for a function."""
        values = self.edge(self._signs)
        return sum(
            _digest(self._box(values, self._half, seed, "replay")) != digest
            for seed, digest in reversed(self._asked)
        )


def _public_neighbour(claim: Claim) -> bool:
    """Does the neighbouring client send coins of the public point?"""
    return claim.clip is not None and claim.adjacency is Adjacency.ZERO_OUT


def _differing(a: Bits, b: Bits) -> int:
    return int(np.count_nonzero(a != b))


def _digest(bits: Bits) -> bytes:
    return hashlib.blake2b(np.packbits(bits).tobytes(), digest_size=16).digest()
