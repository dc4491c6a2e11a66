"""Errors on their way out of a state machine.

A traceback keeps every frame that it passed, and with it the local variables of the functions that handled
secrets; a debugger, a crash reporter or ``traceback`` with ``capture_locals`` would print them. So an error
that leaves a client or server is cut off from the frames in which it arose.
"""

from __future__ import annotations

from typing import TypeVar

from prism_crypto.errors import SecureSumError
from prism_crypto.stage import Stage

__all__ = ["scrubbed"]

E = TypeVar("E", bound=BaseException)


def scrubbed(error: E, stage: Stage, peer: int | None = None) -> E:
    """The error without traceback, cause and context, knowing its stage (and peer, if it knew none)."""
    if isinstance(error, SecureSumError):
        error.at(stage, peer)
    error.__traceback__ = None
    error.__cause__ = None
    error.__context__ = None
    return error
