"""Epsilon over several runs on the same owners' data: what a sweep costs those whose data it used.

Each run's epsilon speaks of that run alone. Whoever sees all of them learns more, so a page that shows many
shows the composed one beside them.

**Which runs belong together.** Those over the same data set, whatever their partition and seed:
an owner may then be another client in another run, and no run is left out.

**One client.** Rounds of mask releases add up in Rényi divergence (`prism_privacy.Accountant`), over all runs
as over all rounds of one. A summed record-level release opens, and counts for everything that a client has:
it is added with its epsilon and its delta, once for each distinct release.

**One image.** Runs that share a stored release made it once; the random id of it in their ledgers says so.
Distinct releases of the same images are one Gaussian release with the coordinates of all of them: the squares
of their moves, in units of their noise, add up. A run that claims nothing for one image makes it `inf`.

**What kind of statement.** Rounds count as charged, and as planned where an ended run might have gone on: who
looks at results to decide about later rounds keeps the plan's epsilon. Where the *choice* of runs depended on
earlier results (tpe, nsga2), the figure says what was spent, and is no guarantee that was fixed beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prism_privacy import Accountant, Adjacency, MaskRelease, MomentRelease, View
from prism_privacy.discrete_gaussian import SMOOTHING, gaussian_epsilon
from prism_secure.data_sets import data_set
from prism_secure.records import Epsilons
from prism_secure.sweep.results import Run

__all__ = ["Composed", "Owners", "compose", "owners"]


@dataclass(frozen=True)
class Owners:
    """Runs that touched the same owners' data."""

    source: str
    """The data set: see `prism_secure.data_sets`."""
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Composed:
    """What several runs together tell about one client, and about one image.

    Attributes:
        runs: how many have charged anything.
        epsilon: of one client, by view and adjacency.
        delta: of that epsilon.
        record_epsilon: of one image; `inf` if a run claims nothing for it.
        record_delta: of that epsilon.
        record_releases: how many distinct releases of the images there are.
    """

    runs: int
    epsilon: Epsilons
    delta: float
    record_epsilon: float
    record_delta: float
    record_releases: int


def owners(runs: Iterable[Run]) -> list[Owners]:
    """Runs by whose data they used."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(data_set(run.config.data), []).append(run)
    return [Owners(source, tuple(found)) for source, found in groups.items()]


def compose(runs: Sequence[Run]) -> Composed:
    """Epsilon over all runs together, as if each touched the same client and the same image.

    Raises:
        RunFolderError: a ledger is damaged.
    """
    charged = [run for run in runs if run.charged is not None]
    delta = max((run.config.privacy.delta for run in charged), default=0.0)
    zero = Epsilons(sum_zero_out=0.0, sum_replace_one=0.0, upload_zero_out=0.0, upload_replace_one=0.0)
    if not charged:
        return Composed(0, zero, 0.0, 0.0, 0.0, 0)
    epsilon, client_delta = _one_client(charged, delta)
    return Composed(len(charged), epsilon, client_delta, *_one_image(charged, delta))


def _one_client(runs: Sequence[Run], delta: float) -> tuple[Epsilons, float]:
    accountant = Accountant(delta=delta)
    opened: dict[str, list[Run]] = {}
    test_coins = any(run.charged is not None and run.charged.epsilon is None for run in runs)
    for run in runs:
        if _summed(run):
            opened.setdefault(_release_key(run), []).append(run)
        elif run.charged is not None and run.charged_rounds:
            accountant.spend(_masks(run.charged.release), rounds=run.planned_rounds)
    cells = {}
    for view in View:
        for adjacency in Adjacency:
            total = accountant.epsilon(view, adjacency) if accountant.rounds else 0.0
            for sharing in opened.values():
                total += max(getattr(run.planned, f"{view}_{adjacency}") for run in sharing)
            cells[f"{view}_{adjacency}"] = math.inf if test_coins else total
    return Epsilons(**cells), delta * (len(opened) + (accountant.rounds > 0))


def _one_image(runs: Sequence[Run], delta: float) -> tuple[float, float, int]:
    if any(run.record is None for run in runs):
        return math.inf, delta, 0
    distinct = {_release_key(run): run.record for run in runs if run.record is not None}
    if any(math.isinf(found.epsilon) for found in distinct.values()):
        return math.inf, delta, len(distinct)
    squares = sum(_move(_moments(found.release)) ** 2 for found in distinct.values())
    return gaussian_epsilon(1.0 / math.sqrt(squares), delta), delta, len(distinct)


def _move(release: MomentRelease) -> float:
    """How far one image moves a release, in units of its noise, which is a little less than it is for being
    discrete: as `MomentRelease.epsilon` has it."""
    least = min(release.lattice_noise)
    lost = math.sqrt(1.0 - (SMOOTHING / least) ** 2) * (1.0 - 2.0**-50)
    return release.sensitivity / (release.noise * lost)


def _moments(release: Mapping[str, Any]) -> MomentRelease:
    return MomentRelease(**release)


def _masks(release: Mapping[str, Any]) -> MaskRelease:
    return MaskRelease(**release)


def _summed(run: Run) -> bool:
    return run.record is not None and run.config.privacy.record_release == "summed"


def _release_key(run: Run) -> str:
    """Equal for runs of one and the same record-level release: those whose ledgers name it by its random id.
    A ledger that names none has a release of its own."""
    if run.record is None or run.release_id is None:
        return str(run.folder.resolve())
    return repr((run.release_id, sorted(run.record.release.items())))
