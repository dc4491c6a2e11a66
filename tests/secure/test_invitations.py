"""A fraction of the clients a round: who it is depends on nothing private; each pays for its own rounds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from prism_privacy import Accountant, Adjacency, MaskRelease, View, verify_ledger
from prism_secure.config import Config, load_config
from prism_secure.config.invitations import invited, most_participations
from prism_secure.errors import ConfigError
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.folder import client_folder, read_records

from .tiny_data import TINY, write_data


def _config(*overrides: str) -> Config:
    return load_config(None, list(overrides))


def test_nobody_takes_part_more_often_than_the_plan_says() -> None:
    config = _config("federation.clients=7", "federation.client_fraction=0.45", "federation.rounds=23")
    times = [0] * 7
    for number in range(1, 24):
        present = invited(config, number)
        assert len(set(present)) == 3
        for client in present:
            times[client] += 1
        assert max(times) == most_participations(config, number)
        assert max(times) - min(times) <= 1


def test_who_is_invited_follows_from_the_public_seed_alone() -> None:
    some = ["federation.clients=12", "federation.client_fraction=0.25", "federation.rounds=8"]
    plan = [invited(_config(*some), number) for number in range(1, 9)]
    assert len(set(plan)) > 4
    other_data = _config(*some, "data.partition=shards", "privacy.flip=0.2", "training.learning_rate=0.5")
    assert [invited(other_data, number) for number in range(1, 9)] == plan
    assert [invited(_config(*some, "federation.seed=1"), number) for number in range(1, 9)] != plan


def test_everybody_is_invited_by_default() -> None:
    assert invited(_config(), 3) == tuple(range(10))
    assert most_participations(_config(), 10) == 10


def test_the_sum_that_epsilon_assumes_is_that_over_the_invited() -> None:
    config = _config("federation.client_fraction=0.5", "privacy.colluders=1")
    assert (config.invited, config.min_survivors, config.threshold, config.cohort) == (5, 5, 4, 4)
    # The moments' sum is over all ten, before the first round.
    assert (config.moments_survivors, config.moments_threshold, config.record_cohort) == (10, 7, 9)
    fewer = _config("federation.client_fraction=0.5", "secure_sum.min_survivors=4")
    assert (fewer.cohort, fewer.moments_survivors) == (4, 9)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("federation.client_fraction=0.2", "must invite at least 3 clients"),
        ("federation.client_fraction=0", "must be in (0, 1], got 0"),
        ("federation.client_fraction=1.5", "must be in (0, 1], got 1.5"),
    ],
)
def test_impossible_fractions_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        _config(override)
    assert message in str(error.value)


def test_a_run_trains_sums_and_charges_those_who_are_invited(tmp_path: Path) -> None:
    config = load_config(
        None,
        [
            *TINY,
            f"data.folder={write_data(tmp_path / 'data')}",
            "federation.clients=6",
            "federation.client_fraction=0.5",
            "federation.rounds=3",
            "privacy.clip=1",
            "privacy.record_epsilon=inf",
            "metrics.every=3",
        ],
    )
    run(config, tmp_path / "run")
    records = read_records(tmp_path / "run")
    assert [record.survivors for record in records] == [3, 3, 3]
    # Three of six in each of three rounds: nobody more than twice.
    release = MaskRelease(
        flip=0.1, clip=1.0, space="probability", cohort=3, dim=Components(config).trainer.dimension
    )
    expected = []
    for rounds in (1, 1, 2):
        accountant = Accountant(delta=1e-5)
        accountant.spend(release, rounds=rounds)
        expected.append(accountant.epsilon(View.SUM, Adjacency.ZERO_OUT))
    assert [record.epsilon.sum_zero_out for record in records] == pytest.approx(expected)
    *entries, _ = verify_ledger(tmp_path / "run" / "ledger.jsonl").entries
    assert [entry.metrics["most_rounds"] for entry in entries] == [1, 1, 2]
    assert all(entry.epsilon[View.SUM, Adjacency.ZERO_OUT].planned == expected[-1] for entry in entries)
    # Bits of rounds that are over lie nowhere any more; who took part is remembered.
    for index in range(6):
        client = Client(index, client_folder(tmp_path / "run", index), Components(config))
        took_part = [number for number in (1, 2, 3) if index in invited(config, number)]
        federation = (tmp_path / "run" / "federation.id").read_text()
        assert list(client._outbox.rounds(federation)) == took_part
    uploads = list((tmp_path / "run" / "clients").glob("*/outbox/*/*.upload"))
    assert len(uploads) == 9
    assert max(path.stat().st_size for path in uploads) < 100


def test_a_kill_after_a_checkpoint_leaves_no_bits_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prism_secure.rounds import simulation as federation

    config = load_config(
        None,
        [
            *TINY,
            f"data.folder={write_data(tmp_path / 'data')}",
            "federation.clients=6",
            "federation.client_fraction=0.5",
            "privacy.record_epsilon=inf",
            "metrics.every=9",
        ],
    )
    forget = federation._forget_uploads

    def killed(finished: int, *others: object) -> None:
        if finished == 1:
            raise KeyboardInterrupt
        forget(finished, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(federation, "_forget_uploads", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run")
    uploads = tmp_path / "run" / "clients"
    sizes = [path.stat().st_size for path in uploads.glob("*/outbox/*/*.upload")]
    assert min(sizes) > 100
    monkeypatch.setattr(federation, "_forget_uploads", forget)
    run(config, tmp_path / "run")
    assert max(path.stat().st_size for path in uploads.glob("*/outbox/*/*.upload")) < 100


def test_epsilon_is_planned_for_the_client_that_is_in_most_rounds(tmp_path: Path) -> None:
    few = ["federation.rounds=4", "privacy.clip=1", "privacy.record_epsilon=inf", "federation.clients=9"]
    half, whole = _config(*few, "federation.client_fraction=0.34"), _config(*few)
    assert most_participations(half, 4) == 2
    assert math.isclose(half.cohort * 3, whole.cohort)
