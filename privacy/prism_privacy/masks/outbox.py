"""What a client has sent, kept so that a round is answered once and with one set of coins.

Epsilon charges a round once. That is true only if a client that was killed, or asked again, sends the very
bytes it sent before: a second draw for the same round would be a second release, whatever is recorded. So
an upload is stored and on disk *before* it is sent, and a round that has an upload can have no other:

    packed = outbox.stored(federation, round)
    if packed is None:                              # nothing was ever sent for this round
        packed = outbox.keep(federation, round, pack(release_bits(p, coins)))
    send(packed)

Sending those bytes again costs nothing in two cases only: within *one* session of the secure sum, where the
server can open one sum with them and no more; and in the account of the view UPLOAD, which lets the observer
see the bits themselves. Under SUM the same bits in two opened sums are two releases, and worse than two with
fresh coins: the difference of two sums over different survivors is what the clients in between sent, for one
client its bare upload. So once an upload has left, a sum that is opened again is a new round, with a new
number, new coins and a new charge. The outbox cannot see sessions; the secure sum's client keeps this by
refusing a second session for a round whose upload has left.

What is stored is the unmasked upload: whoever reads it sees the client's bits, so files have mode 0600 and
the folder 0700. :meth:`Outbox.settle` forgets the bytes of a round that is over and keeps their digest,
which is enough to refuse another release for it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from prism_privacy import _validate
from prism_privacy.durable_files import locked_directory, remove_leftovers, replace_file, sync_directory
from prism_privacy.errors import InvalidParameter, OutboxError, ReleaseConflict

_MAGIC: Final = b"prism-privacy/v1/outbox\n"
_FULL: Final = b"F"
_SETTLED: Final = b"S"
_DIGEST: Final = 32
_PREFIX: Final = len(_MAGIC) + 1 + _DIGEST


class Outbox:
    """One client's sent uploads, in a folder of its own.

    >>> import tempfile
    >>> outbox = Outbox(tempfile.mkdtemp())
    >>> outbox.keep("docs", 1, b"bits")
    b'bits'
    >>> outbox.keep("docs", 1, b"other bits")
    Traceback (most recent call last):
    ...
    prism_privacy.errors.ReleaseConflict: round 1 of 'docs' was sent with other bytes; ...
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Make the folder, with mode 0700, if it does not exist.

        Raises:
            OutboxError: the folder cannot be made or others can read it.
        """
        self._directory = Path(directory)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = self._directory.stat().st_mode & 0o777
        except OSError as cause:
            raise OutboxError(f"{directory} cannot be used as an outbox: {cause.strerror}") from None
        if mode & 0o077:
            raise OutboxError(f"{directory} has mode {mode:04o}: others can reach it; expected 0700")

    def stored(self, federation: str, round: int) -> bytes | None:
        """The bytes kept for this round, to be sent (again); None if there never were any.

        Raises:
            OutboxError: the file is damaged, or its bytes were settled away: the round is over.
        """
        path = self._path(federation, round)
        kept = self._read(path)
        if kept is None:
            return None
        kind, _, payload = kept
        if kind == _SETTLED:
            raise OutboxError(f"round {round} of {federation!r} is settled: its bytes are not kept any more")
        return payload

    def digest(self, federation: str, round: int) -> bytes | None:
        """SHA-256 of the bytes that were sent for this round, settled or not; None if there never were any.

        Raises:
            OutboxError: the file is damaged.
        """
        kept = self._read(self._path(federation, round))
        return None if kept is None else kept[1]

    def keep(self, federation: str, round: int, payload: bytes) -> bytes:
        """Keep ``payload`` as *the* upload of this round; it is on disk when this returns.

        Keeping the same bytes again is fine and changes nothing.

        Args:
            federation: the federation's id, not empty.
            round: the round's number, >= 0.
            payload: the packed upload.

        Returns:
            ``payload``.

        Raises:
            ReleaseConflict: the round was sent with other bytes. Send :meth:`stored`; another release would
                have to be charged as another round.
            OutboxError: the stored file is damaged.
            OSError: the disk is full or broken: nothing was kept, so nothing may be sent.
        """
        if not isinstance(payload, (bytes, bytearray, memoryview)):
            raise InvalidParameter(f"payload must be bytes, got {type(payload).__name__}")
        content = bytes(payload)
        digest = hashlib.sha256(content).digest()
        path = self._path(federation, round)
        with locked_directory(self._directory):
            kept = self._read(path)
            if kept is None:
                if not path.parent.is_dir():
                    path.parent.mkdir(mode=0o700)
                    sync_directory(self._directory)
                replace_file(path, _MAGIC + _FULL + digest + content, mode=0o600)
            elif kept[1] != digest:
                raise ReleaseConflict(
                    f"round {round} of {federation!r} was sent with other bytes; a second release is not a "
                    f"retry and would have to be charged"
                )
        return content

    def settle(self, federation: str, round: int) -> None:
        """Forget the bytes of a round that needs no retry any more, but not that it was sent.

        Raises:
            OutboxError: nothing was kept for it, or the file is damaged.
        """
        path = self._path(federation, round)
        with locked_directory(self._directory):
            kept = self._read(path)
            if kept is None:
                raise OutboxError(f"round {round} of {federation!r} has no upload to settle")
            remove_leftovers(path)  # of a writer killed on the way: they hold the bytes to be forgotten
            if kept[0] == _FULL:
                replace_file(path, _MAGIC + _SETTLED + kept[1], mode=0o600)

    def rounds(self, federation: str) -> tuple[int, ...]:
        """The rounds of a federation that were sent, in order, settled ones included."""
        folder = self._folder(federation)
        if not folder.is_dir():
            return ()
        return tuple(sorted(int(file.stem) for file in folder.glob("*.upload")))

    def __repr__(self) -> str:
        return f"Outbox({str(self._directory)!r})"

    def _folder(self, federation: str) -> Path:
        if not isinstance(federation, str) or not federation:
            raise InvalidParameter(f"federation must be a non-empty string, got {federation!r}")
        # a digest, so that no name can leave the folder or collide on a case-insensitive file system
        return self._directory / hashlib.sha256(federation.encode()).hexdigest()[:32]

    def _path(self, federation: str, round: int) -> Path:
        return self._folder(federation) / f"{_validate.count('round', round, least=0):08d}.upload"

    def _read(self, path: Path) -> tuple[bytes, bytes, bytes] | None:
        """(kind, digest, payload), or None where no such file exists."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as cause:
            raise OutboxError(f"{path} cannot be read: {cause.strerror}") from None
        kind, digest, payload = (
            content[len(_MAGIC) : len(_MAGIC) + 1],
            content[len(_MAGIC) + 1 : _PREFIX],
            content[_PREFIX:],
        )
        whole = content.startswith(_MAGIC) and len(digest) == _DIGEST
        if whole and kind == _FULL:
            whole = hashlib.sha256(payload).digest() == digest
        elif whole:
            whole = kind == _SETTLED and not payload
        if not whole:
            raise OutboxError(
                f"{path} is damaged: what was sent in this round is not known, so nothing may be"
            )
        return kind, digest, payload
