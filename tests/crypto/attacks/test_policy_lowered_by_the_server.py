"""Broken if a server can lower what a client's own policy demands, or open a session that protects less.

Refusal comes at advertise, before a byte has left: once an upload is out, t others can open the sum.
"""

from __future__ import annotations

import msgspec
import pytest
from forgery import refused
from rehearsal import Rehearsal

from prism_crypto.errors import PolicyError
from prism_crypto.keeping.session_counter import MemoryCounter
from prism_crypto.policy import Policy
from prism_crypto.session import Session
from prism_crypto.stage import Stage

# For seven invited clients: what the client demands, the best that the server offers below it, what is said.
LOWERED = {
    "threshold": (
        Policy(min_survivors=2, threshold=6),
        {"threshold": 5},
        "threshold of at least 6, the session has 5",
    ),
    "minimum of survivors": (
        Policy(min_survivors=6),
        {"min_survivors": 5},
        "min_survivors of at least 6, the session has 5",
    ),
    "minimum cohort": (
        Policy(min_survivors=5, min_cohort=5),
        {"min_cohort": 4},
        "min_cohort of at least 5, the session has 4",
    ),
    "colluders": (
        Policy(min_survivors=5, colluders=2),
        {"colluders": 1},
        "colluders of at least 2, the session has 1",
    ),
    "mode": (Policy(min_survivors=2), {"mode": "semi_honest"}, "active sessions only, not in a semi_honest"),
}


def refuses(client, counter: MemoryCounter) -> str:
    with refused(PolicyError, Stage.ADVERTISE, None) as caught:
        client.advertise()
    assert counter.last == 0, "the session number is spent although nothing left"
    return str(caught.value)


@pytest.mark.parametrize("what", LOWERED)
def test_a_session_below_the_policy_is_refused_before_a_byte_leaves(what):
    policy, fields, said = LOWERED[what]
    session = Rehearsal(range(7), policy=policy, **fields)
    assert said in refuses(session.clients[3], session.counters[3])


@pytest.mark.parametrize("what", LOWERED)
def test_a_session_at_the_policy_is_joined(what):
    policy, *_ = LOWERED[what]
    colluders = policy.colluders
    session = Rehearsal(
        range(7), policy=policy, threshold=6, min_survivors=7, min_cohort=7 - colluders, colluders=colluders
    )
    session.play()
    assert session.server.result.counts.tolist() == session.expected(tuple(range(7)))


UNSOUND = {
    "a threshold that two survivor sets can reach": {"threshold": 3},
    "a threshold above the cohort": {"threshold": 8},
    "a threshold of zero": {"threshold": 0},
    "a cohort that the survivors cannot guarantee": {"min_cohort": 7, "min_survivors": 5},
    "no cohort": {"min_cohort": 0},
    "colluders beyond the threshold": {"colluders": 3, "min_cohort": 2},
    "a degree below the complete graph": {"degree": 3},
    "a sparse graph in active mode": {"graph": "harary"},
    "no roster": {"roster_hash": bytes(32)},
    "a negative number of survivors": {"min_survivors": -1},
    "a session number of zero": {"number": 0},
}


@pytest.mark.parametrize("what", UNSOUND)
def test_a_session_that_protects_nobody_is_refused_whatever_the_policy(what):
    """The server writes the fields itself, past `Session.plan`."""
    sound = Rehearsal(range(7))
    unsound = msgspec.structs.replace(sound.session, **UNSOUND[what])
    counter = MemoryCounter()
    client = sound.client(3, session=unsound, policy=Policy(min_survivors=2), counter=counter)
    refuses(client, counter)


@pytest.mark.parametrize("what", UNSOUND)
def test_the_same_offer_over_the_wire_is_refused(what):
    sound = Rehearsal(range(7))
    offer = msgspec.structs.replace(sound.session, **UNSOUND[what]).offer()
    counter = MemoryCounter()
    read = Session.from_offer(offer)
    refuses(sound.client(3, session=read, policy=Policy(min_survivors=2), counter=counter), counter)


def test_a_session_of_others_is_refused():
    session = Rehearsal(range(7))
    without_3 = Session.plan(
        session.session.spec, [0, 1, 2, 4, 5, 6], federation="rehearsal", number=1, roster=session.roster
    )
    counter = MemoryCounter()
    assert "invited" in refuses(session.client(3, session=without_3, counter=counter), counter)


def test_two_clients_are_no_active_session():
    with pytest.raises(PolicyError, match="3 clients"):
        Rehearsal(range(2))


def test_a_sparse_session_with_fewer_neighbours_than_it_needs_is_refused():
    sound = Rehearsal(range(40), mode="semi_honest", graph="harary", dropout=0.05, colluders=2)
    degree, threshold = sound.session.degree, sound.session.threshold
    for fields in ({"degree": degree - 2}, {"threshold": threshold - 1}, {"colluders": 6, "min_cohort": 32}):
        weak = msgspec.structs.replace(sound.session, **fields)
        counter = MemoryCounter()
        policy = Policy(min_survivors=38, mode="semi_honest")
        refuses(sound.client(3, session=weak, policy=policy, counter=counter), counter)
