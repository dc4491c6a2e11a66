"""Broken if a wrong share or key goes unnoticed, or is noticed without its culprit.

A cheating client is the slow second implementation with one thing changed. A wrong reconstruction must never
be used: what it gives is held against the owner's commitment or public key, and whoever dealt or gave the
wrong share is named with evidence, never its owner for another's lie.

On a chosen graph a client deals to those that it chose, and not to itself.
"""

from __future__ import annotations

import pytest
import reference as wire
from chosen import choice, chosen_rehearsal, rehearsed
from forgery import (
    KEY_BYTES,
    alter_record,
    drop_record,
    flip,
    only,
    records,
    refield,
    refused,
    resigned,
    signed,
    take_apart,
    twice,
)
from reference_primitives import FIELD
from rehearsal import SERVER, Rehearsal

from prism_crypto import verify_evidence
from prism_crypto.errors import (
    IdentityError,
    MessageError,
    OutOfOrder,
    ProtocolError,
    PublicKeyError,
    SealError,
    ShareError,
    SignatureError,
    ThresholdError,
)
from prism_crypto.session import Invited
from prism_crypto.stage import Stage
from prism_crypto.stages.advert import advert_bytes

CHEAT = 1
MODES = ["active", "chosen"]
"""On the small chosen graph four of six shares are needed, and clients 2 and 3 deal to client 0."""
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
        first = min(pairs)
        pairs[first] = PRIME + pairs[first][33:]


class KeyShareNotCanonical(Pairs):
    def spoil(self, pairs):
        first = min(pairs)
        pairs[first] = pairs[first][:33] + b"\xff" * 33


class SharesSwappedBetweenHolders(Pairs):
    def spoil(self, pairs):
        shares = list(pairs.values())
        pairs.update(zip(pairs, shares[1:] + shares[:1], strict=True))


class SeedAndKeySwapped(Pairs):
    def spoil(self, pairs):
        for holder, pair in pairs.items():
            pairs[holder] = pair[33:] + pair[:33]


class SameShareForAll(Pairs):
    def spoil(self, pairs):
        for holder in pairs:
            pairs[holder] = pairs[min(pairs)]


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
        self.mask_secret, kept = bytes(range(32)), self.mask_secret
        pairs = super().make_pairs(holders)
        self.mask_secret = kept
        return pairs


class SecretAboveTheField(wire.Client):
    """Shares a field element that is no 32-byte string."""

    def make_pairs(self, holders):
        return {holder: (2**256 + 5).to_bytes(33, "big") * 2 for holder in holders}


class Truncated(wire.Client):
    """Seals a pair that is a byte short."""

    def make_pairs(self, holders):
        return {holder: pair[:-1] for holder, pair in super().make_pairs(holders).items()}


def of_four(mode: str) -> Rehearsal:
    """Four clients, or nine on the small chosen graph."""
    return Rehearsal(range(4)) if mode == "active" else rehearsed(mode)


def cheating(mode: str, kind: type[wire.Client]) -> Rehearsal:
    session = of_four(mode)
    session.cheat(CHEAT, kind)
    return session


def convicted(session: Rehearsal, stage: Stage) -> None:
    """The cheat is blamed, and nobody else, by evidence that needs nothing but the roster."""
    blamed = session.server.blamed
    assert blamed.keys() == {CHEAT}
    assert blamed[CHEAT].stage is stage
    assert verify_evidence(blamed[CHEAT].evidence, session.roster) == blamed[CHEAT]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [SeedShareNotCanonical, KeyShareNotCanonical])
def test_a_share_that_is_no_field_element_costs_its_receiver_nothing(kind, mode):
    session = cheating(mode, kind)
    session.play()
    assert session.server.result.counts.tolist() == session.expected(tuple(session.ids))
    convicted(session, Stage.SHARE)


@pytest.mark.parametrize("mode", MODES)
def test_a_truncated_share_is_refused_by_the_server(mode):
    session = cheating(mode, Truncated)
    with refused(MessageError, Stage.SHARE, CHEAT):
        session.play()
    convicted(session, Stage.SHARE)


