"""Active sessions on graphs that clients choose: sums, drops, refusals, blame, attacks."""

from __future__ import annotations

import itertools
import pickle
import random
import tracemalloc
from collections import Counter
from functools import cache

import msgspec
import numpy as np
import pytest
import reference as wire
from attacks.test_fuzzed_bytes_in_every_message import HOSTILE
from chosen import VOUCHER, choice, chosen_rehearsal
from forgery import SEALED_BYTES, flip, only, records, refield, refused, take_apart
from fuzz_decoders import scrambled
from reference_primitives import ed25519_sign
from rehearsal import HYBRID, SERVER, Rehearsal, Stream, identity, identity_key, needs_kem

from prism_crypto import (
    CountSpec,
    MemoryCounter,
    Policy,
    Roster,
    SecureSumServer,
    Session,
    Stage,
    secure_sum,
    verify_evidence,
)
from prism_crypto.errors import (
    ContextMismatch,
    EvidenceError,
    IdentityError,
    InputError,
    MessageError,
    OutOfOrder,
    PolicyError,
    ProtocolError,
    SealError,
    SecureSumError,
    SignatureError,
    StateError,
    ThresholdError,
)
from prism_crypto.primitives.chosen_graph import SESSIONS
from prism_crypto.session import COMPLETE_LIMIT
from prism_crypto.stages.states import Vouched
from prism_crypto.wire.messages import DEALING

ADVERT = 240 + 4 * 12
AFTER = [Stage.SHARE, Stage.UPLOAD, Stage.CONFIRM, Stage.UNMASK]


@pytest.fixture
def room():
    return chosen_rehearsal()


# --- sums ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", list(Stage))
@pytest.mark.parametrize("second", list(Stage))
def test_the_sum_is_exact_whoever_drops_at_whatever_stages(first, second):
    room = chosen_rehearsal()
    room.play(drop={2: first, 11: second})
    gone = {i for i, at in ((2, first), (11, second)) if at.before(Stage.CONFIRM)}
    assert room.server.result.survivors == tuple(i for i in room.ids if i not in gone)
    assert room.server.result.counts.tolist() == room.expected(room.server.result.survivors)
    assert not room.server.blamed


@needs_kem
@pytest.mark.parametrize(("first", "second"), [(a, b) for a in Stage for b in Stage if not b.before(a)])
def test_the_sum_of_a_hybrid_session_is_exact_too(first, second):
    room = chosen_rehearsal(suite=HYBRID)
    room.play(drop={2: first, 11: second})
    gone = {i for i, at in ((2, first), (11, second)) if at.before(Stage.CONFIRM)}
    assert room.server.result.survivors == tuple(i for i in room.ids if i not in gone)
    assert room.server.result.counts.tolist() == room.expected(room.server.result.survivors)
    assert not room.server.blamed


@needs_kem
@pytest.mark.parametrize(("n", "gone"), [(10, (3,)), (40, (1, 17, 33, 39))])
@pytest.mark.parametrize("at", list(Stage))
def test_a_hybrid_session_opens_exactly_as_it_was_planned(n, gone, at):
    """With the degree and threshold of `Session.plan`, and as many dropouts as it plans for."""
    room = Rehearsal(range(n), suite=HYBRID, graph="chosen")
    assert room.session.min_survivors == n - len(gone)
    room.play(drop=dict.fromkeys(gone, at))
    lost = gone if at.before(Stage.CONFIRM) else ()
    assert room.server.result.survivors == tuple(i for i in room.ids if i not in lost)
    assert room.server.result.counts.tolist() == room.expected(room.server.result.survivors)
    assert not room.server.blamed


def _encapsulates_something_else(room, liar: int, place: int):
    """A dealer that changes one byte of each record, and signs that."""

    def lie(stage, sender, receiver, message):
        if (stage, sender) != (Stage.SHARE, liar):
            return message
        kind, tag, (blob, _) = take_apart(message)
        dealt = wire.read_records(blob, room.session.dealt_bytes)
        lie.victims = set(dealt)
        for i in dealt:
            changed = dealt[i][:place] + bytes([dealt[i][place] ^ 1]) + dealt[i][place + 1 :]
            dealt[i] = room.signed_record(liar, i, changed)
        blob, context = wire.write_records(dealt), room.clients[liar]._state.context
        body = context + wire.u32(liar) + wire.hashes(blob)
        return wire.wrap(kind, tag, blob, room.key_signature(liar, DEALING, body))

    return lie


