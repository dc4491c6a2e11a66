"""A ledger of measured rounds that states too little, for a client or for one image, is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from prism_privacy import Accountant, Adjacency, MeasuredRelease, RecordGuarantee, Unit, View
from prism_privacy.ledger import Ledger
from prism_privacy.ledger.key import LedgerKey
from prism_privacy.ledger.spent_table import spent_table
from prism_secure.accounting.largest import LargestAccount
from prism_secure.accounting.measured import releases
from prism_secure.audit import oracle
from prism_secure.audit.checks.client_epsilon import client_level
from prism_secure.audit.checks.record_epsilon import record_level
from prism_secure.audit.checks.rounds import rounds
from prism_secure.audit.checks.settings import settings
from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import Notebook
from prism_secure.config import Config, dump_config, load_config
from prism_secure.config.invitations import invited
from prism_secure.run_folder.environment import Facts, write_environment

DELTA = 1e-5
SIZES = (10,) * 10
SETTINGS = [
    "federation.behaviour=measure", "privacy.record_epsilon=inf", "privacy.flip=0.25", "federation.rounds=4",
    "measured.directions=16", "measured.coordinates=256", "measured.epsilon=inf", "measured.radius=1",
    "privacy.record_release=summed",
]  # fmt: skip


@dataclass(frozen=True)
class Books:
    """What a writer puts into its ledger: the release of each round, and those that it computes with."""

    stated: tuple[MeasuredRelease, ...]
    client: tuple[MeasuredRelease | None, ...]
    record: tuple[MeasuredRelease | None, ...]

    @classmethod
    def honest(cls, plan: Iterable[MeasuredRelease]) -> Books:
        return cls(tuple(plan), tuple(plan), tuple(plan))


def write(
    folder: Path,
    books: Books,
    config: Config,
    charged: Callable[[int], Sequence[int]] | None = None,
) -> Evidence:
    """A run folder with such a ledger, written without the ledger's own check.

    Args:
        charged: whom the writer charges in a round; by default, those whom it invites.
    """
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(dump_config(config))
    facts = Facts(parameters=1000, training_images=sum(SIZES), held_out_images=40)
    write_environment(folder, "prism-secure run", facts)
    counted = {Unit.CLIENT: books.client, Unit.RECORD: books.record}
    whose = charged or partial(invited, config)
    plans = {unit: LargestAccount(DELTA) for unit in counted}
    accountants = {unit: LargestAccount(DELTA, plans[unit]) for unit in counted}
    for unit, account in plans.items():
        for number, release in enumerate(counted[unit], 1):
            if release is not None:
                account.spend(release.release(unit), whose(number))
    times = Counter[int]()
    with Ledger.create(folder / "ledger.jsonl", LedgerKey(), federation="fed", clients=10) as ledger:
        ledger._order.check = lambda entry: None  # type: ignore[method-assign]
        for number, stated in enumerate(books.stated):
            for unit, accountant in accountants.items():
                if (release := counted[unit][number]) is not None:
                    accountant.spend(release.release(unit), whose(number + 1))
            times.update(invited(config, number + 1))
            told = {"most_rounds": max(times.values()), "invited": list(whose(number + 1))}
            own = books.client[number] or stated
            record = RecordGuarantee.measured(books.record[number] or stated, accountants[Unit.RECORD])
            ledger.append(
                round=number + 1,
                release=stated,
                delta=DELTA,
                epsilon=spent_table(accountants[Unit.CLIENT], own.release(Unit.CLIENT)),
                record=replace(record, release=stated.as_dict(), cohort=stated.cohort),
                metrics={} if config.everybody else told,
            )
    return Evidence(folder)


def findings(check: Callable[[Evidence, Notebook], Any], evidence: Evidence) -> list[str]:
    notes = Notebook()
    check(evidence, notes)
    return [found.text for found in notes.findings if found.severity == "finding"]


@pytest.fixture(scope="module")
def plan() -> tuple[MeasuredRelease, ...]:
    return releases(load_config(None, SETTINGS), 1000, SIZES)


def changed(plan: tuple[MeasuredRelease, ...], **values: Any) -> tuple[MeasuredRelease, ...]:
    return tuple(replace(release, **values) for release in plan)


def test_an_honest_ledger_is_clean_and_both_units_are_computed_again(
    tmp_path: Path, plan: tuple[MeasuredRelease, ...]
) -> None:
    evidence = write(tmp_path, Books.honest(plan), load_config(None, SETTINGS))
    for check in (client_level, record_level, settings):
        assert findings(check, evidence) == []
    record = record_level(evidence, Notebook())
    assert [(cell.unit, cell.view) for cell in record] == [("record", view.value) for view in View]
    for cell in (*client_level(evidence, Notebook()), *record):
        assert cell.rounds == 4
        assert cell.ledger == pytest.approx(cell.oracle, rel=0.01)


SOME = [*SETTINGS, "federation.client_fraction=0.5", "measured.growth=1.5"]


def test_rounds_that_invite_some_are_computed_for_the_largest_client(tmp_path: Path) -> None:
    """Against a second oracle: every client's own rounds, one after the other."""
    config = load_config(None, SOME)
    plan = releases(config, 1000, SIZES)
    evidence = write(tmp_path, Books.honest(plan), config)
    for check in (client_level, record_level, settings, rounds):
        assert findings(check, evidence) == []
    cells = (*client_level(evidence, Notebook()), *record_level(evidence, Notebook()))
    assert len(cells) == 6
    for cell in cells:
        unit = Unit.RECORD if cell.unit == "record" else Unit.CLIENT
        adjacency = Adjacency.ZERO_OUT if unit is Unit.RECORD else Adjacency(cell.adjacency)
        largest = 0.0
        for client in range(10):
            accountant = Accountant(DELTA)
            for number, release in enumerate(plan, 1):
                if client in invited(config, number):
                    accountant.spend(release.release(unit))
            largest = max(largest, accountant.epsilon(View(cell.view), adjacency))
        assert cell.ledger == pytest.approx(largest, rel=1e-9)
        assert cell.oracle == pytest.approx(largest, rel=0.01)


