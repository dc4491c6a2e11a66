"""Client and server, stage by stage: what each refuses, whom it names, and what it keeps."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rehearsal import Rehearsal

from prism_crypto import (
    ContextMismatch,
    CountSpec,
    Identity,
    IdentityError,
    InputError,
    MessageError,
    OutOfOrder,
    Policy,
    PolicyError,
    ProtocolError,
    PublicKeyError,
    RandomnessError,
    Roster,
    SealError,
    SecureSumClient,
    SecureSumServer,
    Session,
    SessionCounter,
    ShareError,
    SignatureError,
    Stage,
    SumError,
    ThresholdError,
)
from prism_crypto.primitives.context import encode_ids, tag, u32
from prism_crypto.primitives.shamir import PRIME, SHARE_BYTES
from prism_crypto.stages.advert import Advert, check_advert
from prism_crypto.stages.party import Party
from prism_crypto.wire.messages import (
    DEALING,
    SEALED_BYTES,
    AdvertMessage,
    AdvertsMessage,
    ConfirmationsMessage,
    ConfirmMessage,
    OpenedMessage,
    ShareMessage,
    SharesMessage,
    SurvivorsMessage,
    UnmaskMessage,
    UploadMessage,
    decode_records,
    encode,
    encode_records,
    share_body,
    unmask_body,
)


def parse(kind, data):
    return msgspec.msgpack.decode(data, type=kind)


def altered(kind, data, **fields):
    """The message with some fields replaced (a callable gets the old value)."""
    message = parse(kind, data)
    new = {k: v(getattr(message, k)) if callable(v) else v for k, v in fields.items()}
    return encode(msgspec.structs.replace(message, **new))


def sparse(**fields):
    fields = {"mode": "semi_honest", "graph": "harary", "dropout": 0.1, "colluders": 2} | fields
    return Rehearsal(range(60), **fields)


# --- making the parties ---------------------------------------------------------------------------


def test_an_active_client_needs_identity_roster_and_counter():
    room = Rehearsal()
    for missing in ("identity", "roster", "counter"):
        with pytest.raises(IdentityError, match="needs an identity"):
            room.client(1, **{missing: None})


def test_a_client_can_not_use_another_identity():
    room = Rehearsal()
    for identity in (room.identities[2], Identity.generate(1)):
        with pytest.raises(IdentityError, match="not the one that the roster pins"):
            room.client(1, identity=identity)


def test_parties_refuse_statistical_randomness():
    room = Rehearsal()
    with pytest.raises(RandomnessError):
        room.client(1, rng=np.random.default_rng(0).bytes)
    with pytest.raises(RandomnessError):
        SecureSumServer(room.session, roster=room.roster, rng=np.random.default_rng(0).bytes)


def test_a_server_needs_the_ids_and_the_roster_of_its_session():
    room = Rehearsal()
    with pytest.raises(IdentityError, match="roster that the session names"):
        SecureSumServer(room.session)
    with pytest.raises(IdentityError, match="roster that the session names"):
        SecureSumServer(room.session, roster=Roster({0: room.identities[0].public_key}))
    smaller = Roster({i: room.identities[i].public_key for i in range(4)})
    session = msgspec.structs.replace(room.session, roster_hash=smaller.hash)
    with pytest.raises(IdentityError, match="not in the roster"):
        SecureSumServer(session, roster=smaller)
    bare = sparse().session
    with pytest.raises(PolicyError, match="needs the ids"):
        SecureSumServer(msgspec.structs.replace(bare, invited=bare.invited.summary()))


# --- advertise ------------------------------------------------------------------------------------


def test_the_policy_is_checked_before_a_byte_leaves_and_before_the_counter_moves():
    room = Rehearsal(policy=Policy(min_survivors=5))
    client = room.clients[0]
    with pytest.raises(PolicyError) as caught:
        client.advertise()
    assert (caught.value.stage, caught.value.peer) == (Stage.ADVERTISE, None)
    assert room.counters[0].last == 0
    assert room.rng[0].taken == b""
    with pytest.raises(OutOfOrder, match="aborted at advertise"):
        client.advertise()


def test_the_server_refuses_an_advert_of_another_context_key_or_signature():
    room = Rehearsal()
    server = room.server
    good = room.clients[0].advertise()
    advert = Advert.decode(parse(AdvertMessage, good).advert, signed=True)

    def resigned(**fields):
        changed = msgspec.structs.replace(advert, **fields)
        signature = room.identities[0].sign(Stage.ADVERTISE, changed.signed_part(room.session.context0, 0))
        changed = msgspec.structs.replace(changed, signature=signature)
        return altered(AdvertMessage, good, advert=changed.encode())

    cases = [
        (altered(AdvertMessage, good, tag=bytes(16)), ContextMismatch),
        (resigned(tag=bytes(16)), ContextMismatch),
        (resigned(sealing_key=b"\xff" * 32), PublicKeyError),
        (resigned(mask_key=b"\xff" * 32), PublicKeyError),
        (resigned(mask_key=advert.sealing_key), PublicKeyError),
        (resigned(sealing_key=bytes(32)), PublicKeyError),
        (resigned(mask_key=bytes(32)), PublicKeyError),
        (altered(AdvertMessage, good, advert=lambda a: a[:-1] + bytes([a[-1] ^ 1])), SignatureError),
        (altered(AdvertMessage, good, advert=lambda a: a[:-64]), MessageError),
        (altered(AdvertMessage, good, advert=b""), MessageError),
    ]
    for bad, error in cases:
        with pytest.raises(error) as caught:
            server.receive(0, bad)
        assert (caught.value.stage, caught.value.peer) == (Stage.ADVERTISE, 0)
        assert (0 in server.blamed) == (error is PublicKeyError)
        server._hall.blamed.clear()  # who is blamed is not listened to any more
    with pytest.raises(SignatureError) as caught:
        server.receive(1, good)
    assert caught.value.peer == 1
    server.receive(0, good)
    assert server.waiting == (1, 2, 3, 4)


# --- share ----------------------------------------------------------------------------------------


@pytest.fixture
def adverts():
    room = Rehearsal()
    return room, room.play(until=Stage.ADVERTISE)


def records_of(message):
    return decode_records(message.adverts, 240, stage=Stage.SHARE)


@pytest.mark.parametrize(
    ("spoil", "error", "peer"),
    [
        (lambda r: r | {3: r[2]}, SignatureError, 3),
        (lambda r: {i: r[i] for i in r if i != 0}, ProtocolError, None),
        (lambda r: r | {0: r[1]}, ProtocolError, None),
        (lambda r: r | {9: r[1]}, MessageError, None),
        (lambda r: {i: r[i] for i in r if i != 1} | {9: r[1]}, ProtocolError, 9),
        (lambda r: {i: r[i] for i in (0, 1, 2)}, ThresholdError, None),
        (lambda r: r | {2: bytes(16) + r[2][16:]}, ContextMismatch, 2),
        (lambda r: r | {2: r[2][:16] + b"\xff" * 32 + r[2][48:]}, PublicKeyError, 2),
        (lambda r: r | {2: r[2][:-1] + bytes([r[2][-1] ^ 1])}, SignatureError, 2),
    ],
    ids=[
        "another's advert under a name",
        "own advert missing",
        "own advert replaced",
        "one too many",
        "a stranger",
        "too few",
        "another context",
        "a key that is none",
        "a forged signature",
    ],
)
def test_a_client_checks_every_advert_and_names_its_sender(adverts, spoil, error, peer):
    room, outbound = adverts
    message = parse(AdvertsMessage, outbound[0])
    bad = encode(msgspec.structs.replace(message, adverts=encode_records(spoil(records_of(message)))))
    with pytest.raises(error) as caught:
        room.clients[0].share(bad)
    assert (caught.value.stage, caught.value.peer) == (Stage.SHARE, peer)
    with pytest.raises(OutOfOrder, match="aborted at share"):
        room.clients[0].share(outbound[0])


def test_a_complete_graph_client_takes_no_hash_from_the_server(adverts):
    room, outbound = adverts
    with pytest.raises(MessageError, match="hashes itself"):
        room.clients[0].share(altered(AdvertsMessage, outbound[0], digest=bytes(32)))


def test_a_key_sent_by_two_clients_is_refused():
    room = Rehearsal(mode="semi_honest")
    outbound = room.play(until=Stage.ADVERTISE)
    message = parse(AdvertsMessage, outbound[0])
    records = decode_records(message.adverts, 112, stage=Stage.SHARE)
    records[2] = records[2][:48] + records[1][48:80] + records[2][80:]
    with pytest.raises(PublicKeyError, match="client 2 has a public key that another client sent") as caught:
        room.clients[0].share(encode(msgspec.structs.replace(message, adverts=encode_records(records))))
    assert caught.value.peer is None  # which of the two is its owner, nobody can tell


@pytest.mark.parametrize("start", [16, 48], ids=["sealing", "mask"])
def test_a_point_of_low_order_that_a_server_lets_through_is_named(start):
    room = Rehearsal(mode="semi_honest")
    for i, client in room.clients.items():
        room.server.receive(i, client.advertise())
    honest = room.server._state._adverts[2]
    forged = honest[:start] + bytes(32) + honest[start + 32 :]
    room.server._state._adverts[2] = room.clients[2]._state.advert = forged
    inbox = room.server.close()
    with pytest.raises(PublicKeyError, match="low order") as caught:
        room.clients[0].share(inbox[0])
    assert (caught.value.stage, caught.value.peer) == (Stage.SHARE, 2)


def test_a_sparse_client_takes_only_neighbours_and_a_hash():
    for fields, error in [
        ({"digest": b""}, MessageError),
        ({"adverts": lambda blob: u32(0) + blob[4:]}, MessageError),
        ({"adverts": b""}, ThresholdError),
        ({"adverts": lambda blob: blob[:-116] + b"\xff" * 4 + blob[-112:]}, ProtocolError),
    ]:
        room = sparse()
        outbound = room.play(until=Stage.ADVERTISE)
        with pytest.raises(error) as caught:
            room.clients[0].share(altered(AdvertsMessage, outbound[0], **fields))
        assert caught.value.stage is Stage.SHARE
        assert room.clients[0].stage is None  # it does not try again with other shares


def test_the_server_wants_one_sealed_pair_for_each_neighbour(adverts):
    room, outbound = adverts
    good = room.clients[0].share(outbound[0])
    width = 4 + SEALED_BYTES
    context = room.clients[0]._state.context

    def dealt(change):
        sealed = change(parse(ShareMessage, good).sealed)
        signature = room.key_signature(0, DEALING, share_body(context, 0, sealed))
        return {"sealed": sealed, "signature": signature}

    for fields, error in [
        ({"sealed": lambda b: b[:-1] + bytes([b[-1] ^ 1])}, SignatureError),
        ({"signature": b""}, SignatureError),
        ({"tag": bytes(16)}, ContextMismatch),
    ]:
        with pytest.raises(error) as caught:
            room.server.receive(0, altered(ShareMessage, good, **fields))
        assert (caught.value.stage, caught.value.peer) == (Stage.SHARE, 0)
        assert not room.server.blamed
    for change, error in [
        (lambda b: b[:-width], ProtocolError),
        (lambda b: b[:-width] + u32(9) + b[-SEALED_BYTES:], ProtocolError),
        (lambda b: b[:-1], MessageError),
        (lambda b: b[width:] + b[:width], MessageError),
        (lambda b: b"", ProtocolError),
    ]:
        with pytest.raises(error) as caught:
            room.server.receive(0, altered(ShareMessage, good, **dealt(change)))
        assert (caught.value.stage, caught.value.peer) == (Stage.SHARE, 0)
        assert room.server.blamed.keys() == {0}
        with pytest.raises(OutOfOrder, match="out of this session"):
            room.server.receive(0, good)
        room.server._hall.blamed.clear()
    room.server.receive(0, good)


# --- upload ---------------------------------------------------------------------------------------


@pytest.fixture
def shares():
    room = Rehearsal()
    return room, room.play(until=Stage.SHARE)


WIDTH = 4 + SEALED_BYTES


@pytest.mark.parametrize(
    ("fields", "error", "peer"),
    [
        ({"sealed": lambda b: b[:4] + bytes([b[4] ^ 1]) + b[5:]}, SealError, None),
        (
            {
                "sealed": lambda b: (
                    b[: WIDTH + 4]
                    + b[4 + 2 * WIDTH : 3 * WIDTH]
                    + b[2 * WIDTH : 2 * WIDTH + 4]
                    + b[WIDTH + 4 : 2 * WIDTH]
                    + b[3 * WIDTH :]
                )
            },
            SealError,
            None,
        ),
        ({"sealed": lambda b: b[WIDTH:]}, ProtocolError, None),
        ({"sharers": encode_ids((0, 1, 2, 3)), "count": 4}, ProtocolError, None),
        ({"sharers": encode_ids((1, 2, 3, 4)), "count": 4}, ProtocolError, None),
        ({"sharers": encode_ids((0, 1, 2, 3, 9))}, ProtocolError, 9),
        ({"count": 4}, MessageError, None),
        (
            {"sharers": encode_ids((0, 1, 2)), "count": 3, "sealed": lambda b: b[: 3 * WIDTH]},
            ThresholdError,
            None,
        ),
        ({"tag": bytes(16)}, ContextMismatch, None),
    ],
    ids=[
        "its own share altered",
        "two shares exchanged",
        "a share withheld",
        "a sharer hidden",
        "left out",
        "a stranger",
        "another count",
        "too few",
        "another session",
    ],
)
def test_a_client_that_is_shown_other_shares_does_not_upload(shares, fields, error, peer):
    room, outbound = shares
    with pytest.raises(error) as caught:
        room.clients[0].upload(altered(SharesMessage, outbound[0], **fields), room.values[0])
    assert (caught.value.stage, caught.value.peer) == (Stage.UPLOAD, peer)


def test_an_active_client_goes_on_without_a_share_that_does_not_open_and_says_so(shares):
    room, outbound = shares
    bad = altered(SharesMessage, outbound[0], sealed=lambda b: b[:-1] + bytes([b[-1] ^ 1]))
    message = parse(UploadMessage, room.clients[0].upload(bad, room.values[0]))
    assert message.unopened == encode_ids((4,))


@pytest.mark.parametrize("mode", ["active", "semi_honest"])
def test_a_sealed_value_that_is_no_share_is_not_taken_for_one(monkeypatch, mode):
    room = Rehearsal(mode=mode)
    for i, client in room.clients.items():
        room.server.receive(i, client.advertise())
    inbox = room.server.close()
    with monkeypatch.context() as patch:
        bad = PRIME.to_bytes(SHARE_BYTES)
        patch.setattr("prism_crypto.stages.share.split", lambda secret, t, xs, rng: dict.fromkeys(xs, bad))
        room.server.receive(3, room.clients[3].share(inbox[3]))
    for i in (0, 1, 2, 4):
        room.server.receive(i, room.clients[i].share(inbox[i]))
    inbox = room.server.close()
    if mode == "active":
        message = parse(UploadMessage, room.clients[0].upload(inbox[0], room.values[0]))
        assert message.unopened == encode_ids((3,))
        return
    with pytest.raises(ShareError, match="canonical") as caught:
        room.clients[0].upload(inbox[0], room.values[0])
    assert (caught.value.stage, caught.value.peer) == (Stage.UPLOAD, 3)


def test_a_semi_honest_client_stops_at_a_share_that_does_not_open():
    room = Rehearsal(mode="semi_honest")
    outbound = room.play(until=Stage.SHARE)
    bad = altered(SharesMessage, outbound[0], sealed=lambda b: b[:-1] + bytes([b[-1] ^ 1]))
    with pytest.raises(SealError) as caught:
        room.clients[0].upload(bad, room.values[0])
    assert (caught.value.stage, caught.value.peer) == (Stage.UPLOAD, 4)


@pytest.mark.parametrize(
    "values",
    [
        np.full(40, 2),
        np.full(40, -1),
        np.zeros(39, dtype=int),
        np.zeros((40, 1), dtype=int),
        np.zeros(40),
        [0] * 40,
    ],
)
def test_values_out_of_range_are_refused_unquoted_and_the_stage_may_be_tried_again(shares, values):
    room, outbound = shares
    with pytest.raises(InputError) as caught:
        room.clients[0].upload(outbound[0], values)
    assert (caught.value.stage, caught.value.peer) == (Stage.UPLOAD, 0)
    assert "-1" not in str(caught.value)
    assert room.clients[0].stage is Stage.UPLOAD
    room.server.receive(0, room.clients[0].upload(outbound[0], room.values[0]))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, ">i4", np.int64, np.uint64])
def test_any_integer_dtype_gives_the_same_upload(dtype):
    replies = set()
    for kind in (np.int64, dtype):
        room = Rehearsal()
        outbound = room.play(until=Stage.SHARE)
        replies.add(room.clients[0].upload(outbound[0], room.values[0].astype(kind)))
    assert len(replies) == 1


def test_the_server_refuses_an_upload_of_another_length_or_session(shares):
    room, outbound = shares
    good = room.clients[0].upload(outbound[0], room.values[0])
    for fields, error in [
        ({"words": lambda w: memoryview(bytes(w)[:-8])}, MessageError),
        ({"words": lambda w: memoryview(bytes(w) + bytes(8))}, MessageError),
        ({"words": lambda w: memoryview(bytes(w) + bytes(800))}, MessageError),
        ({"tag": bytes(16)}, ContextMismatch),
    ]:
        with pytest.raises(error) as caught:
            room.server.receive(0, altered(UploadMessage, good, **fields))
        assert (caught.value.stage, caught.value.peer) == (Stage.UPLOAD, 0)
    room.server.receive(0, good)


def test_the_vector_and_a_keystream_buffer_are_all_that_an_upload_needs():
    dimension = 2_000_000
    room = Rehearsal(range(10), CountSpec(dimension))
    outbound = room.play(until=Stage.SHARE)
    values = np.zeros(dimension, dtype=np.uint8)
    vector = 8 * (room.session.packing.words + 1)
    client = room.client(0, resends=False)
    client._state = room.clients[0]._state
    tracemalloc.start()
    try:
        message = client.upload(outbound[0], values)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The message that is returned, the words it was made from, and 64 KiB of keystream.
    assert len(message) > vector
    assert peak < 2 * vector + 512 * 1024


# --- confirm and unmask ---------------------------------------------------------------------------


def until_upload(**fields):
    room = Rehearsal(**fields)
    return room, room.play(until=Stage.UPLOAD, drop={4: Stage.UPLOAD})


@pytest.mark.parametrize(
    ("fields", "error", "peer"),
    [
        ({"survivors": encode_ids((1, 2, 3, 4))}, ProtocolError, None),
        ({"survivors": encode_ids((0, 1, 2, 9))}, ProtocolError, 9),
        ({"survivors": encode_ids((0, 1, 2)), "count": 3}, ThresholdError, None),
        ({"count": 5}, MessageError, None),
        ({"survivors": encode_ids((0, 1, 2, 3, 4, 5))}, ProtocolError, 5),
        ({"tag": bytes(16)}, ContextMismatch, None),
    ],
)
@pytest.mark.parametrize("mode", ["active", "semi_honest"])
def test_a_client_checks_the_survivors_before_anything_else(mode, fields, error, peer):
    room, outbound = until_upload(mode=mode, threshold=4)
    stage = Stage.CONFIRM if mode == "active" else Stage.UNMASK
    step = getattr(room.clients[0], stage.value)
    with pytest.raises(error) as caught:
        step(altered(SurvivorsMessage, outbound[0], **fields))
    assert (caught.value.stage, caught.value.peer) == (stage, peer)


def test_fewer_survivors_than_the_minimum_are_refused_though_above_the_threshold():
    room = Rehearsal(range(6), min_survivors=6, threshold=5)
    outbound = room.play(until=Stage.UPLOAD)
    lie = {"survivors": encode_ids((0, 1, 2, 3, 4)), "count": 5}
    with pytest.raises(ThresholdError, match="min_survivors 6"):
        room.clients[0].confirm(altered(SurvivorsMessage, outbound[0], **lie))


def test_a_semi_honest_session_has_no_confirm():
    room, outbound = until_upload(mode="semi_honest")
    assert room.server.stage is Stage.UNMASK
    assert room.clients[0].stage is Stage.UNMASK
    with pytest.raises(OutOfOrder, match="no confirm"):
        room.clients[0].confirm(outbound[0])


def test_the_server_refuses_a_confirmation_of_something_else():
    room, outbound = until_upload()
    good = room.clients[0].confirm(outbound[0])
    other = room.identities[0].sign(Stage.CONFIRM, b"another set")
    for fields, error in [({"signature": other}, SignatureError), ({"signature": b""}, SignatureError)]:
        with pytest.raises(error) as caught:
            room.server.receive(0, altered(ConfirmMessage, good, **fields))
        assert (caught.value.stage, caught.value.peer) == (Stage.CONFIRM, 0)
    room.server.receive(0, good)


def until_confirm():
    room = Rehearsal()
    return room, room.play(until=Stage.CONFIRM, drop={4: Stage.UPLOAD})


def resigned(room, signers, body=None):
    body = body or room.clients[0]._state.body
    return {"signatures": encode_records({i: room.identities[i].sign(Stage.CONFIRM, body) for i in signers})}


@pytest.mark.parametrize(
    ("signers", "error", "peer"),
    [
        ((1, 2), ThresholdError, None),
        ((), ThresholdError, None),
        ((0, 1, 2, 4), ProtocolError, 4),
        ((0, 1, 2, 3, 4), ProtocolError, 4),
    ],
)
def test_a_client_wants_t_confirmations_by_survivors(signers, error, peer):
    room, outbound = until_confirm()
    with pytest.raises(error) as caught:
        room.clients[0].unmask(altered(ConfirmationsMessage, outbound[0], **resigned(room, signers)))
    assert (caught.value.stage, caught.value.peer) == (Stage.UNMASK, peer)


def test_its_own_confirmation_counts_though_the_server_left_it_out():
    room, outbound = until_confirm()
    reply = room.clients[0].unmask(altered(ConfirmationsMessage, outbound[0], **resigned(room, (1, 2, 3))))
    assert parse(UnmaskMessage, reply).seed_keys


@pytest.mark.parametrize(("liar", "peer"), [(0, None), (2, 2)])
def test_one_signature_over_another_set_aborts(liar, peer):
    room, outbound = until_confirm()
    good = decode_records(parse(ConfirmationsMessage, outbound[0]).signatures, 64, stage=Stage.UNMASK)
    good[liar] = room.identities[liar].sign(Stage.CONFIRM, b"another set")
    with pytest.raises(SignatureError) as caught:
        room.clients[0].unmask(altered(ConfirmationsMessage, outbound[0], signatures=encode_records(good)))
    assert (caught.value.stage, caught.value.peer) == (Stage.UNMASK, peer)


def test_too_few_confirmations_end_the_session():
    room, outbound = until_upload()
    for i in (0, 1, 2):
        room.server.receive(i, room.clients[i].confirm(outbound[i]))
    with pytest.raises(ThresholdError, match="3 clients confirmed, this session needs 4"):
        room.server.close()
    with pytest.raises(OutOfOrder, match="session is over"):
        room.server.receive(3, b"")
    with pytest.raises(OutOfOrder, match="session is over"):
        room.server.close()
    assert room.server.stage is None
    assert room.server.waiting == ()


def test_a_client_opens_one_kind_of_share_of_each_peer_once():
    room, outbound = until_confirm()
    reply = parse(UnmaskMessage, room.clients[0].unmask(outbound[0]))
    assert list(decode_records(reply.seed_keys, 32, stage=Stage.UNMASK)) == [0, 1, 2, 3]
    assert list(decode_records(reply.mask_keys, 32, stage=Stage.UNMASK)) == [4]
    with pytest.raises(OutOfOrder, match="has finished"):
        room.clients[0].unmask(outbound[0])


def unmasked(room, data, client_id=0, **changes):
    """The message with some fields changed by its sender, under its signature."""
    message = parse(UnmaskMessage, data)
    names = ("seed_keys", "mask_keys", "complaints")
    fields = {n: changes.get(n, lambda b: b)(getattr(message, n)) for n in names}
    transcript = room.server._state.transcript
    body = unmask_body(
        transcript.contexts.of(client_id), client_id, transcript.received[client_id], *fields.values()
    )
    fields["signature"] = room.identities[client_id].sign(Stage.UNMASK, body)
    return encode(msgspec.structs.replace(message, **fields))


def test_the_server_refuses_keys_to_the_wrong_secrets_and_keeps_none_of_them():
    room, outbound = until_confirm()
    good = room.clients[0].unmask(outbound[0])
    width = 4 + 32
    cases = [
        (unmasked(room, good, seed_keys=lambda b: b[:-width]), ProtocolError),
        (unmasked(room, good, mask_keys=lambda b: b""), ProtocolError),
        (unmasked(room, good, mask_keys=lambda b: u32(3) + b[4:]), ProtocolError),
        (unmasked(room, good, seed_keys=lambda b: b[:-1]), MessageError),
        (unmasked(room, good, complaints=lambda b: u32(3) + bytes(96)), ProtocolError),
        (altered(UnmaskMessage, good, seed_keys=lambda b: b[:-1] + b"\0"), SignatureError),
        (altered(UnmaskMessage, good, signature=b""), SignatureError),
        (altered(UnmaskMessage, good, tag=bytes(16)), ContextMismatch),
    ]
    for bad, error in cases:
        with pytest.raises(error) as caught:
            room.server.receive(0, bad)
        assert (caught.value.stage, caught.value.peer) == (Stage.UNMASK, 0)
        assert not any(room.server._state._shares.values())
    room.server.receive(0, good)
    assert not room.server.blamed


@pytest.mark.parametrize(("blob", "owner"), [("seed_keys", 0), ("mask_keys", 4)])
def test_a_wrong_key_costs_its_share_and_names_who_gave_it(blob, owner):
    room = Rehearsal()
    outbound = room.play(until=Stage.CONFIRM, drop={4: Stage.UPLOAD} if owner == 4 else {})
    # Where four are left and four are needed, the sum is lost, and it is not the owner who is named.
    ids = range(4) if owner == 4 else range(5)
    for i in ids:
        reply = room.clients[i].unmask(outbound[i])
        if i == 2:
            spoil = {blob: lambda b: b[:20] + bytes([b[20] ^ 1]) + b[21:]}
            reply = unmasked(room, reply, client_id=2, **spoil)
        room.server.receive(i, reply)
    assert room.server.blamed.keys() == {2}
    if owner == 4:
        with pytest.raises(
            ThresholdError, match=r"secrets with fewer than 4 .*: 1; blamed: client 2"
        ) as caught:
            room.server.close()
        assert (caught.value.stage, caught.value.peer) == (Stage.UNMASK, None)
        with pytest.raises(OutOfOrder, match="not open"):
            _ = room.server.result
    else:
        room.server.close()
        assert room.server.result.counts.tolist() == room.expected(tuple(ids))


def test_too_few_shares_end_the_session_and_name_nobody():
    room, outbound = until_confirm()
    for i in range(3):
        room.server.receive(i, room.clients[i].unmask(outbound[i]))
    with pytest.raises(ThresholdError) as caught:
        room.server.close()
    assert caught.value.message == "3 of 4 clients gave keys; secrets with fewer than 4 shares that open: 5"
    assert (caught.value.stage, caught.value.peer) == (Stage.UNMASK, None)
    assert not room.server.blamed


@pytest.mark.parametrize("mode", ["active", "semi_honest"])
def test_an_upload_that_was_altered_on_the_way_never_opens(mode):
    """Active: it is refused when it comes, and the right one may follow. Else the sum does not open."""
    room = Rehearsal(mode=mode)

    def tamper(stage, sender, receiver, message):
        if stage is Stage.UPLOAD and sender == 1:
            return altered(UploadMessage, message, words=lambda w: memoryview(bytes(w)[:-1] + b"\0"))
        return message

    with pytest.raises(SumError if mode == "semi_honest" else SignatureError) as caught:
        room.play(intercept=tamper)
    assert caught.value.stage is (Stage.UNMASK if mode == "semi_honest" else Stage.UPLOAD)
    if mode == "active":
        room.server.receive(1, room.clients[1].resend())


# --- the end, order, and what is kept -------------------------------------------------------------


def test_the_opened_sum_reaches_a_client_that_wants_it():
    room = Rehearsal()
    with pytest.raises(OutOfOrder, match="not open"):
        room.server.opened()
    with pytest.raises(OutOfOrder, match="next stage of this client is advertise"):
        room.clients[0].opened(b"")
    room.play(drop={4: Stage.UPLOAD})
    message = room.server.opened()
    counts, survivors = room.clients[0].opened(message)
    assert survivors == 4
    assert counts.tolist() == room.server.result.counts.tolist() == room.expected((0, 1, 2, 3))
    for fields, error in [
        ({"count": 3}, ProtocolError),
        ({"count": 5}, ProtocolError),
        ({"words": lambda w: memoryview(bytes(w)[:-8] + bytes(8))}, SumError),
        ({"words": lambda w: memoryview(bytes(w) + bytes(80))}, MessageError),
        ({"words": lambda w: memoryview(bytes(w)[:-8])}, MessageError),
        ({"words": lambda w: memoryview(bytes(w)[:-1])}, MessageError),
        ({"tag": bytes(16)}, ContextMismatch),
    ]:
        with pytest.raises(error) as caught:
            room.clients[0].opened(altered(OpenedMessage, message, **fields))
        assert caught.value.stage is Stage.UNMASK


def test_a_sparse_client_believes_no_opened_sum_of_fewer_than_its_minimum():
    room = sparse()
    room.play(drop={4: Stage.UPLOAD})
    message = room.server.opened()
    assert room.clients[0].opened(message)[1] == 59
    for count in (room.session.min_survivors - 1, 61):
        with pytest.raises(ProtocolError):
            room.clients[0].opened(altered(OpenedMessage, message, count=count))


def test_whoever_is_late_or_repeats_himself_is_not_read():
    room = Rehearsal()
    message = room.clients[0].advertise()
    room.server.receive(0, message)
    with pytest.raises(OutOfOrder, match="answered already") as caught:
        room.server.receive(0, message)
    assert (caught.value.stage, caught.value.peer) == (Stage.ADVERTISE, 0)
    with pytest.raises(OutOfOrder, match="not expected, or late"):
        room.server.receive(77, message)
    room = Rehearsal()
    room.play(until=Stage.UPLOAD, drop={4: Stage.UPLOAD})
    with pytest.raises(OutOfOrder, match="late") as caught:
        room.server.receive(4, b"not even looked at")
    assert (caught.value.stage, caught.value.peer) == (Stage.CONFIRM, 4)


def test_a_wrong_stage_is_refused_and_does_no_harm():
    room = Rehearsal()
    client = room.clients[0]
    for call in (
        lambda: client.share(b""),
        lambda: client.upload(b"", room.values[0]),
        lambda: client.confirm(b""),
        lambda: client.unmask(b""),
    ):
        with pytest.raises(OutOfOrder, match="next stage of this client is advertise") as caught:
            call()
        assert caught.value.peer is None
    room.play()
    assert room.server.result.counts.tolist() == room.expected(tuple(range(5)))
    with pytest.raises(OutOfOrder, match="finished"):
        client.advertise()


def test_without_resends_a_client_lets_its_reply_go():
    room = Rehearsal()
    client = room.client(0, resends=False)
    client.advertise()
    for without in (client, room.clients[1]):  # which has not replied at all
        with pytest.raises(OutOfOrder, match="no reply"):
            without.resend()


def test_an_interrupted_stage_can_not_be_entered_again(monkeypatch):
    room = Rehearsal()
    outbound = room.play(until=Stage.UPLOAD)

    def interrupted(*_):
        with pytest.raises(OutOfOrder, match="inside, or was interrupted in, confirm"):
            room.clients[0].confirm(outbound[0])
        raise KeyboardInterrupt

    monkeypatch.setattr("prism_crypto.stages.confirm.read_survivors", interrupted)
    with pytest.raises(KeyboardInterrupt):
        room.clients[0].confirm(outbound[0])
    monkeypatch.undo()
    with pytest.raises(OutOfOrder, match="aborted at confirm"):
        room.clients[0].confirm(outbound[0])


def test_a_late_failure_of_the_source_of_randomness_is_an_error_not_a_weak_key():
    room = Rehearsal()
    calls = iter([bytes(32), bytes(31)])
    client = room.client(0, rng=lambda count: next(calls))
    with pytest.raises(RandomnessError) as caught:
        client.advertise()
    assert caught.value.stage is Stage.ADVERTISE


def test_clients_work_from_an_offer_alone():
    room = Rehearsal(range(4), model_hash=b"model")
    seen = Session.from_offer(room.session.offer(), model_hash=b"model")
    room.clients = {i: room.client(i, session=seen) for i in room.ids}
    room.play()
    assert room.server.result.counts.tolist() == room.expected((0, 1, 2, 3))


def test_identities_rosters_policies_and_counters_work_from_their_files(tmp_path: Path):
    room = Rehearsal(range(3))
    room.roster.save(tmp_path / "roster.json")
    room.policy.save(tmp_path / "policy.json")
    for i in room.ids:
        room.identities[i].save(tmp_path / f"{i}.json")
        SessionCounter.enrol(tmp_path / f"{i}.sessions")
    room.clients = {
        i: SecureSumClient(
            i,
            room.session,
            Policy.load(tmp_path / "policy.json"),
            identity=Identity.load(tmp_path / f"{i}.json"),
            roster=Roster.load(tmp_path / "roster.json"),
            counter=SessionCounter(tmp_path / f"{i}.sessions"),
        )
        for i in room.ids
    }
    room.play()
    assert room.server.result.counts.tolist() == room.expected((0, 1, 2))


def test_nothing_but_the_server_and_the_context_is_in_an_empty_frame():
    """The tag in each message is the first half of its context's hash, and tells nothing about its sender."""
    room = Rehearsal()
    seen = {}

    def look(stage, sender, receiver, message):
        if sender is not None:
            seen.setdefault((stage, bytes(message[:3])), []).append((len(message), bytes(message[5:21])))
        return message

    room.play(intercept=look)
    for (stage, _), frames in seen.items():
        assert len(set(frames)) == 1, stage
    tags = {frames[0][1] for frames in seen.values()}
    assert tags == {tag(room.session.context0), tags_of(room)}