@needs_kem
@pytest.mark.parametrize("place", [1186, 2274, 2338])
def test_another_part_than_the_signed_one_is_named_on_a_chosen_graph_too(place):
    room, refusals = chosen_rehearsal(suite=HYBRID), []
    lie = _encapsulates_something_else(room, 5, place)
    with pytest.raises(SecureSumError):
        room.play(intercept=lie, refused=refusals)
    # The first to stop comes before the liar, whose upload is not listened to then.
    assert min(lie.victims) < 5
    assert {error.peer for error in refusals} == lie.victims | {5}
    assert set(room.server.blamed) == {5}
    assert verify_evidence(room.server.blamed[5].evidence, room.roster) == room.server.blamed[5]


@needs_kem
@pytest.mark.parametrize(("place", "blamed"), [(0, True), (60, True), (98, False), (2306, False)])
def test_a_seal_that_does_not_open_is_blamed_on_a_chosen_graph_if_its_secret_is_the_signed_one(place, blamed):
    room = chosen_rehearsal(suite=HYBRID)
    with pytest.raises(SecureSumError):  # nobody can open its seed
        room.play(intercept=_encapsulates_something_else(room, 5, place))
    assert set(room.server.blamed) == ({5} if blamed else set())


def test_neighbours_are_those_who_chose_and_were_chosen_and_shares_go_to_the_chosen_alone(room):
    inbox = room.play(until=Stage.ADVERTISE)
    chosen = {i: choice(room, i) for i in room.ids}
    for i, message in inbox.items():
        seen = wire.read_records(take_apart(message)[2][1], ADVERT)
        assert set(seen) == {i, *chosen[i], *(j for j in room.ids if i in chosen[j])}
        dealt = wire.read_records(take_apart(room.clients[i].share(message))[2][0], SEALED_BYTES)
        assert tuple(dealt) == chosen[i]


def test_everybody_reads_the_opened_sum(room):
    room.play()
    for client in room.clients.values():
        counts, survivors = client.opened(room.server.opened())
        assert counts.tolist() == room.expected(tuple(room.ids))
        assert survivors == len(room.ids)


@pytest.mark.parametrize("suite", ["x25519", pytest.param(HYBRID, marks=needs_kem)])
def test_secure_sum_takes_the_chosen_graph_and_its_simulation_the_sizes_of_an_average_client(suite):
    bits = [np.random.default_rng(i).integers(0, 2, 50) for i in range(40)]
    how = {"graph": "chosen", "colluders": 1, "min_survivors": 38, "suite": suite}
    real = secure_sum(bits, drop={3: Stage.UPLOAD, 30: Stage.CONFIRM}, **how)
    assert real.counts.tolist() == np.sum([bits[i] for i in range(40) if i != 3], axis=0).tolist()
    real, simulated = secure_sum(bits, **how), secure_sum(bits, simulate=True, **how)
    assert simulated.counts.tolist() == real.counts.tolist()
    for ours, theirs in (
        (simulated.uplink_bytes, real.uplink_bytes),
        (simulated.downlink_bytes, real.downlink_bytes),
    ):
        # Two who chose each other are neighbours once: real clients have a few less than twice their choices.
        assert 0.8 < sum(theirs.values()) / sum(ours.values()) <= 1


def test_a_message_sent_again_is_the_same(room):
    inbox = room.play(until=Stage.ADVERTISE)
    for client in room.clients.values():
        first = client.resend()
        assert client.resend() == first
    for i, message in inbox.items():
        reply = room.clients[i].share(message)
        assert room.clients[i].resend() == reply


# --- what is planned, and what a policy refuses ----------------------------------------------------------


@cache
def roster(n: int) -> Roster:
    return Roster({i: identity(i).public_key for i in range(n)})


def plan(n: int, **how) -> Session:
    how = {"federation": "f", "number": 1, "roster": roster(n)} | how
    return Session.plan(CountSpec(1), range(n), **how)


