"""One record's epsilon over measured rounds, which grows by the round, and the settings of these rounds.

Where rounds invite some of the clients only, it is that of the client for whom it is largest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from prism_privacy import LedgerEntry, RecordGuarantee, Spent, View
from prism_secure.audit import oracle
from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import TOO_SMALL, Notebook, Recomputed, Unchecked
from prism_secure.audit.oracle import Mask, Measured
from prism_secure.wording import format_epsilon

_ROUNDED = 1e-3
"""Clips are written with four digits."""


def is_measured(evidence: Evidence) -> bool:
    """Whether the run's rounds are measured, by its configuration or by what its ledger charged."""
    return evidence.config.measures or any("client_clip" in entry.release for entry in evidence.charges)


def measured_level(evidence: Evidence, notes: Notebook) -> list[Recomputed]:
    """Does one record's epsilon cover what each measured round released of it, in both views?"""
    evidence.need_charges()
    claiming = [entry for entry in evidence.charges if entry.coins != "test"]
    if not claiming:
        notes.note("Test coins were used: nothing is claimed for one record, and nothing can be.")
        return []
    told = [(entry, entry.record) for entry in claiming if entry.record is not None]
    if len(told) < len(claiming) or any(record.spent is None for _, record in told):
        silent = [entry.round for entry in claiming if entry.record is None or entry.record.spent is None]
        notes.finding("Rounds do not say what they cost one record.", rounds=silent)
        return []
    masks = [_measured(entry).record(told[-1][1].adjacency) for entry in evidence.charges]
    accounts: list[Counter[Mask]] = []
    worst: dict[tuple[View, str], tuple[float, LedgerEntry, float, float]] = {}
    for entry, mask, accounts in zip(evidence.charges, masks, evidence.accounts(masks), strict=True):
        record = entry.record
        if entry.coins == "test" or record is None:
            continue
        for view in View:
            for name, stated, found in (
                ("of one round", _cell(record, view).round, _epsilon([Counter({mask: 1})], record, view)),
                ("to date", _cell(record, view).to_date, _epsilon(accounts, record, view)),
            ):
                ratio = stated / found if found > 1e-12 and math.isfinite(found) else float(stated >= found)
                if (view, name) not in worst or ratio < worst[view, name][0]:
                    worst[view, name] = ratio, entry, stated, found
    for (view, name), (ratio, entry, stated, found) in worst.items():
        if ratio < 1 - TOO_SMALL:
            notes.finding(
                f"Round {entry.round}: the ledger states one record's epsilon({view.value}) {name} = "
                f"{format_epsilon(stated)}; the releases that it states cost {format_epsilon(found)}.",
                "computed",
                round=entry.round,
                ledger=stated,
                oracle=found,
            )
    _check_plan(evidence, notes, told, accounts)
    last = told[-1][1]
    if not any(found.severity == "finding" for found in notes.findings):
        notes.fact(
            f"one record ({last.adjacency}) after {len(told)} measured rounds: "
            + ", ".join(f"{view.value} {format_epsilon(_cell(last, view).to_date)}" for view in View)
            + f"; none is smaller than computed again by more than {TOO_SMALL:.0%}"
        )
    return [
        Recomputed(
            unit="record",
            view=view.value,
            adjacency=last.adjacency,
            rounds=len(told),
            ledger=_cell(last, view).to_date,
            oracle=_epsilon(accounts, last, view),
        )
        for view in View
    ]


def _check_plan(
    evidence: Evidence,
    notes: Notebook,
    told: list[tuple[LedgerEntry, RecordGuarantee]],
    accounts: list[Counter[Mask]],
) -> None:
    """A plan covers every round that was charged, and keeps what config.toml asks for."""
    config = evidence.config
    first, last = told[0][1], told[-1][1]
    for name, values in (
        ("delta", {record.delta for _, record in told} | {config.privacy.delta}),
        ("adjacency", {record.adjacency for _, record in told} | {"swap"}),
        ("cohort", {record.cohort for _, record in told} | {config.cohort}),
    ):
        if len(values) > 1:
            notes.finding(
                f"One record's {name} is not that of the run in every round.", values=sorted(values)
            )
    for view in View:
        planned = {_cell(record, view).planned for _, record in told}
        if len(planned) > 1:
            notes.finding(
                f"One record's planned epsilon({view.value}) changes from round to round; a plan is fixed "
                "before the first.",
                planned=sorted(value for value in planned if value is not None),
            )
            return
        stated, found = _cell(first, view).planned, _epsilon(accounts, last, view)
        if stated is not None and stated < found * (1 - TOO_SMALL):
            notes.finding(
                f"One record's planned epsilon({view.value}) is {format_epsilon(stated)}; the rounds that "
                f"were charged cost {format_epsilon(found)}.",
                "computed",
                planned=stated,
                oracle=found,
            )
    stated = _cell(first, View.SUM).planned
    limit = config.budget.image_epsilon
    if stated is not None and limit is not None and stated > limit * (1 + 1e-9):
        notes.finding(
            "The plan for one record is above the budget that config.toml sets.",
            planned=stated,
            budget_image_epsilon=limit,
        )
    target = config.measured.epsilon
    if config.measures and config.measured.unit == "image":
        found = _epsilon(accounts, last, View.SUM)
        if found > target * (1 + TOO_SMALL):
            notes.finding(
                f"The rounds cost one record {format_epsilon(found)}; config.toml asks for "
                f"{format_epsilon(target)}.",
                "computed",
                oracle=found,
                config=target,
            )


