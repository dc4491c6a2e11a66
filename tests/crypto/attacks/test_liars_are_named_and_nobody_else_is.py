"""Broken if a client that lies goes unnamed, an innocent one is named, or a liar costs more than one session.

`liars.py`, run by hand, plays ten thousand such sessions.
"""

from __future__ import annotations

import random

import pytest
from liars import DEVIATIONS, play


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", sorted(DEVIATIONS))
def test_one_liar_of_every_kind(name, seed):
    assert play((name,), seed) in ("opened", "opened in the next session")


@pytest.mark.parametrize("seed", range(1000, 1030))
def test_two_liars_at_once(seed):
    draw = random.Random(seed)
    play((draw.choice(sorted(DEVIATIONS)), draw.choice(sorted(DEVIATIONS))), seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2400))
def test_many_sessions_of_two_liars(seed):
    draw = random.Random(seed)
    play((draw.choice(sorted(DEVIATIONS)), draw.choice(sorted(DEVIATIONS))), seed)