def test_active_sessions_of_many_clients_have_chosen_graphs_and_the_cohort_that_these_guarantee():
    assert plan(COMPLETE_LIMIT).graph == "complete"
    session = plan(400)
    assert session.graph == "chosen"
    assert (session.colluders, session.min_survivors) == (40, 360)
    assert 180 < session.min_cohort < 320
    assert 2 * session.degree < 399
    assert plan(400, min_survivors=400).min_cohort == 360
    assert plan(400, min_cohort=250).degree > session.degree
    assert plan(400, threshold=300).graph == "complete"
    assert plan(400, colluders=100, dropout=0.4).graph == "complete"  # no chosen graph bears that
    with pytest.raises(PolicyError, match="no chosen graph"):
        plan(400, colluders=100, dropout=0.4, graph="chosen")
    offered = Session.from_offer(session.offer())
    assert offered == session
    assert offered.context0 == session.context0


UNSOUND = {
    "a lower degree": {"degree": 20},
    "a lower threshold": {"threshold": 60},
    "a cohort that it does not guarantee": {"min_cohort": 300},
    "more colluders": {"colluders": 120},
    "no ids": {"invited": "summary"},
    "semi-honest mode": {"mode": "semi_honest"},
    "a number above the last": {"number": SESSIONS + 1},
    "no roster": {"roster_hash": bytes(32)},
}


@pytest.mark.parametrize("change", UNSOUND.values(), ids=UNSOUND)
def test_a_client_refuses_a_chosen_graph_that_does_not_guarantee_what_it_says(change):
    session = plan(400)
    policy = Policy(min_survivors=2, min_cohort=2, mode="semi_honest")
    policy.check(session, 0, roster(400))
    if change.get("invited"):
        change = {"invited": session.invited.summary()}
    with pytest.raises((PolicyError, InputError)):
        policy.check(msgspec.structs.replace(session, **change), 0, roster(400))


def test_survivors_that_nobody_sees_do_not_stand_in_for_a_cohort():
    """A policy made for the complete graph, by survivors alone, is not met by a smaller guaranteed cohort."""
    session = plan(400)
    below = session.min_cohort + session.colluders
    Policy(min_survivors=below).check(session, 0, roster(400))
    for policy in (
        Policy(min_survivors=below + 1),
        Policy(min_survivors=session.min_survivors),
        Policy(min_survivors=2, min_cohort=session.min_cohort + 1),
        Policy(min_survivors=2, colluders=session.colluders + 1),
    ):
        with pytest.raises(PolicyError, match="demands"):
            policy.check(session, 0, roster(400))


# --- grinding --------------------------------------------------------------------------------------------


def test_a_server_that_aborts_and_tries_again_gets_a_fresh_draw_for_every_number_and_one_only():
    """Choices come from each client's own coins; a number is good for one of them."""
    room = chosen_rehearsal()
    seen = Counter()
    for number in range(1, 41):
        session = msgspec.structs.replace(room.session, number=number)
        client = room.client(0, session=session)
        client.advertise()
        room.clients[0] = client
        seen[choice(room, 0)] += 1
        client.abort()
        for again in (number, 1):
            with pytest.raises(StateError):
                room.client(0, session=msgspec.structs.replace(session, number=again)).advertise()
    assert len(seen) == 40  # of C(23, 12) = 1.35 million
    each = Counter(i for chosen in seen for i in chosen)
    assert min(each[i] for i in room.ids if i) > 5  # of 40 · 12/23 = 21 on average


def test_the_choice_depends_on_nothing_that_the_server_says():
    """The same coins in another session choose the same: no part of an offer can be varied to grind on it."""
    chosen = []
    for number in (1, 2):
        room = chosen_rehearsal()
        room.session = msgspec.structs.replace(room.session, number=number, model_hash=bytes([number]))
        room.clients = {0: room.client(0, rng=Stream("coins"), counter=MemoryCounter())}
        room.clients[0].advertise()
        chosen.append(choice(room, 0))
    assert chosen[0] == chosen[1]


# --- adverts ---------------------------------------------------------------------------------------------


def test_a_choice_that_the_server_changes_is_refused(room):
    with refused(SignatureError, Stage.ADVERTISE, 3):
        room.play(intercept=only(Stage.ADVERTISE, 3, SERVER, _swap_choice))
    room = chosen_rehearsal()
    inbox = room.play(until=Stage.ADVERTISE)
    victim = next(i for i in room.ids if i != 3 and i in choice(room, 3))
    with refused(SignatureError, Stage.SHARE, 3):
        room.clients[victim].share(
            records(1, ADVERT, lambda cut: cut.update({3: _other_choice(cut[3])}))(inbox[victim])
        )


