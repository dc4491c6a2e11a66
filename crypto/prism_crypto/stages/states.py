"""The client's states, in order: what it holds before each stage, and nothing else.

A stage takes one state and gives the next, so a stage out of order cannot be written down. Each state can
overwrite the secrets that it still holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from prism_crypto.primitives.keys import AgreedKey, KeyPair, SealingKeyPair
from prism_crypto.primitives.secret import Confidential, Secret
from prism_crypto.stages.party import Neighbour, Party

__all__ = [
    "Advertised",
    "Confirmed",
    "Finished",
    "Ready",
    "Shared",
    "Stopped",
    "Unopened",
    "Uploaded",
    "Vouched",
    "Vouchers",
]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Ready(Confidential):
    """A client that has not said anything yet."""

    party: Party

    def erase(self) -> None:
        """Nothing to erase yet."""


@dataclass(slots=True, repr=False, eq=False)
class Advertised(Confidential):
    """A client whose advert has left. ``dealing`` is what its sharing polynomials are made of."""

    party: Party
    sealing: SealingKeyPair
    masking: KeyPair
    seed: Secret
    dealing: Secret
    advert: bytes
    choice: tuple[int, ...]

    def erase(self) -> None:
        """Overwrite all secrets."""
        self.sealing.erase()
        self.masking.erase()
        self.seed.erase()
        self.dealing.erase()


@dataclass(slots=True, repr=False, eq=False)
class Shared(Confidential):
    """A client that has shared its secrets."""

    party: Party
    context: bytes
    sealing: SealingKeyPair
    masking: KeyPair
    seed: Secret
    own: AgreedKey | None
    neighbours: dict[int, Neighbour]

    def erase(self) -> None:
        """Overwrite all secrets."""
        self.sealing.erase()
        self.masking.erase()
        self.seed.erase()
        if self.own is not None:
            self.own.erase()
        for neighbour in self.neighbours.values():
            neighbour.agreed.erase()
            neighbour.masking.erase()


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Unopened(Confidential):
    """What came instead of a client's shares, its key, and the proof of what was agreed on with it."""

    sealed: bytes
    sealing_key: bytes
    proof: Secret


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Vouchers(Confidential):
    """On a chosen graph: what a client says to a neighbour, and what it will take from it.

    ``…_upload``: the sender's upload carries the common mask. ``…_count``: the sender counts the other one as
    a survivor. ``holder``: whether the neighbour holds shares of this client's secrets. ``sealing_key``,
    ``owner`` and ``context`` are those of the neighbour, in case that its voucher is false.
    """

    our_upload: bytes
    their_upload: bytes
    our_count: bytes
    their_count: bytes
    holder: bool
    sealing_key: bytes
    owner: bytes
    context: bytes


@dataclass(slots=True, repr=False, eq=False)
class Uploaded(Confidential):
    """A client whose vector has left: it holds no more than the keys to shares, 64 bytes for each dealer.

    ``sharers`` is U2, as far as this client knows it: itself and its neighbours in a sparse graph.
    ``received`` are the records of sealed shares that it was sent. On a chosen graph ``vouchers``, by
    neighbour, and ``sealing``, the key that shows whose are false, until that is seen and shown.
    """

    party: Party
    context: bytes
    sharers: tuple[int, ...]
    received: bytes
    keys: dict[int, Secret]
    unopened: dict[int, Unopened]
    vouchers: dict[int, Vouchers] = field(default_factory=dict)
    sealing: KeyPair | None = None

    def erase(self) -> None:
        """Overwrite all keys."""
        self.forget_sealing()
        for pair in self.keys.values():
            pair.erase()
        for unopened in self.unopened.values():
            unopened.proof.erase()

    def forget_sealing(self) -> None:
        """Overwrite the sealing key, which nothing is left to be shown with."""
        if self.sealing is not None:
            self.sealing.erase()
            self.sealing = None


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Stopped(Confidential):
    """A client that has not uploaded, and has said why."""

    reason: str

    def erase(self) -> None:
        """Nothing is left to erase."""


@dataclass(slots=True, repr=False, eq=False)
class Confirmed(Confidential):
    """A client that has signed its one survivor set."""

    uploaded: Uploaded
    survivors: tuple[int, ...]
    body: bytes
    signature: bytes

    def erase(self) -> None:
        """Overwrite all shares."""
        self.uploaded.erase()


@dataclass(slots=True, repr=False, eq=False)
class Vouched(Confidential):
    """A client on a chosen graph that knows whom it counts as a survivor, for good.

    ``survivors``: neighbours whose uploads carry the common mask. ``doubted``: those that were said to have
    survived, without that, and the false vouchers that came.
    """

    uploaded: Uploaded
    survivors: frozenset[int]
    doubted: dict[int, bytes]

    def erase(self) -> None:
        """Overwrite all shares."""
        self.uploaded.erase()


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Finished:
    """A client that has given its shares: it holds no secret any more."""

    party: Party
    context: bytes
    survivors: frozenset[int]

    def __repr__(self) -> str:
        return "<Finished>"

    def erase(self) -> None:
        """Nothing is left to erase."""
