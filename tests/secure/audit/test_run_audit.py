"""Every planted bug of a run folder is found, by the check that is there for it; honest folders are clean.

Nothing is random in what is found: a bug changes a figure, a signature, a hash, a file's mode or a count.
"""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import math
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import msgspec
import numpy as np
import pytest
import tomli_w
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from prism_crypto import SecureSumResult
from prism_privacy import CoinSecret, Ledger, LedgerEntry, LedgerKey, Outbox, View, verify_ledger
from prism_privacy.errors import InvalidParameter
from prism_secure.audit.budget import audit_budget
from prism_secure.audit.budget_file import Limit
from prism_secure.audit.checks import coins, model
from prism_secure.audit.findings import Recomputed
from prism_secure.audit.run_audit import RunAudit, audit_run, summary
from prism_secure.audit.spent_ledgers import read_ledgers
from prism_secure.cli import main
from prism_secure.config import Config, load_config
from prism_secure.config.sections import MaskMode
from prism_secure.errors import RoundError
from prism_secure.rounds import simulation as federation
from prism_secure.rounds.behaviours.train import VotingServer
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.client import Client
from prism_secure.rounds.server import Server
from prism_secure.rounds.simulation import Bits, open_securely
from prism_secure.run_folder.environment import read_environment
from prism_secure.run_folder.folder import read_records
from prism_secure.run_folder.records import encode
from prism_secure.run_folder.run import Run
from prism_secure.sweep.composition import compose
from prism_secure.wording import format_epsilon

from .tampering import (
    accounted,
    caught_by,
    copy,
    edited,
    lines_of,
    make,
    rewrite,
    smaller,
    texts,
    with_zero_out_for_replace_one,
    write_lines,
)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of three rounds, cohort 3."""
    return make(tmp_path_factory.mktemp("honest") / "run")


@pytest.fixture
def spoiled(honest: Path, tmp_path: Path) -> Path:
    """A copy of it for one test to spoil."""
    return copy(honest, tmp_path / "run")


RECOMPUTED = (
    "ε recomputed by other formulas (δ = 1e-5; a ledger that states more than 1% less is a finding): "
)


def audited(folder: Path) -> RunAudit:
    return audit_run(folder, replay=False)


def test_honest_run_is_clean_and_its_page_and_json_say_so(
    honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, data = tmp_path / "a.html", tmp_path / "a.json"
    assert main(["audit", "run", str(honest), "--html", str(page), "--json", str(data)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-3].startswith("clean")
    text = page.read_text("utf-8")
    assert "No finding." in text
    assert "://" not in text
    kept = json.loads(data.read_text("utf-8"))
    assert kept["verdict"] == "clean"
    assert json.loads((honest / "audit.json").read_text("utf-8")) == kept
    outcomes = {answer["name"]: answer["outcome"] for answer in kept["answers"]}
    assert outcomes.pop("record epsilon") == "skipped"
    assert set(outcomes.values()) == {"passed"}
    assert len(kept["lower_bounds"]) == 4
    stated = {(cell["view"], cell["adjacency"]): cell["ledger"] for cell in kept["epsilons"]}
    oracle = {(cell["view"], cell["adjacency"]): format_epsilon(cell["oracle"]) for cell in kept["epsilons"]}
    assert len(oracle) == 4
    assert told[-2] == RECOMPUTED + "; ".join(
        f"client, {which}: SUM {oracle['sum', which]}, UPLOAD {oracle['upload', which]}"
        for which in ("zero_out", "replace_one")
    )
    for bound in kept["lower_bounds"]:
        assert 0 < bound["epsilon"] < stated[bound["view"], bound["adjacency"]]


@pytest.mark.parametrize(
    ("record", "views", "said"),
    [
        ("image", {"upload": 82.4241, "sum": 1.2091}, "image, swap: SUM 1.21, UPLOAD 82.5"),
        ("person", {"": 1.9991}, "person, swap: 2.00"),
        ("image", {"sum": math.inf}, "image, swap: SUM inf"),
    ],
)
def test_the_last_line_says_what_one_record_has_spent_as_recomputed(
    record: str, views: dict[str, float], said: str
) -> None:
    cells = [
        Recomputed(unit="record", view=view, adjacency="swap", rounds=3, ledger=0.1, oracle=epsilon)
        for view, epsilon in views.items()
    ]
    found = {"name": "run", "verdict": "clean", "answers": [], "lower_bounds": [], "record": record}
    assert summary(RunAudit(**found, epsilons=cells, delta=1e-5))[-1] == RECOMPUTED + said
    assert summary(RunAudit(**found, epsilons=[], delta=None))[-1].startswith("clean")


# The ledger's own protection.


def test_edited_ledger_line_is_found(spoiled: Path) -> None:
    lines = lines_of(spoiled)
    lines[2] = edited(lines[2], ["epsilon", "sum", "zero_out", "to_date"], 0.1)
    write_lines(spoiled, lines)
    audit = audited(spoiled)
    assert "chain" in caught_by(audit)
    assert "line 3" in texts(audit)


@pytest.mark.parametrize("gone", [1, 2, 3, 4])
def test_removed_ledger_line_is_found(spoiled: Path, gone: int) -> None:
    lines = lines_of(spoiled)
    del lines[gone]
    write_lines(spoiled, lines)
    assert "chain" in caught_by(audited(spoiled))


def test_reordered_ledger_lines_are_found(spoiled: Path) -> None:
    lines = lines_of(spoiled)
    lines[1], lines[2] = lines[2], lines[1]
    write_lines(spoiled, lines)
    assert "chain" in caught_by(audited(spoiled))


def test_ledger_signed_anew_with_another_key_is_found(spoiled: Path) -> None:
    """All of it, chained and consistent: only the key is not the run's."""
    rewrite(spoiled, lambda entry: {}, key=LedgerKey())
    assert caught_by(audited(spoiled)) == {"writer"}


