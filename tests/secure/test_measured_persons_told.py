"""Where a record is a person, everything that tells of a run says so; elsewhere nothing has changed."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from rich.console import Console

from prism_privacy import verify, verify_ledger
from prism_privacy.ledger.disclosure import disclosure, statement
from prism_privacy.ledger.entry import UNIT_WORDS
from prism_privacy.moments.release import ADJACENCY_WORDS
from prism_secure.accounting.plan import Plan
from prism_secure.accounting.spending import Spending
from prism_secure.audit.run_audit import audit_run
from prism_secure.cli import main
from prism_secure.config import Config, dump_config, load_config
from prism_secure.errors import ConfigError, RunFolderError
from prism_secure.reporting.progress import Display, describe_round, header
from prism_secure.reporting.report import write_report
from prism_secure.reporting.trackers import values
from prism_secure.run_folder.environment import Facts, write_environment
from prism_secure.run_folder.export import _check_settings, _privacy
from prism_secure.run_folder.history import read_history
from prism_secure.run_folder.records import encode

from .fake_run import PARAMETERS, make_run, record_of
from .test_measured_spending import SETTINGS, SIZES, Place
from .test_measured_told import text_of
from .test_model_file import CARD
from .tiny_data import write_data

PEOPLE = (5,) * 10


def settings(person: bool, *more: str) -> list[str]:
    return [
        *SETTINGS,
        "data.source=idx",
        "data.folder=/none",
        *(["data.person=file"] if person else []),
        *more,
    ]


def config_of(person: bool, *more: str) -> Config:
    return load_config(None, settings(person, *more))


def spending(config: Config, folder: Path, finished: int = 0) -> Spending:
    people = PEOPLE if config.data.person else None
    return Spending(config, Place(folder), PARAMETERS, finished, sizes=SIZES, persons=people)


def run_folder(folder: Path, person: bool, *more: str, charged: Config | None = None) -> Path:
    """A run of these settings, whose ledger is that of the configuration that was charged."""
    config = config_of(person, *more)
    make_run(folder, settings(person, *more), rounds=0, ledger=False, done=False)
    (folder / "federation.id").write_text("fed\n")
    environment = json.loads((folder / "environment.json").read_text())
    environment["facts"] |= {"training_images": sum(SIZES), "persons": sum(PEOPLE) if person else None}
    (folder / "environment.json").write_text(json.dumps(environment))
    with spending(charged or config, folder) as spent:
        for number in range(1, 5):
            epsilon = spent.charge(number)
            record = msgspec.structs.replace(record_of(config, number), epsilon=epsilon, record=spent.record)
            with (folder / "metrics.jsonl").open("ab") as file:
                file.write(encode(record) + b"\n")
    (folder / "DONE").write_text("4 of 4 rounds\n")
    return folder


@pytest.fixture(scope="module")
def of_persons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_folder(tmp_path_factory.mktemp("told") / "persons", person=True)


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_folder(tmp_path_factory.mktemp("told") / "images", person=False)


def test_the_report_speaks_of_a_person(of_persons: Path, of_images: Path) -> None:
    text, other = text_of(write_report(of_persons)), text_of(write_report(of_images))
    for words in (
        "ε(one {})",
        "ε for one {} of one client",
        "One {} of one client",
        "ε(one {}), UPLOAD",
        "protects a single {},",
        "and one {} of it",
        "For one {} the worlds",
        "all its other {}s",
    ):
        assert words.format("person") in text, words
        assert words.format("image") in other, words
        assert words.format("image") not in text, words
        assert words.format("person") not in other, words
    assert "of the persons that a client really had" in text
    assert "one image" not in text.lower()
    assert not re.search(r"\bone person\b", other.lower())


def test_a_ledger_tells_which_unit_it_is_and_others_are_what_they_were(
    of_persons: Path, of_images: Path
) -> None:
    persons, images = (json.loads((folder / "ledger.jsonl").read_text().splitlines()[0])["body"]
                       for folder in (of_persons, of_images))  # fmt: skip
    assert (persons["settings"], images["settings"]) == ({"record": "person"}, {})
    assert (persons["records"], images["records"]) == (5, 10)
    assert images["units"] == {str(unit): words for unit, words in UNIT_WORDS.items()} | ADJACENCY_WORDS
    changed = {name for name, words in persons["units"].items() if words != images["units"][name]}
    assert changed == {"record"}
    assert set(persons) == set(images)
    report, other = verify_ledger(of_persons / "ledger.jsonl"), verify_ledger(of_images / "ledger.jsonl")
    assert (report.one_record, other.one_record) == ("person", "image")
    for words, unlike in (
        ("one person of one client: epsilon to date", "one image of one client: epsilon to date"),
        (
            "PROTECTED: one record (all images of one person) of one",
            "PROTECTED: one record (one image) of one",
        ),
        ("One person of one client under add_remove", "One image of one client under add_remove"),
        ("A person who is with several clients, or has several names", "A person whose data is in several"),
    ):
        for told, here, there in ((report, words, unlike), (other, unlike, words)):
            text = "\n".join(statement(told)) + disclosure(told)
            assert here in text
            assert there not in text


def test_ledgers_of_persons_and_images_together_speak_of_an_image(
    of_persons: Path, of_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who is protected with all images is protected with one of them, and not the other way round."""
    persons, images = str(of_persons / "ledger.jsonl"), str(of_images / "ledger.jsonl")
    assert verify.main([persons, "--image-epsilon", "1e9"]) == 0
    assert "kept: one person of one client, swap: epsilon" in capsys.readouterr().out
    assert verify.main([persons, images, "--image-epsilon", "1e9"]) == 0
    told = capsys.readouterr().out
    assert "kept: one image of one client, swap: epsilon" in told
    assert "kept: one person" not in told


