"""Every check on one run folder, and the verdict."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from prism_privacy import LedgerReport, PrivacyError
from prism_privacy.ledger.entry import json_safe
from prism_secure.accounting.signed import why_infinite_as_signed
from prism_secure.audit.checks import (
    chain,
    client_epsilon,
    coins,
    data,
    model,
    record_epsilon,
    rounds,
    settings,
)
from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import TOO_SMALL, Answer, Finding, Notebook, Recomputed, Unchecked
from prism_secure.audit.floors import lower_bounds
from prism_secure.errors import ConfigError, PrismError
from prism_secure.run_folder.history import LowerBound
from prism_secure.storage import write_atomic
from prism_secure.wording import format_delta, format_epsilon

Check = Callable[[Evidence, Notebook], object]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("chain", chain.chain),
    ("writer", chain.writer),
    ("settings", settings.settings),
    ("secure sum", settings.secure_sum),
    ("cohort", settings.cohort),
    ("client epsilon", client_epsilon.client_level),
    ("record epsilon", record_epsilon.record_level),
    ("metrics", client_epsilon.metrics_agree),
    ("rounds", rounds.rounds),
    ("ending", rounds.ending),
    ("model", model.model),
    ("data", data.data),
    ("secrets", coins.secrets),
    ("kept", coins.kept),
    ("replay", coins.replay),
)
"""In the order of the report; a check's question is the first line of its docstring."""

EXIT_CODES = {"clean": 0, "finding": 1, "could not check": 2}


class RunAudit(msgspec.Struct, frozen=True, kw_only=True):
    """What the auditor says about one run folder."""

    name: str
    """The folder's own name, without where it lies."""
    verdict: Literal["clean", "finding", "could not check"]
    answers: list[Answer]
    epsilons: list[Recomputed]
    lower_bounds: list[LowerBound]
    delta: float | None
    infinite: list[str] = []
    """Why epsilons are infinite, and what would make them finite."""
    record: str = "image"
    """What a record is, as the ledger has it: an "image", or a "person" with all images."""

    @property
    def exit_code(self) -> int:
        """0 clean, 1 at least one finding, 2 something that should be there could not be checked."""
        return EXIT_CODES[self.verdict]

    @property
    def findings(self) -> list[Finding]:
        """Everything that is wrong."""
        return [found for answer in self.answers for found in answer.findings if found.severity == "finding"]

    def as_dict(self) -> dict[str, Any]:
        """JSON-safe; infinities are "inf"."""
        return dict(json_safe(msgspec.to_builtins(self), nan=True))


def audit_run(
    folder: Path, *, key: str | None = None, head: str | None = None, replay: bool = True
) -> RunAudit:
    """Check one run folder; nothing in it is changed.

    Args:
        folder: a run folder, finished or not.
        key: the ledger writer's Ed25519 public key, 64 hexadecimal digits, if it is known.
        head: a head of the ledger that somebody wrote down; it must be on the chain.
        replay: repeat a client's first round, where its folder is there: seconds of training.

    Raises:
        ConfigError: there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such run folder")
    evidence = Evidence(folder, key, head)
    answers: list[Answer] = []
    epsilons: list[Recomputed] = []
    for name, check in CHECKS:
        if check is coins.replay and not replay:
            continue
        notes = Notebook()
        question = (check.__doc__ or "").partition("\n")[0]
        unchecked = None
        try:
            found = check(evidence, notes)
            epsilons += found if isinstance(found, list) else []
        except Unchecked as reason:
            unchecked = reason
        except (OSError, PrismError, PrivacyError) as error:  # a file that a check reads by itself
            unchecked = Unchecked(evidence.told(error))
        answers.append(notes.answer(name, question, unchecked))
    outcomes = {answer.outcome for answer in answers}
    bounds: list[LowerBound] = []
    delta = None
    if epsilons:
        delta = evidence.entries[-1].delta
        bounds = lower_bounds(evidence, [cell for cell in epsilons if cell.unit == "client"])
    return RunAudit(
        name=folder.resolve().name,
        verdict="finding"
        if "finding" in outcomes
        else "could not check"
        if "unchecked" in outcomes
        else "clean",
        answers=answers,
        epsilons=epsilons,
        lower_bounds=bounds,
        delta=delta,
        infinite=_why_infinite(evidence, epsilons),
        record=_record(evidence),
    )


def _record(evidence: Evidence) -> str:
    with contextlib.suppress(Unchecked):
        if isinstance(evidence.ledger, LedgerReport):
            return evidence.ledger.one_record
    return "image"


def _why_infinite(evidence: Evidence, epsilons: list[Recomputed]) -> list[str]:
    """What stands beside a table in which an epsilon is inf."""
    infinite = {
        "image" if cell.unit == "record" else cell.view.upper()
        for cell in epsilons
        if math.isinf(max(cell.ledger, cell.oracle))
    }
    if not infinite:
        return []
    ledger = evidence.ledger if isinstance(evidence.ledger, LedgerReport) else None
    config, images = evidence.config, None
    with contextlib.suppress(Unchecked):
        images = math.ceil((evidence.facts.training_images or 0) / config.federation.clients) or None
    return [str(why) for why in why_infinite_as_signed(infinite, ledger, config, images=images)]


def write_json(audit: RunAudit, path: Path) -> None:
    """The audit as JSON.

    Raises:
        StorageError: the disk refused.
    """
    write_atomic(path, msgspec.json.format(msgspec.json.encode(audit.as_dict())) + b"\n")


_MARKS = {
    "passed": "ok",
    "note": "note",
    "finding": "FINDING",
    "skipped": "skipped",
    "unchecked": "UNCHECKED",
}


def told(answers: Iterable[Answer]) -> list[str]:
    """Checks as lines for a terminal: one each, findings and notes below theirs."""
    lines = []
    for answer in answers:
        lines.append(f"{_MARKS[answer.outcome]:>9}  {answer.name}: {answer.question}")
        lines += [
            f"           {found.severity}, {found.certainty}: {found.text}" for found in answer.findings
        ]
        if answer.reason:
            lines.append(f"           {answer.reason}")
    return lines


def summary(audit: RunAudit) -> list[str]:
    """The audit as lines for a terminal, at the end the verdict and what was spent."""
    counted = len(audit.findings)
    verdict = {
        "clean": "clean: nothing wrong was found in what could be looked at",
        "finding": f"{counted} finding{'s' if counted != 1 else ''}",
        "could not check": "no finding, but something that should be there could not be checked",
    }
    return [*told(audit.answers), *audit.infinite, verdict[audit.verdict], *_recomputed(audit)]


def _recomputed(audit: RunAudit) -> list[str]:
    """What was spent by the ledger's end, as the oracle has it: each unit and adjacency with its views."""
    if not audit.epsilons or audit.delta is None:
        return []
    cells: dict[str, list[str]] = {}
    for cell in sorted(audit.epsilons, key=lambda cell: cell.view == "upload"):
        unit = audit.record if cell.unit == "record" else cell.unit
        cells.setdefault(f"{unit}, {cell.adjacency}:", []).append(
            f"{cell.view.upper()} {format_epsilon(cell.oracle)}".strip()
        )
    shown = "; ".join(f"{whose} {', '.join(values)}" for whose, values in cells.items())
    margin = f"a ledger that states more than {TOO_SMALL:.0%} less is a finding"
    return [f"ε recomputed by other formulas (δ = {format_delta(audit.delta)}; {margin}): {shown}"]
