"""Many keystreams at once are the same as one after the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_crypto.errors import InputError
from prism_crypto.primitives.keystream import add_keystream, add_keystreams


@settings(max_examples=25, deadline=None)
@given(
    length=st.sampled_from([0, 1, 8192, 8193, 14_340, 14_341, 30_000]),
    streams=st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.booleans()), max_size=5),
)
def test_together_and_one_by_one_agree(length, streams):
    together = np.arange(length, dtype=np.uint64)
    one_by_one = together.copy()
    add_keystreams(together, streams)
    for seed, subtract in streams:
        add_keystream(one_by_one, seed, subtract=subtract)
    assert np.array_equal(together, one_by_one)


def test_more_streams_than_are_open_at_once_cancel_exactly():
    words = np.arange(20_000, dtype=np.uint64)
    seeds = [bytes([i]) * 32 for i in range(150)]
    add_keystreams(words, [(seed, False) for seed in seeds])
    assert not np.array_equal(words, np.arange(20_000, dtype=np.uint64))
    add_keystreams(words, [(seed, True) for seed in reversed(seeds)])
    assert np.array_equal(words, np.arange(20_000, dtype=np.uint64))


def test_one_bad_seed_and_nothing_is_added():
    words = np.zeros(4, dtype=np.uint64)
    with pytest.raises(InputError, match="32 bytes"):
        add_keystreams(words, [(bytes(32), False), (bytes(31), False)])
    assert not words.any()
