"""Stage 2, share: each client shares its two secrets among its neighbours, sealed.

Server to client, before: the adverts. Client to server: per neighbour two sealed Shamir shares, of the
self-mask seed and of the mask key (hybrid: with what is encapsulated to the neighbour's two ML-KEM keys, and,
active, a signature over what this neighbour gets), and (active) a signature over all of them under its
sealing key. A client deals to itself too, so that t clients are enough to open even when no more than t are
left. On a chosen graph it deals to those that it chose, and to nobody else.

The signed seals commit an honest dealer to its shares: whoever reveals the key to one of them later shows
what was dealt, and can show nothing else. The signature is under the key in the advert, which the identity
has signed: a complaint answers nobody but who knows what it reveals.

Bonawitz et al. 2017, figure 4, round 1.
"""

from __future__ import annotations

from prism_crypto.errors import (
    MessageError,
    ProtocolError,
    PublicKeyError,
    SecureSumError,
    SignatureError,
)
from prism_crypto.keeping.identity import MAX_CLIENT_ID
from prism_crypto.primitives.agreement_proof import KeyVerifier
from prism_crypto.primitives.context import (
    DIGEST_BYTES,
    advert_digest,
    context1,
    encode_ids,
    pair_context,
    sighting,
    tag,
    u32,
    view_digest,
)
from prism_crypto.primitives.hybrid import HybridMaskPair, encapsulate_for, hybrid_seal_keys
from prism_crypto.primitives.keys import AgreedKey, seal, seal_keys
from prism_crypto.primitives.shamir import coefficients, split
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.advert import Advert, advert_bytes, check_advert, read_advert
from prism_crypto.stages.contexts import Contexts
from prism_crypto.stages.evidence import DealingEvidence, PartEvidence, check_record
from prism_crypto.stages.gathering import Gathering, Hall
from prism_crypto.stages.party import Neighbour
from prism_crypto.stages.states import Advertised, Shared
from prism_crypto.stages.transcript import Transcript
from prism_crypto.stages.upload import Uploading
from prism_crypto.wire.messages import (
    DEALING,
    FRAME_BYTES,
    ID_BYTES,
    RECORD,
    VERSION,
    AdvertsMessage,
    ShareMessage,
    SharesMessage,
    decode,
    decode_records,
    encode,
    encode_records,
    record_body,
    share_body,
)

__all__ = ["Sharing", "share"]


def share(state: Advertised, data: bytes) -> tuple[Shared, bytes]:
    """Client: check the adverts, and seal a pair of shares for each neighbour and itself.

    (On a chosen graph: for each neighbour that it chose.)

    Raises:
        MessageError, ContextMismatch, PublicKeyError, SignatureError, IdentityError: an advert is not what
            an honest client of this session sends; ``peer`` is its sender.
        ProtocolError: an advert of somebody who is not invited, or this client's own replaced or missing.
        ThresholdError: too few clients advertised.
    """
    party, session = state.party, state.party.session
    adverts, everything = _read_adverts(state, data)
    context = context1(session.context0, everything)
    me = party.client_id

    keys = {me: state.sealing.public} | {peer: advert.sealing_key for peer, advert in adverts.items()}
    holders = [peer for peer in state.choice if peer in adverts] if party.chosen else sorted(keys)
    points = [holder + 1 for holder in holders]
    # What a key depends on, the polynomials do, and on nothing else: on a chosen graph not on who else was
    # seen, or two copies of this client, shown other neighbours, would seal two messages under one key.
    ours = sighting(me, state.advert)
    dealt_in = context1(session.context0, view_digest([ours])) if party.chosen else context
    seed_shares, mask_key_shares = (
        split(secret, session.threshold, points, coefficients(state.dealing.reveal(), dealt_in, usage))
        for secret, usage in ((state.seed.reveal(), "seed"), (state.masking.private(), "key"))
    )
    agreements: dict[int, AgreedKey] = {}
    # Masks, too, are agreed on now: a client has time for it while it waits; with its vector, others wait.
    masks: dict[int, AgreedKey] = {}
    contexts = dict.fromkeys(keys, context)
    if party.chosen:
        for peer, advert in adverts.items():
            contexts[peer] = pair_context(session.context0, ours, sighting(peer, advert.encode()))
    for peer, key in keys.items():
        if party.chosen and peer == me:
            continue
        try:
            # A client agrees with itself, too: with its own public key, on what nobody else can know.
            agreements[peer] = state.sealing.agree(key)
            if peer != me:
                masks[peer] = state.masking.agree(adverts[peer].mask_key)
        except SecureSumError as error:
            for agreed in (*agreements.values(), *masks.values()):
                agreed.erase()
            error.at(Stage.SHARE, peer)
            raise
    sealed: dict[int, bytes] = {}
    for holder in holders:
        kem = read_advert(state.advert, session).kem_keys if holder == me else adverts[holder].kem_keys
        ends, between = (me, holder), contexts[holder]
        under, beside = _seal_keys(state, agreements[holder], between, ends, (keys[me], keys[holder]), kem)
        pair = zip(under, (seed_shares[holder + 1], mask_key_shares[holder + 1]), strict=True)
        sealed[holder] = b"".join(seal(key_, between, ends, share_) for key_, share_ in pair) + beside
        if session.signs_records:
            sealed[holder] += state.sealing.sign(RECORD, record_body(between, ends, sealed[holder]))

    records = encode_records(sealed)
    signature = b""
    if party.active:
        signature = state.sealing.sign(DEALING, share_body(context, me, records))
    message = encode(ShareMessage(VERSION, tag(context), records, signature))
    own = agreements.pop(me, None)
    neighbours = {
        peer: Neighbour(
            keys[peer],
            adverts[peer].owner,
            adverts[peer].mask_key,
            agreed,
            masks[peer],
            contexts[peer],
            holder=peer in sealed,
            dealer=me in adverts[peer].choice or not party.chosen,
        )
        for peer, agreed in agreements.items()
    }
    state.dealing.erase()
    return Shared(party, context, state.sealing, state.masking, state.seed, own, neighbours), message


