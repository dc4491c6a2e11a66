"""Who broke the protocol, at which stage, and the bytes that prove it to anybody."""

from __future__ import annotations

from dataclasses import dataclass, field

from prism_crypto.stage import Stage

__all__ = ["Blame"]


@dataclass(frozen=True)
class Blame:
    """One client's provable misbehaviour.

    Attributes:
        client_id: who it was.
        stage: at which stage it left the protocol.
        reason: what it did.
        federation, number: the session in which it did so.
        evidence: the proof; `prism_crypto.verify_evidence` needs it and the roster, and nothing else.
    """

    client_id: int
    stage: Stage
    reason: str
    federation: str
    number: int
    evidence: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"client {self.client_id} at {self.stage.value}: {self.reason}"