def test_ledger_signed_anew_is_found_by_the_key_alone(spoiled: Path, honest: Path) -> None:
    """Whoever took the run's key file away as well is found by who knows the key."""
    known = LedgerKey.load(honest / "ledger.key").public_key.hex()
    (spoiled / "ledger.key").unlink()
    rewrite(spoiled, lambda entry: {}, key=LedgerKey())
    unpinned = audited(spoiled)
    assert caught_by(unpinned) == set()
    notes = [found.text for answer in unpinned.answers for found in answer.findings]
    assert any("names its own key" in text for text in notes)
    assert "chain" in caught_by(audit_run(spoiled, key=known, replay=False))


def test_one_line_with_a_forged_signature_is_found(spoiled: Path) -> None:
    lines = lines_of(spoiled)
    forged = json.loads(lines[3])
    forged["signature"] = LedgerKey().sign(b"anything").hex()
    lines[3] = json.dumps(forged, sort_keys=True, separators=(",", ":")).encode()
    write_lines(spoiled, lines)
    assert "chain" in caught_by(audited(spoiled))


def test_ledger_cut_short_together_with_its_head_could_not_be_checked(spoiled: Path) -> None:
    """The lines that are left are in order; metrics.jsonl shows that there was one more round."""
    write_lines(spoiled, lines_of(spoiled)[:-2])
    (spoiled / "ledger.jsonl.head").unlink()
    assert caught_by(audited(spoiled)) == {"rounds"}


# Epsilons that are too small, in ledgers that a wrong program chained and signed as it should.


@pytest.mark.parametrize(("cohort", "words"), [(4, "colluders as honest"), (5, "clients that may drop out")])
def test_cohort_that_counts_colluders_or_dropouts_is_found(spoiled: Path, cohort: int, words: str) -> None:
    wrong = accounted(rounds=[1, 2, 3], cohort=cohort)
    rewrite(spoiled, lambda entry: next(wrong) | {"cohort": cohort})
    audit = audited(spoiled)
    assert caught_by(audit) == {"cohort"}
    assert words in texts(audit)
    assert "guarantee 3" in texts(audit)