def _seal_keys(
    state: Advertised,
    agreed: AgreedKey,
    context: bytes,
    ends: tuple[int, int],
    keys: tuple[bytes, bytes],
    kem_keys: tuple[bytes, ...],
) -> tuple[tuple[bytes, bytes], bytes]:
    """The keys under which two shares are sealed; in a hybrid session what is encapsulated beside them."""
    if not isinstance(state.masking, HybridMaskPair):
        return seal_keys(agreed, context, ends, keys), b""
    secret, beside = encapsulate_for(state.masking, (kem_keys[0], kem_keys[1]), context, ends)
    return hybrid_seal_keys(agreed, secret, beside.sealing, context, ends, keys), beside.encode()


def _read_adverts(state: Advertised, data: bytes) -> tuple[dict[int, Advert], bytes]:
    """The neighbours' adverts, checked, and the hash of all adverts (on a chosen graph, of those seen)."""
    party, session, stage = state.party, state.party.session, Stage.SHARE
    width = advert_bytes(session)
    # Whoever likes may choose this client as its neighbour.
    limit = FRAME_BYTES + (session.invited.count if party.chosen else session.degree + 1) * (ID_BYTES + width)
    message = decode(AdvertsMessage, data, session.context0, limit=limit, stage=stage)
    records = decode_records(message.adverts, width, stage=stage)

    if party.sparse and not party.chosen:
        # The neighbours alone are seen, so the hash of all adverts comes from the server: a semi-honest one.
        if len(message.digest) != DIGEST_BYTES or party.client_id in records or len(records) > session.degree:
            raise MessageError(f"expected at most {session.degree} neighbours and a hash", stage=stage)
        if max(records, default=0) > MAX_CLIENT_ID:
            raise ProtocolError("an advert of an id that no client has", stage=stage, peer=max(records))
        everything = message.digest
        party.check_quorum(session.quorum, len(records) + 1, stage, "advertised")
    else:
        if message.digest:
            raise MessageError("a hash of adverts that this client hashes itself", stage=stage)
        if records.pop(party.client_id, None) != state.advert:
            raise ProtocolError("this client's own advert was replaced", stage=stage)
        for client_id in records:
            if client_id not in session.everyone:
                raise ProtocolError("an advert of a client that was not invited", stage=stage, peer=client_id)
        total = len(records) + 1
        if party.chosen:
            sightings = (sighting(peer, advert) for peer, advert in records.items())
            everything = view_digest([sighting(party.client_id, state.advert), *sightings])
            total, known = session.quorum, sum(peer in records for peer in state.choice)
            party.check_quorum(total, known, stage, "advertised")
        else:
            everything = advert_digest([message.adverts], total)
            party.check_quorum(total, total, stage, "advertised")

    adverts = {
        peer: check_advert(record, peer, session, party.roster, stage) for peer, record in records.items()
    }
    for peer, advert in adverts.items() if party.chosen else ():
        if peer not in state.choice and party.client_id not in advert.choice:
            raise ProtocolError("an advert of a client that is no neighbour", stage=stage, peer=peer)
    _check_distinct_keys(adverts, state)
    return adverts, everything


