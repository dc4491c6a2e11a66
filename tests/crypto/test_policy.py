"""A client's own demands, which no server lowers."""

from __future__ import annotations

import json

import msgspec
import pytest
from rehearsal import Rehearsal

from prism_crypto.errors import IdentityError, InputError, PolicyError
from prism_crypto.keeping.identity import Identity, Roster
from prism_crypto.policy import Policy
from prism_crypto.session import Session
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Mode

IDENTITIES = [Identity(i, bytes([i + 1]) * 32) for i in range(11)]
ROSTER = Roster({i: IDENTITIES[i].public_key for i in range(10)})
SESSION = Session.plan(
    CountSpec(100), range(10), federation="f", number=1, roster=ROSTER, min_survivors=8, colluders=2
)


def test_a_session_at_the_policy_is_accepted():
    Policy(min_survivors=8, min_cohort=6, colluders=2, threshold=7).check(SESSION, 0, ROSTER)
    Policy(min_survivors=2).check(SESSION, 9, ROSTER)


def test_a_semi_honest_client_accepts_either_mode():
    session = Session.plan(
        CountSpec(1), range(10), federation="f", number=1, mode="semi_honest", roster=ROSTER
    )
    Policy(min_survivors=2, mode=Mode.SEMI_HONEST).check(session, 0, ROSTER)
    Policy(min_survivors=2, mode=Mode.SEMI_HONEST).check(SESSION, 0, ROSTER)


def test_another_roster_is_refused():
    other = Roster({i: IDENTITIES[i + 1].public_key for i in range(10)})
    for roster in (other, None):
        with pytest.raises(PolicyError, match="roster"):
            Policy(min_survivors=2).check(SESSION, 0, roster)


def test_invited_strangers_are_refused():
    smaller = Roster({i: IDENTITIES[i].public_key for i in range(9)})
    session = msgspec.structs.replace(SESSION, roster_hash=smaller.hash)
    with pytest.raises(PolicyError, match="client 9 is invited but not in the pinned roster"):
        Policy(min_survivors=2).check(session, 0, smaller)


@pytest.mark.parametrize(
    "fields",
    [
        {"min_survivors": 1},
        {"min_survivors": 5, "min_cohort": 0},
        {"min_survivors": 5, "colluders": -1},
        {"min_survivors": 5, "threshold": -1},
    ],
)
def test_a_policy_that_protects_nobody_is_refused(fields):
    with pytest.raises(InputError):
        Policy(**fields)


def test_a_policy_survives_its_file(tmp_path):
    path = tmp_path / "policy.json"
    policy = Policy(min_survivors=8, min_cohort=6, colluders=2, threshold=7)
    policy.save(path)
    assert Policy.load(path) == policy
    with pytest.raises(IdentityError):
        policy.save(path)
    path.chmod(0o646)
    with pytest.raises(IdentityError, match="open to others"):
        Policy.load(path)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {"min_survivors": 8},
        {"format": "prism-crypto/v2/policy"},
        {"format": "prism-crypto/v2/policy", "min_survivors": "8"},
        {"format": "prism-crypto/v2/policy", "min_survivors": 1},
        {"format": "prism-crypto/v2/policy", "min_survivors": 8, "min_survivor": 9},
        {"format": "prism-crypto/v2/policy", "min_survivors": 8, "mode": "trusting"},
    ],
)
def test_what_is_no_policy_is_refused(tmp_path, fields):
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(fields))
    path.chmod(0o644)
    with pytest.raises(IdentityError):
        Policy.load(path)


def test_a_mode_given_by_its_name_means_the_mode():
    policy = Policy(min_survivors=2, mode="active")
    assert policy.mode is Mode.ACTIVE
    assert msgspec.structs.replace(SESSION, mode="active").mode is Mode.ACTIVE


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "trusting"},
        {"mode": None},
        {"min_survivors": 8.0},
        {"min_survivors": True},
        {"threshold": "7"},
    ],
)
def test_fields_of_another_type_are_refused(fields):
    with pytest.raises(InputError):
        Policy(**({"min_survivors": 8} | fields))


def test_a_client_may_insist_on_numbered_rounds():
    """Else a server says round 0 twice, and opens two sums that differ by one client's vector."""
    insists = Policy(min_survivors=2, numbered_rounds=True)
    for round, accepted in ((0, False), (1, True), (0, False), (2, True)):
        room = Rehearsal(number=round + 1, round=round, policy=insists)
        if accepted:
            room.play()
            continue
        with pytest.raises(PolicyError, match="numbered rounds only, the session has round 0"):
            room.clients[0].advertise()
        assert room.rng[0].taken == b""
    with pytest.raises(InputError, match="numbered_rounds must be bool"):
        Policy(min_survivors=2, numbered_rounds=1)


def test_numbered_rounds_survive_the_file(tmp_path):
    policy = Policy(min_survivors=3, numbered_rounds=True)
    policy.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == policy
