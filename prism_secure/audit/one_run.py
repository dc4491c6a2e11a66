"""A lower bound on epsilon from canaries in one run of measured rounds.

Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023. Fair coins decide for
each canary whether it is in. All of them go through one run; an attacker who knows everything but these coins
and those of the clients' bits guesses from the opened sums of all rounds, and how many guesses are right bounds
epsilon from below (`prism_privacy.audit.one_run_bound`): at confidence 95%, whatever the mechanism does.

A canary is one of the unit that is audited, and is in or out as its adjacency says:

    client   all its images are alike, as many as make its answer as long as its clip allows; or it has none
    image    features at the corners of their range; or the opposite ones

The first half of the clients (by id, every second one) are canaries, the others hold nothing but canary images.
So no image of the run's data is read: epsilon holds for any data, and what is written tells of none.

The guess. In the units of probabilities, E^T(counts - n p_t) of all rounds is sum_j x_j s_j + noise, with s_j a
fair coin and x_j known: canary j's direction, V[y]^T(phi - m[y]) shortened to what the clip lets through. The
best linear estimate of s - 1/2 is X (noise + X^T X / 4)^-1 (seen - mean) / 4; its sign is the guess, its size how
sure it is. A better guess would give a better bound; no guess makes the bound wrong.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from prism_privacy import Adjacency, MeasuredRound, View
from prism_privacy.audit import one_run_bound
from prism_privacy.masks.fixed_point import SCALE
from prism_secure.accounting.measured import releases
from prism_secure.audit.played_rounds import Planted, PlayedRounds, Records, Seen
from prism_secure.config import Config
from prism_secure.rounds.workers import one_thread

Unit = Literal["client", "image"]
Array = NDArray[np.float64]

CONFIDENCE = 0.95
SHARES = (1.0, 0.25)
"""Of the canaries, the surest ones are guessed: all, or so many; each bound has its part of the error."""
MOST_IMAGES = 2000
"""Canary images, over all clients: a linear system of that size is solved."""
MOST_COPIES = 4096
"""Images of a canary client."""


class Guessed(msgspec.Struct, frozen=True, kw_only=True):
    """What the guesses about the canaries of one unit show."""

    unit: Unit
    adjacency: str
    canaries: int
    guesses: int
    right: int
    epsilon: float
    """At least so large, with confidence 95% for each unit by itself."""
    claimed: float
    """What the run's ledger says, against who sees the opened sums."""
    delta: float

    @property
    def refuted(self) -> bool:
        """Whether the claim is below what was shown."""
        return self.epsilon > self.claimed


class OneRun(msgspec.Struct, frozen=True, kw_only=True):
    """The audit of one run's settings; nothing in it is about anybody's images."""

    rounds: int
    confidence: float
    seed: int
    found: list[Guessed]


@dataclass(frozen=True)
class Claim:
    """What a run says after some rounds: epsilon of a client left out, and of an image replaced, under SUM."""

    rounds: int
    client: float
    image: float


