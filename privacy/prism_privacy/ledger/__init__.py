"""The signed, append-only record of what was spent.

Writing, checking and reading lines, which state what accountants said; and what several ledgers cost together
(`composition`).
"""

from prism_privacy.ledger.writer import Ledger, verify_ledger

__all__ = ["Ledger", "verify_ledger"]