def _check_distinct_keys(adverts: dict[int, Advert], state: Advertised) -> None:
    """No key appears twice: one who repeats another's key can't answer for it."""
    seen = set(read_advert(state.advert, state.party.session).keys)
    for peer, advert in adverts.items():
        for key in advert.keys:
            if key in seen:
                # Nobody is named: which of the two is the owner, this client can't tell. An honest server
                # lets no key through twice.
                raise PublicKeyError(
                    f"client {peer} has a public key that another client sent too", stage=Stage.SHARE
                )
            seen.add(key)


class Sharing(Gathering):
    """Server: collect the sealed shares, which it can't read.

    Args:
        hall: the session.
        adverts: the adverts of U1, the clients that advertised, in the order of their ids.
        contexts: ctx1.
    """

    stage = Stage.SHARE

    def __init__(self, hall: Hall, adverts: dict[int, bytes], contexts: Contexts) -> None:
        super().__init__(hall, tuple(adverts))
        self.contexts = contexts
        self._adverts = adverts
        self._dealt: dict[int, tuple[bytes, bytes]] = {}

    def accept(self, peer: int, data: bytes) -> None:
        """Check that there is one sealed pair for the sender and each of its neighbours, signed."""
        session, context = self.hall.session, self.contexts.of(peer)
        limit = FRAME_BYTES + (session.degree + 1) * (ID_BYTES + session.dealt_bytes)
        message = decode(ShareMessage, data, context, limit=limit, stage=self.stage, peer=peer)
        key = read_advert(self._adverts[peer], session).sealing_key
        body = share_body(context, peer, message.sealed)
        self.check_signature(peer, body, message.signature, under=(DEALING, key))
        expected = self.hall.topology.holders(peer, self._adverts)
        try:
            width = session.dealt_bytes
            dealt = decode_records(message.sealed, width, stage=self.stage, peer=peer)
            if list(dealt) != expected:
                raise ProtocolError(
                    f"expected shares for {len(expected)} clients, got {len(dealt)} or others",
                    stage=self.stage,
                    peer=peer,
                )
        except SecureSumError:
            if session.mode is Mode.ACTIVE:
                adverts, signature = self.contexts.seen(peer), message.signature
                self.hall.accuse(
                    DealingEvidence(VERSION, session, peer, adverts, message.sealed, signature, 0, b"")
                )
            raise
        if session.signs_records:
            self._check_records(peer, key, dealt, message)
        self._dealt[peer] = (message.signature, message.sealed)

    def _check_records(self, peer: int, key: bytes, dealt: dict[int, bytes], message: ShareMessage) -> None:
        """Check what its holders will: that each record of a hybrid dealing is signed by itself, too."""
        dealer = KeyVerifier(key)
        for holder, record in dealt.items():
            try:
                check_record(record, self.contexts.between(peer, holder), (peer, holder), dealer)
            except SignatureError as error:
                session, adverts = self.hall.session, self.contexts.seen(peer)
                self.hall.accuse(
                    PartEvidence(
                        VERSION, session, peer, adverts, message.sealed, message.signature, holder, b""
                    )
                )
                error.at(self.stage, peer)
                raise

    def close(self) -> tuple[Uploading, dict[int, bytes]]:
        """Send each client the shares for it, and say who shared.

        Raises:
            ThresholdError: too few shared.
        """
        self.check_quorum("shared")
        sharers, width = tuple(sorted(self._dealt)), self.hall.session.dealt_bytes
        inbox: dict[int, list[bytes]] = {client_id: [] for client_id in sharers}
        for sender in sharers:
            prefix = u32(sender)
            _, records = self._dealt[sender]
            for receiver, sealed in decode_records(records, width, stage=self.stage).items():
                if receiver in inbox:
                    inbox[receiver].append(prefix + sealed)

        received: dict[int, bytes] = {}
        outbound = {}
        everyone = encode_ids(sharers)
        for receiver in sharers:
            known = everyone
            if self.hall.session.graph != "complete":
                near = self.hall.topology.neighbours(receiver, frozenset(sharers))
                known = encode_ids(sorted([receiver, *near]))
            received[receiver] = b"".join(inbox.pop(receiver))
            outbound[receiver] = encode(
                SharesMessage(
                    VERSION, tag(self.contexts.of(receiver)), len(sharers), known, received[receiver]
                )
            )
        transcript = Transcript(self.contexts, self._adverts, sharers, self._dealt, received)
        return Uploading(self.hall, transcript), outbound
