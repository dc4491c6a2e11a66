"""Broken if a wrong share or key goes unnoticed, or is noticed without its culprit.

A cheating client is the slow second implementation with one thing changed. A wrong reconstruction must never
be used: what it gives is held against the owner's commitment or public key, and names the owner.
"""

from __future__ import annotations

import pytest
import reference as wire
from forgery import (
    SHARE_BYTES,
    alter_record,
    drop_record,
    flip,
    only,
    records,
    refield,
    refused,
    resigned,
    take_apart,
    twice,
)
from reference_primitives import FIELD
from rehearsal import SERVER, Rehearsal

from prism_crypto.errors import (
    IdentityError,
    MessageError,
    OutOfOrder,
    ProtocolError,
    PublicKeyError,
    SealError,
    ShareError,
)
from prism_crypto.session import Invited
from prism_crypto.stage import Stage

CHEAT = 1
PRIME = FIELD.to_bytes(33, "big")
P = 2**255 - 19
LOW_ORDER = {
    "zero": 0,
    "one": 1,
    "order 8": 325606250916557431795983626356110631294008115727848805560023387167927233504,
    "order 8 too": 39382357235489614581723060781553021112529911719440698176882885853963445705823,
    "minus one": P - 1,
}
NOT_REDUCED = {"zero": P, "one": P + 1, "nine": P + 9, "top bit": 2**255 + 9, "all ones": 2**256 - 1}


class Pairs(wire.Client):
    """Seals pairs that ``spoil`` has changed."""

    def spoil(self, pairs: dict[int, bytes]) -> None:
        raise NotImplementedError

    def make_pairs(self, holders: list[int]) -> dict[int, bytes]:
        pairs = super().make_pairs(holders)
        self.spoil(pairs)
        return pairs


class SeedShareNotCanonical(Pairs):
    def spoil(self, pairs):
        pairs[0] = PRIME + pairs[0][33:]


class KeyShareNotCanonical(Pairs):
    def spoil(self, pairs):
        pairs[0] = pairs[0][:33] + b"\xff" * 33


class SharesSwappedBetweenHolders(Pairs):
    def spoil(self, pairs):
        pairs[0], pairs[2] = pairs[2], pairs[0]


class SeedAndKeySwapped(Pairs):
    def spoil(self, pairs):
        for holder, pair in pairs.items():
            pairs[holder] = pair[33:] + pair[:33]


class SameShareForAll(Pairs):
    def spoil(self, pairs):
        for holder in pairs:
            pairs[holder] = pairs[0]


class SharesOfZero(Pairs):
    def spoil(self, pairs):
        for holder in pairs:
            pairs[holder] = bytes(66)


class AnotherSeed(wire.Client):
    """Commits to one seed and shares another."""

    def share(self, data):
        self.seed = bytes(32)
        return super().share(data)


class AnotherKey(wire.Client):
    """Advertises one mask key and shares another."""

    def make_pairs(self, holders):
        self.masking, kept = bytes(range(32)), self.masking
        pairs = super().make_pairs(holders)
        self.masking = kept
        return pairs


class SecretAboveTheField(wire.Client):
    """Shares a field element that is no 32-byte string."""

    def make_pairs(self, holders):
        return {holder: (2**256 + 5).to_bytes(33, "big") * 2 for holder in holders}


class Truncated(wire.Client):
    """Seals a pair that is a byte short."""

    def make_pairs(self, holders):
        return {holder: pair[:-1] for holder, pair in super().make_pairs(holders).items()}


def cheating(kind: type[wire.Client]) -> Rehearsal:
    session = Rehearsal(range(4))
    session.cheat(CHEAT, kind)
    return session


@pytest.mark.parametrize("kind", [SeedShareNotCanonical, KeyShareNotCanonical])
def test_a_share_that_is_no_field_element_stops_the_upload(kind):
    with refused(ShareError, Stage.UPLOAD, CHEAT):
        cheating(kind).play()