@pytest.mark.parametrize("cohort", [4, 5])
def test_epsilon_of_a_larger_cohort_than_the_ledger_names_is_found(spoiled: Path, cohort: int) -> None:
    """The release is written as it should be, and accounted as if there were more honest clients."""
    wrong = accounted(rounds=[1, 2, 3], cohort=cohort)
    rewrite(spoiled, lambda entry: {"epsilon": next(wrong)["epsilon"]})
    audit = audited(spoiled)
    assert caught_by(audit) == {"client epsilon"}
    assert f"a cohort of {cohort} instead of 3" in texts(audit)


def test_replace_one_accounted_with_the_clip_instead_of_twice_the_clip_is_found(spoiled: Path) -> None:
    rewrite(spoiled, with_zero_out_for_replace_one)
    audit = audited(spoiled)
    assert caught_by(audit) == {"client epsilon"}
    assert "a move of C where replace_one allows 2C" in texts(audit)


def test_epsilon_composed_over_too_few_rounds_is_found(spoiled: Path) -> None:
    wrong = accounted(rounds=[1, 1, 2])
    rewrite(spoiled, lambda entry: {"epsilon": next(wrong)["epsilon"]})
    audit = audited(spoiled)
    assert caught_by(audit) == {"client epsilon"}
    assert "it is what 1 of the 2 rounds cost" in texts(audit)


def test_plan_for_fewer_rounds_than_configured_is_found(spoiled: Path) -> None:
    wrong = accounted(rounds=[1, 1, 1], planned=1)
    planned = next(wrong)["epsilon"]
    right = accounted(rounds=[1, 2, 3])

    def cheaper(entry: object) -> dict[str, object]:
        table = next(right)["epsilon"]
        for cell, spent in table.items():
            object.__setattr__(spent, "planned", planned[cell].planned)
        return {"epsilon": table}

    rewrite(spoiled, cheaper)
    audit = audited(spoiled)
    assert caught_by(audit) == {"client epsilon"}
    assert "as planned" in texts(audit)


@pytest.mark.parametrize(("factor", "found"), [(0.985, True), (1.0, False), (1.04, False)])
def test_epsilon_that_is_too_small_by_more_than_one_percent_is_found(
    spoiled: Path, factor: float, found: bool
) -> None:
    rewrite(spoiled, lambda entry: smaller(entry, factor))
    assert caught_by(audited(spoiled)) == ({"client epsilon"} if found else set())


def test_epsilon_that_is_much_too_large_is_a_note_and_no_finding(spoiled: Path) -> None:
    rewrite(spoiled, lambda entry: smaller(entry, 1.5))
    audit = audited(spoiled)
    assert audit.verdict == "clean"
    (answer,) = [answer for answer in audit.answers if answer.name == "client epsilon"]
    assert answer.outcome == "note"


def test_metrics_that_show_less_than_the_ledger_are_found(spoiled: Path) -> None:
    path = spoiled / "metrics.jsonl"
    lines = path.read_text("utf-8").splitlines()
    record = json.loads(lines[1])
    record["epsilon"]["sum_zero_out"] /= 2
    lines[1] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    assert caught_by(audited(spoiled)) == {"metrics"}


# Rounds that were never charged.


def test_round_that_was_not_charged_is_found(spoiled: Path) -> None:
    rewrite(spoiled, lambda entry: None if entry.round == 3 else {})
    assert caught_by(audited(spoiled)) == {"rounds"}


def test_aborted_session_that_was_not_charged_is_found(spoiled: Path) -> None:
    """Its uploads left; only the clients' outboxes remember them."""
    name = (spoiled / "federation.id").read_text("ascii")
    Outbox(spoiled / "clients" / "02" / "outbox").keep(name, 4, b"bits of a session that did not open")
    audit = audited(spoiled)
    assert caught_by(audit) == {"rounds"}
    assert "sent 4 uploads" in texts(audit)


