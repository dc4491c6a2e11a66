"""Stage 5, unmask: the clients open the shares that open the sum, and nothing else.

Server to client, before: confirmations (active; t, hybrid: as many as must survive) or the survivor set
(semi-honest). Client to server: for each survivor the key to its share of the self-mask seed, for each client
that shared and did not survive the key to its share of the mask key. Which of the two follows from U2 and U3:
both shares of one client never open.

Bonawitz et al. 2017, figure 4, round 4, where the shares themselves are sent. A key opens what an honest
dealer has signed or opens nothing, so a wrong answer costs one share, and shows who gave it. A seal that
opens under two keys is its dealer's doing, and so are shares on no one polynomial.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from operator import mul
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from prism_crypto.errors import (
    MessageError,
    ProtocolError,
    PublicKeyError,
    SealError,
    SecureSumError,
    ShareError,
    SignatureError,
    ThresholdError,
)
from prism_crypto.keeping.identity import SIGNATURE_BYTES, pinned
from prism_crypto.primitives.agreement_proof import (
    PROOF_BYTES,
    agreed_point,
    check_key_signature,
    claimed_agreement,
)
from prism_crypto.primitives.context import tag
from prism_crypto.primitives.hybrid import Encapsulated, HybridMaskPair, hybrid_pair_seed
from prism_crypto.primitives.keys import KEY_BYTES, pair_seed
from prism_crypto.primitives.keystream import add_keystream, add_keystreams
from prism_crypto.primitives.shamir import PRIME, combine, parity_weights, recover
from prism_crypto.session import Session
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.advert import Advert, read_advert
from prism_crypto.stages.evidence import (
    DealingEvidence,
    PartEvidence,
    SealEvidence,
    UnmaskEvidence,
    VoucherEvidence,
    Which,
    half,
    is_false_voucher,
    is_mask_secret,
    is_seed,
    mask_pair,
    open_share,
    opens,
    shown_keys,
)
from prism_crypto.stages.gathering import Gathering, Hall
from prism_crypto.stages.party import Party
from prism_crypto.stages.states import Confirmed, Finished, Uploaded
from prism_crypto.stages.survivors import read_survivors
from prism_crypto.stages.transcript import Transcript
from prism_crypto.wire.messages import (
    DEALING,
    FRAME_BYTES,
    ID_BYTES,
    SEALED_BYTES,
    VERSION,
    ConfirmationsMessage,
    DoubtedUnmaskMessage,
    OpenedMessage,
    UnmaskMessage,
    decode,
    decode_records,
    decode_statements,
    encode,
    encode_records,
    is_a,
    read_upload_statement,
    share_body,
    unmask_body,
)

__all__ = [
    "Opened",
    "Unmasking",
    "check_appeal",
    "read_opened",
    "release",
    "too_few_confirmed",
    "unmask",
    "unmask_unconfirmed",
]


def unmask(state: Confirmed, data: bytes) -> tuple[Finished, bytes]:
    """Client, active mode: check the confirmations, then give the shares.

    Every signature must be by a survivor and over the bytes that this client signed itself. One that is not
    aborts the session: an honest server checked it, so somebody holds another view.

    Raises:
        MessageError, ContextMismatch: the message is not one of this session.
        ProtocolError: a signature of somebody who did not survive, or not what those have signed whose shares
            did not open here.
        SignatureError: a signature over anything else.
        SealError: a share that did not open is not the one that its dealer signed.
        ThresholdError: fewer signatures than `Session.confirmations`, this client's own included.
    """
    uploaded, stage = state.uploaded, Stage.UNMASK
    party = uploaded.party
    session = party.session
    dealing = ID_BYTES + SIGNATURE_BYTES + 4 + session.invited.count * (ID_BYTES + session.dealt_bytes)
    limit = FRAME_BYTES + len(state.survivors) * (ID_BYTES + SIGNATURE_BYTES)
    limit += len(uploaded.unopened) * dealing
    message = decode(ConfirmationsMessage, data, uploaded.context, limit=limit, stage=stage)
    signatures = decode_records(message.signatures, SIGNATURE_BYTES, stage=stage)
    for peer, signature in signatures.items():
        if peer not in state.survivors:
            raise ProtocolError("said to have confirmed, but did not survive", stage=stage, peer=peer)
        _verify(party, peer, state, signature)
    signers = len(signatures.keys() | {party.client_id})
    if too_few := too_few_confirmed(session, signers):
        raise ThresholdError(too_few, stage=stage)
    _check_appeals(uploaded, message.appeals)
    return release(uploaded, frozenset(state.survivors))


def too_few_confirmed(session: Session, signers: int) -> str:
    """What to say where this many have signed the survivor set; empty if they are enough."""
    if signers >= session.confirmations:
        return ""
    return (
        f"{signers} clients confirmed, this session needs {session.confirmations} "
        f"(threshold {session.threshold}, min_survivors {session.min_survivors})"
    )


def _check_appeals(state: Uploaded, appeals: bytes) -> None:
    """Complain only of clients that have signed what came; what was agreed on with others is not revealed."""
    stage = Stage.UNMASK
    statements = decode_statements(appeals, stage=stage)
    if statements.keys() != state.unopened.keys():
        raise ProtocolError(
            f"expected what {len(state.unopened)} clients have signed, got {len(statements)} or others",
            stage=stage,
        )
    for dealer, (signature, sealed) in statements.items():
        check_appeal(state, state.context, dealer, signature, sealed)


def check_appeal(state: Uploaded, context: bytes, dealer: int, signature: bytes, sealed: bytes) -> None:
    """Client: see whether what did not open is what its dealer has signed.

    Args:
        state: the client.
        context: the dealer's ctx1.
        dealer: whose share did not open.
        signature, sealed: what it has signed with the key that this client has seen, as the server says.

    Raises:
        SealError: it is not. Nobody is named but in words: the server, or whatever carries its messages,
            altered the share.
    """
    body, genuine, came = share_body(context, dealer, sealed), False, state.unopened[dealer]
    with suppress(SecureSumError):
        check_key_signature(came.sealing_key, DEALING, body, signature)
        records = decode_records(sealed, state.party.session.dealt_bytes, stage=Stage.UNMASK)
        genuine = records.get(state.party.client_id) == came.sealed
    if not genuine:
        raise SealError(
            f"the share of client {dealer} that does not open is not the one that client {dealer} signed",
            stage=Stage.UNMASK,
        )


def _verify(party: Party, peer: int, state: Confirmed, signature: bytes) -> None:
    if peer == party.client_id:
        # Ed25519 is deterministic: any other signature of this client is not of its making.
        if signature != state.signature:
            raise SignatureError("not the confirmation that this client sent", stage=Stage.UNMASK)
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
    return release(state, frozenset(read_survivors(state, data, Stage.UNMASK)))


def release(
    state: Uploaded,
    survivors: frozenset[int],
    withheld: AbstractSet[int] = frozenset(),
    doubts: Mapping[int, bytes] = MappingProxyType({}),
) -> tuple[Finished, bytes]:
    """Client: give one of the two keys to each dealer's shares, and forget the other.

    Args:
        state: the client after its upload.
        survivors: whose seeds are to be opened; of all others whose shares it holds, the mask keys.
        withheld: dealers to whose shares no key is given.
        doubts: on a chosen graph, of who signed false vouchers proofs of what was agreed on with it.
    """
    party = state.party
    seeds: dict[int, bytes] = {}
    masks: dict[int, bytes] = {}
    for peer in state.keys.keys() - withheld:
        both = state.keys[peer].reveal()
        if peer in survivors:
            seeds[peer] = bytes(both[:KEY_BYTES])
        else:
            masks[peer] = bytes(both[KEY_BYTES:])
    proofs = {dealer: bytes(unopened.proof.reveal()) for dealer, unopened in state.unopened.items()}
    fields = (encode_records(seeds), encode_records(masks), encode_records(proofs))
    signature = b""
    if party.active:
        body = unmask_body(state.context, party.client_id, state.received, *fields)
        signature = party.signer().sign(Stage.UNMASK, body)
    name = tag(state.context)
    message: UnmaskMessage | DoubtedUnmaskMessage = UnmaskMessage(VERSION, name, *fields, signature)
    if doubts:
        message = DoubtedUnmaskMessage(VERSION, name, *fields, encode_records(doubts), signature)
    state.erase()
    return Finished(party, state.context, survivors), encode(message)


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
    """Server: collect keys to shares, reconstruct what the sum needs, and take the masks off.

    Args:
        hall: the session.
        transcript: the first two stages.
        total: the sum of all uploads, changed in place.
        unopened: for each survivor the clients whose shares, as it says, do not open.
    """

    stage = Stage.UNMASK

    def __init__(
        self,
        hall: Hall,
        transcript: Transcript,
        total: NDArray[np.uint64],
        unopened: dict[int, tuple[int, ...]],
    ) -> None:
        super().__init__(hall, tuple(sorted(unopened)))
        self.transcript = transcript
        self.survivors = self.expected
        self.unopened = unopened
        # On a chosen graph: for each client what those signed at upload for whom it does not vouch.
        self.doubted: dict[int, dict[int, tuple[bytes, bytes]]] = {}
        self._total = total
        self._alive = frozenset(self.survivors)
        self._sharing = frozenset(transcript.sharers)
        # For each owner of a secret, what came back: {holder's point: share}, and {holder: key to it}.
        self._shares: dict[int, dict[int, bytes]] = {owner: {} for owner in transcript.sharers}
        self._keys: dict[int, dict[int, bytes]] = {owner: {} for owner in transcript.sharers}
        self._parity: dict[tuple[int, ...], tuple[int, ...]] = {}

    def check_holders(self, present: AbstractSet[int], stage: Stage, said: str) -> None:
        """Go on only if each secret that the sum needs has t holders left: none gives a key in vain.

        Who complains of a dealer, or doubts it, counts among its holders: what it can prove is still wanted.

        Args:
            present: the clients that are left to give keys.
            stage: where we are.
            said: how many are left, for the error. It names nobody: the silent may have lost their network.

        Raises:
            ThresholdError: a secret has fewer.
        """
        threshold, topology = self.hall.session.threshold, self.hall.topology
        short = sum(
            sum(i in present for i in topology.holders(owner, self._sharing)) < threshold
            for owner in self.transcript.sharers
            if self._needed(owner)
        )
        if short:
            raise ThresholdError(
                f"{said}; secrets with fewer than {threshold} holders left: {short}{self.hall.named()}",
                stage=stage,
            )

    def expect(self, signers: tuple[int, ...]) -> None:
        """Listen to those only that have confirmed."""
        self.expected = signers
        self._awaited = dict.fromkeys(signers)

    def accept(self, peer: int, data: bytes) -> None:
        """Check that there is a key for each secret of which the sender holds a share, and open the shares.

        A key that opens nothing costs the sum this share and no other. On a chosen graph none is given of a
        survivor that did not vouch for the common mask.
        """
        stage, session = self.stage, self.hall.session
        contexts, chosen = self.transcript.contexts, session.graph == "chosen"
        context = contexts.of(peer)
        record = ID_BYTES + max(KEY_BYTES, session.complaint_bytes)
        near = self.hall.topology.dealers(peer, self._sharing)
        limit = FRAME_BYTES + len(near) * record
        message: UnmaskMessage | DoubtedUnmaskMessage
        if self.doubted.get(peer) and is_a(DoubtedUnmaskMessage, data):
            limit += len(near) * record
            message = decode(DoubtedUnmaskMessage, data, context, limit=limit, stage=stage, peer=peer)
        else:
            message = decode(UnmaskMessage, data, context, limit=limit, stage=stage, peer=peer)
        received = self.transcript.received[peer]
        fields = (message.seed_keys, message.mask_keys, message.complaints)
        self.check_signature(peer, unmask_body(context, peer, received, *fields), message.signature)
        able = [owner for owner in near if owner not in self.unopened[peer]]
        records = [
            decode_records(blob, width, stage=stage, peer=peer)
            for blob, width in zip(fields, (KEY_BYTES, KEY_BYTES, session.complaint_bytes), strict=True)
        ]
        wanted = (
            ([i for i in able if i in self._alive], "keys to survivors' seeds"),
            ([i for i in able if i not in self._alive], "keys to dropped clients' keys"),
            (list(self.unopened[peer]), "proofs"),
        )
        for given, (owners, what) in zip(records, wanted, strict=True):
            fewer = chosen and given is records[0] and set(given) <= set(owners)
            if list(given) != owners and not fewer:
                raise ProtocolError(
                    f"expected {len(owners)} {what}, got {len(given)} or others", stage=stage, peer=peer
                )
        if isinstance(message, DoubtedUnmaskMessage):
            self._check_doubts(peer, message.doubts)
        sealed = decode_records(received, session.dealt_bytes, stage=stage)
        honest = True
        for which, keys in enumerate(records[:2]):
            for owner, key in keys.items():
                try:
                    between = contexts.between(owner, peer)
                    share = open_share(key, between, (owner, peer), half(sealed[owner], which))
                except (SealError, ShareError):
                    honest = False
                    continue
                self._shares[owner][peer + 1] = share
                self._keys[owner][peer] = key
        if self.unopened[peer]:
            honest = self._check_complaints(peer, records[2], sealed) and honest
        if not honest and session.mode is Mode.ACTIVE:
            adverts = contexts.seen(peer)
            self.hall.accuse(
                UnmaskEvidence(VERSION, session, peer, adverts, received, *fields, message.signature)
            )

    def _check_doubts(self, peer: int, doubts: bytes) -> None:
        """Blame those whose vouchers for a client are false.

        Raises:
            ProtocolError: one of them does not prove that. Nobody is blamed for it: who says so does no more
                harm than by being silent.
        """
        contexts = self.transcript.contexts
        for owner, proof in decode_records(doubts, PROOF_BYTES, stage=self.stage, peer=peer).items():
            signature, statement = self.doubted[peer].get(owner, (b"", b""))
            false = False
            if statement:
                adverts = {i: self._advert(i) for i in (owner, peer)}
                with suppress(SecureSumError):
                    _, vouchers = read_upload_statement(statement)
                    between = contexts.between(owner, peer)
                    false = is_false_voucher(vouchers, proof, between, (owner, peer), adverts)
            if not false:
                raise ProtocolError(
                    f"says without proof that client {owner} vouched falsely", stage=self.stage, peer=peer
                )
            seen, session = contexts.seen(owner), self.hall.session
            self.hall.accuse(
                VoucherEvidence(VERSION, session, owner, seen, statement, signature, peer, proof)
            )

    def _check_complaints(self, peer: int, proofs: dict[int, bytes], sealed: dict[int, bytes]) -> bool:
        """Blame those of whom a client complains rightly; whether it does so of all."""
        contexts, ours = self.transcript.contexts, self._advert(peer).sealing_key
        right = True
        for dealer, proof in proofs.items():
            theirs, context = self._advert(dealer).sealing_key, contexts.between(dealer, peer)
            ends, record = (dealer, peer), sealed[dealer]
            both = shown_keys(proof, claimed_agreement(proof), context, ends, (theirs, ours), record)
            if both is None:
                self.hall.undecided.setdefault(dealer, []).append(peer)
                continue  # one of the two is lying, and nothing shows which
            try:
                agreed_point(proof[:PROOF_BYTES], ours, theirs, context)
            except PublicKeyError:
                right = False
                continue
            if opens(both, context, ends, record):
                right = False
                continue
            signature, records = self.transcript.dealt[dealer]
            adverts = contexts.seen(dealer)
            self.hall.accuse(
                SealEvidence(VERSION, self.hall.session, dealer, adverts, records, signature, peer, proof)
            )
        return right

    def close(self) -> tuple[Opened, dict[int, bytes]]:
        """Open the sum. Nothing needs to be sent; `Opened.message` is there for those who want it.

        Raises:
            ThresholdError: fewer than t shares of a secret that the sum needs.
            ShareError: no t shares give what their owner advertised; ``peer`` is the owner, who dealt them.
            SumError: the words that opened can't be the sum of the survivors' inputs.
        """
        threshold, sharers = self.hall.session.threshold, self.transcript.sharers
        secrets = {owner: self._recovered(owner) for owner in sharers if self._needed(owner)}
        short = sum(len(self._shares[owner]) < threshold for owner in secrets)
        for owner, secret in secrets.items():
            if len(self._shares[owner]) < threshold:
                # The owner is not named, it may be innocent: those who hold the shares may have lost them.
                raise ThresholdError(
                    f"{self.answered} of {len(self.expected)} clients gave keys; secrets with fewer than "
                    f"{threshold} shares that open: {short}{self.hall.named()}",
                    stage=self.stage,
                )
            if secret is None:
                raise ShareError(
                    "the shares of its secret do not give what it advertised", stage=self.stage, peer=owner
                )
        for owner, secret in secrets.items():
            assert secret is not None
            if owner in self._alive:
                add_keystream(self._total, secret, subtract=True)
            else:
                self._remove_pair_masks(owner, secret)
        for given in (*self._shares.values(), *self._keys.values()):
            given.clear()
        session = self.hall.session
        words = self._total
        try:
            counts = session.packing.unpack(words, survivors=len(self.survivors), bound=session.spec.bound)
        except SecureSumError as error:
            error.at(self.stage)
            raise
        packed = words.astype("<u8", copy=False).data.cast("B")
        message = encode(
            OpenedMessage(VERSION, tag(self.transcript.contexts.common), len(self.survivors), packed)
        )
        return Opened(self.hall, counts, self.survivors, message), {}

    def _needed(self, owner: int) -> bool:
        """Whether any mask of the owner is in the sum: not if it dropped and so did all its neighbours."""
        return owner in self._alive or bool(self.hall.topology.neighbours(owner, self._alive))

    def _recovered(self, owner: int) -> bytes | None:
        """The owner's secret, None if it can't be had. Who dealt shares off its polynomial is blamed."""
        session, shares = self.hall.session, self._shares[owner]
        if len(shares) < session.threshold:
            return None
        which: Which = 0 if owner in self._alive else 1
        advert, contexts = self._advert(owner), self.transcript.contexts
        dealt = {
            holder: (contexts.between(owner, holder), record)
            for holder, record in (self._dealt(owner).items() if which and session.hybrid else ())
        }

        def right(secret: bytes) -> bool:
            if which == 0:
                return is_seed(secret, session.context0, owner, advert)
            return is_mask_secret(secret, owner, advert, dealt)

        if self._on_one_polynomial(shares):
            secret = None
            with suppress(ShareError):
                secret = combine(shares, session.threshold)
            if secret is not None and right(secret):
                return secret
            wrong = tuple(sorted(shares)[: session.threshold])
            recovered = None
        else:
            recovered, wrong = recover(shares, session.threshold, right, self.hall.rng)
        if session.mode is Mode.ACTIVE:
            # t shares that do not give the secret; where it was found, t that give it and one off their
            # polynomial: t with that one may give another private key of the same public key.
            points = wrong
            if recovered is not None:
                points = (wrong[0], *[x for x in sorted(shares) if x not in wrong][: session.threshold])
            holders = sorted(x - 1 for x in points)
            keys = encode_records({holder: self._keys[owner][holder] for holder in holders})
            signature, records = self.transcript.dealt[owner]
            adverts = self.transcript.contexts.seen(owner)
            self.hall.accuse(
                DealingEvidence(VERSION, session, owner, adverts, records, signature, which, keys)
            )
        return recovered

    def _on_one_polynomial(self, shares: dict[int, bytes]) -> bool:
        xs = tuple(sorted(shares))
        if xs not in self._parity:
            self._parity[xs] = parity_weights(xs, self.hall.session.threshold, self.hall.rng)
        syndrome: int = sum(map(mul, self._parity[xs], (int.from_bytes(shares[x]) for x in xs)))
        return syndrome % PRIME == 0

    def _remove_pair_masks(self, owner: int, secret: bytes) -> None:
        """Take off the masks between a dropped client and each survivor that had put one on.

        Raises:
            ShareError: hybrid sessions: a survivor dealt another part of their mask than it signed; ``peer``
                is that survivor.
        """
        pair = mask_pair(secret, self._advert(owner))
        masks: list[tuple[bytes | bytearray, bool]] = []
        dealt = self._dealt(owner) if self.hall.session.hybrid else {}
        for peer in self.hall.topology.neighbours(owner, self._alive):
            theirs = self._advert(peer).mask_key
            agreed = pair.agree(theirs)
            ids, keys = (
                ((owner, peer), (pair.public, theirs))
                if owner < peer
                else ((peer, owner), (theirs, pair.public))
            )
            # The survivor added the mask if its id is the lower one; take off what it put on.
            between = self.transcript.contexts.between(owner, peer)
            if isinstance(pair, HybridMaskPair):
                ours_part = pair.part(between, (owner, peer)) if peer in dealt else b""
                theirs_part = self._part_of(peer, owner, pair)
                parts = (ours_part, theirs_part) if owner < peer else (theirs_part, ours_part)
                seed = hybrid_pair_seed(agreed, parts, between, ids, keys)
            else:
                seed = pair_seed(agreed, between, ids, keys)
            masks.append((seed, peer < owner))
        add_keystreams(self._total, masks)
        pair.erase()

    def _part_of(self, dealer: int, owner: int, pair: HybridMaskPair) -> bytes:
        """What a survivor added to the seed of its mask with a dropped client; empty if it dealt none."""
        record = self._dealt(dealer).get(owner)
        if record is None:
            return b""
        beside, ends = Encapsulated.cut(record[SEALED_BYTES:]), (dealer, owner)
        part = beside.part(pair.kem, self.transcript.contexts.between(dealer, owner), ends)
        if part is not None:
            return part
        session, (signature, records) = self.hall.session, self.transcript.dealt[dealer]
        if session.mode is Mode.ACTIVE:
            adverts = self.transcript.contexts.seen(dealer)
            seed = pair.kem_seed()
            self.hall.accuse(PartEvidence(VERSION, session, dealer, adverts, records, signature, owner, seed))
        raise ShareError(
            f"the part of its mask with client {owner} is not the one that it signed",
            stage=self.stage,
            peer=dealer,
        )

    def _dealt(self, client_id: int) -> dict[int, bytes]:
        """What a client dealt, by holder."""
        _, records = self.transcript.dealt[client_id]
        return decode_records(records, self.hall.session.dealt_bytes, stage=self.stage)

    def _advert(self, client_id: int) -> Advert:
        return read_advert(self.transcript.adverts[client_id], self.hall.session)


def read_opened(state: Finished, data: bytes) -> tuple[NDArray[np.int64], int]:
    """Client: the opened sum and the number of survivors, as the server says; nothing vouches for the sum.

    Raises:
        MessageError, ContextMismatch: the message is not one of this session.
        ProtocolError: its number of survivors is not that of the survivors who were to open it.
        SumError: the words can't be a sum.
    """
    session, stage = state.party.session, Stage.UNMASK
    words = session.packing.length
    context = session.context0 if state.party.chosen else state.context
    message = decode(OpenedMessage, data, context, limit=FRAME_BYTES + 8 * words, stage=stage)
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
