"""A run folder must be found again after a kill, and refuse whatever is not its own run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path

import msgspec
import pytest

from prism_privacy import Ledger, LedgerKey
from prism_secure.accounting.epsilons import Epsilons
from prism_secure.config import load_config
from prism_secure.errors import RunFolderError
from prism_secure.run_folder.folder import RunFolder, read_config, read_records
from prism_secure.run_folder.history import check_whole
from prism_secure.run_folder.records import Quality, RoundRecord, decode, encode
from prism_secure.storage import make_private_folder


def _record(number: int) -> RoundRecord:
    return RoundRecord(
        round=number,
        survivors=10,
        epsilon=Epsilons(
            sum_zero_out=1.5, sum_replace_one=3.0, upload_zero_out=math.inf, upload_replace_one=math.inf
        ),
        bits_per_parameter=3.56,
        uplink_bytes=1000,
        downlink_bytes=2000,
        step=0.5,
        seconds=12.0,
        secure_sum_seconds=0.1,
        quality=Quality(fid=100.0, kid=0.1, precision=0.5, recall=0.5, density=0.5, coverage=0.5),
    )


def test_record_reads_back_with_its_infinities() -> None:
    record = _record(1)
    assert b'"inf"' in encode(record)
    assert decode(encode(record)) == record
    bare = msgspec.structs.replace(record, quality=None)
    assert decode(encode(bare)) == bare
    trained = msgspec.structs.replace(record, server_loss=0.1 + 0.2)
    assert decode(encode(trained)).server_loss == 0.1 + 0.2


def test_a_record_of_before_there_was_a_field_reads_without_it() -> None:
    """Each that may be missing, one by one; the sums of a round may not."""
    whole = json.loads(encode(_record(1)))
    for name in ("server_loss", "changed", "record"):
        older = {key: whole[key] for key in whole if key != name}
        assert getattr(decode(json.dumps(older).encode()), name) is None
    with pytest.raises(msgspec.ValidationError, match="survivors"):
        decode(json.dumps({key: whole[key] for key in whole if key != "survivors"}).encode())


def test_a_round_repeated_after_a_kill_is_kept_once_and_metrics_complete_its_record(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", load_config()) as folder:
        folder.keep(msgspec.structs.replace(_record(1), quality=None))
        folder.keep(_record(1))
        with (folder.path / "metrics.jsonl").open("ab") as file:
            file.write(b'{"round": 2, "surv')
        assert [record.round for record in read_records(folder.path)] == [1]
        folder.keep(_record(2))
        assert read_records(folder.path) == [_record(1), _record(2)]
        folder.keep(msgspec.structs.replace(_record(1), seconds=1.0))
        assert read_records(folder.path) == [msgspec.structs.replace(_record(1), seconds=1.0), _record(2)]


def test_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", load_config()) as folder, pytest.raises(RunFolderError, match="in use"):
        RunFolder(tmp_path / "run", load_config())
    with RunFolder(tmp_path / "run", load_config()) as again:
        assert again.federation == folder.federation


def test_other_configuration_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", load_config()).close()
    with pytest.raises(RunFolderError, match=r"privacy\.flip = 0\.1, now 0\.2"):
        RunFolder(tmp_path / "run", load_config(None, ["privacy.flip=0.2"]))


def test_start_that_charged_nothing_takes_away_what_it_wrote_and_no_more(tmp_path: Path) -> None:
    mine, new = tmp_path / "mine", tmp_path / "new"
    (mine / "clients" / "00").mkdir(parents=True)
    kept = {mine / "federation.id": "f", mine / "clients" / "00" / "coins.key": "secret"}
    for path, text in kept.items():
        path.write_text(text)
    for place in (mine, new):
        with RunFolder(place, load_config()) as folder:
            folder.fail("refused")
            assert folder.withdraw()
    assert not new.exists()
    assert {path: path.read_text() for path in mine.rglob("*") if path.is_file()} == kept
    with RunFolder(new, load_config(None, ["privacy.flip=0.2"]), federation="hospitals") as folder:
        assert folder.federation == "hospitals"


WRITTEN = (
    "environment.json",
    "ledger.jsonl",
    "ledger.key",
    "clients/data.json",
    "clients/skipped-images.txt",
    "clients/00/moments.safetensors",
    "clients/01/share.safetensors",
    "clients/01/.share.safetensors.k1lled_1",
    ".ledger.jsonl.0123456789abcdef.tmp",
)
"""What a start may have written before anything is charged, and what a killed writer leaves."""
THEIRS = (
    "notes.txt",
    "sub/ledger.jsonl",
    "ledger.jsonl.bak",
    ".config.toml.swp",
    "clients/list.txt",
    "clients/00/coins.key",
    "samples/mine/clients/00/share.safetensors",
)


def _begun(place: Path) -> RunFolder:
    folder = RunFolder(place, load_config())
    for name in WRITTEN:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("one\n")
    (place / "clients" / "01" / "outbox").mkdir()
    return folder


@pytest.mark.parametrize("theirs", [*THEIRS, THEIRS])
def test_what_others_lay_into_the_folder_of_a_start_is_not_taken_away(
    tmp_path: Path, theirs: str | tuple[str, ...]
) -> None:
    names = {theirs} if isinstance(theirs, str) else set(theirs)
    with _begun(tmp_path / "run") as folder:
        for name in names:
            (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
            (folder.path / name).write_text("mine")
        (folder.path / "empty").mkdir()
        assert folder.withdraw()
    left = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()}
    assert left == names | {".lock", "federation.id"}
    assert (folder.path / "empty").is_dir()
    with RunFolder(
        folder.path, load_config(None, ["privacy.flip=0.2"])
    ) as again:  # other settings may have it
        assert again.federation == folder.federation


def test_start_that_is_killed_while_it_takes_away_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every deletion: the same command finds a run that it can begin, or goes on with."""
    config = load_config()
    for killed_at in range(100):
        place = tmp_path / str(killed_at)
        deleted = 0

        def dying(path: Path, remove: Callable[[Path], None]) -> None:
            nonlocal deleted
            if deleted == killed_at:  # noqa: B023 - called in this very turn
                raise KeyboardInterrupt
            deleted += 1
            remove(path)

        with RunFolder(place, config) as folder:
            (place / "environment.json").write_text("{}")
            make_private_folder(place / "clients" / "00" / "outbox")
            (place / "clients" / "00" / "moments.safetensors").write_text("one")
            key = LedgerKey.create(folder.ledger_key_path)
            Ledger.create(folder.ledger_path, key, federation=folder.federation).close()
            with monkeypatch.context() as patch:
                patch.setattr(Path, "unlink", partialmethod(dying, Path.unlink))
                patch.setattr(Path, "rmdir", partialmethod(dying, Path.rmdir))
                try:
                    assert folder.withdraw()
                    break
                except KeyboardInterrupt:
                    pass
        with RunFolder(place, config) as again:
            check_whole(place)
            key = (LedgerKey.load if again.ledger_key_path.exists() else LedgerKey.create)(
                again.ledger_key_path
            )
            if not again.ledger_path.exists():
                Ledger.create(again.ledger_path, key, federation=again.federation).close()
            check_whole(place)
    assert killed_at > 10
    assert not place.exists()


