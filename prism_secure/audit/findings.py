"""What a check says: findings with their evidence, and how sure each of them is."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Severity = Literal["finding", "note"]
Certainty = Literal["certain", "computed", "likely"]
Outcome = Literal["passed", "note", "finding", "skipped", "unchecked"]

TOO_SMALL = 0.01
"""A ledger's epsilon that is smaller than the oracle's by more than this share is a finding."""
TOO_LARGE = 0.05
"""One that is larger by more than this is a note: safe, but not what these settings cost."""

CERTAINTY_WORDS: dict[Certainty, str] = {
    "certain": "follows from a signature, a hash, a file's mode or an exact count",
    "computed": "two independent computations differ by more than their tolerance",
    "likely": "an innocent reason is possible; the evidence names it",
}


class Unchecked(Exception):
    """A check cannot be made, with the reason; `expected` where a complete folder may well lack it."""

    def __init__(self, reason: str, *, expected: bool = False) -> None:
        super().__init__(reason)
        self.expected = expected


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong (`finding`), or that a reader should know (`note`)."""

    severity: Severity
    text: str
    certainty: Certainty
    evidence: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found."""

    name: str
    question: str
    outcome: Outcome
    facts: list[str]
    """What was looked at, in words; also where nothing is wrong."""
    findings: list[Finding]
    reason: str = ""
    """Why it could not be made."""


class Recomputed(msgspec.Struct, frozen=True, kw_only=True):
    """One epsilon at the end of the ledger, computed again, for the table of the report."""

    unit: str = "client"
    """"client" or "record"."""
    view: str = ""
    """"sum" or "upload"; nothing for a record whose release is one, whoever looks."""
    adjacency: str
    rounds: int
    ledger: float
    oracle: float


class Notebook:
    """What a check writes into while it looks."""

    def __init__(self) -> None:
        self.facts: list[str] = []
        self.findings: list[Finding] = []

    def fact(self, text: str) -> None:
        """What was looked at, and turned out well."""
        self.facts.append(text)

    def finding(self, text: str, certainty: Certainty = "certain", **evidence: Any) -> None:
        """Something is wrong."""
        self.findings.append(Finding(severity="finding", text=text, certainty=certainty, evidence=evidence))

    def note(self, text: str, certainty: Certainty = "certain", **evidence: Any) -> None:
        """Nothing is wrong, but whoever reads the run's figures should know it."""
        self.findings.append(Finding(severity="note", text=text, certainty=certainty, evidence=evidence))

    def answer(self, name: str, question: str, unchecked: Unchecked | None = None) -> Answer:
        """Everything that was written down; what was found before a check had to stop counts."""
        severities = {found.severity for found in self.findings}
        outcome: Outcome = "passed"
        if "finding" in severities:
            outcome = "finding"
        elif unchecked is not None:
            outcome = "skipped" if unchecked.expected else "unchecked"
        elif "note" in severities:
            outcome = "note"
        return Answer(
            name=name,
            question=question,
            outcome=outcome,
            facts=self.facts,
            findings=self.findings,
            reason=str(unchecked or ""),
        )
