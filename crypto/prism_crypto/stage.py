"""The names of the five stages and of the two modes."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Mode", "Stage"]


class Stage(StrEnum):
    """The five stages, in order (Bonawitz et al. 2017, figure 4, with ``confirm`` as its consistency check).

    >>> [str(stage) for stage in Stage]
    ['advertise', 'share', 'upload', 'confirm', 'unmask']
    >>> Stage.SHARE.before(Stage.UPLOAD)
    True
    """

    ADVERTISE = "advertise"
    SHARE = "share"
    UPLOAD = "upload"
    CONFIRM = "confirm"
    UNMASK = "unmask"

    @property
    def number(self) -> int:
        """Position in the protocol, 1 to 5."""
        return list(Stage).index(self) + 1

    def before(self, other: Stage) -> bool:
        """Whether this stage comes strictly before ``other``."""
        return self.number < other.number


class Mode(StrEnum):
    """Against whom the session protects.

    ``ACTIVE``: a server that lies to each client as it likes, with up to c colluding clients.
    ``SEMI_HONEST``: a server that follows the protocol and keeps what it sees; no signatures, no confirm.
    """

    ACTIVE = "active"
    SEMI_HONEST = "semi_honest"
