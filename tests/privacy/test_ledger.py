"""The ledger: what was appended is there, what was not is refused, and a kill leaves it whole."""

import copy
import json
import math
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from prism_privacy.accounting.accountant import Accountant
from prism_privacy.accounting.budget import Budget
from prism_privacy.errors import InvalidParameter, LedgerError
from prism_privacy.ledger import Ledger, verify_ledger
from prism_privacy.ledger import writer as ledger_module
from prism_privacy.ledger.disclosure import disclosure
from prism_privacy.ledger.entry import (
    LedgerEntry,
    RecordGuarantee,
    Spent,
    delta_warnings,
    from_json_safe,
    json_safe,
)
from prism_privacy.ledger.key import LedgerKey
from prism_privacy.ledger.line import ZERO_HASH, _signed, encode_line, line_hash
from prism_privacy.ledger.spent_table import spent_table
from prism_privacy.masks.release import MaskRelease
from prism_privacy.moments.release import MomentRelease
from prism_privacy.units import Adjacency, View
from prism_privacy.verify import main

RELEASE = MaskRelease(flip=0.25, clip=1.0, space="probability", cohort=8)


def table(round_number=1, upload=math.inf):
    return {
        (view, adjacency): Spent(
            upload if view is View.UPLOAD else 0.5,
            0.5 * round_number,
            planned=20.0 if view is View.SUM else None,
        )
        for view in View
        for adjacency in Adjacency
    }


def add(ledger, round_number, **more):
    arguments = {"release": RELEASE, "delta": 1e-5, "epsilon": table(round_number), "colluders": 2}
    return ledger.append(round=round_number, **arguments | more)


@pytest.fixture
def key():
    return LedgerKey()


@pytest.fixture
def written(tmp_path, key):
    path = tmp_path / "ledger.jsonl"
    with Ledger.create(path, key, federation="fed", clients=10, records=1000) as ledger:
        for number in range(1, 6):
            add(ledger, number, metrics={"fid": 100.0 / number})
    return path


def test_what_was_appended_comes_back_the_same_when_opened_and_when_verified(tmp_path, key):
    path = tmp_path / "ledger.jsonl"
    record = RecordGuarantee("swap", 2.0, 1e-5, {"sigma": 0.002})
    metrics = {
        "fid": np.float32(99.5),
        "kid": math.inf,
        "low": -math.inf,
        "bad": math.nan,
        "n": np.int64(3),
        "ok": True,
        "names": ("a", None),
        "nested": {"x": 1},
        "flag": np.bool_(True),
    }
    with Ledger.create(path, key, federation="fed", settings={"top": math.inf}) as ledger:
        first = add(ledger, 0, kind="moments", epsilon=None, record=record)
        second = add(ledger, 1, metrics=metrics, record=record, cohort=7)
        third = add(ledger, 1, kind="aborted")
        kept = ledger.entries
        assert ledger.path == path
        assert "3 entries" in repr(ledger)
    assert kept == (first, second, third)
    report = verify_ledger(path, key.public_key)
    assert report.entries == kept
    assert report.lines == 4
    assert report.pinned
    assert report.end_checked
    assert not report.complete
    assert report.federation == "fed"
    assert report.settings == {"top": "inf"}
    with Ledger.open(path, key) as again:
        assert again.entries == kept
        assert again.head == report.head
        add(again, 2, kind="end")
    assert verify_ledger(path).complete
    assert second.cohort == 7
    assert second.metrics == {
        "fid": 99.5,
        "kid": "inf",
        "low": "-inf",
        "bad": "nan",
        "n": 3,
        "ok": True,
        "names": ["a", None],
        "nested": {"x": 1},
        "flag": True,
    }


def test_a_line_shows_everything_a_reader_needs_and_infinity_in_words(written):
    header, first = (json.loads(line)["body"] for line in written.read_text().splitlines()[:2])
    assert header["units"]["client"].startswith("everything that one client contributes")
    assert "one image" in header["units"]["record"]
    assert first["release"] == {
        "flip": 0.25,
        "clip": 1.0,
        "cohort": 8,
        "space": "probability",
        "dim": None,
        "sum_failure": 0.0,
    }
    assert (first["cohort"], first["colluders"], first["delta"], first["coins"]) == (8, 2, 1e-5, "secret")
    assert first["epsilon"]["upload"]["zero_out"]["round"] == "inf"
    assert first["epsilon"]["sum"]["replace_one"] == {
        "round": 0.5,
        "to_date": 0.5,
        "planned": 20.0,
        "budget": None,
        "bound": None,
        "added": None,
    }
    for line in written.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def replaced(line, old, new):
    assert line.count(old) == 1
    return line.replace(old, new)


