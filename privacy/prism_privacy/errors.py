"""Everything that `prism_privacy` raises on purpose.

    PrivacyError
    ├── InvalidParameter      (also ValueError)  an argument that no mechanism or accountant can accept
    ├── BudgetExceeded        the next release would pass the budget; raised before anything is spent
    │   └── ParticipationExceeded   a client would take part more often than its cap
    ├── CalibrationError      no parameter reaches the target; carries the nearest value that can
    ├── UnsoundComposition    the releases cannot be composed under the guarantee that was asked for
    ├── LedgerError           a ledger file that is not what its writer wrote
    ├── CoinError             coins that must not be used: readable by others, reused, or missing
    ├── OutboxError           an outbox that cannot be read or written as it must be
    │   └── ReleaseConflict   a second, different release for a round that was already sent
    └── AuditError            what was to be audited could not be examined; says nothing about its privacy

A message names what was expected, what came and where; never a secret.
"""

from __future__ import annotations

__all__ = [
    "AuditError",
    "BudgetExceeded",
    "CalibrationError",
    "CoinError",
    "InvalidParameter",
    "LedgerError",
    "OutboxError",
    "ParticipationExceeded",
    "PrivacyError",
    "ReleaseConflict",
    "UnsoundComposition",
]


class PrivacyError(Exception):
    """The root: catching it catches every deliberate error of this package."""


class InvalidParameter(PrivacyError, ValueError):
    """An argument outside its range or of the wrong type; the message names it and its value."""


class BudgetExceeded(PrivacyError):
    """Spending was refused, and nothing was spent."""


class ParticipationExceeded(BudgetExceeded):
    """A client would take part in more rounds than its cap allows."""


class CalibrationError(PrivacyError):
    """No value of the free parameter reaches the target.

    `nearest` is the achievable epsilon nearest to the target, or None where there is none; `at` is the value
    of the free parameter that gives it.
    """

    def __init__(self, message: str, *, nearest: float | None = None, at: float | None = None) -> None:
        super().__init__(message)
        self.nearest = nearest
        self.at = at


class UnsoundComposition(PrivacyError):
    """A guarantee was asked for that these releases do not have together."""


class LedgerError(PrivacyError):
    """A ledger that was edited, reordered, cut or signed by somebody else.

    `line` is the first line (from 1) that is wrong, or None where the file as a whole is.
    """

    def __init__(self, message: str, *, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class CoinError(PrivacyError):
    """Coins that must not be drawn or a coin secret that must not be used."""


class OutboxError(PrivacyError):
    """Uploads could not be kept in the way that a retry needs."""


class ReleaseConflict(OutboxError):
    """A round that was sent already has its bytes; others would be another release, to be charged."""


class AuditError(PrivacyError):
    """What was to be audited failed, or gave something that is not what an audit can examine."""
