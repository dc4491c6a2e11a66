"""Broken if a short offer keeps a client busy: its own demands come first, and every search has an end."""

from __future__ import annotations

import pytest
from forgery import refused
from rehearsal import Rehearsal, identity

from prism_crypto import session as sessions
from prism_crypto.errors import InputError, MessageError, PolicyError
from prism_crypto.keeping.identity import Roster
from prism_crypto.policy import Policy
from prism_crypto.primitives import graph
from prism_crypto.primitives.graph import MAX_DEGREE, harary_degree
from prism_crypto.session import Invited, Session
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage

ROSTER = Roster({0: identity(0).public_key})


def costly(n: int, min_survivors: int, colluders: int) -> Session:
    """A sparse session whose soundness takes exact tails of enormous binomial coefficients to decide."""
    return Session(
        federation="f",
        number=1,
        round=0,
        spec=CountSpec(10),
        invited=Invited(n, bytes(32)),
        mode="semi_honest",
        threshold=1,
        min_survivors=min_survivors,
        min_cohort=1,
        colluders=colluders,
        graph="harary",
        degree=2,
    )


SIZES = [(2000, 1000, 900), (20_000, 10_000, 9_000), (100_000, 50_000, 49_000)]


@pytest.fixture
def no_search(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a search for a degree was begun")

    monkeypatch.setattr(sessions, "harary_degree", fail)
    sessions._sparse.cache_clear()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "policy",
    [
        Policy(min_survivors=8, min_cohort=8),
        Policy(min_survivors=8, min_cohort=8, mode="semi_honest"),
        Policy(min_survivors=60_000, mode="semi_honest"),
        Policy(min_survivors=2, threshold=5, mode="semi_honest"),
        Policy(min_survivors=2, mode="semi_honest"),  # refused for its roster
    ],
)
def test_an_offer_below_the_policy_is_refused_without_a_search(no_search, size, policy):
    offer = costly(*size).offer()
    assert len(offer) < 400
    with refused(PolicyError, Stage.ADVERTISE, None):
        policy.check(Session.from_offer(offer), 0, ROSTER)


@pytest.mark.parametrize("degree", [MAX_DEGREE + 1, 550, 599])
def test_a_chosen_graph_of_too_many_neighbours_is_refused_uncomputed(monkeypatch, degree):
    def fail(*_, **__):
        raise AssertionError("a cohort was computed")

    monkeypatch.setattr(sessions, "guaranteed_cohort", fail)
    sessions._cohort.cache_clear()
    roster = Roster({client: identity(client).public_key for client in range(600)})
    offer = Session(
        federation="f",
        number=1,
        round=0,
        spec=CountSpec(10),
        invited=Invited.of(range(600)),
        mode="active",
        threshold=degree // 2 + 1,
        min_survivors=540,
        min_cohort=1,
        colluders=60,
        graph="chosen",
        degree=degree,
        roster_hash=roster.hash,
    ).offer()
    with refused(PolicyError, Stage.ADVERTISE, None) as caught:
        Policy(min_survivors=2).check(Session.from_offer(offer), 0, roster)
    assert f"at most {MAX_DEGREE} neighbours, not {degree}" in str(caught.value)


def test_an_active_client_refuses_it_without_a_search(no_search):
    active = Rehearsal()
    client = active.client(0, session=costly(*SIZES[0]), policy=Policy(min_survivors=4))
    with refused(PolicyError, Stage.ADVERTISE, None):
        client.advertise()


@pytest.mark.parametrize("size", SIZES)
def test_the_search_ends_at_the_largest_degree(monkeypatch, size):
    """A client without demands of its own searches; how far is counted, not timed."""
    tried = []
    real = graph.hypergeometric_ways
    monkeypatch.setattr(
        graph, "hypergeometric_ways", lambda *counts: (tried.append(counts[-1]), real(*counts))[1]
    )
    sessions._sparse.cache_clear()
    with refused(PolicyError, Stage.ADVERTISE, None):
        Policy(min_survivors=2, mode="semi_honest").check(costly(*size), 0, None)
    assert max(tried, default=0) <= MAX_DEGREE
    assert len(tried) <= MAX_DEGREE


def test_the_largest_degree_bounds_the_search_where_every_degree_must_be_tried(monkeypatch):
    tried = []
    real = graph.hypergeometric_ways
    monkeypatch.setattr(
        graph, "hypergeometric_ways", lambda *counts: (tried.append(counts[-1]), real(*counts))[1]
    )
    with pytest.raises(InputError, match=r"no degree up to 512 .* use the complete graph"):
        harary_degree(10**6, 0.35, 0.35)
    assert max(tried) == MAX_DEGREE
    assert len(tried) <= MAX_DEGREE


@pytest.mark.parametrize("n", [1001, 2**32, 10**18])
def test_an_offer_for_more_clients_than_expected_is_refused_when_read(n):
    offer = costly(n, n // 2, 1).offer()
    with pytest.raises(MessageError, match=f"{n} clients"):
        Session.from_offer(offer, max_clients=1000)
    Session.from_offer(costly(1000, 500, 1).offer(), max_clients=1000)
