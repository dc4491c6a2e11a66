"""What one client brings into a session, and what it knows of each neighbour after the adverts."""

from __future__ import annotations

from dataclasses import dataclass

from prism_crypto.errors import IdentityError, ThresholdError
from prism_crypto.keeping.identity import Identity, Roster
from prism_crypto.primitives.keys import AgreedKey
from prism_crypto.primitives.randomness import Rng
from prism_crypto.primitives.secret import Confidential
from prism_crypto.session import Session
from prism_crypto.stage import Mode, Stage

__all__ = ["Neighbour", "Party"]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Party(Confidential):
    """One client in one session: constant throughout."""

    client_id: int
    session: Session
    identity: Identity | None
    roster: Roster | None
    rng: Rng

    @property
    def active(self) -> bool:
        """Whether messages are signed and survivors confirmed."""
        return self.session.mode is Mode.ACTIVE

    @property
    def sparse(self) -> bool:
        """Whether this client sees its neighbours only."""
        return self.session.graph != "complete"

    @property
    def chosen(self) -> bool:
        """Whether clients chose their neighbours."""
        return self.session.graph == "chosen"

    def signer(self) -> Identity:
        """The key that signs for this client.

        Raises:
            IdentityError: it has none; a client of an active session is not made without.
        """
        if self.identity is None:
            raise IdentityError("no identity to sign with", peer=self.client_id)
        return self.identity

    def check_quorum(self, total: int, known: int, stage: Stage, what: str) -> None:
        """Go on only with enough clients.

        Args:
            total: how many clients remain.
            known: how many of them hold shares of its secrets: all, if the graph is complete; itself and its
                neighbours, or those that it chose, if sparse.
            stage: where we are.
            what: how to call them in the error.

        Raises:
            ThresholdError: too few; nobody is named: this client reports what the server says.
        """
        session = self.session
        if total < session.quorum:
            raise ThresholdError(
                f"{total} clients {what}, this session needs {session.quorum} "
                f"(threshold {session.threshold}, min_survivors {session.min_survivors})",
                stage=stage,
            )
        if known < session.threshold:
            raise ThresholdError(
                f"{known} of the holders of its shares {what}, the threshold is {session.threshold}",
                stage=stage,
            )


@dataclass(slots=True, repr=False, eq=False)
class Neighbour(Confidential):
    """A client with whom this one exchanges a mask, and shares.

    ``agreed`` and ``masking`` come of the keys for sealing and for masks. ``owner`` proves that it knows the
    private half of its sealing key. ``context`` is ctx1, on a chosen graph
    that of the two. ``holder`` says whether the neighbour gets shares of this client's secrets, ``dealer``
    whether this one gets the neighbour's: both, unless clients choose.
    """

    sealing_key: bytes
    owner: bytes
    mask_key: bytes
    agreed: AgreedKey
    masking: AgreedKey
    context: bytes
    holder: bool = True
    dealer: bool = True
