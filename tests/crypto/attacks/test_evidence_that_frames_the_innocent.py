"""Broken if a lying server and its colluders can make evidence against a client that follows the protocol,
or if evidence tells more than its accused client knows.

`verify_evidence` is given all that a server can have of an honest session, put together in every way, with
the receivers' keys and proofs as colluders would add them.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import msgspec
import pytest
import reference as wire
from forgery import take_apart
from fuzz_decoders import scrambled
from liars import Liar, play
from rehearsal import SERVER, Rehearsal

from prism_crypto import EvidenceError, Policy, PolicyError, Roster, Session, Stage, verify_evidence
from prism_crypto import policy as policy_module
from prism_crypto.primitives.agreement_proof import agreed_point, prove_agreement
from prism_crypto.primitives.keys import AgreedKey, seal, seal_keys
from prism_crypto.session import _MAX_EXCLUDED, _exclusions
from prism_crypto.stages import evidence as evidence_module
from prism_crypto.stages.evidence import (
    AdvertEvidence,
    DealingEvidence,
    SealEvidence,
    UnmaskEvidence,
    encode_evidence,
)
from prism_crypto.wire import messages as m

HONEST, COLLUDER = 1, 3
IDS = range(5)


class Everything:
    """All that was said in an honest session, and what its clients know."""

    def __init__(self, **drop: Any) -> None:
        self.room = Rehearsal(IDS, label="framed")
        self.said: dict[Any, bytes] = {}
        self.room.play(
            drop=drop.get("drop", {}),
            intercept=lambda *said: self.said.setdefault(said[:3], bytes(said[3])),
        )
        self.session = self.room.session
        self.adverts = take_apart(self.said[Stage.SHARE, SERVER, 0])[2][1]
        records = wire.read_records(self.adverts, 240)
        self.context = wire.context1(self.session.context0, wire.all_adverts(records))
        self.parsed = {i: wire.read_advert(a, i, self.room.reference_session()) for i, a in records.items()}

    def dealt(self, i: int) -> tuple[bytes, bytes]:
        sealed, signature = take_apart(self.said[Stage.SHARE, i, SERVER])[2]
        return sealed, signature

    def received(self, i: int) -> bytes:
        return take_apart(self.said[Stage.UPLOAD, SERVER, i])[2][2]

    def last(self, i: int) -> list[bytes]:
        return take_apart(self.said[Stage.UNMASK, i, SERVER])[2]

    def proof(self, i: int, j: int) -> bytes:
        """What i can prove of its agreement with j."""
        private = wire.sealing_scalar(self.room.rng[i].taken[:32])
        return prove_agreement(private, self.parsed[i].sealing, self.parsed[j].sealing, self.context)

    def key(self, holder: int, owner: int, which: int) -> bytes:
        private = wire.sealing_scalar(self.room.rng[holder].taken[:32])
        shared = wire.x25519(private, self.parsed[owner].sealing)
        ends = (self.parsed[owner].sealing, self.parsed[holder].sealing)
        return wire.seal_keys(shared, self.context, owner, holder, ends)[which]

    def verify(self, evidence: Any, roster: Roster | None = None) -> Any:
        return verify_evidence(encode_evidence(evidence), roster or self.room.roster)


@pytest.fixture(scope="module")
def honest() -> Everything:
    return Everything()


def test_an_honest_advert_proves_nothing(honest):
    advert = take_apart(honest.said[Stage.ADVERTISE, HONEST, SERVER])[2][0]
    with pytest.raises(EvidenceError, match="the advert's keys are sound"):
        honest.verify(AdvertEvidence(2, honest.session, HONEST, advert))
    low = advert[:16] + bytes(32) + advert[48:]
    with pytest.raises(EvidenceError, match="signature does not verify"):
        honest.verify(AdvertEvidence(2, honest.session, HONEST, low))


@pytest.mark.parametrize("receiver", [0, 2, COLLUDER, 4])
def test_a_receiver_that_reveals_what_was_agreed_on_shows_that_the_shares_open(honest, receiver):
    sealed, signature = honest.dealt(HONEST)

    def accuse(proof: bytes, receiver: int = receiver) -> None:
        honest.verify(
            SealEvidence(2, honest.session, HONEST, honest.adverts, sealed, signature, receiver, proof)
        )

    good = honest.proof(receiver, HONEST)
    with pytest.raises(EvidenceError, match="the shares open"):
        accuse(good)
    other = honest.proof(receiver, (receiver + 1) % 5 if (receiver + 1) % 5 != HONEST else 0)
    spoiled = [other, bytes(96), good[:32] + other[32:], other[:32] + good[32:], good[:-1], good + b"\0"]
    for proof in spoiled:
        with pytest.raises(EvidenceError, match="proof"):
            accuse(proof)
    with pytest.raises(EvidenceError, match="nothing was sealed for"):
        accuse(good, receiver=99)
    with pytest.raises(EvidenceError, match="nothing was sealed for"):
        accuse(good, receiver=HONEST)


@pytest.mark.parametrize("which", [0, 1])
def test_no_choice_of_keys_opens_honest_shares_to_something_else(honest, which):
    """Even colluders who hold the keys to all shares, of the seed and of the mask key, convict nobody."""
    sealed, signature = honest.dealt(HONEST)
    threshold = honest.session.threshold
    keys = {i: honest.key(i, HONEST, which) for i in IDS}

    def accuse(chosen: dict[int, bytes], as_if: int = which) -> None:
        blob = wire.write_records(chosen)
        honest.verify(
            DealingEvidence(2, honest.session, HONEST, honest.adverts, sealed, signature, as_if, blob)
        )

    with pytest.raises(EvidenceError, match="that was advertised"):
        accuse({i: keys[i] for i in range(threshold)})
    with pytest.raises(EvidenceError, match="that was advertised"):
        accuse({i: keys[i] for i in range(5 - threshold, 5)})
    for chosen in (
        {i: keys[i] for i in range(threshold - 1)} | {4: bytes(32)},
        {i: keys[(i + 1) % 5] for i in range(threshold)},
    ):
        with pytest.raises(EvidenceError, match="does not open"):
            accuse(chosen)
    with pytest.raises(EvidenceError, match="does not open"):
        accuse({i: keys[i] for i in range(threshold)}, as_if=1 - which)
    with pytest.raises(EvidenceError, match="lie on one polynomial"):
        accuse(keys)
    for chosen in ({}, {i: keys[i] for i in range(threshold - 1)}):
        with pytest.raises(EvidenceError, match=f"keys to the shares of {threshold} clients"):
            accuse(chosen)


def test_a_session_of_another_threshold_convicts_nobody(honest):
    """With a threshold of 3, three right shares would give a wrong secret. But nobody signed that."""
    sealed, signature = honest.dealt(HONEST)
    keys = wire.write_records({i: honest.key(i, HONEST, 0) for i in range(3)})
    for changes in ({"threshold": 3}, {"number": 9}, {"model_hash": b"another"}):
        session = msgspec.structs.replace(honest.session, **changes)
        with pytest.raises(EvidenceError, match="signature does not verify"):
            honest.verify(DealingEvidence(2, session, HONEST, honest.adverts, sealed, signature, 0, keys))


def test_an_honest_last_message_agrees_with_what_its_sender_signed(honest):
    seeds, masks, complaints, signature = honest.last(HONEST)
    received = honest.received(HONEST)
    records = wire.read_records(received, 98)

    def accuse(*fields: bytes) -> None:
        honest.verify(UnmaskEvidence(2, honest.session, HONEST, honest.adverts, *fields, signature))

    with pytest.raises(EvidenceError, match="agrees with what its sender received"):
        accuse(received, seeds, masks, complaints)
    # A dealer in league signs other shares later: what the honest client received is under its signature.
    other = wire.write_records(records | {COLLUDER: bytes(98)})
    complaint = wire.u32(COLLUDER) + bytes(96)
    for fields in (
        (other, seeds, masks, complaints),
        (received, bytes(len(seeds)), masks, complaints),
        (received, seeds, seeds, complaints),
        (received, seeds, masks, complaint),
        (b"", seeds, masks, complaints),
    ):
        with pytest.raises(EvidenceError, match="signature does not verify"):
            accuse(*fields)


def test_nobody_answers_for_what_another_signed(honest):
    sealed, signature = honest.dealt(COLLUDER)
    garbage = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for accused in IDS:
        proof = honest.proof(0 if accused else 1, accused)
        receiver = 0 if accused else 1
        evidence = SealEvidence(
            2, honest.session, accused, honest.adverts, garbage, signature, receiver, proof
        )
        with pytest.raises(EvidenceError):
            honest.verify(evidence)


KINDS = {
    "advert": "advertises_a_useless_key",
    "seal": "seals_garbage_for_some",
    "dealing": "deals_wrong_shares_of_its_seed",
    "commitment": "commits_to_another_seed",
    "form": "signs_a_dealing_of_another_form",
    "keys": "gives_wrong_keys_at_unmask",
    "complaint": "complains_of_shares_that_open",
}


def true_evidence(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Rehearsal, Any]:
    """A session with one such liar, and what convicts it."""
    rooms: list[Rehearsal] = []
    init = Liar.__init__

    def keep(self, client_id, kind, draw, session, *rest, **more):
        rooms.append(session)
        init(self, client_id, kind, draw, session, *rest, **more)

    monkeypatch.setattr(Liar, "__init__", keep)
    for seed in range(20):
        rooms.clear()
        play((KINDS[name],), seed)
        if rooms[0].server.blamed:
            [blame] = rooms[0].server.blamed.values()
            return rooms[0], blame
    raise AssertionError("nobody was blamed")


@pytest.mark.parametrize("name", KINDS)
def test_evidence_altered_in_any_way_convicts_nobody_else(name, monkeypatch):
    room, blame = true_evidence(name, monkeypatch)
    draw = random.Random(name)
    convictions = 0
    fields = msgspec.msgpack.decode(blame.evidence)
    for _ in range(150):
        if draw.random() < 0.5:
            spoiled = scrambled(blame.evidence, draw)
        else:
            changed = list(fields)
            place = draw.randrange(3, len(changed))
            if isinstance(changed[place], bytes):
                changed[place] = scrambled(changed[place], draw)
            else:
                changed[place] = draw.randrange(12)
            spoiled = msgspec.msgpack.encode(changed)
        try:
            found = verify_evidence(spoiled, room.roster)
        except EvidenceError:
            continue
        convictions += 1
        assert found.client_id == blame.client_id
    for accused in room.ids:
        if accused != blame.client_id:
            spoiled = msgspec.msgpack.encode([*fields[:3], accused, *fields[4:]])
            with pytest.raises(EvidenceError):
                verify_evidence(spoiled, room.roster)
    assert convictions < 150


@pytest.mark.parametrize("name", KINDS)
def test_evidence_holds_nothing_that_the_accused_does_not_know(name, monkeypatch):
    room, blame = true_evidence(name, monkeypatch)
    text = blame.evidence
    for i in room.ids:
        if i == blame.client_id:
            continue
        taken = room.rng[i].taken
        for place in range(0, 128, 32):
            assert taken[place : place + 32] not in text, f"a secret of client {i}"
        assert (
            wire.x25519_public(wire.sealing_scalar(taken[:32])) in text or name == "advert"
        )  # the search can find something
        for j in room.ids:
            if j in (i, blame.client_id) or len(room.rng[j].taken) < 128:
                continue
            shared = wire.x25519(
                wire.sealing_scalar(taken[:32]),
                wire.x25519_public(wire.sealing_scalar(room.rng[j].taken[:32])),
            )
            assert shared not in text, f"what {i} and {j} agreed on"
    with pytest.raises(EvidenceError):
        verify_evidence(
            text, Roster({i: room.roster.public_key(i) for i in room.ids if i != blame.client_id})
        )


# --- what the next session's clients make of it ------------------------------------------------------


def following(room: Rehearsal, blame: Any, **changes: Any) -> Rehearsal:
    fields = {"number": 2, "excluded": [blame], "min_survivors": 7} | changes
    return Rehearsal(range(10), policy=Policy(min_survivors=7), **fields)


def test_clients_check_the_evidence_themselves(monkeypatch):
    room, blame = true_evidence("seal", monkeypatch)
    again = following(room, blame)
    assert blame.client_id not in again.ids
    offered = Session.from_offer(again.session.offer())
    assert offered.context0 == again.session.context0
    again.client(again.ids[0], session=offered).advertise()

    innocent = next(i for i in room.ids if i != blame.client_id)
    fields = msgspec.msgpack.decode(blame.evidence)
    framed = msgspec.msgpack.encode([*fields[:3], innocent, *fields[4:]])
    for changed in (
        dataclasses.replace(blame, client_id=innocent, evidence=framed),
        dataclasses.replace(blame, client_id=innocent),  # true, but against somebody who is invited
        dataclasses.replace(blame, evidence=b""),
        dataclasses.replace(blame, evidence=blame.evidence[:-1]),
    ):
        lie = following(room, changed)
        client = lie.client(lie.ids[1])
        with pytest.raises(PolicyError, match=r"excluded"):
            client.advertise()
    elsewhere = following(room, blame, federation="another")
    with pytest.raises(PolicyError, match="another federation"):
        elsewhere.client(elsewhere.ids[0]).advertise()


@pytest.mark.parametrize("times", [2, 3, 16])
def test_one_liar_is_excluded_once_however_much_there_is_against_it(times, monkeypatch):
    """Else one colluder signs sixteen pieces of evidence that take long, for every offer anew."""
    room, blame = true_evidence("complaint", monkeypatch)
    again = following(room, blame)
    seen = []

    def counted(evidence, roster):
        seen.append(evidence)
        return verify_evidence(evidence, roster)

    monkeypatch.setattr(policy_module, "verify_evidence", counted)
    pieces = (blame.evidence,) * times
    session = msgspec.structs.replace(again.session, excluded=pieces, exclusions=_exclusions(pieces))
    with pytest.raises(PolicyError, match=f"client {blame.client_id} is excluded twice"):
        again.client(again.ids[0], session=Session.from_offer(session.offer())).advertise()
    assert len(seen) == 2


def test_evidence_is_bound_into_the_session_and_does_not_grow_with_earlier_evidence(monkeypatch):
    room, blame = true_evidence("keys", monkeypatch)
    again = following(room, blame)
    bare = Rehearsal(again.ids, number=2, min_survivors=7, identities=room.identities)
    assert again.session.invited == bare.session.invited
    assert again.session.context0 != bare.session.context0
    assert again.session.summary().context0 == again.session.context0
    with pytest.raises(PolicyError, match="does not match its hash"):
        again.client(again.ids[0], session=again.session.summary()).advertise()
    liar = Liar(again.ids[2], "gives_wrong_keys_at_unmask", random.Random(1), again)
    again.play(intercept=liar)
    second = again.server.blamed[again.ids[2]]
    assert len(second.evidence) < len(blame.evidence) + 200
    assert verify_evidence(second.evidence, room.roster).number == 2


def test_evidence_of_another_version_mode_or_size_is_refused(honest):
    sealed, signature = honest.dealt(HONEST)
    evidence = DealingEvidence(2, honest.session, HONEST, honest.adverts, sealed, signature, 0, b"")
    for changed in (
        msgspec.structs.replace(evidence, version=1),
        msgspec.structs.replace(
            evidence, session=msgspec.structs.replace(honest.session, mode="semi_honest")
        ),
        msgspec.structs.replace(evidence, session=msgspec.structs.replace(honest.session, graph="harary")),
        msgspec.structs.replace(evidence, accused=17),
    ):
        with pytest.raises(EvidenceError):
            honest.verify(changed)
    for junk in (b"", b"\x90", b"\x91" * 1000, bytes(5 * 2**20), m.encode(m.ConfirmMessage(2, b"", b""))):
        with pytest.raises(EvidenceError):
            verify_evidence(junk, honest.room.roster)


# --- evidence of sessions that never were ------------------------------------------------------------

ODD = [{"degree": d} for d in (-46, -45, 0, 5, 2**62)] + [{"threshold": t} for t in (-1, 0, 6, 2**62)]
ODD += [{"invited": n} for n in (-1, 0, 1, 2**40)]


@pytest.mark.parametrize("graph", ["complete", "chosen"])
@pytest.mark.parametrize("changes", ODD, ids=str)
def test_no_number_in_evidence_crashes_who_reads_it(changes, graph, honest):
    if "invited" in changes:
        changes = {"invited": msgspec.structs.replace(honest.session.invited, count=changes["invited"])}
    session = msgspec.structs.replace(honest.session, **{"graph": graph, **changes})
    for evidence in (
        AdvertEvidence(2, session, HONEST, b""),
        SealEvidence(2, session, HONEST, b"", b"", b"", 0, b""),
        DealingEvidence(2, session, HONEST, b"", b"", b"", 0, b""),
        UnmaskEvidence(2, session, HONEST, b"", b"", b"", b"", b"", b""),
    ):
        with pytest.raises(EvidenceError, match=r"no session has .* clients, threshold .* and degree"):
            honest.verify(evidence)
    again = msgspec.structs.replace(honest.session, excluded=(encode_evidence(evidence),))
    again = msgspec.structs.replace(again, exclusions=_exclusions(again.excluded))
    with pytest.raises(PolicyError, match="a client is excluded, and"):
        honest.room.client(0, session=Session.from_offer(again.offer())).advertise()


def _signed(
    honest: Everything, session: Session, adverts: int, complaints: int, last: str = ""
) -> UnmaskEvidence:
    """What a colluder signs of a session that it has made up: true complaints, as many as it likes.

    ``last``: what the last one is instead, of shares that it has "not received", or of those that it "opens".
    """
    real = wire.read_records(honest.adverts, 240)
    everyone = {COLLUDER: real[COLLUDER]} | {1000 + i: real[0] for i in range(adverts - 1)}
    blob = wire.write_records(everyone)
    context = wire.context1(session.context0, wire.all_adverts(everyone))
    sealed = {1000 + i: bytes(98) for i in range(complaints)}
    private = wire.sealing_scalar(honest.room.rng[COLLUDER].taken[:32])
    own = honest.parsed[COLLUDER].sealing
    proof = prove_agreement(private, own, honest.parsed[0].sealing, context)
    said = wire.write_records({1000 + i: proof for i in range(complaints)})
    if last == "opens":
        ends, keys = (999 + complaints, COLLUDER), (honest.parsed[0].sealing, own)
        agreed = AgreedKey(agreed_point(proof, own, keys[0], context))
        pair = seal_keys(agreed, context, ends, keys)
        sealed[ends[0]] = b"".join(seal(key, context, ends, bytes(33)) for key in pair)
    elif last == "not received":
        del sealed[999 + complaints]
    received = wire.write_records(sealed)
    body = m.unmask_body(context, COLLUDER, received, b"", b"", said)
    signature = honest.room.identities[COLLUDER].sign(Stage.UNMASK, body)
    return UnmaskEvidence(2, session, COLLUDER, blob, received, b"", b"", said, signature)


def test_evidence_of_a_made_up_session_is_refused_before_any_arithmetic(honest, monkeypatch):
    reached = []

    def counted(*given):
        reached.append(given)
        return agreed_point(*given)

    monkeypatch.setattr(evidence_module, "agreed_point", counted)
    sound = honest.session
    assert sound.spare == 1
    with pytest.raises(EvidenceError, match="agrees with what its sender received"):
        honest.verify(_signed(honest, sound, 5, 1))
    assert len(reached) == 1
    for evidence, reason in (
        (_signed(honest, sound, 6, 1), "6 adverts, where 5 clients are pinned"),
        (_signed(honest, sound, 2000, 1), "2000 adverts, where 5 clients are pinned"),
        (_signed(honest, sound, 5, 2), "2 complaints; no server takes more than 1"),
        (_signed(honest, sound, 5, 2000), "2000 complaints; no server takes more than 1"),
    ):
        with pytest.raises(EvidenceError, match=reason):
            honest.verify(evidence)
    assert len(reached) == 1


def test_no_more_proofs_are_checked_than_an_offer_excludes_clients(honest, monkeypatch):
    """A colluder signs true complaints of a session that it has made up, each some milliseconds to check."""
    reached = []

    def counted(*given):
        reached.append(given)
        return agreed_point(*given)

    monkeypatch.setattr(evidence_module, "agreed_point", counted)
    assert evidence_module._MAX_PROOFS == _MAX_EXCLUDED == 16
    monkeypatch.setattr(evidence_module, "_MAX_PROOFS", 2)
    lax = msgspec.structs.replace(honest.session, threshold=1)
    for complaints, checked in ((1, 1), (2, 2), (3, 2), (4, 2)):
        reached.clear()
        with pytest.raises(EvidenceError, match="agrees with what its sender received"):
            honest.verify(_signed(honest, lax, 5, complaints))
        assert len(reached) == checked


@pytest.mark.parametrize("last", ["opens", "not received"])
def test_a_complaint_past_the_last_proof_that_is_checked_convicts_by_what_it_says(honest, monkeypatch, last):
    monkeypatch.setattr(evidence_module, "_MAX_PROOFS", 2)
    lax = msgspec.structs.replace(honest.session, threshold=1)
    evidence = _signed(honest, lax, 5, 3, last)
    assert ("shares open" if last == "opens" else "has not received") in honest.verify(evidence).reason


@pytest.mark.parametrize("name", ["dealing", "complaint"])
def test_evidence_offered_again_is_not_worked_out_again(name, monkeypatch):
    room, blame = true_evidence(name, monkeypatch)
    worked = []
    convicted = evidence_module._convicted

    def counted(evidence, roster):
        worked.append(roster.hash)
        return convicted(evidence, roster)

    monkeypatch.setattr(evidence_module, "_convicted", counted)
    monkeypatch.setattr(evidence_module, "_verdicts", {})
    assert (
        verify_evidence(blame.evidence, room.roster) == verify_evidence(blame.evidence, room.roster) == blame
    )
    assert len(worked) == 1
    # Another roster may not pin the accused: what was found under the first says nothing of it.
    others = Roster({i: room.roster.public_key(i) for i in room.ids if i != blame.client_id})
    for _ in range(2):
        with pytest.raises(EvidenceError):
            verify_evidence(blame.evidence, others)
    assert len(worked) == 2
    altered = blame.evidence[:-1] + bytes([blame.evidence[-1] ^ 1])
    with pytest.raises(EvidenceError):
        verify_evidence(altered, room.roster)


def test_verdicts_do_not_pile_up(honest, monkeypatch):
    monkeypatch.setattr(evidence_module, "_verdicts", {})
    monkeypatch.setattr(evidence_module, "_MAX_VERDICTS", 3)
    for junk in range(20):
        with pytest.raises(EvidenceError):
            verify_evidence(bytes([junk]), honest.room.roster)
        assert 1 <= len(evidence_module._verdicts) <= 3