@pytest.mark.parametrize("sent", ["ledger.jsonl", "checkpoint/uploading", "moments.began"])
def test_start_after_which_something_may_have_left_is_kept(tmp_path: Path, sent: str) -> None:
    with RunFolder(tmp_path / "run", load_config()) as folder:
        (folder.path / sent).write_text("one\ntwo\n")
        assert not folder.withdraw()
    assert (tmp_path / "run" / sent).exists()


def test_evidence_against_a_client_does_not_keep_a_start_that_charged_nothing(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", load_config()) as folder:
        folder.blamed_path.write_bytes(b"\x90")
        assert folder.withdraw()
        assert folder.blamed_path.exists()  # it holds for whatever runs here next
        assert not folder.config_path.exists()
    with RunFolder(tmp_path / "run", load_config()) as folder:
        assert folder.blamed_path.read_bytes() == b"\x90"


def test_second_start_takes_nothing_away(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", load_config()).close()
    with RunFolder(tmp_path / "run", load_config()) as folder:
        assert not folder.withdraw()


def test_start_that_was_killed_at_once_is_begun_again(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", load_config()).close()
    for name in ("config.toml", "federation.id"):
        (tmp_path / "run" / name).unlink()
    (tmp_path / "run" / ".federation.id.x7").write_text("half")
    RunFolder(tmp_path / "run", load_config(None, ["privacy.flip=0.2"])).close()


def test_folder_without_a_name_is_not_named_anew(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", load_config()).close()
    (tmp_path / "run" / "federation.id").unlink()
    with pytest.raises(RunFolderError, match=r"federation\.id is gone.*put it back"):
        RunFolder(tmp_path / "run", load_config())
    assert not (tmp_path / "run" / "federation.id").exists()


def test_number_of_workers_may_change(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", load_config()).close()
    RunFolder(tmp_path / "run", load_config(None, ["federation.workers=1"])).close()


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="not a run"):
        RunFolder(tmp_path, load_config())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunFolderError, match="it is a file"):
        RunFolder(tmp_path / "thesis.tex", load_config())


def test_damaged_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"no config\.toml"):
        read_config(tmp_path)
    (tmp_path / "config.toml").write_text("[privacy]\nflop = 1\n")
    with pytest.raises(RunFolderError, match="damaged"):
        read_config(tmp_path)
