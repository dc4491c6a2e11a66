"""Runs without their secure sum: the same model bit for bit, the same sizes, and it is said everywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from prism_privacy import verify_ledger
from prism_secure.audit.run_audit import audit_run, summary
from prism_secure.cli import main
from prism_secure.config import Config, dump_config, load_config, whole
from prism_secure.errors import RunFolderError
from prism_secure.reporting.progress import Silent
from prism_secure.rounds import simulation
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.export import export_run
from prism_secure.run_folder.folder import read_records
from prism_secure.run_folder.records import RoundRecord

from .tiny_data import TINY, killed_in_round, outcome, same_secrets, write_data

NOT_RUN = "secure sum was not run: epsilon(SUM) is what it would be with one"
MEASURED = [
    "federation.behaviour=measure",
    "federation.local_steps=32",  # the default: nobody reads it
    "privacy.record_epsilon=inf",
    "privacy.flip=0.25",
    "measured.epsilon=inf",
    "measured.radius=20",
    "measured.directions=8",
    "measured.coordinates=256",
    "measured.steps=1",
    "measured.end_steps=1",
]
ALONE = ["privacy.record_epsilon=inf", "privacy.flip=0.1"]
SEMI_HONEST = ["secure_sum.mode=semi_honest"]
SPARSE = [*SEMI_HONEST, "federation.clients=24", "privacy.colluders=1"]
RECIPES = {
    "train, active": ALONE,
    "train, semi-honest, one may drop": [
        *ALONE,
        *SEMI_HONEST,
        "federation.clients=5",
        "secure_sum.min_survivors=4",
    ],
    "train, sparse": [*ALONE, *SPARSE],
    "train, some are invited": [*ALONE, "federation.clients=6", "federation.client_fraction=0.5"],
    "train, scores in the last layers": [
        "privacy.record_epsilon=inf",
        "privacy.flip=0",
        "mask.score_layers=0.2",
    ],
    "train, moments summed, active": ["privacy.record_epsilon=2", "privacy.record_release=summed"],
    "train, moments summed, semi-honest": [
        "privacy.record_epsilon=2",
        "privacy.record_release=summed",
        *SEMI_HONEST,
    ],
    "measure, active": MEASURED,
    "measure, sparse": [*MEASURED, *SPARSE],
}
SIMULATE = "secure_sum.simulate=true"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "images", train=120)


@pytest.fixture(autouse=True)
def _sparse_is_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "SPARSE_ABOVE", 20)


def _tiny(data: Path, *overrides: str) -> Config:
    return load_config(None, [*TINY, f"data.folder={data}", *overrides])


@pytest.fixture(scope="module")
def real(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its secure sum."""
    out = tmp_path_factory.mktemp("real") / "run"
    run(_tiny(data, *ALONE), out)
    return out


