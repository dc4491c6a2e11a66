"""A signed hello: which client of the roster is at the other end of a connection.

Before a server can invite a sample it has to know who is there. A client answers a fresh challenge with a
signature over it, the federation and the channel on which it was asked, so that an answer can be neither kept
for later nor passed on to another server's channel. It says who speaks, and nothing else: what a client takes
part in is decided by its own policy when a session is offered.

>>> identity = Identity.generate(3)
>>> roster = Roster({3: identity.public_key})
>>> challenge = new_challenge()
>>> check_hello(roster, 3, say_hello(identity, "demo", challenge, "node 7"), "demo", challenge, "node 7")
"""

from __future__ import annotations

import os

from prism_crypto.errors import MessageError
from prism_crypto.keeping.identity import HELLO, Identity, Roster
from prism_crypto.primitives.context import variable
from prism_crypto.primitives.randomness import Rng, checked_rng, draw

__all__ = ["check_hello", "new_challenge", "say_hello"]

_CHALLENGE_BYTES = 32


def new_challenge(rng: Rng = os.urandom) -> bytes:
    """What a client is to sign: 32 random bytes, for one hello."""
    return draw(checked_rng(rng), _CHALLENGE_BYTES)


def say_hello(identity: Identity, federation: str, challenge: bytes, channel: str) -> bytes:
    """A client's answer: a signature, 64 bytes.

    Args:
        federation: its name, as this client was enrolled.
        challenge: the server's.
        channel: what both ends call this connection, such as the address that the client has dialled.

    Raises:
        MessageError: that is no challenge.
    """
    return identity.sign(HELLO, _body(federation, challenge, channel))


def check_hello(
    roster: Roster, client_id: int, signature: bytes, federation: str, challenge: bytes, channel: str
) -> None:
    """Return if this client, and nobody else, has answered this challenge on this channel.

    Raises:
        SignatureError: somebody else has.
        IdentityError: the roster does not know the client.
    """
    roster.verify(client_id, HELLO, _body(federation, challenge, channel), signature)


def _body(federation: str, challenge: bytes, channel: str) -> bytes:
    if len(challenge) != _CHALLENGE_BYTES:
        raise MessageError(f"a challenge is {_CHALLENGE_BYTES} bytes, not {len(challenge)}")
    return variable(federation.encode()) + challenge + variable(channel.encode())