def test_round_that_failed_and_was_charged_is_clean_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: Config, broadcast: Broadcast, bits: Sequence[Bits]) -> SecureSumResult:
        if broadcast.round == 2:
            raise RoundError("the sum did not open")
        return open_securely(config, broadcast, bits)

    monkeypatch.setattr(federation, "open_securely", broken)
    with pytest.raises(RoundError):
        make(tmp_path / "run")
    audit = audited(tmp_path / "run")
    assert audit.verdict == "clean"
    outcomes = {answer.name: answer.outcome for answer in audit.answers}
    assert outcomes["rounds"] == outcomes["ending"] == "note"


def test_rounds_that_invite_some_clients_are_charged_to_the_client_that_was_in_most(tmp_path: Path) -> None:
    """Three of six in each of three rounds: nobody more than twice; so say those who add ledgers up."""
    some = ["federation.clients=6", "federation.client_fraction=0.5", "secure_sum.min_survivors=3"]
    folder = make(tmp_path / "run", *some, "privacy.colluders=0")
    audit = audit_run(folder)
    assert audit.verdict == "clean", texts(audit)
    assert [cell.rounds for cell in audit.epsilons] == [2] * 4
    last = read_records(folder)[-1].epsilon
    (account,) = audit_budget(
        read_ledgers([folder], (), tmp_path),
        [Limit(unit="client", view="sum", adjacency="zero_out", epsilon=1e3, delta=1e-5)],
    )
    assert account.epsilon == compose([Run.open(folder)]).epsilon.sum_zero_out == last.sum_zero_out

    wrong = accounted(rounds=[1, 1, 1], planned=2)
    rewrite(folder, lambda entry: {"epsilon": next(wrong)["epsilon"], "metrics": {"most_rounds": 1}})
    audit = audited(folder)
    assert caught_by(audit) == {"rounds", "client epsilon"}
    assert "by the invitations of config.toml it is 2" in texts(audit)


# Files that do not belong together.


def test_swapped_mask_is_found(spoiled: Path) -> None:
    path = spoiled / "model.safetensors"
    with safe_open(path, framework="np") as file:
        header, mask = file.metadata(), file.get_tensor("mask").copy()
    mask[7] ^= 0b100
    save_file({"mask": mask}, path, metadata=header)
    audit = audited(spoiled)
    assert caught_by(audit) == {"model"}
    signed, recomputed = audit.findings
    assert signed.evidence["signed"] == recomputed.evidence["recomputed_sha256"]
    assert recomputed.evidence["different_bits"] == 1


def test_mask_and_checkpoint_exchanged_for_matching_ones_are_found_by_the_signed_hash(spoiled: Path) -> None:
    """Those of another run of the same weights: they agree with each other, and not with what was signed."""
    model, checkpoint = spoiled / "model.safetensors", spoiled / "checkpoint" / "server.safetensors"
    arrays = load_file(checkpoint)
    arrays["theta"] = 1 - arrays["theta"]
    save_file(arrays, checkpoint)
    with safe_open(model, framework="np") as file:
        header = file.metadata()
    save_file({"mask": np.packbits(arrays["theta"] > 0.5)}, model, metadata=header)
    audit = audited(spoiled)
    assert caught_by(audit) == {"model"}
    (found,) = audit.findings
    assert "the ledger's last line" in found.text


@pytest.mark.parametrize(("name", "other"), [("seed", 1), ("architecture", "kaiming_normal")])
def test_same_mask_over_other_weights_is_found(spoiled: Path, name: str, other: int | str) -> None:
    path = spoiled / "model.safetensors"
    with safe_open(path, framework="np") as file:
        ((key, text),) = file.metadata().items()
        mask, header = file.get_tensor("mask"), json.loads(text)
    if name == "seed":
        header["seed"] += other
    else:
        header["architecture"]["weights"] = other
    save_file({"mask": mask}, path, metadata={key: json.dumps(header)})
    audit = audited(spoiled)
    assert caught_by(audit) == {"model"}
    assert f"model.safetensors has another {name} than the ledger's last line names." in texts(audit)


