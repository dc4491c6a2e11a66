"""Stage 3, upload: each client sends its vector under its masks.

Server to client, before: the shares addressed to it, and the set U2 of who shared. Client to server: the
packed vector, plus its self-mask, plus the mask it shares with each neighbour of higher id, minus the one
with each of lower id, modulo 2^64. Summed over all of U2 the pairwise masks cancel. On a chosen graph the
message also vouches to each neighbour for their common mask.

Bonawitz et al. 2017, figure 4, round 2. Opening the sealed shares belongs to this stage, not to the last.
In active mode a client goes on without the shares of up to n - t clients that do not open, and says whose
they are: before it opens anything for the server, the server must show that those clients have signed what
came. They are never treated as if they had dropped, and t shares of every secret are needed still. On a
chosen graph it goes on whatever their number: its own shares lie elsewhere. A semi-honest client stops.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from prism_crypto.errors import InputError, MessageError, ProtocolError, SealError, SecureSumError, ShareError
from prism_crypto.primitives.agreement_proof import KeyVerifier, check_owner, curve_point, prove_agreement
from prism_crypto.primitives.context import encode_ids, tag
from prism_crypto.primitives.hybrid import (
    KEM_SEED_BYTES,
    Encapsulated,
    HybridMaskPair,
    HybridSealingPair,
    Kem,
    hybrid_pair_seed,
    hybrid_seal_keys,
)
from prism_crypto.primitives.keys import VOUCHER_BYTES, AgreedKey, KeyPair, pair_seed, seal_keys
from prism_crypto.primitives.keystream import add_keystreams
from prism_crypto.primitives.secret import Secret
from prism_crypto.session import Session
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.advert import owner_body, read_advert
from prism_crypto.stages.confirm import Confirming
from prism_crypto.stages.evidence import PartEvidence, check_record, half, is_kem_seed, open_share
from prism_crypto.stages.gathering import Gathering, Hall
from prism_crypto.stages.states import Shared, Stopped, Unopened, Uploaded, Vouchers
from prism_crypto.stages.survivors import survivor_messages
from prism_crypto.stages.transcript import Transcript
from prism_crypto.stages.unmask import Unmasking
from prism_crypto.stages.vouch import Vouching, vouched_survivors, vouchers_of
from prism_crypto.wire.messages import (
    FRAME_BYTES,
    ID_BYTES,
    SEALED_BYTES,
    VERSION,
    VOUCHED_UPLOAD,
    SharesMessage,
    StopMessage,
    UploadMessage,
    VouchedUploadMessage,
    decode,
    decode_ids,
    decode_records,
    encode,
    encode_records,
    is_a,
    upload_body,
    upload_statement,
)

__all__ = ["Uploading", "packed", "upload"]


def upload(state: Shared, data: bytes, values: NDArray[Any]) -> tuple[Uploaded | Stopped, bytes]:
    """Client: open the shares it was sent, then pack and mask its vector.

    In a hybrid session: if a dealer's part of a mask is not the one that it signed, there is no mask with it,
    and no sum with this client in it. It stops then, and shows the server by its ML-KEM key for masks who
    is to blame.

    Args:
        state: the client after `share`.
        data: the server's `SharesMessage`.
        values: shape (d,), any integer dtype or bool, each 0..bound.

    Raises:
        InputError: the values are not that; nothing was read or sent, and the stage may be tried again.
        MessageError, ContextMismatch: the message is not one of this session.
        ProtocolError: U2 is not what an honest server says.
        ThresholdError: too few clients shared.
        SealError: semi-honest mode: a share does not open; ``peer`` is said to have sealed it. Active mode:
            the shares of more than n - t clients do not open, or this client's own.
        ShareError: a share opens to something that is none (semi-honest mode).
        SignatureError: active hybrid sessions: what came is not what a dealer signed; nobody is named.
    """
    party = state.party
    words = packed(values, party.session)
    sharers, received, sealed = _read_shares(state, data)
    if party.session.signs_records:
        _check_records(state, sealed)
    parts, wrong = _parts(state, sealed)
    if wrong:
        assert isinstance(state.masking, HybridMaskPair)
        stop = StopMessage(VERSION, tag(state.context), state.masking.kem_seed())
        state.erase()
        return Stopped(f"what came from client {wrong[0]} is not what goes with it"), encode(stop)
    keys, unopened = _open_all(state, sealed)

    me = party.client_id
    others = [peer for peer in sharers if peer != me]
    masks: list[tuple[bytes | bytearray, bool]] = [
        (_pair_seed(state, peer, parts.get(peer, b"")), peer < me) for peer in others
    ]
    add_keystreams(words, [(state.seed.reveal(), False), *masks])
    content, lacking, signature = _little_endian(words), encode_ids(sorted(unopened)), b""
    vouchers: dict[int, Vouchers] = {}
    said: bytes | None = None
    if party.chosen:
        vouchers = {peer: vouchers_of(party, peer, state.neighbours[peer]) for peer in others}
        said = encode_records({peer: each.our_upload for peer, each in vouchers.items()})
    body = upload_body(state.context, me, content, lacking, said)
    if party.chosen:
        signature = state.sealing.sign(VOUCHED_UPLOAD, body)
    elif party.active:
        signature = party.signer().sign(Stage.UPLOAD, body)
    name = tag(state.context)
    if said is None:
        message = encode(UploadMessage(VERSION, name, content, lacking, signature))
    else:
        message = encode(VouchedUploadMessage(VERSION, name, content, lacking, said, signature))
    sealing = KeyPair(state.sealing.private()) if party.chosen else None
    state.erase()
    return Uploaded(party, state.context, sharers, received, keys, unopened, vouchers, sealing), message


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


def _read_shares(state: Shared, data: bytes) -> tuple[tuple[int, ...], bytes, dict[int, bytes]]:
    """U2 and the sealed pairs for this client, one from each dealer in it, as they came and cut up."""
    party, stage = state.party, Stage.UPLOAD
    me, around = party.client_id, len(state.neighbours) + 1
    limit = FRAME_BYTES + ID_BYTES + around * (2 * ID_BYTES + party.session.dealt_bytes)
    message = decode(SharesMessage, data, state.context, limit=limit, stage=stage)
    sharers = decode_ids(message.sharers, stage=stage)
    sealed = decode_records(message.sealed, party.session.dealt_bytes, stage=stage)

    for peer in sharers:
        if peer != me and peer not in state.neighbours:
            raise ProtocolError("said to have shared, but did not advertise here", stage=stage, peer=peer)
    if me not in sharers:
        raise ProtocolError("this client shared, and is left out", stage=stage)
    dealers = [
        peer for peer in sharers if (not party.chosen if peer == me else state.neighbours[peer].dealer)
    ]
    if list(sealed) != dealers:
        raise ProtocolError("the senders of the shares are not the clients said to have shared", stage=stage)
    if not party.sparse and message.count != len(sharers):
        raise MessageError(
            f"{message.count} clients are said to have shared, {len(sharers)} listed", stage=stage
        )
    known = len(sharers)
    if party.chosen:
        known = sum(peer != me and state.neighbours[peer].holder for peer in sharers)
    party.check_quorum(message.count, known, stage, "shared")
    return sharers, message.sealed, sealed


def _check_records(state: Shared, sealed: dict[int, bytes]) -> None:
    """Refuse parts of masks that their dealers have not signed, before one of them is on a vector.

    Whoever carries the server's message could make others of its own. The seals need no such check: nobody
    else can make them. What came of this client's own is looked at, too: it has to sign that it received it.
    """
    me = state.party.client_id
    for peer, record in sealed.items():
        key, context = state.sealing.public, state.context
        if peer != me:
            key, context = state.neighbours[peer].sealing_key, state.neighbours[peer].context
        try:
            check_record(record, context, (peer, me), KeyVerifier(key))
        except SecureSumError as error:
            error.at(Stage.UPLOAD)
            raise


def _open_all(state: Shared, sealed: dict[int, bytes]) -> tuple[dict[int, Secret], dict[int, Unopened]]:
    """The keys to all shares that open, and a proof for each pair that does not."""
    party = state.party
    me, ours = party.client_id, state.sealing.public
    spare = len(sealed) if party.chosen else party.session.spare
    keys: dict[int, Secret] = {}
    unopened: dict[int, Unopened] = {}
    for peer, record in sealed.items():
        agreed, theirs, context = state.own, ours, state.context
        if peer != me:
            neighbour = state.neighbours[peer]
            agreed, theirs, context = neighbour.agreed, neighbour.sealing_key, neighbour.context
        assert agreed is not None
        try:
            both, secret = _seal_keys(state, agreed, context, (peer, me), (theirs, ours), record)
            for which, key in enumerate(both or ()):
                open_share(key, context, (peer, me), half(record, which))
            if both is None:
                raise SealError(f"client {peer} encapsulated something else than it signed", peer=peer)
            keys[peer] = Secret(b"".join(both))
        except (SealError, ShareError) as error:
            error.at(Stage.UPLOAD, peer)
            if not party.active:
                raise
            if peer == me or len(unopened) == spare:
                # Nobody is named: the server may have altered them, or whatever carries its messages.
                whose = "this client itself" if peer == me else f"{len(unopened) + 1} clients"
                raise SealError(
                    f"the shares that came from {whose} do not open", stage=Stage.UPLOAD
                ) from None
            try:
                # What both agreed on may go out only where the other one knows it, too.
                body = owner_body(party.session.context0, peer)
                check_owner(curve_point(theirs), body, state.neighbours[peer].owner)
                proof = prove_agreement(state.sealing.private(), ours, theirs, context) + secret
            except SecureSumError as useless:
                useless.at(Stage.UPLOAD, peer)
                raise
            if both is None:  # it can show nothing of that, and gives nothing away
                proof = bytes(party.session.complaint_bytes)
            unopened[peer] = Unopened(record, theirs, Secret(proof))
    return keys, unopened


def _seal_keys(
    state: Shared,
    agreed: AgreedKey,
    context: bytes,
    ends: tuple[int, int],
    keys: tuple[bytes, bytes],
    record: bytes,
) -> tuple[tuple[bytes, bytes] | None, bytes]:
    """The keys to what a dealer sealed, and in a hybrid session what it encapsulated for that.

    None for the keys if that is not what the dealer says that it encapsulated.
    """
    if not isinstance(state.sealing, HybridSealingPair):
        return seal_keys(agreed, context, ends, keys), b""
    beside = Encapsulated.cut(record[SEALED_BYTES:])
    secret = state.sealing.kem.decapsulate(beside.sealing)
    if not beside.shows(secret, context, ends):
        return None, secret
    return hybrid_seal_keys(agreed, secret, beside.sealing, context, ends, keys), secret


def _parts(state: Shared, sealed: dict[int, bytes]) -> tuple[dict[int, bytes], list[int]]:
    """Hybrid sessions: what each dealer adds to the seed of its mask with this client; who signed another."""
    me, parts, wrong = state.party.client_id, {}, []
    if not isinstance(state.masking, HybridMaskPair):
        return {}, []
    for peer, record in sealed.items():
        if peer == me:
            continue
        beside = Encapsulated.cut(record[SEALED_BYTES:])
        part = beside.part(state.masking.kem, state.neighbours[peer].context, (peer, me))
        if part is None:
            wrong.append(peer)
        else:
            parts[peer] = part
    return parts, wrong


def _pair_seed(state: Shared, peer: int, theirs_part: bytes) -> bytes:
    """Seed of the mask shared with ``peer``; in a hybrid session of the parts of those two that deal, too."""
    me, neighbour = state.party.client_id, state.neighbours[peer]
    ours, theirs = state.masking.public, neighbour.mask_key
    ids, keys = ((me, peer), (ours, theirs)) if me < peer else ((peer, me), (theirs, ours))
    if isinstance(state.masking, HybridMaskPair):
        our_part = state.masking.part(neighbour.context, (me, peer)) if neighbour.holder else b""
        parts = (our_part, theirs_part) if me < peer else (theirs_part, our_part)
        return hybrid_pair_seed(neighbour.masking, parts, neighbour.context, ids, keys)
    return pair_seed(neighbour.masking, neighbour.context, ids, keys)


class Uploading(Gathering):
    """Server: fold each upload into one accumulator as it arrives.

    Args:
        hall: the session.
        transcript: the first two stages.
    """

    stage = Stage.UPLOAD

    def __init__(self, hall: Hall, transcript: Transcript) -> None:
        super().__init__(hall, transcript.sharers)
        self.transcript = transcript
        self._total = np.zeros(hall.session.packing.length, dtype=np.uint64)
        self._unopened: dict[int, tuple[int, ...]] = {}
        self._statements: dict[
            int, tuple[bytes, bytes]
        ] = {}  # on a chosen graph: signature, what it is under

    def accept(self, peer: int, data: bytes) -> None:
        """Check the signature and add one vector."""
        if self.hall.session.hybrid and is_a(StopMessage, data):
            self._stopped(peer, data)
        session, context, expected = self.hall.session, self.transcript.contexts.of(peer), self._total.nbytes
        sharing, topology = frozenset(self.expected), self.hall.topology
        senders = set(topology.dealers(peer, sharing)) - {peer}
        chosen = session.graph == "chosen"
        spare = session.spare if session.mode is Mode.ACTIVE else 0
        spare = len(senders) if chosen else spare
        limit = FRAME_BYTES + expected + ID_BYTES * spare
        message: UploadMessage | VouchedUploadMessage
        said = None
        if chosen:
            near = topology.neighbours(peer, sharing)
            limit += len(near) * (ID_BYTES + VOUCHER_BYTES)
            message = decode(VouchedUploadMessage, data, context, limit=limit, stage=self.stage, peer=peer)
            said = message.vouchers
        else:
            message = decode(UploadMessage, data, context, limit=limit, stage=self.stage, peer=peer)
        if message.words.nbytes != expected:
            raise MessageError(
                f"expected {expected} bytes of words, not {message.words.nbytes}", stage=self.stage, peer=peer
            )
        body = upload_body(context, peer, message.words, message.unopened, said)
        key = read_advert(self.transcript.adverts[peer], session).sealing_key
        self.check_signature(
            peer, body, message.signature, under=(VOUCHED_UPLOAD, key) if said is not None else None
        )
        unopened = decode_ids(message.unopened, stage=self.stage, peer=peer)
        if len(unopened) > spare or not senders.issuperset(unopened):
            raise ProtocolError(
                f"says that the shares of {len(unopened)} clients do not open, "
                f"expected clients of the session, {spare} at most",
                stage=self.stage,
                peer=peer,
            )
        if said is not None:
            vouchers = decode_records(said, VOUCHER_BYTES, stage=self.stage, peer=peer)
            if tuple(vouchers) != near:
                raise ProtocolError(
                    f"expected vouchers for {len(near)} neighbours, got {len(vouchers)} or others",
                    stage=self.stage,
                    peer=peer,
                )
            statement = upload_statement(message.words, said, message.unopened)
            self._statements[peer] = (message.signature, statement)
        self._total += np.frombuffer(message.words, dtype="<u8")
        self._unopened[peer] = unopened

    def _stopped(self, peer: int, data: bytes) -> NoReturn:
        """A client shows why it does not upload: it counts as silent, whoever is to blame."""
        session, contexts = self.hall.session, self.transcript.contexts
        limit = FRAME_BYTES + KEM_SEED_BYTES
        message = decode(StopMessage, data, contexts.of(peer), limit=limit, stage=self.stage, peer=peer)
        advert = read_advert(self.transcript.adverts[peer], session)
        if not is_kem_seed(message.seed, advert):
            raise ProtocolError("stops with another seed than that of its key", stage=self.stage, peer=peer)
        kem, wrong = Kem(message.seed), []
        received = decode_records(self.transcript.received[peer], session.dealt_bytes, stage=self.stage)
        for dealer, record in received.items():
            beside, context = Encapsulated.cut(record[SEALED_BYTES:]), contexts.between(dealer, peer)
            if dealer == peer or beside.part(kem, context, (dealer, peer)) is not None:
                continue
            wrong.append(dealer)
            if session.mode is Mode.ACTIVE:
                signature, records = self.transcript.dealt[dealer]
                seen = contexts.seen(dealer)
                self.hall.accuse(
                    PartEvidence(VERSION, session, dealer, seen, records, signature, peer, message.seed)
                )
        kem.erase()
        raise ProtocolError(
            f"stops: {len(wrong)} clients sent it another part of a mask than they signed{self.hall.named()}",
            stage=self.stage,
            peer=peer,
        )

    def close(self) -> tuple[Confirming | Vouching | Unmasking, dict[int, bytes]]:
        """Fix the survivors, U3, and tell them.

        Raises:
            ThresholdError: too few uploads, or too few holders of a secret among those who sent them.
        """
        self.check_quorum("uploaded")
        survivors = tuple(sorted(self._unopened))
        contexts = self.transcript.contexts
        unmasking = Unmasking(self.hall, self.transcript, self._total, self._unopened)
        said = f"{len(survivors)} of {len(self.expected)} clients uploaded"
        unmasking.check_holders(frozenset(survivors), self.stage, said)
        if self.hall.session.graph == "chosen":
            return (
                Vouching(self.hall, unmasking, self._statements),
                vouched_survivors(contexts, survivors, self._statements),
            )
        outbound = survivor_messages(self.hall, contexts.common, self.expected, survivors)
        if self.hall.session.mode is Mode.ACTIVE:
            return Confirming(self.hall, unmasking), outbound
        return unmasking, outbound
