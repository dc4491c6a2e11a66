"""Each bug that measured rounds must not have is found where it is planted, and nothing where none is.

Bugs are planted from outside, in `planted_in_measured_rounds`; what looks for them is not patched.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prism_secure.audit.findings import Notebook
from prism_secure.audit.measured_client import CHECKS, Subject, audit_measured_client
from prism_secure.audit.run_audit import audit_run
from prism_secure.cli import main
from prism_secure.config import load_config
from prism_secure.rounds.simulation import run

from .. import tiny_data
from .planted_in_measured_rounds import IN_THE_BOOKS, IN_THE_CLIENT, Planted, unchecked_ledger
from .tampering import caught_by, copy


def found_in(subject: Subject, check: str) -> list[str]:
    notes = Notebook()
    dict(CHECKS)[check](subject, notes)
    return [found.text for found in notes.findings if found.severity == "finding"]


def test_the_client_as_it_is_is_clean_in_every_check() -> None:
    answers = audit_measured_client()
    assert [(answer.name, answer.outcome) for answer in answers] == [(name, "passed") for name, _ in CHECKS]
    assert all(answer.facts for answer in answers)


@pytest.mark.parametrize("name", IN_THE_CLIENT)
def test_a_bug_in_the_client_or_in_what_it_is_asked_is_found(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug = IN_THE_CLIENT[name]
    bug.plant(monkeypatch)
    subject = Subject(tmp_path)
    assert [check for check in bug.found_by if not found_in(subject, check)] == []


def test_the_command_prints_findings_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    IN_THE_CLIENT["norms_printed"].plant(monkeypatch)
    assert main(["audit", "measured"]) == 1
    told = capsys.readouterr().out
    assert "FINDING  public" in told
    assert "What is printed or logged in a round follows from images." in told
    assert told.count("       ok  ") == len(CHECKS) - 1


SETTINGS = [
    *tiny_data.TINY,
    "federation.clients=4",
    "federation.rounds=4",
    "federation.behaviour=measure",
    "federation.local_steps=32",  # the default: nobody reads it
    "privacy.record_epsilon=inf",
    "privacy.flip=0.25",
    "privacy.colluders=1",
    "secure_sum.min_survivors=3",
    "metrics.every=4",
    "measured.epsilon=inf",
    "measured.radius=2",
    "measured.directions=16",
    "measured.coordinates=1024",
    "measured.steps=1",
    "measured.end_steps=1",
]


def make(folder: Path) -> Path:
    """A real run, by whatever program runs."""
    data = tiny_data.write_data(folder.parent / "data")
    run(load_config(None, [*SETTINGS, f"data.folder={data}"]), folder)
    return folder


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("honest") / "run")


def test_a_run_of_the_program_as_it_is_is_clean_in_every_check(honest: Path) -> None:
    audit = audit_run(honest)
    assert audit.verdict == "clean", audit.findings
    assert {answer.name: answer.outcome for answer in audit.answers if answer.outcome != "passed"} == {}


@pytest.mark.parametrize(
    ("gone", "found"),
    [
        ("features.safetensors", "Client 01's file of features is gone, and rounds are finished."),
        ("state.safetensors", "Client 01's state is gone, and rounds are finished."),
        ("outbox", "Client 01 was in finished rounds, and its outbox is gone."),
    ],
)
def test_what_a_client_of_measured_rounds_keeps_is_missed(
    honest: Path, tmp_path: Path, gone: str, found: str
) -> None:
    run = copy(honest, tmp_path / "run")
    path = run / "clients" / "01" / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    audit = audit_run(run, replay=False)
    assert [each.text for each in audit.findings] == [found]


@pytest.mark.parametrize("name", IN_THE_BOOKS)
def test_a_bug_in_the_books_is_found_in_the_run_folder(name: str, tmp_path: Path) -> None:
    bug: Planted = IN_THE_BOOKS[name]
    with pytest.MonkeyPatch.context() as patch:
        unchecked_ledger(patch)
        bug.plant(patch)
        folder = make(tmp_path / "run")
    assert set(bug.found_by) <= caught_by(audit_run(folder))
