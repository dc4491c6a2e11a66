"""The outbox: one round, one release, whatever is killed and whoever asks again."""

import hashlib
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from prism_privacy.durable_files import replace_file
from prism_privacy.errors import InvalidParameter, OutboxError, ReleaseConflict
from prism_privacy.masks.coins import CoinSecret, release_bits
from prism_privacy.masks.fixed_point import SCALE
from prism_privacy.masks.outbox import Outbox


def test_a_retry_sends_the_same_bytes_and_another_release_is_refused(tmp_path):
    outbox = Outbox(tmp_path / "client")
    assert outbox.stored("fed", 3) is None
    assert outbox.keep("fed", 3, b"first") == b"first"
    assert outbox.keep("fed", 3, bytearray(b"first")) == b"first"
    with pytest.raises(ReleaseConflict, match="round 3 of 'fed' was sent with other bytes"):
        outbox.keep("fed", 3, b"second")
    for again in (outbox, Outbox(tmp_path / "client")):
        assert again.stored("fed", 3) == b"first"
    assert outbox.keep("fed", 4, b"second") == b"second"
    assert outbox.keep("other", 3, b"third") == b"third"
    assert outbox.rounds("fed") == (3, 4)
    assert outbox.rounds("nobody") == ()
    assert "client" in repr(outbox)


def test_an_empty_upload_is_an_upload(tmp_path):
    outbox = Outbox(tmp_path / "client")
    outbox.keep("fed", 0, b"")
    assert outbox.stored("fed", 0) == b""
    with pytest.raises(ReleaseConflict):
        outbox.keep("fed", 0, b"x")


def test_a_settled_round_forgets_its_bits_and_still_refuses_others(tmp_path):
    outbox = Outbox(tmp_path / "client")
    outbox.keep("fed", 1, b"secret bits")
    outbox.settle("fed", 1)
    outbox.settle("fed", 1)
    assert not any(b"secret bits" in file.read_bytes() for file in tmp_path.rglob("*.upload"))
    assert outbox.rounds("fed") == (1,)
    with pytest.raises(OutboxError, match="settled"):
        outbox.stored("fed", 1)
    with pytest.raises(ReleaseConflict):
        outbox.keep("fed", 1, b"other bits")
    assert outbox.keep("fed", 1, b"secret bits") == b"secret bits"
    with pytest.raises(OutboxError, match="no upload to settle"):
        outbox.settle("fed", 2)


def test_the_digest_of_what_was_sent_outlives_the_bits_and_damage_is_told(tmp_path):
    outbox = Outbox(tmp_path / "client")
    assert outbox.digest("fed", 1) is None
    outbox.keep("fed", 1, b"bits")
    for _ in range(2):
        assert outbox.digest("fed", 1) == hashlib.sha256(b"bits").digest()
        outbox.settle("fed", 1)
    (path,) = (tmp_path / "client").glob("*/*.upload")
    path.unlink()
    path.mkdir()
    with pytest.raises(OutboxError, match="cannot be read"):
        outbox.digest("fed", 1)


def test_uploads_are_for_their_owner_only(tmp_path):
    old = os.umask(0)
    try:
        Outbox(tmp_path / "client").keep("../../etc/Fed", 1, b"bits")
    finally:
        os.umask(old)
    paths = [tmp_path / "client", *(tmp_path / "client").rglob("*")]
    assert [stat.S_IMODE(p.stat().st_mode) for p in paths] == [0o700, 0o700, 0o600]
    (tmp_path / "client").chmod(0o755)
    with pytest.raises(OutboxError, match="mode 0755"):
        Outbox(tmp_path / "client")
    (tmp_path / "file").touch()
    with pytest.raises(OutboxError, match="cannot be used"):
        Outbox(tmp_path / "file")


def test_a_damaged_file_stops_the_round_instead_of_allowing_a_second_release(tmp_path):
    outbox = Outbox(tmp_path / "client")
    outbox.keep("fed", 1, b"some bits")
    outbox.keep("fed", 2, b"some bits")
    outbox.settle("fed", 2)
    for file in (tmp_path / "client").rglob("*.upload"):
        number = int(file.stem)
        good = file.read_bytes()
        for bad in (
            b"",
            good[:-1],
            good[:20],
            good + b"x",
            good.replace(b"v1", b"v2"),
            good[:24] + b"Z" + good[25:],
        ):
            file.write_bytes(bad)
            for action in (
                lambda n=number: outbox.stored("fed", n),
                lambda n=number: outbox.keep("fed", n, b"some bits"),
                lambda n=number: outbox.settle("fed", n),
            ):
                with pytest.raises(OutboxError, match="damaged"):
                    action()
        file.write_bytes(good)


