"""A complaint reveals what two clients agreed on; under a multiple of a victim's key that is the victim's.

The cheat advertises r·V for its own sealing key, V the victim's, and seals garbage. Each holder's complaint
would reveal its agreement with r·V, which divided by r is the one with the victim and opens the shares that
the victim dealt it: with t of these the victim's vector lies bare. But the cheat does not know the private
half of r·V. (On a chosen graph a neighbour's doubt of a false voucher reveals the same.)
"""

import pytest
import reference as wire
from chosen import VOUCHER, chosen_rehearsal, rehearsed
from forgery import records, refused, take_apart
from reference_primitives import ed25519_sign
from rehearsal import SERVER, Rehearsal, identity_key

from prism_crypto.errors import ProtocolError, PublicKeyError
from prism_crypto.primitives import agreement_proof as curve
from prism_crypto.stage import Stage
from prism_crypto.stages import vouch
from prism_crypto.wire.messages import VOUCHED_UPLOAD

from .test_false_vouchers import FalseVouchers

VICTIM, CHEAT = 5, 9
GARBAGE = bytes(98)
GRAPHS = ["complete", "chosen"]


def room_of(graph: str) -> Rehearsal:
    """Ten clients. Where they choose, the last one and its neighbours are not all others."""
    if graph == "complete":
        return Rehearsal(range(10))
    return chosen_rehearsal(n=10, degree=6, threshold=4, lost=3)


def times(factor: int, public: bytes) -> bytes:
    """The u-coordinate of a multiple of somebody's key: no private key is needed."""
    _, y, z, _ = curve._times(factor, curve.curve_point(public))
    return ((z + y) * pow(z - y, -1, curve._P) % curve._P).to_bytes(32, "little")


class Cheat:
    """A server's ally: it speaks last, once it knows the victim's key."""

    def __init__(self, room: Rehearsal, proof: str) -> None:
        self.room, self.proof = room, proof
        self.adverts: dict[int, bytes] = {}

    def advert(self, genuine: bytes) -> bytes:
        key = times(3, self.adverts[VICTIM][16:48])
        owner = {"own": genuine, "victim's": self.adverts[VICTIM]}[self.proof][112:176]
        said = key + genuine[48:112] + owner + genuine[176:-64]
        body = wire.label("advertise") + self.room.session.context0 + wire.u32(CHEAT) + said
        return genuine[:16] + said + ed25519_sign(identity_key(CHEAT), body)

    def __call__(self, stage, sender, receiver, message):
        if stage is Stage.ADVERTISE:
            kind, tag, (advert,) = take_apart(message)
            advert = self.advert(advert) if sender == CHEAT else advert
            self.adverts[sender] = advert
            return wire.wrap(kind, tag, advert)
        return message


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("proof", ["own", "victim's"])
def test_an_honest_server_refuses_a_key_whose_owner_is_not_shown_and_has_evidence(proof, graph):
    room = room_of(graph)
    refused: list[Exception] = []
    room.play(intercept=Cheat(room, proof), drop={CHEAT: Stage.SHARE}, refused=refused)
    assert [type(error) for error in refused] == [PublicKeyError]
    assert room.server.blamed.keys() == {CHEAT}
    assert "private half" in room.server.blamed[CHEAT].reason
    assert CHEAT not in room.server.result.survivors


def view(room: Rehearsal, adverts: dict[int, bytes]) -> bytes:
    """The hash of what a client has seen."""
    return wire.all_adverts(adverts) if room.session.graph == "complete" else wire.view(adverts)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("proof", ["own", "victim's"])
def test_a_lying_server_that_lets_it_through_hears_no_agreement(proof, graph, monkeypatch):
    for check in ("advertise.check_usable", "gathering.check_key_signature"):  # it lies
        monkeypatch.setattr(f"prism_crypto.stages.{check}", lambda *_: None)
    room = room_of(graph)
    cheat, genuine, context = Cheat(room, proof), b"", b""

    def lie(stage, sender, receiver, message):
        nonlocal genuine, context
        if (stage, sender) == (Stage.ADVERTISE, CHEAT):
            genuine = take_apart(message)[2][0]
        message = cheat(stage, sender, receiver, message)
        if (stage, receiver) == (Stage.SHARE, CHEAT):  # its own client object is to go on
            kind, tag, (digest, adverts) = take_apart(message)
            cut = wire.read_records(adverts, len(genuine))
            context = wire.context1(room.session.context0, view(room, cut))
            return wire.wrap(kind, tag, digest, wire.write_records(cut | {CHEAT: genuine}))
        if (stage, sender) == (Stage.SHARE, CHEAT):
            holders = wire.read_records(take_apart(message)[2][0], 98)
            sealed = wire.write_records(dict.fromkeys(holders, GARBAGE))
            body = context + wire.u32(CHEAT) + wire.hashes(sealed)
            signature = room.key_signature(CHEAT, "dealing", body)
            return wire.wrap(take_apart(message)[0], context[:16], sealed, signature)
        return message

    with pytest.raises(PublicKeyError, match="private half") as caught:
        room.play(intercept=lie)
    assert (caught.value.stage, caught.value.peer) == (Stage.UPLOAD, CHEAT)
    assert room.server.stage is Stage.UPLOAD, "nothing of any holder has left"