def test_tables_of_many_runs_and_an_audit_speak_of_a_person(
    of_persons: Path, of_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(of_persons, tmp_path / "runs" / "other")
    for command in (["compare", str(of_persons), str(other)], ["list", str(other.parent)]):
        assert main(command) == 0
        told = capsys.readouterr().out
        assert "ε(person)" in told
        assert "image" not in told.replace(str(of_images), "")
    assert main(["compare", str(of_persons), str(of_images), "--out", str(tmp_path / "page")]) == 0
    assert "ε(image or person)" in capsys.readouterr().out
    assert "ε(one image or person)" in text_of(tmp_path / "page" / "report.html")
    assert main(["compare", str(of_persons), str(other), "--out", str(tmp_path / "two")]) == 0
    page = text_of(tmp_path / "two" / "report.html")
    assert "ε(one person)" in page
    assert "one image" not in page
    capsys.readouterr()
    assert main(["audit", "run", str(other), "--html", str(tmp_path / "audit.html")]) == 2
    assert "no finding, but something that should be there could not be checked" in capsys.readouterr().out
    page = text_of(tmp_path / "audit.html")
    assert "one person of one client is another one" in page
    assert "one image" not in page


@pytest.mark.parametrize(("unit", "clip", "of_an_image"), [("client", 4.47214, 3.16228), ("image", 2.0, 1.0)])
def test_an_audit_knows_how_much_a_person_may_answer(
    unit: str, clip: float, of_an_image: float, tmp_path: Path
) -> None:
    """Ten images of five persons with each client: 2 sqrt(5) and 2."""
    unit = f"measured.unit={unit}"

    def found(charged: float | None) -> list[str]:
        other = None if charged is None else config_of(True, unit, f"measured.record_clip={charged}")
        folder = run_folder(tmp_path / str(charged), True, unit, charged=other)
        return [finding.text for finding in audit_run(folder).findings]

    assert found(None) == found(clip) == []
    for wrong in (of_an_image, 1.01 * clip, 0.99 * clip):
        assert found(wrong) == [
            "config.toml and the ledger disagree on record_clip of measured rounds, from round 1 on."
        ]


def test_an_audit_without_the_number_of_persons_says_so(of_persons: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(of_persons, tmp_path / "run"))
    (folder / "environment.json").unlink()
    write_environment(folder, "prism-secure run", Facts(parameters=PARAMETERS))
    [settings_check] = [answer for answer in audit_run(folder).answers if answer.name == "settings"]
    assert settings_check.reason == "environment.json does not say how many persons the clients have"


def test_the_console_says_of_which_rounds_an_epsilon_of_an_image_is() -> None:
    once = record_of(load_config(), 1)
    assert once.record is not None
    growing = replace(once, record=replace(once.record, upload=82.4))
    for record, said in ((once, "all rounds together"), (growing, "to date, as SUM/UPLOAD")):
        out = io.StringIO()
        with Display(Console(file=out, width=200)) as display:
            display.started(2, 0, 1)
            display.round_finished(record)
        assert f"ε(image): one image of one client, {said}\n" in out.getvalue()


def test_the_console_speaks_of_a_person() -> None:
    names = ["round", "recall", "coverage", "FID", "ε(SUM)", "ε(UPLOAD)", "ε(image)", "bits/param", "seconds"]
    assert header("image").split() == names
    line = describe_round(record_of(load_config(), 1), 2)
    ends = [[found.end() for found in re.finditer(r"\S+", text)] for text in (header("image"), line)]
    assert ends[0][1:] == ends[1][1:], "a figure ends where its name does"
    assert len(header("person")) == len(header("image"))
    out = io.StringIO()
    with Display(Console(file=out, width=200), "person") as display:
        display.started(2, 0, 1)
        display.note("measuring")
        display.round_finished(record_of(load_config(), 1))
    assert out.getvalue().startswith("measuring\n"), "the head stands over its rows"
    assert "ε(person): one person of one client, all rounds together" in out.getvalue()
    assert header("person") in out.getvalue()
    assert "image" not in out.getvalue()


def test_config_epsilon_speaks_of_a_person_and_counts_the_dealt_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_data(tmp_path / "data")
    (folder / "train-persons.txt").write_text("\n".join(str(n % 20) for n in range(60)) + "\n")
    small = [f"data.folder={folder}", "federation.clients=4", "privacy.colluders=0", "measured.unit=image"]
    arguments = [part for each in settings(True, *small) for part in ("--set", each)]
    assert main(["config", "--epsilon", *arguments]) == 0
    told = capsys.readouterr().out
    assert "one person of a client, replaced by any other" in told
    assert "R of a person" in told
    assert "person, replaced" in told
    assert "image" not in told
    # 15 images a client of 5 persons: C/A * 2 c/N, c = 3 A
    plan = Plan(config_of(True, *small), PARAMETERS, sizes=(15,) * 4, persons=(5,) * 4)
    assert f"{plan.measured[-1].record_radius():.3g}" in told


def test_a_tracker_is_told_of_a_person(of_persons: Path, of_images: Path) -> None:
    for folder, record, other in ((of_persons, "person", "image"), (of_images, "image", "person")):
        history = read_history(folder)
        last = history.records[-1]
        assert last.record is not None
        tracked = values(last, history.config)
        assert tracked[f"epsilon/{record}"] == last.record.epsilon
        assert tracked[f"epsilon/{record}_upload"] == last.record.upload
        assert not any(other in name for name in tracked)


def test_a_card_speaks_of_a_person_and_an_old_one_of_an_image(of_persons: Path, of_images: Path) -> None:
    texts = []
    for folder in (of_persons, of_images):
        history = read_history(folder)
        assert history.ledger is not None
        _check_settings(history, history.ledger)
        privacy = _privacy(history, history.ledger, "ab" * 32)
        texts.append(msgspec.structs.replace(CARD, privacy=privacy).markdown())
        assert history.records[-1].record is not None
        assert history.records[-1].record.unit == f"one {history.config.record} of one client"
    assert "| one person of one client |" in texts[0]
    assert "For one person: one record" in texts[0]
    assert "ε(one person) = " in texts[0]
    assert "one image" not in texts[0]
    assert "| one image of one client |" in texts[1]
    assert CARD.privacy.record_of == "image"


def test_a_ledger_of_another_unit_is_refused(of_persons: Path, of_images: Path) -> None:
    for folder, person in ((of_persons, False), (of_images, True)):
        with pytest.raises(RunFolderError, match=r"by its header a record is .*, and data\.person is"):
            spending(config_of(person, "measured.record_clip=3"), folder, 4)
        saved = (folder / "config.toml").read_text()
        try:
            (folder / "config.toml").write_text(dump_config(config_of(person)))
            history = read_history(folder)
            assert history.ledger is not None
            with pytest.raises(RunFolderError, match=r"disagree on who is a record \(data\.person\)"):
                _check_settings(history, history.ledger)
        finally:
            (folder / "config.toml").write_text(saved)


def test_a_budget_that_admits_no_round_names_a_person() -> None:
    config = config_of(True, "budget.image_epsilon=1e-6")
    with pytest.raises(ConfigError, match="the first costs a person"):
        Plan(config, PARAMETERS, sizes=SIZES, persons=PEOPLE)
