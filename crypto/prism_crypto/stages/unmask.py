"""Stage 5, unmask: the clients give the shares that open the sum, and nothing else.

Server to client, before: t confirmations (active) or the survivor set (semi-honest). Client to server: for
each survivor its share of the self-mask seed, for each client that shared and did not survive its share of
the mask key. Which of the two follows from U2 and U3: both shares of one client never leave.

Bonawitz et al. 2017, figure 4, round 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prism_crypto.errors import (
    MessageError,
    ProtocolError,
    SecureSumError,
    ShareError,
    SignatureError,
    ThresholdError,
)
from prism_crypto.keeping.identity import SIGNATURE_BYTES, pinned
from prism_crypto.primitives.context import self_mask_commitment, tag
from prism_crypto.primitives.keys import KeyPair, pair_seed
from prism_crypto.primitives.keystream import add_keystream, add_keystreams
from prism_crypto.primitives.shamir import PRIME, SHARE_BYTES, combine
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.advert import Advert
from prism_crypto.stages.gathering import Gathering, Hall
from prism_crypto.stages.party import Party
from prism_crypto.stages.states import Confirmed, Finished, Uploaded
from prism_crypto.stages.survivors import read_survivors
from prism_crypto.wire.messages import (
    FRAME_BYTES,
    ID_BYTES,
    VERSION,
    ConfirmationsMessage,
    OpenedMessage,
    UnmaskMessage,
    decode,
    decode_records,
    encode,
    encode_records,
)

__all__ = ["Opened", "Unmasking", "read_opened", "unmask", "unmask_unconfirmed"]


def unmask(state: Confirmed, data: bytes) -> tuple[Finished, bytes]:
    """Client, active mode: check the confirmations, then give the shares.

    Every signature must be by a survivor and over the bytes that this client signed itself. One that is not
    aborts the session: an honest server checked it, so somebody holds another view.

    Raises:
        MessageError, ContextMismatch: the message is not one of this session.
        ProtocolError: a signature of somebody who did not survive.
        SignatureError: a signature over anything else.
        ThresholdError: fewer than t signatures, this client's own included.
    """
    uploaded, stage = state.uploaded, Stage.UNMASK
    party = uploaded.party
    limit = FRAME_BYTES + len(state.survivors) * (ID_BYTES + SIGNATURE_BYTES)
    message = decode(ConfirmationsMessage, data, uploaded.context, limit=limit, stage=stage)
    signatures = decode_records(message.signatures, SIGNATURE_BYTES, stage=stage)
    for peer, signature in signatures.items():
        if peer not in state.survivors:
            raise ProtocolError("confirmed, but did not survive", stage=stage, peer=peer)
        _verify(party, peer, state, signature)
    signers = len(signatures.keys() | {party.client_id})
    if signers < party.session.threshold:
        raise ThresholdError(
            f"{signers} clients confirmed, the threshold is {party.session.threshold}",
            stage=stage,
            peer=party.client_id,
        )
    return _release(uploaded, state.survivors)


def _verify(party: Party, peer: int, state: Confirmed, signature: bytes) -> None:
    if peer == party.client_id:
        # Ed25519 is deterministic: any other signature of this client is not of its making.
        if signature != state.signature:
            raise SignatureError("not the confirmation that this client sent", stage=Stage.UNMASK, peer=peer)
        return
    try:
        pinned(party.roster).verify(peer, Stage.CONFIRM, state.body, signature)
    except SecureSumError as error:
        error.at(Stage.UNMASK, peer)
        raise


def unmask_unconfirmed(state: Uploaded, data: bytes) -> tuple[Finished, bytes]:
    """Client, semi-honest mode: check the survivor set, then give the shares.

    Raises:
        MessageError, ContextMismatch, ProtocolError, ThresholdError: see `read_survivors`.
    """
    return _release(state, read_survivors(state, data, Stage.UNMASK))


def _release(state: Uploaded, survivors: tuple[int, ...]) -> tuple[Finished, bytes]:
    alive = frozenset(survivors)
    seeds: dict[int, bytes] = {}
    keys: dict[int, bytes] = {}
    for peer in state.sharers:
        own = peer == state.party.client_id
        pair = (state.own_shares if own else state.shares[peer]).reveal()
        if peer in alive:
            seeds[peer] = bytes(pair[:SHARE_BYTES])
        else:
            keys[peer] = bytes(pair[SHARE_BYTES:])
    message = UnmaskMessage(VERSION, tag(state.context), encode_records(seeds), encode_records(keys))
    state.erase()
    return Finished(state.party, state.context, survivors), encode(message)


@dataclass(frozen=True, slots=True)
class Opened:
    """The server at the end: the sum is open.

    Attributes:
        counts: int64, shape (d,), the exact sum over the survivors.
        survivors: U3.
        message: the packed sum for clients that want it.
    """

    hall: Hall
    counts: NDArray[np.int64]
    survivors: tuple[int, ...]
    message: bytes


class Unmasking(Gathering):
    """Server: collect shares, reconstruct what the sum needs, and take the masks off.

    Args:
        hall: the session.
        context: ctx1.
        adverts: the adverts of all that advertised.
        total: the sum of all uploads, changed in place.
        sharers: U2.
        survivors: U3.
    """

    stage = Stage.UNMASK

    def __init__(
        self,
        hall: Hall,
        context: bytes,
        adverts: dict[int, bytes],
        total: NDArray[np.uint64],
        sharers: tuple[int, ...],
        survivors: tuple[int, ...],
    ) -> None:
        super().__init__(hall, survivors)
        self.context = context
        self.sharers = sharers
        self.survivors = survivors
        self._adverts = adverts
        self._total = total
        self._alive = frozenset(survivors)
        self._sharing = frozenset(sharers)
        # For each owner of a secret, the shares that came back: {holder's point: share}.
        self._shares: dict[int, dict[int, bytes]] = {owner: {} for owner in sharers}

    def expect(self, clients: tuple[int, ...]) -> None:
        """Listen to these clients only: the ones that confirmed."""
        super().__init__(self.hall, clients)

    def accept(self, peer: int, data: bytes) -> None:
        """Check that there is exactly one share for each secret of which the sender holds one."""
        stage, degree = self.stage, self.hall.session.degree
        limit = FRAME_BYTES + (degree + 1) * (ID_BYTES + SHARE_BYTES)
        message = decode(UnmaskMessage, data, self.context, limit=limit, stage=stage, peer=peer)
        near = sorted([peer, *self.hall.topology.neighbours(peer, self._sharing)])
        given: dict[int, bytes] = {}
        for blob, owners, what in (
            (message.seed_shares, [i for i in near if i in self._alive], "survivors' seeds"),
            (message.key_shares, [i for i in near if i not in self._alive], "dropped clients' keys"),
        ):
            shares = decode_records(blob, SHARE_BYTES, stage=stage, peer=peer)
            if list(shares) != owners:
                raise ProtocolError(
                    f"expected shares of {len(owners)} {what}, got {len(shares)} or others",
                    stage=stage,
                    peer=peer,
                )
            if any(int.from_bytes(share) >= PRIME for share in shares.values()):
                raise ShareError("a share is not a canonical field element", stage=stage, peer=peer)
            given |= shares
        for owner, share in given.items():
            self._shares[owner][peer + 1] = share

    def close(self) -> tuple[Opened, dict[int, bytes]]:
        """Open the sum. Nothing needs to be sent; `Opened.message` is there for those who want it.

        Raises:
            ThresholdError: fewer than t shares of a secret that the sum needs; ``peer`` is its owner.
            ShareError: shares combine to something else than the owner advertised; ``peer`` is the owner.
            SumError: the words that opened can't be the sum of the survivors' inputs.
        """
        threshold = self.hall.session.threshold
        for owner in self.sharers:
            if len(self._shares[owner]) < threshold and self._needed(owner):
                raise ThresholdError(
                    f"{len(self._shares[owner])} shares of a secret came back, the threshold is {threshold}",
                    stage=self.stage,
                    peer=owner,
                )
        for owner in self.sharers:
            try:
                if owner in self._alive:
                    self._remove_self_mask(owner)
                elif self._needed(owner):
                    self._remove_pair_masks(owner)
            except SecureSumError as error:
                error.at(self.stage, owner)
                raise
            self._shares[owner].clear()
        session = self.hall.session
        words = self._total
        try:
            counts = session.packing.unpack(words, survivors=len(self.survivors), bound=session.spec.bound)
        except SecureSumError as error:
            error.at(self.stage)
            raise
        packed = words.astype("<u8", copy=False).data.cast("B")
        message = encode(OpenedMessage(VERSION, tag(self.context), len(self.survivors), packed))
        return Opened(self.hall, counts, self.survivors, message), {}

    def _needed(self, owner: int) -> bool:
        """Whether any mask of the owner is in the sum: not if it dropped and so did all its neighbours."""
        return owner in self._alive or bool(self.hall.topology.neighbours(owner, self._alive))

    def _remove_self_mask(self, owner: int) -> None:
        seed = combine(self._shares[owner], self.hall.session.threshold)
        advert = self._advert(owner)
        if self_mask_commitment(self.hall.session.context0, owner, seed) != advert.commitment:
            raise ShareError("the shares of the self-mask seed do not give the seed that was committed to")
        add_keystream(self._total, seed, subtract=True)

    def _remove_pair_masks(self, owner: int) -> None:
        """Take off the masks between a dropped client and each survivor that had put one on."""
        advert = self._advert(owner)
        pair = KeyPair(combine(self._shares[owner], self.hall.session.threshold))
        if pair.public != advert.mask_key:
            raise ShareError("the shares of the mask key do not give the key that was advertised")
        masks: list[tuple[bytes | bytearray, bool]] = []
        for peer in self.hall.topology.neighbours(owner, self._alive):
            theirs = self._advert(peer).mask_key
            agreed = pair.agree(theirs)
            ids, keys = (
                ((owner, peer), (pair.public, theirs))
                if owner < peer
                else ((peer, owner), (theirs, pair.public))
            )
            # The survivor added the mask if its id is the lower one; take off what it put on.
            masks.append((pair_seed(agreed, self.context, ids, keys), peer < owner))
        add_keystreams(self._total, masks)
        pair.erase()

    def _advert(self, client_id: int) -> Advert:
        return Advert.decode(self._adverts[client_id], signed=self.hall.session.mode is Mode.ACTIVE)


def read_opened(state: Finished, data: bytes) -> tuple[NDArray[np.int64], int]:
    """Client: the opened sum and the number of survivors, as the server says; nothing vouches for the sum.

    Raises:
        MessageError, ContextMismatch: the message is not one of this session.
        ProtocolError: its number of survivors is not that of the survivors who were to open it.
        SumError: the words can't be a sum.
    """
    session, stage = state.party.session, Stage.UNMASK
    words = session.packing.words + 1
    message = decode(OpenedMessage, data, state.context, limit=FRAME_BYTES + 8 * words, stage=stage)
    if message.words.nbytes != 8 * words:
        raise MessageError(f"expected {8 * words} bytes of words, not {message.words.nbytes}", stage=stage)
    known = len(state.survivors)
    plausible = max(known, session.quorum) <= message.count <= session.invited.count
    if not plausible or (message.count != known and not state.party.sparse):
        raise ProtocolError(f"the sum of {message.count} clients, where {known} survived", stage=stage)
    opened = np.frombuffer(message.words, dtype="<u8").astype(np.uint64, copy=False)
    try:
        counts = session.packing.unpack(opened, survivors=message.count, bound=session.spec.bound)
    except SecureSumError as error:
        error.at(stage)
        raise
    return counts, message.count
