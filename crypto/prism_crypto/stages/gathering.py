"""What the server's five stages have in common: whom it listens to, and when it goes on."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from prism_crypto.blame import Blame
from prism_crypto.errors import EvidenceError, MessageError, OutOfOrder, SecureSumError, ThresholdError
from prism_crypto.keeping.identity import Roster, pinned
from prism_crypto.primitives.agreement_proof import check_key_signature
from prism_crypto.primitives.graph import harary, uniform_permutation
from prism_crypto.primitives.randomness import Rng
from prism_crypto.primitives.secret import Confidential
from prism_crypto.session import Session
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.evidence import Evidence, encode_evidence, verify_evidence

__all__ = ["Gathering", "Hall", "Topology"]

_ENTRIES = (Stage.ADVERTISE, Stage.SHARE, Stage.UPLOAD)
"""The stages that a client passes on its way into the sum."""


class Topology:
    """Who masks with whom in one session.

    In a Harary graph the clients' order on the ring is drawn here, that is after the invited set is fixed.
    Where clients choose, their choices come with the adverts: see `settle`.

    Attributes:
        ids: all invited clients, increasing.
    """

    def __init__(self, session: Session, rng: Rng) -> None:
        self.ids: tuple[int, ...] = session.invited.ids or ()
        self._sparse: Mapping[int, tuple[int, ...]] | None = None
        if session.graph == "harary":
            ring = harary(len(self.ids), session.degree, uniform_permutation(len(self.ids), rng))
            self._sparse = {self.ids[i]: tuple(self.ids[j] for j in row) for i, row in enumerate(ring)}
        self._choices: Mapping[int, tuple[int, ...]] | None = None
        self._choosers: Mapping[int, tuple[int, ...]] | None = None

    def settle(self, choices: Mapping[int, tuple[int, ...]]) -> None:
        """Take the clients' choices, by increasing id: two are neighbours if either chose the other."""
        choosers: dict[int, list[int]] = {client_id: [] for client_id in choices}
        for client_id, choice in choices.items():
            for holder in choice:
                if holder in choosers:
                    choosers[holder].append(client_id)
        self._choices = choices
        self._choosers = {client_id: tuple(row) for client_id, row in choosers.items()}
        self._sparse = {i: tuple(sorted({*choices[i], *choosers[i]})) for i in choices}

    def neighbours(self, client_id: int, among: Container[int]) -> tuple[int, ...]:
        """The client's neighbours among some clients, increasing."""
        row = self.ids if self._sparse is None else self._sparse[client_id]
        return tuple(i for i in row if i != client_id and i in among)

    def holders(self, client_id: int, among: Container[int]) -> list[int]:
        """Those among some clients to whom it deals shares, increasing: itself too, unless clients choose."""
        if self._choices is None:
            return sorted((client_id, *self.neighbours(client_id, among)))
        return [i for i in self._choices[client_id] if i in among]

    def dealers(self, client_id: int, among: Container[int]) -> list[int]:
        """Those among some clients that deal shares to it, increasing."""
        if self._choosers is None:
            return sorted((client_id, *self.neighbours(client_id, among)))
        return [i for i in self._choosers[client_id] if i in among]


@dataclass(frozen=True, slots=True)
class Hall:
    """What the server knows before the first message, constant throughout; and whom it can convict."""

    session: Session
    roster: Roster | None
    topology: Topology
    rng: Rng
    blamed: dict[int, Blame] = field(default_factory=dict)
    unproved: dict[int, str] = field(default_factory=dict)
    """Whose misbehaviour the server has seen and can't prove to others, and why."""
    undecided: dict[int, list[int]] = field(default_factory=dict)
    """Who says of whom, without being able to show it, that it encapsulated something else than it signed."""

    def accuse(self, evidence: Evidence) -> None:
        """Record what proves that a client broke the protocol, if it does: anybody must come to the same.

        What does not prove it, above all evidence that is too long, blames nobody and ends nothing: whether
        the sum opens is for the stages to say. That there was something is recorded.
        """
        if evidence.accused in self.blamed:
            return
        bare = msgspec.structs.replace(evidence, session=self.session.summary())
        try:
            blame = verify_evidence(encode_evidence(bare), pinned(self.roster))
        except EvidenceError as error:
            self.unproved[evidence.accused] = error.message
            return
        self.unproved.pop(blame.client_id, None)
        self.blamed[blame.client_id] = blame

    def named(self) -> str:
        """For errors: who is to blame, as far as anybody can tell."""
        said = ""
        if self.blamed:
            said = "; blamed: " + "; ".join(str(self.blamed[client_id]) for client_id in sorted(self.blamed))
        for client_id, reason in sorted(self.unproved.items()):
            said += f"; there is evidence against client {client_id} that convicts nobody: {reason}"
        for dealer, holders in sorted(self.undecided.items()):
            said += (
                f"; {len(holders)} clients say that client {dealer} encapsulated something else for them "
                f"than it signed: it lies, or clients {', '.join(map(str, sorted(holders)))} do"
            )
        return said


