"""The n that epsilon counts on is not the server's promise: clients refuse to open less.

The accountant charges for `min_survivors - colluders` honest clients in every sum. Here the run's own server
leaves clients out, and the run's own clients, with the policies that the configuration gives them, stop it.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from prism_crypto import Stage
from prism_privacy import MaskRelease, verify_ledger
from prism_secure.config import load_config
from prism_secure.errors import RoundError
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import read_records

sys.path.insert(0, str(Path(__file__).parents[1] / "crypto"))
import forgery

from .tiny_data import TINY, write_data

SETTINGS = [
    *TINY,
    "federation.clients=7",
    "federation.rounds=1",
    "secure_sum.min_survivors=6",
    "privacy.colluders=1",
    "privacy.record_epsilon=inf",
]


@pytest.mark.parametrize(("mode", "stage"), [("active", Stage.CONFIRM), ("semi_honest", Stage.UNMASK)])
def test_clients_refuse_a_sum_of_fewer_than_the_ledger_counts_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, stage: Stage
) -> None:
    data = write_data(tmp_path / "data")
    config = load_config(None, [*SETTINGS, f"data.folder={data}", f"secure_sum.mode={mode}"])
    # Five clients' shares would open the sum, so it is the policy alone that stops it.
    assert config.threshold <= 5 < config.min_survivors == 6
    parties = importlib.import_module("prism_crypto.secure_sum")
    honest = parties._answer

    def told_of_five(party: Any, at: Stage, message: bytes, vector: Any) -> bytes:
        if at is stage:
            message = forgery.survivors(0, 1, 2, 3, 4)(message)
        answer: bytes = honest(party, at, message, vector)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(parties, "_answer", told_of_five)
        with pytest.raises(RoundError, match=rf"(?s){stage.value}.*6"):
            run(config, tmp_path / "run")
    assert read_records(tmp_path / "run") == []
    # The round was charged all the same, for the cohort that the clients insisted on.
    (entry,) = verify_ledger(tmp_path / "run" / "ledger.jsonl").entries
    assert entry.cohort == config.min_survivors - config.privacy.colluders == 5
    assert MaskRelease(**entry.release).cohort == 5

    run(config, tmp_path / "run")
    (record,) = read_records(tmp_path / "run")
    assert record.survivors == 7
    entry, end = verify_ledger(tmp_path / "run" / "ledger.jsonl").entries
    # More survivors than promised are no argument for a smaller epsilon.
    assert entry.cohort == end.cohort == 5
