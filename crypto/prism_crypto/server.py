"""The server of a secure sum: bytes in, bytes out.

It is at one stage at a time, and each stage is a type of its own (`Advertising`, `Sharing`, `Uploading`,
`Confirming`, `Unmasking`, `Opened`). The transport hands it each client's message as it arrives, and says
when the stage is over: when all have answered, or when it has waited long enough. Who is silent until then
has dropped out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_crypto.blame import Blame
from prism_crypto.boundary import scrubbed
from prism_crypto.errors import IdentityError, OutOfOrder, PolicyError
from prism_crypto.keeping.identity import Roster
from prism_crypto.primitives.randomness import Rng, checked_rng
from prism_crypto.primitives.secret import Confidential
from prism_crypto.session import Session
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.advertise import Advertising
from prism_crypto.stages.gathering import Gathering, Hall, Topology
from prism_crypto.stages.unmask import Opened

__all__ = ["SecureSumResult", "SecureSumServer"]


@dataclass(frozen=True)
class SecureSumResult:
    """What a session gives.

    Attributes:
        counts: the exact sum over the survivors, int64, shape (d,).
        survivors: ids of the clients whose vectors are in it, increasing.
        uplink_bytes: for each invited client, the bytes of its messages that the server accepted.
        downlink_bytes: for each invited client, the bytes of the messages made for it.
        bits_per_coordinate: size of one upload message, framing included, over d.
        words: 64-bit words in an upload, sentinel and checksum included.
    """

    counts: NDArray[np.int64]
    survivors: tuple[int, ...]
    uplink_bytes: dict[int, int]
    downlink_bytes: dict[int, int]
    bits_per_coordinate: float
    words: int


class SecureSumServer(Confidential):
    """The server in one session.

    Args:
        session: the parameters; its ``invited`` must hold the ids.
        roster: the clients' public keys, to refuse bad signatures early; needed in active mode. What the
            server thinks of them protects nobody: each client checks against the roster that it has pinned.
        rng: source of randomness, for the order of clients in a sparse graph.

    Raises:
        PolicyError, InputError: the parameters are not sound; see `Session.check`.
        IdentityError: active mode without roster, or an invited client that it does not know.
        RandomnessError: ``rng`` was not made for secrets.

    `receive` refuses a bad message with an error that names its sender, and goes on: the sender counts as
    silent. `close` ends a stage; if it raises, the session is over and nothing opens.
    """

    def __init__(self, session: Session, *, roster: Roster | None = None, rng: Rng = os.urandom) -> None:
        session.check()
        if session.invited.ids is None:
            raise PolicyError("the server needs the ids of the invited clients")
        if session.mode is Mode.ACTIVE:
            if roster is None or roster.hash != session.roster_hash:
                raise IdentityError("active mode needs the roster that the session names")
            for client_id in session.invited.ids:
                roster.public_key(client_id)
        self.session = session
        hall = self._hall = Hall(session, roster, Topology(session, checked_rng(rng)), rng)
        self._state: Gathering | Opened | None = Advertising(hall)
        self._uplink = dict.fromkeys(session.invited.ids, 0)
        self._downlink = dict.fromkeys(session.invited.ids, 0)
        self._upload_bytes = 0

    def __repr__(self) -> str:
        stage = self.stage
        return f"<SecureSumServer, session {self.session.number}, {'done' if stage is None else stage.value}>"

    @property
    def stage(self) -> Stage | None:
        """The stage that is being collected; None at the end or after an abort."""
        return self._state.stage if isinstance(self._state, Gathering) else None

    @property
    def blamed(self) -> dict[int, Blame]:
        """Who has broken the protocol so far, with evidence; also after the session is lost.

        Everybody comes to the same with `prism_crypto.verify_evidence`. The next session goes on without
        as many of them as can be: `Session.plan(..., excluded=server.blamed.values())`. Who is only silent,
        or sends what its signature does not cover, is not among them: the network may have done that.
        """
        return dict(self._hall.blamed)

    @property
    def unproved(self) -> dict[int, str]:
        """Against whom there is evidence that convicts nobody, and why: `Session.plan` can't exclude them.

        It is above 4 MiB, as it can be where a thousand clients of a hybrid session deal to the same one, or
        would take too long to check. To do without such a client, plan the next session without its id.
        """
        return dict(self._hall.unproved)

    @property
    def waiting(self) -> tuple[int, ...]:
        """The clients that have not answered in this stage, increasing."""
        return self._state.waiting if isinstance(self._state, Gathering) else ()

    def receive(self, peer: int, message: bytes) -> None:
        """Take one message.

        Args:
            peer: its sender, as the transport has authenticated it.
            message: the bytes.

        Raises:
            OutOfOrder: nobody expects a message of this client, or it is blamed and its vector is not in; the
                message was not read.
            MessageError, ContextMismatch, ProtocolError, PublicKeyError, SignatureError, ShareError: the
                message is refused; ``peer`` is its sender. The session goes on.
        """
        state = self._state
        if not isinstance(state, Gathering):
            raise OutOfOrder("the session is over; the message was not read", peer=peer)
        failure = None
        try:
            state.receive(peer, message)
        except Exception as error:
            failure = scrubbed(error, state.stage, peer)
        if failure is not None:
            raise failure
        self._uplink[peer] += len(message)
        if state.stage is Stage.UPLOAD:
            self._upload_bytes = len(message)

    def close(self) -> dict[int, bytes]:
        """End the stage: who has not answered has dropped.

        Returns:
            For each client that is still in, the message that opens the next stage; empty after the last.

        Raises:
            ThresholdError: too few clients are left.
            ShareError, SumError: the sum does not open; see `prism_crypto.stages.unmask.Unmasking.close`.
            OutOfOrder: the session is over.
        """
        state = self._state
        if not isinstance(state, Gathering):
            raise OutOfOrder("the session is over")
        self._state = None
        failure = None
        outbound: dict[int, bytes] = {}
        try:
            self._state, outbound = state.close()
        except BaseException as error:
            failure = scrubbed(error, state.stage)
        del state
        if failure is not None:
            raise failure
        for peer, message in outbound.items():
            self._downlink[peer] += len(message)
        return outbound

    @property
    def result(self) -> SecureSumResult:
        """The sum, after the last stage.

        Raises:
            OutOfOrder: it is not open (yet, or ever).
        """
        opened = self._opened()
        return SecureSumResult(
            counts=opened.counts,
            survivors=opened.survivors,
            uplink_bytes=dict(self._uplink),
            downlink_bytes=dict(self._downlink),
            bits_per_coordinate=8 * self._upload_bytes / self.session.spec.dimension,
            words=self.session.packing.length,
        )

    def opened(self) -> bytes:
        """The opened sum as a message for `SecureSumClient.opened`, if the application's clients want it.

        Raises:
            OutOfOrder: the sum is not open.
        """
        return self._opened().message

    def _opened(self) -> Opened:
        if not isinstance(self._state, Opened):
            raise OutOfOrder("the sum is not open", stage=self.stage)
        return self._state