class WrongSharesForOne(Pairs):
    place = 3

    def spoil(self, pairs):
        pairs[sorted(pairs)[self.place]] = bytes(66)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", [0, 3, 5])
@pytest.mark.parametrize("drop", [{}, {CHEAT: Stage.UPLOAD}], ids=["seed", "mask key"])
def test_a_wrong_share_among_right_ones_does_not_cost_the_sum(drop, place, mode):
    session = Rehearsal(range(7)) if mode == "active" else rehearsed(mode)
    session.cheat(CHEAT, WrongSharesForOne).place = place
    session.play(drop=drop)
    survivors = tuple(i for i in session.ids if i not in drop)
    assert session.server.result.counts.tolist() == session.expected(survivors)
    convicted(session, Stage.SHARE)


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
@pytest.mark.parametrize("mode", MODES)
def test_shares_of_a_seed_that_was_not_committed_to_open_nothing(kind, mode):
    session = cheating(mode, kind)
    with refused(ShareError, Stage.UNMASK, CHEAT):
        session.play()
    with refused(OutOfOrder, None, None):
        session.server.result  # noqa: B018
    convicted(session, Stage.SHARE)


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
@pytest.mark.parametrize("mode", MODES)
def test_shares_of_a_key_that_was_not_advertised_open_nothing(kind, mode):
    session = cheating(mode, kind)
    with refused(ShareError, Stage.UNMASK, CHEAT):
        session.play(drop={CHEAT: Stage.UPLOAD})
    convicted(session, Stage.SHARE)


class WrongKeys(wire.Client):
    """Says at unmask that its shares are under other keys than they are; ``victims`` are their owners."""

    victims: tuple[int, ...] = ()

    def unmask(self, data):
        for owner in self.keys.keys() & self.victims:
            self.keys[owner] = [bytes(32), b"\1" * 32]
        return super().unmask(data)


@pytest.mark.parametrize("cheat", [0, 1, 6, 7, 9])
@pytest.mark.parametrize("victims", [(3,), (0, 1, 5), tuple(range(10))], ids=str)
def test_a_wrong_key_at_unmask_costs_nothing_and_names_who_gave_it(cheat, victims):
    """Wherever the liar's point lies among those that are combined; it may lie about its own shares too."""
    session = Rehearsal(range(10))
    assert session.session.threshold == 7
    session.cheat(cheat, WrongKeys).victims = victims
    session.play(drop={5: Stage.UPLOAD})
    survivors = tuple(i for i in range(10) if i != 5)
    assert session.server.result.counts.tolist() == session.expected(survivors)
    blamed = session.server.blamed
    assert blamed.keys() == {cheat}
    assert blamed[cheat].stage is Stage.UNMASK
    assert verify_evidence(blamed[cheat].evidence, session.roster) == blamed[cheat]


@pytest.mark.parametrize("cheat", [0, 7])
def test_a_wrong_key_on_a_chosen_graph_costs_nothing_either(cheat):
    session = rehearsed("chosen")
    session.cheat(cheat, WrongKeys).victims = tuple(session.ids)
    session.play(drop={3: Stage.UPLOAD})
    survivors = tuple(i for i in session.ids if i != 3)
    assert session.server.result.counts.tolist() == session.expected(survivors)
    blamed = session.server.blamed
    assert blamed.keys() == {cheat}
    assert blamed[cheat].stage is Stage.UNMASK
    assert verify_evidence(blamed[cheat].evidence, session.roster) == blamed[cheat]


