"""Randomized response, clipping, accountants, ledger, audit."""

from prism_privacy.errors import (
    BudgetExceeded,
    CalibrationError,
    CoinError,
    InvalidParameter,
    LedgerError,
    OutboxError,
    ParticipationExceeded,
    PrivacyError,
    ReleaseConflict,
    UnsoundComposition,
)
from prism_privacy.releases import MaskRelease
from prism_privacy.units import Adjacency, Unit, View

__all__ = [
    "Adjacency",
    "BudgetExceeded",
    "CalibrationError",
    "CoinError",
    "InvalidParameter",
    "LedgerError",
    "MaskRelease",
    "OutboxError",
    "ParticipationExceeded",
    "PrivacyError",
    "ReleaseConflict",
    "Unit",
    "UnsoundComposition",
    "View",
]
