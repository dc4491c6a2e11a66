"""Secrets are not printed, pickled or copied, and can be overwritten."""

from __future__ import annotations

import copy
import pickle

import pytest

from prism_crypto.keeping.identity import Identity
from prism_crypto.primitives.keys import KeyPair
from prism_crypto.primitives.secret import Secret

SECRETS = [Secret(b"seventeen secrets"), KeyPair(bytes(range(32))), Identity(1, bytes(range(32)))]


@pytest.mark.parametrize("secret", SECRETS, ids=lambda s: type(s).__name__)
def test_a_secret_can_not_be_pickled_or_copied(secret):
    for refuse in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds secrets"):
            refuse(secret)


@pytest.mark.parametrize("secret", SECRETS, ids=lambda s: type(s).__name__)
def test_a_secret_does_not_show_in_repr(secret):
    shown = repr(secret) + str(secret)
    assert "seventeen" not in shown
    assert bytes(range(32)).hex() not in shown
    assert repr(bytes(range(32))) not in shown


def test_erasing_overwrites_the_bytes_in_place():
    secret = Secret(b"\xff" * 32)
    held = secret.reveal()
    secret.erase()
    assert held == bytes(32)
    assert secret.reveal() == b""


def test_an_erased_key_pair_can_do_nothing():
    from prism_crypto.errors import PublicKeyError

    pair, other = KeyPair(b"\x01" * 32), KeyPair(b"\x02" * 32)
    held = pair.private()
    pair.erase()
    assert held == bytes(32)
    with pytest.raises(PublicKeyError, match="erased"):
        pair.agree(other.public)
