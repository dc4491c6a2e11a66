"""The part to copy: a client adds one vector once, to the sum that was agreed on."""

from __future__ import annotations

import importlib.util
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from prism_crypto import CountSpec, Identity, Policy, Roster, Session, SessionCounter

PARTIES = Path(__file__).parents[2] / "examples" / "numpy_vector" / "parties.py"
SPEC = CountSpec(5, 9)


@pytest.mark.parametrize(
    ("spec", "federation", "round"),
    [(SPEC, "mine", 2), (SPEC, "other", 1), (CountSpec(5, 1), "mine", 1), (CountSpec(4, 9), "mine", 1)],
)
def test_client_joins_no_other_sum(tmp_path: Path, spec: CountSpec, federation: str, round: int) -> None:
    loading = importlib.util.spec_from_file_location("parties", PARTIES)
    assert loading is not None
    assert loading.loader is not None
    parties = importlib.util.module_from_spec(loading)
    loading.loader.exec_module(parties)
    identities = [Identity.generate(client) for client in range(3)]
    roster = Roster({identity.client_id: identity.public_key for identity in identities})
    SessionCounter.enrol(tmp_path / "counter")
    here, there = Pipe()
    there.send_bytes(
        Session.plan(spec, range(3), federation=federation, number=1, round=round, roster=roster).offer()
    )
    with pytest.raises(ValueError, match="agreed was"):
        parties.contribute(
            here,
            np.ones(5, np.int64),
            identities[0],
            roster,
            Policy(min_survivors=3, min_cohort=3),
            SessionCounter(tmp_path / "counter"),
            (SPEC, "mine", 1),
        )
    assert not there.poll()