EDITS = {
    "a character of the first entry": lambda lines: [
        lines[0],
        replaced(lines[1], b"1e-05", b"2e-05"),
        *lines[2:],
    ],
    "the last entry": lambda lines: [*lines[:-1], replaced(lines[-1], b'fid":20.0', b'fid":10.0')],
    "the header": lambda lines: [lines[0].replace(b'"clients":10', b'"clients":99'), *lines[1:]],
    "a removed line": lambda lines: [*lines[:2], *lines[3:]],
    "the removed first entry": lambda lines: [lines[0], *lines[2:]],
    "the removed last line": lambda lines: lines[:-1],
    "the removed last two lines": lambda lines: lines[:-2],
    "all entries removed": lambda lines: lines[:1],
    "a removed header": lambda lines: lines[1:],
    "swapped lines": lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
    "swapped last lines": lambda lines: [*lines[:4], lines[5], lines[4]],
    "a repeated line": lambda lines: [*lines, lines[-1]],
    "an inserted empty line": lambda lines: [*lines[:3], b"", *lines[3:]],
    "a blank at the end of a line": lambda lines: [*lines[:-1], lines[-1] + b" "],
    "other spacing": lambda lines: [*lines[:-1], json.dumps(json.loads(lines[-1]), sort_keys=True).encode()],
    "a doubled key": lambda lines: [*lines[:-1], lines[-1].replace(b'{"body":{', b'{"body":{"coins":"x",')],
    "a removed signature": lambda lines: [*lines[:-1], lines[-1][: lines[-1].index(b',"signature"')] + b"}"],
    "a zeroed signature": lambda lines: [*lines[:-1], lines[-1][:-130] + b"0" * 128 + b'"}'],
    "a signature of another line": lambda lines: [*lines[:-1], lines[-1][:-130] + lines[-2][-130:]],
    "an infinity as a JSON constant": lambda lines: [*lines[:-1], lines[-1].replace(b'"inf"', b"Infinity")],
    "a line of nothing but brackets": lambda lines: [*lines[:-1], b"[" * 100_000],
    "a line of null bytes": lambda lines: [*lines[:-1], b"\0" * 50],
    "a line that is a list": lambda lines: [*lines[:-1], b"[1]"],
    "a line whose body is a list": lambda lines: [*lines[:-1], b'{"body":[],"signature":"00"}'],
    "a third field": lambda lines: [*lines[:-1], b'{"also":1,"body":{},"signature":"00"}'],
}


@pytest.mark.parametrize("edit", EDITS)
def test_any_edit_of_whole_lines_is_refused_with_its_line(written, key, edit):
    lines = written.read_bytes().splitlines()
    changed = EDITS[edit](lines)
    assert changed != lines
    written.write_bytes(b"".join(line + b"\n" for line in changed))
    for check in (
        lambda: verify_ledger(written),
        lambda: verify_ledger(written, key),
        lambda: Ledger.open(written, key),
    ):
        with pytest.raises(LedgerError) as caught:
            check()
        first_wrong = next(
            (i for i, (a, b) in enumerate(zip(lines, changed, strict=False), 1) if a != b),
            min(len(lines), len(changed)) + 1,
        )
        assert caught.value.line == first_wrong
        assert f"line {first_wrong}" in str(caught.value)


def test_every_single_byte_matters(written, key):
    content = written.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.choice(len(content), 400, replace=False).tolist():
        changed = bytearray(content)
        changed[position] ^= 1 << int(rng.integers(8))
        written.write_bytes(bytes(changed))
        if content[position : position + 1] == b"\n" and position == len(content) - 1:
            continue
        with pytest.raises(LedgerError):
            verify_ledger(written, key)


def test_a_ledger_rewritten_with_another_key_is_refused_by_whoever_knows_the_key(written, key, tmp_path):
    forged = tmp_path / "forged.jsonl"
    with Ledger.create(forged, LedgerKey(), federation="fed") as ledger:
        add(ledger, 1)
    assert not verify_ledger(forged).pinned
    with pytest.raises(LedgerError, match=r"line 1: written with key .* expected") as caught:
        verify_ledger(forged, key)
    assert caught.value.line == 1
    with pytest.raises(LedgerError, match="line 1: written with key"):
        Ledger.open(forged, key)
    written.write_bytes(forged.read_bytes())
    with pytest.raises(LedgerError):
        verify_ledger(written, key)


def test_a_line_signed_by_somebody_else_is_refused(written, key):
    lines = written.read_bytes().splitlines()
    body = json.loads(lines[-1])["body"]
    forged = encode_line(LedgerKey(), body | {"delta": 1e-6}, index=body["index"], previous=body["previous"])
    written.write_bytes(b"".join(line + b"\n" for line in [*lines[:-1], forged]))
    with pytest.raises(LedgerError, match="line 6: the signature is not that of key") as caught:
        verify_ledger(written, key)
    assert caught.value.line == 6