def measured_settings(evidence: Evidence, notes: Notebook) -> None:
    """Do the measured rounds in the ledger have the clips and numbers of config.toml?"""
    config, measured = evidence.config, evidence.config.measured
    if not config.measures:
        notes.finding(
            "The ledger charges measured rounds; config.toml has another behaviour.",
            config=config.federation.behaviour,
        )
        return
    facts = evidence.facts
    expected: dict[str, Any] = {
        "flip": config.privacy.flip,
        "directions": measured.directions,
        "sum_failure": config.sum_failure,
        "sigma_max": 1.0,  # signed columns of a Hadamard matrix: nothing else is sent
    }
    if measured.coordinates:
        expected["coordinates"] = measured.coordinates
    elif facts.parameters is not None:
        expected["coordinates"] = min(1 << (facts.parameters.bit_length() - 1), 1 << 20)
    if measured.records:
        expected["records"] = measured.records
    elif facts.training_images is not None:
        expected["records"] = max(1, round(facts.training_images / config.federation.clients))
    largest = max(_share(evidence, number) for number in range(1, config.federation.rounds + 1))
    for entry in evidence.charges:
        release, number = _measured(entry), _asked(entry)
        by_rule = {"client_clip": 1.0, "record_clip": _record_clip(evidence, release.records)}
        if measured.radius is not None:
            by_rule["clip"] = measured.radius * _share(evidence, number) / largest
        for name, value in {**expected, **by_rule}.items():
            found = getattr(release, name)
            if not math.isclose(found, value, rel_tol=_ROUNDED if name in by_rule else 1e-12):
                notes.finding(
                    f"config.toml and the ledger disagree on {name} of measured rounds, from round "
                    f"{entry.round} on.",
                    ledger=found,
                    config=value,
                )
                return
    if measured.unit == "client":
        target = measured.epsilon
        *_, accounts = evidence.accounts([_measured(entry).client() for entry in evidence.charges])
        delta = config.privacy.delta
        found = max(oracle.epsilon(each, delta, summed=True, replaced=False) for each in accounts)
        if found > target * (1 + TOO_SMALL):
            notes.finding(
                f"The rounds cost a client {format_epsilon(found)}; config.toml asks for "
                f"{format_epsilon(target)}.",
                "computed",
                oracle=found,
                config=target,
            )
    if not notes.findings:
        notes.fact(
            f"{len(evidence.charges)} measured rounds with "
            + ", ".join(f"{name} = {value:g}" for name, value in expected.items())
            + ", and clips by config.toml's rule"
        )


def _share(evidence: Evidence, number: int) -> float:
    """C of a round, up to a common factor."""
    measured, several = evidence.config.measured, evidence.config.federation.rounds > 1
    return float(measured.growth ** (number - 1) * (measured.first_round if number == 1 and several else 1))


def _record_clip(evidence: Evidence, records: int) -> float:
    """c, in units of A."""
    config, people = evidence.config, None
    if config.measured.record_clip is not None:
        return config.measured.record_clip
    if config.data.person is not None:
        if (persons := evidence.facts.persons) is None:
            raise Unchecked("environment.json does not say how many persons the clients have")
        people = max(1, round(persons / config.federation.clients))
    return oracle.record_clip(config.measured.unit, records, people)


def _asked(entry: LedgerEntry) -> int:
    asked = entry.metrics.get("federation_round", entry.round)
    return asked if isinstance(asked, int) else entry.round


def _measured(entry: LedgerEntry) -> Measured:
    try:
        return Measured.of(entry.release)
    except ValueError as error:
        raise Unchecked(f"round {entry.round}: {error}") from None


def _cell(record: RecordGuarantee, view: View) -> Spent:
    assert record.spent is not None
    return record.spent[view]


def _epsilon(accounts: Iterable[Counter[Mask]], record: RecordGuarantee, view: View) -> float:
    """The largest over clients' accounts."""
    return max(
        oracle.epsilon(each, record.delta, summed=view is View.SUM, replaced=False) for each in accounts
    )
