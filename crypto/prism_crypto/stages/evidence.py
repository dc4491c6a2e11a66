"""Proofs that a client broke the protocol, for people who hold no secret.

Each rests on the accused one's own signature: over what no honest client signs, or over two things that no
honest client signs together. All say in which session it was, so ctx0 can be computed, and all but the
first hold the adverts, so ctx1 can. What they reveal beside signed messages, the accused client knows
itself.

`docs/secure-sum.md` says why nobody who follows the protocol can be accused, whatever server and clients do.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal, TypeAlias

import msgspec

from prism_crypto.blame import Blame
from prism_crypto.errors import (
    EvidenceError,
    MessageError,
    PublicKeyError,
    SealError,
    SecureSumError,
    ShareError,
    SignatureError,
)
from prism_crypto.keeping.identity import MAX_CLIENT_ID, SIGNATURE_BYTES, Roster
from prism_crypto.primitives.agreement_proof import (
    PROOF_BYTES,
    KeyVerifier,
    agreed_point,
    check_key_signature,
    claimed_agreement,
)
from prism_crypto.primitives.context import (
    advert_digest,
    context1,
    pair_context,
    self_mask_commitment,
    sighting,
    u32,
    view_digest,
)
from prism_crypto.primitives.hybrid import (
    KEM_SEED_BYTES,
    Encapsulated,
    HybridMaskPair,
    Kem,
    check_available,
    hybrid_seal_keys,
)
from prism_crypto.primitives.keys import (
    KEY_BYTES,
    VOUCHER_BYTES,
    AgreedKey,
    KeyPair,
    open_sealed,
    seal_keys,
    voucher,
)
from prism_crypto.primitives.shamir import PRIME, combine, off
from prism_crypto.session import Session
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.advert import Advert, advert_bytes, check_usable, read_advert
from prism_crypto.wire.messages import (
    DEALING,
    RECORD,
    SEALED_BYTES,
    SEALED_SHARE_BYTES,
    VERSION,
    VOUCHED_UPLOAD,
    decode_records,
    read_upload_statement,
    record_body,
    share_body,
    unmask_body,
)

__all__ = [
    "AdvertEvidence",
    "DealingEvidence",
    "Evidence",
    "PartEvidence",
    "SealEvidence",
    "UnmaskEvidence",
    "VoucherEvidence",
    "Which",
    "check_record",
    "encode_evidence",
    "half",
    "is_false_voucher",
    "is_kem_seed",
    "is_mask_secret",
    "is_seed",
    "mask_pair",
    "open_share",
    "opens",
    "shown_keys",
    "verify_evidence",
]

_MAX_BYTES = 4 * 2**20

_MAX_PROOFS = 16
"""So many proofs of agreement are checked in one piece of evidence, some milliseconds each. Whoever complains
rightly of so many, and wrongly of another, has given up as many confederates as an offer excludes."""

_MAX_COMBINED = 1000
"""The largest threshold of which shares are combined: that takes time t², a tenth of a second for so many."""

Which: TypeAlias = Literal[0, 1]
"""Which of a client's two secrets: its self-mask seed, or its mask key."""