@pytest.mark.parametrize(
    ("kept", "outcome"), [(("mask_sha256", "ended"), "unchecked"), (("ended",), "finding")]
)
def test_last_line_that_does_not_sign_the_whole_model_is_seen(
    spoiled: Path, kept: tuple[str, ...], outcome: str
) -> None:
    """Older programs signed the mask alone; none signed nothing."""
    with Ledger.create(
        spoiled / "older", LedgerKey.load(spoiled / "ledger.key"), federation="f", clients=5
    ) as older:
        for entry in verify_ledger(spoiled / "ledger.jsonl").entries:
            told = {name: entry.metrics[name] for name in kept if name in entry.metrics}
            older.append(
                kind=entry.kind,
                round=entry.round,
                release=entry.release,
                colluders=entry.colluders,
                delta=entry.delta,
                epsilon=entry.epsilon,
                metrics=told,
            )
    for name in ("ledger.jsonl", "ledger.jsonl.head"):
        (spoiled / name.replace("ledger.jsonl", "older")).replace(spoiled / name)
    (answer,) = (answer for answer in audited(spoiled).answers if answer.name == "model")
    assert answer.outcome == outcome
    if outcome == "unchecked":
        assert "no signed line says which model was deployed" in answer.reason


def test_ledger_without_its_last_line_leaves_the_mask_unchecked_once_the_run_is_over(spoiled: Path) -> None:
    report = verify_ledger(spoiled / "ledger.jsonl")
    assert report.complete
    rewrite(spoiled, lambda entry: {}, with_end=False)
    answers = {answer.name: answer for answer in audited(spoiled).answers}
    assert answers["model"].outcome == "unchecked"
    assert "the run is over, but no signed line says which model was deployed" in answers["model"].reason
    (spoiled / "DONE").unlink()
    audit = audited(spoiled)
    assert audit.verdict == "clean", texts(audit)
    answers = {answer.name: answer for answer in audit.answers}
    assert answers["model"].outcome == "note"
    assert "The run is not over yet" in answers["model"].findings[0].text


