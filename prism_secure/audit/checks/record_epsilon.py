"""The record-level release: one noisy release of feature moments, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prism_privacy import Adjacency, LedgerError, View
from prism_privacy.ledger.entry import RecordGuarantee
from prism_secure.audit import oracle
from prism_secure.audit.checks.measured_epsilon import is_measured, measured_level
from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import TOO_LARGE, TOO_SMALL, Notebook, Recomputed, Unchecked
from prism_secure.wording import format_epsilon

_PROVED = 100.0
"""A summed release cuts noise off where it is 24 standard deviations out; above this epsilon that counts."""


@dataclass(frozen=True)
class SummedRelease:
    """One release over all clients, opened in a secure sum.

    release   its parameters, as the ledger has them
    records   the most records that a client has
    cohort    honest clients that share the noise
    """

    release: Mapping[str, Any]
    records: int
    cohort: int

    def client_epsilon(self, delta: float, cell: tuple[View, Adjacency]) -> float:
        """What it tells about everything that one client has: all of its records change together.

        Under zero_out they are left out, under replace_one they are others; in an upload one client's share
        of the noise is all there is.
        """
        view, adjacency = cell
        kind = "add_remove" if adjacency is Adjacency.ZERO_OUT else str(self.release["adjacency"])
        noise = _noise(self.release) / (math.sqrt(self.cohort) if view is View.UPLOAD else 1.0)
        found = oracle.gaussian(noise / (self.records * _move(self.release, kind)), delta)
        return found if found <= _PROVED else math.inf


def summed_release(evidence: Evidence) -> SummedRelease | None:
    """The release over all clients, where the ledger charged one.

    Raises:
        Unchecked: there is one, and the ledger does not say all that it depends on.
    """
    stated, ledger = _stated(evidence), evidence.ledger
    if stated is None or stated.spent is not None:
        return None
    if isinstance(ledger, LedgerError):
        raise Unchecked("how the release was opened is not to be had from a ledger that does not verify")
    if ledger.settings.get("record_release", evidence.config.privacy.record_release) != "summed":
        return None
    if ledger.records is None:
        raise Unchecked("how many records a client has at most is not to be had from the ledger")
    return SummedRelease(stated.release, ledger.records, evidence.entries[0].cohort)


def _own_data(evidence: Evidence) -> bool:
    """Whether the signed header says that each client has its data and its ledger elsewhere."""
    ledger = evidence.ledger
    if isinstance(ledger, LedgerError) or any((evidence.folder / "clients").glob("*/")):
        return False
    return ledger.settings.get("own_data") is True


def record_level(evidence: Evidence, notes: Notebook) -> list[Recomputed]:
    """Does the record-level epsilon cover the one noisy release of moments, or each measured round?"""
    if is_measured(evidence):
        return measured_level(evidence, notes)
    stated, privacy = _stated(evidence), evidence.config.privacy
    if stated is None:
        if _own_data(evidence) and privacy.record_release == "client" and evidence.charges:
            notes.note(
                "Each client releases noisy moments of its own images: what that costs is in the clients' "
                "own ledgers, and nothing here can show it."
            )
            return []
        if math.isfinite(evidence.record_epsilon) and evidence.charges:
            notes.finding(
                "config.toml asks for a record-level guarantee, and the ledger states none.",
                config=evidence.record_epsilon,
            )
            return []
        raise Unchecked("no record-level guarantee is claimed", expected=True)
    try:
        noise, move = _noise(stated.release), _move(stated.release, stated.adjacency)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise Unchecked(f"the record-level release is not one that is known here: {error!r}") from None
    found = oracle.gaussian(noise / move, stated.delta)
    told = {"ledger": stated.epsilon, "oracle": found, "noise": noise, "largest_move": move}
    if stated.epsilon < found * (1 - TOO_SMALL):
        notes.finding(
            f"The ledger states epsilon = {format_epsilon(stated.epsilon)} for one record; noise {noise:.4g} "
            f"against a move of {move:.4g} costs {format_epsilon(found)}.",
            "computed",
            **told,
        )
    elif stated.epsilon > found * (1 + TOO_LARGE):
        notes.note("The record-level epsilon is larger than its release costs.", "computed", **told)
    else:
        notes.fact(
            f"one record ({stated.adjacency}): {format_epsilon(stated.epsilon)} stated, "
            f"{format_epsilon(found)} computed again"
        )
    if stated.epsilon > evidence.record_epsilon * (1 + 1e-9):
        notes.finding(
            "The record-level epsilon is above what config.toml asks for.",
            ledger=stated.epsilon,
            config=evidence.record_epsilon,
        )
    for name, ledger, config in (
        ("delta", stated.delta, privacy.delta),
        ("adjacency", stated.release["adjacency"], stated.adjacency),
    ):
        if ledger != config:
            notes.finding(f"The record-level {name} is not that of the run.", ledger=ledger, run=config)
    _check_place(evidence, notes, stated)
    _check_signed(evidence, notes)
    rounds = len(evidence.records)
    return [
        Recomputed(
            unit="record", adjacency=stated.adjacency, rounds=rounds, ledger=stated.epsilon, oracle=found
        )
    ]


def _check_signed(evidence: Evidence, notes: Notebook) -> None:
    """config.toml is not signed: what it says of the release is what the ledger's writer signed."""
    ledger, config = evidence.ledger, evidence.config
    if isinstance(ledger, LedgerError):
        return
    asked = config.privacy.record_release
    signed = ledger.settings.get("record_release", asked)  # ledgers of older programs do not say
    pairs: list[tuple[str, object, object]] = [("record_release", signed, asked)]
    moments = evidence.entries[0]
    if moments.kind == "moments":
        cohort = config.record_cohort if signed == "summed" else config.cohort
        pairs.append(("record_cohort", moments.cohort, cohort))
        if moments.record is not None and moments.record.view is not None:
            shared = signed == "summed" and moments.cohort > 1
            expected = ("sum", moments.cohort) if shared else ("upload", None)
            stated = (moments.record.view.value, moments.record.cohort)
            if stated != expected:
                notes.finding(
                    "The ledger states another view of one image's guarantee than its release has.",
                    ledger=stated,
                    release=expected,
                )
    for name, ledger_says, config_says in pairs:
        if ledger_says != config_says:
            notes.finding(
                f"config.toml and the signed ledger disagree on {name}.",
                ledger=ledger_says,
                config=config_says,
            )


