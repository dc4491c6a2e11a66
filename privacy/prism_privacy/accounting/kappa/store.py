"""κ on demand: from memory, from the table in the package, from the user's cache, or computed and kept.

A table reaches λ = 2^(−k/2) for an integer k, the least such that covers what is asked; κ is then taken over
exactly what is asked. Cache files are named by a hash of (the code that computes tables, n, f, reach,
orders), so another version never reads them; they are written to a temporary file and renamed; one that
cannot be read, written or believed is ignored, never an error. `XDG_CACHE_HOME` decides where they lie.

Questions at the far ends are answered by wider ones, which is sound because κ is a supremum: p, q and the
other clients' probabilities lie in the box of every smaller flip, and within every larger reach. So a flip
above `_MOST_FLIP` is taken for it (where f(1−f) is within 4·10⁻⁶ of ¼), a reach below `LEAST_MOVE`
too. For a flip below `_LEAST_FLIP`, where doubles would underflow, there is no κ to speak of (over 10¹⁴): it
counts as `inf`, and one coordinate loses at most log((1−f)/f), the largest ratio of a bit's probabilities.

Whoever can write a table can lower ε. So a file is believed only if it and its folder belong to this user
and nobody else can write them; otherwise the table is computed, and a folder of others is not written to.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import stat
import zipfile
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prism_privacy import _validate
from prism_privacy.accounting.kappa.curve import Curve, curve_from_table
from prism_privacy.accounting.kappa.renyi_moments import (
    LEAST_MOVE,
    MOST_CLIENTS,
    MomentTable,
    OrderGrid,
    moment_table,
)
from prism_privacy.durable_files import replace_file
from prism_privacy.errors import InvalidParameter

__all__ = ["GRID", "ORDERS", "cache_folder", "coordinate_curve", "estimated_curve", "kappa"]

GRID = OrderGrid(bases=tuple(0.0125 * 2.0 ** (i / 6) for i in range(6)), doublings=20)
"""α−1 from 0.0125 to 23,000, six to a doubling: the best of them costs under 0.2% of ε."""

ORDERS: NDArray[np.float64] = GRID.orders
ORDERS.flags.writeable = False

_WORTH_KEEPING = 50  # clients; smaller cohorts take under 0.1 s
_LEAST_FLIP = 1e-15
_MOST_FLIP = 0.499
_SHIPPED = "kappa_table.npz"
_FIELDS = ("orders", "nodes", "forward", "backward", "chi2", "third")


@lru_cache(maxsize=1)
def _code_version() -> str:
    """A digest of the modules that compute tables: the cache forgets what other code computed."""
    digest = hashlib.sha256()
    for name in ("edge_counts.py", "renyi_moments.py"):
        digest.update(resources.files(__package__).joinpath(name).read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Where tables are kept: `$XDG_CACHE_HOME/prism-secure/kappa`, by default under ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path("~/.cache").expanduser()
    return root / "prism-secure" / "kappa"


def _cache_file(cohort: int, flip: float, reach: float, grid: OrderGrid) -> Path:
    key = f"{_code_version()}|{cohort}|{flip.hex()}|{reach.hex()}|{grid.bases!r}|{grid.doublings}"
    return cache_folder() / f"n{cohort}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"


def _only_ours(status: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user and nobody else may write to it."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _read_ours(path: Path) -> bytes:
    """The content of a file that only this user can have written; `OSError` where that is not sure."""
    if not _only_ours(path.parent.stat()):
        raise PermissionError(f"{path.parent}: others can write here")
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or not _only_ours(status):
            raise PermissionError(f"{path}: others can write it")
        return file.read()


def _load(path: Path, cohort: int, flip: float, grid: OrderGrid) -> MomentTable | None:
    """A table from the cache, or None: no file, torn, not ours, or not a table for this question."""
    try:
        with np.load(io.BytesIO(_read_ours(path)), allow_pickle=False) as file:
            fields = {name: np.asarray(file[name], dtype=np.float64) for name in _FIELDS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    shape = (fields["orders"].size, fields["nodes"].size)
    if (
        not np.array_equal(fields["orders"], grid.orders)
        or fields["forward"].shape != shape
        or fields["backward"].shape != shape
        or any(np.isnan(array).any() or (array < 0.0).any() for array in fields.values())
    ):
        return None
    return MomentTable(
        cohort=cohort,
        flip=flip,
        orders=fields["orders"],
        nodes=fields["nodes"],
        forward=fields["forward"],
        backward=fields["backward"],
        chi2=float(fields["chi2"]),
        third=float(fields["third"]),
    )


def _save(path: Path, table: MomentTable) -> None:
    """Keep a table, so that a reader sees all of it or nothing."""
    content = io.BytesIO()
    np.savez(
        content,
        orders=table.orders,
        nodes=table.nodes,
        forward=table.forward,
        backward=table.backward,
        chi2=np.asarray(table.chi2),
        third=np.asarray(table.third),
    )
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _only_ours(path.parent.stat()):
            replace_file(path, content.getvalue(), mode=0o600)


@lru_cache(maxsize=64)
def _table(cohort: int, flip: float, reach: float, grid: OrderGrid) -> MomentTable:
    if cohort <= _WORTH_KEEPING:
        return moment_table(cohort, flip, reach, grid)
    path = _cache_file(cohort, flip, reach, grid)
    table = _load(path, cohort, flip, grid)
    if table is None:
        table = moment_table(cohort, flip, reach, grid)
        _save(path, table)
    return table


@lru_cache(maxsize=1)
def _shipped() -> dict[tuple[int, float, float], Curve]:
    """The curves in the package, by (cohort, flip, reach); empty while the file has not been made."""
    source = resources.files(__package__).joinpath(_SHIPPED)
    if not source.is_file():
        return {}
    with source.open("rb") as stream, np.load(io.BytesIO(stream.read()), allow_pickle=False) as file:
        orders, keys, kappas, mosts = (file[name] for name in ("orders", "keys", "kappa", "most"))
    if not np.array_equal(orders, ORDERS):
        return {}
    curves = {}
    for (cohort, flip, reach), ratio, most in zip(keys, kappas, mosts, strict=True):
        key = (int(cohort), float(flip), float(reach))
        curves[key] = Curve(*key, ORDERS, ratio.astype(np.float64), most.astype(np.float64))
    return curves


def _compute(cohort: int, flip: float, reach: float, grid: OrderGrid) -> Curve:
    share = min(reach / (1.0 - 2.0 * flip), 1.0)
    # The least 2^(−k/2) ≥ share, with room for the rounding of the logarithm.
    step = max(0, math.floor(-2.0 * math.log2(share) + 1e-9))
    top = max(2.0 ** (-step / 2.0), share)
    return curve_from_table(_table(cohort, flip, top, grid), reach)


@lru_cache(maxsize=1024)
def _curve(cohort: int, flip: float, reach: float, grid: OrderGrid) -> Curve:
    if flip < _LEAST_FLIP:
        endless = np.full(grid.orders.shape, np.inf)
        most = math.inf if flip == 0.0 else (math.log1p(-flip) - math.log(flip)) * (1.0 + 1e-12)
        return Curve(cohort, flip, reach, grid.orders, endless, np.full(grid.orders.shape, most))
    if grid is GRID:
        shipped = _shipped().get((cohort, flip, reach))
        if shipped is not None:
            return shipped
    return _compute(cohort, flip, reach, grid)


def coordinate_curve(cohort: int, flip: float, reach: float) -> Curve:
    """κ and the largest divergence of one coordinate on `ORDERS`, for a sum over `cohort` (1: an upload).

    reach   the most that one coordinate of p differs between neighbouring worlds; more than 1−2f is 1−2f

    Raises `InvalidParameter` outside 1 ≤ cohort ≤ 10⁶, 0 ≤ flip < 1/2, reach > 0.
    """
    return _curve(*_checked(cohort, flip, reach), GRID)


def estimated_curve(cohort: int, flip: float, reach: float) -> Curve:
    """Like `coordinate_curve`, but from the two extreme configurations only: quick, and no bound."""
    cohort, flip, reach = _checked(cohort, flip, reach)
    if cohort == 1 or flip < _LEAST_FLIP:
        return coordinate_curve(cohort, flip, reach)
    table = moment_table(cohort, flip, reach / (1.0 - 2.0 * flip), GRID, extremes_only=True)
    return curve_from_table(table, reach)


def kappa(order: float, cohort: int, flip: float, reach: float) -> float:
    """κ(α) for any α > 1: D_α ≤ κ(α)·‖Δ‖² for every release with |Δ_i| ≤ reach. `inf` for flip = 0.

    >>> round(kappa(2.0, cohort=1000, flip=0.25, reach=0.5), 6)
    0.005364
    """
    question = _checked(cohort, flip, reach)
    return float(_curve(*question, OrderGrid((_validate.order(order) - 1.0,), 0)).kappa[0])


def _checked(cohort: int, flip: float, reach: float) -> tuple[int, float, float]:
    cohort, flip = _validate.count("cohort", cohort), _validate.flip(flip)
    if cohort > MOST_CLIENTS:
        raise InvalidParameter(f"cohort must be at most {MOST_CLIENTS:,}, got {cohort:,}")
    flip = min(flip, _MOST_FLIP)
    return cohort, flip, min(max(_validate.positive("reach", reach), LEAST_MOVE), 1.0 - 2.0 * flip)
