"""Which data a run reads: one key with them, others refused on resume, nothing of it where others read."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prism_privacy import PrivacyError
from prism_secure.config import Config, Data, load_config
from prism_secure.data import fingerprint, load
from prism_secure.data.fingerprint import KEY_FILE, keep_fingerprint
from prism_secure.data.idx import read_idx, write_idx
from prism_secure.data.sources import DataFingerprint, Whose, by_data, read_fingerprint
from prism_secure.errors import DataError, PrismError, RunFolderError
from prism_secure.reporting.progress import Silent
from prism_secure.rounds.simulation import run
from prism_secure.run_folder.export import export_run
from prism_secure.run_folder.records import RoundRecord
from prism_secure.run_folder.run import Run
from prism_secure.sweep.composition import owners

from .tiny_data import TINY, write_data

EXACT = ["privacy.record_epsilon=inf", "privacy.record_release=client", "federation.local_steps=1"]


class Killed(Silent):
    """Ends the run after its first round, as Ctrl-C would."""

    def round_finished(self, record: RoundRecord) -> None:
        raise KeyboardInterrupt


class Told(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def tiny(data: Path | str, *overrides: str) -> Config:
    return load_config(None, [*TINY, *EXACT, f"data.folder={data}", *overrides])


def killed(config: Config, out: Path) -> Path:
    with pytest.raises(KeyboardInterrupt):
        run(config, out, listener=Killed())
    return out


def kept(out: Path) -> DataFingerprint:
    found = read_fingerprint(out)
    assert found is not None
    return found


# The key and what is kept.


def test_key_lies_with_the_data_private_and_is_drawn_once(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: fingerprint._key_of(data), range(32)))
    assert len(keys) == 1
    assert (data / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in data.iterdir() if path.name.startswith(".")] == [KEY_FILE]


def test_what_is_kept_is_absolute_private_and_no_bare_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    dataset = load("idx", folder="data")
    for place in ("a", "b", "c"):
        (tmp_path / place).mkdir()
        if place == "c":
            (tmp_path / "data" / KEY_FILE).unlink()
        data = Data(source="idx", folder="data")
        keep_fingerprint(tmp_path / place, data, dataset, pytest.fail, begun=False)
    a, b, c = (kept(tmp_path / place) for place in ("a", "b", "c"))
    assert a.folder == str((tmp_path / "data").resolve())
    assert (tmp_path / "a" / "data.json").stat().st_mode & 0o777 == 0o600
    assert a == b
    assert not {a.training, a.held_out, a.key} & {c.training, c.held_out, c.key}, (
        "it follows from the images alone"
    )
    assert a.own_key == ""


def test_nothing_of_it_is_where_others_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ledger, card and report, and every other file outside the clients' private part."""
    (tmp_path / "kept-here").mkdir()
    write_data(tmp_path / "kept-here" / "data")
    monkeypatch.chdir(tmp_path / "kept-here")
    out = tmp_path / "run"
    run(tiny("data"), out)
    export_run(out, out / "model.card.safetensors")
    found = kept(out)
    key = (tmp_path / "kept-here" / "data" / KEY_FILE).read_text().strip()
    secrets = [found.folder, "kept-here", found.key, found.training, found.held_out, key]
    for path in out.rglob("*"):
        if path.is_file() and path != out / "clients" / "data.json":
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], path
    assert key not in (out / "clients" / "data.json").read_text(), "key and HMAC lie apart"


def test_read_only_data_are_told_and_still_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: Path, content: bytes, error: type[PrivacyError]) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    data = write_data(tmp_path / "data")
    monkeypatch.setattr(fingerprint, "write_secret_file", read_only)
    told = Told()
    with pytest.raises(KeyboardInterrupt):
        run(tiny(data), tmp_path / "run", listener=type("Both", (Killed,), {"note": told.note})())
    (text,) = (note for note in told.notes if KEY_FILE in note)
    assert "Read-only file system" in text
    assert "by their path alone" in text
    assert not (data / KEY_FILE).exists()
    assert kept(tmp_path / "run").key == ""
    write_data(data, swap=0)
    with pytest.raises(RunFolderError, match="the training images"):
        run(tiny(data), tmp_path / "run")


def test_damaged_key_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    for content in (b"", b"abc\n", b"\xff" * 64):
        (data / KEY_FILE).write_bytes(content)
        (data / KEY_FILE).chmod(0o600)
        with pytest.raises(DataError, match=f"{KEY_FILE} in data.folder is damaged") as refused:
            run(tiny(data), tmp_path / "run")
        assert str(data) not in str(refused.value)
    assert not (tmp_path / "run" / "ledger.jsonl").exists()