def test_half_the_rounds_of_those_who_are_invited_are_found(tmp_path: Path) -> None:
    config = load_config(None, SOME)
    plan = releases(config, 1000, SIZES)
    half = (plan[0], None, plan[2], None)
    for_image = write(tmp_path / "image", Books(plan, plan, half), config)
    assert any("one record's epsilon(sum) to date" in text for text in findings(record_level, for_image))
    assert findings(client_level, for_image) == []
    for_client = write(tmp_path / "client", Books(plan, half, plan), config)
    assert any("epsilon(sum, zero_out) to date" in text for text in findings(client_level, for_client))
    assert findings(record_level, for_client) == []


def test_rounds_charged_to_others_than_are_invited_are_found(tmp_path: Path) -> None:
    """As if each round had clients of its own: nobody would be in more than one."""
    config = load_config(None, SOME)
    plan = releases(config, 1000, SIZES)
    evidence = write(tmp_path, Books.honest(plan), config, lambda number: [10 * number])
    assert any(
        "charges other clients than config.toml invites" in text for text in findings(rounds, evidence)
    )
    assert any("to date" in text for text in findings(client_level, evidence))
    assert any("to date" in text for text in findings(record_level, evidence))


def test_half_the_rounds_of_either_unit_are_found(tmp_path: Path, plan: tuple[MeasuredRelease, ...]) -> None:
    half = (plan[0], None, plan[2], None)
    config = load_config(None, SETTINGS)
    for_image = write(tmp_path / "image", Books(plan, plan, half), config)
    assert any("one record's epsilon(sum) to date" in text for text in findings(record_level, for_image))
    assert findings(client_level, for_image) == []
    for_client = write(tmp_path / "client", Books(plan, half, plan), config)
    assert any("epsilon(sum, zero_out) to date" in text for text in findings(client_level, for_client))
    assert any("as planned" in text for text in findings(client_level, for_client))
    assert findings(record_level, for_client) == []


@pytest.mark.parametrize(
    "smaller", [{"clip": 0.5}, {"record_clip": 0.1}, {"records": 20}, {"client_clip": 2.0}, {"cohort": 40}]
)
def test_a_radius_that_is_too_small_for_an_image_is_found(
    tmp_path: Path, plan: tuple[MeasuredRelease, ...], smaller: dict[str, Any]
) -> None:
    """Half the radius; N_i in place of N; a cohort that is not there: in the books, not in what is stated."""
    evidence = write(tmp_path, Books(plan, plan, changed(plan, **smaller)), load_config(None, SETTINGS))
    found = findings(record_level, evidence)
    assert any("the releases that it states cost" in text for text in found)
    assert findings(client_level, evidence) == []


