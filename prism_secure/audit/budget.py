"""What many ledgers of one data owner cost together, against that owner's limits.

Releases are composed, never their epsilons, wherever their curves are known. For **one client**, rounds of
masks add up in Renyi divergence over all ledgers as over the rounds of one; a record-level release that was
opened over all clients is Gaussian noise against all of a client's records, whose curve alpha mu²/2 adds to
the others. For **one record**, releases with Gaussian noise are one release with the coordinates of all: the
squares of their moves, in units of the noise, add up. A stored release that several runs trained from counts
once. Only a release of an unknown kind adds its epsilon and its delta.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from prism_privacy import Adjacency, MaskRelease, MomentRelease, View
from prism_privacy.accountant import guarantee_of
from prism_privacy.discrete_gaussian import gaussian_epsilon
from prism_privacy.errors import InvalidParameter
from prism_privacy.kappa_store import ORDERS
from prism_privacy.renyi import renyi_curve, to_epsilon
from prism_secure.audit.budget_file import Limit
from prism_secure.audit.spent_ledgers import SpentLedger
from prism_secure.data_sets import data_set_named
from prism_secure.errors import ConfigError

_PROVED = 100.0
"""Noise of a summed release is cut off at 24 standard deviations; above this epsilon nothing is claimed."""
_POINTS = 60
"""A curve of spending is computed at so many charges at most."""


class Point(msgspec.Struct, frozen=True):
    """What was spent after so many charges."""

    charges: int
    epsilon: float


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One limit, against the clients of one data set that spent alike."""

    limit: Limit
    data: str
    clients: str
    """Which, in words."""
    ledgers: list[str]
    charges: int
    epsilon: float
    spent: list[Point]
    notes: list[str]

    @property
    def over(self) -> bool:
        """Whether more was spent than the limit allows."""
        return self.epsilon > self.limit.epsilon


@dataclass(frozen=True)
class _Spender:
    data: str
    clients: str
    ledgers: tuple[SpentLedger, ...]
    notes: tuple[str, ...]


def audit_budget(ledgers: Sequence[SpentLedger], limits: Sequence[Limit]) -> list[Account]:
    """Every limit against everybody it is for.

    Raises:
        ConfigError: a limit names a data set or a client that no ledger is about.
        RunFolderError: a ledger charged what is no mask release.
    """
    accounts = []
    for limit in limits:
        asked = None if limit.data is None else data_set_named(limit.data)
        spenders = [spender for spender in _spenders(ledgers, limit.client) if asked in (None, spender.data)]
        if not spenders:
            known = sorted({ledger.data for ledger in ledgers})
            who = f" client {limit.client} of" if limit.client is not None else ""
            raise ConfigError(
                f"a limit is for{who} {limit.data!r}, and the ledgers are about {', '.join(map(repr, known))}"
            )
        accounts += [_account(limit, spender) for spender in spenders]
    return accounts


def _spenders(ledgers: Sequence[SpentLedger], only: int | None) -> Iterator[_Spender]:
    """Clients of one data set by the ledgers that charge them; those that spent alike together."""
    for data in dict.fromkeys(ledger.data for ledger in ledgers):
        about = [ledger for ledger in ledgers if ledger.data == data]
        top = max((ledger.clients.stop for ledger in about if ledger.clients is not None), default=0)
        if len({ledger.dealt for ledger in about if ledger.dealt}) > 1:
            note = (
                "these runs deal the same images out differently, so a client of one may be any client of "
                "another: every client is charged for all of them"
            )
            yield _Spender(data, "every client" if only is None else f"client {only}", tuple(about), (note,))
            continue
        if not top:
            yield _Spender(data, "every client" if only is None else f"client {only}", tuple(about), ())
            continue
        alike: dict[tuple[int, ...], list[int]] = {}
        for client in range(top) if only is None else (only,):
            own = tuple(
                number
                for number, ledger in enumerate(about)
                if ledger.clients is None or client in ledger.clients
            )
            if own:
                alike.setdefault(own, []).append(client)
        for own, clients in alike.items():
            yield _Spender(data, _range(clients), tuple(about[number] for number in own), ())


def _range(clients: Sequence[int]) -> str:
    """Sorted numbers in words: "client 3", "clients 0 to 9", "clients 0, 2, 5"."""
    if len(clients) == 1:
        return f"client {clients[0]}"
    if clients[-1] - clients[0] == len(clients) - 1:
        return f"clients {clients[0]} to {clients[-1]}"
    shown = ", ".join(map(str, clients[:8]))
    return f"clients {shown}{', …' if len(clients) > 8 else ''}"


def _account(limit: Limit, spender: _Spender) -> Account:
    notes = list(spender.notes)
    if limit.unit == "record":
        points = _record_points(limit, spender.ledgers, notes)
    else:
        points = _client_points(limit, spender.ledgers, notes)
    return Account(
        limit=limit,
        data=spender.data,
        clients=spender.clients,
        ledgers=[ledger.name for ledger in spender.ledgers],
        charges=sum(len(ledger.charges) for ledger in spender.ledgers),
        epsilon=points[-1].epsilon,
        spent=points,
        notes=notes,
    )


