"""The one release, kept: resume and sweeps read it, and nobody draws a second one unnoticed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from prism_privacy.durable_files import locked_directory, replace_file
from prism_privacy.errors import InvalidParameter, OutboxError, ReleaseConflict
from prism_privacy.moments.noisy_sums import NoisySums
from prism_privacy.moments.release import MomentRelease

_VERSION = "prism-privacy/v1/moments"


def moments_once(
    path: str | os.PathLike[str], release: MomentRelease, context: str, make: Callable[[], NoisySums]
) -> NoisySums:
    """The release stored at ``path``, or ``make()``, stored before it is returned.

    The folder is locked from the look for a stored release to the end of storing a new one, so that of two
    processes one makes the release and the other waits and reads it.

    Args:
        path: one file for one client and one set of records, in a folder that exists.
        release: what is asked for.
        context: public words for what the features are (extractor, data set, client), so that a release
            is not taken for one of other features. No private value belongs in it.
        make: makes the release; called only if there is none. It must not come back here for another file
            of the same folder: it would wait for itself.

    Raises:
        ReleaseConflict: a release with other parameters or another context is stored here. Making this one
            too would cost its epsilon on top: store it elsewhere, and charge both.
        OutboxError: the file is damaged.

    >>> import tempfile
    >>> from prism_privacy.moments.noisy_sums import release_moments
    >>> file = Path(tempfile.mkdtemp()) / "moments"
    >>> release = MomentRelease(records=1, norm=1.0, sigma=1.0)
    >>> first = moments_once(file, release, "docs", lambda: release_moments([[1.0]], None, release))
    >>> again = moments_once(file, release, "docs", lambda: release_moments([[1.0]], None, release))
    >>> bool((first.first == again.first).all())
    True
    """
    target = Path(path)
    with locked_directory(target.parent):
        stored = load_moments(target, release, context)
        if stored is not None:
            return stored
        made = make()
        if made.release != release:
            raise InvalidParameter(f"make() gave {made.release}, asked for {release}")
        replace_file(target, _encode(made, context), mode=0o600)
        return made


def load_moments(path: str | os.PathLike[str], release: MomentRelease, context: str) -> NoisySums | None:
    """The release stored at ``path``, or None; raises like :func:`moments_once`."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    header, sums = _decode(content, path)
    if header["context"] != context or sums.release != release:
        raise ReleaseConflict(
            f"{path} holds another release ({header['context']!r}, {sums.release}); a second one of the same "
            f"records is charged on top and needs a place of its own"
        )
    return sums


def stored_release(path: str | os.PathLike[str]) -> MomentRelease | None:
    """The parameters of whatever release is stored at ``path``, or None.

    Raises:
        OutboxError: the file is damaged.
    """
    try:
        return _decode(Path(path).read_bytes(), path)[1].release
    except FileNotFoundError:
        return None
    except OSError as cause:
        raise OutboxError(f"{path} cannot be read: {cause.strerror}") from None


def _encode(sums: NoisySums, context: str) -> bytes:
    arrays = {name: getattr(sums, name) for name in ("first", "second", "counts")}
    buffer = BytesIO()
    with_data: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
    np.savez(buffer, **with_data)
    header = json.dumps(
        {"version": _VERSION, "context": context, "release": sums.release.as_dict(), "is_test": sums.is_test}
    )
    body = header.encode() + b"\n" + buffer.getvalue()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _decode(content: bytes, path: object) -> tuple[dict[str, Any], NoisySums]:
    digest, _, body = content.partition(b"\n")
    if digest != hashlib.sha256(body).hexdigest().encode():
        raise OutboxError(
            f"{path} is damaged: the release it held is lost, and making another would be charged"
        )
    line, _, data = body.partition(b"\n")
    header: dict[str, Any] = json.loads(line)
    if header["version"] != _VERSION:
        raise OutboxError(f"{path} has version {header['version']!r}, expected {_VERSION!r}")
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        parts = dict(arrays)
    release = MomentRelease(**header["release"])
    sums = NoisySums(release, parts["first"], parts.get("second"), parts.get("counts"), header["is_test"])
    return header, sums
