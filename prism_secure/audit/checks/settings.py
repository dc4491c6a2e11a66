"""Whether the ledger says what the run's settings say, and speaks of a cohort that was there."""

from __future__ import annotations

from typing import Any

from prism_privacy import LedgerReport
from prism_privacy.wording import SUM_NOT_RUN_WORDS
from prism_secure.audit.checks.measured_epsilon import is_measured, measured_settings
from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import Notebook, Unchecked

HARARY_FAILURE = 2.0**-40
"""Probability per round that a sparse graph of the secure sum fails to hide uploads; SUM has to pay it."""


def settings(evidence: Evidence, notes: Notebook) -> None:
    """Do the releases in the ledger have the flip, clip and delta of config.toml?"""
    config, privacy = evidence.config, evidence.config.privacy
    evidence.need_charges()
    if is_measured(evidence):
        _compare(notes, evidence, "delta", privacy.delta, lambda entry: entry.delta)
        measured_settings(evidence, notes)
        return
    expected: dict[str, Any] = {
        "flip": privacy.flip,
        "clip": privacy.clip,
        "space": privacy.clip_space,
    }
    if evidence.facts.parameters is not None:
        expected["dim"] = evidence.facts.parameters
    for name, value in expected.items():
        _compare(notes, evidence, f"release.{name}", value, lambda entry, key=name: entry.release.get(key))
    _compare(notes, evidence, "delta", privacy.delta, lambda entry: entry.delta)
    if config.invited > 200 and (config.secure_sum.mode == "semi_honest" or config.graph == "chosen"):
        for entry in evidence.charges:
            failure = entry.release.get("sum_failure")
            if not isinstance(failure, float) or failure < HARARY_FAILURE:
                notes.finding(
                    f"Round {entry.round}: {config.invited} clients sum over a sparse graph, "
                    "whose failure epsilon(SUM) has to take out of delta, and the ledger takes nothing.",
                    sum_failure=failure,
                    expected=HARARY_FAILURE,
                )
                break
    if not notes.findings:
        notes.fact(
            f"{len(evidence.charges)} charges with "
            + ", ".join(f"{name} = {'none' if value is None else value}" for name, value in expected.items())
            + f", delta = {privacy.delta:g}"
        )


def secure_sum(evidence: Evidence, notes: Notebook) -> None:
    """Was the secure sum run, by what the ledger's header and config.toml say?"""
    config, ledger = evidence.config, evidence.ledger
    if not isinstance(ledger, LedgerReport):
        raise Unchecked("the ledger does not verify, so its header says nothing")
    simulated = config.secure_sum.simulate
    if ledger.sum_not_run != simulated:
        notes.finding(
            "config.toml and the ledger's header disagree on whether the secure sum was run.",
            ledger="not run" if ledger.sum_not_run else "run",
            config="not run" if simulated else "run",
        )
    elif simulated:
        notes.note(f"{SUM_NOT_RUN_WORDS[0].upper()}{SUM_NOT_RUN_WORDS[1:]}.")
    else:
        notes.fact(f"{config.secure_sum.mode.replace('_', '-')}, of {config.invited} clients")


def cohort(evidence: Evidence, notes: Notebook) -> None:
    """Is the cohort what every opened sum surely held: minimum survivors less colluders?"""
    config = evidence.config
    evidence.need_charges()
    clients, colluders = config.invited, config.privacy.colluders
    least = config.secure_sum.min_survivors or clients
    # On a graph that clients choose nobody counts survivors: there it is what the graph guarantees.
    honest = config.cohort if config.graph == "chosen" else least - colluders
    reasons: dict[object, str] = {
        clients: "which counts clients that may drop out, and colluders",
        clients - colluders: "which counts clients that may drop out",
        least: "which counts the assumed colluders as honest",
    }
    for name, found in (
        ("cohort", {entry.cohort for entry in evidence.charges}),
        ("release.cohort", {entry.release.get("cohort") for entry in evidence.charges}),
    ):
        for value in found - {honest}:
            why = f", {reasons[value]}" if value in reasons and value != honest else ""
            notes.finding(
                f"The ledger accounts for {name} = {value}{why}; at least {least} survivors less {colluders} "
                f"colluders guarantee {honest}.",
                ledger=value,
                guaranteed=honest,
                clients=clients,
            )
    _compare(notes, evidence, "colluders", colluders, lambda entry: entry.colluders)
    ledger = evidence.ledger
    if isinstance(ledger, LedgerReport) and ledger.clients not in (None, config.federation.clients):
        notes.finding(
            "The ledger's header speaks of another number of clients than config.toml.",
            ledger=ledger.clients,
            config=config.federation.clients,
        )
    kept = {entry.round: entry for entry in evidence.charges}
    alone = config.measures or config.training.end_steps > 0  # the server trains on after a lost round, too
    for record in evidence.records:
        entry = kept.get(record.round)
        if record.lost and (alone or record.step == 0):
            continue
        needed = least if entry is None else max(least, entry.cohort + entry.colluders)
        if not needed <= record.survivors <= clients:
            notes.finding(
                f"Round {record.round} was opened over {record.survivors} survivors; the ledger and the "
                f"clients' policy ask for at least {needed} of {clients}.",
                survivors=record.survivors,
                least=needed,
            )
            break
    if not notes.findings:
        notes.fact(f"{least} survivors at least, {colluders} colluders assumed: a cohort of {honest}")


def _compare(notes: Notebook, evidence: Evidence, name: str, expected: object, read: Any) -> None:
    """One finding for the first entry that says something else than the configuration."""
    different = [entry for entry in evidence.charges if read(entry) != expected]
    if different:
        first = different[0]
        notes.finding(
            f"config.toml and the ledger disagree on {name}, in {len(different)} of {len(evidence.charges)} "
            f"charges, from round {first.round} on.",
            ledger=read(first),
            config=expected,
        )
