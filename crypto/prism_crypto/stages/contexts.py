"""ctx1, as the server computes it: one for all, or one for each client and each two of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from prism_crypto.primitives.context import (
    advert_digest,
    context1,
    pair_context,
    sighting,
    u32,
    view_digest,
)
from prism_crypto.session import Session

__all__ = ["Contexts"]


class Contexts:
    """What the clients' keys and signatures depend on once they have seen adverts.

    On a graph that clients choose nobody sees all adverts. There a client's ctx1 is over those that it saw,
    and what two agree on depends on the adverts of the two.

    Args:
        session: the session.
        adverts: the adverts of all that advertised, in the order of their ids.
        seen: on a chosen graph, for each client the ids of the adverts that it sees, its own too, increasing.
    """

    def __init__(
        self, session: Session, adverts: Mapping[int, bytes], seen: Mapping[int, tuple[int, ...]] | None
    ) -> None:
        self._context0 = session.context0
        self._records = {client_id: u32(client_id) + advert for client_id, advert in adverts.items()}
        self._seen = seen
        self._sightings = {i: sighting(i, advert) for i, advert in adverts.items()} if seen else {}
        self._contexts: dict[int, bytes] = {}

    @cached_property
    def everything(self) -> bytes:
        """The hash of all adverts; nobody needs it on a chosen graph."""
        return advert_digest(self._records.values(), len(self._records))

    @cached_property
    def _one(self) -> bytes:
        return context1(self._context0, self.everything)

    @property
    def common(self) -> bytes:
        """The context of what is sent to all alike; on a chosen graph there is none but ctx0."""
        return self._one if self._seen is None else self._context0

    def of(self, client_id: int) -> bytes:
        """The context of what this client sends and is sent."""
        if self._seen is None:
            return self._one
        if client_id not in self._contexts:
            view = view_digest([self._sightings[i] for i in self._seen[client_id]])
            self._contexts[client_id] = context1(self._context0, view)
        return self._contexts[client_id]

    def view(self, client_id: int) -> bytes:
        """On a chosen graph: the ids and hashes of the adverts that this client has seen, as records."""
        assert self._seen is not None
        return b"".join(self._sightings[i] for i in self._seen[client_id])

    def between(self, first: int, second: int) -> bytes:
        """The context of what two clients agree on."""
        if self._seen is None:
            return self._one
        return pair_context(self._context0, self._sightings[first], self._sightings[second])

    def seen(self, client_id: int) -> bytes:
        """The adverts that this client has seen, its own among them, as records."""
        ids = self._records if self._seen is None else self._seen[client_id]
        return b"".join(self._records[i] for i in ids)
