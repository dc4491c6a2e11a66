"""A whole run in small: what it writes, that a kill changes nothing, that only sums reach the server."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from prism_crypto import SecureSumResult
from prism_privacy import verify_ledger
from prism_secure.config import Config, load_config
from prism_secure.errors import ConfigError, RoundError, RunFolderError
from prism_secure.model.model_file import read_model
from prism_secure.rounds import simulation as federation
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.simulation import Bits, open_securely, run
from prism_secure.rounds.workers import Workers
from prism_secure.run_folder.folder import read_records
from prism_secure.run_folder.records import RoundRecord

from .tiny_data import killed_while_uploading, same_secrets, small_images

TINY = [
    "federation.clients=4",
    "federation.workers=1",
    "federation.rounds=3",
    "federation.local_steps=2",
    "model.width=4",
    "model.latent=8",
    "model.image_size=8",
    "data.source=idx",
    'features.extractors=["fourier"]',
    "training.batch_size=20",
    "metrics.samples=200",
    "metrics.utility=off",
    "privacy.flip=0.1",
    "privacy.record_epsilon=inf",  # test_record_release.py has runs with a record-level claim
]


def tiny(*overrides: str) -> Config:
    return load_config(None, [*TINY, f"data.folder={small_images()}", *overrides])


def _outcome(folder: Path) -> tuple[bytes, bytes, list[tuple[int, float]]]:
    """What two runs of one federation must have in common, bit for bit."""
    rounds = [(record.round, record.quality.fid) for record in read_records(folder) if record.quality]
    checkpoint = (folder / "checkpoint" / "server.safetensors").read_bytes()
    return (folder / "model.safetensors").read_bytes(), checkpoint, rounds


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of the tiny recipe."""
    folder = tmp_path_factory.mktemp("run")
    run(tiny(), folder)
    return folder