def resign(path, key, changes, line=2, index=None, previous=None):
    """What only the writer could do: sign a line that breaks the rules."""
    lines = path.read_bytes().splitlines()[:line]
    body = json.loads(lines[-1])["body"] | changes
    body = {k: v for k, v in body.items() if v is not ...}
    place = {
        "index": line - 1 if index is None else index,
        "previous": (line_hash(lines[-2]) if line > 1 else ZERO_HASH) if previous is None else previous,
    }
    lines[-1] = _signed(key, "line", body | place)
    path.write_bytes(b"".join(x + b"\n" for x in lines))
    path.with_name(path.name + ".head").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": 1}, "fields missing or unknown: extra"),
        ({"delta": ...}, "fields missing or unknown: delta"),
        ({"kind": "other"}, "kind"),
        ({"coins": "found"}, "coins"),
        ({"coins": "test"}, "test coins"),
        ({"round": -1}, "round"),
        ({"round": 1.5}, "round"),
        ({"cohort": 0}, "cohort"),
        ({"delta": 0}, "delta"),
        ({"colluders": -1}, "colluders"),
        ({"epsilon": {}}, "both views"),
        ({"epsilon": []}, "not an entry"),
        ({"epsilon": {"sum": {"zero_out": {"round": -1, "to_date": 1}}}}, "negative"),
        ({"epsilon": {"sum": {"zero_out": {"round": "nan", "to_date": 1}}}}, "number"),
        ({"epsilon": {"x": {"zero_out": {}}}}, "not an entry"),
        ({"epsilon": {"sum": {"zero_out": {"a": 1}}}}, "not an"),
        ({"record": {"epsilon": 1}}, "not an entry"),
        ({"metrics": []}, "metrics"),
        ({"release": None}, "release"),
        ({"record": {"adjacency": "swap", "epsilon": -1, "delta": 1e-5, "release": {}}}, "negative"),
    ],
)
def test_even_the_writer_cannot_sign_a_line_outside_the_schema(written, key, changes, message):
    resign(written, key, changes)
    with pytest.raises(LedgerError, match=f"line 2: .*{message}"):
        verify_ledger(written, key)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "round"}, "fields are not"),
        ({"clients": ...}, "fields are not"),
        ({"settings": ["secure_sum", "not run"]}, "settings must be an object"),
        ({"public_key": 5}, "no public key"),
        ({"public_key": "zz"}, "public_key must be"),
    ],
)
def test_a_header_outside_the_schema_is_refused(written, key, changes, message):
    resign(written, key, changes, line=1)
    with pytest.raises(LedgerError, match=f"line 1: .*{message}"):
        verify_ledger(written)


def test_positions_and_versions_are_part_of_the_signature(written, key):
    resign(written, key, {}, line=3, index=7)
    with pytest.raises(LedgerError, match="line 3: it was written as line 8"):
        verify_ledger(written, key)
    resign(written, key, {}, line=3, index="x")
    with pytest.raises(LedgerError, match="line 3: it was written as line 'x'"):
        verify_ledger(written, key)
    resign(written, key, {}, line=3, previous=ZERO_HASH)
    with pytest.raises(LedgerError, match="line 3: the line before it is not"):
        verify_ledger(written, key)
    resign(written, key, {}, line=2)
    for line, message in ((2, "line 2: version 'prism-privacy/v2/ledger', expected"), (1, "line 1: version")):
        resign(written, key, {"version": "prism-privacy/v2/ledger"}, line=line)
        with pytest.raises(LedgerError, match=message):
            verify_ledger(written, key)


def test_rounds_never_go_back_and_nothing_follows_the_end(written, key):
    with Ledger.open(written, key) as ledger:
        with pytest.raises(InvalidParameter, match="round 4 cannot follow round 5"):
            add(ledger, 4)
        add(ledger, 5, kind="aborted")
        add(ledger, 5, kind="end")
        with pytest.raises(LedgerError, match="ended"):
            add(ledger, 6)
    assert verify_ledger(written, key).lines == 8
    resign(written, key, {"round": 0}, line=3)
    with pytest.raises(LedgerError, match="line 3: round 0 cannot follow round 1"):
        verify_ledger(written, key)


def test_a_line_after_the_end_is_refused(written, key):
    resign(written, key, {"kind": "end"}, line=2)
    lines = written.read_bytes().splitlines()
    body = json.loads(lines[1])["body"] | {"kind": "round"}
    after = encode_line(key, body, index=2, previous=line_hash(lines[1]))
    written.write_bytes(written.read_bytes() + after + b"\n")
    with pytest.raises(LedgerError, match="line 3: it follows the line that ended"):
        verify_ledger(written, key)


@pytest.mark.parametrize("length", [1, 10, 400])
def test_a_torn_last_line_is_ignored_by_readers_and_cut_off_by_the_next_writer(written, key, length):
    whole = written.read_bytes()
    torn = whole.splitlines()[-1][:length]
    written.write_bytes(whole + torn)
    report = verify_ledger(written, key)
    assert (report.lines, report.torn_bytes) == (6, length)
    assert written.read_bytes() == whole + torn
    with Ledger.open(written, key) as ledger:
        assert written.read_bytes() == whole
        add(ledger, 6)
    assert verify_ledger(written, key).lines == 7


def test_cutting_the_last_newline_cannot_pass_for_a_torn_line(written, key):
    written.write_bytes(written.read_bytes()[:-1])
    with pytest.raises(LedgerError, match="line 6: missing; 6 lines were written and 5 are here"):
        verify_ledger(written, key)


def test_a_writer_killed_between_line_and_head_loses_nothing(written, key):
    head = written.with_name("ledger.jsonl.head")
    behind = head.read_bytes()
    with Ledger.open(written, key) as ledger:
        add(ledger, 6)
    head.write_bytes(behind)
    assert verify_ledger(written, key).lines == 7
    with Ledger.open(written, key) as ledger:
        assert ledger.entries[-1].round == 6
    assert head.read_bytes() != behind