def test_wrong_keys_of_more_than_the_sum_can_bear_name_them_and_the_next_session_opens():
    session = Rehearsal(range(10))
    for cheat in (2, 4, 6, 8):
        session.cheat(cheat, WrongKeys).victims = (3,)
    with refused(ThresholdError, Stage.UNMASK, None) as caught:
        session.play()
    blamed = session.server.blamed
    assert blamed.keys() == {2, 4, 6, 8}
    assert "client 8 at unmask" in str(caught.value)
    again = {"counters": session.counters, "excluded": blamed.values()}
    following = Rehearsal(range(10), number=2, min_survivors=6, **again)
    following.play()
    assert following.server.result.counts.tolist() == following.expected((0, 1, 3, 5, 7, 9))
    # With the floor of ten clients three may go.
    assert Rehearsal(range(10), number=3, **again).session.invited.ids == (0, 1, 3, 5, 7, 8, 9)


def test_wrong_keys_of_too_many_holders_on_a_chosen_graph_name_them_too():
    """Of six that hold a client's shares four are needed: three liars are too many."""
    session = rehearsed("chosen")
    session.play(until=Stage.ADVERTISE)
    holders = choice(session, 3)[:3]
    session = rehearsed("chosen")
    for cheat in holders:
        session.cheat(cheat, WrongKeys).victims = (3,)
    with refused(ThresholdError, Stage.UNMASK, None) as caught:
        session.play()
    blamed = session.server.blamed
    assert blamed.keys() == set(holders)
    assert "secrets with fewer than 4 shares that open: 1" in str(caught.value)
    how = {"counters": session.counters, "excluded": blamed.values(), "number": 2, "min_survivors": 6}
    following = chosen_rehearsal(n=9, degree=5, threshold=4, lost=3, **how)
    following.play()
    assert following.server.result.survivors == tuple(i for i in range(9) if i not in holders)


def test_a_semi_honest_session_bears_a_wrong_key_too_and_names_nobody():
    """Nothing is signed there, so nothing can be proved."""
    session = Rehearsal(range(5), mode="semi_honest")
    session.cheat(CHEAT, WrongKeys).victims = (0, 3)
    session.play()
    assert session.server.result.counts.tolist() == session.expected((0, 1, 2, 3, 4))
    assert not session.server.blamed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("byte", [0, 1, 31])
def test_a_key_that_was_altered_on_the_way_is_refused_and_nobody_is_blamed(position, byte, mode):
    session = of_four(mode)
    owner = (3, 2)[position]  # a survivor's seed, a dropped client's key
    spoil = records(position, KEY_BYTES, alter_record(owner, flip(byte)))
    with refused(SignatureError, Stage.UNMASK, 0):
        session.play(drop={2: Stage.UPLOAD}, intercept=only(Stage.UNMASK, 0, SERVER, spoil))
    assert not session.server.blamed


SPOILED = {
    "missing": (records(0, KEY_BYTES, drop_record(3)), ProtocolError),
    "missing of who dropped": (records(1, KEY_BYTES, drop_record(2)), ProtocolError),
    "duplicate": (records(0, KEY_BYTES, twice), MessageError),
    "truncated": (refield(lambda fields: [fields[0][:-1], *fields[1:]]), MessageError),
    "of nobody": (records(0, KEY_BYTES, lambda cut: cut.update({2**32 - 1: bytes(32)})), ProtocolError),
    "for a stranger": (
        records(0, KEY_BYTES, lambda cut: [cut.pop(3), cut.update({9: bytes(32)})]),
        ProtocolError,
    ),
    "swapped between seed and key": (
        refield(lambda fields: [fields[1], fields[0], *fields[2:]]),
        ProtocolError,
    ),
}


