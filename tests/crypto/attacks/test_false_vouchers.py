"""Broken if a client that vouches falsely on a chosen graph goes unnamed, or if anybody else is named."""

from __future__ import annotations

from typing import Any

import pytest
import reference as wire
from chosen import VOUCHER, choice, chosen_rehearsal
from forgery import records, refused, take_apart
from reference_primitives import ed25519_sign
from rehearsal import HYBRID, SERVER, Rehearsal, identity_key, needs_kem

from prism_crypto import EvidenceError, SecureSumError, Stage, verify_evidence
from prism_crypto.errors import MessageError, OutOfOrder, ProtocolError, ThresholdError
from prism_crypto.primitives.agreement_proof import PROOF_BYTES
from prism_crypto.stages.evidence import VoucherEvidence, encode_evidence
from prism_crypto.wire.messages import VOUCHED_UPLOAD, read_upload_statement, upload_statement

LIAR = 5
ONCE = ["x25519", pytest.param(HYBRID, marks=needs_kem)]
DOUBTED, UNDOUBTED = 9, 5
"""Kinds of the last message: with doubts, and without."""


class FalseVouchers:
    """A client that vouches falsely to some of those that hold its shares, and signs that."""

    def __init__(self, room: Rehearsal, count: int, liar: int = LIAR) -> None:
        self.room, self.count, self.liar = room, count, liar
        self.victims: list[int] = []
        self.holders: list[int] = []
        self.last: dict[int, bytes] = {}
        self.said: dict[tuple[Stage, int | None, int | None], bytes] = {}

    def __call__(self, stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if (stage, sender) == (Stage.SHARE, self.liar):
            width = self.room.session.dealt_bytes
            self.holders = list(wire.read_records(take_apart(message)[2][0], width))
            self.victims = self.holders[: self.count]
        if (stage, sender) == (Stage.UPLOAD, self.liar) and self.victims:
            kind, tag, (words, lacking, blob, _) = take_apart(message)
            vouchers = wire.read_records(blob, VOUCHER)
            vouchers |= dict.fromkeys(self.victims, bytes(VOUCHER))
            blob, context = wire.write_records(vouchers), self.room.clients[self.liar]._state.context
            body = context + wire.u32(self.liar) + wire.hashes(words, blob) + lacking
            signature = self.room.key_signature(self.liar, VOUCHED_UPLOAD, body)
            message = wire.wrap(kind, tag, words, lacking, blob, signature)
        if stage is Stage.UNMASK and sender is not None:
            self.last[sender] = bytes(message)
        self.said[stage, sender, receiver] = bytes(message)
        return message


@pytest.mark.parametrize("suite", ONCE)
def test_one_that_loses_the_session_is_named_and_the_next_session_opens(suite):
    room = chosen_rehearsal(suite=suite)
    lie = FalseVouchers(room, 12)
    with pytest.raises(SecureSumError):
        room.play(intercept=lie)
    assert room.server.stage is None
    assert set(room.server.blamed) == {LIAR}
    blame = room.server.blamed[LIAR]
    assert blame.stage is Stage.UPLOAD
    assert "is false" in blame.reason
    assert verify_evidence(blame.evidence, room.roster) == blame
    following = chosen_rehearsal(
        suite=suite, number=2, counters=room.counters, excluded=room.server.blamed.values()
    )
    following.play()
    assert following.server.result.survivors == tuple(i for i in range(24) if i != LIAR)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_one_that_the_threshold_can_spare_is_named_and_the_sum_opens(count):
    """Twelve choices and a threshold of eight."""
    room = chosen_rehearsal()
    lie = FalseVouchers(room, count)
    room.play(intercept=lie)
    assert room.server.result.counts.tolist() == room.expected(tuple(room.ids))
    assert set(room.server.blamed) == {LIAR}
    assert {i for i, message in lie.last.items() if message[1] == DOUBTED} == set(lie.victims)


@pytest.mark.parametrize("liar", [0, 11, 23])
def test_every_client_can_be_named(liar):
    room = chosen_rehearsal()
    with pytest.raises(SecureSumError):
        room.play(intercept=FalseVouchers(room, 12, liar))
    assert set(room.server.blamed) == {liar}


def test_two_at_once_are_both_named():
    room = chosen_rehearsal()
    lies = [FalseVouchers(room, 12, liar) for liar in (3, 16)]

    def both(*message: Any) -> bytes:
        return lies[1](*message[:3], lies[0](*message))

    with pytest.raises(SecureSumError):
        room.play(intercept=both)
    assert set(room.server.blamed) == {3, 16}


def test_an_honest_session_says_nothing_more_than_before():
    room = chosen_rehearsal()
    lie = FalseVouchers(room, 0)
    room.play(intercept=lie)
    assert {message[1] for message in lie.last.values()} == {UNDOUBTED}
    assert {lie.said[Stage.UNMASK, SERVER, i][1] for i in room.ids} == {23}


def test_a_server_that_forges_vouchers_is_told_nothing_and_names_nobody():
    """The holder sees that what was signed is true, and shows no agreement with an honest client."""
    room = chosen_rehearsal()
    lie, forged = FalseVouchers(room, 0), {}

    def forge(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if (stage, receiver) == (Stage.CONFIRM, 7):
            dealers = set(room.clients[7]._state.keys)
            forged[7] = sorted(dealers & set(wire.read_records(take_apart(message)[2][1], VOUCHER)))[:2]
            changed = dict.fromkeys(forged[7], bytes(VOUCHER))
            message = records(1, VOUCHER, lambda cut: cut.update(changed))(message)
        return lie(stage, sender, receiver, message)

    room.play(intercept=forge)
    assert forged[7]
    assert lie.said[Stage.UNMASK, SERVER, 7][1] == 24  # it was asked about them
    assert lie.last[7][1] == UNDOUBTED
    assert room.server.blamed == {}
    assert room.server.result.counts.tolist() == room.expected(tuple(room.ids))


@pytest.mark.parametrize(("key", "told"), [("identity", False), ("old usage", False), ("sealing", True)])
def test_an_identity_alone_vouches_for_nothing_that_is_shown_to_be_false(key, told):
    """A server with a copy of an honest client's identity; only whoever knows an agreement is shown it."""
    room, victim, holder = chosen_rehearsal(), None, 7
    lie = FalseVouchers(room, 0)
    contexts: dict[int, bytes] = {}

    def forge(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        nonlocal victim
        if stage is Stage.UPLOAD and sender is not None:
            contexts[sender] = room.clients[sender]._state.context
        if (stage, receiver) == (Stage.CONFIRM, holder):
            victim = min(room.clients[holder]._state.keys)
            message = records(1, VOUCHER, lambda cut: cut.update({victim: bytes(VOUCHER)}))(message)
        if (stage, receiver) == (Stage.UNMASK, holder):
            words, lacking, blob, _ = take_apart(lie.said[Stage.UPLOAD, victim, SERVER])[2]
            blob = wire.write_records(wire.read_records(blob, VOUCHER) | {holder: bytes(VOUCHER)})
            body = contexts[victim] + wire.u32(victim) + wire.hashes(words, blob) + lacking
            signature = {
                "identity": ed25519_sign(identity_key(victim), wire.label(VOUCHED_UPLOAD) + body),
                "old usage": room.identities[victim].sign(Stage.UPLOAD, body),
                "sealing": room.key_signature(victim, VOUCHED_UPLOAD, body),
            }[key]
            statement = upload_statement(memoryview(words), blob, lacking)
            doubts = wire.u32(victim) + signature + wire.u32(len(statement)) + statement
            kind, tag, (vouchers, appeals, _, views) = take_apart(message)
            message = wire.wrap(kind, tag, vouchers, appeals, doubts, views)
        return lie(stage, sender, receiver, message)

    room.play(intercept=forge, refused=[])
    assert (lie.last[holder][1] != UNDOUBTED) == told
    assert room.server.blamed == {}


@pytest.mark.parametrize("what", ["signature", "words", "voucher", "view", "another's"])
def test_what_the_server_alters_of_a_signed_upload_is_believed_by_nobody(what):
    room = chosen_rehearsal()
    lie = FalseVouchers(room, 12)

    def alter(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        message = lie(stage, sender, receiver, message)
        if stage is not Stage.UNMASK or receiver not in lie.victims:
            return message
        kind, tag, (vouchers, appeals, doubts, views) = take_apart(message)
        place = {"signature": 5, "words": 73, "voucher": 72 + 36 + 5, "another's": 3}.get(what)
        if place is None:
            views = views[:-1] + bytes([views[-1] ^ 1])
        else:
            doubts = doubts[:place] + bytes([doubts[place] ^ 1]) + doubts[place + 1 :]
        return wire.wrap(kind, tag, vouchers, appeals, doubts, views)

    with pytest.raises(SecureSumError):
        room.play(intercept=alter)
    assert room.server.blamed == {}
    assert all(message[1] == UNDOUBTED for message in lie.last.values())


# --- liars among those that doubt -------------------------------------------------------------------------


@pytest.mark.parametrize("proof", ["true", "made up", "of another", "of nobody", "none is asked for"])
def test_who_doubts_the_honest_is_silent_at_most(proof):
    """It keeps its voucher back, is shown what the honest client has signed, and complains all the same."""
    room = chosen_rehearsal()
    lie, state, doubted = FalseVouchers(room, 0), {}, []
    cheat = 7

    def doubt(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        message = lie(stage, sender, receiver, message)
        client = room.clients[cheat]
        if (stage, receiver) == (Stage.UPLOAD, cheat):
            state["private"] = bytes(client._state.sealing.private())
            state["ours"] = client._state.sealing.public
            state["near"] = {
                i: (near.sealing_key, near.context) for i, near in client._state.neighbours.items()
            }
        if (stage, sender) == (Stage.CONFIRM, cheat):
            kind, tag, (blob, _) = take_apart(message)
            said = wire.read_records(blob, VOUCHER)
            doubted.append(sorted(said)[0])
            if proof != "none is asked for":
                del said[doubted[0]]
            blob, context = wire.write_records(said), client._state.uploaded.context
            body = context + wire.u32(cheat) + wire.hashes(blob)
            return wire.wrap(kind, tag, blob, room.identities[cheat].sign(Stage.CONFIRM, body))
        if (stage, receiver) == (Stage.UNMASK, cheat) and proof != "none is asked for":
            kind, tag, (vouchers, appeals, *_) = take_apart(message)
            assert (kind, appeals) == (24, b"")
            return wire.wrap(23, tag, vouchers, appeals, b"")  # what the real client in it expects
        if (stage, sender) == (Stage.UNMASK, cheat):
            kind, tag, (seeds, keys, complaints, signature) = take_apart(message)
            theirs, context = state["near"][doubted[0]]
            shown = wire.prove_agreement(state["private"], state["ours"], theirs, context)
            if proof == "made up":
                shown = bytes(PROOF_BYTES)
            another = next(i for i in state["near"] if i != doubted[0])
            about = {"of another": another, "of nobody": 255}.get(proof, doubted[0])
            blob = wire.write_records({about: shown})
            return wire.wrap(DOUBTED, tag, seeds, keys, complaints, blob, signature)
        return message

    complaints: list[Any] = []
    room.play(intercept=doubt, refused=complaints)
    expected = MessageError if proof == "none is asked for" else ProtocolError
    assert [(type(error), error.peer, error.stage) for error in complaints] == [
        (expected, cheat, Stage.UNMASK)
    ]
    assert room.server.blamed == {}
    assert room.server.result.counts.tolist() == room.expected(tuple(room.ids))


def test_a_false_count_costs_what_silence_does_and_names_nobody():
    """Five of the twelve that hold a client's shares tell it falsely, at confirm, that they count it.

    It gives nothing then, as if it were silent; the server can't tell, and has asked it.
    """
    room, victim, left = chosen_rehearsal(), 7, []
    room.play(until=Stage.ADVERTISE)
    liars = choice(room, victim)[:5]
    room = chosen_rehearsal()

    def lie(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes | None:
        if stage is Stage.CONFIRM and sender in liars:
            kind, tag, (blob, _) = take_apart(message)
            blob = wire.write_records(wire.read_records(blob, VOUCHER) | {victim: bytes(VOUCHER)})
            body = room.clients[sender]._state.uploaded.context + wire.u32(sender) + wire.hashes(blob)
            return wire.wrap(kind, tag, blob, room.identities[sender].sign(Stage.CONFIRM, body))
        if (stage, receiver) == (Stage.UNMASK, victim):
            with refused(ThresholdError, Stage.UNMASK, None) as caught:
                room.clients[victim].unmask(message)
            left.append(str(caught.value))
            return None
        return message

    room.play(intercept=lie)
    assert "7 of those that this client chose count it as a survivor, the threshold is 8" in left[0]
    assert room.server.result.counts.tolist() == room.expected(tuple(room.ids))
    assert room.server.blamed == {}


# --- evidence ---------------------------------------------------------------------------------------------


def test_no_piece_of_it_convicts_anybody_else():
    room = chosen_rehearsal()
    lie = FalseVouchers(room, 12)
    with pytest.raises(SecureSumError):
        room.play(intercept=lie)
    adverts = {i: take_apart(lie.said[Stage.SHARE, SERVER, i])[2][1] for i in room.ids}
    statements = {}
    for i in room.ids:
        words, lacking, blob, signature = take_apart(lie.said[Stage.UPLOAD, i, SERVER])[2]
        statements[i] = (signature, upload_statement(memoryview(words), blob, lacking))
    victim = lie.victims[0]
    proof = wire.read_records(take_apart(lie.last[victim])[2][3], PROOF_BYTES)[LIAR]

    def verdict(accused: int, receiver: int, shown: bytes, view: int, said: int) -> str:
        signature, statement = statements[said]
        evidence = VoucherEvidence(
            2, room.session, accused, adverts[view], statement, signature, receiver, shown
        )
        try:
            blame = verify_evidence(encode_evidence(evidence), room.roster)
        except EvidenceError as error:
            return error.message
        assert blame.client_id == LIAR, f"client {blame.client_id} is innocent"
        return ""

    assert verdict(LIAR, victim, proof, LIAR, LIAR) == ""
    for accused in room.ids:
        for receiver in (0, victim, LIAR, 23, 99):
            for view, said in ((accused, accused), (LIAR, LIAR), (LIAR, accused)):
                if (accused, receiver, view) != (LIAR, victim, LIAR):
                    assert verdict(accused, receiver, proof, view, said)
    for shown in (proof[:-1], proof + b"\0", bytes(PROOF_BYTES), proof[::-1], b""):
        assert verdict(LIAR, victim, shown, LIAR, LIAR)


def test_a_true_voucher_with_a_true_proof_is_no_evidence():
    room = chosen_rehearsal()
    lie, kept = FalseVouchers(room, 0), {}

    def note(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if (stage, receiver) == (Stage.UPLOAD, 7):
            state = room.clients[7]._state
            kept["private"], kept["ours"] = bytes(state.sealing.private()), state.sealing.public
            kept["near"] = {i: (near.sealing_key, near.context) for i, near in state.neighbours.items()}
        return lie(stage, sender, receiver, message)

    room.play(intercept=note)
    for accused, (theirs, context) in list(kept["near"].items())[:6]:
        proof = wire.prove_agreement(kept["private"], kept["ours"], theirs, context)
        words, lacking, blob, signature = take_apart(lie.said[Stage.UPLOAD, accused, SERVER])[2]
        statement = upload_statement(memoryview(words), blob, lacking)
        adverts = take_apart(lie.said[Stage.SHARE, SERVER, accused])[2][1]
        evidence = VoucherEvidence(2, room.session, accused, adverts, statement, signature, 7, proof)
        with pytest.raises(EvidenceError, match="the voucher is true"):
            verify_evidence(encode_evidence(evidence), room.roster)


@pytest.mark.parametrize("statement", [b"", bytes(35), bytes(32) + b"\xff" * 4, bytes(36)[:-1] + b"\5"])
def test_a_statement_cut_short_is_none(statement):
    with pytest.raises(MessageError, match="not what an upload signs"):
        read_upload_statement(statement)


def test_a_statement_is_read_as_it_was_written():
    words = memoryview(bytes(range(24)))
    covered, vouchers = read_upload_statement(upload_statement(words, b"vouchers", b"ids."))
    assert vouchers == b"vouchers"
    assert covered == wire.hashes(bytes(words), b"vouchers") + b"ids."


# --- secrets ----------------------------------------------------------------------------------------------


def test_the_sealing_key_is_kept_while_vouchers_may_be_false_and_no_longer():
    room = chosen_rehearsal()
    lie = FalseVouchers(room, 1)
    kept: dict[int, Any] = {}

    def note(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if stage is Stage.UPLOAD and sender is not None:
            kept[sender] = room.clients[sender]._state.sealing
        if stage is Stage.CONFIRM and sender is not None:
            [victim] = lie.victims
            assert (room.clients[sender]._state.uploaded.sealing is None) == (sender != victim)
        return lie(stage, sender, receiver, message)

    room.play(intercept=note)
    assert len(kept) == len(room.ids)
    assert all(not pair.private() for pair in kept.values())


@pytest.mark.parametrize("until", [Stage.UPLOAD, Stage.CONFIRM])
def test_it_is_overwritten_when_the_client_leaves(until):
    room = chosen_rehearsal()
    lie, kept = FalseVouchers(room, 12), []

    def note(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        message = lie(stage, sender, receiver, message)
        if stage is Stage.UPLOAD and sender is not None and sender in lie.victims:
            kept.append((sender, room.clients[sender]._state.sealing))
        return message

    room.play(intercept=note, until=until)
    assert kept
    for client_id, pair in kept:
        assert any(pair.private())
        room.clients[client_id].abort()
        assert not pair.private()
        with refused(OutOfOrder, Stage.UNMASK, None):
            room.clients[client_id].unmask(b"")