class _Evidence(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What all evidence starts with, after its kind: in which session, against whom."""

    version: int
    session: Session
    accused: int


class AdvertEvidence(_Evidence, frozen=True, tag=1):
    """A signed advert with a key that no honest client makes."""

    advert: bytes


class SealEvidence(_Evidence, frozen=True, tag=2):
    """Signed sealed shares, of which those for one client do not open under what both agreed on."""

    adverts: bytes
    sealed: bytes
    signature: bytes
    receiver: int
    proof: bytes


class DealingEvidence(_Evidence, frozen=True, tag=3):
    """Signed sealed shares of one secret, of which t open and do not give what their dealer advertised, or
    t + 1 open and lie on no polynomial of degree t - 1.
    """

    adverts: bytes
    sealed: bytes
    signature: bytes
    which: Which
    keys: bytes


class PartEvidence(_Evidence, frozen=True, tag=5):
    """Hybrid sessions: signed sealed shares with which a part of a mask came that is not the one signed.

    ``seed``: of the receiver's ML-KEM key for masks, which it has shown, or whose root was reconstructed.
    It may be empty where the receiver's record lacks its own signature: that convicts without it.
    """

    adverts: bytes
    sealed: bytes
    signature: bytes
    receiver: int
    seed: bytes


class VoucherEvidence(_Evidence, frozen=True, tag=6):
    """On a chosen graph: a signed upload with a voucher that is not what its sender agreed on with another.

    ``statement``: what the upload's signature covers, see `prism_crypto.wire.messages.upload_statement`.
    """

    adverts: bytes
    statement: bytes
    signature: bytes
    receiver: int
    proof: bytes


class UnmaskEvidence(_Evidence, frozen=True, tag=4):
    """A signed last message that contradicts the sealed shares which its sender, as it says, received."""

    adverts: bytes
    received: bytes
    seed_keys: bytes
    mask_keys: bytes
    complaints: bytes
    signature: bytes


Evidence: TypeAlias = (
    AdvertEvidence | SealEvidence | DealingEvidence | UnmaskEvidence | PartEvidence | VoucherEvidence
)

_EVIDENCE: msgspec.msgpack.Decoder[Evidence] = msgspec.msgpack.Decoder(Evidence)


def encode_evidence(evidence: Evidence) -> bytes:
    """The evidence's one encoding."""
    return msgspec.msgpack.encode(evidence)


def open_share(key: bytes, context: bytes, ends: tuple[int, int], sealed: bytes) -> bytes:
    """One share out of its seal.

    Raises:
        SealError: it does not open.
        ShareError: what is in it is no field element.
    """
    share = open_sealed(key, context, ends, sealed)
    if int.from_bytes(share) >= PRIME:
        raise ShareError("a share is not a canonical field element", peer=ends[0])
    return share


def shown_keys(
    shown: bytes,
    agreed: bytes,
    context: bytes,
    ends: tuple[int, int],
    keys: tuple[bytes, bytes],
    record: bytes,
) -> tuple[bytes, bytes] | None:
    """The keys to what one client dealt to another, by what the other shows of it.

    Args:
        shown: a complaint: a proof of agreement, in hybrid sessions with what was encapsulated.
        agreed: what that proof is for, 32 bytes.
        context, ends, keys: ctx1, ids and X25519 sealing keys of dealer and holder.
        record: what was dealt.

    Returns:
        None if what was encapsulated is not what the dealer signed: who of the two is lying, nobody can tell.
    """
    key = AgreedKey(agreed)
    if len(record) == SEALED_BYTES:
        return seal_keys(key, context, ends, keys)
    beside, secret = Encapsulated.cut(record[SEALED_BYTES:]), shown[PROOF_BYTES:]
    if not beside.shows(secret, context, ends):
        return None
    return hybrid_seal_keys(key, secret, beside.sealing, context, ends, keys)


def check_record(record: bytes, context: bytes, ends: tuple[int, int], dealer: KeyVerifier) -> None:
    """Return if a dealer has signed the record of one holder by itself, beside its dealing as a whole.

    Args:
        record: what was dealt in an active hybrid session, the signature at its end.
        context, ends: ctx1, ids of dealer and holder.
        dealer: of its sealing key.

    Raises:
        SignatureError: it has not.
    """
    dealt, signature = record[:-SIGNATURE_BYTES], record[-SIGNATURE_BYTES:]
    dealer.check(RECORD, record_body(context, ends, dealt), signature)


def opens(both: tuple[bytes, bytes], context: bytes, ends: tuple[int, int], pair: bytes) -> bool:
    """Whether both of a pair of sealed shares open to shares."""
    try:
        for which, key in enumerate(both):
            open_share(key, context, ends, half(pair, which))
    except (SealError, ShareError):
        return False
    return True


def half(pair: bytes, which: int) -> bytes:
    """One of a pair of sealed shares."""
    return pair[which * SEALED_SHARE_BYTES :][:SEALED_SHARE_BYTES]


def is_false_voucher(
    vouchers: bytes, proof: bytes, context: bytes, ends: tuple[int, int], adverts: Mapping[int, Advert]
) -> bool:
    """Whether what ``ends[0]`` said to ``ends[1]`` when it uploaded is not what only these two can compute.

    Args:
        vouchers: the sender's records.
        proof: the receiver's, of what the two agreed on.
        context: ctx1 of the two.
        ends: ids of sender and receiver.
        adverts: those of the two.

    Raises:
        PublicKeyError: the proof does not hold.
        EvidenceError: the sender said nothing to the receiver.
        MessageError: these are no records.
    """
    sender, receiver = ends
    said = decode_records(vouchers, VOUCHER_BYTES, stage=Stage.UPLOAD).get(receiver)
    if said is None:
        raise EvidenceError("nothing was vouched for to the one who says that it is false")
    keys = adverts[receiver].sealing_key, adverts[sender].sealing_key
    agreed = agreed_point(proof, *keys, context)
    return voucher(AgreedKey(agreed), "uploaded", context, ends) != said


def is_seed(secret: bytes, context0: bytes, owner: int, advert: Advert) -> bool:
    """Whether this is the self-mask seed that an advert commits to."""
    return self_mask_commitment(context0, owner, secret) == advert.commitment


def is_mask_secret(
    secret: bytes, owner: int, advert: Advert, dealt: Mapping[int, tuple[bytes, bytes]]
) -> bool:
    """Whether this is the private half of an advert's mask key.

    In hybrid sessions: the root of its two keys for masks, and of all parts that their owner has signed.

    Args:
        secret: 32 bytes.
        owner: whose it is said to be.
        advert: the owner's.
        dealt: for each of its holders ctx1 of the two, and what the owner dealt to it.
    """
    pair = mask_pair(secret, advert)
    right = pair.public == advert.mask_key
    if right and isinstance(pair, HybridMaskPair):
        right = pair.kem.public == advert.kem_keys[1] and all(
            Encapsulated.cut(record[SEALED_BYTES:]).names(
                pair.part(context, (owner, holder)), context, (owner, holder)
            )
            for holder, (context, record) in dealt.items()
        )
    pair.erase()
    return right


def is_kem_seed(seed: bytes, advert: Advert) -> bool:
    """Whether the ML-KEM key for masks of a hybrid advert is derived from this."""
    return len(seed) == KEM_SEED_BYTES and Kem(seed).public == advert.kem_keys[1]


def mask_pair(secret: bytes, advert: Advert) -> KeyPair:
    """The keys for masks that a reconstructed secret is, or in a hybrid session is the root of."""
    return HybridMaskPair(secret) if advert.kem_keys else KeyPair(secret)


def verify_evidence(evidence: bytes, roster: Roster) -> Blame:
    """Check what is said to prove that a client broke the protocol.

    Args:
        evidence: as in `Blame.evidence`.
        roster: the pinned keys, the accused one's among them.

    Returns:
        Who it was, at which stage, what it did, and in which session. The caller decides whether that session
        is its concern.

    Raises:
        EvidenceError: it proves nothing.

    What was found is kept, so that evidence offered again costs a hash.
    """
    if not isinstance(evidence, bytes):
        raise EvidenceError(f"this evidence proves nothing: expected bytes, not {type(evidence).__name__}")
    if len(evidence) > _MAX_BYTES:
        raise EvidenceError(
            f"this evidence proves nothing: expected {_MAX_BYTES} bytes at most, got {len(evidence)}"
        )
    seen = (hashlib.sha256(evidence).digest(), roster.hash)
    if seen not in _verdicts:
        if len(_verdicts) >= _MAX_VERDICTS:
            _verdicts.clear()
        _verdicts[seen] = _verdict(evidence, roster)
    verdict = _verdicts[seen]
    if isinstance(verdict, str):
        raise EvidenceError(f"this evidence proves nothing: {verdict}")
    return dataclasses.replace(verdict, evidence=evidence)


_MAX_VERDICTS = 1024
_verdicts: dict[tuple[bytes, bytes], Blame | str] = {}
"""By the hashes of evidence and roster: whom it convicts (without the evidence), or why it proves nothing."""


def _verdict(evidence: bytes, roster: Roster) -> Blame | str:
    try:
        found = _decoded(evidence)
        stage, deed = _convicted(found, roster)
    except SecureSumError as error:
        return error.message
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return "not the canonical encoding of evidence"
    return Blame(found.accused, stage, deed, found.session.federation, found.session.number, b"")


def _decoded(evidence: bytes) -> Evidence:
    found = _EVIDENCE.decode(evidence)
    session = found.session
    if found.version != VERSION or msgspec.msgpack.encode(found) != evidence:
        raise EvidenceError(f"not the canonical encoding of evidence of version {VERSION}")
    if session.mode is not Mode.ACTIVE or session.graph == "harary":
        raise EvidenceError("there is evidence of active sessions only")
    if session.hybrid:
        check_available()
    # What the work is measured by: the rest of the session is bound by signatures alone.
    count = session.invited.count
    if not (2 <= count <= MAX_CLIENT_ID and 0 < session.threshold <= count and 0 < session.degree < count):
        raise EvidenceError(
            f"no session has {count} clients, threshold {session.threshold} and degree {session.degree}"
        )
    return found


def _convicted(evidence: Evidence, roster: Roster) -> tuple[Stage, str]:
    """The stage and the deed.

    Raises:
        SecureSumError: the evidence shows nothing that an honest client does not do.
    """
    session, accused = evidence.session, evidence.accused
    if isinstance(evidence, AdvertEvidence):
        advert = read_advert(evidence.advert, session)
        signed = advert.signed_part(session.context0, accused)
        roster.verify(accused, Stage.ADVERTISE, signed, advert.signature)
        try:
            check_usable(advert, session.context0, accused)
        except PublicKeyError as error:
            return Stage.ADVERTISE, f"it signed an advert in which {error.message}"
        raise EvidenceError("the advert's keys are sound")
    records = decode_records(evidence.adverts, advert_bytes(session), stage=Stage.SHARE)
    # Made-up sessions of thousands would keep whoever checks them busy: there are no more than are pinned.
    if len(records) > len(roster):
        raise EvidenceError(f"{len(records)} adverts, where {len(roster)} clients are pinned")
    if session.graph == "chosen":
        everything = view_digest(sighting(client_id, data) for client_id, data in records.items())
    else:
        everything = advert_digest([evidence.adverts], len(records))
    context = context1(session.context0, everything)
    adverts = {client_id: read_advert(data, session) for client_id, data in records.items()}
    if accused not in adverts:
        raise EvidenceError("the accused client took no part in that session")
    if isinstance(evidence, UnmaskEvidence):
        return _contradicted(evidence, roster, context, adverts)
    if isinstance(evidence, VoucherEvidence):
        return _vouched_falsely(evidence, roster, context, adverts)
    body = share_body(context, accused, evidence.sealed)
    _check_signed(evidence, roster, adverts[accused], DEALING, body, evidence.signature)
    dealt = None
    with suppress(MessageError):
        dealt = decode_records(evidence.sealed, session.dealt_bytes, stage=Stage.SHARE)
    # On a chosen graph the accused client has seen its neighbours' adverts, and deals to those that it chose.
    chosen = adverts[accused].choice if session.graph == "chosen" else adverts
    if dealt is None or list(dealt) != [holder for holder in chosen if holder in adverts]:
        return Stage.SHARE, "it signed something else than a pair of sealed shares for each client"
    if isinstance(evidence, SealEvidence):
        return _sealed_garbage(evidence, context, adverts, dealt)
    if isinstance(evidence, PartEvidence):
        return _sent_another_part(evidence, context, adverts, dealt)
    return _dealt_nonsense(evidence, context, adverts, dealt)


def _check_signed(
    evidence: Evidence, roster: Roster, advert: Advert, usage: str, body: bytes, signature: bytes
) -> None:
    """Check that the accused has signed this with the sealing key of an advert that its identity has signed.

    Raises:
        SignatureError: it has not.
    """
    accused, context0 = evidence.accused, evidence.session.context0
    roster.verify(accused, Stage.ADVERTISE, advert.signed_part(context0, accused), advert.signature)
    check_key_signature(advert.sealing_key, usage, body, signature)


def _between(
    evidence: Evidence, context: bytes, adverts: dict[int, Advert], first: int, second: int
) -> bytes:
    """ctx1 of two clients, by the adverts that the accused one saw; it opens nothing of others."""
    if evidence.session.graph != "chosen" or first not in adverts or second not in adverts:
        return context
    both = (sighting(client_id, adverts[client_id].encode()) for client_id in (first, second))
    return pair_context(evidence.session.context0, *both)


def _sealed_garbage(
    evidence: SealEvidence, context: bytes, adverts: dict[int, Advert], dealt: dict[int, bytes]
) -> tuple[Stage, str]:
    accused, receiver = evidence.accused, evidence.receiver
    if receiver not in dealt or receiver == accused:
        raise EvidenceError("nothing was sealed for the one who complains")
    expected, length = evidence.session.complaint_bytes, len(evidence.proof)
    if length != expected:
        raise EvidenceError(f"a proof of what was agreed on is {expected} bytes, not {length}")
    theirs, ours = adverts[accused].sealing_key, adverts[receiver].sealing_key
    between = _between(evidence, context, adverts, accused, receiver)
    agreed = agreed_point(evidence.proof[:PROOF_BYTES], ours, theirs, between)
    ends, record = (accused, receiver), dealt[receiver]
    both = shown_keys(evidence.proof, agreed, between, ends, (theirs, ours), record)
    if both is None:
        raise EvidenceError("what is shown is not what was encapsulated")
    if opens(both, between, ends, record):
        raise EvidenceError("the shares open")
    return Stage.SHARE, f"what it sealed for client {receiver} does not open to shares"


def _vouched_falsely(
    evidence: VoucherEvidence, roster: Roster, context: bytes, adverts: dict[int, Advert]
) -> tuple[Stage, str]:
    accused, receiver, stage = evidence.accused, evidence.receiver, Stage.UPLOAD
    if evidence.session.graph != "chosen":
        raise EvidenceError("there are vouchers on chosen graphs only")
    covered, vouchers = read_upload_statement(evidence.statement)
    body = context + u32(accused) + covered
    _check_signed(evidence, roster, adverts[accused], VOUCHED_UPLOAD, body, evidence.signature)
    if receiver not in adverts or receiver == accused:
        raise EvidenceError("nothing was vouched for to the one who says that it is false")
    between = _between(evidence, context, adverts, accused, receiver)
    if not is_false_voucher(vouchers, evidence.proof, between, (accused, receiver), adverts):
        raise EvidenceError("the voucher is true")
    return stage, f"its voucher for client {receiver}, that its upload carries their mask, is false"


def _sent_another_part(
    evidence: PartEvidence, context: bytes, adverts: dict[int, Advert], dealt: dict[int, bytes]
) -> tuple[Stage, str]:
    accused, receiver, session = evidence.accused, evidence.receiver, evidence.session
    if not session.hybrid or receiver not in dealt:
        raise EvidenceError("nothing was encapsulated to the one whose seed this is said to be")
    between = _between(evidence, context, adverts, accused, receiver)
    try:
        dealer = KeyVerifier(adverts[accused].sealing_key)
        check_record(dealt[receiver], between, (accused, receiver), dealer)
    except SignatureError:
        return Stage.SHARE, f"its record for client {receiver} is not signed by itself"
    # Whatever seed gives this public key: what an honest client encapsulates to it comes out right.
    if not is_kem_seed(evidence.seed, adverts[receiver]):
        raise EvidenceError(f"that is not the seed of the key of client {receiver}")
    beside = Encapsulated.cut(dealt[receiver][SEALED_BYTES:])
    if beside.part(Kem(evidence.seed), between, (accused, receiver)) is not None:
        raise EvidenceError("the part is the one that was signed")
    return Stage.SHARE, f"the part of a mask that it sent to client {receiver} is not the one that it signed"


def _dealt_nonsense(
    evidence: DealingEvidence, context: bytes, adverts: dict[int, Advert], dealt: dict[int, bytes]
) -> tuple[Stage, str]:
    accused, which, threshold = evidence.accused, evidence.which, evidence.session.threshold
    what = ("self-mask seed", "mask key")[which]
    if threshold > _MAX_COMBINED:
        raise EvidenceError(f"shares are combined up to a threshold of {_MAX_COMBINED}, not {threshold}")
    keys = decode_records(evidence.keys, KEY_BYTES, stage=Stage.UNMASK)
    if not threshold <= len(keys) <= threshold + 1 or not keys.keys() <= dealt.keys():
        raise EvidenceError(f"expected keys to the shares of {threshold} clients, or of one more")
    shares = {
        holder + 1: open_share(
            key,
            _between(evidence, context, adverts, accused, holder),
            (accused, holder),
            half(dealt[holder], which),
        )
        for holder, key in keys.items()
    }
    if len(shares) > threshold:
        # What t of them give is no matter: several private keys have one public key, so it may be right.
        last = max(shares)
        if not off(shares, last, shares.pop(last)):
            raise EvidenceError(f"the shares of the {what} lie on one polynomial")
        return Stage.SHARE, f"the shares that it dealt of its {what} lie on no polynomial of degree t - 1"
    try:
        secret = combine(shares, threshold)
    except ShareError:
        secret = None
    advert, right = adverts[accused], False
    if secret is not None and which == 0:
        right = is_seed(secret, evidence.session.context0, accused, advert)
    elif secret is not None:
        every = {i: (_between(evidence, context, adverts, accused, i), each) for i, each in dealt.items()}
        right = is_mask_secret(secret, accused, advert, every)
    if right:
        raise EvidenceError(f"the shares give the {what} that was advertised")
    return Stage.SHARE, f"the shares that it dealt do not give the {what} that it advertised"


def _contradicted(
    evidence: UnmaskEvidence, roster: Roster, context: bytes, adverts: dict[int, Advert]
) -> tuple[Stage, str]:
    accused, stage = evidence.accused, Stage.UNMASK
    complaints = decode_records(evidence.complaints, evidence.session.complaint_bytes, stage=stage)
    most = len(adverts) if evidence.session.graph == "chosen" else evidence.session.spare
    if len(complaints) > most:
        raise EvidenceError(f"{len(complaints)} complaints; no server takes more than {most}")
    body = unmask_body(
        context, accused, evidence.received, evidence.seed_keys, evidence.mask_keys, evidence.complaints
    )
    roster.verify(accused, stage, body, evidence.signature)
    received = decode_records(evidence.received, evidence.session.dealt_bytes, stage=stage)
    for which, blob in enumerate((evidence.seed_keys, evidence.mask_keys)):
        for owner, key in decode_records(blob, KEY_BYTES, stage=stage).items():
            try:
                between = _between(evidence, context, adverts, owner, accused)
                open_share(key, between, (owner, accused), half(received.get(owner, b""), which))
            except (SealError, ShareError):
                return stage, f"its key does not open the share that it holds of client {owner}'s secret"
    ours, undecided = adverts[accused].sealing_key, set()
    for dealer, proof in complaints.items():  # what is quick to see, of all
        if dealer not in received or dealer not in adverts:
            return stage, f"it complains of client {dealer}, whose shares it has not received"
        theirs, between = adverts[dealer].sealing_key, _between(evidence, context, adverts, dealer, accused)
        ends, record = (dealer, accused), received[dealer]
        # Whether or not it proves that: under what it says itself the shares open.
        both = shown_keys(proof, claimed_agreement(proof), between, ends, (theirs, ours), record)
        if both is None:
            undecided.add(dealer)
        elif opens(both, between, ends, record):
            return stage, f"it complains of client {dealer}, whose shares open"
    for dealer in sorted(complaints.keys() - undecided)[:_MAX_PROOFS]:
        theirs, between = adverts[dealer].sealing_key, _between(evidence, context, adverts, dealer, accused)
        try:
            agreed_point(complaints[dealer][:PROOF_BYTES], ours, theirs, between)
        except PublicKeyError:
            return stage, f"it complains of client {dealer} without proof"
    raise EvidenceError("the message agrees with what its sender received")
