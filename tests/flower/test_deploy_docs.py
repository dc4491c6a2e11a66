"""Every command of docs/deploy.md, in its order, with real SuperLink and SuperNodes on loopback."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Machines, free_port

from prism_privacy.ledger import verify_ledger
from prism_secure.run_folder.folder import read_records

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
HOSPITALS = ["north", "east", "south"]
STEP = re.compile(r"<!-- (at|test): (.*?) -->\n(?:```sh\n(.*?)```)?", re.DOTALL)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    machines = Machines(tmp_path)
    yield machines
    machines.close()


def test_every_shell_block_of_the_page_is_marked_for_this_test() -> None:
    text = PAGE.read_text()
    assert text.count("```sh\n") == sum(kind == "at" for kind, _, _ in STEP.findall(text)) >= 8


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_hospitals_from_nothing_to_a_trained_generator(machines: Machines) -> None:
    ports = {party: str(free_port()) for party in ["link", *HOSPITALS]}
    for kind, what, script in STEP.findall(PAGE.read_text()):
        if kind == "test":
            {"exchange": exchange, "recipe": share_recipe}[what](machines.root)
            continue
        names, _, stays = what.partition(",")
        for party in names.split():
            here = script.replace("fl.example.org", "localhost").replace("0.0.0.0", "127.0.0.1")
            here = re.sub(r"\b8000\b", ports["link"], here)
            here = re.sub(r"\b9094\b", ports.get(party, ""), here)
            if party in HOSPITALS:
                here = here.replace("--id 0", f"--id {HOSPITALS.index(party)}")
            if stays:
                machines.start(party, here.replace("\\\n", " "))
                machines.wait_for(party, "SuperNode ID" if party in HOSPITALS else "startup complete")
            elif "--stream" in here:
                # The log may be cut off on a busy machine; the run goes on.
                printed = machines.run(party, f"{here.rstrip()} || true", timeout=1800)
                wait_for_the_end(machines.root / party / "run", printed)
            else:
                machines.run(party, here, timeout=1200)
    run = machines.root / "coordinator" / "run"
    assert (run / "report.html").exists()
    assert (run.parent / "generator.safetensors").exists()
    records = read_records(run)
    assert [record.survivors for record in records] == [3] * 4
    assert all(record.changed for record in records), "each round gives another mask"
    assert records[-1].quality.fid < 0.9 * records[0].quality.fid, "what is shown learns something"
    for ledger in [run, *(machines.root / name / "client" for name in HOSPITALS)]:
        entries = verify_ledger(ledger / "ledger.jsonl").entries
        over = ["end"] if ledger == run else []
        assert [entry.kind for entry in entries] == ["moments", *["round"] * 4, *over]
        assert all(entry.record is not None and entry.record.epsilon <= 10.0 + 1e-6 for entry in entries)


def wait_for_the_end(run: Path, printed: str, seconds: float = 1200) -> None:
    end = time.monotonic() + seconds
    while not all((run / name).exists() for name in ("DONE", "report.html")):
        failed = run / "FAILED"
        assert not failed.exists(), failed.read_text()
        assert time.monotonic() < end, f"{run} does not end; the command printed:\n{printed[-4000:]}"
        time.sleep(1)


def exchange(root: Path) -> None:
    """What the hospitals and the coordinator give each other by hand."""
    for name in HOSPITALS:
        shutil.copy(root / name / "node-key.pub", root / "coordinator" / f"{name}.pub")
        shutil.copy(root / "coordinator" / "ca.crt", root / name)
        for party in ["coordinator", *HOSPITALS]:
            shutil.copy(root / name / "client" / "member.txt", root / party / f"{name}.txt")


def share_recipe(root: Path) -> None:
    for name in HOSPITALS:
        shutil.copy(root / "coordinator" / "recipe.toml", root / name / "client")
