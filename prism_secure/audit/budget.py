"""What many ledgers of one data owner cost together, against that owner's limits.

How releases add up is said in `prism_privacy.ledger.composition`; here, who is charged for which ledgers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from prism_privacy import Adjacency, View
from prism_privacy.ledger.composition import ClientTotal, ImageTotal
from prism_privacy.wording import SUM_NOT_RUN_WORDS
from prism_secure.accounting.signed import why_infinite_as_signed
from prism_secure.audit.budget_file import Limit
from prism_secure.audit.spent_ledgers import SpentLedger
from prism_secure.data.sources import SameData, by_data
from prism_secure.errors import ConfigError

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
    undecided: list[str] = []
    """Ledgers that may be about the same data, and may not; they are not in `ledgers`."""
    epsilon_if_same: float | None = None
    """What was spent if they are; None where there are none."""

    @property
    def over(self) -> bool:
        """Whether more was spent than the limit allows."""
        return self.epsilon > self.limit.epsilon

    @property
    def open(self) -> bool:
        """Whether it depends on the undecided ledgers if more was spent than the limit allows."""
        return not self.over and (self.epsilon_if_same or 0.0) > self.limit.epsilon


@dataclass(frozen=True)
class _Spender:
    data: SameData[SpentLedger]
    clients: str
    ledgers: tuple[SpentLedger, ...]
    notes: tuple[str, ...]


def audit_budget(ledgers: Sequence[SpentLedger], limits: Sequence[Limit]) -> list[Account]:
    """Every limit against everybody it is for.

    Raises:
        ConfigError: a limit names a data set or a client that no ledger is about.
        RunFolderError: a ledger charged something other than a mask release.
    """
    accounts = []
    groups = by_data(ledgers, lambda ledger: ledger.whose, lambda ledger: ledger.name)
    for limit in limits:
        meant = [group for group in groups if limit.data is None or group.is_called(limit.data)]
        spenders = [spender for group in meant for spender in _spenders(group, limit.client)]
        if not spenders:
            known = sorted({group.label for group in groups})
            who = f" client {limit.client} of" if limit.client is not None else ""
            raise ConfigError(
                f"a limit is for{who} {limit.data!r}, and the ledgers are about {', '.join(map(repr, known))}"
            )
        labels = {ledger.name: group.label for group in groups for ledger in group.members}
        accounts += [_account(limit, spender, labels) for spender in spenders]
    return accounts


def _spenders(data: SameData[SpentLedger], only: int | None) -> Iterator[_Spender]:
    """Clients of one data set by the ledgers that charge them; those that spent alike together."""
    about, everyone = data.members, "every client" if only is None else f"client {only}"
    top = max((ledger.clients.stop for ledger in about if ledger.clients is not None), default=0)
    if len({ledger.dealt for ledger in about if ledger.dealt}) > 1:
        note = (
            "these runs deal the same images out differently, so a client of one may be any client of "
            "another: every client is charged for all of them"
        )
        yield _Spender(data, everyone, about, (note,))
        return
    if not top:
        yield _Spender(data, everyone, about, ())
        return
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


def _account(limit: Limit, spender: _Spender, labels: Mapping[str, str]) -> Account:
    notes, data = list(spender.notes), spender.data
    spent = _image_points if limit.unit == "record" else _client_points
    points = spent(limit, spender.ledgers, notes)
    not_run = [ledger.name for ledger in spender.ledgers if ledger.report.sum_not_run]
    if not_run and limit.view != "upload":
        notes.append(f"{', '.join(not_run)}: {SUM_NOT_RUN_WORDS}")
    undecided, if_same = [ledger.name for ledger in data.undecided], None
    if undecided:
        if_same = spent(limit, (*spender.ledgers, *data.undecided), [])[-1].epsilon
        for other in dict.fromkeys(labels[name] for name in undecided):
            one, two = sorted((data.label, other))  # the same words from both sides
            notes.append(
                f"undecided whether {one} and {two} have the same images; [[ledger]] in the budget file says "
                "whose data each ledger is about"
            )
    return Account(
        limit=limit,
        data=data.label,
        clients=spender.clients,
        ledgers=[ledger.name for ledger in spender.ledgers],
        charges=sum(len(ledger.charged.masks) for ledger in spender.ledgers),
        epsilon=points[-1].epsilon,
        spent=points,
        notes=notes,
        undecided=undecided,
        epsilon_if_same=if_same,
    )


def _client_points(limit: Limit, ledgers: Sequence[SpentLedger], notes: list[str]) -> list[Point]:
    """Epsilon for everything that one client contributes, as it grew."""
    assert limit.view is not None
    total = ClientTotal(View(limit.view), Adjacency(limit.adjacency))
    silent = [ledger.name for ledger in ledgers if not ledger.charged.claims]
    if silent:
        claims = "claims" if len(silent) == 1 else "claim"
        notes.append(f"no bound: {', '.join(silent)} {claims} no epsilon (test coins)")
    whole = sum(len(ledger.charged.masks) for ledger in ledgers)
    drawn = set(np.linspace(1, max(whole, 1), min(max(whole, 1), _POINTS)).round().astype(int).tolist())
    points, charges = [Point(0, 0.0)], 0
    for ledger in ledgers:
        charged = ledger.charged
        total.open(charged)
        end = charges + len(charged.masks)
        for release in charged.masks:
            charges += 1
            if charged.opened is None:
                total.spend(release)
            if charges in drawn and charges < end:
                points.append(Point(charges, total.epsilon(limit.delta)))
        total.state(charged)
        if charges in drawn or not charged.masks:
            points.append(Point(charges, total.epsilon(limit.delta)))
    if math.isinf(points[-1].epsilon):
        _say_why(ledgers, limit.view.upper(), [] if silent else total.why(limit.delta), notes)
    return points


def _image_points(limit: Limit, ledgers: Sequence[SpentLedger], notes: list[str]) -> list[Point]:
    """Epsilon for one image, as it grew: with each ledger, and not with its rounds, unless these are measured
    (then the end of them is drawn)."""
    total = ImageTotal(limit.adjacency)
    points, charges = [Point(0, 0.0)], 0
    alike: dict[str, list[str]] = {}
    for ledger in ledgers:
        before = points[-1].epsilon
        told, its = total.add(ledger.charged), f"{ledger.name}: "
        if told is not None and told.startswith(its):
            alike.setdefault(told.removeprefix(its), []).append(ledger.name)
        elif told is not None:
            notes.append(told)
        epsilon = total.epsilon(limit.delta)
        points.append(Point(charges, before if ledger.charged.images else epsilon))
        charges += len(ledger.charged.masks)
        points.append(Point(charges, epsilon))
    notes += [f"{', '.join(names)}: {words}" for words, names in alike.items()]
    if math.isinf(points[-1].epsilon):
        said = any(note.startswith("no bound") for note in notes)
        _say_why(ledgers, "image", [] if said else total.why(limit.delta), notes)
    return points


def _say_why(ledgers: Sequence[SpentLedger], epsilon: str, causes: Sequence[str], notes: list[str]) -> None:
    """Notes beside an epsilon that is inf: what made it so, and what would make each ledger's finite."""
    advised = [
        f"in {ledger.name}, {why}"
        for ledger in ledgers
        if ledger.charged.claims
        for why in why_infinite_as_signed([epsilon], ledger.report, ledger.config)
    ]
    notes.extend(advised or [f"no bound: {cause}" for cause in causes])