def test_a_head_that_is_older_missing_foreign_or_broken_is_named(written, key):
    head = written.with_name("ledger.jsonl.head")
    good = head.read_bytes()
    with Ledger.open(written, key) as ledger:
        add(ledger, 6)
        add(ledger, 7)
    head.write_bytes(good)
    with pytest.raises(LedgerError, match="belongs to another state"):
        verify_ledger(written, key)
    for content, message in (
        (b"", "canonical"),
        (good.replace(b'"lines":6', b'"lines":8'), "signature"),
        (encode_line(key, {}, index=0, previous=ZERO_HASH), "signature"),
        (_signed(key, "head", {"lines": "6", "hash": "x"}), "how many lines"),
    ):
        head.write_bytes(content)
        with pytest.raises(LedgerError, match=message):
            verify_ledger(written, key)
    head.unlink()
    assert not verify_ledger(written, key).end_checked
    with pytest.raises(LedgerError, match="is missing: lines at the end"):
        Ledger.open(written, key)


def test_a_ledger_that_is_gone_is_not_begun_anew_while_its_head_counts_entries(written, key):
    kept = written.read_bytes()
    written.unlink()
    for writer in (key, LedgerKey()):
        with pytest.raises(LedgerError, match="is gone, but its head file counts 6 lines: put it back"):
            Ledger.create(written, writer, federation="f")
    assert not written.exists()
    written.write_bytes(kept)
    with Ledger.open(written, key) as ledger:
        assert len(ledger.entries) == 5


def test_a_creation_that_was_killed_between_head_and_ledger_is_made_again(tmp_path, key):
    path = tmp_path / "ledger.jsonl"
    Ledger.create(path, key, federation="f").close()
    path.unlink()
    with Ledger.create(path, key, federation="f") as ledger:
        add(ledger, 1)
    assert verify_ledger(path, key).lines == 2
    path.unlink()
    path.with_name("ledger.jsonl.head").write_bytes(b"junk")
    with pytest.raises(LedgerError, match="is not the head file of a ledger"):
        Ledger.create(path, key, federation="f")


def test_a_head_written_down_shows_that_nothing_before_it_was_cut_off(written, key):
    head = verify_ledger(written, key).head
    with Ledger.open(written, key) as ledger:
        assert ledger.head == head
        add(ledger, 6)
    assert verify_ledger(written, key, head=head).lines == 7
    lines = written.read_bytes().splitlines(keepends=True)
    written.write_bytes(b"".join(lines[:4]))
    written.with_name("ledger.jsonl.head").unlink()
    assert not verify_ledger(written, key).end_checked
    with pytest.raises(LedgerError, match="is not on its chain of 4 lines"):
        verify_ledger(written, key, head=head)


HERE = Path(__file__).parent


def test_a_kill_at_any_moment_leaves_every_acknowledged_entry_and_a_ledger_that_goes_on(tmp_path):
    path, key_path = tmp_path / "ledger.jsonl", tmp_path / "key.pem"
    key = LedgerKey.create(key_path)
    Ledger.create(path, key, federation="fed").close()
    command = [sys.executable, HERE / "killed.py", "endless", "append", "10", path, key_path]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    report = verify_ledger(path, key)
    assert [entry.round for entry in report.entries] == list(range(1, report.lines))
    rounds, killed = [0], 0
    for line in done.stdout.split():
        if line == b"killed":
            killed += 1
            # the child after a kill found what was acknowledged before it, and at most one entry more
            continue
        assert rounds[-1] < int(line) <= rounds[-1] + 2
        rounds.append(int(line))
    assert killed == 10
    assert rounds[-1] <= report.lines - 1 <= rounds[-1] + 1
    with Ledger.open(path, key) as ledger:
        add(ledger, len(ledger.entries) + 1)


def test_only_one_writer_at_a_time(written, key):
    with Ledger.open(written, key), pytest.raises(LedgerError, match="another process"):
        Ledger.open(written, key)
    Ledger.open(written, key).close()


@pytest.mark.parametrize("step", ["write", "fsync", "head"])
def test_a_full_disk_leaves_the_ledger_at_its_last_whole_line(written, key, monkeypatch, step):
    before = written.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    with Ledger.open(written, key) as ledger:
        with monkeypatch.context() as patch:
            if step == "head":
                patch.setattr(ledger_module, "replace_file", full)
            elif step == "fsync":
                patch.setattr(os, "fsync", full)
            else:
                real_write = os.write
                patch.setattr(
                    os, "write", lambda fd, data: real_write(fd, data[:7]) if len(data) > 999 else full()
                )
            with pytest.raises(OSError, match="No space"):
                add(ledger, 6, metrics={"note": "x" * 990})
        assert written.read_bytes() == before
        assert verify_ledger(written, key).lines == 6
        add(ledger, 6)
    assert verify_ledger(written, key).lines == 7


def test_a_missing_or_foreign_file_is_one_clear_error(tmp_path, key):
    with pytest.raises(LedgerError, match="cannot be read: No such file"):
        verify_ledger(tmp_path / "none")
    with pytest.raises(LedgerError, match="does not exist"):
        Ledger.open(tmp_path / "none", key)
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(LedgerError, match="no header line"):
        verify_ledger(empty)
    empty.write_text("fid,epsilon\n1,2\n")
    with pytest.raises(LedgerError, match="line 1: not a signed entry"):
        verify_ledger(empty)
    with pytest.raises(LedgerError, match="exists already"):
        Ledger.create(empty, key, federation="fed")