def test_a_truncated_share_is_refused_by_the_server():
    with refused(MessageError, Stage.SHARE, CHEAT):
        cheating(Truncated).play()


@pytest.mark.parametrize(
    "kind",
    [
        SharesSwappedBetweenHolders,
        SeedAndKeySwapped,
        SameShareForAll,
        SharesOfZero,
        AnotherSeed,
        SecretAboveTheField,
    ],
)
def test_shares_of_a_seed_that_was_not_committed_to_open_nothing(kind):
    session = cheating(kind)
    with refused(ShareError, Stage.UNMASK, CHEAT):
        session.play()
    with refused(OutOfOrder, None, None):
        session.server.result  # noqa: B018


@pytest.mark.parametrize(
    "kind",
    [
        SharesSwappedBetweenHolders,
        SeedAndKeySwapped,
        SameShareForAll,
        SharesOfZero,
        AnotherKey,
        SecretAboveTheField,
    ],
)
def test_shares_of_a_key_that_was_not_advertised_open_nothing(kind):
    with refused(ShareError, Stage.UNMASK, CHEAT):
        cheating(kind).play(drop={CHEAT: Stage.UPLOAD})


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("byte", [0, 1, 32])
def test_a_wrong_share_at_unmask_opens_nothing_and_names_the_owner(position, byte):
    session = Rehearsal(range(4))
    owner = (3, 2)[position]  # a survivor's seed, a dropped client's key
    if byte == 0:
        change, expected, peer = flip(0, 1), ShareError, 0  # above the field: the sender is at fault
    else:
        change, expected, peer = flip(byte), ShareError, owner
    spoil = records(position, SHARE_BYTES, alter_record(owner, change))
    with refused(expected, Stage.UNMASK, peer):
        session.play(drop={2: Stage.UPLOAD}, intercept=only(Stage.UNMASK, 0, SERVER, spoil))


