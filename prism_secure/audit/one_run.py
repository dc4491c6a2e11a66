"""A lower bound on epsilon from canaries in one run of measured rounds.

Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023. Fair coins decide for
each canary whether it is in. All of them go through one run. An attacker who knows everything but these coins
and those of the clients' bits guesses from the opened sums of all rounds. How many guesses are right bounds
epsilon from below (`prism_privacy.audit.one_run_bound`), at confidence 95%, whatever the mechanism does.

A canary is one of the unit that is audited, and is in or out as its adjacency says:

    client   images that are all alike, more than its clips let through; or none
    image    features at the corners of their range, far along what round 1 asks; or the opposite ones
    person   in place of an image where that is what a record is: several such images, all alike

Every second client is a canary, the others hold nothing but canary images. So no image of the run's data is
read: epsilon must hold for any data, and what is written tells of none. Of a canary client each image is
another person's, or one person's clip would shorten all that it has.

The guess. In units of probabilities, E'(counts - n p_t) of all rounds is X s + noise with fair coins s, and
column j of X is what the clients' own code makes of canary j alone. The best linear estimate of s - 1/2 is
(noise + X'X/4)^-1 X' (seen - mean) up to a factor: its sign is the guess, its size how sure it is. A better
guess would give a better bound; no guess makes the bound wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prism_privacy import (
    Adjacency,
    LedgerError,
    MeasuredRelease,
    MeasuredRound,
    RowDirections,
    View,
    quantise_features,
)
from prism_privacy.audit import one_run_bound
from prism_privacy.masks.fixed_point import SCALE
from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import Unchecked
from prism_secure.audit.played_rounds import Planted, PlayedRounds, Records, Seen, scratch
from prism_secure.config import Config
from prism_secure.errors import ConfigError
from prism_secure.rounds.threads import one_thread
from prism_secure.run_folder.one_run_record import CONFIDENCE, Guessed, OneRun, write_one_run

Array = NDArray[np.float64]

SHARES = (1.0, 0.5)
"""Of the canaries, the surest ones are guessed: all, or so many; each bound has its part of the error."""
IMAGES = 500
"""Canary images, over all clients that hold them."""
MOST_COPIES = 4096
"""Images of a canary client."""
OVERSHOOT = 16
"""How many times more than the client's clip lets through its images are: a missing clip must show. As many
images does a canary person have."""
_CELLS = 1 << 21
"""Probabilities of canary clients at a time: 16 MiB in binary64."""


@dataclass(frozen=True)
class Claim:
    """What a run says after its rounds: epsilon of a client left out, and of a record replaced, under SUM."""

    rounds: int
    client: float
    image: float


class Canaries:
    """Who holds which canaries, and which are in.

    Args:
        plan: what each round releases.
        clients: how many there are.
        asked: the directions of round 1, which is public before anybody has answered.
        images: how many canary images, or persons, there are, about; fewer where so many do not fit into
            clients' clips.
        seed: of the coins and the features.
        persons: whether a record is a person, and not an image.
    """

    def __init__(
        self,
        plan: Sequence[MeasuredRelease],
        clients: int,
        asked: RowDirections,
        images: int,
        seed: int,
        *,
        persons: bool = False,
    ) -> None:
        self.alike = OVERSHOOT if persons else 1
        # C over what one image moves is how many images alike move the bits by C.
        saturating = max(each.clip / each.record_radius("add_remove") for each in plan)
        self.copies = min(MOST_COPIES, math.ceil(OVERSHOOT * saturating))
        # Random directions add up as a square root: a third of the clip leaves each of them its length.
        fitting = min((each.clip / (3 * each.record_radius("add_remove"))) ** 2 for each in plan)
        self.images = max(1, min(plan[0].records, int(fitting), images // (clients // 2)))
        self._seed, self._asked = seed, asked
        self._features: dict[int, Records] = {}
        rng = np.random.default_rng([seed, 0])
        self.client_is_in = {index: bool(rng.integers(2)) for index in range(0, clients, 2)}
        self.image_is_in = {
            index: rng.integers(0, 2, self.images).astype(bool) for index in range(1, clients, 2)
        }

    def features(self, index: int) -> Records:
        """The canary features of client `index` where all are in: of one image of a canary client, or of one
        of each canary image or person."""
        if index not in self._features:  # each round asks for them, and they take 30 ms
            rng = np.random.default_rng([self._seed, 1 + index])
            classes, k = self._asked.classes, self._asked.directions
            count = 1 if index in self.client_is_in else self.images
            labels = rng.integers(0, classes, count)
            along = rng.standard_normal((count, k))
            rows = (along * self._asked.by_class[labels]) @ self._basis
            self._features[index] = np.where(rows < 0, np.float32(-1), np.float32(1)), labels
        return self._features[index]

    @cached_property
    def _basis(self) -> Array:
        """What each direction of round 1 asks along, (k, D)."""
        return self._asked.basis[self._asked.rows].astype(np.float64)

    def counts(self) -> Iterator[tuple[int, int]]:
        """How many canaries each client holds: the canary clients first."""
        yield from ((index, 1) for index in self.client_is_in)
        yield from ((index, self.images) for index in self.image_is_in)

    def given(self, index: int) -> Records:
        """What client `index` has by the coins."""
        features, labels = self.features(index)
        if index in self.client_is_in:
            copies = self.copies if self.client_is_in[index] else 0
            return np.repeat(features, copies, axis=0), np.repeat(labels, copies)
        signs = np.where(self.image_is_in[index], np.float32(1), np.float32(-1))
        return np.repeat(features * signs[:, None], self.alike, axis=0), np.repeat(labels, self.alike)

    def whose(self, index: int) -> NDArray[np.int64]:
        """Whose each image of client `index` is where a record is a person."""
        if index in self.client_is_in:
            return np.arange(self.copies if self.client_is_in[index] else 0)
        return np.repeat(np.arange(self.images), self.alike)


def one_run(
    config: Config,
    claim: Claim,
    *,
    images: int = IMAGES,
    seed: int = 0,
    told: Callable[[int, int], None] = lambda number, rounds: None,
) -> OneRun:
    """Audit measured rounds of a configuration with canaries of both units.

    Args:
        config: what a run was made with; its data are asked for their sizes and classes only.
        claim: what that run says, and after how many rounds.
        images: about how many canary images, or persons.
        seed: of canaries, coins and guesses.
        told: called with how many rounds are done, 0 at first, and how many there are.

    Raises:
        ConfigError, DataError: the configuration cannot be run, or its rounds are not measured.
    """
    told(0, claim.rounds)
    persons = config.data.person is not None
    components = Planted(
        config,
        lambda index: canaries.given(index),
        (lambda index: canaries.whose(index)) if persons else None,
    )
    with one_thread(config.federation.device), scratch() as folder:
        rounds = PlayedRounds(components, Path(folder), b"one run %d" % seed)
        plan, clients = components.plan.measured, config.federation.clients
        first = rounds.checked_round().directions
        assert isinstance(first, RowDirections)
        canaries = Canaries(plan, clients, first, images, seed, persons=persons)
        evidence = _Evidence(canaries)
        for number in range(1, claim.rounds + 1):
            evidence.add(rounds.next())
            told(number, claim.rounds)
    units, truth, scores = evidence.guesses()
    delta, found = config.privacy.delta, []
    units_of_canaries: tuple[tuple[Literal["client", "record"], str, float], ...] = (
        ("client", Adjacency.ZERO_OUT.value, claim.client),
        ("record", "swap", claim.image),
    )
    for unit, adjacency, claimed in units_of_canaries:
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
                )
            )
    return OneRun(rounds=claim.rounds, delta=delta, seed=seed, found=found)


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
        moves = {
            index: np.zeros((count, asked.release.directions)) for index, count in self._canaries.counts()
        }
        for index, present, absent in self._moved(asked, honest):
            found = found - (present + absent).sum(axis=0) / 2
            moves[index] = (present - absent) / noise
        self._seen.append(found / noise)
        self._moves.append(np.concatenate(list(moves.values())))

    def _moved(self, asked: MeasuredRound, honest: Set[int]) -> Iterator[tuple[int, Array, Array]]:
        """What each canary of a client adds to the sum along E: whose, in, and out, (M_i, k) each."""
        canaries = self._canaries
        whole = [index for index in canaries.client_is_in if index in honest]
        step = max(1, _CELLS // asked.release.coordinates)
        for start in range(0, len(whole), step):  # of many clients E is widened once; the bits are the same
            some = whole[start : start + step]
            answers = np.concatenate([self._answer(asked, index) for index in some])
            # As far as the box lets it.
            moved = asked.probabilities(answers) - asked.public.astype(np.float64)
            for index, inside in zip(some, asked.embedding.project(moved / SCALE), strict=True):
                yield index, inside[None], np.zeros((1, len(inside)))
        gain = asked.release.move_gain * math.sqrt(asked.release.coordinates) / SCALE
        for index in canaries.image_is_in:
            if index in honest:
                features, labels = canaries.features(index)
                whose = canaries.whose(index)
                both = (
                    asked.answers(rows[whose], labels[whose], whose, len(labels), whose)
                    for rows in (quantise_features(np.float32(sign) * features) for sign in (1, -1))
                )
                present, absent = (answers.astype(np.float64) * gain for answers in both)
                yield index, present, absent

    def _answer(self, asked: MeasuredRound, index: int) -> NDArray[np.int64]:
        """Of a canary client that is in, (1, k)."""
        features, labels = self._canaries.features(index)
        copies = quantise_features(np.repeat(features, self._canaries.copies, axis=0))
        return asked.answers(copies, np.repeat(labels, self._canaries.copies))

    def guesses(self) -> tuple[NDArray[np.str_], NDArray[np.bool_], Array]:
        """Unit, truth and score of each canary that was in a sum, (M,) each."""
        moves, seen = np.concatenate(self._moves, axis=1), np.concatenate(self._seen)
        canaries = self._canaries
        clients = np.array(list(canaries.client_is_in.values()), bool)
        truth = np.concatenate([clients, *canaries.image_is_in.values()])
        units = np.array(["client"] * clients.size + ["record"] * (truth.size - clients.size))
        # Rows are canaries here; canaries are fewer than the numbers that were seen, or not many more.
        scores = np.linalg.solve(np.eye(truth.size) + moves @ moves.T / 4, moves @ seen).astype(np.float64)
        heard = np.any(moves != 0, axis=1)
        return units[heard], truth[heard], scores[heard]


def audit_one_run(
    folder: Path,
    *,
    images: int = IMAGES,
    seed: int = 0,
    told: Callable[[int, int], None] = lambda number, rounds: None,
) -> OneRun:
    """Audit the settings of a run folder, and keep what was found in it, for the run's report.

    Args:
        folder: a run folder with a ledger, finished or not, whose data are where they were.
        images: about how many canary images, or persons.
        seed: of canaries, coins and guesses.
        told: called with how many rounds are done, 0 at first, and how many there are.

    Raises:
        ConfigError, DataError: there is nothing to compare with, or the configuration cannot be run here.
        StorageError: the disk refused.
    """
    try:
        config, claim = _claim(Evidence(folder))
    except Unchecked as reason:
        raise ConfigError(f"{folder} cannot be audited: {reason}") from None
    found = one_run(config, claim, images=images, seed=seed, told=told)
    write_one_run(folder, found)
    return found


def _claim(evidence: Evidence) -> tuple[Config, Claim]:
    config = evidence.config_here
    if not config.measures:
        raise Unchecked(
            'its rounds are not measured (federation.behaviour = "measure"); `prism-secure audit mechanism` '
            "and `audit run` are for others"
        )
    if isinstance(evidence.ledger, LedgerError):
        raise Unchecked(f"its ledger does not verify: {evidence.ledger}")
    evidence.need_charges()
    last = evidence.charges[-1]
    if last.record is None or last.record.spent is None or last.coins == "test":
        raise Unchecked("its ledger claims no epsilon of a client and of an image, so none can be refuted")
    return config, Claim(
        rounds=min(len(evidence.charges), config.federation.rounds),
        client=last.spent(View.SUM, Adjacency.ZERO_OUT).to_date,
        image=last.record.spent[View.SUM].to_date,
    )