def last_words(client_id: int, change):
    """An interception in which this client changes its last message, and signs what it has changed."""
    context, received = b"", b""

    def intercept(stage, sender, receiver, message):
        nonlocal context, received
        if (stage, receiver) == (Stage.UPLOAD, client_id):
            received = take_apart(message)[2][2]
        if (stage, sender) == (Stage.UPLOAD, client_id):
            context = session_of[client_id]._state.context
        if (stage, sender) != (Stage.UNMASK, client_id):
            return message
        return signed(context, client_id, change, received)(message)

    session_of: dict = {}
    return intercept, session_of


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", SPOILED)
def test_a_malformed_answer_to_unmask_names_its_sender(what, mode):
    change, error = SPOILED[what]
    session = of_four(mode)
    intercept, clients = last_words(0, change)
    clients.update(session.clients)
    if (what, mode) == ("missing", "chosen"):  # whoever saw no voucher of a survivor gives no key of its own
        session.play(drop={2: Stage.UPLOAD}, intercept=intercept)
        assert session.server.result.counts.tolist() == session.expected(
            tuple(i for i in session.ids if i != 2)
        )
        return
    with refused(error, Stage.UNMASK, 0):
        session.play(drop={2: Stage.UPLOAD}, intercept=intercept)


@pytest.mark.parametrize("mode", MODES)
def test_a_refused_answer_leaves_no_share_behind(mode):
    """Its sender counts as silent: with three of four needed, the three others open the sum."""
    session = of_four(mode)
    errors: list[Exception] = []

    def spoil(message: bytes) -> bytes:
        bad_seed = records(0, KEY_BYTES, alter_record(3, flip(31)))(message)
        return records(1, KEY_BYTES, lambda cut: cut.update({2: bytes(32)}))(bad_seed)

    intercept, clients = last_words(0, spoil)
    clients.update(session.clients)
    session.play(intercept=intercept, refused=errors)
    assert [type(error) for error in errors] == [ProtocolError]
    assert session.server.result.counts.tolist() == session.expected(tuple(session.ids))


def test_no_client_has_the_point_zero():
    """Holders' points are ids plus one; an id that would give 0 or leave four bytes does not exist."""
    for client_id in (-1, 2**32 - 1, 2**32):
        with pytest.raises(IdentityError):
            Invited.of([0, 1, client_id])
    session = Rehearsal([0, 1, 2, 2**32 - 2])
    session.play(drop={2: Stage.UNMASK})
    assert session.server.result.counts.tolist() == session.expected((0, 1, 2, 2**32 - 2))


@pytest.mark.parametrize("position", [0, 1], ids=["sealing", "mask"])
@pytest.mark.parametrize(
    ("value", "mode"),
    [
        *((value, "active") for value in (2, *LOW_ORDER.values(), *NOT_REDUCED.values())),
        *((value, "chosen") for value in (2, 0, P + 1)),
    ],
)
def test_who_signs_a_useless_key_is_convicted_and_the_others_go_on(value, position, mode):
    """2 is no point of the curve but of its twist: agreements with it work, and can't be proved."""
    session = Rehearsal(range(5)) if mode == "active" else rehearsed(mode)
    spoil = resigned(session.session.context0, CHEAT, forged_key(value, position))
    errors: list[Exception] = []
    session.play(intercept=only(Stage.ADVERTISE, CHEAT, SERVER, spoil), refused=errors)
    assert [type(error) for error in errors] == [PublicKeyError]
    honest = tuple(i for i in session.ids if i != CHEAT)
    assert session.server.result.counts.tolist() == session.expected(honest)
    convicted(session, Stage.ADVERTISE)


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
@pytest.mark.parametrize(
    ("value", "mode"),
    [
        *((value, "active") for value in (*LOW_ORDER.values(), *NOT_REDUCED.values())),
        *((value, "chosen") for value in (0, P + 1)),
    ],
)
def test_a_client_refuses_such_a_key_from_a_server_in_league(value, position, mode):
    session = of_four(mode)
    width = advert_bytes(session.session)
    adverts = session.play(until=Stage.ADVERTISE)
    context0 = session.session.context0

    def league(message: bytes) -> bytes:
        def edit(cut: dict[int, bytes]) -> None:
            alone = wire.wrap(wire.ADVERT, context0[:16], cut[CHEAT])
            cut[CHEAT] = take_apart(resigned(context0, CHEAT, forged_key(value, position))(alone))[2][0]

        return records(1, width, edit)(message)

    with refused(PublicKeyError, Stage.SHARE, CHEAT):
        session.clients[0].share(league(adverts[0]))


