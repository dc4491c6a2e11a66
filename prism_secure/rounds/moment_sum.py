"""The one secure sum before round 1 of a summed record-level release: shares in, noisy moments out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from prism_crypto import SecureSumResult, SessionContext, secure_sum
from prism_privacy import NoisySums, moments_once
from prism_secure.accounting.record_release import RecordRelease
from prism_secure.errors import RunFolderError
from prism_secure.rounds.moments import ClientMoments
from prism_secure.run_folder.records import MomentSession
from prism_secure.storage import make_private_folder, write_atomic

MOMENTS_GRAPH: Final = "complete"
"""Whatever that of the rounds: the release counts on all survivors, and its delta pays for no sparse one."""

_BEGAN = "moments.began"
_TOOK = "moments.json"


def moments_are_open(
    release: RecordRelease, clients: Sequence[ClientMoments], folder: Path, *, charged: bool
) -> bool:
    """Whether this run, or one that shares its store, has opened the sum, so that no image need be read.

    Args:
        charged: whether the ledger has charged the release, as it does once all shares are drawn.

    Raises:
        RunFolderError: the release was charged, or a session of this run began, so its sum may be known, and
            neither the sum nor all of its shares are left: new ones would be a second release, for which
            nobody was charged.
    """
    if not release.summed:
        return False
    path = release.opened_file(folder / "checkpoint")
    began = charged or session_began(folder) or _mark_beside(path).exists()
    # In this order: another run that shares the store deletes its shares once the sum is there.
    if began and not all(each.has_share for each in clients) and not path.exists():
        raise RunFolderError(
            "the secure sum of the noisy moments was charged or began, and neither what it opened nor all "
            "shares are left; other shares would cost epsilon on top; put "
            f"{path.parent.name}/{path.name} back"
        )
    return path.exists()


def open_moments(
    release: RecordRelease, clients: Sequence[ClientMoments], folder: Path, federation: str
) -> None:
    """Open the sum of all clients' shares, once, and give it to every client; safe to repeat.

    Shares are drawn once and kept until the sum is, so a session that was cut short opens the same sum again:
    everybody survives in this process. (Across machines there is one session: see
    `prism_secure.flower.recipe.server`.)

    Args:
        folder: of the run; `checkpoint/release.moments` (or the store that runs share) keeps what opened,
            `moments.json` what it took, and `moments.began` that shares may have left.
    """
    opened = opened_once(release, folder, lambda leaving: _sum(release, clients, federation, leaving))
    for client in clients:
        client.receive(opened)


def opened_once(
    release: RecordRelease, folder: Path, session: Callable[[Callable[[], None]], SecureSumResult]
) -> NoisySums:
    """The opened sum of a run: that which is kept, or what `session` opens, kept before it is returned.

    Args:
        folder: see `open_moments`.
        session: opens the sum of the shares; it calls its argument before the first share can leave a client.
    """
    path = release.opened_file(folder / "checkpoint")
    make_private_folder(path.parent)

    def leaving() -> None:
        marks = [folder / _BEGAN]
        if path.parent != folder / "checkpoint":
            marks.append(_mark_beside(path))
        for mark in marks:
            write_atomic(mark, b"Shares of the noisy moments may have left: no others may be drawn.\n")

    def make() -> NoisySums:
        result = session(leaving)
        took = MomentSession(
            survivors=len(result.survivors),
            uplink_bytes=sum(result.uplink_bytes.values()),
            downlink_bytes=sum(result.downlink_bytes.values()) + 8 * release.plan.size * len(release.sizes),
        )
        write_atomic(folder / _TOOK, msgspec.json.encode(took) + b"\n")
        return release.plan.open(result.counts, len(result.survivors))

    return moments_once(path, release.plan.release, release.context(None), make)


def _mark_beside(opened: Path) -> Path:
    """What says, in a store that runs share, that one of them may have sent the shares."""
    return opened.with_name(f".{opened.stem}.began")


def session_began(folder: Path) -> bool:
    """Whether shares of a run's clients may have left: what a session took says so, too."""
    return any((folder / name).exists() for name in (_BEGAN, _TOOK))


def _sum(
    release: RecordRelease, clients: Sequence[ClientMoments], federation: str, leaving: Callable[[], None]
) -> SecureSumResult:
    config, plan = release.config, release.plan
    context = release.context(None)
    leaving()
    return secure_sum(
        [client.share for client in clients],
        bound=plan.bound,
        mode=config.secure_sum.mode,
        threshold=config.moments_threshold,
        min_survivors=config.moments_survivors,
        colluders=config.privacy.colluders,
        graph=MOMENTS_GRAPH,
        suite=config.secure_sum.suite,
        simulate=config.secure_sum.simulate,
        context=SessionContext(
            federation=federation,
            number=1,
            model_hash=hashlib.sha256(f"prism-secure/v1/moments\0{federation}\0{context}".encode()).digest(),
            binding=msgspec.json.encode({"privacy": config.privacy, "release": plan.release.as_dict()}),
        ),
    )