def test_a_bad_entry_is_refused_before_anything_is_written(written, key):
    before = written.read_bytes()
    with Ledger.open(written, key) as ledger:
        for bad in (
            {"delta": 0.0},
            {"delta": 1.0},
            {"epsilon": {}},
            {"colluders": -1},
            {"cohort": 0},
            {"kind": "other"},
            {"metrics": {"x": object()}},
            {"metrics": {1: 2}},
            {"release": {"a": math.nan}},
            {"coins": "test"},
            {"coins": "known", "epsilon": None},
            {"release": {"cohort": None}},
            {"epsilon": dict.fromkeys(table(), 1.0)},
            {"record": {"epsilon": 1.0}},
        ):
            with pytest.raises(InvalidParameter):
                add(ledger, 6, **bad)
        assert written.read_bytes() == before
    ledger.close()
    with pytest.raises(LedgerError, match="is closed"):
        add(ledger, 6)
    with pytest.raises(InvalidParameter, match="federation"):
        Ledger.create(written.with_name("other"), key, federation="")


@pytest.mark.parametrize(
    "values", [(-1.0, 1.0), (math.nan, 1.0), (1.0, "x"), (1.0, 1.0, -2.0), (None, 1.0), (1, 1, 1, 1, 1)]
)
def test_an_epsilon_that_is_no_number_or_negative_is_refused(values):
    with pytest.raises(InvalidParameter):
        Spent(*values)


@pytest.mark.parametrize(
    "values",
    [("swap", 1.0, 0.0, {}), ("swap", -1.0, 0.1, {}), ("neighbour", 1.0, 0.1, {}), ("swap", 1.0, 0.1, None)],
)
def test_a_record_guarantee_that_is_none_is_refused(values):
    with pytest.raises(InvalidParameter):
        RecordGuarantee(*values)


def test_the_record_level_guarantee_stands_beside_the_client_level_one(written, key):
    release = MomentRelease(1000, 1.0, 0.0, "add_remove")
    with Ledger.open(written, key) as ledger:
        add(ledger, 6, record=RecordGuarantee.of(release, 1e-5))
    line = json.loads(written.read_bytes().splitlines()[-1])["body"]
    assert line["record"]["epsilon"] == "inf"
    assert line["epsilon"]["sum"]["zero_out"]["to_date"] == 3.0
    again = verify_ledger(written, key).entries[-1].record
    assert again.epsilon == math.inf
    assert MomentRelease(**again.release) == release
    header = json.loads(written.read_bytes().splitlines()[0])["body"]
    assert header["units"]["add_remove"].startswith("one record is added or removed")


def test_numpy_numbers_are_written_as_plain_ones(written, key):
    with Ledger.open(written, key) as ledger:
        entry = add(ledger, np.int64(6), cohort=np.int32(5), colluders=np.int64(1), delta=np.float64(1e-6))
    assert verify_ledger(written, key).entries[-1] == entry
    assert type(entry.round) is int


def test_known_coins_claim_no_epsilon(written, key):
    with Ledger.open(written, key) as ledger:
        entry = add(ledger, 6, coins="test", epsilon=None)
    assert verify_ledger(written, key).entries[-1] == entry
    assert json.loads(written.read_bytes().splitlines()[-1])["body"]["epsilon"] is None


def test_a_delta_that_gives_somebody_away_is_warned_about_in_the_line_and_the_report(tmp_path, key):
    assert delta_warnings(1e-5, None, None) == ()
    assert len(delta_warnings(0.1, 10, 10)) == 2
    with Ledger.create(tmp_path / "l", key, federation="fed", clients=10, records=1000) as ledger:
        assert add(ledger, 1, delta=0.0009).warnings == ()
        assert "1/records = 0.001" in add(ledger, 2, delta=0.001).warnings[0]
        assert len(add(ledger, 3, delta=0.1).warnings) == 2
        assert len(add(ledger, 4, delta=0.1).warnings) == 2
    assert len(verify_ledger(tmp_path / "l").warnings) == 3


def test_the_table_of_epsilons_says_what_the_accountant_says(tmp_path, key):
    accountant = Accountant(delta=1e-5)
    accountant.plan(RELEASE, rounds=3)
    budget = Budget(1e4, 1e-5, view=View.SUM, adjacency=Adjacency.ZERO_OUT)
    with Ledger.create(tmp_path / "l", key, federation="fed") as ledger:
        for number in range(1, 5):
            accountant.spend(RELEASE)
            ledger.append(
                round=number, release=RELEASE, delta=1e-5, epsilon=spent_table(accountant, RELEASE, budget)
            )
    alone = Accountant(delta=1e-5)
    alone.spend(RELEASE)
    planned = Accountant(delta=1e-5)
    planned.spend(RELEASE, rounds=3)
    entries = verify_ledger(tmp_path / "l").entries
    for view in View:
        for adjacency in Adjacency:
            cells = [entry.epsilon[view, adjacency] for entry in entries]
            once, whole = alone.guarantee(view, adjacency), planned.epsilon(view, adjacency)
            assert [cell.round for cell in cells] == [once.epsilon] * 4
            assert cells[0].to_date == once.epsilon
            assert cells[0].bound == once.bound
            assert cells[2].to_date == whole
            # the fourth round is beyond the plan: no planned guarantee holds then
            assert [cell.planned for cell in cells] == [whole, whole, whole, None]
    assert entries[0].epsilon[View.SUM, Adjacency.ZERO_OUT].budget == 1e4
    assert entries[0].epsilon[View.SUM, Adjacency.REPLACE_ONE].budget is None