def _other_choice(advert: bytes) -> bytes:
    ids = wire.read_ids(advert[176:-64])
    free = next(i for i in range(24) if i not in (*ids, 3))
    return advert[:176] + wire.id_list(sorted([*ids[1:], free])) + advert[-64:]


def _swap_choice(message: bytes) -> bytes:
    return refield(lambda fields: [_other_choice(fields[0])])(message)


@pytest.mark.parametrize("bad", [[3], [77], "twice"])
def test_a_client_that_chooses_itself_a_stranger_or_somebody_twice_is_refused(room, bad):
    def change(advert: bytes) -> bytes:
        ids = wire.read_ids(advert[176:-64])
        ids = [ids[0], *ids[:-1]] if bad == "twice" else sorted([*ids[1:], *bad])
        said = advert[16:176] + wire.id_list(ids)
        body = wire.label("advertise") + room.session.context0 + wire.u32(3) + said
        return advert[:16] + said + ed25519_sign(identity_key(3), body)

    cheat = refield(lambda fields: [change(fields[0])])
    with refused(MessageError if bad == "twice" else ProtocolError, Stage.ADVERTISE, 3):
        room.play(intercept=only(Stage.ADVERTISE, 3, SERVER, cheat))


def test_an_advert_of_a_client_that_is_no_neighbour_is_refused(room):
    """A server that invents edges surrounds a victim."""
    adverts = {}

    def note(stage, sender, receiver, message):
        if stage is Stage.ADVERTISE:
            adverts[sender] = take_apart(message)[2][0]
        return message

    inbox = room.play(until=Stage.ADVERTISE, intercept=note)
    near = wire.read_records(take_apart(inbox[5])[2][1], ADVERT)
    stranger = next(i for i in room.ids if i not in near)
    with refused(ProtocolError, Stage.SHARE, stranger):
        room.clients[5].share(
            records(1, ADVERT, lambda cut: cut.update({stranger: adverts[stranger]}))(inbox[5])
        )


def test_adverts_that_are_kept_back_end_in_too_few_holders(room):
    inbox = room.play(until=Stage.ADVERTISE)
    chosen = choice(room, 5)

    def fewer(cut):
        for i in chosen[:5]:
            del cut[i]

    with refused(ThresholdError, Stage.SHARE, None):
        room.clients[5].share(records(1, ADVERT, fewer)(inbox[5]))


def test_its_own_advert_replaced_or_of_another_session_is_refused(room):
    inbox = room.play(until=Stage.ADVERTISE)
    with refused(ProtocolError, Stage.SHARE, None):
        room.clients[5].share(records(1, ADVERT, lambda cut: cut.pop(5) and None)(inbox[5]))
    other = chosen_rehearsal(number=2)
    told = other.play(until=Stage.ADVERTISE)
    near = wire.read_records(take_apart(inbox[6])[2][1], ADVERT)
    foreign = wire.read_records(take_apart(told[6])[2][1], ADVERT)
    peer = next(i for i in foreign if i != 6 and i in near)
    with refused(ContextMismatch, Stage.SHARE, peer):
        room.clients[6].share(records(1, ADVERT, lambda cut: cut.update({peer: foreign[peer]}))(inbox[6]))


# --- vouchers --------------------------------------------------------------------------------------------


def test_a_client_helps_nobody_whose_upload_it_cannot_see_to_carry_their_mask():
    """One false voucher, whoever made it: this holder gives nothing of its owner's, and the sum opens."""
    room = chosen_rehearsal()
    room.play(until=Stage.ADVERTISE)
    owner = next(i for i in room.ids if 7 in choice(room, i))
    room, given = chosen_rehearsal(), {}

    def intercept(stage, sender, receiver, message):
        if stage is Stage.CONFIRM and sender is SERVER and receiver == 7:
            return records(1, VOUCHER, lambda cut: cut.update({owner: bytes(VOUCHER)}))(message)
        if stage is Stage.UNMASK and receiver is SERVER:
            given[sender] = take_apart(message)[2]
        return message

    room.play(intercept=intercept)
    seeds, keys, _, _ = given[7]
    assert owner not in wire.read_records(seeds, 32)
    assert owner not in wire.read_records(keys, 32)
    assert room.server.result.counts.tolist() == room.expected(tuple(room.ids))


