"""Everything that the secure sum raises.

::

    SecureSumError                 .stage (Stage or None), .peer (client id or None)
    ├── InputError                 a caller's argument: wrong type, shape or range (also a ValueError)
    ├── RandomnessError            the source of randomness is unfit or gave too few bytes
    ├── PolicyError                the session is below what this client's own policy demands
    ├── ContextMismatch            a message belongs to another session, round, model or cohort
    ├── ProtocolError              the sender broke the protocol
    │   ├── OutOfOrder             a stage skipped, repeated or restarted; a late or unexpected sender
    │   └── MessageError           bytes that are not the canonical encoding of the expected message
    ├── SignatureError             an Ed25519 signature does not verify
    ├── SealError                  a sealed share does not open
    ├── PublicKeyError             a public key is not canonical, of low order, repeated or substituted
    ├── ShareError                 a Shamir share, or what the shares reconstruct, is not what it should be
    ├── ThresholdError             too few clients remain: a clean abort, nothing opens
    ├── SumError                   the opened words are no sum of the inputs; whose fault, nobody can tell
    ├── EvidenceError              what is said to prove a client's misbehaviour does not
    ├── IdentityError              an identity or roster file, or a key in it, can't be used
    └── StateError                 the session counter is missing or damaged, would go back or jump too far

A message names what was expected, what came, from whom and at which stage. It never holds a secret, and
the state machines raise from frames that hold none. ``peer`` is whom the error is about or who reports it;
only ``server.blamed`` names a liar.
"""

from __future__ import annotations

from prism_crypto.stage import Stage

__all__ = [
    "ContextMismatch",
    "EvidenceError",
    "IdentityError",
    "InputError",
    "MessageError",
    "OutOfOrder",
    "PolicyError",
    "ProtocolError",
    "PublicKeyError",
    "RandomnessError",
    "SealError",
    "SecureSumError",
    "ShareError",
    "SignatureError",
    "StateError",
    "SumError",
    "ThresholdError",
]


class SecureSumError(Exception):
    """Root of all errors of the secure sum.

    Args:
        message: what was expected and what came, free of secrets.
        stage: the stage of the protocol at which it happened, where there is one.
        peer: the client it is about (in whose name a bad message came, the owner of a bad share), where
            known; no blame. A client names itself for its caller's arguments and its own identity only, never
            for what a server can bring about: by its offer, the order of its messages, what they say.
    """

    def __init__(self, message: str, *, stage: Stage | None = None, peer: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.stage = stage
        self.peer = peer

    def at(self, stage: Stage | None = None, peer: int | None = None) -> SecureSumError:
        """Fill in the stage and peer that the code which raised did not know; returns ``self``."""
        if self.stage is None:
            self.stage = stage
        if self.peer is None:
            self.peer = peer
        return self

    def __str__(self) -> str:
        place = [] if self.stage is None else [f"stage {self.stage.value}"]
        if self.peer is not None:
            place.append(f"client {self.peer}")
        return f"[{', '.join(place)}] {self.message}" if place else self.message


class InputError(SecureSumError, ValueError):
    """An argument of the caller has the wrong type, shape or range."""


class RandomnessError(SecureSumError):
    """The source of randomness is unfit for secrets, or gave something else than the bytes asked for."""


class PolicyError(SecureSumError):
    """The session offered is below what this client's own policy demands; no byte of it has left."""


class ContextMismatch(SecureSumError):
    """A message was made for another session, round, model, cohort or set of adverts."""


class ProtocolError(SecureSumError):
    """The sender did what no honest party does at this stage."""


class OutOfOrder(ProtocolError):
    """A stage was skipped, repeated or restarted, or somebody spoke who is not expected to."""


class MessageError(ProtocolError):
    """Bytes that are not the canonical encoding of the message expected at this stage."""


class SignatureError(SecureSumError):
    """An Ed25519 signature does not verify under the pinned key, over bytes computed here."""


class SealError(SecureSumError):
    """A sealed share does not open: forged, altered, misdirected, or made under other adverts."""


class PublicKeyError(SecureSumError):
    """A public key is not canonical, of low order, repeated, or not the one that was sent."""


class ShareError(SecureSumError):
    """A Shamir share is malformed, or shares reconstruct something their owner did not commit to."""


class ThresholdError(SecureSumError):
    """Too few clients remain to go on; the session ends and nothing opens."""


class SumError(SecureSumError):
    """The opened words can't be a sum of the survivors' inputs; whose upload is wrong, nobody can tell."""


class EvidenceError(SecureSumError):
    """What is said to prove that a client broke the protocol proves nothing."""


class IdentityError(SecureSumError):
    """An identity, a roster or one of their files can't be used as it is."""


class StateError(SecureSumError):
    """The session counter is missing or damaged, or would go back or jump, in its number or its round."""
