"""Large cohorts: the sparse graph of the secure sum, what it costs in delta, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prism_crypto import CountSpec, SecureSumResult, Session
from prism_crypto.primitives import hybrid
from prism_privacy import Accountant, Adjacency, MaskRelease, View, verify_ledger
from prism_secure.accounting.spending import Spending
from prism_secure.audit.run_audit import audit_run
from prism_secure.config import SPARSE_ABOVE, Config, load_config
from prism_secure.errors import ConfigError
from prism_secure.reporting.report import write_report
from prism_secure.rounds import simulation as federation
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.simulation import Bits, open_securely
from prism_secure.run_folder.folder import RunFolder, read_records

from . import fake_run
from .tiny_data import TINY, write_data

CLIENTS = SPARSE_ABOVE + 1


def _cohort(*overrides: str) -> Config:
    return load_config(
        None,
        [
            f"federation.clients={CLIENTS}",
            "secure_sum.mode=semi_honest",
            "privacy.flip=0.25",
            "privacy.clip=0.5",
            *overrides,
        ],
    )


def test_sparse_secure_sum_opens_the_exact_sum() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (CLIENTS, 30), dtype=np.uint8)
    theta = np.full(30, 0.5)
    config = _cohort("privacy.colluders=10")
    opened = open_securely(config, Broadcast("f", 1, theta), [lambda row=row: row for row in bits])
    assert np.array_equal(opened.counts, bits.sum(0))
    assert len(opened.survivors) == CLIENTS
    complete = open_securely(
        _cohort("federation.clients=30"), Broadcast("f", 1, theta), [lambda row=row: row for row in bits[:30]]
    )
    # Beside the vector a client sends a few neighbours' shares, not everybody's.
    assert sum(opened.uplink_bytes.values()) / CLIENTS < sum(complete.uplink_bytes.values()) / 30


def test_an_active_run_of_many_clients_opens_the_exact_sum_and_charges_for_the_cohort_of_their_own_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With hybrid keys where there are any: all that the classical ones do, and more."""
    suite = "x25519+ml-kem-768" if hybrid.available() else "x25519"
    sums = []

    def opened(config: Config, broadcast: Broadcast, bits: list[Bits]) -> SecureSumResult:
        found = open_securely(config, broadcast, bits)
        assert np.array_equal(found.counts, np.sum([each() for each in bits], axis=0, dtype=np.int64))
        assert len(found.survivors) == CLIENTS
        sums.append(found)
        return found

    monkeypatch.setattr(federation, "open_securely", opened)
    settings = [
        *TINY,
        f"secure_sum.suite={suite}",
        f"data.folder={write_data(tmp_path / 'data', train=402)}",
        f"federation.clients={CLIENTS}",
        "federation.rounds=1",
        f"secure_sum.min_survivors={CLIENTS - 4}",
        "privacy.colluders=10",
        "privacy.record_epsilon=inf",
        "privacy.flip=0.25",
        "privacy.clip=0.5",
    ]
    config = load_config(None, settings)
    assert config.graph == "chosen"
    federation.run(config, tmp_path / "run")
    assert len(sums) == 1
    entry, *_ = verify_ledger(tmp_path / "run" / "ledger.jsonl").entries
    assert entry.cohort == config.cohort == MaskRelease(**entry.release).cohort < CLIENTS - 14
    (record,) = read_records(tmp_path / "run")
    assert record.survivors == CLIENTS
    assert audit_run(tmp_path / "run").verdict == "clean"


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_a_round_of_the_largest_federation_fits_what_a_session_binds(
    monkeypatch: pytest.MonkeyPatch, fraction: float
) -> None:
    """It is charged before it is summed, and the ids of a thousand clients are too long to bind."""
    bound: dict[int, bytes] = {}

    def planned(inputs: Any, **given: Any) -> SimpleNamespace:
        where = given["context"]
        session = Session.plan(
            CountSpec(30), range(len(inputs)), federation="f", number=1, mode="semi_honest",
            binding=where.binding,
        )  # fmt: skip
        bound[where.round] = session.binding
        return SimpleNamespace(
            counts=None, survivors=(), bits_per_coordinate=0.0, uplink_bytes={}, downlink_bytes={}
        )

    monkeypatch.setattr(federation, "secure_sum", planned)
    config = _cohort("federation.clients=10000", f"federation.client_fraction={fraction}")
    for number in (1, 2):
        open_securely(config, Broadcast("f", number, np.full(30, 0.5)), [lambda: None] * config.invited)
    assert (bound[1] == bound[2]) == (fraction == 1)


