"""Only sources made for secrets are accepted."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

from prism_crypto.errors import RandomnessError
from prism_crypto.primitives.randomness import checked_rng, draw


@pytest.mark.parametrize(
    "unfit",
    [
        np.random.default_rng(0),
        np.random.default_rng(0).bytes,
        np.random.RandomState(0).bytes,
        np.random.PCG64(0),
        random.Random(0).randbytes,
        random.Random(0),
        7,
        None,
    ],
)
def test_statistical_generators_are_refused(unfit):
    with pytest.raises(RandomnessError):
        checked_rng(unfit)


@pytest.mark.parametrize("fit", [os.urandom, random.SystemRandom().randbytes, lambda count: bytes(count)])
def test_other_callables_are_accepted(fit):
    assert checked_rng(fit) is fit


@pytest.mark.parametrize("answer", [b"", b"12345", bytearray(4), "1234", None])
def test_a_source_that_gives_something_else_is_caught(answer):
    with pytest.raises(RandomnessError):
        draw(lambda count: answer, 4)
    assert draw(lambda count: b"1234", 4) == b"1234"
