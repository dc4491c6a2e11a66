"""Stage 4, confirm (active mode): the survivors agree on who survived, before anybody helps to open.

Server to client, before: the survivor set U3. Client to server: one signature over ctx1, U2 and U3. It signs
once a session. Since 2t > n + c, two different sets can't both find t signers. In a hybrid session
max(t, min_survivors) sign: a lying server can make the others stop, and take their masks off.

Bonawitz et al. 2017, figure 4, round 3 (ConsistencyCheck), with U2 and the context under the signature.
"""

from __future__ import annotations

from prism_crypto.errors import ThresholdError
from prism_crypto.keeping.identity import SIGNATURE_BYTES
from prism_crypto.primitives.context import tag
from prism_crypto.stage import Stage
from prism_crypto.stages.gathering import Gathering, Hall
from prism_crypto.stages.states import Confirmed, Uploaded
from prism_crypto.stages.survivors import read_survivors
from prism_crypto.stages.unmask import Unmasking, too_few_confirmed
from prism_crypto.wire.messages import (
    FRAME_BYTES,
    VERSION,
    ConfirmationsMessage,
    ConfirmMessage,
    confirmation_body,
    decode,
    encode,
    encode_records,
    encode_statements,
)

__all__ = ["Confirming", "confirm"]


def confirm(state: Uploaded, data: bytes) -> tuple[Confirmed, bytes]:
    """Client: check the survivor set and sign it.

    Raises:
        MessageError, ContextMismatch, ProtocolError, ThresholdError: see `read_survivors`.
    """
    survivors = read_survivors(state, data, Stage.CONFIRM)
    body = confirmation_body(state.context, state.sharers, survivors)
    signature = state.party.signer().sign(Stage.CONFIRM, body)
    return Confirmed(state, survivors, body, signature), encode(
        ConfirmMessage(VERSION, tag(state.context), signature)
    )


class Confirming(Gathering):
    """Server: collect the signatures, and pass on as many as clients demand, `Session.confirmations`."""

    stage = Stage.CONFIRM

    def __init__(self, hall: Hall, unmasking: Unmasking) -> None:
        super().__init__(hall, unmasking.survivors)
        self._unmasking = unmasking
        self._context = unmasking.transcript.contexts.common
        self._body = confirmation_body(self._context, unmasking.transcript.sharers, unmasking.survivors)
        self._signatures: dict[int, bytes] = {}

    def accept(self, peer: int, data: bytes) -> None:
        """Check a signature as the clients will."""
        limit = FRAME_BYTES + SIGNATURE_BYTES
        message = decode(ConfirmMessage, data, self._context, limit=limit, stage=self.stage, peer=peer)
        self.check_signature(peer, self._body, message.signature)
        self._signatures[peer] = message.signature

    def close(self) -> tuple[Unmasking, dict[int, bytes]]:
        """Send signatures to all that signed, and to each what was signed by those of whom it complains.

        Raises:
            ThresholdError: fewer signed than clients demand.
        """
        session, signers = self.hall.session, sorted(self._signatures)
        if too_few := too_few_confirmed(session, len(signers)):
            raise ThresholdError(f"{too_few}{self.hall.named()}", stage=self.stage)
        passed_on = signers[: session.confirmations]
        records = encode_records({signer: self._signatures[signer] for signer in passed_on})
        message = encode(ConfirmationsMessage(VERSION, tag(self._context), records, b""))
        outbound = dict.fromkeys(signers, message)
        dealt, unopened = self._unmasking.transcript.dealt, self._unmasking.unopened
        for signer in signers:
            if unopened[signer]:
                appeals = encode_statements({dealer: dealt[dealer] for dealer in unopened[signer]})
                outbound[signer] = encode(ConfirmationsMessage(VERSION, tag(self._context), records, appeals))
        self._unmasking.expect(tuple(signers))
        return self._unmasking, outbound
