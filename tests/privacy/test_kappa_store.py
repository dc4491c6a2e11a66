"""The cache saves time and can never change an answer."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pytest

from prism_privacy.accounting.kappa import store as kappa_store
from prism_privacy.accounting.kappa.store import (
    GRID,
    ORDERS,
    OrderGrid,
    cache_folder,
    coordinate_curve,
    kappa,
)

computed_once = functools.cache(kappa_store.moment_table)


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder and an empty memory; what a table is computed to is worked out but once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kappa_store, "moment_table", computed_once)
    forget()
    yield tmp_path / "prism-secure" / "kappa"
    forget()


def forget() -> None:
    kappa_store._table.cache_clear()
    kappa_store._curve.cache_clear()


def test_a_table_is_kept_and_read_back_to_the_same_bits(cold: Path) -> None:
    first = coordinate_curve(61, 0.23, 0.5)
    (kept,) = cold.glob("*.npz")
    forget()
    written = kept.stat().st_mtime_ns
    again = coordinate_curve(61, 0.23, 0.5)
    assert np.array_equal(first.kappa, again.kappa)
    assert np.array_equal(first.most, again.most)
    assert kept.stat().st_mtime_ns == written
    assert not list(cold.glob("*.tmp"))


def test_small_cohorts_and_uploads_are_not_kept(cold: Path) -> None:
    coordinate_curve(1, 0.23, 0.5)
    coordinate_curve(50, 0.23, 0.5)
    assert not cold.exists()


@pytest.mark.parametrize("damage", ["torn", "garbage", "zeros", "another question", "nan"])
def test_a_damaged_file_is_computed_again_and_replaced(cold: Path, damage: str) -> None:
    first = coordinate_curve(61, 0.23, 0.5)
    (kept,) = cold.glob("*.npz")
    whole = kept.read_bytes()
    if damage == "torn":
        kept.write_bytes(whole[: len(whole) // 2])
    elif damage == "garbage":
        kept.write_bytes(b"not a table")
    elif damage == "zeros":
        kept.write_bytes(b"")
    else:
        with np.load(kept) as file:
            fields = dict(file)
        if damage == "nan":
            fields["forward"][3, 3] = np.nan
        else:
            fields["orders"] = fields["orders"] * 2
        np.savez(kept, **fields)
    forget()
    assert np.array_equal(coordinate_curve(61, 0.23, 0.5).kappa, first.kappa)
    assert kept.read_bytes() == whole


@pytest.mark.parametrize("part", ["file", "folder"])
@pytest.mark.parametrize("way", ["group can write", "others can write", "another owner"])
def test_what_others_could_have_written_is_not_believed(
    cold: Path, monkeypatch: pytest.MonkeyPatch, part: str, way: str
) -> None:
    """A planted table with half the true values would halve the epsilon."""
    first = coordinate_curve(61, 0.23, 0.5)
    (kept,) = cold.glob("*.npz")
    with np.load(kept) as file:
        fields = dict(file)
    np.savez(kept, **{n: v if n in ("orders", "nodes") else v / 2 for n, v in fields.items()})
    planted = kept.read_bytes()
    forget()
    assert (coordinate_curve(61, 0.23, 0.5).kappa < first.kappa).all(), "the planted table is readable"
    target = kept if part == "file" else cold
    if way == "another owner":
        real, node = kappa_store._only_ours, target.stat().st_ino
        monkeypatch.setattr(kappa_store, "_only_ours", lambda s: s.st_ino != node and real(s))
    else:
        target.chmod(target.stat().st_mode | (0o020 if way.startswith("group") else 0o002))
    forget()
    assert np.array_equal(coordinate_curve(61, 0.23, 0.5).kappa, first.kappa)
    if part == "folder":
        assert kept.read_bytes() == planted, "nothing is written where others can write"
    else:
        assert kept.read_bytes() != planted
        assert kept.stat().st_mode & 0o077 == 0


def test_a_link_in_the_cache_is_not_followed(cold: Path) -> None:
    first = coordinate_curve(61, 0.23, 0.5)
    (kept,) = cold.glob("*.npz")
    kept.rename(cold / "elsewhere")
    kept.symlink_to(cold / "elsewhere")
    forget()
    assert np.array_equal(coordinate_curve(61, 0.23, 0.5).kappa, first.kappa)
    assert not kept.is_symlink()


def test_the_cache_works_under_a_wide_umask(cold: Path) -> None:
    old = os.umask(0)
    try:
        coordinate_curve(61, 0.23, 0.5)
    finally:
        os.umask(old)
    (kept,) = cold.glob("*.npz")
    assert kappa_store._read_ours(kept)


def test_who_owns_a_file_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path.stat()
    tmp_path.chmod(0o700)
    assert kappa_store._only_ours(tmp_path.stat())
    monkeypatch.setattr(os, "geteuid", lambda: status.st_uid + 1)
    assert not kappa_store._only_ours(tmp_path.stat())


def test_an_unwritable_cache_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    forget()
    assert kappa(2.0, 61, 0.23, 0.5) > 0
    assert blocked.read_text() == "a file where a folder should be"
    forget()


def test_a_failure_while_writing_leaves_no_file(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    assert coordinate_curve(61, 0.23, 0.5).kappa[0] > 0
    assert list(cold.iterdir()) == []  # nor a hidden one


def test_the_name_of_a_file_changes_with_the_code_and_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(*question: object) -> str:
        return kappa_store._cache_file(*question).name  # type: ignore[arg-type]

    grid = OrderGrid((0.5,), 0)
    names = {
        name(61, 0.23, 1.0, GRID),
        name(62, 0.23, 1.0, GRID),
        name(61, 0.24, 1.0, GRID),
        name(61, 0.23, 0.5, GRID),
        name(61, 0.23, 1.0, grid),
    }
    monkeypatch.setattr(kappa_store, "_code_version", lambda: "another")
    names.add(name(61, 0.23, 1.0, GRID))
    assert len(names) == 6


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/prism-secure/kappa")
    for unset in ("", "relative/is/ignored"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_folder() == Path("~/.cache/prism-secure/kappa").expanduser()


def test_the_shipped_curves_are_those_that_this_code_computes(cold: Path) -> None:
    shipped = kappa_store._shipped()
    assert {(1000, 0.25, 0.5), (1000, 0.05, 0.9), (10_000, 0.25, 0.5)} <= set(shipped)
    for key in [(100, 0.25, 0.5), (200, 0.1, 0.5), (500, 0.4, 1.0 - 2.0 * 0.4)]:
        fresh = kappa_store._compute(*key, GRID)
        kept = shipped[key]
        assert np.array_equal(kept.orders, ORDERS)
        for name in ("kappa", "most"):
            stored, computed = getattr(kept, name), getattr(fresh, name)
            assert (stored >= computed).all()
            assert (stored <= computed * (1 + 3e-7)).all()
    assert not any(np.isnan(curve.kappa).any() for curve in shipped.values())


def test_a_table_for_other_orders_or_none_at_all_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    kappa_store._shipped.cache_clear()
    monkeypatch.setattr(kappa_store, "ORDERS", ORDERS * 2)
    assert kappa_store._shipped() == {}
    kappa_store._shipped.cache_clear()
    monkeypatch.undo()
    monkeypatch.setattr(kappa_store, "_SHIPPED", "absent.npz")
    assert kappa_store._shipped() == {}
    kappa_store._shipped.cache_clear()
