"""Clients that drop out of the rounds of `prism-secure run`: the others' sum opens, and they have paid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prism_crypto import SecureSumResult
from prism_privacy import verify_ledger
from prism_secure.audit.run_audit import audit_run, summary
from prism_secure.config import Config, load_config
from prism_secure.config.invitations import dropped_out, invited
from prism_secure.errors import ConfigError
from prism_secure.rounds import simulation
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.simulation import Bits, open_securely, run
from prism_secure.run_folder.folder import read_records

from .test_simulated_sum import MEASURED
from .tiny_data import TINY, killed_in_round, outcome, same_secrets, write_data

CLIENTS, STAY = 8, 6
LOSING = ["secure_sum.dropouts=0.25", f"secure_sum.min_survivors={STAY}"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "images", train=80)


def recipe(data: Path, *overrides: str) -> Config:
    settings = [*TINY, f"data.folder={data}", f"federation.clients={CLIENTS}", *MEASURED, *LOSING]
    return load_config(None, [*settings, *overrides])


@pytest.mark.parametrize("mode", ["active", "semi_honest"])
def test_a_run_sums_those_who_stay_and_charges_for_as_many(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    seen = []

    def opened(config: Config, broadcast: Broadcast, bits: list[Bits]) -> SecureSumResult:
        found = open_securely(config, broadcast, bits)
        gone = dropped_out(config, broadcast.round)
        stayed = [client for client in invited(config, broadcast.round) if client not in gone]
        assert found.survivors == tuple(stayed)
        assert np.array_equal(found.counts, np.sum([bits[client]() for client in stayed], axis=0, dtype=int))
        seen.append(gone)
        return found

    monkeypatch.setattr(simulation, "open_securely", opened)
    config = recipe(data, f"secure_sum.mode={mode}")
    run(config, tmp_path)
    assert [len(gone) for gone in seen] == [CLIENTS - STAY] * 2
    assert seen[0] != seen[1]
    assert [record.survivors for record in read_records(tmp_path)] == [STAY, STAY]
    entries = [entry for entry in verify_ledger(tmp_path / "ledger.jsonl").entries if entry.kind == "round"]
    assert [entry.cohort for entry in entries] == [config.cohort] * 2
    assert config.cohort == STAY - config.privacy.colluders
    audit = audit_run(tmp_path)
    assert audit.verdict == "clean", summary(audit)


def test_a_killed_run_loses_the_same_clients_again(data: Path, tmp_path: Path) -> None:
    config = recipe(data)
    run(config, tmp_path / "whole")
    out = same_secrets(tmp_path / "whole", tmp_path / "killed")
    killed_in_round(2, config, out)
    run(config, out)
    assert outcome(out) == outcome(tmp_path / "whole")


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (
            ["secure_sum.min_survivors=7"],
            r"at most 6, which secure_sum\.dropouts = 0\.25 leaves of 8 clients; got 7",
        ),
        (["secure_sum.simulate=true"], r"dropouts must be 0 with secure_sum\.simulate"),
        (["secure_sum.dropouts=1"], r"dropouts"),
        (["secure_sum.dropouts=0.1"], r"dropouts must be 0 or at least 1/8, .* got 0\.1"),
    ],
)
def test_what_cannot_be_is_refused(data: Path, overrides: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        recipe(data, *overrides)


def test_some_of_those_who_are_invited_drop_out() -> None:
    half = ["federation.clients=8", "federation.client_fraction=0.5", "secure_sum.min_survivors=3"]
    config = load_config(None, [*half, "secure_sum.dropouts=0.25"])
    for number in (1, 2, 3):
        (gone,) = dropped_out(config, number)
        assert gone in invited(config, number)
