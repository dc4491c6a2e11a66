"""Broken if a hybrid session opens when one of X25519 and ML-KEM falls, or is led back to X25519 alone.

Also if what its clients encapsulate names an innocent one, or leaves a liar unnamed where it can be named.

The cheats are clients of the slow second implementation, which say what they like. On a chosen graph what two
clients agree on depends on the adverts of the two, and a mask on the parts of those of them who deal.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
import reference as wire
import reference_chosen
import reference_kem as kem
from chosen import neighbours, rehearsed
from forgery import refused, take_apart
from reference_evidence import convicted
from reference_primitives import (
    BASE,
    ORDER,
    edwards_encode,
    edwards_multiply,
    keystream_words,
    unpack,
    x25519,
)
from rehearsal import HYBRID, SERVER, Rehearsal, needs_kem

from prism_crypto import (
    EvidenceError,
    Policy,
    PolicyError,
    ProtocolError,
    PublicKeyError,
    Session,
    Stage,
    secure_sum,
    verify_evidence,
)
from prism_crypto.errors import (
    ContextMismatch,
    InputError,
    MessageError,
    OutOfOrder,
    SealError,
    SecureSumError,
    SignatureError,
    ThresholdError,
)
from prism_crypto.primitives import hybrid
from prism_crypto.stages.advert import advert_bytes
from prism_crypto.stages.evidence import PartEvidence, UnmaskEvidence, encode_evidence

pytestmark = needs_kem

N, T, LIAR = 7, 5, 2
MOST = N - T
GRAPHS = ["complete", "chosen"]


def room_of(n: int = N, graph: str = "complete", *, suite: str = HYBRID, **how: Any) -> Rehearsal:
    """The small chosen graph has nine clients, needs four of six shares; 0, 1, 3, 4, 5, 6 hold `LIAR`'s."""
    if graph == "chosen":
        return rehearsed(graph, suite=suite, **how)
    return Rehearsal(range(n), suite=suite, **how)


def on_both(cases: Sequence[Any]) -> list[tuple[str, Any]]:
    """All of them on the complete graph, the first one on the chosen graph, too."""
    return [*(("complete", case) for case in cases), ("chosen", cases[0])]


def played(room: Rehearsal, **how: Any) -> tuple[SecureSumError | None, list[Any]]:
    """What ended the session, None for a sum, which must be right; what the server refused on the way."""
    complaints: list[Any] = []
    try:
        room.play(refused=complaints, **how)
    except SecureSumError as error:
        lost = error
    else:
        lost = None
    if lost is not None:
        assert room.server.stage is None, f"an honest client has left: {lost!r}"
        return lost, complaints
    result = room.server.result
    assert result.counts.tolist() == room.expected(result.survivors)
    return None, complaints


# --- one of the two falls ---------------------------------------------------------------------------------


class Recorder:
    """Who records everything that crosses the server, and later knows what it is told."""

    def __init__(self, room: Rehearsal) -> None:
        self.said: dict[tuple[Stage, int | None, int | None], bytes] = {}
        room.play(intercept=lambda *message: self.said.setdefault(message[:3], bytes(message[3])))
        self.room, self.session = room, room.reference_session()
        self.context0 = room.session.context0
        self.adverts = {i: take_apart(self.said[Stage.ADVERTISE, i, SERVER])[2][0] for i in self.room.ids}

    def between(self, first: int, second: int) -> bytes:
        if self.session.graph == "chosen":
            return reference_chosen.between(self.context0, self.adverts, first, second)
        return wire.context1(self.context0, wire.all_adverts(self.adverts))

    def deals(self, dealer: int, holder: int) -> bool:
        return self.session.graph == "complete" or holder in reference_chosen.chosen(self.adverts[dealer])

    def secrets(self, i: int) -> dict[str, bytes]:
        """What a client has drawn."""
        taken = self.room.rng[i].taken
        if not self.session.hybrid:
            return {"sealing": wire.sealing_scalar(taken[:32]), "mask": taken[32:64], "seed": taken[64:96]}
        root = taken[96:128]
        mask = kem.mask_key(root)
        return {
            "sealing": wire.sealing_scalar(taken[:32]),
            "root": root,
            "mask": mask,
            "seed": taken[128:160],
        }

    def unmasked(self, victim: int, seeds: dict[int, bytes]) -> list[int] | None:
        """The victim's vector, if these are the seeds of its masks with others; its own seed has opened."""
        words = wire.bytes_to_words(
            take_apart(self.said[Stage.UPLOAD, victim, SERVER])[2][0], self.session.words
        )
        streams = [(-1, self.secrets(victim)["seed"])]
        streams += [(-1 if victim < peer else 1, seed) for peer, seed in seeds.items()]
        for sign, seed in streams:
            stream = keystream_words(seed, len(words))
            words = [(word + sign * mask) % 2**64 for word, mask in zip(words, stream, strict=True)]
        try:
            return unpack(words, self.session.dimension, self.session.largest_total, self.session.bound, 1)
        except wire.Refused:
            return None

    def seeds(self, victim: int, shared: dict[int, bytes], parts: dict[int, list[bytes]]) -> dict[int, bytes]:
        found = {}
        for peer in neighbours(self.adverts, victim):
            low, high = sorted((victim, peer))
            keys, context = tuple(self.adverts[i][48:80] for i in (low, high)), self.between(low, high)
            if self.session.hybrid:
                found[peer] = kem.pair_seed(shared[peer], parts[peer], context, (low, high), keys)
            else:
                found[peer] = wire.pair_seed(shared[peer], context, (low, high), keys)
        return found

    def agreements(self, victim: int) -> dict[int, bytes]:
        """What X25519 gives: known to whoever breaks it."""
        private = self.secrets(victim)["mask"]
        return {i: x25519(private, self.adverts[i][48:80]) for i in neighbours(self.adverts, victim)}

    def parts(self, victim: int) -> dict[int, list[bytes]]:
        """What ML-KEM carries: known to whoever breaks that."""
        found = {}
        for peer in neighbours(self.adverts, victim):
            low, high = sorted((victim, peer))
            found[peer] = [
                kem.part(self.secrets(i)["root"], self.between(i, j), i, j) if self.deals(i, j) else b""
                for i, j in ((low, high), (high, low))
            ]
        return found