class Gathering(Confidential):
    """The server at one stage: it listens once to each client that finished the stage before.

    Args:
        hall: the session.
        expected: the clients that it listens to; whoever else speaks is late, and rejected unread.
    """

    stage: ClassVar[Stage]

    def __init__(self, hall: Hall, expected: tuple[int, ...]) -> None:
        self.hall = hall
        self.expected = expected
        self._awaited = dict.fromkeys(expected)

    @property
    def waiting(self) -> tuple[int, ...]:
        """The clients that have not answered yet, and may, increasing."""
        return tuple(peer for peer in self._awaited if not self._shut_out(peer))

    @property
    def answered(self) -> int:
        """How many clients have answered."""
        return len(self.expected) - len(self._awaited)

    def receive(self, peer: int, data: bytes) -> None:
        """Take one client's message of this stage; a client whose message is refused may send another.

        Not so who is to blame for something: it does not come into the sum any more. What is asked of it once
        it is in is checked piece by piece, and taken.

        Raises:
            OutOfOrder: the client is not expected (any more), has answered already, or is to blame. The
                message was not read.
            SecureSumError: what `accept` finds.
        """
        if peer not in self._awaited:
            known = peer in self.expected
            reason = "has answered already" if known else "is not expected, or late"
            raise OutOfOrder(f"the client {reason}; its message was not read", stage=self.stage, peer=peer)
        if self._shut_out(peer):
            deed = self.hall.blamed[peer].reason
            raise OutOfOrder(
                f"the client is out of this session: {deed}; its message was not read",
                stage=self.stage,
                peer=peer,
            )
        self.accept(peer, data)
        del self._awaited[peer]

    def _shut_out(self, peer: int) -> bool:
        return self.stage in _ENTRIES and peer in self.hall.blamed

    def accept(self, peer: int, data: bytes) -> None:
        """Read, check and keep one message."""
        raise NotImplementedError

    def close(self) -> tuple[Any, dict[int, bytes]]:
        """End the stage: the server at the next one, and the messages that open it."""
        raise NotImplementedError

    def check_signature(
        self, peer: int, body: bytes, signature: bytes, under: tuple[str, bytes] | None = None
    ) -> None:
        """Check a signature of this stage; in semi-honest mode there is none.

        Args:
            peer: the sender.
            body: what is signed.
            signature: by the sender's identity, or
            under: with this usage, by this sealing key.

        Raises:
            SignatureError: it does not verify: the sender did not sign this, or something on the way altered
                it. The sender may send again.
            MessageError: there is one where nothing is signed.
        """
        if self.hall.session.mode is Mode.ACTIVE:
            try:
                if under is None:
                    pinned(self.hall.roster).verify(peer, self.stage, body, signature)
                else:
                    usage, key = under
                    check_key_signature(key, usage, body, signature)
            except SecureSumError as error:
                error.at(self.stage, peer)
                raise
        elif signature:
            raise MessageError("a signature in a semi-honest session", stage=self.stage, peer=peer)

    def check_quorum(self, what: str) -> None:
        """Go on only with max(t, min_survivors) answers (t, in a sparse graph, is asked per neighbourhood).

        Raises:
            ThresholdError: too few.
        """
        session = self.hall.session
        if self.answered < session.quorum:
            raise ThresholdError(
                f"{self.answered} of {session.invited.count} clients {what}, this session needs "
                f"{session.quorum} (threshold {session.threshold}, min_survivors {session.min_survivors})"
                f"{self.hall.named()}",
                stage=self.stage,
            )