def test_run_folder_holds_everything_that_it_promises(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    promised = {
        "config.toml",
        "ledger.jsonl",
        "metrics.jsonl",
        "checkpoint",
        "samples",
        "report.html",
        "DONE",
    }
    assert promised <= names
    assert "FAILED" not in names
    assert len(list((finished / "samples").glob("*.png"))) == 3
    records = read_records(finished)
    assert [record.round for record in records] == [1, 2, 3]
    assert all(record.survivors == 4 for record in records)
    epsilons = [record.epsilon.sum_zero_out for record in records]
    assert epsilons == sorted(epsilons)
    assert all(record.epsilon.sum_zero_out <= record.epsilon.upload_zero_out for record in records)


def test_round_that_moves_nothing_is_told_from_one_that_does(finished: Path, tmp_path: Path) -> None:
    assert all(record.changed for record in read_records(finished)[:1])
    run(tiny("aggregation.lambda_start=0", "aggregation.lambda_end=0"), tmp_path / "still")
    records = read_records(tmp_path / "still")
    assert [record.changed for record in records] == [0, 0, 0]
    assert "Rounds that changed nothing: 1, 2, 3." in (tmp_path / "still" / "report.html").read_text("utf-8")


def test_secrets_are_private_and_stay_out_of_what_is_shown(finished: Path) -> None:
    for secret in [*finished.glob("clients/*/coins.key"), finished / "ledger.key"]:
        assert secret.stat().st_mode & 0o077 == 0
        digits = max(secret.read_text("ascii").split(), key=len)
        assert len(digits) == 64
        for name in ("config.toml", "ledger.jsonl", "metrics.jsonl", "environment.json", "report.html"):
            assert digits not in (finished / name).read_text("utf-8")


def test_deployed_model_is_a_mask_and_generates_without_the_federation(finished: Path) -> None:
    generator = read_model(finished / "model.safetensors")
    images, labels = generator.generate(20, seed=1)
    assert images.shape == (20, 1, 8, 8)
    assert labels is not None
    assert float(images.std()) > 0


def test_plain_sum_of_the_same_bits_gives_the_same_model(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secure sum changes who sees what, and nothing else."""

    def plain(config: Config, broadcast: Broadcast, bits: Sequence[Bits]) -> SecureSumResult:
        counts = np.sum([one() for one in bits], axis=0, dtype=np.int64)
        return SecureSumResult(
            counts=counts,
            survivors=tuple(range(len(bits))),
            uplink_bytes={},
            downlink_bytes={},
            bits_per_coordinate=1.0,
            words=0,
        )

    folder = same_secrets(finished, tmp_path)
    monkeypatch.setattr(federation, "open_securely", plain)
    run(tiny(), folder)
    assert _outcome(folder) == _outcome(finished)


def test_number_of_workers_does_not_change_the_model(finished: Path, tmp_path: Path) -> None:
    folder = same_secrets(finished, tmp_path)
    run(tiny("federation.workers=2"), folder)
    assert _outcome(folder) == _outcome(finished)


def test_other_coins_give_another_model(finished: Path, tmp_path: Path) -> None:
    """Without this the equalities above would say nothing about coins."""
    run(tiny(), tmp_path / "run")
    assert _outcome(tmp_path / "run")[0] != _outcome(finished)[0]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_killed_run_continues_to_the_same_model_and_charges_no_round_twice(
    finished: Path, tmp_path: Path, number: int
) -> None:
    """kill -9, when a round's charge is written and its uploads are being made."""
    folder = same_secrets(finished, tmp_path)
    killed_while_uploading(number, tiny(), folder)
    ledger = folder / "ledger.jsonl"
    assert len(ledger.read_bytes().splitlines()) == 1 + number, "the header, and this round too"
    assert len(list(folder.glob("clients/*/outbox/*"))) == (1 if number == 1 else 4)
    assert not (folder / "DONE").exists()

    run(tiny(), folder)
    assert _outcome(folder) == _outcome(finished)
    lines = ledger.read_bytes().splitlines()
    assert len(lines) == len((finished / "ledger.jsonl").read_bytes().splitlines())
    assert [record.round for record in read_records(folder)] == [1, 2, 3]


def test_interruption_keeps_what_was_finished(tmp_path: Path, finished: Path) -> None:
    folder = same_secrets(finished, tmp_path)

    class Impatient:
        def started(self, rounds: int, finished: int, work: int) -> None: ...
        def note(self, text: str) -> None: ...
        def worked(self) -> None: ...

        def round_finished(self, record: RoundRecord) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny(), folder, listener=Impatient())
    assert [record.round for record in read_records(folder)] == [1]
    assert not (folder / "DONE").exists()
    run(tiny(), folder)
    assert _outcome(folder) == _outcome(finished)


def test_failed_round_leaves_its_reason_and_can_be_resumed(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = same_secrets(finished, tmp_path)

    def broken(config: Config, broadcast: Broadcast, bits: Sequence[Bits]) -> SecureSumResult:
        if broadcast.round == 2:
            raise RoundError("the sum did not open")
        return open_securely(config, broadcast, bits)

    with monkeypatch.context() as patch:
        patch.setattr(federation, "open_securely", broken)
        with pytest.raises(RoundError):
            run(tiny(), folder)
    assert (folder / "FAILED").read_text("utf-8") == "the sum did not open\n"
    run(tiny(), folder)
    assert not (folder / "FAILED").exists()
    assert _outcome(folder) == _outcome(finished)


def test_budget_shortens_the_plan_before_the_first_round(finished: Path, tmp_path: Path) -> None:
    second = read_records(finished)[1].epsilon.sum_zero_out
    run(tiny(f"budget.epsilon={second * 1.001}"), tmp_path / "run")
    records = read_records(tmp_path / "run")
    assert [record.round for record in records] == [1, 2]
    assert records[-1].epsilon.sum_zero_out == second
    assert "2 of 3 rounds" in (tmp_path / "run" / "DONE").read_text("utf-8")


def test_budget_below_one_round_says_what_a_round_costs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"one costs ε\(SUM\)") as refused:
        run(tiny("budget.epsilon=0.5"), tmp_path / "run")
    assert not (tmp_path / "run").exists(), "a refusal before round 1 leaves no folder"
    advised = re.search(r"(privacy\.clip=\S+) keeps all 3 rounds", str(refused.value))
    assert advised is not None
    run(tiny("budget.epsilon=0.5", advised[1]), tmp_path / "run")
    last = read_records(tmp_path / "run")[-1]
    assert last.round == 3
    assert last.epsilon.sum_zero_out <= 0.5


@pytest.mark.parametrize(
    "overrides",
    [
        ["mask.mode=bernoulli", "training.averaging=faithful", "aggregation.rule=sampled"],
        ["mask.mode=topk", "mask.density=0.3", "mask.initial=uniform", "mask.spread=0.1"],
        ["aggregation.rule=kalman", "aggregation.space=logit"],
        ["model.conditional=false", "model.weights=kaiming_normal"],
        ["data.partition=shards"],
        ["data.partition=dirichlet"],
        ["privacy.clip=1.0"],
        ["privacy.clip=4.0", "privacy.clip_space=score"],
        ["privacy.flip=0"],
        ["secure_sum.mode=semi_honest", "privacy.colluders=1"],
        ["secure_sum.min_survivors=3"],
    ],
)
def test_every_way_to_train_runs(tmp_path: Path, overrides: list[str]) -> None:
    run(tiny("federation.rounds=1", *overrides), tmp_path / "run")
    (record,) = read_records(tmp_path / "run")
    assert record.quality is not None
    assert np.isfinite(record.quality.fid)
    assert record.bits_per_parameter < 64


@pytest.mark.parametrize("loss", ["gone", "rolled back", "of another run"])
def test_resume_refuses_a_ledger_that_is_not_of_its_rounds(finished: Path, tmp_path: Path, loss: str) -> None:
    """Otherwise rounds would be charged anew, to a ledger that says that there were fewer."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "DONE").unlink()
    ledger, head = folder / "ledger.jsonl", folder / "ledger.jsonl.head"
    if loss == "gone":
        ledger.unlink()
    elif loss == "rolled back":
        other = tmp_path / "short"
        run(tiny("federation.rounds=1"), _keyed(finished, other))
        shutil.copy2(other / "ledger.jsonl", ledger)
        shutil.copy2(other / "ledger.jsonl.head", head)
    else:
        other = tmp_path / "other"
        run(tiny("privacy.flip=0.2"), _keyed(finished, other))
        shutil.copy2(other / "ledger.jsonl", ledger)
        shutil.copy2(other / "ledger.jsonl.head", head)
    before = {path: path.read_bytes() for path in (ledger, head) if path.exists()}
    with pytest.raises(RunFolderError, match=r"ledger\.jsonl"):
        run(tiny(), folder)
    assert {path: path.read_bytes() for path in (ledger, head) if path.exists()} == before


def test_last_line_signs_the_deployed_model_and_is_written_once(finished: Path, tmp_path: Path) -> None:
    """Also where a kill came between it and DONE."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    report = verify_ledger(folder / "ledger.jsonl")
    assert report.complete
    with safe_open(folder / "model.safetensors", framework="np") as file:
        packed, header = file.get_tensor("mask"), json.loads(file.metadata()["prism-secure/v1/model"])
    *_, last, end = report.entries
    assert end.metrics == {
        "architecture": header["architecture"],
        "seed": header["seed"],
        "mask_sha256": hashlib.sha256(packed.tobytes()).hexdigest(),
        "ended": "",
    }
    assert {cell: spent.to_date for cell, spent in end.epsilon.items()} == {
        cell: spent.to_date for cell, spent in last.epsilon.items()
    }
    (folder / "DONE").unlink()
    before = (folder / "ledger.jsonl").read_bytes()
    run(tiny(), folder)
    assert (folder / "DONE").read_text() == (finished / "DONE").read_text()
    assert (folder / "ledger.jsonl").read_bytes() == before


def _keyed(source: Path, target: Path) -> Path:
    """A new run folder whose ledger is signed by the same key, in the same federation."""
    target.mkdir()
    shutil.copy2(source / "ledger.key", target)
    shutil.copy2(source / "federation.id", target)
    return target


def test_worker_that_is_killed_is_named_and_the_run_continues(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = same_secrets(finished, tmp_path)

    def dying(config: Config, broadcast: Broadcast, bits: Sequence[Bits]) -> SecureSumResult:
        for child in multiprocessing.active_children():
            child.kill()
        return open_securely(config, broadcast, bits)

    with monkeypatch.context() as patch:
        patch.setattr(federation, "open_securely", dying)
        with pytest.raises(RoundError, match="worker process died"):
            run(tiny("federation.workers=2"), folder)
    run(tiny(), folder)
    assert _outcome(folder) == _outcome(finished)


@pytest.mark.parametrize("error", [EOFError("unexpected EOF"), ConnectionRefusedError(111, "refused")])
def test_the_process_that_starts_workers_is_named_like_them_where_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def submit(*_: object) -> None:
        raise error

    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit)
    with Workers(Components(tiny("federation.workers=2")), tmp_path) as workers:
        with pytest.raises(RoundError, match="worker process died"):
            list(workers.prepare("f"))
        with pytest.raises(RoundError, match="worker process died"):
            workers.evaluate(np.ones(8, bool), tmp_path / "round-0001.png")


def test_scores_that_overflow_are_sent_as_the_public_point(finished: Path) -> None:
    """An error, or NaN in the bits' law, would tell the server something about the client's data."""
    client = Client(0, finished / "clients" / "00", Components(tiny("privacy.flip=0")))
    broadcast = Broadcast("somewhere", 1, np.full(1000, 0.01))
    scores = torch.full((1000,), float("nan"))
    bits = client._release(scores, broadcast)
    assert bits.mean() < 0.05
