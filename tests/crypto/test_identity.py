"""Identities and rosters: who may be named how, and which files are trusted."""

from __future__ import annotations

import json
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from prism_crypto.errors import IdentityError, RandomnessError, SignatureError
from prism_crypto.keeping.identity import NO_ROSTER, Identity, Roster, check_client_id
from prism_crypto.stage import Stage

ALICE, BOB = Identity(3, b"\x01" * 32), Identity(5, b"\x02" * 32)
ROSTER = Roster({3: ALICE.public_key, 5: BOB.public_key})


def test_a_signature_counts_for_its_signer_stage_and_body_alone():
    signature = ALICE.sign(Stage.CONFIRM, b"body")
    ROSTER.verify(3, Stage.CONFIRM, b"body", signature)
    assert ALICE.sign(Stage.CONFIRM, b"body") == signature
    for client, stage, body in [
        (5, Stage.CONFIRM, b"body"),
        (3, Stage.ADVERTISE, b"body"),
        (3, Stage.CONFIRM, b"bodies"),
    ]:
        with pytest.raises(SignatureError) as caught:
            ROSTER.verify(client, stage, body, signature)
        assert caught.value.peer == client
    with pytest.raises(IdentityError, match="not in the roster") as unknown:
        ROSTER.verify(4, Stage.CONFIRM, b"body", signature)
    assert unknown.value.peer == 4


def test_the_roster_hash_covers_ids_and_keys():
    assert ROSTER.hash == Roster({5: BOB.public_key, 3: ALICE.public_key}).hash
    others = [
        Roster({3: ALICE.public_key}),
        Roster({3: ALICE.public_key, 6: BOB.public_key}),
        Roster({5: ALICE.public_key, 3: BOB.public_key}),
    ]
    assert len({NO_ROSTER, ROSTER.hash, *(roster.hash for roster in others)}) == 5
    assert Roster({}).hash == NO_ROSTER


def test_a_roster_is_a_value():
    again = Roster({3: ALICE.public_key, 5: BOB.public_key})
    assert again == ROSTER
    assert hash(again) == hash(ROSTER)
    assert Roster({3: ALICE.public_key}) != ROSTER
    assert ROSTER != 7
    assert (len(ROSTER), ROSTER.ids, 3 in ROSTER, 4 in ROSTER) == (2, (3, 5), True, False)
    assert "2 clients" in repr(ROSTER)


def test_one_key_under_two_names_is_refused():
    with pytest.raises(IdentityError, match="same public key as client 3") as caught:
        Roster({3: ALICE.public_key, 9: ALICE.public_key})
    assert caught.value.peer == 9
    with pytest.raises(IdentityError, match="32 bytes"):
        Roster({1: b"short"})


@pytest.mark.parametrize("client_id", [-1, 2**32 - 1, 1.0, "1", True, None])
def test_ids_have_four_bytes(client_id):
    with pytest.raises(IdentityError):
        check_client_id(client_id)
    assert check_client_id(2**32 - 2) == 2**32 - 2


def test_new_identities_differ_and_come_from_the_source():
    assert Identity.generate(1).public_key != Identity.generate(1).public_key
    assert Identity.generate(3, lambda count: b"\x01" * count).public_key == ALICE.public_key
    import numpy as np

    with pytest.raises(RandomnessError):
        Identity.generate(1, np.random.default_rng(0).bytes)


def test_an_identity_survives_its_file_which_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "identity.json"
    ALICE.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    loaded = Identity.load(path)
    assert (loaded.client_id, loaded.public_key) == (3, ALICE.public_key)
    with pytest.raises(IdentityError, match="File exists"):
        BOB.save(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644])