def test_the_key_file_is_private_and_the_key_never_spreads(tmp_path):
    path = tmp_path / "key.pem"
    key = LedgerKey.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert LedgerKey.load(path).public_key == key.public_key
    secret = key._private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    assert secret.hex() not in repr(key)
    for spread in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(LedgerError, match="cannot be pickled"):
            spread(key)
    with pytest.raises(LedgerError, match="exists already"):
        LedgerKey.create(path)
    path.chmod(0o644)
    with pytest.raises(LedgerError, match="mode 0644"):
        LedgerKey.load(path)


def test_what_is_no_ed25519_key_is_refused(tmp_path):
    other = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content in (b"", b"no pem", other):
        path = tmp_path / "key"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(LedgerError, match="does not hold an Ed25519"):
            LedgerKey.load(path)


def test_the_public_key_may_be_given_in_any_form(written, key):
    as_object = Ed25519PublicKey.from_public_bytes(key.public_key)
    for form in (key, key.public_key, key.public_key.hex(), as_object):
        assert Ledger.verify(written, form).pinned
    for form in (b"short", "zz", "ab", 7):
        with pytest.raises(InvalidParameter, match="public_key"):
            Ledger.verify(written, form)


def test_an_entry_round_trips_through_json_text(written):
    for entry in verify_ledger(written).entries:
        assert LedgerEntry.from_json(json.loads(json.dumps(entry.to_json()))) == entry


def test_an_entry_says_what_it_charged_and_infinity_where_it_claims_nothing(written, tmp_path, key):
    entry = verify_ledger(written).entries[2]
    assert entry.spent("sum", "zero_out") is entry.spent(View.SUM, Adjacency.ZERO_OUT)
    assert entry.spent("sum", "zero_out").to_date == 1.5
    assert entry.spent("upload", "replace_one").round == math.inf
    with pytest.raises(InvalidParameter, match="view"):
        entry.spent("nobody", "zero_out")
    with Ledger.create(tmp_path / "test", key, federation="fed") as ledger:
        silent = add(ledger, 1, coins="test", epsilon=None)
    assert {silent.spent(view, adjacency).to_date for view in View for adjacency in Adjacency} == {math.inf}
    with pytest.raises(InvalidParameter, match="adjacency"):
        silent.spent("sum", "swap")


def test_data_classes_and_torch_scalars_have_a_json_form():
    torch = pytest.importorskip("torch")
    assert json_safe({"a": torch.tensor(2.5), "b": Spent(1.0, math.inf)}, "x") == {
        "a": 2.5,
        "b": {
            "round": 1.0,
            "to_date": "inf",
            "planned": None,
            "budget": None,
            "bound": None,
            "added": None,
        },
    }
    with pytest.raises(InvalidParameter, match=r"x.a\[1\] is NaN"):
        json_safe({"a": [1, math.nan]}, "x")


def test_infinities_and_nan_come_back_from_json_at_any_depth():
    told = {"a": [math.inf, {"b": (-math.inf, 1.5)}], "c": -math.inf, "d": math.inf, "words": "infinite"}
    text = json.dumps(json_safe(told), allow_nan=False)
    assert from_json_safe(json.loads(text)) == told | {"a": [math.inf, {"b": [-math.inf, 1.5]}]}
    (back,) = from_json_safe(json.loads(json.dumps(json_safe([math.nan], nan=True), allow_nan=False)))
    assert math.isnan(back)


def numbered(*names):
    """[(kind, number)] from words like "round 1"."""
    return [(kind, int(number)) for kind, number in (name.split() for name in names)]