def test_a_sparse_graph_is_paid_for_out_of_delta(tmp_path: Path) -> None:
    config = _cohort("federation.rounds=1", "privacy.delta=1e-12")
    tmp_path.joinpath("run").mkdir()
    with RunFolder(tmp_path / "run", config) as folder:
        folder.start()
        with Spending(config, folder, 1000, 0) as spending:
            spent = spending.charge(1)
    sure = Accountant(delta=1e-12 - 2.0**-40)
    sure.spend(MaskRelease(0.25, 0.5, CLIENTS, dim=1000))
    free = Accountant(delta=1e-12)
    free.spend(MaskRelease(0.25, 0.5, CLIENTS, dim=1000))
    cost = [account.epsilon(View.SUM, Adjacency.ZERO_OUT) for account in (sure, free)]
    assert spent.sum_zero_out == pytest.approx(cost[0])
    assert cost[0] > cost[1]
    assert '"sum_failure":9.094947017729282e-13' in (tmp_path / "run" / "ledger.jsonl").read_text()


def test_the_complete_graph_costs_no_delta() -> None:
    assert _cohort("federation.clients=200").sum_failure == 0
    assert _cohort("secure_sum.mode=active", "secure_sum.threshold=150").sum_failure == 0
    assert math.log2(_cohort().sum_failure) == -40
    assert math.log2(_cohort("secure_sum.mode=active").sum_failure) == -40


def test_active_clients_of_a_large_cohort_count_on_what_their_own_choices_guarantee() -> None:
    active = ["secure_sum.mode=active", "privacy.colluders=10"]
    everybody = _cohort(*active)
    assert (everybody.graph, everybody.cohort) == ("chosen", CLIENTS - 10)
    some = _cohort(*active, f"secure_sum.min_survivors={CLIENTS - 6}")
    assert some.graph == "chosen"
    assert (CLIENTS - 10) / 2 < some.cohort < CLIENTS - 16
    forced = _cohort(*active, f"secure_sum.min_survivors={CLIENTS - 6}", "secure_sum.threshold=150")
    assert (forced.graph, forced.cohort) == ("complete", CLIENTS - 16)


def test_report_says_what_a_sparse_graph_costs(tmp_path: Path) -> None:
    words = "δ of ε(SUM) has paid for it"
    settings = ["privacy.clip=0.5", f"federation.clients={CLIENTS}", "secure_sum.threshold=none"]
    sparse = fake_run.make_run(tmp_path / "sparse", [*settings, "secure_sum.mode=semi_honest"], rounds=1)
    settings[-1] = "secure_sum.threshold=150"
    complete = fake_run.make_run(tmp_path / "complete", settings, rounds=1)
    pages = [write_report(folder).read_text("utf-8") for folder in (sparse, complete)]
    assert [words in page for page in pages] == [True, False]
    assert ["against a server that follows the protocol" in page for page in pages] == [True, False]
    assert "against a server that lies" in pages[1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["secure_sum.threshold=150"], "secure_sum.threshold must be none above 200 semi-honest clients"),
        (["privacy.colluders=100", "secure_sum.min_survivors=120"], "leave most of 201 clients honest"),
        (["federation.clients=10001"], "federation.clients must be from 3"),
    ],
)
def test_parameters_without_a_sparse_graph_are_refused_before_anything_runs(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        _cohort(*overrides)
    assert message in str(error.value)