def _client_points(limit: Limit, ledgers: Sequence[SpentLedger], notes: list[str]) -> list[Point]:
    """Epsilon for everything that one client contributes, as it grew."""
    assert limit.view is not None
    view, adjacency = View(limit.view), Adjacency(limit.adjacency)
    silent = [ledger.name for ledger in ledgers if ledger.claims_nothing]
    if silent:
        notes.append(f"no bound: {', '.join(silent)} claims no epsilon (test coins)")
        return [Point(sum(len(ledger.charges) for ledger in ledgers), math.inf)]
    counts: Counter[MaskRelease] = Counter()
    opened: dict[str, float] = {}
    points = [Point(0, 0.0)]
    total = sum(len(ledger.charges) for ledger in ledgers)
    asked = set(np.linspace(1, max(total, 1), min(max(total, 1), _POINTS)).round().astype(int).tolist())
    charges = 0

    def now() -> Point:
        found = _client_epsilon(counts, opened.values(), limit.delta, view, adjacency)
        return Point(charges, found)

    for ledger in ledgers:
        if ledger.summed:
            if ledger.release_key not in opened:
                opened[ledger.release_key] = _summed_move(ledger, view, adjacency)
            else:
                notes.append(f"{ledger.name} trained from a release that was charged before")
        for release in ledger.charges:
            charges += 1
            if not ledger.summed:  # masks made from opened moments alone cost nothing more
                counts[release] += 1
            if charges in asked:
                points.append(
                    Point(charges, _client_epsilon(counts, opened.values(), limit.delta, view, adjacency))
                )
        if not ledger.charges:
            points.append(
                Point(charges, _client_epsilon(counts, opened.values(), limit.delta, view, adjacency))
            )
    return points


def _client_epsilon(
    counts: Counter[MaskRelease], moves: Iterable[float], delta: float, view: View, adjacency: Adjacency
) -> float:
    squared = sum(move**2 for move in moves)
    if squared == 0.0:
        return guarantee_of(counts, delta, view, adjacency).epsilon
    failing = 0.0
    curve = ORDERS * squared / 2.0
    for release, rounds in counts.items():
        curve = curve + rounds * renyi_curve(release, view, adjacency)
        failing += rounds * release.sum_failure if view is View.SUM else 0.0
    found = to_epsilon(curve, delta - failing)[0]
    if not counts:  # the analytic bound of the Gaussian alone is smaller
        found = min(found, gaussian_epsilon(1.0 / math.sqrt(squared), delta))
    return found if found <= _PROVED else math.inf


def _summed_move(ledger: SpentLedger, view: View, adjacency: Adjacency) -> float:
    """How far all records of one client move an opened release, in units of its noise."""
    record = ledger.record
    assert record is not None
    try:
        release = MomentRelease(**record.release)  # type: ignore[arg-type]
    except (TypeError, InvalidParameter):
        return math.inf
    if adjacency is Adjacency.ZERO_OUT:
        release = replace(release, adjacency="add_remove")
    if ledger.report.records is None or not release.sigma:
        return math.inf
    share = math.sqrt(ledger.noise_shares) if view is View.UPLOAD else 1.0
    multiplier = _multiplier(release)
    return ledger.report.records * share / multiplier if multiplier else math.inf


def _multiplier(release: MomentRelease) -> float:
    """Noise in units of what one record moves, less what discreteness costs."""
    least = min(release.lattice_noise)
    if least <= 3:
        return 0.0
    return release.noise / release.sensitivity * math.sqrt(1.0 - (3.0 / least) ** 2) * (1.0 - 1e-9)


def _record_points(limit: Limit, ledgers: Sequence[SpentLedger], notes: list[str]) -> list[Point]:
    """Epsilon for one record, as it grew: it does not grow with rounds."""
    squared, added, delta, charges = 0.0, 0.0, limit.delta, 0
    alone: float | None = None
    seen: set[str] = set()
    points = [Point(0, 0.0)]
    for ledger in ledgers:
        record = ledger.record
        if record is None:
            notes.append(f"no bound: {ledger.name} has no record-level guarantee")
            return [*points, Point(charges + len(ledger.charges), math.inf)]
        if ledger.release_key in seen:
            notes.append(f"{ledger.name} trained from a release that was charged before")
        else:
            seen.add(ledger.release_key)
            # One says nothing of the other: a release under swap shows how many records there are, exactly.
            if record.adjacency != limit.adjacency:
                notes.append(f"no bound: {ledger.name} speaks of {record.adjacency}, not {limit.adjacency}")
                added = math.inf
            try:
                release = MomentRelease(**record.release)  # type: ignore[arg-type]
                if release.adjacency != record.adjacency:
                    raise InvalidParameter(f"the release speaks of {release.adjacency}")
                squared += 1.0 / _multiplier(release) ** 2 if release.sigma else math.inf
                alone = release.epsilon(limit.delta) if len(seen) == 1 else None
            except (TypeError, InvalidParameter, ZeroDivisionError):
                alone = None
                added += record.epsilon
                delta -= record.delta
                notes.append(f"{ledger.name}: a release of another kind; its epsilon and delta are added")
        gaussian = gaussian_epsilon(1.0 / math.sqrt(squared), delta) if squared and delta > 0 else 0.0
        # What a single release claims itself, to the last digit: a limit may be just that.
        gaussian = gaussian if alone is None else alone
        points.append(Point(charges, added + gaussian if delta > 0 else math.inf))
        charges += len(ledger.charges)
        points.append(Point(charges, points[-1].epsilon))
    return points