def tags_of(room):
    return parse(OpenedMessage, room.server.opened()).tag


def test_nothing_passes_for_verified_or_signed_for_want_of_a_key():
    room = Rehearsal()
    advert = parse(AdvertMessage, room.clients[0].advertise()).advert
    check_advert(advert, 0, room.session, room.roster, Stage.SHARE)
    with pytest.raises(IdentityError, match="no pinned roster") as caught:
        check_advert(advert, 0, room.session, None, Stage.SHARE)
    assert (caught.value.stage, caught.value.peer) == (Stage.SHARE, 0)
    with pytest.raises(IdentityError, match="no identity"):
        Party(0, room.session, None, room.roster, room.rng[0]).signer()


def test_a_client_that_drops_with_all_its_neighbours_leaves_nothing_to_take_off(monkeypatch):
    """Its mask key is not needed, so too few shares of it are no reason to stop."""
    room = sparse(dropout=0.2)
    room.play(until=Stage.UPLOAD, drop={7: Stage.UPLOAD})
    unmasking = room.server._state
    assert unmasking._needed(7)
    around = unmasking.hall.topology.neighbours(7, range(60))
    monkeypatch.setattr(unmasking, "_alive", frozenset(range(60)) - {7, *around})
    assert not unmasking._needed(7)