def _check_place(evidence: Evidence, notes: Notebook, stated: RecordGuarantee) -> None:
    """It is released once, before round 1, and every line says so."""
    entries = evidence.entries
    moments = [number for number, entry in enumerate(entries) if entry.kind == "moments"]
    if moments != [0] or entries[0].release != stated.release:
        notes.finding(
            "The record-level release must be charged once, as the ledger's first entry.",
            entries_of_kind_moments=moments,
        )
    silent = [entry.round for entry in entries if entry.record != stated]
    if silent:
        notes.finding("Some entries do not carry the record-level guarantee.", rounds=silent)
    ledger, images = evidence.ledger, evidence.facts.training_images
    if isinstance(ledger, LedgerError) or ledger.records is None or images is None:
        return
    if ledger.records * evidence.config.federation.clients < images:
        notes.finding(
            "The ledger says that a client has at most fewer records than all together have on average.",
            records=ledger.records,
            images=images,
            clients=evidence.config.federation.clients,
        )


def _stated(evidence: Evidence) -> RecordGuarantee | None:
    return next((entry.record for entry in evidence.entries if entry.record is not None), None)


def _noise(release: Mapping[str, Any]) -> float:
    """Standard deviation on the sums of features of norm 1."""
    return float(release["sigma"]) * int(release["records"]) / float(release["norm"])


def _move(release: Mapping[str, Any], adjacency: str) -> float:
    return oracle.record_move(
        adjacency,
        int(release["classes"]),
        float(release["second_weight"]),
        float(release["count_weight"]),
        bool(release["nonnegative"]),
    )
