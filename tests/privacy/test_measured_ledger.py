"""What measured rounds cost one record, in the ledger: it grows, and whoever checks it computes it again."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from prism_privacy import (
    Accountant,
    Adjacency,
    InvalidParameter,
    LedgerError,
    MaskRelease,
    MeasuredRelease,
    RecordGuarantee,
    Spent,
    Unit,
    UnsoundComposition,
    View,
    verify_ledger,
)
from prism_privacy.ledger import Ledger
from prism_privacy.ledger.attacker import FALSE_POSITIVE_RATES, certified, largest_true_positive_rate
from prism_privacy.ledger.key import LedgerKey
from prism_privacy.ledger.spent_table import spent_table
from prism_privacy.verify import compose

ROUND = MeasuredRelease(
    flip=0.25,
    clip=1.0,
    client_clip=0.1,
    record_clip=0.3,
    records=10,
    coordinates=256,
    directions=16,
    cohort=10,
)
ROUNDS = tuple(
    replace(ROUND, clip=clip, client_clip=a, record_clip=c)
    for clip, a, c in ((0.5, 0.12, 0.3), (1.0, 0.1, 0.25), (1.0, 0.08, 0.2))
)
DELTA = 1e-5


class Books:
    """Both accountants of one ledger, and what each entry of it says."""

    def __init__(self, plan=ROUNDS, adjacency="swap"):
        self.client, self.record, self.adjacency = Accountant(DELTA), Accountant(DELTA), adjacency
        for release in plan:
            self.client.plan(release.release(Unit.CLIENT))
            self.record.plan(release.release(Unit.RECORD, adjacency))

    def entry(self, number, release, **more):
        self.client.spend(release.release(Unit.CLIENT))
        self.record.spend(release.release(Unit.RECORD, self.adjacency))
        return {
            "round": number,
            "release": release,
            "delta": DELTA,
            "epsilon": spent_table(self.client, release.release(Unit.CLIENT)),
            "record": RecordGuarantee.measured(release, self.record, self.adjacency),
        } | more


def honest(**more):
    books = Books()
    return [books.entry(number, release, **more) for number, release in enumerate(ROUNDS, 1)]


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(tmp_path / "ledger.jsonl", LedgerKey(), federation="fed", records=10) as made:
        yield made


def written(ledger, entries):
    for entry in entries:
        ledger.append(**entry)
    return verify_ledger(ledger.path).entries


def forced(ledger, entries):
    """Entries of a writer who does not check them."""
    ledger._order.check = lambda entry: None
    for entry in entries:
        ledger.append(**entry)


def told(record, view=View.SUM, **changed):
    """A guarantee that states other figures."""
    spent = dict(record.spent) | {view: replace(record.spent[view], **changed)}
    planned = spent[View.SUM].planned
    return replace(record, spent=spent, epsilon=spent[View.SUM].to_date if planned is None else planned)


@pytest.mark.parametrize("adjacency", ["swap", "add_remove"])
def test_record_epsilon_grows_in_both_views_and_ends_at_the_plan(ledger, adjacency):
    books = Books(adjacency=adjacency)
    entries = written(ledger, [books.entry(n, release) for n, release in enumerate(ROUNDS, 1)])
    for view in View:
        for alone, entry in enumerate(entries, 1):
            one = Accountant(DELTA)
            for release in ROUNDS[:alone]:
                one.spend(release.release(Unit.RECORD, adjacency))
            assert entry.record.spent[view].to_date == pytest.approx(one.epsilon(view, Adjacency.ZERO_OUT))
        to_date = [entry.record.spent[view].to_date for entry in entries]
        assert sorted(set(to_date)) == to_date
        (planned,) = {entry.record.spent[view].planned for entry in entries}
        assert planned == pytest.approx(to_date[-1])
        assert entries[1].record.spent[view].round < to_date[1]
    last = entries[-1].record
    assert (last.view, last.cohort, last.adjacency) == (View.SUM, 10, adjacency)
    assert last.epsilon == last.spent[View.SUM].planned < last.spent[View.UPLOAD].planned


def test_both_units_come_from_the_release_that_the_line_states(ledger):
    written(ledger, honest())
    for line, release in zip(ledger.path.read_text().splitlines()[1:], ROUNDS, strict=True):
        body = json.loads(line)["body"]
        assert body["release"] == body["record"]["release"] == release.as_dict()
        assert MeasuredRelease(**body["release"]) == release


def test_writer_who_comes_back_goes_on_from_what_was_spent(tmp_path):
    key, path = LedgerKey(), tmp_path / "l"
    entries = honest()
    with Ledger.create(path, key, federation="fed") as ledger:
        ledger.append(**entries[0])
    with Ledger.open(path, key) as ledger:
        with pytest.raises(InvalidParameter, match=r"falls|is stated as"):
            ledger.append(**entries[0] | {"round": 2})
        ledger.append(**entries[1])
    assert len(verify_ledger(path).entries) == 2


def test_a_session_that_did_not_open_costs_a_record_the_same(ledger):
    entries = honest()
    written(ledger, [entries[0], entries[1] | {"kind": "aborted"}, entries[2] | {"round": 3}])


def test_the_end_charges_nothing_and_says_what_was_spent(ledger):
    entries = honest()
    record = entries[2]["record"]
    nothing = replace(record, spent={view: replace(cell, round=0.0) for view, cell in record.spent.items()})
    last = written(ledger, [*entries, entries[2] | {"round": 4, "kind": "end", "record": nothing}])[-1]
    assert last.record.spent[View.SUM].to_date == record.spent[View.SUM].to_date


def cheating(kind):
    """Entries that state less than their rounds cost, each in a way of its own."""
    entries = honest()
    if kind == "half the rounds":
        first = entries[0]["record"]
        return [
            entries[0],
            *({**e, "record": replace(first, release=e["release"].as_dict())} for e in entries[1:]),
        ]
    if kind in ("half the radius", "the private count"):
        books = Books()
        smaller = {"half the radius": {"record_clip": 0.1}, "the private count": {"records": 100}}[kind]
        found = []
        for entry in entries:
            release = replace(entry["release"], **smaller)
            books.record.spend(release.release(Unit.RECORD))
            record = RecordGuarantee.measured(release, books.record)
            found.append(entry | {"record": replace(record, release=entry["release"].as_dict())})
        return found
    if kind == "uploads as if summed":
        return [
            e | {"record": told(e["record"], View.UPLOAD, to_date=e["record"].spent[View.SUM].to_date)}
            for e in entries
        ]
    if kind == "a round that costs less":
        return [
            e | {"record": told(e["record"], round=e["record"].spent[View.SUM].round / 2)} for e in entries
        ]
    raise AssertionError(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "half the rounds",
        "half the radius",
        "the private count",
        "uploads as if summed",
        "a round that costs less",
    ],
)
def test_less_than_the_stated_releases_cost_is_refused_and_found(ledger, kind):
    entries = cheating(kind)
    with pytest.raises(InvalidParameter, match="is stated as"):
        written(ledger, entries)
    forced(ledger, entries[len(ledger.entries) :])
    with pytest.raises(LedgerError, match=r"line \d: one record's epsilon .* is stated as"):
        verify_ledger(ledger.path)


def test_a_little_more_than_the_releases_cost_is_no_fault(ledger):
    entries = honest()
    for entry in entries:
        for view in View:
            cell = entry["record"].spent[view]
            more = {"to_date": cell.to_date * 1.001, "planned": cell.planned * 1.001}
            entry["record"] = told(entry["record"], view, **more)
    written(ledger, entries)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: {"record": None}, "does not say what one record has spent"),
        (lambda e: {"release": ROUND, "record": e["record"]}, "for another release than the entry states"),
        (lambda e: {"release": MaskRelease(0.25, 1.0, 10)}, "for another release than the entry states"),
        (lambda e: {"record": replace(e["record"], cohort=9)}, "counts on 9 honest clients"),
        (lambda e: {"record": replace(e["record"], delta=1e-3)}, r"is stated as|change from"),
        (lambda e: {"record": replace(e["record"], delta=1e-6)}, r"is stated as|change from"),
        (lambda e: {"record": replace(e["record"], adjacency="add_remove")}, "change from swap"),
        (lambda e: {"record": told(e["record"], planned=e["record"].epsilon * 2)}, "planned epsilon"),
        (
            lambda e: {"record": RecordGuarantee("swap", 2.0, DELTA, {"sigma": 1.0})},
            "made once, in a ledger of measured rounds",
        ),
    ],
)
def test_a_guarantee_that_changes_its_subject_is_refused(ledger, change, message):
    first, second, _ = honest()
    ledger.append(**first)
    with pytest.raises(InvalidParameter, match=message):
        ledger.append(**second | change(second))
    ledger.append(**second)


@pytest.mark.parametrize("kind", ["moments", "round"])
def test_measured_rounds_beside_a_release_made_once_are_refused(ledger, kind):
    once = RecordGuarantee("swap", 2.0, DELTA, {"sigma": 1.0})
    first = honest()[0]
    number = 0 if kind == "moments" else 1
    ledger.append(**first | {"round": number, "kind": kind, "record": once})
    with pytest.raises(InvalidParameter, match="beside a release made once"):
        ledger.append(**first | {"round": number + 1})


def test_test_coins_claim_nothing_for_a_record(ledger):
    books = Books()
    entries = written(ledger, [books.entry(1, ROUNDS[0], epsilon=None, coins="test", record=None)])
    assert entries[0].record is None


def test_more_rounds_than_planned_leave_no_planned_epsilon(ledger):
    books = Books(plan=ROUNDS[:2])
    entries = written(ledger, [books.entry(n, release) for n, release in enumerate(ROUNDS, 1)])
    assert entries[1].record.spent[View.SUM].planned is not None
    last = entries[2].record
    assert last.spent[View.SUM].planned is None
    assert last.epsilon == last.spent[View.SUM].to_date


@pytest.mark.parametrize(
    "wrong",
    [
        {"spent": {View.SUM: Spent(1.0, 1.0)}},
        {"spent": {View.SUM: Spent(1.0, 1.0), View.UPLOAD: 3.0}},
        {"spent": {View.SUM: Spent(1.0, 1.0, 2.0), View.UPLOAD: Spent(1.0, 1.0)}},
        {"spent": {View.SUM: Spent(1.0, 1.0), View.UPLOAD: Spent(1.0, 3.0, planned=2.0)}},
        {"view": View.UPLOAD, "cohort": None},
    ],
)
def test_spending_that_is_not_told_in_both_views_is_refused(wrong):
    spent = {"spent": {View.SUM: Spent(1.0, 1.0), View.UPLOAD: Spent(1.0, 1.0)}}
    good = {"view": View.SUM, "cohort": 3} | spent
    assert RecordGuarantee("swap", 1.0, DELTA, ROUND.as_dict(), **good).epsilon == 1.0
    with pytest.raises(InvalidParameter):
        RecordGuarantee("swap", 1.0, DELTA, ROUND.as_dict(), **good | wrong)


def test_lines_of_other_releases_are_written_as_before():
    assert "spent" not in RecordGuarantee("swap", 2.0, DELTA, {"sigma": 1.0}).to_json()


class Largest:
    """Accountants of three clients, of which the largest figure is stated."""

    delta = DELTA

    def __init__(self, unit, clients=(0, 1, 2)):
        self.unit, self.clients = unit, {client: Accountant(DELTA) for client in clients}

    def spend(self, release, whose):
        for client in set(whose) & set(self.clients):
            self.clients[client].spend(release.release(self.unit))

    def guarantee(self, view, adjacency):
        found = (accountant.guarantee(view, adjacency) for accountant in self.clients.values())
        return max(found, key=lambda guarantee: guarantee.epsilon)

    def planned(self, view, adjacency):
        raise UnsoundComposition("nothing was planned")


def of_some(stated=(0, 1, 2), **metrics):
    """Rounds of two of three clients each; `stated`: whose accounts the figures are from."""
    invited = (0, 1), (1, 2), (0, 2)
    client, record, entries = Largest(Unit.CLIENT), Largest(Unit.RECORD, stated), []
    for number, (release, whose) in enumerate(zip(ROUNDS, invited, strict=True), 1):
        client.spend(release, whose)
        record.spend(release, whose)
        entries.append(
            {
                "round": number,
                "release": release,
                "delta": DELTA,
                "epsilon": spent_table(client, release.release(Unit.CLIENT)),
                "record": RecordGuarantee.measured(release, record),
                "metrics": {"invited": list(whose)} | metrics,
            }
        )
    return entries


def test_rounds_that_invite_some_are_charged_to_the_records_of_those(ledger):
    entries = written(ledger, of_some())
    alone = Accountant(DELTA)  # client 2, whose rounds are the two large ones
    for release in ROUNDS[1:]:
        alone.spend(release.release(Unit.RECORD))
    for view in View:
        to_date = entries[-1].record.spent[view].to_date
        assert to_date == pytest.approx(alone.epsilon(view, Adjacency.ZERO_OUT))
        assert to_date < honest()[-1]["record"].spent[view].to_date


@pytest.mark.parametrize("stated", [(0,), (1,), (0, 1)])
def test_the_figures_of_a_client_who_paid_less_are_refused(ledger, stated):
    with pytest.raises(InvalidParameter, match=r"is stated as|falls"):
        written(ledger, of_some(stated=stated))


@pytest.mark.parametrize("told", ["all", [], [0, "1"], [True, False], {"0": 1}, None, 2])
def test_a_round_that_does_not_say_whom_it_invited_is_everybodys(ledger, told):
    with pytest.raises(InvalidParameter, match="is stated as"):
        written(ledger, of_some(invited=told))


DEARER_IMAGE = replace(ROUND, clip=1.0, record_clip=0.01), replace(ROUND, clip=0.9, record_clip=3.0)
SMALLER_COHORT = ROUND, replace(ROUND, clip=0.9, cohort=2)
GROWING = tuple(replace(ROUND, clip=clip) for clip in (1.0, 1.2, 1.44, 1.728))


def told_of_some(ledger, rounds, invited, charged, **metrics):
    """Entries that say whom rounds invited, with what that cost those who were charged; the last one."""
    client, record = Largest(Unit.CLIENT), Largest(Unit.RECORD)
    for number, (release, said, whose) in enumerate(zip(rounds, invited, charged, strict=True), 1):
        client.spend(release, whose)
        record.spend(release, whose)
        ledger.append(
            round=number,
            release=release,
            delta=DELTA,
            epsilon=spent_table(client, release.release(Unit.CLIENT)),
            record=RecordGuarantee.measured(release, record),
            metrics={"invited": said} | metrics,
        )
    return ledger.entries[-1]


@pytest.mark.parametrize("rounds", [DEARER_IMAGE, SMALLER_COHORT])
@pytest.mark.parametrize("invited", [([0], [1]), ([], []), (["0"], [[1]])])
def test_what_is_composed_covers_what_the_ledger_states(ledger, rounds, invited):
    last = told_of_some(ledger, rounds, invited, invited if invited[0] == [0] else [(0, 1, 2)] * 2)
    composed = {
        (each.unit, each.view, each.adjacency): each
        for each in compose([verify_ledger(ledger.path)], delta=DELTA * (1 + 1e-9))
    }  # beyond the stated delta, where what is stated does not count itself
    for (view, adjacency), spent in last.epsilon.items():
        assert composed[Unit.CLIENT, view, adjacency.value].epsilon >= spent.to_date * (1 - 1e-6)
    assert composed[Unit.RECORD, None, "swap"].epsilon >= last.record.epsilon * (1 - 1e-6)


@pytest.fixture
def one_round():
    """What an entry says that charges one client for `ROUND`."""
    account, release = Accountant(DELTA), ROUND.release(Unit.CLIENT)
    account.spend(release)
    return {"release": ROUND, "delta": DELTA, "epsilon": spent_table(account, release)}


def test_an_end_that_names_clients_does_not_make_rounds_theirs(ledger, one_round):
    ledger.append(round=1, **one_round)
    ledger.append(round=1, kind="end", metrics={"invited": [0]}, **one_round)
    report = verify_ledger(ledger.path)
    for each in [*compose([report]), *certified(report)]:
        assert each.epsilon == pytest.approx(report.entries[-1].spent(each.view, each.adjacency).to_date)


def test_a_client_whose_coins_were_known_is_not_taken_for_another_of_equal_rounds(ledger, one_round):
    ledger.append(round=1, coins="test", metrics={"invited": [0]}, **one_round | {"epsilon": None})
    ledger.append(round=2, metrics={"invited": [1]}, **one_round)
    with pytest.raises(LedgerError, match="its own releases cost inf"):
        certified(verify_ledger(ledger.path))


def test_an_image_costs_what_the_ledger_states_where_it_says_that_all_were_in_one_round_only(ledger):
    last = told_of_some(ledger, [ROUND] * 2, [None] * 2, [(0, 1, 2)] * 2, most_rounds=1)
    *_, image = compose([verify_ledger(ledger.path)])
    assert image.unit is Unit.RECORD
    assert image.epsilon == pytest.approx(last.record.epsilon)
    *_, image = compose([verify_ledger(ledger.path)], delta=10 * DELTA)  # of which the ledger states nothing
    assert image.epsilon < last.record.epsilon


def test_an_attackers_rates_are_of_what_is_stated_where_its_accounts_cost_less(ledger):
    told_of_some(ledger, [ROUND] * 3, [[0], [1], [2]], [(0, 1, 2)] * 3)
    for each in certified(verify_ledger(ledger.path)):
        from_one_point = {each.delta: each.epsilon}
        assert each.rates == tuple(
            largest_true_positive_rate(from_one_point, rate) for rate in FALSE_POSITIVE_RATES
        )


def test_an_unfinished_run_costs_an_image_what_it_has_spent_and_not_what_it_planned(ledger):
    books = Books()
    for number, release in enumerate(ROUNDS[:2], 1):
        ledger.append(**books.entry(number, release))
    *_, image = compose([verify_ledger(ledger.path)])
    spent = ledger.entries[-1].record.spent[View.SUM]
    assert image.epsilon == pytest.approx(spent.to_date)
    assert spent.to_date < 0.99 * spent.planned


def test_what_is_left_to_an_attacker_is_that_of_the_client_who_paid_most(ledger):
    invited = [0], [1], [1], [0]  # put in order, neither client's clips cover the other's
    told_of_some(ledger, GROWING, invited, invited)
    dearest = Accountant(DELTA)
    for release in (GROWING[0], GROWING[3]):
        dearest.spend(release.release(Unit.CLIENT))
    found = certified(verify_ledger(ledger.path))[0]
    assert found.epsilon == pytest.approx(dearest.epsilon(View.SUM, Adjacency.ZERO_OUT))
    assert found.rates[1] < 0.01 * math.exp(found.epsilon)