@pytest.mark.parametrize("bad", [4, 5, 99])
def test_a_survivor_that_did_not_share_or_a_record_of_oneself_is_refused(room, bad):
    inbox = room.play(drop={4: Stage.SHARE}, until=Stage.UPLOAD)
    for bad in (4, 5, 99):
        client = room.clients[5]
        with refused(ProtocolError, Stage.CONFIRM, bad):
            client.confirm(
                records(1, VOUCHER, lambda cut, bad=bad: cut.update({bad: bytes(VOUCHER)}))(inbox[5])
            )
        break


def test_too_few_surviving_holders_end_the_session_for_a_client(room):
    inbox = room.play(until=Stage.UPLOAD)
    holders = set(room.clients[5]._state.vouchers) & {
        i for i, each in room.clients[5]._state.vouchers.items() if each.holder
    }

    def fewer(cut):
        for i in sorted(holders)[:5]:
            del cut[i]

    with refused(ThresholdError, Stage.CONFIRM, None):
        room.clients[5].confirm(records(1, VOUCHER, fewer)(inbox[5]))


@pytest.mark.parametrize("how", ["kept back", "forged"])
def test_a_client_that_too_few_count_as_a_survivor_gives_nothing(how):
    room = chosen_rehearsal()
    inbox = room.play(until=Stage.CONFIRM)

    def change(cut):
        for i in list(cut)[:5]:
            cut[i] = bytes(VOUCHER)
            if how == "kept back":
                del cut[i]

    with refused(ThresholdError, Stage.UNMASK, None):
        room.clients[5].unmask(records(0, VOUCHER, change)(inbox[5]))


def test_a_voucher_of_somebody_who_holds_no_shares_is_refused(room):
    inbox = room.play(until=Stage.CONFIRM)
    vouchers = room.clients[5]._state.uploaded.vouchers
    chooser = next(i for i, each in vouchers.items() if not each.holder)
    with refused(ProtocolError, Stage.UNMASK, chooser):
        room.clients[5].unmask(
            records(0, VOUCHER, lambda cut: cut.update({chooser: bytes(VOUCHER)}))(inbox[5])
        )


def test_vouchers_say_one_thing_to_one_client_in_one_direction_in_one_session():
    rooms = [chosen_rehearsal(number=number) for number in (1, 2)]
    said = Counter()
    for room in rooms:
        room.play(until=Stage.UPLOAD)
        for client in room.clients.values():
            for each in client._state.vouchers.values():
                said.update((each.our_upload, each.our_count))
    assert set(said.values()) == {1}
    for room in rooms:
        for i, client in room.clients.items():
            for j, each in client._state.vouchers.items():
                theirs = room.clients[j]._state.vouchers[i]
                assert (each.their_upload, each.their_count) == (theirs.our_upload, theirs.our_count)


# --- clients that cheat ----------------------------------------------------------------------------------


def resign(usage: str, ctx: bytes, client: int, *hashed: bytes, rest: bytes = b"") -> bytes:
    body = wire.label(usage) + ctx + wire.u32(client) + wire.hashes(*hashed) + rest
    return ed25519_sign(identity_key(client), body)


class Cheat:
    """One malicious client in the middle of its own messages; it knows its ctx1 and what it received."""

    def __init__(self, room: Rehearsal, client_id: int) -> None:
        self.room, self.id, self.ctx, self.received = room, client_id, b"", b""

    def __call__(self, stage, sender, receiver, message):
        if receiver == self.id and stage is Stage.SHARE:
            blob = take_apart(message)[2][1]
            view = wire.view(wire.read_records(blob, ADVERT))
            self.ctx = wire.context1(self.room.session.context0, view)
        if receiver == self.id and stage is Stage.UPLOAD:
            self.received = take_apart(message)[2][2]
        if sender == self.id:
            return self.say(stage, message)
        return message

    def say(self, stage, message):
        return message

    def dealing_signature(self, sealed: bytes) -> bytes:
        return self.room.key_signature(self.id, DEALING, self.ctx + wire.u32(self.id) + wire.hashes(sealed))


class WrongKey(Cheat):
    """Gives keys at unmask that open nothing."""

    def say(self, stage, message):
        if stage is not Stage.UNMASK:
            return message
        kind, tag, (seeds, keys, complaints, _) = take_apart(message)
        wrong = wire.write_records({i: flip(0)(key) for i, key in wire.read_records(seeds, 32).items()})
        fields = (wrong, keys, complaints)
        signature = resign("unmask", self.ctx, self.id, self.received, *fields)
        return wire.wrap(kind, tag, *fields, signature)