VICTIM = 3


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_classical_session_opens_to_whoever_breaks_x25519(graph):
    recorder = Recorder(room_of(4, graph, suite="x25519"))
    seeds = recorder.seeds(VICTIM, recorder.agreements(VICTIM), {})
    assert recorder.unmasked(VICTIM, seeds) == recorder.room.values[VICTIM].tolist()


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_hybrid_session_opens_to_nobody_who_lacks_either_half(graph):
    recorder = Recorder(room_of(4, graph))
    agreements, parts = recorder.agreements(VICTIM), recorder.parts(VICTIM)
    both = recorder.seeds(VICTIM, agreements, parts)
    assert recorder.unmasked(VICTIM, both) == recorder.room.values[VICTIM].tolist()
    unknown = bytes(32)
    for known_parts in (
        {peer: [b"", b""] for peer in parts},
        {peer: [unknown, unknown] for peer in parts},
        {peer: [given[0], unknown] for peer, given in parts.items()},
        {peer: given[::-1] for peer, given in parts.items()},
    ):
        assert recorder.unmasked(VICTIM, recorder.seeds(VICTIM, agreements, known_parts)) is None
    nothing = dict.fromkeys(agreements, unknown)
    assert recorder.unmasked(VICTIM, recorder.seeds(VICTIM, nothing, parts)) is None


def test_a_discrete_logarithm_gives_no_root():
    """X25519's private key is known to whoever breaks it, up to five bits; ML-KEM's key must not follow."""
    recorder = Recorder(room_of(3))
    for i in recorder.room.ids:
        secrets, advert = recorder.secrets(i), recorder.adverts[i]
        assert kem.generate(kem.mask_kem_seed(secrets["root"]))[0] == advert[1296:2480]
        private = secrets["mask"]
        assert private != secrets["root"]
        for low in range(8):
            for top in (0, 64, 128, 192):
                twin = bytes([private[0] & 248 | low]) + private[1:31] + bytes([private[31] & 63 | top])
                assert kem.generate(kem.mask_kem_seed(twin))[0] != advert[1296:2480]


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_seal_opens_to_nobody_who_lacks_either_half(graph):
    recorder = Recorder(room_of(3, graph))
    dealer, holder = 0, 1
    context = recorder.between(dealer, holder)
    ends, keys = (dealer, holder), (recorder.adverts[0][16:48], recorder.adverts[1][16:48])
    record = wire.read_records(take_apart(recorder.said[Stage.SHARE, 0, SERVER])[2][0], 2434)[holder]
    shared = x25519(recorder.secrets(holder)["sealing"], keys[0])
    secret = kem.decapsulate(recorder.room.rng[holder].taken[32:96], record[98:1186])

    def opens(shared: bytes, secret: bytes) -> bool:
        both = kem.seal_keys(shared, secret, record[98:1186], context, ends, keys)
        try:
            wire.open_share(both[0], context, *ends, record[:49])
        except wire.Refused:
            return False
        return True

    assert opens(shared, secret)
    assert not opens(shared, bytes(32))
    assert not opens(bytes(32), secret)
    classical = wire.seal_keys(shared, context, *ends, keys)
    with pytest.raises(wire.Refused):
        wire.open_share(classical[0], context, *ends, record[:49])


def test_the_key_that_opens_seals_is_derived_from_nothing_that_is_shared_out():
    """Roots of dropped clients are reconstructed; the shares that were sealed for them must stay closed."""
    recorder = Recorder(room_of(3))
    root, advert = recorder.secrets(0)["root"], recorder.adverts[0]
    assert kem.generate(kem.mask_kem_seed(root))[0] == advert[1296:2480] != advert[112:1296]
    assert len({advert[112:1296], advert[1296:2480]}) == 2


@pytest.mark.parametrize("graph", GRAPHS)
def test_no_secret_of_a_part_or_a_seal_is_sent_bare(graph):
    recorder = Recorder(room_of(3, graph))
    everything = b"".join(recorder.said.values())
    for i in recorder.room.ids:
        secrets = recorder.secrets(i)
        for secret in (*secrets.values(), recorder.room.rng[i].taken[32:96]):
            assert secret not in everything
        for given in recorder.parts(i).values():
            assert not any(part and part in everything for part in given)
            assert any(given)


# --- downgrades -------------------------------------------------------------------------------------------

DEMANDING = Policy(min_survivors=2, suite=HYBRID)


def test_a_client_that_demands_hybrid_keys_joins_no_other_session():
    room = Rehearsal(range(4))
    with refused(PolicyError, Stage.ADVERTISE, None) as caught:
        room.client(1, policy=DEMANDING).advertise()
    assert "demands keys of x25519+ml-kem-768, the session has x25519" in str(caught.value)
    assert room.counters[1].last == 0
    room_of(4).client(1, policy=DEMANDING).advertise()