@pytest.mark.parametrize("smaller", [{"clip": 0.5}, {"flip": 0.4}, {"cohort": 40}])
def test_a_radius_that_is_too_small_for_a_client_is_found(
    tmp_path: Path, plan: tuple[MeasuredRelease, ...], smaller: dict[str, Any]
) -> None:
    evidence = write(tmp_path, Books(plan, changed(plan, **smaller), plan), load_config(None, SETTINGS))
    assert any("these settings cost" in text for text in findings(client_level, evidence))
    assert findings(record_level, evidence) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("records", 100),  # a client's own count where the public number is 10
        ("records", 5),
        ("clip", 0.5),
        ("client_clip", 0.5),
        ("record_clip", 0.05),
        ("flip", 0.4),
        ("coordinates", 512),
        ("directions", 8),
        ("sigma_max", 3.0),
    ],
)
def test_releases_that_are_not_those_of_the_configuration_are_found(
    tmp_path: Path, plan: tuple[MeasuredRelease, ...], name: str, value: float
) -> None:
    """The books agree with the releases; the releases are of another run."""
    evidence = write(tmp_path, Books.honest(changed(plan, **{name: value})), load_config(None, SETTINGS))
    assert any(f"disagree on {name} of measured rounds" in text for text in findings(settings, evidence))


@pytest.mark.parametrize("unit", ["client", "image"])
def test_rounds_that_cost_more_than_the_configuration_asks_for_are_found(tmp_path: Path, unit: str) -> None:
    target = [*SETTINGS[:-2], f"measured.unit={unit}", "measured.epsilon=1.0"]
    found = releases(load_config(None, target), 1000, SIZES)
    check = settings if unit == "client" else record_level
    honest = write(tmp_path / "honest", Books.honest(found), load_config(None, target))
    assert findings(check, honest) == []
    louder = tuple(release.scaled(1.3) for release in found)
    evidence = write(tmp_path / "louder", Books.honest(louder), load_config(None, target))
    assert any("config.toml asks for 1.00" in text for text in findings(check, evidence))


def test_measured_rounds_under_another_behaviour_are_found(
    tmp_path: Path, plan: tuple[MeasuredRelease, ...]
) -> None:
    evidence = write(tmp_path, Books.honest(plan), load_config(None, ["privacy.record_epsilon=inf"]))
    assert findings(settings, evidence) == [
        "The ledger charges measured rounds; config.toml has another behaviour."
    ]


def test_a_plan_above_the_budget_of_an_image_is_found(
    tmp_path: Path, plan: tuple[MeasuredRelease, ...]
) -> None:
    budget = load_config(None, [*SETTINGS, "budget.image_epsilon=0.01"])
    evidence = write(tmp_path, Books.honest(plan), budget)
    assert any("above the budget" in text for text in findings(record_level, evidence))


@pytest.mark.parametrize("adjacency", ["swap", "add_remove"])
@pytest.mark.parametrize("change", [{}, {"records": 1}, {"sigma_max": 3.0}, {"flip": 0.4, "cohort": 3}])
def test_the_oracle_has_the_accountants_radii_by_other_code(
    plan: tuple[MeasuredRelease, ...], adjacency: str, change: dict[str, Any]
) -> None:
    release = replace(plan[1], **change)
    mine = oracle.Measured.of(release.as_dict())
    theirs = release.release(Unit.RECORD, adjacency)  # type: ignore[arg-type]
    assert mine.record(adjacency).clip == pytest.approx(theirs.clip, rel=1e-12)
    assert mine.client() == oracle.Mask.of(release.release(Unit.CLIENT).as_dict())
    for view in View:
        accountant = Accountant(DELTA)
        accountant.spend(theirs, 5)
        found = oracle.epsilon(
            Counter({mine.record(adjacency): 5}), DELTA, summed=view is View.SUM, replaced=False
        )
        assert accountant.epsilon(view, Adjacency.ZERO_OUT) == pytest.approx(found, rel=0.02)


@pytest.mark.parametrize(
    "wrong", [{"clip": 0.0}, {"records": 0}, {"records": 1.5}, {"flip": 0.5}, {"sigma_max": 0.5}, {"more": 1}]
)
def test_what_is_no_release_of_a_measured_round_is_refused(
    plan: tuple[MeasuredRelease, ...], wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="not a measured round's release"):
        oracle.of_a_client(plan[0].as_dict() | wrong)
