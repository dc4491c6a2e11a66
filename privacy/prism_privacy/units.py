"""Who is protected, what the observer sees, and which worlds count as neighbours.

An epsilon means nothing without these three words beside it, so no function of this package guesses them.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Adjacency", "Unit", "View"]


class View(StrEnum):
    """What the observer sees of one round."""

    UPLOAD = "upload"
    """The bits that one client sent, as if there were no secure sum."""
    SUM = "sum"
    """Only the opened counts over the cohort."""


class Adjacency(StrEnum):
    """How two neighbouring worlds differ. Both have the same participants and the same survivors."""

    ZERO_OUT = "zero_out"
    """One client's probabilities become the public broadcast point: ‖Δ‖₂ ≤ C."""
    REPLACE_ONE = "replace_one"
    """One client's probabilities become any other allowed ones: ‖Δ‖₂ ≤ 2C."""


class Unit(StrEnum):
    """What one guarantee protects."""

    CLIENT = "client"
    """Everything that one client contributes."""
    RECORD = "record"
    """One record (one image) of one client."""