def test_an_identity_file_open_to_others_is_refused(tmp_path, mode):
    path = tmp_path / "identity.json"
    ALICE.save(path)
    path.chmod(mode)
    with pytest.raises(IdentityError, match=f"mode {mode:04o}"):
        Identity.load(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        json.dumps({"format": "prism-crypto/v2/identity", "client_id": 1}),
        json.dumps({"format": "prism-crypto/v2/identity", "client_id": 1, "private_key": "xy"}),
        json.dumps({"format": "prism-crypto/v2/identity", "client_id": 1, "private_key": "00"}),
        json.dumps({"format": "prism-crypto/v2/identity", "client_id": -1, "private_key": "00" * 32}),
        json.dumps({"format": "prism-crypto/v2/identity", "client_id": 1, "private_key": 5}),
        json.dumps({"format": "prism-crypto/v1/identity", "client_id": 1, "private_key": "00" * 32}),
        json.dumps({"format": "prism-crypto/v2/identity", "client_id": 1, "private_key": "00" * 32, "x": 1}),
    ],
)
def test_what_is_no_identity_is_refused(tmp_path, content):
    path = tmp_path / "identity.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(IdentityError):
        Identity.load(path)


def test_links_pipes_and_folders_are_refused(tmp_path):
    real = tmp_path / "real.json"
    ALICE.save(real)
    (tmp_path / "link.json").symlink_to(real)
    os.mkfifo(tmp_path / "pipe.json", 0o600)
    for name in ("link.json", "pipe.json", "absent.json", "."):
        with pytest.raises(IdentityError):
            Identity.load(tmp_path / name)


def test_a_file_of_another_user_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "identity.json"
    ALICE.save(path)
    if os.getuid() == 0:  # root's own files are always accepted, so root gives this one away
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(IdentityError, match="another user"):
        Identity.load(path)


def test_an_absurdly_large_file_is_not_read(tmp_path):
    path = tmp_path / "roster.json"
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(IdentityError, match="too large"):
        Roster.load(path)


def test_a_roster_survives_its_file_which_others_may_read_but_not_write(tmp_path):
    path = tmp_path / "roster.json"
    ROSTER.save(path)
    assert path.stat().st_mode & 0o777 == 0o644
    assert Roster.load(path) == ROSTER
    path.chmod(0o664)
    with pytest.raises(IdentityError, match="0664"):
        Roster.load(path)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {"format": "prism-crypto/v2/roster"},
        {"format": "prism-crypto/v1/roster", "keys": {}},
        {"format": "prism-crypto/v2/roster", "keys": {}, "x": 1},
        {"format": "prism-crypto/v2/roster", "keys": []},
        {"format": "prism-crypto/v2/roster", "keys": {"01": "00" * 32}},
        {"format": "prism-crypto/v2/roster", "keys": {"1": 3}},
        {"format": "prism-crypto/v2/roster", "keys": {"1": "00"}},
        {"format": "prism-crypto/v2/roster", "keys": {"1": "00" * 32, "2": "00" * 32}},
    ],
)
def test_what_is_no_roster_is_refused(tmp_path, fields):
    path = tmp_path / "roster.json"
    path.write_text(json.dumps(fields))
    path.chmod(0o644)
    with pytest.raises(IdentityError):
        Roster.load(path)


P = 2**255 - 19
SIGN = 2**255
ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
EIGHT_POINTS = [1, P - 1, 0, SIGN, ORDER_8, P - ORDER_8, ORDER_8 + SIGN, P - ORDER_8 + SIGN]
MINUS_ZERO = [1 + SIGN, P - 1 + SIGN]
NOT_REDUCED = [P, P + 1, P + 4, P + SIGN, 2**255 - 1, 2**256 - 1]


@pytest.mark.parametrize("key", EIGHT_POINTS + MINUS_ZERO + NOT_REDUCED)
def test_a_key_of_small_order_or_in_a_second_spelling_enters_no_roster(key):
    """Under the neutral element one signature holds for every message: it would convict or excuse anybody."""
    encoded = key.to_bytes(32, "little")
    with pytest.raises(IdentityError, match="small order") as caught:
        Roster({0: ALICE.public_key, 7: encoded})
    assert caught.value.peer == 7
    if key == 1:
        everything = Ed25519PublicKey.from_public_bytes(encoded)
        for message in (b"one", b"another"):
            everything.verify(encoded + bytes(32), message)


def test_every_honest_key_enters_a_roster():
    keys = {i: Identity.generate(i).public_key for i in range(200)}
    assert len(Roster(keys)) == 200
