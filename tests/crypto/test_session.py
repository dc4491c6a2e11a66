"""The parameters of a session: which are sound, and that all of them are bound."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from rehearsal import HYBRID, Rehearsal, needs_kem

from prism_crypto.blame import Blame
from prism_crypto.errors import InputError, MessageError, PolicyError
from prism_crypto.keeping.identity import Identity, Roster
from prism_crypto.primitives.graph import harary_degree
from prism_crypto.session import _MAX_EVIDENCE, Invited, Session
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.advert import advert_bytes

ROSTER = Roster({i: Identity(i, bytes([i + 1]) * 32).public_key for i in range(10)})
SPEC = CountSpec(100)


def plan(n: int = 10, **fields):
    fields.setdefault("roster", ROSTER)
    return Session.plan(SPEC, range(n), **({"federation": "f", "number": 1} | fields))


@pytest.mark.parametrize("n", range(3, 60))
def test_the_default_threshold_is_two_thirds_active_and_a_majority_semi_honest(n):
    active = plan(n)
    assert active.threshold == 2 * n // 3 + 1
    assert 2 * active.threshold > n + active.colluders
    semi = plan(n, mode="semi_honest", roster=None)
    assert semi.threshold == n // 2 + 1
    assert semi.min_survivors == semi.quorum == semi.threshold


def test_more_colluders_raise_the_threshold():
    session = plan(10, colluders=6)
    assert session.threshold == 9
    assert session.min_cohort == 3
    assert plan(10, mode="semi_honest", colluders=8, roster=None).threshold == 9


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 2}, "needs 3 clients"),
        ({"n": 1, "mode": "semi_honest", "roster": None}, "expected 2"),
        ({"threshold": 5}, "2t > n"),
        ({"threshold": 7, "colluders": 4}, "2t > n"),
        ({"mode": "semi_honest", "threshold": 5}, "t > n/2"),
        ({"mode": "semi_honest", "threshold": 6, "colluders": 6}, "t > c"),
        ({"roster": None}, "roster"),
        ({"min_survivors": 8, "colluders": 3, "threshold": 8, "min_cohort": 6}, "cohort of 5"),
        ({"min_survivors": 3, "colluders": 3}, "cohort"),
        ({"graph": "harary"}, "no sparse graph|Harary graph"),
        ({"n": 40, "graph": "harary"}, "Harary graph|no sparse"),
    ],
)
def test_what_is_not_sound_is_refused(fields, message):
    with pytest.raises((PolicyError, InputError), match=message):
        plan(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"number": 0},
        {"number": 2**64},
        {"round": -1},
        {"round": 2**64},
        {"threshold": 11},
        {"min_survivors": 11},
        {"min_survivors": -1},
        {"colluders": -1},
        {"colluders": 11},
        {"federation": "x" * 257},
        {"model_hash": bytes(257)},
        {"binding": bytes(4097)},
        {"graph": "harary", "dropout": 1.0},
        {"graph": "harary", "min_survivors": 0},
    ],
)
def test_what_is_out_of_range_is_refused(fields):
    with pytest.raises((InputError, PolicyError)):
        plan(**fields)


@pytest.mark.parametrize(
    "change",
    [
        {"roster_hash": b"short"},
        {"degree": 0},
        {"degree": 8},
        {"threshold": 11},
        {"invited": Invited.of(range(10)).summary()},
        {"invited": Invited(10, bytes(32), tuple(range(10)))},
        {"invited": Invited(9, Invited.of(range(10)).digest, tuple(range(10)))},
        {"invited": Invited(10, b"short")},
        {"invited": Invited(0, bytes(32), ())},
        {"spec": CountSpec(1, bound=2**62)},
        {"graph": "harary", "mode": Mode.SEMI_HONEST, "degree": 4},
    ],
)
def test_fields_that_contradict_one_another_are_refused(change):
    session = msgspec.structs.replace(plan(), **change)
    with pytest.raises((InputError, PolicyError)):
        session.check()


def test_a_client_can_not_be_invited_twice():
    with pytest.raises(InputError, match="twice"):
        Invited.of([1, 2, 1])
    assert Invited.of([2, 1]) == Invited.of([1, 2])


def test_the_sparse_graph_is_for_many_semi_honest_clients():
    session = Session.plan(SPEC, range(1000), federation="f", number=1, mode="semi_honest")
    expected = harary_degree(1000, dropout=0.1, colluding=0.1)
    assert session.graph == "harary"
    assert (session.degree, session.threshold) == expected
    assert (session.min_survivors, session.colluders, session.min_cohort) == (900, 100, 800)
    assert plan(200, mode="semi_honest", roster=None).graph == "complete"
    assert plan(201, mode="semi_honest", roster=None).graph == "harary"
    lowered = msgspec.structs.replace(session, threshold=session.threshold - 1)
    with pytest.raises(PolicyError, match="needs degree"):
        lowered.check()


def test_a_sparse_threshold_is_never_one():
    session = plan(300, mode="semi_honest", colluders=0, dropout=0.05, roster=None)
    assert session.graph == "harary"
    assert session.threshold >= 2


CHANGES = {
    "federation": "g",
    "number": 2,
    "round": 1,
    "spec": CountSpec(101),
    "invited": Invited.of(range(1, 11)),
    "mode": Mode.SEMI_HONEST,
    "threshold": 8,
    "min_survivors": 8,
    "min_cohort": 6,
    "colluders": 1,
    "graph": "harary",
    "degree": 8,
    "suite": "x25519+ml-kem-768",
    "roster_hash": bytes(32),
    "exclusions": bytes(32),
    "model_hash": b"other",
    "binding": b"f=0.25",
}


@pytest.mark.parametrize("field", [name for name in Session.__struct_fields__ if name != "excluded"])
def test_context0_binds_every_field(field):
    """Of the excluded clients the hash of the evidence is bound."""
    session = plan()
    changed = msgspec.structs.replace(session, **{field: CHANGES[field]})
    assert changed.context0 != session.context0


@pytest.mark.parametrize("spec", [CountSpec(100, bound=2), CountSpec(100, codec="fixed")])
def test_context0_binds_the_spec(spec):
    session = plan()
    assert msgspec.structs.replace(session, spec=spec).context0 != session.context0


def test_neighbouring_fields_can_not_trade_bytes():
    one = plan(model_hash=b"ab", binding=b"c")
    two = plan(model_hash=b"a", binding=b"bc")
    assert one.context0 != two.context0


def test_an_offer_carries_all_but_what_the_client_must_know_itself():
    session = plan(model_hash=b"model", binding=b"binding")
    read = Session.from_offer(session.offer(), model_hash=b"model", binding=b"binding")
    assert read == session
    assert read.context0 == session.context0
    assert Session.from_offer(session.offer()).context0 != session.context0


def test_a_sparse_offer_does_not_grow_with_the_number_of_clients():
    small = Session.plan(SPEC, range(1000), federation="f", number=1, mode="semi_honest")
    large = Session.plan(SPEC, range(5000), federation="f", number=1, mode="semi_honest")
    assert abs(len(small.offer()) - len(large.offer())) < 16
    read = Session.from_offer(small.offer())
    assert read.invited.ids is None
    assert read.context0 == small.context0
    read.check()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\x92\x01" + data[2:],
        lambda data: b"\xdc\x00\x02" + data[1:],
        lambda data: data.replace(b"active", b"honest"),
        lambda data: data.replace(b"dimension\x64", b"dimension\x00"),
        lambda data: b"\xdd\xff\xff\xff\xff",
        lambda data: b"\x91" * 4000,
    ],
)
def test_what_is_no_offer_is_refused(spoil):
    data = plan().offer()
    assert spoil(data) != data
    with pytest.raises(MessageError):
        Session.from_offer(spoil(data))


def test_an_offer_that_is_too_long_is_not_parsed():
    with pytest.raises(MessageError, match="too long"):
        Session.from_offer(plan().offer() + bytes(5 * 2**20), max_clients=10)


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "trusting"},
        {"mode": 1},
        {"graph": "star"},
        {"graph": None},
        {"threshold": 7.0},
        {"number": True},
        {"model_hash": "text"},
        {"spec": None},
    ],
)
def test_fields_of_another_type_are_refused(change):
    with pytest.raises(InputError):
        msgspec.structs.replace(plan(), **change)


def test_an_unknown_mode_is_refused_by_name():
    with pytest.raises(InputError, match="trusting"):
        plan(mode="trusting")


def test_parts_are_in_the_hash_and_in_the_offer_and_say_nothing_where_there_are_none():
    def planned(spec):
        return Session.plan(spec, range(10), federation="f", number=1, roster=ROSTER)

    whole, *parted = (
        planned(spec)
        for spec in (
            CountSpec(100, 9),
            CountSpec.of_parts([(60, 1), (40, 9)]),
            CountSpec.of_parts([(50, 1), (50, 9)]),
            CountSpec.of_parts([(60, 2), (40, 9)]),
            CountSpec.of_parts([(40, 9), (60, 1)]),
        )
    )
    assert len({session.context0 for session in (whole, *parted)}) == 5
    for session in parted:
        assert Session.from_offer(session.offer()).spec == session.spec
    assert b"parts" not in whole.offer()
    with pytest.raises(MessageError):
        Session.from_offer(parted[0].offer().replace(b"\x92\x3c\x01", b"\x92\x3d\x01"))


def _without(clients: int, sizes: dict[int, int], **how: Any) -> tuple[int, ...]:
    """Whom a plan leaves out, of those to blame with so many bytes of evidence."""
    blamed = [Blame(i, Stage.ADVERTISE, "it lied", "tests", 1, bytes(size)) for i, size in sizes.items()]
    roster = Roster({i: Identity.generate(i).public_key for i in range(clients)})
    how = {"federation": "tests", "number": 2, "roster": roster, "excluded": blamed, **how}
    session = Session.plan(CountSpec(11), range(clients), **how)
    assert len(session.excluded) == clients - session.invited.count
    return tuple(i for i in range(clients) if i not in session.everyone)


@pytest.mark.parametrize("liars", [15, 16, 17, 18])
def test_a_plan_leaves_out_as_many_as_an_offer_holds(liars):
    assert _without(60, dict.fromkeys(range(liars), 100)) == tuple(range(min(liars, 16)))


def test_a_plan_leaves_out_those_with_the_smallest_evidence_first():
    assert _without(30, {0: 2**22, 1: 2**21 + 5, 2: 5, 3: 2**21 - 9, 4: 0}) == (2, 3, 4)


@pytest.mark.parametrize(("least", "out"), [(10, 0), (9, 1), (8, 2), (7, 3), (None, 3)])
def test_a_plan_leaves_out_as_many_as_its_floor_lets_go(least, out):
    """By default the floor is that of all ten, 7: what policies and privacy accounts count on."""
    assert _without(10, dict.fromkeys(range(5), 0), min_survivors=least) == tuple(range(out))


def test_a_plan_keeps_the_cohort_that_it_guarantees_with_nobody_out():
    assert _without(10, dict.fromkeys(range(5), 0), min_survivors=7, min_cohort=7) == (0, 1, 2)
    assert _without(10, dict.fromkeys(range(5), 0), min_survivors=9, colluders=1, min_cohort=8) == (0,)


def test_liars_who_are_not_invited_take_no_room_in_a_plan():
    assert _without(30, dict.fromkeys(range(100, 117), 0) | {3: 1}) == (3,)


@pytest.mark.parametrize("clients", [220, 201])
def test_a_plan_counts_on_as_many_colluders_as_with_nobody_out(clients):
    """Their default goes by the number of clients, and 200 of them mask all with all, where it is 0."""
    roster = Roster({i: Identity.generate(i).public_key for i in range(clients)})
    how = {"federation": "tests", "number": 2, "roster": roster}
    whole = Session.plan(CountSpec(11), range(clients), **how)
    blamed = [Blame(0, Stage.ADVERTISE, "it lied", "tests", 1, b"")]
    session = Session.plan(CountSpec(11), range(clients), excluded=blamed, **how)
    assert session.invited.count == clients - 1
    assert (whole.graph, session.graph) == ("chosen", "chosen" if clients > 201 else "complete")
    assert session.colluders == whole.colluders == clients // 10
    assert (session.min_survivors, session.min_cohort) == (whole.min_survivors, whole.min_cohort)


@pytest.mark.parametrize("graph", ["complete", "chosen"])
def test_sessions_without_liars_are_as_sound_as_any(graph):
    roster = Roster({i: Identity.generate(i).public_key for i in range(120)})
    blamed = [Blame(i, Stage.ADVERTISE, "it lied", "tests", 1, b"") for i in range(6)]
    plan = {"federation": "tests", "number": 2, "roster": roster, "graph": graph, "min_survivors": 100}
    whole = Session.plan(CountSpec(11), range(120), colluders=3, **plan)
    session = Session.plan(CountSpec(11), range(120), colluders=3, excluded=blamed, **plan)
    session.check()
    assert session.invited.ids == tuple(range(6, 120))
    assert (session.min_survivors, session.min_cohort) == (whole.min_survivors, whole.min_cohort)


@pytest.mark.parametrize(("suite", "most"), [("x25519", 12_000), pytest.param(HYBRID, 830, marks=needs_kem)])
def test_one_piece_of_evidence_of_so_large_a_complete_graph_fits_an_offer(suite, most):
    """The adverts that its accused saw, and what it dealt or was dealt, one record a client."""
    session = Rehearsal(range(3), suite=suite).session
    record = 2 * 4 + advert_bytes(session) + session.dealt_bytes
    assert 0.95 * _MAX_EVIDENCE < most * record < _MAX_EVIDENCE
    assert (most * 1.02) * record > _MAX_EVIDENCE