@pytest.mark.parametrize("checked", [True, False])
def test_a_doubt_is_proved_to_nobody_who_has_not_shown_whose_its_key_is(checked, monkeypatch):
    """A false voucher is signed with the sealing key, too. So this cheat has its own, without its proof."""
    monkeypatch.setattr("prism_crypto.stages.advertise.check_usable", lambda *_: None)  # the server lies
    if not checked:
        monkeypatch.setattr(vouch, "check_owner", lambda *_: None)
    room = chosen_rehearsal()
    lie = FalseVouchers(room, 4, CHEAT)

    def without_proof(stage, sender, receiver, message):
        if (stage, sender) == (Stage.ADVERTISE, CHEAT):
            kind, tag, (advert,) = take_apart(message)
            said = advert[16:112] + bytes(64) + advert[176:-64]
            body = wire.label("advertise") + room.session.context0 + wire.u32(CHEAT) + said
            room.clients[CHEAT]._state.advert = advert[:16] + said + ed25519_sign(identity_key(CHEAT), body)
            return wire.wrap(kind, tag, room.clients[CHEAT]._state.advert)
        return lie(stage, sender, receiver, message)

    if checked:
        with pytest.raises(PublicKeyError, match="private half") as caught:
            room.play(intercept=without_proof)
        assert (caught.value.stage, caught.value.peer) == (Stage.UNMASK, CHEAT)
    else:
        room.play(intercept=without_proof)
    assert {i for i, message in lie.last.items() if message[1] == 9} == (set() if checked else {*lie.victims})


# --- on the small chosen graph: 1 deals nothing to 0, and holds what 0 dealt; 2 and 6 are no neighbours -----


@pytest.mark.parametrize(("cheat", "about"), [(0, 1), (6, 2), (0, 0), (0, 99)])
def test_an_honest_server_takes_no_complaint_of_a_client_that_dealt_its_author_nothing(cheat, about):
    room = rehearsed("chosen")

    def complain(stage, sender, receiver, message):
        if (stage, sender) != (Stage.UPLOAD, cheat):
            return message
        kind, tag, (words, _, vouchers, _) = take_apart(message)
        lacking, context = wire.id_list([about]), room.clients[cheat]._state.context
        body = context + wire.u32(cheat) + wire.hashes(words, vouchers) + lacking
        signature = room.key_signature(cheat, VOUCHED_UPLOAD, body)
        return wire.wrap(kind, tag, words, lacking, vouchers, signature)

    errors = []
    room.play(intercept=complain, refused=errors)
    assert [(type(error), error.stage, error.peer) for error in errors] == [
        (ProtocolError, Stage.UPLOAD, cheat)
    ]
    assert room.server.blamed == {}
    assert room.server.result.survivors == tuple(i for i in room.ids if i != cheat)


@pytest.mark.parametrize("about", [2, 1, 99], ids=["its dealer", "its holder", "nobody"])
@pytest.mark.parametrize("doubt", [False, True])
def test_a_server_that_shows_what_one_signed_as_anothers_hears_nothing(doubt, about):
    """It alters what client 3 dealt to 0, or vouched, and shows what that one signed as somebody else's."""
    room, said = rehearsed("chosen"), {}

    def show(stage, sender, receiver, message):
        said[stage, sender, receiver] = bytes(message)
        if receiver != 0:
            return message
        if stage is Stage.UPLOAD and not doubt:
            return records(2, 98, lambda cut: cut.update({3: GARBAGE}))(message)
        if stage is Stage.CONFIRM and doubt:
            return records(1, VOUCHER, lambda cut: cut.update({3: bytes(VOUCHER)}))(message)
        if stage is Stage.UNMASK:
            kind, tag, (vouchers, appeals, *doubts, views) = take_apart(message)
            assert (kind, bool(appeals), views[:4]) == (24 if doubt else 23, not doubt, wire.u32(3))
            shown = [blob and wire.u32(about) + blob[4:] for blob in (appeals, *doubts, views)]
            return wire.wrap(kind, tag, vouchers, *shown)
        return message

    with refused(ProtocolError, Stage.UNMASK, about if doubt else None):
        room.play(intercept=show)
    assert (Stage.UNMASK, 0, SERVER) not in said