@pytest.mark.parametrize(
    ("federation", "round_number", "payload"),
    [("", 1, b""), (None, 1, b""), ("f", -1, b""), ("f", True, b""), ("f", 1.0, b""), ("f", 1, "text")],
)
def test_arguments_of_another_form_are_refused(tmp_path, federation, round_number, payload):
    with pytest.raises(InvalidParameter):
        Outbox(tmp_path / "client").keep(federation, round_number, payload)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_when_it_cannot_be_kept_it_counts_as_not_sent(tmp_path, monkeypatch, step):
    outbox = Outbox(tmp_path / "client")
    outbox.keep("fed", 0, b"earlier")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(OSError, match="No space"):
            outbox.keep("fed", 1, b"bits")
    assert outbox.stored("fed", 1) is None
    assert outbox.keep("fed", 1, b"other bits") == b"other bits"


HERE = Path(__file__).parent


def test_a_client_killed_at_any_moment_never_sends_two_releases_for_one_round(tmp_path):
    command = [sys.executable, HERE / "killed.py", "endless", "send", "10", tmp_path / "c"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    sent: dict[int, set[bytes]] = {}
    times = 0
    for line in done.stdout.splitlines():
        if line != b"killed":
            number, payload = line.split()
            sent.setdefault(int(number), set()).add(payload)
            times += 1
    assert times > len(sent) > 20, "rounds were sent again after a kill"
    assert all(len(payloads) == 1 for payloads in sent.values())
    assert Outbox(tmp_path / "c").rounds("fed")[: len(sent)] == tuple(sorted(sent))


def test_resume_with_the_stored_secret_draws_the_same_upload_and_is_a_retry(tmp_path):
    CoinSecret.create(tmp_path / "coins")
    p = np.random.default_rng(0).integers(0, SCALE + 1, 10_000, dtype=np.uint32)
    outbox = Outbox(tmp_path / "client")
    uploads = set()
    for _ in range(2):
        coins = CoinSecret.load(tmp_path / "coins").stream("fed", 1, bytes(32), "mask")
        uploads.add(outbox.keep("fed", 1, np.packbits(release_bits(p, coins)).tobytes()))
    assert len(uploads) == 1
    other_model = CoinSecret.load(tmp_path / "coins").stream("fed", 1, bytes(31) + b"\1", "mask")
    with pytest.raises(ReleaseConflict):
        outbox.keep("fed", 1, np.packbits(release_bits(p, other_model)).tobytes())


def test_two_writers_of_one_client_agree_on_one_release(tmp_path):
    """Threads stand for processes: the lock belongs to an open directory, not to a process."""
    sent: dict[int, list[bytes]] = {number: [] for number in range(60)}
    barrier = Barrier(2)

    def client(own):
        outbox = Outbox(tmp_path / "c")
        try:
            for number in sent:
                barrier.wait()
                packed = outbox.stored("fed", number)
                if packed is None:
                    try:
                        packed = outbox.keep("fed", number, own + bytes([number]))
                    except ReleaseConflict:
                        packed = outbox.stored("fed", number)
                sent[number].append(packed)
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(client, b"one"), pool.submit(client, b"two")]:
            done.result()
    assert all(len(packed) == 2 and len(set(packed)) == 1 for packed in sent.values())


def test_what_a_killed_writer_left_is_not_read_and_goes_when_the_round_is_settled(tmp_path):
    outbox = Outbox(tmp_path / "client")
    outbox.keep("fed", 1, b"bits")
    outbox.keep("fed", 11, b"bits")
    (upload,) = (tmp_path / "client").rglob("00000001.upload")
    left = upload.with_name(f".{upload.name}.0123456789abcdef.tmp")
    other = upload.with_name(".00000011.upload.0123456789abcdef.tmp")
    left.write_bytes(b"bits")
    other.write_bytes(b"bits")
    assert outbox.rounds("fed") == (1, 11)
    outbox.settle("fed", 1)
    assert not left.exists()
    assert other.exists()


def test_two_writers_of_one_file_leave_one_of_their_contents_whole(tmp_path):
    """Each round both write one file at once; with a shared temporary name one would lose its own."""
    path = tmp_path / "file"
    contents = [bytes([letter]) * 300_000 for letter in b"ab"]
    barrier = Barrier(2)

    def write(content):
        for _ in range(50):
            barrier.wait(timeout=60)
            replace_file(path, content, mode=0o600)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(write, content) for content in contents]:
            done.result(timeout=120)
    assert path.read_bytes() in contents
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