SPOILED = {
    "missing": (records(0, SHARE_BYTES, drop_record(3)), ProtocolError),
    "duplicate": (records(0, SHARE_BYTES, twice), MessageError),
    "truncated": (refield(lambda fields: [fields[0][:-1], fields[1]]), MessageError),
    "of nobody": (records(0, SHARE_BYTES, lambda cut: cut.update({2**32 - 1: bytes(33)})), ProtocolError),
    "for a stranger": (
        records(0, SHARE_BYTES, lambda cut: [cut.pop(3), cut.update({9: bytes(33)})]),
        ProtocolError,
    ),
    "swapped between seed and key": (refield(lambda fields: fields[::-1]), ProtocolError),
    "not canonical": (records(0, SHARE_BYTES, alter_record(3, lambda _: PRIME)), ShareError),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_malformed_answer_to_unmask_names_its_sender(what):
    change, error = SPOILED[what]
    session = Rehearsal(range(4))
    with refused(error, Stage.UNMASK, 0):
        session.play(drop={2: Stage.UPLOAD}, intercept=only(Stage.UNMASK, 0, SERVER, change))


def test_a_refused_answer_leaves_no_share_behind():
    """Its sender counts as silent: with three of four needed, the three others open the sum."""
    session = Rehearsal(range(4))
    errors: list[Exception] = []

    def spoil(message: bytes) -> bytes:
        bad_seed = records(0, SHARE_BYTES, alter_record(3, flip(32)))(message)
        return records(1, SHARE_BYTES, lambda cut: cut.update({2: bytes(33)}))(bad_seed)

    session.play(intercept=only(Stage.UNMASK, 0, SERVER, spoil), refused=errors)
    assert [type(error) for error in errors] == [ProtocolError]
    assert session.server.result.counts.tolist() == session.expected((0, 1, 2, 3))


def test_no_client_has_the_point_zero():
    """Holders' points are ids plus one; an id that would give 0 or leave four bytes does not exist."""
    for client_id in (-1, 2**32 - 1, 2**32):
        with pytest.raises(IdentityError):
            Invited.of([0, 1, client_id])
    session = Rehearsal([0, 1, 2, 2**32 - 2])
    session.play(drop={2: Stage.UNMASK})
    assert session.server.result.counts.tolist() == session.expected((0, 1, 2, 2**32 - 2))


def forged_key(value: int, position: int):
    key = value.to_bytes(32, "little")
    return lambda said: said[: 32 * position] + key + said[32 * position + 32 :]


@pytest.mark.parametrize("position", [0, 1], ids=["sealing", "mask"])
@pytest.mark.parametrize("value", [*LOW_ORDER.values(), *NOT_REDUCED.values()])
def test_the_server_refuses_a_signed_low_order_or_unreduced_key(value, position):
    session = Rehearsal(range(4))
    spoil = resigned(session.session.context0, CHEAT, forged_key(value, position))
    with refused(PublicKeyError, Stage.ADVERTISE, CHEAT):
        session.play(intercept=only(Stage.ADVERTISE, CHEAT, SERVER, spoil))


@pytest.mark.parametrize("position", [0, 1], ids=["sealing", "mask"])
@pytest.mark.parametrize("value", [*LOW_ORDER.values(), *NOT_REDUCED.values()])
def test_a_client_refuses_such_a_key_from_a_server_in_league(value, position):
    session = Rehearsal(range(4))
    adverts = session.play(until=Stage.ADVERTISE)
    context0 = session.session.context0

    def league(message: bytes) -> bytes:
        def edit(cut: dict[int, bytes]) -> None:
            alone = wire.wrap(wire.ADVERT, context0[:16], cut[CHEAT])
            cut[CHEAT] = take_apart(resigned(context0, CHEAT, forged_key(value, position))(alone))[2][0]

        return records(1, 176, edit)(message)

    honest = {i: session.clients[i] for i in (0, 2, 3)}
    if position == 0 or value in NOT_REDUCED.values():
        with refused(PublicKeyError, Stage.SHARE, CHEAT):
            honest[0].share(league(adverts[0]))
        return
    # A mask key of low order shows when it is used: still before the upload leaves.
    boxes = {i: take_apart(client.share(league(adverts[i])))[2][0] for i, client in honest.items()}
    to_0 = {i: wire.read_records(boxes[i], 82)[0] for i in (2, 3)}
    to_0[CHEAT] = sealed_by_the_cheat(session, wire.read_records(take_apart(league(adverts[0]))[2][1], 176))
    context = honest[0]._state.context
    message = wire.wrap(wire.SHARES, context[:16], 4, wire.id_list(session.ids), wire.write_records(to_0))
    with refused(PublicKeyError, Stage.UPLOAD, CHEAT):
        honest[0].upload(message, session.values[0])


def sealed_by_the_cheat(session: Rehearsal, adverts: dict[int, bytes]) -> bytes:
    """A pair for client 0 that opens: the cheat knows its sealing key."""
    context = session.clients[0]._state.context
    ours, theirs = adverts[CHEAT][16:48], adverts[0][16:48]
    shared = wire.x25519(session.rng[CHEAT].taken[:32], theirs)
    key = wire.seal_key(shared, context, CHEAT, 0, (ours, theirs))
    return wire.gcm_seal(key, bytes(66), wire.sealed_for(context, CHEAT, 0))


def test_a_share_that_does_not_open_is_never_treated_as_a_dropout():
    session = Rehearsal(range(5))
    spoil = records(2, 82, alter_record(CHEAT, flip(0)))
    with refused(SealError, Stage.UPLOAD, CHEAT):
        session.play(intercept=only(Stage.UPLOAD, SERVER, 0, spoil))
    assert session.clients[0].stage is None
    for again in (session.clients[0].resend, session.clients[0].advertise):
        with pytest.raises(OutOfOrder):
            again()