def test_a_client_that_demands_nothing_joins_a_hybrid_session():
    room_of(4).client(1, policy=Policy(min_survivors=2)).advertise()


@pytest.mark.parametrize("value", ["ml-kem-768", "", "X25519", b"x25519", None])
def test_a_policy_demands_a_suite_that_there_is(value):
    with pytest.raises(InputError, match="suite must be"):
        Policy(min_survivors=2, suite=value)


def test_a_policy_file_keeps_the_demand_and_an_older_one_makes_none(tmp_path):
    DEMANDING.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == DEMANDING
    text = (tmp_path / "policy.json").read_text()
    older = tmp_path / "older.json"
    older.write_text(text.replace(f',\n  "suite": "{HYBRID}"', ""))
    assert "suite" not in older.read_text()
    assert Policy.load(older) == Policy(min_survivors=2)


def test_clients_that_are_offered_different_suites_get_nothing():
    room = room_of(4)
    classical = msgspec.structs.replace(room.session, suite="x25519")
    assert classical.context0 != room.session.context0
    room.clients[3] = room.client(3, session=classical)
    complaints: list[Any] = []
    room.play(refused=complaints, drop={3: Stage.SHARE}, until=Stage.ADVERTISE)
    assert [(type(error), error.peer) for error in complaints] == [(ContextMismatch, 3)]
    assert room.server.stage is Stage.SHARE


