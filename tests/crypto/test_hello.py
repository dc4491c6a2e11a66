"""A hello says who is at the other end, on this channel, now; and it is no other signature."""

from __future__ import annotations

import pytest

from prism_crypto.errors import IdentityError, MessageError, SignatureError
from prism_crypto.hello import check_hello, new_challenge, say_hello
from prism_crypto.keeping.identity import HELLO, Identity, Roster
from prism_crypto.stage import Stage

IDENTITIES = [Identity.generate(client) for client in range(3)]
ROSTER = Roster({identity.client_id: identity.public_key for identity in IDENTITIES})


def test_a_hello_is_good_for_its_client_federation_challenge_and_channel_alone():
    challenge = new_challenge()
    signature = say_hello(IDENTITIES[1], "mine", challenge, "node 1")
    check_hello(ROSTER, 1, signature, "mine", challenge, "node 1")
    for client, federation, asked, channel in (
        (0, "mine", challenge, "node 1"),
        (1, "min", challenge, "node 1"),
        (1, "mine", new_challenge(), "node 1"),
        (1, "mine", challenge, "node 11"),
    ):
        with pytest.raises(SignatureError):
            check_hello(ROSTER, client, signature, federation, asked, channel)
    with pytest.raises(IdentityError):
        check_hello(ROSTER, 7, signature, "mine", challenge, "node 1")


def test_a_hello_passes_for_no_message_of_a_session_and_none_for_a_hello():
    challenge = new_challenge()
    body = b"\0\0\0\4mine" + challenge + b"\0\0\0\6node 1"
    hello = say_hello(IDENTITIES[0], "mine", challenge, "node 1")
    ROSTER.verify(0, HELLO, body, hello)
    assert HELLO not in list(Stage)
    for stage in Stage:
        with pytest.raises(SignatureError):
            ROSTER.verify(0, stage, body, hello)
        with pytest.raises(SignatureError):
            ROSTER.verify(0, HELLO, body, IDENTITIES[0].sign(stage, body))


@pytest.mark.parametrize("size", [0, 31, 33, 1000])
def test_a_client_signs_no_challenge_of_another_length(size):
    with pytest.raises(MessageError, match="32 bytes"):
        say_hello(IDENTITIES[0], "mine", bytes(size), "node 1")


def test_no_two_challenges_are_alike():
    assert len({new_challenge() for _ in range(100)}) == 100