def test_checkpoint_of_an_earlier_round_is_found(spoiled: Path) -> None:
    path = spoiled / "checkpoint" / "server.safetensors"
    arrays = load_file(path)
    arrays["round"] = np.array(1)
    save_file(arrays, path)
    assert caught_by(audited(spoiled)) == {"rounds", "model"}


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        ("flip = 0.25", "flip = 0.3", "settings"),
        ("clip = 1.0", "clip = 0.5", "settings"),
        ("delta = 1e-05", "delta = 1e-06", "settings"),
        ("min_survivors = 4", "min_survivors = 5", "cohort"),
        ("colluders = 1", "colluders = 0", "cohort"),
        ("rounds = 3", "rounds = 4", "client epsilon"),
    ],
)
def test_settings_changed_afterwards_are_found(spoiled: Path, old: str, new: str, check: str) -> None:
    path = spoiled / "config.toml"
    text = path.read_text("utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), "utf-8")
    assert check in caught_by(audited(spoiled))


def test_round_opened_over_too_few_survivors_is_found(spoiled: Path) -> None:
    path = spoiled / "metrics.jsonl"
    path.write_text(path.read_text("utf-8").replace('"survivors":5', '"survivors":3', 1), "utf-8")
    audit = audited(spoiled)
    assert caught_by(audit) == {"cohort"}
    assert "3 survivors" in texts(audit)


def test_round_that_was_lost_is_no_sum_of_too_few(spoiled: Path) -> None:
    """Across machines a round whose uploads may have left is charged, recorded, and not repeated."""
    path = spoiled / "metrics.jsonl"
    first, *others = read_records(spoiled)
    lost = msgspec.structs.replace(first, survivors=0, step=0.0, quality=None, uplink_bytes=0)
    for told, caught in (
        (lost, set()),
        (msgspec.structs.replace(lost, step=first.step), {"cohort"}),
        (msgspec.structs.replace(lost, uplink_bytes=first.uplink_bytes), {"cohort"}),
        (
            msgspec.structs.replace(lost, quality=others[-1].quality),
            set(),
        ),  # the mask is measured all the same
    ):
        path.write_bytes(b"".join(encode(record) + b"\n" for record in (told, *others)))
        audit = audited(spoiled)
        assert caught_by(audit) == caught, texts(audit)


def test_done_that_claims_other_rounds_is_found(spoiled: Path) -> None:
    (spoiled / "DONE").write_text("2 of 3 rounds\n")
    assert caught_by(audited(spoiled)) == {"ending"}


# Coins.


def test_coin_secret_made_from_the_public_seed_is_found(spoiled: Path) -> None:
    path = spoiled / "clients" / "01" / "coins.key"
    header = path.read_text("ascii").split()[0]
    path.write_text(f"{header} {hashlib.sha256(b'0:1').hexdigest()}\n", "ascii")
    assert caught_by(audited(spoiled)) == {"secrets"}


def test_coin_secret_shared_by_two_clients_is_found(spoiled: Path) -> None:
    keys = [spoiled / "clients" / name / "coins.key" for name in ("01", "03")]
    keys[1].write_bytes(keys[0].read_bytes())
    assert caught_by(audited(spoiled)) == {"secrets"}


def test_coin_secret_that_others_can_read_is_found(spoiled: Path) -> None:
    (spoiled / "clients" / "04" / "coins.key").chmod(0o644)
    assert caught_by(audited(spoiled)) == {"secrets"}


def _coins_of_the_seed(client: Client, federation: str) -> CoinSecret:
    """The bug: coins that whoever reads config.toml can draw."""
    CoinSecret.create(client.folder / "coins.key") if not (client.folder / "coins.key").exists() else None
    return CoinSecret.for_test(hashlib.sha256(b"seed 0, client %d" % client.index).digest())


def test_bits_drawn_from_the_public_seed_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the very program that draws them so, and by a right one that repeats the round."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Client, "_coins", _coins_of_the_seed)
        make(folder, "federation.rounds=1")
        same = audit_run(folder)
        assert caught_by(same) == {"replay"}
        assert [found.certainty for found in same.findings] == ["certain"]
    monkeypatch.setattr(coins, "describe_environment", lambda: read_environment(folder)[0])
    other = audit_run(folder)
    assert caught_by(other) == {"replay"}
    assert [found.certainty for found in other.findings] == ["likely"]


# What cannot be checked is said, and is not clean.


@pytest.mark.parametrize(
    "name", ["ledger.jsonl", "ledger.jsonl.head", "config.toml", "checkpoint/server.safetensors"]
)
def test_folder_that_lacks_what_it_should_hold_is_not_clean(
    spoiled: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (spoiled / name).unlink()
    assert main(["audit", "run", str(spoiled), "--no-replay"]) == 2
    assert Path(name).name in capsys.readouterr().out


def test_folder_without_the_clients_private_folders_can_be_clean(spoiled: Path) -> None:
    for path in sorted((spoiled / "clients").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    audit = audit_run(spoiled)
    assert audit.verdict == "clean"
    outcomes = {answer.name: answer.outcome for answer in audit.answers}
    assert outcomes["secrets"] == outcomes["replay"] == "skipped"


def test_missing_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "run", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# The record-level release.


@pytest.fixture(scope="module", params=["client", "summed"])
def with_record(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run that releases its moments with noise: by each client, or summed and opened."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    settings = ["privacy.record_epsilon=2.0", f"privacy.record_release={request.param}"]
    return make(folder, *settings, "federation.rounds=1", "metrics.every=1")


def test_run_with_a_record_level_release_is_clean(with_record: Path) -> None:
    audit = audited(with_record)
    assert audit.verdict == "clean"
    outcomes = {answer.name: answer.outcome for answer in audit.answers}
    assert outcomes["record epsilon"] == "passed"


def test_record_level_epsilon_that_is_too_small_is_found(with_record: Path, tmp_path: Path) -> None:
    """The ledger states what other noise would give: in the release, ε is as the noise is."""
    folder = copy(with_record, tmp_path / "run")
    rewrite(folder, lambda entry: {"record": dataclasses.replace(entry.record, epsilon=1.9)})
    assert caught_by(audited(folder)) == {"record epsilon"}


def test_record_level_noise_that_was_halved_is_found(with_record: Path, tmp_path: Path) -> None:
    folder = copy(with_record, tmp_path / "run")

    def halved(entry: LedgerEntry) -> dict[str, object]:
        assert entry.record is not None
        release = dict(entry.record.release) | {"sigma": entry.record.release["sigma"] / 2}
        changed = {"record": dataclasses.replace(entry.record, release=release)}
        return changed | ({"release": release} if entry.kind == "moments" else {})

    rewrite(folder, halved)
    assert "record epsilon" in caught_by(audited(folder))


def test_record_level_guarantee_without_its_charge_is_found(with_record: Path, tmp_path: Path) -> None:
    folder = copy(with_record, tmp_path / "run")

    def without_charge(entry: LedgerEntry) -> dict[str, object] | None:
        if entry.kind == "moments":
            return None
        table = entry.epsilon and {
            cell: dataclasses.replace(spent, added=None) for cell, spent in entry.epsilon.items()
        }
        return {"epsilon": table}

    rewrite(folder, without_charge)
    assert "record epsilon" in caught_by(audited(folder))


def test_record_level_guarantee_that_config_asks_for_and_nobody_made_is_found(spoiled: Path) -> None:
    path = spoiled / "config.toml"
    text = path.read_text("utf-8")
    assert "record_epsilon = inf" in text
    path.write_text(text.replace("record_epsilon = inf", "record_epsilon = 2.0"), "utf-8")
    assert caught_by(audited(spoiled)) == {"record epsilon"}


@pytest.mark.parametrize("with_record", ["summed"], indirect=True)
@pytest.mark.parametrize(
    ("signed", "claimed"),
    [('record_release = "summed"', 'record_release = "client"'), ("record_cohort = 0", "record_cohort = 1")],
)
def test_config_that_claims_another_release_than_was_signed_is_found(
    with_record: Path, tmp_path: Path, signed: str, claimed: str
) -> None:
    folder = copy(with_record, tmp_path / "run")
    text = (folder / "config.toml").read_text("utf-8")
    assert signed in text
    (folder / "config.toml").write_text(text.replace(signed, claimed), "utf-8")
    audit = audited(folder)
    assert "record epsilon" in caught_by(audit)
    assert f"disagree on {signed.split()[0]}" in texts(audit)


@pytest.mark.parametrize("with_record", ["summed"], indirect=True)
@pytest.mark.parametrize(("view", "cohort"), [(View.UPLOAD, None), (View.SUM, 1), (View.SUM, 4)])
def test_guarantee_for_an_image_in_another_view_than_its_noise_gives_is_found(
    with_record: Path, tmp_path: Path, view: View, cohort: int | None
) -> None:
    folder = copy(with_record, tmp_path / "run")
    rewrite(folder, lambda entry: {"record": dataclasses.replace(entry.record, view=view, cohort=cohort)})
    audit = audited(folder)
    assert caught_by(audit) == {"record epsilon"}
    assert "another view" in texts(audit)


def test_round_that_is_said_to_add_nothing_without_opened_moments_is_refused(spoiled: Path) -> None:
    def free(entry: LedgerEntry) -> dict[str, object]:
        table = {cell: dataclasses.replace(spent, added=0.0) for cell, spent in entry.epsilon.items()}
        return {"epsilon": table} if entry.kind == "round" else {}

    with pytest.raises(InvalidParameter, match="the entry says it adds 0: expected 0 at most"):
        rewrite(spoiled, free)


@pytest.mark.parametrize("with_record", ["summed"], indirect=True)
def test_summed_release_that_is_not_charged_to_the_client_is_found(with_record: Path, tmp_path: Path) -> None:
    """Opened moments tell about everything that a client has; a ledger that charges masks alone hides it."""
    folder = copy(with_record, tmp_path / "run")
    masks = next(accounted(rounds=[1], planned=1))["epsilon"]
    rewrite(folder, lambda entry: {"epsilon": masks} if entry.kind == "round" else {"epsilon": None})
    assert caught_by(audited(folder)) == {"client epsilon"}


@pytest.mark.parametrize(
    ("overrides", "cause", "settings"),
    [
        ([], "", ""),
        (["privacy.flip=0"], "privacy.flip = 0 leaves the masks without noise", "privacy.flip=0.1"),
        (
            ["privacy.record_epsilon=50", "privacy.record_release=summed"],
            "the sum of noisy moments that opens before round 1 carries noise for one image",
            "privacy.record_release=client",
        ),
    ],
)
def test_inf_stands_beside_its_cause_and_what_makes_it_finite(
    overrides: list[str], cause: str, settings: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "run", *overrides, "federation.rounds=1", "metrics.every=1")
    page = tmp_path / "page.html"
    assert main(["audit", "run", str(folder), "--no-replay", "--html", str(page)]) == 0
    said, shown = capsys.readouterr().out, html.unescape(page.read_text("utf-8"))
    told = audited(folder).infinite
    assert ('<td class="n">inf</td>' in shown) == bool(told) == bool(cause)
    for why in told:
        assert why.startswith(f"ε(SUM) and ε(UPLOAD) are inf: {cause}")
        assert f"; {settings} would make them " in why
        assert why in said
        assert f'<p class="notice">{why}.</p>' in shown
    lines = lines_of(folder)
    lines[-1] = edited(lines[-1], ["round"], 7)  # damaged: config.toml alone is believed
    write_lines(folder, lines)
    after = audited(folder)
    assert after.verdict == "finding"
    assert any("inf" in map(str, (cell.ledger, cell.oracle)) for cell in after.epsilons) == bool(
        after.infinite
    )


def test_folder_of_a_program_that_knew_no_record_level_release_is_clean(spoiled: Path) -> None:
    """Its config.toml has no such setting: today's default is not what that run was asked for."""
    path = spoiled / "config.toml"
    settings = tomllib.loads(path.read_text("utf-8"))
    settings["privacy"] = {key: x for key, x in settings["privacy"].items() if "record_" not in key}
    del settings["measured"]
    path.write_text(tomli_w.dumps(settings), "utf-8")
    audit = audited(spoiled)
    assert audit.verdict == "clean"


def test_training_on_a_card_is_told_and_not_passed_over(spoiled: Path) -> None:
    """Nobody signs config.toml: a line in it must not make a check vanish without a word."""
    path = spoiled / "config.toml"
    path.write_text(path.read_text().replace('device = "cpu"', 'device = "cuda"'))
    answers = {answer.name: answer for answer in audit_run(spoiled).answers}
    assert answers["replay"].outcome == "note"
    assert "graphics card" in answers["replay"].findings[0].text


def test_own_data_is_believed_only_where_it_is_signed(spoiled: Path) -> None:
    """An unsigned word must not turn a missing record-level guarantee into a note."""
    shutil.rmtree(spoiled / "clients")
    path = spoiled / "environment.json"
    told = json.loads(path.read_text())
    told["facts"]["own_data"] = True
    path.write_text(json.dumps(told))
    path = spoiled / "config.toml"
    text = path.read_text().replace("record_epsilon = inf", "record_epsilon = 2.0")
    path.write_text(text.replace('record_release = "summed"', 'record_release = "client"'))
    audit = audited(spoiled)
    assert caught_by(audit) == {"record epsilon"}, texts(audit)


@pytest.mark.parametrize("mode", get_args(MaskMode))
def test_the_mask_that_theta_deploys_is_that_of_each_mode(mode: MaskMode) -> None:
    config = load_config(None, [f"mask.mode={mode}", "mask.density=0.3"])
    theta = np.random.default_rng(0).uniform(0.01, 0.99, 1000)
    theta[:100] = 0.5  # a tie falls one way
    server = Server(config, "federation", len(theta), VotingServer(config))
    server.theta = theta
    assert np.array_equal(model._deployed(SimpleNamespace(config=config), theta), server.deployed())
