"""The audit's pages: self-contained HTML, no script, no request, readable by somebody who was not there."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prism_privacy.ledger.entry import json_safe
from prism_secure.audit.budget import Account
from prism_secure.audit.budget_file import Limit
from prism_secure.audit.figures import spending_plot
from prism_secure.audit.findings import CERTAINTY_WORDS, TOO_SMALL
from prism_secure.audit.run_audit import RunAudit
from prism_secure.audit.spent_ledgers import SpentLedger
from prism_secure.reporting import pages
from prism_secure.storage import write_atomic

OUTCOME_WORDS = {
    "passed": "nothing wrong",
    "note": "note",
    "finding": "finding",
    "skipped": "not checked",
    "unchecked": "could not check",
}


def write_run_page(audit: RunAudit, path: Path) -> None:
    """The report of one run folder's audit.

    Raises:
        StorageError: the disk refused.
    """
    bounds = {(bound.view, bound.adjacency): bound.epsilon for bound in audit.lower_bounds}
    page = render(
        "run.html.jinja",
        audit=audit,
        bounds=bounds,
        certainties=CERTAINTY_WORDS,
        tolerance=f"{TOO_SMALL:.0%}",
    )
    write_atomic(path, page.encode())


def write_budget_page(accounts: Sequence[Account], ledgers: Sequence[SpentLedger], path: Path) -> None:
    """The report of a budget.

    Raises:
        StorageError: the disk refused.
    """
    by_limit: dict[tuple[Limit, str], list[Account]] = {}
    for account in accounts:
        by_limit.setdefault((account.limit, account.data), []).append(account)
    figures = [spending_plot(same, name=f"spent{number}") for number, same in enumerate(by_limit.values())]
    page = render(
        "budget.html.jinja",
        accounts=accounts,
        over=[account for account in accounts if account.over],
        undecided=[account for account in accounts if account.open],
        ledgers=ledgers,
        named=tuple(ledger.name + end for ledger in ledgers for end in ":,"),
        figures=figures,
    )
    write_atomic(path, page.encode())


def render(template: str, **values: Any) -> str:
    """A template of this package; a name that it needs and does not get is an error."""
    filters: dict[str, Callable[..., str]] = {
        "below": _below,
        "shown": _shown,
        "outcome": OUTCOME_WORDS.__getitem__,
    }
    return pages.render("prism_secure.audit", template, filters, **values)


def _below(value: float) -> str:
    """A lower bound, rounded down, so that what is read is never above what was computed."""
    if math.isinf(value):
        return "inf"
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{math.floor(value * 10**digits) / 10**digits:,.{digits}f}"


def _shown(value: Any) -> str:
    """A piece of evidence as text."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(json_safe(value, nan=True))