@pytest.mark.parametrize(
    "names",
    [
        ["round 1", "round 2", "round 3", "end 3"],
        ["moments 0", "round 1", "end 2"],
        ["moments 1", "round 1"],
        ["round 1", "aborted 1", "round 2"],
        ["round 1", "aborted 2", "aborted 2", "round 2"],
        ["aborted 1", "round 2"],
    ],
)
def test_numbers_without_a_gap_are_taken(tmp_path, key, names):
    with Ledger.create(tmp_path / "l", key, federation="fed") as ledger:
        for kind, number in numbered(*names):
            add(ledger, number, kind=kind)
    assert [(e.kind, e.round) for e in verify_ledger(tmp_path / "l", key).entries] == numbered(*names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["round 0"], "from 1 on"),
        (["aborted 0"], "from 1 on"),
        (["round 2"], "gap"),
        (["round 9"], "gap"),
        (["aborted 2"], "gap"),
        (["end 2"], "gap"),
        (["moments 400"], "gap"),
        (["round 1", "round 1"], "there already"),
        (["round 1", "round 3"], "gap"),
        (["round 1", "round 2", "round 400"], "gap"),
        (["round 1", "aborted 3"], "gap"),
        (["round 1", "aborted 2", "round 4"], "gap"),
        (["round 1", "aborted 1", "round 1"], "there already"),
        (["moments 0", "round 1", "moments 1"], "second entry of kind 'moments'"),
    ],
)
def test_a_gap_or_a_repeat_is_refused_when_written_and_when_read(tmp_path, key, monkeypatch, names, message):
    path = tmp_path / "l"
    *good, (kind, number) = numbered(*names)
    with Ledger.create(path, key, federation="fed") as ledger:
        for word, value in good:
            add(ledger, value, kind=word)
        before = path.read_bytes()
        with pytest.raises(InvalidParameter, match=message):
            add(ledger, number, kind=kind)
        assert path.read_bytes() == before
        monkeypatch.setattr(ledger._order, "check", lambda entry: None)
        add(ledger, number, kind=kind)
    with pytest.raises(LedgerError, match=message) as caught:
        verify_ledger(path, key)
    assert caught.value.line == len(names) + 1


@pytest.mark.parametrize("cell", [(view, adjacency) for view in View for adjacency in Adjacency])
def test_an_epsilon_to_date_that_falls_is_refused_in_every_view(tmp_path, key, monkeypatch, cell):
    path = tmp_path / "l"
    lower = table(3) | {cell: Spent(0.5, 0.99)}
    with Ledger.create(path, key, federation="fed") as ledger:
        add(ledger, 1)
        add(ledger, 2)  # 1.0 to date
        add(ledger, 3, coins="test", epsilon=None)
        for delta in (1e-5, 1e-6):
            with pytest.raises(InvalidParameter, match=f"{cell[0]}, {cell[1]}.* falls from 1 to 0.99"):
                add(ledger, 4, epsilon=lower, delta=delta)
        add(ledger, 4, epsilon=lower, delta=1e-4)  # a larger delta may have the smaller epsilon
        monkeypatch.setattr(ledger._order, "check", lambda entry: None)
        add(ledger, 5, epsilon=lower)
    with pytest.raises(LedgerError, match=r"line 6: .*falls from 1 to 0\.99"):
        verify_ledger(path, key)


def test_what_an_accountant_says_of_mixed_rounds_never_falls(tmp_path, key):
    accountant = Accountant(delta=1e-5)
    releases = [RELEASE, MaskRelease(flip=0.3, clip=0.5, cohort=9), MaskRelease(0.4, None, cohort=8, dim=4)]
    with Ledger.create(tmp_path / "l", key, federation="fed") as ledger:
        for number in range(1, 10):
            accountant.spend(releases[number % 3])
            ledger.append(
                round=number,
                release=releases[number % 3],
                delta=1e-5,
                epsilon=spent_table(accountant, releases[number % 3]),
            )
    assert verify_ledger(tmp_path / "l").lines == 10


def test_a_ledger_states_one_record_level_guarantee(tmp_path, key, monkeypatch):
    path = tmp_path / "l"
    one, other = (RecordGuarantee("swap", epsilon, 1e-5, {"shape": (1, math.inf)}) for epsilon in (2.0, 2.5))
    with Ledger.create(path, key, federation="fed") as ledger:
        add(ledger, 0, kind="moments", record=one)
        add(ledger, 1)
    with Ledger.open(path, key) as ledger:
        add(ledger, 2, record=one)
        with pytest.raises(InvalidParameter, match=r"another record-level guarantee \(epsilon 2.5\)"):
            add(ledger, 3, record=other)
        monkeypatch.setattr(ledger._order, "check", lambda entry: None)
        add(ledger, 3, record=other)
    with pytest.raises(LedgerError, match="line 5: it states another record-level guarantee"):
        verify_ledger(path, key)


def test_order_is_kept_by_a_writer_who_comes_back(written, key):
    with Ledger.open(written, key) as ledger:
        for number, message in ((5, "there already"), (7, "gap")):
            with pytest.raises(InvalidParameter, match=message):
                add(ledger, number)
        with pytest.raises(InvalidParameter, match=r"falls from 2\.5 to 0\.5"):
            add(ledger, 6, epsilon=table(1))
        add(ledger, 6)


def test_an_end_cut_off_with_its_head_file_is_called_unchecked_and_shown_by_a_head_written_down(written, key):
    head = verify_ledger(written, key).head
    lines = written.read_bytes().splitlines(keepends=True)
    written.write_bytes(b"".join(lines[:3]))
    written.with_name("ledger.jsonl.head").unlink()
    report = verify_ledger(written, key)
    assert (report.lines, report.end_checked) == (3, False)
    with pytest.raises(LedgerError, match="is not on its chain"):
        verify_ledger(written, key, head=head)
    with pytest.raises(LedgerError, match="is missing: lines at the end"):
        Ledger.open(written, key)