@pytest.mark.parametrize("layout", ["", "a", "train", "train/a"])
def test_image_folders_do_not_see_a_key(tmp_path: Path, layout: str) -> None:
    for part in ("train", "test") if layout.startswith("train") else ("",):
        for name in ("a", "b"):
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            for number in range(6):
                Image.new("L", (8, 8), 20 * number).save(folder / f"{number}.png")
    before = load("images", folder=tmp_path / "data", image_size=8)
    (tmp_path / "data" / layout / KEY_FILE).write_text("0" * 64)
    after = load("images", folder=tmp_path / "data", image_size=8)
    assert repr(before) == repr(after)
    assert (before.train_images == after.train_images).all()


def test_bundled_images_leave_no_record_and_published_ones_no_key(tmp_path: Path) -> None:
    keep_fingerprint(tmp_path, Data(), load(), pytest.fail, begun=False)
    assert list(tmp_path.iterdir()) == []
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    raw.parent.mkdir(parents=True)
    write_data(raw)
    settings = Data(source="fashion_mnist", folder=str(tmp_path / "data"))
    dataset = load("fashion_mnist", folder=tmp_path / "data")
    keep_fingerprint(tmp_path, settings, dataset, pytest.fail, begun=False)
    assert kept(tmp_path).key == ""
    assert not list((tmp_path / "data").glob(".*"))


# Changed between a kill and the resume.


def _flip(data: Path, name: str) -> None:
    """The same number of images or labels, one of them another."""
    values = read_idx(data / name).copy()
    values.reshape(-1)[-1] ^= 64 if values.ndim == 3 else 1
    write_idx(data / name, values)


