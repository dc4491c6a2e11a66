"""Sessions on graphs that clients choose, small enough to play, and what a server knows at their end."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import reference as wire
import reference_chosen
from forgery import take_apart
from rehearsal import Rehearsal

from prism_crypto.policy import Policy
from prism_crypto.server import SecureSumServer
from prism_crypto.stages.advert import read_advert
from prism_crypto.stages.states import Uploaded

VOUCHER = 16


def chosen_rehearsal(
    n: int = 24, degree: int = 12, threshold: int = 8, colluders: int = 1, lost: int = 6, **how: Any
) -> Rehearsal:
    """A session on a chosen graph with the degree and threshold wanted, whatever cohort that guarantees."""
    session = Rehearsal(range(n), policy=Policy(min_survivors=2), **how)
    session.session = msgspec.structs.replace(
        session.session,
        graph="chosen",
        degree=degree,
        threshold=threshold,
        colluders=colluders,
        min_survivors=n - lost,
        min_cohort=1,
    )
    session.session.check()
    session.clients = {i: session.client(i) for i in session.ids}
    session.server = SecureSumServer(session.session, roster=session.roster, rng=session.server_rng)
    return session


SMALL = {"n": 9, "degree": 6, "threshold": 4, "lost": 3}
"""A session on a chosen graph, so small that an attack takes milliseconds; some clients are no neighbours."""


def rehearsed(mode: str, **how: Any) -> Rehearsal:
    """An active or a semi-honest session on the complete graph, or an active one on a small chosen graph."""
    if mode == "chosen":
        return chosen_rehearsal(**{**SMALL, **how})
    return Rehearsal(mode=mode, **how)


def neighbours(adverts: Mapping[int, bytes], client_id: int) -> list[int]:
    """With whom a client masks, by the adverts of all; on the complete graph none of them names anybody."""
    chosen = {i: reference_chosen.chosen(advert) for i, advert in adverts.items()}
    others = [i for i in adverts if i != client_id]
    return [i for i in others if not chosen[i] or i in chosen[client_id] or client_id in chosen[i]]


def choice(session: Rehearsal, client_id: int) -> tuple[int, ...]:
    """Whom a client has chosen, by its advert."""
    return read_advert(session.clients[client_id]._state.advert, session.session).choice


def saw(adverts: dict[int, bytes]) -> bytes:
    """The ids and hashes of the adverts that a client was shown, as a server shows them to others."""
    return wire.write_records({i: hashlib.sha256(advert).digest() for i, advert in sorted(adverts.items())})


@dataclass
class Observer:
    """All that a server and its colluders have in their hands, worked out by one who sees everything.

    Attributes:
        choices: for each client whom it chose.
        corrupt: the colluders: the server knows all shares that they hold.
        masked: for each honest client that uploaded, with whom it masked.
        seeds, keys: for each client the honest holders who opened a share of its seed, of its mask key.
        stopped: who has stopped in place of an upload; the worst is assumed, that its mask key is open then.
    """

    choices: dict[int, tuple[int, ...]]
    corrupt: frozenset[int]
    threshold: int
    masked: dict[int, frozenset[int]] = field(default_factory=dict)
    seeds: dict[int, set[int]] = field(default_factory=dict)
    keys: dict[int, set[int]] = field(default_factory=dict)
    received: dict[int, frozenset[int]] = field(default_factory=dict)
    stopped: set[int] = field(default_factory=set)

    def uploaded(self, client_id: int, state: Uploaded) -> None:
        self.masked[client_id] = frozenset(state.vouchers)
        self.received[client_id] = frozenset(state.keys)

    def unmasked(self, client_id: int, message: bytes) -> None:
        _, _, (seeds, keys, _, _) = take_apart(message)
        for blob, known in ((seeds, self.seeds), (keys, self.keys)):
            for owner in wire.read_records(blob, 32):
                known.setdefault(owner, set()).add(client_id)

    def _open(self, given: dict[int, set[int]]) -> set[int]:
        """Owners of whose secret t shares are known."""
        return {
            owner
            for owner, chosen in self.choices.items()
            if owner not in self.corrupt
            and len(given.get(owner, set()) | self.corrupt & set(chosen)) >= self.threshold
        }

    @property
    def seeds_open(self) -> set[int]:
        return self._open(self.seeds)

    @property
    def keys_open(self) -> set[int]:
        return self._open(self.keys) | self.stopped

    def sums(self) -> list[frozenset[int]]:
        """The smallest sets of honest clients whose sum the server can compute.

        Uploads of i and j can only be added up together if a mask of the two, unknown to the server, is on
        both; one that is on one of them hides that one for good, as does an unknown self-mask.
        """
        alive = {i for i in self.masked if i not in self.corrupt}
        secret = alive - self.keys_open
        together: dict[int, set[int]] = {i: set() for i in alive}
        hidden = alive - self.seeds_open
        for i in secret:
            for j in self.masked[i] - self.corrupt - self.keys_open:
                if j in alive and i in self.masked[j]:
                    together[i].add(j)
                else:
                    hidden.add(i)
        found, seen = [], set()
        for start in sorted(alive):
            if start in seen:
                continue
            part, queue = {start}, [start]
            while queue:
                for other in together[queue.pop()] - part:
                    part.add(other)
                    queue.append(other)
            seen |= part
            if not part & hidden:
                found.append(frozenset(part))
        return found

    def breaches(self) -> list[frozenset[int]]:
        """Opened sets in which somebody has fewer than t of its own choices among the set and the corrupt."""
        return [
            part
            for part in self.sums()
            if any(len((part | self.corrupt) & set(self.choices[i])) < self.threshold for i in part)
        ]
