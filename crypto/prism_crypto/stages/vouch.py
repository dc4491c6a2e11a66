"""On a graph that clients choose: what clients vouch for to one another, so that a server can't split them.

Nobody sees all of U2 and U3 there, so there is no set to sign. Instead two clients that mask with each other
exchange vouchers, 16 bytes that only these two can compute, through the server, which can withhold them and
nothing else. With an upload i tells each j: *my upload carries our mask*. Only with that does j count i as a
survivor; told that i survived and shown no such voucher, j gives no share of i's at all. At confirm, stage 4,
j tells each survivor whose shares it holds: *I count you as a survivor*. A client unmasks only with t of
these from those that it chose.

Bell et al. 2020, section 4, with vouchers in place of signatures; the proof is in docs/secure-sum.md.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import TypeAlias

from prism_crypto.errors import ProtocolError, SealError, SecureSumError, ThresholdError
from prism_crypto.keeping.identity import SIGNATURE_BYTES
from prism_crypto.primitives.agreement_proof import (
    check_key_signature,
    check_owner,
    curve_point,
    prove_agreement,
)
from prism_crypto.primitives.context import DIGEST_BYTES, SIGHTING_BYTES, context1, tag, u32, view_digest
from prism_crypto.primitives.keys import VOUCHER_BYTES, voucher
from prism_crypto.stage import Stage
from prism_crypto.stages.advert import owner_body
from prism_crypto.stages.contexts import Contexts
from prism_crypto.stages.gathering import Gathering, Hall
from prism_crypto.stages.party import Neighbour, Party
from prism_crypto.stages.states import Finished, Uploaded, Vouched, Vouchers
from prism_crypto.stages.unmask import Unmasking, check_appeal, release
from prism_crypto.wire.messages import (
    FRAME_BYTES,
    ID_BYTES,
    VERSION,
    VOUCHED_UPLOAD,
    DoubtedConfirmationsMessage,
    VouchedConfirmationsMessage,
    VouchedConfirmMessage,
    VouchedSurvivorsMessage,
    decode,
    decode_records,
    decode_statements,
    decode_views,
    encode,
    encode_records,
    encode_statements,
    encode_views,
    is_a,
    read_upload_statement,
    vouched_body,
)

__all__ = ["Vouching", "unmask_vouched", "vouch", "vouched_survivors", "vouchers_of"]

_View: TypeAlias = Mapping[int, bytes]
"""The adverts that a client has seen, its own among them: their hashes, by id."""


def vouchers_of(party: Party, peer: int, neighbour: Neighbour) -> Vouchers:
    """What this client and a neighbour may say to each other, computed while their key is there."""
    ours, theirs = (party.client_id, peer), (peer, party.client_id)
    agreed, context = neighbour.agreed, neighbour.context
    return Vouchers(
        our_upload=voucher(agreed, "uploaded", context, ours),
        their_upload=voucher(agreed, "uploaded", context, theirs),
        our_count=voucher(agreed, "survivor", context, ours),
        their_count=voucher(agreed, "survivor", context, theirs),
        holder=neighbour.holder,
        sealing_key=neighbour.sealing_key,
        owner=neighbour.owner,
        context=context,
    )


def vouch(state: Uploaded, data: bytes) -> tuple[Vouched, bytes]:
    """Client, stage 4: see whose uploads carry the common mask, and vouch to those whose shares it holds.

    A false voucher is the server's or its sender's; either way the sender gets no help from this client. If
    it is the sender's, the server shows that with the next message.

    Raises:
        MessageError, ContextMismatch: the message is not one of this session.
        ProtocolError: this client is left out, or somebody survived who did not share.
        ThresholdError: too few survived, or too few of those that this client chose.
    """
    party, stage = state.party, Stage.CONFIRM
    limit = FRAME_BYTES + len(state.sharers) * (ID_BYTES + VOUCHER_BYTES)
    message = decode(VouchedSurvivorsMessage, data, state.context, limit=limit, stage=stage)
    said = decode_records(message.vouchers, VOUCHER_BYTES, stage=stage)
    for peer in said:
        if peer not in state.vouchers:
            raise ProtocolError(
                "said to have survived, but did not share with this client", stage=stage, peer=peer
            )
    believed = frozenset(
        peer for peer, shown in said.items() if hmac.compare_digest(shown, state.vouchers[peer].their_upload)
    )
    holders = [peer for peer in believed if state.vouchers[peer].holder]
    party.check_quorum(message.count, len(holders), stage, "survived")
    sent = {peer: state.vouchers[peer].our_count for peer in believed if peer in state.keys}
    vouchers = encode_records(sent)
    body = vouched_body(state.context, party.client_id, vouchers)
    signature = party.signer().sign(stage, body)
    doubted = {peer: shown for peer, shown in said.items() if peer not in believed}
    if not doubted:
        state.forget_sealing()
    return Vouched(state, believed, doubted), encode(
        VouchedConfirmMessage(VERSION, tag(state.context), vouchers, signature)
    )


def unmask_vouched(state: Vouched, data: bytes) -> tuple[Finished, bytes]:
    """Client, stage 5: give the shares, if t of those that it chose count this client as a survivor.

    If the server shows that somebody has signed the false voucher which came from it, the reply also proves
    what this client has agreed on with that one, so that everybody sees that it is false.

    Raises:
        MessageError, ContextMismatch: the message is not one of this session.
        ProtocolError: a voucher of somebody whom this client did not choose, or who did not share; or not
            what those have signed whose shares did not open here.
        SealError: a share that did not open is not the one that its dealer signed, or was dealt to another
            advert than this client's.
        ThresholdError: fewer than t vouchers that are true.
    """
    uploaded, stage = state.uploaded, Stage.UNMASK
    party = uploaded.party
    degree = party.session.degree
    most = party.session.invited.count  # whoever likes may be another's neighbour, and fail to open
    view = ID_BYTES + 4 + most * SIGHTING_BYTES
    dealing = view + ID_BYTES + SIGNATURE_BYTES + 4 + degree * (ID_BYTES + party.session.dealt_bytes)
    limit = FRAME_BYTES + degree * (ID_BYTES + VOUCHER_BYTES) + len(uploaded.unopened) * dealing
    message: VouchedConfirmationsMessage | DoubtedConfirmationsMessage
    doubts = b""
    if state.doubted and is_a(DoubtedConfirmationsMessage, data):
        signed = DIGEST_BYTES + 4 + most * (2 * ID_BYTES + VOUCHER_BYTES)
        limit += len(state.doubted) * (view + ID_BYTES + SIGNATURE_BYTES + 4 + signed)
        message = decode(DoubtedConfirmationsMessage, data, uploaded.context, limit=limit, stage=stage)
        doubts = message.doubts
    else:
        message = decode(VouchedConfirmationsMessage, data, uploaded.context, limit=limit, stage=stage)
    said = decode_records(message.vouchers, VOUCHER_BYTES, stage=stage)
    true = 0
    for peer, shown in said.items():
        expected = uploaded.vouchers.get(peer)
        if expected is None or not expected.holder:
            raise ProtocolError(
                "said to vouch for this client, and holds none of its shares", stage=stage, peer=peer
            )
        true += hmac.compare_digest(shown, expected.their_count)
    if true < party.session.threshold:
        raise ThresholdError(
            f"{true} of those that this client chose count it as a survivor, the threshold is "
            f"{party.session.threshold}",
            stage=stage,
        )
    uploads = decode_statements(doubts, stage=stage)
    views = _check_appeals(uploaded, message, uploads.keys())
    false = _false_vouchers(state, uploads, views)
    proofs = {peer: _proof(uploaded, peer) for peer in false}
    survivors = state.survivors | {party.client_id}
    return release(uploaded, survivors, withheld=state.doubted.keys(), doubts=proofs)


def _check_appeals(
    state: Uploaded,
    message: VouchedConfirmationsMessage | DoubtedConfirmationsMessage,
    doubted: AbstractSet[int],
) -> Mapping[int, _View]:
    """As `stages.unmask.check_appeal` for each dealer, of whom the server has to show, too, what it saw.

    Returns:
        For each client of whom the server shows something, which adverts it saw.

    Raises:
        SealError: also where a dealer has seen another advert in this client's name, or this client one in
            the dealer's. An honest dealer's shares don't open then, and what the two agreed on stays theirs.
    """
    stage = Stage.UNMASK
    statements = decode_statements(message.appeals, stage=stage)
    views = decode_views(message.views, stage=stage)
    if statements.keys() != state.unopened.keys() or views.keys() != statements.keys() | doubted:
        raise ProtocolError(
            f"expected what {len(state.unopened)} clients have signed, got {len(statements)} or others",
            stage=stage,
        )
    for dealer, (signature, sealed) in statements.items():
        if not _saw_the_same(state, dealer, views[dealer]):
            raise SealError(
                f"client {dealer} has not seen this client's advert, or has sent this client another one, "
                "or the server says so",
                stage=stage,
            )
        check_appeal(state, _context(state.party, views[dealer]), dealer, signature, sealed)
    return views


def _context(party: Party, view: _View) -> bytes:
    """ctx1 of a client that has seen these adverts."""
    return context1(party.session.context0, view_digest(u32(i) + seen for i, seen in view.items()))


def _saw_the_same(state: Uploaded, peer: int, view: _View) -> bool:
    """Whether a neighbour has seen this client's own advert, and sent the one that this client has seen.

    Who has a copy of a client's identity can advertise in its name. What an honest neighbour that was shown
    such an advert deals and vouches is wrong to the client itself, and no proof that the neighbour cheats.
    """
    both = {i: view[i] for i in (state.party.client_id, peer) if i in view}
    return _context(state.party, both) == state.vouchers[peer].context


def _false_vouchers(
    state: Vouched, uploads: Mapping[int, tuple[bytes, bytes]], views: Mapping[int, _View]
) -> list[int]:
    """Those that have signed the false vouchers which came from them; if the server lies, it is not they.

    Nor is it they who have seen another advert in this client's name.

    Raises:
        ProtocolError: the server shows something of a client whom this one does not doubt.
    """
    party, false = state.uploaded.party, []
    for peer, (signature, statement) in uploads.items():
        if peer not in state.doubted:
            raise ProtocolError("is not doubted by this client", stage=Stage.UNMASK, peer=peer)
        if not _saw_the_same(state.uploaded, peer, views[peer]):
            continue
        with suppress(SecureSumError):
            covered, vouchers = read_upload_statement(statement)
            body = _context(party, views[peer]) + u32(peer) + covered
            check_key_signature(state.uploaded.vouchers[peer].sealing_key, VOUCHED_UPLOAD, body, signature)
            records = decode_records(vouchers, VOUCHER_BYTES, stage=Stage.UNMASK)
            if records.get(party.client_id) == state.doubted[peer]:
                false.append(peer)
    return false


def _proof(state: Uploaded, peer: int) -> bytes:
    """What this client and a neighbour that cheats have agreed on, proved; the neighbour knows it, too.

    Raises:
        PublicKeyError: nothing shows that it does.
    """
    assert state.sealing is not None
    theirs = state.vouchers[peer]
    try:
        body = owner_body(state.party.session.context0, peer)
        check_owner(curve_point(theirs.sealing_key), body, theirs.owner)
        return prove_agreement(
            state.sealing.private(), state.sealing.public, theirs.sealing_key, theirs.context
        )
    except SecureSumError as error:
        error.at(Stage.UNMASK, peer)
        raise


def vouched_survivors(
    contexts: Contexts, survivors: tuple[int, ...], statements: Mapping[int, tuple[bytes, bytes]]
) -> dict[int, bytes]:
    """Server: for each survivor, how many they are, and what its neighbours among them say to it.

    Args:
        contexts: ctx1.
        survivors: U3.
        statements: for each survivor its signature and what it has signed with its upload.
    """
    inbox: dict[int, dict[int, bytes]] = {client_id: {} for client_id in survivors}
    for sender in survivors:
        _, vouchers = read_upload_statement(statements[sender][1])
        for receiver, said in decode_records(vouchers, VOUCHER_BYTES, stage=Stage.UPLOAD).items():
            if receiver in inbox:
                inbox[receiver][sender] = said
    return {
        receiver: encode(
            VouchedSurvivorsMessage(
                VERSION, tag(contexts.of(receiver)), len(survivors), encode_records(inbox.pop(receiver))
            )
        )
        for receiver in survivors
    }


class Vouching(Gathering):
    """Server at stage 4: collect the vouchers of those that count others as survivors, and pass them on.

    It can't check them: only the two whom a voucher concerns can compute it. But who does not vouch for a
    survivor whose shares it holds has seen a false voucher, or says so: it is shown what that one signed.

    Args:
        hall: the session.
        unmasking: the next stage.
        statements: for each survivor its signature and what it has signed with its upload.
    """

    stage = Stage.CONFIRM

    def __init__(
        self, hall: Hall, unmasking: Unmasking, statements: Mapping[int, tuple[bytes, bytes]]
    ) -> None:
        super().__init__(hall, unmasking.survivors)
        self._unmasking = unmasking
        self._statements = statements
        self._alive = frozenset(unmasking.survivors)
        self._for: dict[int, dict[int, bytes]] = {client_id: {} for client_id in unmasking.survivors}

    def accept(self, peer: int, data: bytes) -> None:
        """Keep what one client says to survivors that chose it."""
        owners = self.hall.topology.dealers(peer, self._alive)
        limit = FRAME_BYTES + len(owners) * (ID_BYTES + VOUCHER_BYTES)
        context = self._unmasking.transcript.contexts.of(peer)
        message = decode(VouchedConfirmMessage, data, context, limit=limit, stage=self.stage, peer=peer)
        self.check_signature(peer, vouched_body(context, peer, message.vouchers), message.signature)
        said = decode_records(message.vouchers, VOUCHER_BYTES, stage=self.stage, peer=peer)
        if not set(said) <= set(owners):
            raise ProtocolError(
                "vouches for a client that did not survive or did not choose it", stage=self.stage, peer=peer
            )
        for owner, shown in said.items():
            self._for[owner][peer] = shown

    def close(self) -> tuple[Unmasking, dict[int, bytes]]:
        """Send each client that answered what those that it chose say to it, if t of them do.

        Raises:
            ThresholdError: a secret that the sum needs has fewer than t holders among these clients.
        """
        threshold = self.hall.session.threshold
        ready = [
            peer for peer in self.expected if peer not in self._awaited and len(self._for[peer]) >= threshold
        ]
        said = f"{self.answered} of {len(self.expected)} survivors confirmed"
        self._unmasking.check_holders(frozenset(ready), self.stage, said)
        doubted = {peer: self._doubted(peer) for peer in ready}
        self._unmasking.doubted = {
            peer: {owner: self._statements[owner] for owner in owners} for peer, owners in doubted.items()
        }
        self._unmasking.expect(tuple(ready))
        return self._unmasking, {peer: self._confirmations(peer, doubted[peer]) for peer in ready}

    def _doubted(self, peer: int) -> list[int]:
        """Survivors for which a client holds shares that opened, and does not vouch."""
        owners = self.hall.topology.dealers(peer, self._alive)
        unopened = self._unmasking.unopened[peer]
        return [owner for owner in owners if peer not in self._for[owner] and owner not in unopened]

    def _confirmations(self, peer: int, doubted: list[int]) -> bytes:
        transcript, unopened = self._unmasking.transcript, self._unmasking.unopened[peer]
        contexts = transcript.contexts
        name, vouchers = tag(contexts.of(peer)), encode_records(self._for[peer])
        appeals = encode_statements({dealer: transcript.dealt[dealer] for dealer in unopened})
        views = encode_views({dealer: contexts.view(dealer) for dealer in (*unopened, *doubted)})
        if not doubted:
            return encode(VouchedConfirmationsMessage(VERSION, name, vouchers, appeals, views))
        doubts = encode_statements({owner: self._statements[owner] for owner in doubted})
        return encode(DoubtedConfirmationsMessage(VERSION, name, vouchers, appeals, doubts, views))