def test_ledger_written_before_views_and_added_costs_verifies_and_says_neither():
    """The ledger of a run of an older program, as it lay in its folder."""
    path = Path(__file__).with_name("ledger_before_views.jsonl")
    assert b'"added"' not in path.read_bytes()
    assert b'"view"' not in path.read_bytes()
    report = verify_ledger(path)
    assert report.end_checked
    assert [entry.kind for entry in report.entries] == ["moments", "round", "round", "end"]
    for entry in report.entries:
        assert (entry.record.view, entry.record.cohort) == (None, None)
        assert {spent.added for spent in entry.epsilon.values()} == {None}
    assert report.entries[1].epsilon[View.SUM, Adjacency.ZERO_OUT].round > 0, "what its masks cost alone"


@pytest.mark.parametrize(("view", "cohort"), [(View.SUM, 10), (View.UPLOAD, None), (None, None)])
def test_view_of_an_image_and_added_cost_come_back_from_a_line(key, tmp_path, view, cohort):
    record = RecordGuarantee("swap", 2.0, 1e-5, {"sigma": 1.0}, view=view, cohort=cohort)
    cells = {cell: Spent(3.0, 7.0, added=0.0) for cell in table()}
    with Ledger.create(tmp_path / "ledger.jsonl", key, federation="f") as ledger:
        add(ledger, 0, kind="moments", record=record, epsilon={cell: Spent(7.0, 7.0) for cell in cells})
        add(ledger, 1, record=record, epsilon=cells)
    _, entry = verify_ledger(tmp_path / "ledger.jsonl").entries
    assert entry.record == record
    assert entry.epsilon == cells


@pytest.mark.parametrize(
    "wrong",
    [
        {"view": "sum"},
        {"cohort": 3},
        {"view": "upload", "cohort": 3},
        {"view": "both"},
        {"view": "sum", "cohort": 0},
    ],
)
def test_view_without_the_cohort_that_it_counts_on_is_refused(wrong):
    with pytest.raises(InvalidParameter):
        RecordGuarantee("swap", 2.0, 1e-5, {}, **wrong)


def test_added_cost_is_an_epsilon():
    with pytest.raises(InvalidParameter, match="added"):
        Spent(1.0, 1.0, added=-1.0)


@pytest.mark.parametrize(("alone", "added"), [(0.0, 0.1), (1.0, 1.1), (1.0, math.inf)])
def test_a_release_adds_at_most_what_it_costs_alone(written, key, monkeypatch, alone, added):
    with pytest.raises(InvalidParameter, match=f"expected added <= {alone:g}, got {added:g}"):
        Spent(alone, 5.0, added=added)
    cells = {cell: Spent(alone, 5.0) for cell in table()}
    for spent in cells.values():
        object.__setattr__(spent, "added", added)
    with Ledger.open(written, key) as ledger:
        monkeypatch.setattr(ledger._order, "check", lambda entry: None)
        add(ledger, 6, epsilon=cells)
    with pytest.raises(LedgerError, match=r"line 7: a release adds at most"):
        verify_ledger(written, key)


@pytest.mark.parametrize("cell", [(view, adjacency) for view in View for adjacency in Adjacency])
@pytest.mark.parametrize(("added", "rise"), [(0.0, 0.01), (0.0, math.inf), (0.25, 0.5)])
def test_epsilon_to_date_rises_by_no_more_than_a_release_says_it_adds(
    tmp_path, key, monkeypatch, cell, added, rise
):
    path, before = tmp_path / "l", 2.0
    cells = {each: Spent(before, before) for each in table()}
    allowed = cells | {cell: Spent(1.0, before + added, added=added)}
    wrong = cells | {cell: Spent(1.0, before + added + rise, added=added)}
    with Ledger.create(path, key, federation="fed") as ledger:
        with pytest.raises(InvalidParameter, match="rises from 0 to"):
            add(ledger, 1, epsilon=wrong)
        add(ledger, 1, epsilon=cells)
        add(ledger, 2, epsilon=allowed)
        raised = wrong | {cell: Spent(1.0, before + 2 * added + rise, added=added)}
        for delta in (1e-5, 1e-4):  # at a larger delta the same releases cost no more
            with pytest.raises(InvalidParameter, match=f"{cell[0]}, {cell[1]}.* rises from"):
                add(ledger, 3, epsilon=raised, delta=delta)
        monkeypatch.setattr(ledger._order, "check", lambda entry: None)
        add(ledger, 3, epsilon=raised)
    with pytest.raises(LedgerError, match=r"line 4: .*and the entry says it adds"):
        verify_ledger(path, key)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, False),
        ({"secure_sum": "run"}, False),
        ({"own_data": True}, False),
        ({"secure_sum": "not run"}, True),
        ({"secure_sum": "not run", "record_release": "summed"}, True),
    ],
)
def test_a_sum_that_was_not_run_is_a_warning_wherever_the_ledger_is_read(
    tmp_path, key, settings, said, capsys
):
    words, path = "the secure sum was not run: epsilon(SUM) is what it would be with one", tmp_path / "l"
    with Ledger.create(path, key, federation="fed", settings=settings) as ledger:
        add(ledger, 1)
    with Ledger.open(path, key) as ledger:
        assert ledger.settings == settings
    report = verify_ledger(path)
    assert report.sum_not_run is said
    assert (words in report.warnings) is said
    assert (words in disclosure(report)) is said
    assert main([str(path)]) == 0
    assert (f"warning: {words}" in capsys.readouterr().out) is said
