"""A complaint reveals what two clients agreed on; under a multiple of a victim's key that is the victim's.

The cheat advertises r·V for its own sealing key, V the victim's, and seals garbage. Each holder's complaint
would reveal its agreement with r·V, which divided by r is the one with the victim and opens the shares that
the victim dealt it: with t of these the victim's vector lies bare. But the cheat does not know the private
half of r·V. (On a chosen graph a neighbour's doubt of a false voucher reveals the same.)
"""

import pytest
import reference as wire
from chosen import chosen_rehearsal
from forgery import take_apart
from reference_primitives import ed25519_sign
from rehearsal import Rehearsal, identity_key

from prism_crypto.errors import PublicKeyError
from prism_crypto.primitives import agreement_proof as curve
from prism_crypto.stage import Stage
from prism_crypto.stages import vouch

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
