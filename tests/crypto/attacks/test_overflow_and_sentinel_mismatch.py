"""Broken if an opened sum that cannot be a sum is taken for one.

The sentinel, the checksum and the range of the digits catch a mask that was lost, a vector counted twice,
words that are no packing, and values that carry into other coordinates. They do not catch a client that lies
within the bound, or with a checksum of what comes out; the last tests say so. Nobody is named: masks hide
whose it was.
"""

from __future__ import annotations

import numpy as np
import pytest
import reference as wire
from chosen import rehearsed
from forgery import refused
from rehearsal import Rehearsal

from prism_crypto.errors import InputError, OutOfOrder, SumError
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage

CHEAT = 2
MODES = ["active", "chosen"]


def cheated(mode: str, kind: type[wire.Client], spec: CountSpec) -> Rehearsal:
    """A session of four clients, or nine on a chosen graph, one of whom cheats."""
    session = Rehearsal(range(4), spec) if mode == "active" else rehearsed(mode, spec=spec)
    session.cheat(CHEAT, kind)
    return session


class SentinelTwo(wire.Client):
    def packed(self):
        return [*super().packed()[:-2], 2, sum(self.values)]


class SentinelZero(wire.Client):
    def packed(self):
        return [*super().packed()[:-2], 0, sum(self.values)]


class ValuesAboveTheBound(wire.Client):
    """Two in every coordinate of a sum of bits."""

    def packed(self):
        honest = self.values
        self.values, self.session.bound = [2] * len(honest), 2
        words = wire.pack(self.values, len(self.session.invited), 2)
        self.values, self.session.bound = honest, 1
        return words


class WordsBeyondTheirDigits(wire.Client):
    def packed(self):
        return [2**63] * (len(super().packed()) - 2) + [1, sum(self.values)]


class PaddingUsed(wire.Client):
    """Puts a value where there is no coordinate."""

    def packed(self):
        words = super().packed()
        base, digits = self.session.largest_total + 1, wire.word_count(1, self.session.largest_total)
        assert digits == 1
        k = 0
        while base ** (k + 1) <= 2**64:
            k += 1
        words[-3] += base ** (k - 1)
        return words


class MoreThanAllCanReachOnMost(wire.Client):
    """Adds more than all clients can reach to 94 of 100 coordinates, and to its checksum."""

    def packed(self):
        base = self.session.largest_total + 1
        self.values = [value + (base + 2) * (j % 100 < 94) for j, value in enumerate(self.values)]
        width = self.session.words - 2
        words = [0] * width
        for j, value in enumerate(self.values):
            words[j % width] += value * base ** (j // width)
        return [*(word % 2**64 for word in words), 1, sum(self.values)]


class OneInTheNextDigit(wire.Client):
    """M + 1 in the first digit, which is 1 in the next, with the checksum of what it means."""

    def packed(self):
        words, base = super().packed(), self.session.largest_total + 1
        return [words[0] + base, *words[1:-1], words[-1] + base]


class NoSelfMask(wire.Client):
    def masks(self, peers):
        return super().masks(peers)[1:]


class OnePairMaskMissing(wire.Client):
    def masks(self, peers):
        return super().masks(peers)[:-1]


class SignsSwapped(wire.Client):
    def masks(self, peers):
        own, *pairs = super().masks(peers)
        return [own, *((-sign, seed) for sign, seed in pairs)]


class MaskedTwice(wire.Client):
    def masks(self, peers):
        return super().masks(peers) * 2


KINDS = [
    SentinelTwo,
    SentinelZero,
    ValuesAboveTheBound,
    WordsBeyondTheirDigits,
    PaddingUsed,
    MoreThanAllCanReachOnMost,
    OneInTheNextDigit,
    NoSelfMask,
    OnePairMaskMissing,
    SignsSwapped,
    MaskedTwice,
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_that_cannot_be_one_does_not_open(kind, mode):
    session = cheated(mode, kind, CountSpec(28))
    for i in session.ids:
        session.values[i][0] = 1  # so that two in its place are more than all could add up to
    with refused(SumError, Stage.UNMASK, None) as caught:
        session.play()
    assert "nobody can tell whose it is" in str(caught.value)
    assert not session.server.blamed
    with refused(OutOfOrder, None, None):
        session.server.result  # noqa: B018


BAD_INPUTS = {
    "above the bound": np.full(40, 2),
    "negative": np.full(40, -1),
    "too long": np.zeros(41, dtype=int),
    "too short": np.zeros(39, dtype=int),
    "floats": np.zeros(40),
    "not a number": np.full(40, np.nan),
    "a matrix": np.zeros((40, 1), dtype=int),
    "objects": np.zeros(40, dtype=object),
    "a list": [0] * 40,
    "an unsigned value that would wrap": np.full(40, 2**64 - 1, dtype=np.uint64),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", BAD_INPUTS)
def test_a_vector_that_would_overflow_is_refused_and_not_quoted(what, mode):
    session = rehearsed(mode)
    inbox = session.play(until=Stage.SHARE)
    with refused(InputError, Stage.UPLOAD, 1) as caught:
        session.clients[1].upload(inbox[1], BAD_INPUTS[what])
    assert "18446744073709551615" not in str(caught.value)
    # Nothing has left: the same client uploads the right vector afterwards.
    for i, client in session.clients.items():
        session.server.receive(i, client.upload(inbox[i], session.values[i]))


@pytest.mark.parametrize(("clients", "bound"), [(3, 2**62), (5, 2**63 - 1), (4, 2**61)])
def test_a_session_whose_sum_could_reach_2_63_is_not_planned(clients, bound):
    with pytest.raises(InputError, match="2\\^63"):
        Rehearsal(range(clients), CountSpec(4, bound))


@pytest.mark.parametrize(("mode", "clients"), [("active", 5), ("chosen", 9)])
def test_the_largest_sum_that_fits_is_exact(mode, clients):
    bound = (2**63 - 1) // clients
    session = rehearsed(mode, spec=CountSpec(3, bound))
    session.values = {i: np.array([bound, 0, bound - i], dtype=np.int64) for i in range(clients)}
    session.play()
    less = sum(range(clients))
    assert session.server.result.counts.tolist() == [clients * bound, 0, clients * bound - less]


@pytest.mark.parametrize("mode", MODES)
def test_with_a_checksum_of_what_comes_out_a_client_may_lie_and_nothing_notices(mode):
    """Not claimed: M + 1 in one coordinate is 1 in another, the very same words."""

    class Careful(wire.Client):
        def packed(self):
            words, base = super().packed(), self.session.largest_total + 1
            return [words[0] + base, *words[1:-1], words[-1] + 1]

    session = cheated(mode, Careful, CountSpec(56))
    session.play()
    expected = session.expected(tuple(session.ids))
    expected[session.session.packing.words] += 1
    assert session.server.result.counts.tolist() == expected


@pytest.mark.parametrize("mode", MODES)
def test_within_the_bound_a_client_may_lie_and_nothing_notices(mode):
    """Not claimed: input validity. A vector of ones from a cheating client is a vector of ones."""

    class Ones(wire.Client):
        def packed(self):
            self.values = [1] * len(self.values)
            return super().packed()

    session = cheated(mode, Ones, CountSpec(40))
    session.play()
    session.values[CHEAT] = np.ones(40, dtype=int)
    assert session.server.result.counts.tolist() == session.expected(tuple(session.ids))