@pytest.mark.parametrize("graph", GRAPHS)
def test_an_advert_without_its_mlkem_keys_is_no_advert_of_the_session(graph):
    room = room_of(4, graph)

    def strip(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if (stage, sender) != (Stage.ADVERTISE, 2):
            return message
        kind, tag, (advert,) = take_apart(message)
        return wire.wrap(kind, tag, advert[:112] + advert[2480:])

    complaints: list[Any] = []
    room.play(intercept=strip, refused=complaints, until=Stage.ADVERTISE)
    assert [(type(error), error.peer) for error in complaints] == [(MessageError, 2)]


def test_where_cryptography_has_no_mlkem_a_hybrid_session_is_refused_in_one_sentence(monkeypatch):
    room = room_of(4)
    monkeypatch.setattr(hybrid, "available", lambda: False)
    with pytest.raises(PolicyError, match=r"hybrid keys need ML-KEM-768, which cryptography .* pip install"):
        room_of(4)
    with refused(PolicyError, Stage.ADVERTISE, None):
        room.client(0, session=Session.from_offer(room.session.offer())).advertise()
    with pytest.raises(PolicyError, match="hybrid keys need ML-KEM-768"):
        secure_sum([np.ones(3, int)] * 3, suite=HYBRID)
    assert secure_sum([np.ones(3, int)] * 3).counts.tolist() == [3, 3, 3]


@pytest.mark.parametrize("missing", ["module", "library"])
def test_what_is_missing_is_the_module_or_the_library_under_it(missing, monkeypatch):
    class Unsupported:
        @staticmethod
        def from_seed_bytes(seed):
            raise hybrid.UnsupportedAlgorithm("not here")

    class Module:
        MLKEM768PrivateKey = Unsupported

    hybrid.available.cache_clear()
    monkeypatch.setattr(hybrid, "mlkem", None if missing == "module" else Module)
    try:
        assert not hybrid.available()
    finally:
        hybrid.available.cache_clear()


# --- keys -------------------------------------------------------------------------------------------------


class KeyCheat(wire.Client):
    """Advertises other ML-KEM keys than its own."""

    def make_keys(self) -> bytes:
        said = super().make_keys()
        return said[:96] + self.changed(said[96:1280], said[1280:])

    def changed(self, sealing: bytes, masking: bytes) -> bytes:
        raise NotImplementedError


class NotReduced(KeyCheat):
    def changed(self, sealing: bytes, masking: bytes) -> bytes:
        return sealing + b"\xff" * 1152 + masking[1152:]


class NotReducedSealing(KeyCheat):
    def changed(self, sealing: bytes, masking: bytes) -> bytes:
        return b"\xff\xff" + sealing[2:] + masking


class OneKeyTwice(KeyCheat):
    def changed(self, sealing: bytes, masking: bytes) -> bytes:
        return sealing + sealing


@pytest.mark.parametrize(("graph", "kind"), on_both([NotReduced, NotReducedSealing, OneKeyTwice]))
def test_a_key_that_is_none_convicts_its_sender_at_once(kind, graph):
    room = room_of(graph=graph)
    room.cheat(LIAR, kind)
    lost, complaints = played(room)
    assert lost is None
    assert [(type(error), error.peer) for error in complaints[:1]] == [(PublicKeyError, LIAR)]
    blame = room.server.blamed[LIAR]
    assert blame.stage is Stage.ADVERTISE
    assert verify_evidence(blame.evidence, room.roster) == blame


@pytest.mark.parametrize("which", [0, 1])
def test_another_clients_key_is_refused_and_nobody_is_blamed(which):
    room = room_of()
    first: list[bytes] = []

    class Copies(KeyCheat):
        def changed(self, sealing: bytes, masking: bytes) -> bytes:
            theirs = take_apart(first[0])[2][0][112:2480]
            return (theirs[:1184] + masking, sealing + theirs[1184:])[which]

    def note(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if (stage, sender) == (Stage.ADVERTISE, 0):
            first.append(message)
        return message

    room.cheat(LIAR, Copies)
    lost, complaints = played(room, intercept=note)
    assert lost is None
    assert "another client has sent" in str(complaints[0])
    assert room.server.blamed == {}


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_client_is_shown_no_key_twice(graph):
    """Where the server lets it pass: nobody is named, as nobody knows who was first."""
    room = room_of(4, graph)
    twice: dict[int, bytes] = {}

    class Copies(KeyCheat):
        def changed(self, sealing: bytes, masking: bytes) -> bytes:
            return twice[0] + masking

    def pass_on(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes | None:
        if (stage, sender) == (Stage.ADVERTISE, 0):
            twice[0] = take_apart(message)[2][0][112:1296]
        if (stage, sender) == (Stage.ADVERTISE, 2):
            twice[2] = take_apart(message)[2][0]
            return None
        if (stage, receiver) == (Stage.SHARE, 3):
            kind, tag, (digest, blob) = take_apart(message)
            adverts = wire.read_records(blob, advert_bytes(room.session))
            return wire.wrap(kind, tag, digest, wire.write_records(adverts | {2: twice[2]}))
        return message

    room.cheat(2, Copies)
    with refused(PublicKeyError, Stage.SHARE, None) as caught:
        room.play(intercept=pass_on, drop={0: Stage.SHARE, 1: Stage.SHARE})
    assert "another client sent too" in str(caught.value)


@pytest.mark.parametrize("graph", GRAPHS)
def test_keys_that_the_server_swaps_are_not_the_ones_that_were_signed(graph):
    room = room_of(4, graph)

    def swap(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if (stage, receiver) != (Stage.SHARE, 0):
            return message
        kind, tag, (digest, blob) = take_apart(message)
        adverts = wire.read_records(blob, advert_bytes(room.session))
        adverts[1] = adverts[1][:112] + adverts[1][1296:2480] + adverts[1][112:1296] + adverts[1][2480:]
        return wire.wrap(kind, tag, digest, wire.write_records(adverts))

    with refused(SignatureError, Stage.SHARE, 1):
        room.play(intercept=swap)


# --- what is encapsulated ---------------------------------------------------------------------------------


class DealCheat(wire.Client):
    """Changes what it encapsulates, and signs that."""

    victims: tuple[int, ...] = (4, 5)

    def deal(self, sealed: dict[int, bytes]) -> dict[int, bytes]:
        changed = dict(sealed)
        for victim in self.victims:
            cut = [sealed[victim][:98], *hybrid.Encapsulated.cut(sealed[victim][98:])]
            changed[victim] = b"".join(self.changed(victim, cut, sealed))
        return changed

    def changed(self, victim: int, cut: list[bytes], sealed: dict[int, bytes]) -> list[bytes]:
        raise NotImplementedError


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


class WrongMasking(DealCheat):
    def changed(self, victim: int, cut: list[bytes], sealed: dict[int, bytes]) -> list[bytes]:
        return [*cut[:2], hashlib.shake_256(b"junk").digest(1088), *cut[3:]]


class SwappedMasking(DealCheat):
    def changed(self, victim: int, cut: list[bytes], sealed: dict[int, bytes]) -> list[bytes]:
        other = next(i for i in self.victims if i != victim)
        return [*cut[:2], sealed[other][1186:2274], *cut[3:]]


class WrongPart(DealCheat):
    def changed(self, victim: int, cut: list[bytes], sealed: dict[int, bytes]) -> list[bytes]:
        return [*cut[:3], flipped(cut[3]), *cut[4:]]


class WrongPartHash(DealCheat):
    def changed(self, victim: int, cut: list[bytes], sealed: dict[int, bytes]) -> list[bytes]:
        return [*cut[:5], flipped(cut[5])]


BAD_PARTS = [WrongMasking, SwappedMasking, WrongPart, WrongPartHash]


@pytest.mark.parametrize(
    ("graph", "kind", "victims"),
    [
        *(("complete", kind, them) for kind in BAD_PARTS for them in ((4, 5), (0, 6), (0, 1, 3, 4, 5, 6))),
        ("chosen", WrongMasking, (4, 5)),
        ("chosen", SwappedMasking, (4, 5)),
    ],
)
def test_a_part_that_is_not_the_signed_one_is_named_by_whoever_gets_it(kind, graph, victims):
    room = room_of(graph=graph, round=1)
    room.cheat(LIAR, type(kind.__name__, (kind,), {"victims": victims}))
    lost, complaints = played(room)
    assert lost is not None  # the liar's masks with those that stop can't be taken off
    stopped = {error.peer for error in complaints if "stops" in str(error)}
    assert stopped == set(victims) - {LIAR}
    assert set(room.server.blamed) == {LIAR}
    blame = room.server.blamed[LIAR]
    assert blame.stage is Stage.SHARE
    assert verify_evidence(blame.evidence, room.roster) == blame
    for victim in stopped:
        client = room.clients[victim]
        assert client.stage is None
        assert room.counters[victim].last_round == 0  # its vector may go into another session of the round
        with pytest.raises(OutOfOrder, match="has stopped: what came from client 2"):
            client.confirm(b"")
    uploaded = set(room.ids) - stopped - {LIAR}
    assert all(room.counters[i].last_round == 1 for i in uploaded)
    how = {"counters": room.counters, "excluded": room.server.blamed.values()}
    following = room_of(graph=graph, number=2, round=2, **how)
    assert played(following)[0] is None
    assert LIAR not in following.server.result.survivors


def test_who_is_blamed_before_it_uploads_does_not_lose_the_sum():
    """It is not listened to any more: what it masks with those that stop is then not in the sum."""
    room = room_of()
    room.cheat(LIAR, type("Early", (WrongPart,), {"victims": (LIAR - 1,)}))
    lost, complaints = played(room)
    assert lost is None
    assert [type(error) for error in complaints] == [ProtocolError, OutOfOrder]
    assert [error.peer for error in complaints] == [LIAR - 1, LIAR]
    assert set(room.server.blamed) == {LIAR}
    result = room.server.result
    assert not {LIAR, LIAR - 1} & set(result.survivors)
    assert result.counts.tolist() == room.expected(result.survivors)


@pytest.mark.parametrize(("graph", "kind"), on_both(BAD_PARTS))
def test_the_root_of_a_victim_that_is_only_silent_names_the_liar_too(kind, graph):
    """It opens as that of any client that drops."""
    room = room_of(graph=graph)
    room.cheat(LIAR, type(kind.__name__, (kind,), {"victims": (4, 5)}))
    lost, complaints = played(room, drop={4: Stage.UPLOAD, 5: Stage.UPLOAD})
    assert complaints == []
    assert (type(lost).__name__, lost.peer) == ("ShareError", LIAR)
    assert set(room.server.blamed) == {LIAR}
    blame = room.server.blamed[LIAR]
    assert verify_evidence(blame.evidence, room.roster) == blame


class UnsignedRecord(wire.Client):
    """Signs all that it deals, and under one holder's record puts another signature."""

    victim = 4

    def other(self, dealt: dict[int, bytes]) -> bytes:
        return bytes(64)

    def signed_records(self, dealt: dict[int, bytes]) -> dict[int, bytes]:
        signed = super().signed_records(dealt)
        return signed | {self.victim: dealt[self.victim] + self.other(signed)}


class AnothersSignature(UnsignedRecord):
    def other(self, dealt: dict[int, bytes]) -> bytes:
        return dealt[self.victim + 1][-64:]


class OneBitOff(UnsignedRecord):
    def other(self, dealt: dict[int, bytes]) -> bytes:
        return flipped(dealt[self.victim][-64:])


@pytest.mark.parametrize(
    ("graph", "kind", "victim"),
    [
        *(
            ("complete", kind, victim)
            for kind in (UnsignedRecord, AnothersSignature, OneBitOff)
            for victim in (LIAR, 4, 0)
        ),
        ("chosen", AnothersSignature, 4),
    ],
)
def test_a_record_that_is_not_signed_by_itself_convicts_its_dealer_and_costs_nobody_else(kind, graph, victim):
    """Whoever gets it would leave, and could not say whose fault it was."""
    room = room_of(graph=graph)
    room.cheat(LIAR, type(kind.__name__, (kind,), {"victim": victim}))
    lost, complaints = played(room)
    assert lost is None
    assert [(type(error), error.stage, error.peer) for error in complaints[:1]] == [
        (SignatureError, Stage.SHARE, LIAR)
    ]
    assert set(room.ids) - set(room.server.result.survivors) == {LIAR}
    assert set(room.server.blamed) == {LIAR}
    blame = room.server.blamed[LIAR]
    assert (blame.stage, "is not signed by itself" in blame.reason) == (Stage.SHARE, True)
    assert verify_evidence(blame.evidence, room.roster) == blame
    assert convicted(blame.evidence, room.public_keys()) == LIAR
    fields = msgspec.msgpack.decode(blame.evidence)
    for holder in set(room.ids) - {victim}:  # the other records are signed as they should be
        fields[-2] = holder
        assert convicted(msgspec.msgpack.encode(fields), room.public_keys()) is None
        dealt = graph == "complete" or holder in (0, 1, 3, 5, 6)
        with pytest.raises(EvidenceError, match="not the seed" if dealt else "nothing was encapsulated"):
            verify_evidence(msgspec.msgpack.encode(fields), room.roster)


def signed_under_the_other_point(seed: bytes, message: bytes) -> bytes:
    """As `ed25519_sign`, by the negative scalar: its point has the same y, and the same X25519 key."""
    scalar = -(int.from_bytes(wire.sealing_scalar(seed), "little") & ~7 & (2**255 - 1) | 2**254) % ORDER
    public = edwards_encode(edwards_multiply(scalar, BASE))
    nonce = int.from_bytes(hashlib.sha512(seed + message).digest(), "little") % ORDER
    r = edwards_encode(edwards_multiply(nonce, BASE))
    challenge = int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % ORDER
    return r + ((nonce + challenge * scalar) % ORDER).to_bytes(32, "little")


class BothPoints(wire.Client):
    """Signs under both points of its sealing key, which whoever knows the one scalar can."""

    usual: tuple[int, ...] = ()

    def signed_records(self, dealt: dict[int, bytes]) -> dict[int, bytes]:
        signed = super().signed_records(dealt)
        for i in dealt.keys() - set(self.usual):
            ends = kem.pair(self.between(i), self.me, i)
            message = wire.label("record") + ends + wire.hashes(dealt[i])
            signed[i] = dealt[i] + signed_under_the_other_point(self.sealing_seed, message)
        return signed


@pytest.mark.parametrize(("graph", "usual"), on_both([(), (0,), (6,), (0, 1, 2, 3, 4, 5), (1, 3, 5)]))
@pytest.mark.parametrize("liar", [LIAR, LIAR + 1])
def test_a_dealer_that_signs_under_both_points_of_its_key_has_signed(graph, usual, liar):
    """Server, receivers and judges must come to the same, in whatever order they look at what it signed."""
    room = room_of(graph=graph)
    room.cheat(liar, type("BothPoints", (BothPoints,), {"usual": usual}))
    assert played(room) == (None, [])
    assert room.server.blamed == {}
    assert room.server.result.survivors == tuple(room.ids)


class OtherPart(wire.Client):
    """Sends and signs a part that its root does not give, and masks with it."""

    victim = 4

    def encapsulated(self, peer: int) -> list[bytes]:
        root = self.mask_secret
        if peer == self.victim:
            self.mask_secret = hashlib.sha256(b"another root").digest()
        found = super().encapsulated(peer)
        self.mask_secret = root
        return found


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_part_that_the_root_does_not_give_is_found_out_when_the_root_opens(graph):
    room = room_of(graph=graph)
    room.cheat(LIAR, OtherPart)
    lost, complaints = played(room, drop={LIAR: Stage.UPLOAD})
    assert complaints == []
    assert (type(lost).__name__, lost.peer) == ("ShareError", LIAR)
    blame = room.server.blamed[LIAR]
    assert set(room.server.blamed) == {LIAR}
    assert "do not give the mask key" in blame.reason
    assert verify_evidence(blame.evidence, room.roster) == blame


class WrongSealing(DealCheat):
    def changed(self, victim: int, cut: list[bytes], sealed: dict[int, bytes]) -> list[bytes]:
        return [cut[0], hashlib.shake_256(b"junk").digest(1088), *cut[2:]]


class WrongSecretHash(DealCheat):
    def changed(self, victim: int, cut: list[bytes], sealed: dict[int, bytes]) -> list[bytes]:
        return [*cut[:4], flipped(cut[4]), cut[5]]


@pytest.mark.parametrize(("graph", "kind"), on_both([WrongSealing, WrongSecretHash]))
def test_a_secret_that_is_not_the_signed_one_costs_a_share_and_names_nobody(kind, graph):
    """Only its receiver can tell, and can't show it without its key: neither of the two is believed."""
    room = room_of(graph=graph)
    room.cheat(LIAR, kind)
    lost, complaints = played(room)
    assert lost is None
    assert complaints == []
    assert room.server.blamed == {}
    assert room.server.result.survivors == tuple(room.ids)


@pytest.mark.parametrize(("graph", "kind"), on_both([WrongSealing, WrongSecretHash]))
def test_where_that_loses_the_sum_the_error_says_between_whom_it_lies(kind, graph):
    room = room_of(graph=graph)
    room.cheat(LIAR, type(kind.__name__, (kind,), {"victims": (3, 4, 5)}))
    with refused(ThresholdError, Stage.UNMASK, None) as caught:
        room.play(drop={6: Stage.CONFIRM})
    threshold = room.session.threshold
    assert f"secrets with fewer than {threshold} shares that open: 1" in str(caught.value)
    assert "3 clients say that client 2 encapsulated something else" in str(caught.value)
    assert "clients 3, 4, 5 do" in str(caught.value)
    assert room.server.blamed == {}


@pytest.mark.parametrize(("graph", "kind"), on_both([WrongSealing, WrongSecretHash]))
def test_what_whoever_gets_it_says_is_no_evidence_against_it(kind, graph):
    room = room_of(graph=graph)
    room.cheat(LIAR, kind)
    said: dict[tuple[Stage, int | None, int | None], bytes] = {}
    room.play(intercept=lambda *message: said.setdefault(message[:3], bytes(message[3])))
    for victim in DealCheat.victims:
        adverts = take_apart(said[Stage.SHARE, SERVER, victim])[2][1]
        received = take_apart(said[Stage.UPLOAD, SERVER, victim])[2][2]
        *fields, signature = take_apart(said[Stage.UNMASK, victim, SERVER])[2]
        assert fields[2]
        evidence = UnmaskEvidence(2, room.session, victim, adverts, received, *fields, signature)
        with pytest.raises(EvidenceError, match="agrees with what its sender received"):
            verify_evidence(encode_evidence(evidence), room.roster)


@pytest.mark.parametrize(("graph", "kind"), on_both([WrongSealing, WrongSecretHash]))
def test_whoever_gets_it_gives_nothing_away(kind, graph):
    room = room_of(graph=graph)
    room.cheat(LIAR, kind)
    last: dict[int, bytes] = {}

    def note(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if stage is Stage.UNMASK and sender is not None:
            last[sender] = take_apart(message)[2][2]
        return message

    assert played(room, intercept=note)[0] is None
    assert {i: blob for i, blob in last.items() if blob} == {
        i: LIAR.to_bytes(4, "big") + bytes(128) for i in DealCheat.victims
    }


class Garbage(DealCheat):
    def changed(self, victim: int, cut: list[bytes], sealed: dict[int, bytes]) -> list[bytes]:
        return [flipped(cut[0]), *cut[1:]]


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_seal_that_does_not_open_under_the_signed_secret_is_blamed_on_its_dealer(graph):
    room = room_of(graph=graph)
    room.cheat(LIAR, Garbage)
    lost, complaints = played(room)
    assert lost is None
    assert complaints == []
    assert set(room.server.blamed) == {LIAR}
    blame = room.server.blamed[LIAR]
    assert verify_evidence(blame.evidence, room.roster) == blame
    spoilt = msgspec.msgpack.decode(blame.evidence)
    spoilt[-1] = spoilt[-1][:-1] + bytes([spoilt[-1][-1] ^ 1])
    with pytest.raises(EvidenceError, match="what is shown is not what was encapsulated"):
        verify_evidence(msgspec.msgpack.encode(spoilt), room.roster)


class Complains(wire.Client):
    """Says that a client's shares do not open, although they do."""

    about = 5
    shows = "all"

    def upload(self, data: bytes) -> bytes:
        genuine = self.keys_to

        def none(sender: int, receiver: int, beside: bytes = b"") -> list[bytes]:
            both = genuine(sender, receiver, beside)
            return [flipped(key) for key in both] if sender == self.about else both

        self.keys_to = none
        return super().upload(data)

    def _read_appeals(self, blob: bytes) -> None:
        assert blob

    def complain(self, peer: int) -> bytes:
        shown = super().complain(peer)
        return {
            "all": shown,
            "no proof": bytes(96) + shown[96:],
            "another proof": flipped(shown),
            "another secret": shown[:-1] + bytes([shown[-1] ^ 1]),
            "nothing": bytes(128),
        }[self.shows]


@pytest.mark.parametrize(
    ("graph", "shows"),
    [
        *on_both(["all", "no proof", "another proof", "another secret", "nothing"]),
        ("chosen", "another secret"),
    ],
)
def test_a_complaint_about_the_honest_convicts_its_author_if_it_decides_anything(shows, graph):
    room = room_of(graph=graph)
    room.cheat(LIAR, type("Shows", (Complains,), {"shows": shows}))
    lost, complaints = played(room)
    assert lost is None
    assert complaints == []
    undecided = shows in ("another secret", "nothing")
    assert set(room.server.blamed) == (set() if undecided else {LIAR})
    assert room.server.result.survivors == tuple(room.ids)


# --- stopping ---------------------------------------------------------------------------------------------


class Stops(wire.Client):
    """Stops without a reason."""

    shown = b""

    def upload(self, data: bytes) -> bytes:
        super().upload(data)
        return wire.wrap(8, self.context[:16], self.shown or kem.mask_kem_seed(self.mask_secret))


@pytest.mark.parametrize(("graph", "seed"), on_both([b"", bytes(64), bytes(32), b"short", bytes(65)]))
def test_who_stops_without_reason_is_silent_and_nobody_is_blamed(graph, seed):
    room = room_of(graph=graph)
    room.cheat(LIAR, type("Stops", (Stops,), {"shown": seed}))
    lost, complaints = played(room)
    assert lost is None
    assert [(type(error), error.peer) for error in complaints] == [(ProtocolError, LIAR)]
    assert ("0 clients sent it" if seed == b"" else "another seed than that of its key") in str(complaints[0])
    assert room.server.blamed == {}
    assert LIAR not in room.server.result.survivors


@pytest.mark.parametrize("suite", ["x25519", HYBRID])
def test_a_stop_belongs_into_a_hybrid_session_of_its_context(suite):
    room = Rehearsal(range(4), suite=suite)
    room.play(until=Stage.SHARE)
    expected = ContextMismatch if suite == HYBRID else MessageError
    for tag in (bytes(16), room.session.context0[:16]):
        with refused(expected, Stage.UPLOAD, 1):
            room.server.receive(1, wire.wrap(8, tag, bytes(32)))
    with refused(MessageError, Stage.UPLOAD, 1):
        room.server.receive(1, wire.wrap(8, room.session.context0[:16], bytes(2000)))
    assert room.server.waiting == (0, 1, 2, 3)


@pytest.mark.parametrize(("graph", "place"), on_both([1186, 2274, 2338]))
def test_a_server_that_alters_a_part_frames_nobody(place, graph):
    """Not even with the dealer's signature under that record, which makes the client stop."""
    room = room_of(graph=graph)
    said: dict[tuple[Stage, int | None, int | None], bytes] = {}

    def alter(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        said[stage, sender, receiver] = message
        if (stage, receiver) != (Stage.UPLOAD, 4):
            return message
        kind, tag, (count, ids, blob) = take_apart(message)
        dealt = wire.read_records(blob, 2434)
        dealt[1] = room.signed_record(1, 4, dealt[1][:place] + flipped(dealt[1][place:]))
        return wire.wrap(kind, tag, count, ids, wire.write_records(dealt))

    lost, complaints = played(room, intercept=alter)
    assert lost is None
    assert [error.peer for error in complaints] == [4]  # it stops, and shows a key that convicts nobody
    assert room.server.blamed == {}
    adverts = take_apart(said[Stage.SHARE, SERVER, 1])[2][1]
    sealed, signature = take_apart(said[Stage.SHARE, 1, SERVER])[2]
    seed = kem.mask_kem_seed(room.rng[4].taken[96:128])
    for receiver in (0, 4, 1):
        own = room.rng[receiver].taken[96:128]
        for claimed in (seed, bytes(64), b"", own, kem.mask_kem_seed(own)):
            evidence = PartEvidence(2, room.session, 1, adverts, sealed, signature, receiver, claimed)
            with pytest.raises(EvidenceError, match=r"the part is the one|not the seed|whose seed this is"):
                verify_evidence(encode_evidence(evidence), room.roster)
    records = wire.read_records(sealed, 2434)
    records[4] = records[4][:place] + flipped(records[4][place:])
    evidence = PartEvidence(2, room.session, 1, adverts, wire.write_records(records), signature, 4, seed)
    with pytest.raises(EvidenceError, match="signature does not verify"):
        verify_evidence(encode_evidence(evidence), room.roster)


def test_evidence_of_parts_is_of_hybrid_sessions():
    room = Rehearsal(range(5))
    said: dict[tuple[Stage, int | None, int | None], bytes] = {}
    room.play(intercept=lambda *message: said.setdefault(message[:3], bytes(message[3])))
    adverts = take_apart(said[Stage.SHARE, SERVER, 0])[2][1]
    sealed, signature = take_apart(said[Stage.SHARE, 1, SERVER])[2]
    evidence = PartEvidence(2, room.session, 1, adverts, sealed, signature, 4, room.rng[4].taken[32:64])
    with pytest.raises(EvidenceError, match="nothing was encapsulated"):
        verify_evidence(encode_evidence(evidence), room.roster)


# --- an honest client's own words convict it of nothing -----------------------------------------------------


@pytest.mark.parametrize("graph", GRAPHS)
def test_an_honest_last_message_is_no_evidence(graph):
    room = room_of(5, graph)
    said: dict[tuple[Stage, int | None, int | None], bytes] = {}
    room.play(intercept=lambda *message: said.setdefault(message[:3], bytes(message[3])))
    adverts = take_apart(said[Stage.SHARE, SERVER, 1])[2][1]
    received = take_apart(said[Stage.UPLOAD, SERVER, 1])[2][2]
    *fields, signature = take_apart(said[Stage.UNMASK, 1, SERVER])[2]
    evidence = UnmaskEvidence(2, room.session, 1, adverts, received, *fields, signature)
    with pytest.raises(EvidenceError, match="agrees with what its sender received"):
        verify_evidence(encode_evidence(evidence), room.roster)


@pytest.mark.parametrize(("graph", "place"), on_both([0, 98, 2306]))
def test_a_server_that_alters_what_is_for_the_seals_is_not_answered(place, graph):
    """The holder goes on without the share, and stops where it sees that the dealer signed something else.

    (If it goes on at all: here the server has the dealer's signature under the one record.)
    """
    room = room_of(graph=graph)

    def alter(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if (stage, receiver) != (Stage.UPLOAD, 4):
            return message
        kind, tag, (count, ids, blob) = take_apart(message)
        dealt = wire.read_records(blob, 2434)
        dealt[1] = room.signed_record(1, 4, dealt[1][:place] + flipped(dealt[1][place:]))
        return wire.wrap(kind, tag, count, ids, wire.write_records(dealt))

    with refused(SealError, Stage.UNMASK, None) as caught:
        room.play(intercept=alter)
    assert "not the one that client 1 signed" in str(caught.value)
    assert room.server.blamed == {}


# --- secrets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("how", ["leaves", "uploads", "stops", "fails"])
def test_secrets_are_overwritten_when_a_client_is_done_with_them(how, graph):
    room, kept = room_of(4, graph), []

    def note(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        if (stage, receiver) == (Stage.UPLOAD, 1):
            state = room.clients[1]._state
            kept.extend((state.masking.private(), state.masking, state.sealing))
            if how == "leaves":
                room.clients[1].abort()
        if (stage, receiver) != (Stage.UPLOAD, 1) or how not in ("stops", "fails"):
            return message
        kind, tag, (count, ids, blob) = take_apart(message)
        dealt = wire.read_records(blob, 2434)
        dealer = 0 if how == "stops" or graph == "chosen" else 1
        dealt[dealer] = room.signed_record(dealer, 1, bytes(2370))
        if (how, graph) == ("fails", "chosen"):  # there is nothing of its own
            dealt[dealer] = bytes(2434)
        return wire.wrap(kind, tag, count, ids, wire.write_records(dealt))

    failed = False
    try:
        room.play(intercept=note, refused=[], until=Stage.UPLOAD)
    except SecureSumError:
        failed = True
    assert failed == (how in ("leaves", "fails"))
    root, masking, sealing = kept
    assert bytes(root) == bytes(32) != room.rng[1].taken[96:128]
    assert bytes(masking._parts._prk.reveal()) == b""
    for pair in (masking, sealing):
        with pytest.raises(PublicKeyError, match="erased"):
            pair.kem.decapsulate(bytes(1088))


def test_nothing_secret_is_in_a_repr_or_a_pickle():
    pair = hybrid.HybridMaskPair(bytes(range(32)))
    sealing = hybrid.HybridSealingPair(bytes(range(32)), bytes(64))
    for each in (pair, sealing, pair.kem, sealing.kem):
        assert not any(ch.isdigit() for ch in repr(each).replace("0x", "").split(" at ")[0])
        with pytest.raises(TypeError):
            pickle.dumps(each)
        with pytest.raises(TypeError):
            copy.deepcopy(each)


def test_each_label_of_a_hybrid_session_is_its_own():
    usages = [
        "mask-key",
        "kem-d",
        "kem-z",
        "part",
        "wrap",
        "secret-hash",
        "part-hash",
        "seal-seed",
        "seal-key",
    ]
    labels = {hybrid.hybrid_label(usage) for usage in (*usages, "pair")}
    assert len(labels) == len(usages) + 1
    assert all(each.startswith(b"prism-crypto/v2+ml-kem-768/") for each in labels)
    assert not any(each.startswith(b"prism-crypto/v2/") for each in labels)


class SignsTheHashOfZeros(wire.Client):
    """A dealer that signs, for two holders, the hash of what holders show who have no such secret."""

    victims = (0, 4)

    def encapsulated(self, peer):
        found = super().encapsulated(peer)
        if peer in self.victims:
            found[3] = kem.hashed("secret-hash", self.between(peer), self.me, peer, bytes(32))
        return found


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_dealer_that_signs_the_hash_of_zeros_has_no_holder_convicted(graph):
    room = room_of(graph=graph)
    room.cheat(2, SignsTheHashOfZeros)
    room.play()
    assert room.server.result.counts.tolist() == room.expected(room.server.result.survivors)
    assert room.server.blamed == {}
    assert sorted(room.server._hall.undecided[2]) == [0, 4]