class Canaries:
    """Who holds which canaries, and which are in.

    Args:
        config: the run's; with measured rounds.
        sizes: images of each client, by the public partition.
        dimension: d, the length of a mask.
        seed: of the coins and the features.
    """

    def __init__(self, config: Config, sizes: Sequence[int], dimension: int, seed: int) -> None:
        clients = config.federation.clients
        plan = releases(config, dimension, sizes)
        # C over what one image moves is how many images alike move the bits by C.
        saturating = max(each.clip / each.record_radius("add_remove") for each in plan)
        holders = clients // 2
        self.copies = min(MOST_COPIES, math.ceil(saturating * 1.01))
        # Random directions add up as a square root: a third of the clip leaves each of them its length.
        fitting = min((each.clip / (3 * each.record_radius("add_remove"))) ** 2 for each in plan)
        most = max(1, MOST_IMAGES // max(holders, 1))
        self.images = max(1, min(plan[0].records, int(fitting), most))
        self._draw = np.random.SeedSequence(seed)
        rng = np.random.default_rng(self._draw)
        self.client_is_in = {index: bool(rng.integers(2)) for index in range(0, clients, 2)}
        self.image_is_in = {
            index: rng.integers(0, 2, self.images).astype(bool) for index in range(1, clients, 2)
        }

    def features(self, index: int, dimension: int, classes: int) -> Records:
        """The canary features of client `index` where all are in: one of a canary client, or its images'."""
        rng = np.random.default_rng([self._draw.entropy, 1, index])  # type: ignore[list-item]
        count = 1 if index in self.client_is_in else self.images
        corners = 2 * rng.integers(0, 2, (count, dimension), dtype=np.int8) - 1
        return corners.astype(np.float32), rng.integers(0, classes, count)

    def given(self, index: int, dimension: int, classes: int) -> Records:
        """What client `index` has by the coins."""
        features, labels = self.features(index, dimension, classes)
        if index in self.client_is_in:
            copies = self.copies if self.client_is_in[index] else 0
            return np.repeat(features, copies, axis=0), np.repeat(labels, copies)
        signs = np.where(self.image_is_in[index], 1, -1).astype(np.float32)
        return features * signs[:, None], labels


def one_run(
    config: Config,
    claim: Claim,
    *,
    seed: int = 0,
    told: Callable[[int], None] = lambda number: None,
) -> OneRun:
    """Audit measured rounds of a configuration with canaries of both units.

    Args:
        config: what a run was made with; its data are asked for their sizes and classes only.
        claim: what that run says, and after how many rounds.
        seed: of canaries, coins and guesses.
        told: called with the number of each round that is done.

    Raises:
        ConfigError, DataError: the configuration cannot be run, or its rounds are not measured.
    """

    def give(index: int) -> Records:
        return canaries.given(index, components.extractor.dimension, classes)

    components = Planted(config, give)
    classes = components.architecture.classes or 1
    with one_thread(config.federation.device), tempfile.TemporaryDirectory() as folder:
        canaries = Canaries(config, components.partition.sizes, components.trainer.dimension, seed)
        rounds = PlayedRounds(components, Path(folder), b"one run %d" % seed)
        evidence = _Evidence(canaries)
        for number in range(1, claim.rounds + 1):
            evidence.add(rounds.next())
            told(number)
    units, truth, scores = evidence.guesses()
    delta, found = config.privacy.delta, []
    for unit, adjacency, claimed in (
        ("client", Adjacency.ZERO_OUT.value, claim.client),
        ("image", "swap", claim.image),
    ):
        mine = units == unit
        if mine.any():
            guesses, right, epsilon = bound(truth[mine], scores[mine], delta, 1 - CONFIDENCE)
            found.append(
                Guessed(
                    unit=unit,
                    adjacency=adjacency,
                    canaries=int(mine.sum()),
                    guesses=guesses,
                    right=right,
                    epsilon=epsilon,
                    claimed=claimed,
                    delta=delta,
                )
            )
    return OneRun(rounds=claim.rounds, confidence=CONFIDENCE, seed=seed, found=found)


def bound(truth: NDArray[np.bool_], scores: Array, delta: float, error: float) -> tuple[int, int, float]:
    """(guesses, right ones, epsilon at least so large but for `error`), of the share that shows most.

    Args:
        truth: which of the canaries are in, bool (M,).
        scores: above 0 for a guess of "in"; the larger in size, the surer.
    """
    surest = np.argsort(-np.abs(scores), kind="stable")
    best = (0, 0, -1.0)
    for share in SHARES:
        chosen = surest[: max(1, round(share * truth.size))]
        right = int(np.count_nonzero((scores[chosen] > 0) == truth[chosen]))
        found = one_run_bound(truth.size, chosen.size, right, delta, error / len(SHARES))
        best = max(best, (chosen.size, right, found), key=lambda each: each[2])
    return best


class _Evidence:
    """What was seen of all rounds, and what each canary would add to it."""

    def __init__(self, canaries: Canaries) -> None:
        self._canaries = canaries
        self._seen: list[Array] = []
        self._moves: list[Array] = []

    def add(self, seen: Seen) -> None:
        asked, honest = seen.asked, set(seen.honest)
        p = asked.public / SCALE
        found = asked.embedding.project(seen.counts - len(honest) * p)
        noise = math.sqrt(len(honest) * float(np.mean(p * (1 - p))))
        moves, middle = [], np.zeros(len(found))
        for index in self._holders:
            move, centre = self._moved(asked, index) if index in honest else (None, None)
            count = 1 if index in self._canaries.client_is_in else self._canaries.images
            moves.append(np.zeros((count, len(found))) if move is None else move)
            middle += 0 if centre is None else centre.sum(axis=0)
        self._seen.append((found - middle) / noise)
        self._moves.append(np.concatenate(moves) / noise)

    @property
    def _holders(self) -> list[int]:
        return [*self._canaries.client_is_in, *self._canaries.image_is_in]

    def _moved(self, asked: MeasuredRound, index: int) -> tuple[Array, Array]:
        """What client `index`'s canaries move the sum by, in less out, and the mean of both, (M_i, k) each."""
        directions, canaries = asked.directions, self._canaries
        features, labels = canaries.features(index, directions.features, directions.classes)
        step = asked.release.record_radius("add_remove")
        if index in canaries.client_is_in:
            whole = _within(_responses(asked, features, labels), min(asked.release.clip, step * canaries.copies))
            return whole, whole / 2
        present, absent = (_within(_responses(asked, sign * features, labels), step) for sign in (1, -1))
        return present - absent, (present + absent) / 2

    def guesses(self) -> tuple[NDArray[np.str_], NDArray[np.bool_], Array]:
        """Unit, truth and score of each canary that was in a sum, (M,) each."""
        moves, seen = np.concatenate(self._moves, axis=1), np.concatenate(self._seen)
        canaries = self._canaries
        truth = np.concatenate(
            [
                np.array(list(canaries.client_is_in.values()), bool),
                *(canaries.image_is_in[index] for index in canaries.image_is_in),
            ]
        )
        units = np.array(["client"] * len(canaries.client_is_in) + ["image"] * (truth.size - len(canaries.client_is_in)))
        # X (1 + X'X/4)^-1 = (1 + XX'/4)^-1 X, and canaries are fewer than numbers seen, or not many more.
        scores = np.linalg.solve(np.eye(truth.size) + moves @ moves.T / 4, moves @ seen)
        heard = np.any(moves != 0, axis=1)
        return units[heard], truth[heard], scores[heard]


def _responses(asked: MeasuredRound, features: NDArray[np.float32], labels: NDArray[np.int64]) -> Array:
    """V[y]' (phi - m[y]) of each record in floats, (N, k): a guess need not be exact."""
    weights, reference = asked.directions.real_weights, asked.directions.real_reference
    found = np.empty((len(labels), asked.directions.directions))
    for label in np.unique(labels):
        rows = labels == label
        found[rows] = (features[rows] - reference[label]) @ weights[label]
    return found


def _within(rows: Array, radius: float) -> Array:
    """Each row made as long as `radius`: corners are far outside any clip that images fit into."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Array = rows * (radius / np.maximum(norms, 1e-300))
    return scaled
