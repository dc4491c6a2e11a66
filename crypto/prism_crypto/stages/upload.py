"""Stage 3, upload: each client sends its vector under its masks.

Server to client, before: the shares addressed to it, and the set U2 of who shared. Client to server: the
packed vector, plus its self-mask, plus the mask it shares with each neighbour of higher id, minus the one
with each of lower id, modulo 2^64. Summed over all of U2 the pairwise masks cancel.

Bonawitz et al. 2017, figure 4, round 2. Opening the sealed shares belongs to this stage, not to the last: a
client that got a bad one must not send its vector.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_crypto.errors import InputError, MessageError, ProtocolError, SecureSumError, ShareError
from prism_crypto.primitives.context import tag
from prism_crypto.primitives.keys import open_sealed, pair_seed
from prism_crypto.primitives.keystream import add_keystreams
from prism_crypto.primitives.secret import Secret
from prism_crypto.primitives.shamir import PRIME, SHARE_BYTES
from prism_crypto.session import Session
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.confirm import Confirming
from prism_crypto.stages.gathering import Gathering, Hall
from prism_crypto.stages.states import Shared, Uploaded
from prism_crypto.stages.survivors import survivor_messages
from prism_crypto.stages.unmask import Unmasking
from prism_crypto.wire.messages import (
    FRAME_BYTES,
    ID_BYTES,
    SEALED_BYTES,
    VERSION,
    SharesMessage,
    UploadMessage,
    decode,
    decode_ids,
    decode_records,
    encode,
)

__all__ = ["Uploading", "packed", "upload"]


def upload(state: Shared, data: bytes, values: NDArray[Any]) -> tuple[Uploaded, bytes]:
    """Client: open the shares it was sent, then pack and mask its vector.

    Args:
        state: the client after `share`.
        data: the server's `SharesMessage`.
        values: shape (d,), any integer dtype or bool, each 0..bound.

    Raises:
        InputError: the values are not that; nothing was read or sent, and the stage may be tried again.
        MessageError, ContextMismatch: the message is not one of this session.
        ProtocolError: U2 is not what an honest server says.
        ThresholdError: too few clients shared.
        SealError: a share does not open; ``peer`` sealed it. It is never treated as if ``peer`` had dropped.
        ShareError: a share opens to something that is none.
        PublicKeyError: a neighbour's mask key is of low order.
    """
    words = packed(values, state.party.session)
    sharers, sealed = _read_shares(state, data)
    shares = {peer: Secret(_open_pair(state, peer, pair)) for peer, pair in sealed.items()}

    me = state.party.client_id
    masks: list[tuple[bytes | bytearray, bool]] = [(_pair_seed(state, peer), peer < me) for peer in sealed]
    add_keystreams(words, [(state.seed.reveal(), False), *masks])
    message = encode(UploadMessage(VERSION, tag(state.context), _little_endian(words)))

    after = Uploaded(state.party, state.context, sharers, state.own_shares, shares)
    state.masking.erase()
    state.seed.erase()
    for neighbour in state.neighbours.values():
        neighbour.agreed.erase()
    return after, message


def packed(values: NDArray[Any], session: Session) -> NDArray[np.uint64]:
    """A client's vector as the words of its upload, unmasked; errors do not quote the values.

    Raises:
        InputError: the vector is not of the session's shape, or a value is out of range.
    """
    dimension, bound = session.spec.dimension, session.spec.bound
    if not isinstance(values, np.ndarray):
        raise InputError(f"expected a NumPy array, not {type(values).__name__}")
    if values.shape != (dimension,) or values.dtype.kind not in "biu":
        raise InputError(
            f"expected integers or booleans of shape ({dimension},), not {values.dtype} of {values.shape}"
        )
    words = None
    with suppress(InputError):
        words = session.packing.pack(values, bound=bound)
    if words is None:
        raise InputError(f"a value is outside 0..{bound}, the bound of this sum")
    return words


def _little_endian(words: NDArray[np.uint64]) -> memoryview:
    return words.astype("<u8", copy=False).data.cast("B")


def _read_shares(state: Shared, data: bytes) -> tuple[tuple[int, ...], dict[int, bytes]]:
    """U2 and the sealed pairs for this client, one from each other member."""
    party, stage = state.party, Stage.UPLOAD
    me, around = party.client_id, len(state.neighbours)
    limit = FRAME_BYTES + ID_BYTES + around * (2 * ID_BYTES + SEALED_BYTES)
    message = decode(SharesMessage, data, state.context, limit=limit, stage=stage)
    sharers = decode_ids(message.sharers, stage=stage)
    sealed = decode_records(message.sealed, SEALED_BYTES, stage=stage)

    for peer in sharers:
        if peer != me and peer not in state.neighbours:
            raise ProtocolError("said to have shared, but did not advertise here", stage=stage, peer=peer)
    if me not in sharers:
        raise ProtocolError("this client shared, and is left out", stage=stage, peer=me)
    if (*sealed,) != tuple(peer for peer in sharers if peer != me):
        raise ProtocolError("the senders of the shares are not the clients said to have shared", stage=stage)
    if not party.sparse and message.count != len(sharers):
        raise MessageError(
            f"{message.count} clients are said to have shared, {len(sharers)} listed", stage=stage
        )
    party.check_quorum(message.count, len(sharers), stage, "shared")
    return sharers, sealed


def _open_pair(state: Shared, peer: int, sealed: bytes) -> bytes:
    """The two shares that ``peer`` sealed for this client."""
    neighbour = state.neighbours[peer]
    ends, keys = (peer, state.party.client_id), (neighbour.sealing_key, state.sealing_key)
    try:
        pair = open_sealed(neighbour.agreed, state.context, ends, keys, sealed)
        for share in (pair[:SHARE_BYTES], pair[SHARE_BYTES:]):
            if int.from_bytes(share) >= PRIME:
                raise ShareError("a share is not a canonical field element")
    except SecureSumError as error:
        error.at(Stage.UPLOAD, peer)
        raise
    return pair


def _pair_seed(state: Shared, peer: int) -> bytes:
    """Seed of the mask shared with ``peer``."""
    me, theirs = state.party.client_id, state.neighbours[peer].mask_key
    try:
        agreed = state.masking.agree(theirs)
    except SecureSumError as error:
        error.at(Stage.UPLOAD, peer)
        raise
    ours = state.masking.public
    ids, keys = ((me, peer), (ours, theirs)) if me < peer else ((peer, me), (theirs, ours))
    seed = pair_seed(agreed, state.context, ids, keys)
    agreed.erase()
    return seed


class Uploading(Gathering):
    """Server: fold each upload into one accumulator as it arrives.

    Args:
        hall: the session.
        sharers: U2, the clients that shared.
        adverts: the adverts of all that advertised.
        context: ctx1.
    """

    stage = Stage.UPLOAD

    def __init__(
        self, hall: Hall, sharers: tuple[int, ...], adverts: dict[int, bytes], context: bytes
    ) -> None:
        super().__init__(hall, sharers)
        self.context = context
        self._adverts = adverts
        self._total = np.zeros(hall.session.packing.words + 1, dtype=np.uint64)
        self._survivors: list[int] = []

    def accept(self, peer: int, data: bytes) -> None:
        """Add one vector."""
        expected = self._total.nbytes
        message = decode(
            UploadMessage, data, self.context, limit=FRAME_BYTES + expected, stage=self.stage, peer=peer
        )
        if message.words.nbytes != expected:
            raise MessageError(
                f"expected {expected} bytes of words, not {message.words.nbytes}", stage=self.stage, peer=peer
            )
        self._total += np.frombuffer(message.words, dtype="<u8")
        self._survivors.append(peer)

    def close(self) -> tuple[Confirming | Unmasking, dict[int, bytes]]:
        """Fix the survivors, U3, and tell them.

        Raises:
            ThresholdError: too few uploads.
        """
        self.check_quorum("uploaded")
        survivors = tuple(sorted(self._survivors))
        outbound = survivor_messages(self.hall, self.context, self.expected, survivors)
        unmasking = Unmasking(self.hall, self.context, self._adverts, self._total, self.expected, survivors)
        if self.hall.session.mode is Mode.ACTIVE:
            return Confirming(self.hall, unmasking), outbound
        return unmasking, outbound
