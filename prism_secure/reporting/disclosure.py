"""One page for auditors and data protection officers: what a run guarantees, from its signed ledger alone.

Its questions are those that NIST SP 800-226 ("Guidelines for Evaluating Differential Privacy Guarantees")
asks of a claim: unit, neighbouring data sets, epsilon and delta, composition, trust model, what is not
covered. Beside every epsilon stands the largest true-positive rate that it leaves to a membership-inference
attack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prism_privacy import LedgerReport, PrivacyError, verify_ledger
from prism_privacy.ledger.attacker import FALSE_POSITIVE_RATES, Certified, certified
from prism_privacy.ledger.disclosure import ADJACENCY_OF_CLIENTS, VIEW_WORDS, not_covered, why_infinite
from prism_privacy.moments.release import ADJACENCY_WORDS
from prism_privacy.units import Adjacency, Unit
from prism_secure import wording
from prism_secure.errors import RunFolderError
from prism_secure.reporting import pages
from prism_secure.storage import write_atomic

__all__ = ["write_disclosure"]


def write_disclosure(folder: Path) -> Path:
    """Write `disclosure.html` into a run folder and return its path; nothing but the ledger is read.

    Raises:
        RunFolderError: there is no ledger, it is damaged, or it states less than its own releases cost.
        StorageError: the disk refused.
    """
    try:
        report = verify_ledger(folder / "ledger.jsonl")
        page = _render(report, certified(report), why_infinite(report))
    except PrivacyError as error:
        raise RunFolderError(f"{folder}: its ledger discloses nothing: {error}") from None
    path = folder / "disclosure.html"
    write_atomic(path, page.encode())
    return path


def _percent(rate: float) -> str:
    """A rate that is an upper bound, rounded up.

    >>> [_percent(rate) for rate in (0.0012, 0.07389, 0.99971, 1.0)]
    ['0.12%', '7.4%', '100%', '100%']
    """
    digits = 2 if rate < 0.01 else 1
    return f"{math.ceil(rate * 10 ** (2 + digits) - 1e-9) / 10**digits:g}%"


def _neighbours(each: Certified) -> str:
    if each.unit is Unit.RECORD:
        return ADJACENCY_WORDS[each.adjacency]
    return ADJACENCY_OF_CLIENTS[Adjacency(each.adjacency)]


def _parameters(report: LedgerReport) -> list[tuple[str, str]]:
    """What the releases were, as signed: each parameter, with its range where rounds differ."""
    found: dict[str, list[Any]] = {}
    for entry in report.entries:
        if entry.kind != "end":
            for name, value in entry.release.items():
                found.setdefault(name, []).append(value)
    return [(name, _range(values)) for name, values in found.items()]


def _range(values: list[Any]) -> str:
    different = sorted({value for value in values if isinstance(value, int | float)})
    if len(different) > 1:
        return f"{different[0]:.6g} to {different[-1]:.6g}"
    return (
        "none"
        if values[0] is None
        else f"{values[0]:.6g}"
        if isinstance(values[0], float)
        else str(values[0])
    )


def _render(report: LedgerReport, guarantees: list[Certified], infinite: list[str]) -> str:
    filters: Mapping[str, Any] = {"percent": _percent, "neighbours": _neighbours}
    rounds = [entry for entry in report.entries if entry.kind in ("round", "aborted")]
    last = report.entries[-1] if report.entries else None
    return pages.render(
        "prism_secure.reporting",
        "disclosure.html.jinja",
        filters,
        report=report,
        guarantees=guarantees,
        infinite=infinite,
        last=last,
        rounds=len(rounds),
        aborted=sum(entry.kind == "aborted" for entry in rounds),
        moments=sum(entry.kind == "moments" for entry in report.entries),
        known_coins=any(entry.coins == "test" for entry in report.entries),
        adaptive=any(each.to_date < each.epsilon for each in guarantees),
        parameters=_parameters(report),
        units={Unit.CLIENT: wording.CLIENT_UNIT, Unit.RECORD: wording.record_unit(report.one_record)},
        views=VIEW_WORDS,
        rates=FALSE_POSITIVE_RATES,
        record=next((entry.record for entry in reversed(report.entries) if entry.record is not None), None),
        not_covered=list(not_covered(report)) if last else [],
        scale=wording.SCALE,
    )