@pytest.fixture(scope="module")
def simulated(data: Path, real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without it."""
    out = same_secrets(real, tmp_path_factory.mktemp("simulated") / "run")
    run(_tiny(data, *ALONE, SIMULATE), out)
    return out


class _Rounds(Silent):
    """Keeps the checkpoint, which holds theta, after every round."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.checkpoints: list[bytes] = []

    def round_finished(self, record: RoundRecord) -> None:
        self.checkpoints.append((self._out / "checkpoint" / "server.safetensors").read_bytes())


def _timeless(record: RoundRecord) -> RoundRecord:
    return msgspec.structs.replace(record, seconds=0.0, secure_sum_seconds=0.0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_simulated_run_has_the_model_the_epsilons_and_the_sizes_of_a_real_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    folders, listeners = (tmp_path / "real", tmp_path / "simulated"), []
    honest = simulation.open_moments

    def both_of_the_same_shares(release: Any, clients: Any, folder: Path, federation: str) -> None:
        """Their noise comes from no coin secret: the second run finds what the first one drew."""
        if folder == folders[0]:
            for path in folder.glob("clients/*/share.safetensors"):
                copy = folders[1] / path.relative_to(folder)
                copy.parent.mkdir(parents=True, mode=0o700)
                shutil.copy2(path, copy)
        honest(release, clients, folder, federation)

    monkeypatch.setattr(simulation, "open_moments", both_of_the_same_shares)
    for out, more in zip(folders, ([], [SIMULATE]), strict=True):
        if more:
            same_secrets(folders[0], out)
        listeners.append(_Rounds(out))
        config = _tiny(data, *RECIPES[recipe], *more)
        assert config.sparse == ("sparse" in recipe)
        run(config, out, listener=listeners[-1])
    theta, same = (listener.checkpoints for listener in listeners)
    assert len(theta) == 2
    assert same == theta
    assert outcome(folders[1]) == outcome(folders[0])
    records, others = ([_timeless(each) for each in read_records(out)] for out in folders)
    assert others == records
    assert all(record.uplink_bytes > 0 and record.downlink_bytes > 0 for record in records)
    moments = [out / "moments.json" for out in folders]
    assert moments[0].exists() == moments[1].exists() == ("summed" in recipe)
    if "summed" in recipe:
        assert moments[0].read_bytes() == moments[1].read_bytes()
    books, marked = (verify_ledger(out / "ledger.jsonl") for out in folders)
    assert marked.entries == books.entries
    assert marked.settings == books.settings | {"secure_sum": "not run"}
    assert "secure_sum" not in books.settings


def test_a_killed_run_goes_on_to_the_same_model(real: Path, data: Path, tmp_path: Path) -> None:
    """kill -9, in the second round, when its uploads are on disk and nothing is added up."""
    out = same_secrets(real, tmp_path / "run")
    config = _tiny(data, *ALONE, SIMULATE)
    killed_in_round(2, config, out)
    assert len(read_records(out)) == 1
    run(config, out)
    assert outcome(out) == outcome(real)
    assert [entry.kind for entry in verify_ledger(out / "ledger.jsonl").entries] == ["round", "round", "end"]


@pytest.mark.parametrize("began", ["real", "simulated"])
def test_a_run_goes_on_as_it_began(
    real: Path, simulated: Path, data: Path, tmp_path: Path, began: str
) -> None:
    out = Path(shutil.copytree({"real": real, "simulated": simulated}[began], tmp_path / "run"))
    other = [*ALONE, SIMULATE] if began == "real" else ALONE
    with pytest.raises(RunFolderError, match=r"another configuration: secure_sum\.simulate = "):
        run(_tiny(data, *other), out)


@pytest.mark.parametrize("began", ["real", "simulated"])
def test_a_ledger_vouches_for_whether_a_sum_was_run_whatever_config_toml_says(
    real: Path, simulated: Path, data: Path, tmp_path: Path, began: str
) -> None:
    out = Path(shutil.copytree({"real": real, "simulated": simulated}[began], tmp_path / "run"))
    forged = _tiny(data, *ALONE, *([SIMULATE] if began == "real" else []))
    (out / "config.toml").write_text(dump_config(forged), "utf-8")
    audit = audit_run(out, replay=False)
    assert [answer.name for answer in audit.answers if answer.outcome == "finding"] == ["secure sum"]
    with pytest.raises(RunFolderError, match=r"disagree on secure_sum\.simulate"):
        export_run(out, tmp_path / "model.safetensors")
    (out / "DONE").unlink()
    with pytest.raises(RunFolderError, match=r"by what its header says, and secure_sum\.simulate is"):
        run(forged, out)


def test_ledger_report_card_and_audit_say_that_it_was_not_run(
    real: Path, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out, said in ((simulated, True), (real, False)):
        assert main(["ledger", "verify", str(out / "ledger.jsonl")]) == 0
        assert (f"warning: the {NOT_RUN}" in capsys.readouterr().out) is said
        page = (out / "report.html").read_text("utf-8")
        assert ("The secure sum was not run:</strong> ε(SUM) is what it would be with one" in page) is said
        assert ("hidden under pairwise masks" in page) is not said
        assert ("The server could open only sums" in page) is not said
        assert ("refuses to open less. It is computational" in page) is not said
        card = export_run(out, tmp_path / f"{said}.safetensors").card
        assert card is not None
        assert card.privacy.sum_not_run is said
        text = card.markdown()
        assert ("**The secure sum was not run.** ε(SUM) is what it would be with one" in text) is said
        assert ("added up in the clear, without the secure sum" in text) is said
        assert (", and only sums of their bits were opened" in text) is not said
        audit = audit_run(out)
        assert audit.verdict == "clean"
        (answer,) = (each for each in audit.answers if each.name == "secure sum")
        assert answer.outcome == ("note" if said else "passed")
        assert (f"The {NOT_RUN}." in "\n".join(summary(audit))) is said


def test_who_starts_such_a_run_or_asks_what_it_guarantees_is_told(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "the secure sum is not run (secure_sum.simulate): ε(SUM) is what it would be with one"
    settings = [*TINY, *ALONE, f"data.folder={data}", "federation.rounds=1"]
    for simulate in ("true", "false"):
        given = ["--recipe", "one-shot"] + [
            text for each in [*settings, f"secure_sum.simulate={simulate}"] for text in ("--set", each)
        ]
        assert main(["run", "--out", str(tmp_path / simulate), *given]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert (words in told) is (simulate == "true")
        assert main(["config", "--epsilon", *given]) == 0
        assert (words in capsys.readouterr().out) is (simulate == "true")


def test_a_real_run_takes_no_moments_that_were_opened_without_a_secure_sum(
    data: Path, tmp_path: Path
) -> None:
    shared = [*RECIPES["train, moments summed, active"], f"privacy.record_store={tmp_path / 'store'}"]
    ids = []
    for name, more in (("simulated", [SIMULATE]), ("real", []), ("again", [SIMULATE])):
        run(_tiny(data, *shared, *more, "federation.rounds=1"), tmp_path / name)
        header = json.loads((tmp_path / name / "ledger.jsonl").read_bytes().splitlines()[0])
        ids.append(header["body"]["settings"]["record_id"])
    assert ids[0] == ids[2] != ids[1]
