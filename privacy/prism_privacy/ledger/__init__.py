"""The signed, append-only record of what was spent.

Writing, checking and reading lines; it states what accountants said and computes no epsilon itself.
"""

from prism_privacy.ledger.writer import Ledger, verify_ledger

__all__ = ["Ledger", "verify_ledger"]