def _fewer(data: Path) -> None:
    write_data(data, test=30)


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "training image": (lambda data: _flip(data, "train-images-idx3-ubyte"), "the training images"),
    "training label": (lambda data: _flip(data, "train-labels-idx1-ubyte"), "the training images"),
    "held-out image": (lambda data: _flip(data, "t10k-images-idx3-ubyte"), "the held-out images"),
    "held-out label": (lambda data: _flip(data, "t10k-labels-idx1-ubyte"), "the held-out images"),
    "fewer held out": (_fewer, "the held-out images"),
    "both": (
        lambda data: (_flip(data, "train-labels-idx1-ubyte"), _flip(data, "t10k-labels-idx1-ubyte")),
        "the training and the held-out images",
    ),
}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data`, and `run` over it that was killed after round 1."""
    place = tmp_path_factory.mktemp("interrupted")
    killed(tiny(write_data(place / "data")), place / "run")
    return place


@pytest.mark.parametrize("what", CHANGES)
def test_changed_data_are_refused_on_resume_and_the_part_is_named(
    interrupted: Path, tmp_path: Path, what: str
) -> None:
    shutil.copytree(interrupted / "run", tmp_path / "run")
    shutil.copytree(interrupted / "data", tmp_path / "data")
    change, words = CHANGES[what]
    change(tmp_path / "data")
    spent = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    # The folder's name is that of the configuration: a resume with another one is another refusal.
    shutil.rmtree(interrupted / "data")
    shutil.copytree(tmp_path / "data", interrupted / "data")
    try:
        with pytest.raises(RunFolderError, match=f"{words} in data.folder are not those"):
            run(tiny(interrupted / "data"), tmp_path / "run")
    finally:
        _ = write_data(interrupted / "data")
    assert (tmp_path / "run" / "ledger.jsonl").read_bytes() == spent, "charged before it was refused"
    assert words in (tmp_path / "run" / "FAILED").read_text()
    assert str(interrupted) not in (tmp_path / "run" / "FAILED").read_text()
    if what == "both":
        run(tiny(interrupted / "data"), tmp_path / "run")
        assert (tmp_path / "run" / "DONE").exists(), "the files are back, so it goes on"


@pytest.mark.parametrize("source", ["images", "fashion_mnist"])
def test_changed_data_of_other_sources_are_refused_too(tmp_path: Path, source: str) -> None:
    """Pictures in folders, and a published set, which torchvision reads without a look at its hash."""
    data = tmp_path / "data"
    if source == "images":
        rng = np.random.default_rng(0)
        for name in ("a", "b"):
            (data / name).mkdir(parents=True)
            for number in range(24):
                pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(data / name / f"{number:02d}.png")
    else:
        raw = data / "FashionMNIST" / "raw"
        raw.parent.mkdir(parents=True)
        write_data(raw)
    config = tiny(data, f"data.source={source}")
    out = killed(config, tmp_path / "run")
    if source == "images":
        (data / "b" / "07.png").write_bytes((data / "b" / "08.png").read_bytes())
    else:
        _flip(raw, "train-images-idx3-ubyte")
    with pytest.raises(RunFolderError, match=r"the training images in data.folder are not those"):
        run(config, out)


@pytest.mark.parametrize("how", ["gone", "another"])
def test_resume_without_the_key_is_refused_and_goes_on_when_it_is_back(tmp_path: Path, how: str) -> None:
    data = write_data(tmp_path / "data")
    out = killed(tiny(data), tmp_path / "run")
    key = (data / KEY_FILE).read_text()
    (data / KEY_FILE).unlink()
    if how == "another":
        fingerprint._key_of(data)
    with pytest.raises(RunFolderError, match="put it back") as refused:
        run(tiny(data), out)
    assert str(tmp_path) not in str(refused.value)
    (data / KEY_FILE).unlink(missing_ok=True)
    (data / KEY_FILE).write_text(key)
    (data / KEY_FILE).chmod(0o600)
    run(tiny(data), out)


@pytest.mark.parametrize("content", [b"", b"{", b'{"source": "idx"}', b"\xff"])
def test_damaged_record_is_one_clear_refusal(interrupted: Path, tmp_path: Path, content: bytes) -> None:
    out = shutil.copytree(interrupted / "run", tmp_path / "run")
    (out / "clients" / "data.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"clients/data.json is damaged"):
        run(tiny(interrupted / "data"), out)


def test_run_of_an_older_program_says_that_nothing_was_kept(interrupted: Path, tmp_path: Path) -> None:
    out = shutil.copytree(interrupted / "run", tmp_path / "run")
    (out / "clients" / "data.json").unlink()
    told = Told()
    run(tiny(interrupted / "data"), out, listener=told)
    assert any("no data.json says which images" in note for note in told.notes)
    assert kept(out) == kept(interrupted / "run")


# Whether two are about the same images.


def _own(declared: str, folder: str = "", key: str = "") -> Whose:
    found = folder and DataFingerprint(source="images", folder=folder, key=key, training="", held_out="")
    return Whose.of(Data(source="images", folder=declared), found or None)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (_own("data", "/a/data", "k"), _own("/b/data", "/b/data", "k"), True),
        (_own("data", "/a/data", "k"), _own("../data", "/a/data", "j"), True),
        (_own("data", "/a/data", "k"), _own("train", "/a/data/train", "j"), True),
        (_own("data", "/a/data", "k"), _own("data", "/b/data", "j"), None),
        (_own("data", "/a/data", "k"), _own("/a/data-2", "/a/data-2", "j"), None),
        (_own("data", "/a/data"), _own("data", "/b/data"), None),
        (_own("/a/link", "/b/data", "k"), _own("/a/link"), True),
        (_own("/a/x/../data"), _own("/a/data"), True),
        (_own("data"), _own("data"), True),
        (_own("data"), _own("./data"), None),
        (_own("data"), _own("data", "/a/data"), True),
        (_own("data"), Whose("data that no ledger names"), None),
        (_own("data"), Whose("hospital-a", "hospital-a"), None),
        (_own("data"), Whose.of(Data(), None), False),
        (Whose("data that no ledger names"), Whose.of(Data(), None), None),
        (Whose("hospital-a", "hospital-a"), Whose("hospital-b", "hospital-b"), False),
    ],
)
def test_the_same_images_are_told_by_key_and_path_and_else_undecided(
    one: Whose, two: Whose, same: bool | None
) -> None:
    assert one.same(two) is same
    assert two.same(one) is same


def test_a_chain_of_equal_ones_is_one_group_and_groups_of_one_name_are_told_apart() -> None:
    first, last = _own("data", "/a/data", "k"), _own("data", "/c/data", "j")
    between = _own("/c/data", "/c/data/more", "k")
    groups = by_data([first, last, between], lambda said: said, lambda said: said.folder)
    assert [group.members for group in groups] == [(first, last, between)]
    groups = by_data([first, last], lambda said: said, lambda said: said.folder)
    assert [group.label for group in groups] == ["images in data (/a/data)", "images in data (/c/data)"]
    assert [group.undecided for group in groups] == [(last,), (first,)]


def test_runs_of_a_sweep_are_put_together_wherever_somebody_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no page that names the group names the path."""
    data = write_data(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    configs = {"a": tiny("data"), "b": tiny(data)}
    for name, config in configs.items():
        folder = tmp_path / name / "clients"
        folder.mkdir(parents=True)
        keep_fingerprint(folder, config.data, load("idx", folder=data), pytest.fail, begun=False)
    (tmp_path / "elsewhere").mkdir()
    for place in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(place)
        (group,) = owners(Run(name, tmp_path / name, config) for name, config in configs.items())
        assert group.words == "idx in data"
    apart = [Run(name, tmp_path / "none", configs[name]) for name in configs]
    assert all("nothing decides" in group.words for group in owners(apart))
    assert len(owners(apart)) == 2


def test_damaged_record_stops_whoever_adds_up(tmp_path: Path) -> None:
    (tmp_path / "clients").mkdir()
    (tmp_path / "clients" / "data.json").write_text("{")
    with pytest.raises(PrismError, match=r"data.json is damaged"):
        owners([Run("a", tmp_path, tiny("data"))])