@pytest.mark.parametrize("mode", MODES)
def test_a_share_that_does_not_open_is_never_treated_as_a_dropout(mode):
    """A server that alters one gets the upload, and then no key, no complaint and no sum from this client."""
    session = rehearsed(mode)
    spoil = records(2, 98, alter_record(2, flip(0)))
    with refused(SealError, Stage.UNMASK, None):
        session.play(intercept=only(Stage.UPLOAD, SERVER, 0, spoil))
    assert session.clients[0].stage is None
    for again in (session.clients[0].resend, session.clients[0].advertise):
        with pytest.raises(OutOfOrder):
            again()
    assert not session.server.blamed


def test_more_shares_that_do_not_open_than_the_session_can_bear_stop_the_upload():
    session = Rehearsal(range(5))
    spoil = records(2, 98, lambda cut: cut.update({i: bytes(98) for i in (1, 2)}))
    with refused(SealError, Stage.UPLOAD, None):
        session.play(intercept=only(Stage.UPLOAD, SERVER, 0, spoil))


def test_on_a_chosen_graph_shares_that_do_not_open_stop_a_client_before_it_gives_a_key():
    """Its own shares lie elsewhere, so it uploads. It gives no key, and complains of nobody."""
    session, said = rehearsed("chosen"), []
    spoil = records(2, 98, lambda cut: cut.update(dict.fromkeys(cut, bytes(98))))

    def alter(stage, sender, receiver, message):
        said.extend([stage] if sender == 0 else [])
        return spoil(message) if (stage, receiver) == (Stage.UPLOAD, 0) else message

    with refused(SealError, Stage.UNMASK, None):
        session.play(intercept=alter)
    assert said == [Stage.ADVERTISE, Stage.SHARE, Stage.UPLOAD, Stage.CONFIRM]
    assert not session.server.blamed


class GarbageForSome(wire.Client):
    """Signs seals that do not open, for some receivers. (On a chosen graph: `test_chosen_sessions`.)"""

    victims: tuple[int, ...] = ()

    def deal(self, sealed):
        return sealed | {i: bytes(98) for i in self.victims}


@pytest.mark.parametrize("victims", [(0,), (0, 9), (2, 5, 7)], ids=str)
def test_garbage_for_a_few_loses_neither_them_nor_the_session(victims):
    session = Rehearsal(range(10))
    session.cheat(CHEAT, GarbageForSome).victims = victims
    session.play(drop={8: Stage.UPLOAD} if len(victims) < 3 else {})
    result = session.server.result
    assert set(victims) <= set(result.survivors)
    assert result.counts.tolist() == session.expected(result.survivors)
    convicted(session, Stage.SHARE)


@pytest.mark.parametrize("victims", [(0, 3, 5, 7), (0, 2, 3, 4, 5, 6, 7, 8, 9)], ids=len)
def test_garbage_for_many_ends_the_session_and_the_next_one_opens_without_the_dealer(victims):
    session = Rehearsal(range(10))
    session.cheat(CHEAT, GarbageForSome).victims = victims
    with refused(ThresholdError, Stage.UNMASK, None):
        session.play()
    convicted(session, Stage.SHARE)
    following = Rehearsal(
        range(10), number=2, counters=session.counters, excluded=session.server.blamed.values()
    )
    following.play()
    assert following.server.result.survivors == (0, 2, 3, 4, 5, 6, 7, 8, 9)


@pytest.mark.parametrize("clients", [3, 4, 5])
def test_garbage_is_proved_also_where_no_share_can_be_spared(clients):
    """Of three clients all three are needed: the sum is lost to one bad share, and the dealer named."""
    session = Rehearsal(range(clients), threshold=clients, min_survivors=clients)
    session.cheat(CHEAT, GarbageForSome).victims = (0,)
    with refused(ThresholdError, Stage.UNMASK, None):
        session.play()
    convicted(session, Stage.SHARE)