class Garbage(Cheat):
    """Seals garbage for some of those that it chose."""

    def __init__(self, room: Rehearsal, client_id: int, victims: int) -> None:
        super().__init__(room, client_id)
        self.victims = victims

    def say(self, stage, message):
        if stage is not Stage.SHARE:
            return message
        kind, tag, (sealed, _) = take_apart(message)
        cut = wire.read_records(sealed, SEALED_BYTES)
        for holder in list(cut)[: self.victims]:
            cut[holder] = bytes(SEALED_BYTES)
        sealed = wire.write_records(cut)
        return wire.wrap(kind, tag, sealed, self.dealing_signature(sealed))


class TooFewDealt(Cheat):
    """Signs a dealing that leaves somebody out."""

    def say(self, stage, message):
        if stage is not Stage.SHARE:
            return message
        kind, tag, (sealed, _) = take_apart(message)
        cut = wire.read_records(sealed, SEALED_BYTES)
        del cut[min(cut)]
        sealed = wire.write_records(cut)
        return wire.wrap(kind, tag, sealed, self.dealing_signature(sealed))


def test_wrong_keys_at_unmask_cost_nothing_and_convict_who_gave_them():
    room = chosen_rehearsal()
    room.play(intercept=WrongKey(room, 6))
    assert room.server.result.counts.tolist() == room.expected(tuple(room.ids))
    assert set(room.server.blamed) == {6}
    blame = room.server.blamed[6]
    assert blame.stage is Stage.UNMASK
    assert verify_evidence(blame.evidence, room.roster) == blame


def test_the_next_session_on_a_chosen_graph_leaves_out_whom_evidence_convicts():
    room = chosen_rehearsal()
    room.play(intercept=WrongKey(room, 6))
    how = {"federation": "rehearsal", "number": 2, "roster": room.roster, "graph": "chosen"}
    following = Session.plan(
        CountSpec(40), room.ids, colluders=1, min_survivors=22, excluded=room.server.blamed.values(), **how
    )
    assert following.invited.ids == tuple(i for i in room.ids if i != 6)
    policy = Policy(min_survivors=2)
    policy.check(following, 0, room.roster)
    without = Session.plan(CountSpec(40), following.invited.ids, colluders=1, min_survivors=22, **how)
    assert without.context0 != following.context0
    with pytest.raises(PolicyError):
        policy.check(following, 6, room.roster)


@pytest.mark.parametrize("victims", [1, 4])
def test_garbage_in_some_seals_costs_nothing_and_convicts_who_dealt_it(victims):
    room = chosen_rehearsal()
    room.play(intercept=Garbage(room, 6, victims))
    assert room.server.result.counts.tolist() == room.expected(tuple(room.ids))
    assert set(room.server.blamed) == {6}
    assert verify_evidence(room.server.blamed[6].evidence, room.roster) == room.server.blamed[6]


def test_garbage_in_most_seals_loses_the_sum_and_convicts_who_dealt_it():
    room = chosen_rehearsal()
    with refused(ThresholdError, Stage.UNMASK, None) as caught:
        room.play(intercept=Garbage(room, 6, 8))
    assert "client 6" in str(caught.value)
    assert set(room.server.blamed) == {6}


def test_a_dealing_that_leaves_somebody_out_is_refused_and_proved():
    room = chosen_rehearsal()
    refusals: list[Exception] = []
    room.play(intercept=TooFewDealt(room, 6), refused=refusals)
    assert [type(error) for error in refusals] == [ProtocolError]
    assert set(room.server.blamed) == {6}
    assert 6 not in room.server.result.survivors


def test_a_server_that_alters_a_seal_convicts_nobody_and_gets_no_help_from_the_one_it_was_for():
    room = chosen_rehearsal()
    inbox = room.play(until=Stage.SHARE)
    dealer = min(wire.read_records(take_apart(inbox[5])[2][2], SEALED_BYTES))
    altered = records(2, SEALED_BYTES, lambda cut: cut.update({dealer: bytes(SEALED_BYTES)}))(inbox[5])
    for i, client in room.clients.items():
        room.server.receive(i, client.upload(altered if i == 5 else inbox[i], room.values[i]))
    told = room.server.close()
    for i, client in room.clients.items():
        room.server.receive(i, client.confirm(told[i]))
    told = room.server.close()
    with refused(SealError, Stage.UNMASK, None):
        room.clients[5].unmask(told[5])
    for i, client in room.clients.items():
        if i != 5:
            room.server.receive(i, client.unmask(told[i]))
    room.server.close()
    assert room.server.result.counts.tolist() == room.expected(tuple(room.ids))
    assert not room.server.blamed


def test_evidence_of_one_client_convicts_nobody_else_and_not_in_another_session():
    room = chosen_rehearsal()
    room.play(intercept=WrongKey(room, 6))
    evidence = room.server.blamed[6].evidence
    kind, version, session, accused, *rest = msgspec.msgpack.decode(evidence)
    assert accused == 6
    for other in ([kind, version, session, 7, *rest], [kind, version, session | {"number": 2}, 6, *rest]):
        with pytest.raises(EvidenceError, match="proves nothing"):
            verify_evidence(msgspec.msgpack.encode(other), room.roster)


def test_an_upload_whose_vouchers_were_altered_on_the_way_is_refused(room):
    alter = records(2, VOUCHER, lambda cut: cut.update({min(cut): bytes(VOUCHER)}))
    with refused(SignatureError, Stage.UPLOAD, 3):
        room.play(intercept=only(Stage.UPLOAD, 3, SERVER, alter))


def test_a_confirmation_altered_on_the_way_is_refused(room):
    alter = records(0, VOUCHER, lambda cut: cut.update({min(cut): bytes(VOUCHER)}))
    with refused(SignatureError, Stage.CONFIRM, 3):
        room.play(intercept=only(Stage.CONFIRM, 3, SERVER, alter))


def test_the_server_of_a_chosen_session_needs_itsroster(room):
    with pytest.raises(IdentityError, match="roster"):
        SecureSumServer(room.session)


# --- bytes and secrets ------------------------------------------------------------------------------------


def alter_one(place: int, draw: random.Random):
    """Whoever carries messages alters one of a session."""
    count = itertools.count()

    def alter(stage, sender, receiver, message):
        if next(count) != place:
            return message
        return draw.choice([draw.choice(HOSTILE), scrambled(message, draw)])

    return alter


@pytest.mark.parametrize("seed", range(6))
def test_altered_messages_end_in_typed_errors_or_in_the_exact_sum(seed):
    draw = random.Random(seed)
    for _ in range(12):
        room = chosen_rehearsal(n=9, degree=6, threshold=4, lost=3)
        refusals: list[Exception] = []
        try:
            room.play(intercept=alter_one(draw.randrange(81), draw), refused=refusals)
        except SecureSumError:
            continue
        assert all(isinstance(error, SecureSumError) for error in refusals)
        assert room.server.result.counts.tolist() == room.expected(room.server.result.survivors)


@pytest.mark.parametrize("stage", AFTER)
def test_no_message_to_a_client_may_be_longer_than_the_session_allows(room, stage):
    before = list(Stage)[list(Stage).index(stage) - 1]
    room.play(until=before)
    more = [room.values[5]] if stage is Stage.UPLOAD else []
    tracemalloc.start()
    with refused(MessageError, stage, None):
        getattr(room.clients[5], stage.value)(bytes(10**6), *more)
    assert tracemalloc.get_traced_memory()[1] < 3 * 10**6
    tracemalloc.stop()


def test_states_hold_vouchers_and_keys_that_neither_repr_nor_pickle_shows(room):
    room.play(until=Stage.CONFIRM)
    state = room.clients[5]._state
    assert isinstance(state, Vouched)
    vouchers = next(iter(state.uploaded.vouchers.values()))
    for secret in (state, state.uploaded, vouchers):
        assert len(repr(secret)) < 60
        with pytest.raises(TypeError):
            pickle.dumps(secret)
    state.erase()
    assert all(not any(pair.reveal()) for pair in state.uploaded.keys.values())


def test_a_late_or_second_message_of_a_stage_is_rejected_unread(room):
    sent = {}

    def note(stage, sender, receiver, message):
        if receiver is SERVER:
            sent[stage, sender] = message
        return message

    room.play(drop={4: Stage.UPLOAD}, intercept=note, until=Stage.UPLOAD)
    for peer, message in ((4, sent[Stage.SHARE, 4]), (3, sent[Stage.UPLOAD, 3])):
        with pytest.raises((OutOfOrder, ContextMismatch, MessageError)):
            room.server.receive(peer, message)
    with pytest.raises(OutOfOrder):
        room.clients[3].share(b"again")
