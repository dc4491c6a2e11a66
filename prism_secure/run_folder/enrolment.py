"""A client's folder: who it is, with whom it sums, what it demands.

    identity.json    its Ed25519 key (0600); signs messages of the secure sum and nothing else
    member.txt       its line for the others' rosters: ``id:public key``
    federation.txt   the name of the federation
    roster.json      the pinned public keys of all clients, out of band
    policy.json      the least that this client accepts
    sessions         session number and round of its last upload; never restored from a backup

`prism-secure identity create` writes the first two, `prism-secure identity enroll` the others. A server's
folder has the federation and the roster only. A folder is for one federation: for another one make a new
folder with a new key.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prism_crypto import Identity, Policy, Roster, SecureSumError, SessionCounter
from prism_secure.errors import ConfigError, RunFolderError
from prism_secure.storage import make_folder, make_private_folder, write_atomic

__all__ = [
    "Enrolment",
    "checked_name",
    "create_identity",
    "enroll",
    "enroll_simulated",
    "read_members",
    "read_membership",
    "session_clock",
]

_MEMBER = re.compile(r"(0|[1-9][0-9]{0,9}):([0-9a-f]{64})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Enrolment:
    """What a client brings to a session, from its folder."""

    folder: Path
    federation: str
    identity: Identity
    roster: Roster
    policy: Policy
    counter: SessionCounter

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Enrolment:
        """Read a client's folder.

        Raises:
            RunFolderError: something is missing, open to others, or does not fit together.
        """
        folder = Path(folder)
        federation, roster = read_membership(folder)
        try:
            identity = Identity.load(folder / "identity.json")
            policy = Policy.load(folder / "policy.json")
            counter = SessionCounter(folder / "sessions")
            _ = counter.last
        except SecureSumError as error:
            raise RunFolderError(f"{folder} is not that of an enrolled client: {error}") from None
        if identity.client_id not in roster or roster.public_key(identity.client_id) != identity.public_key:
            raise RunFolderError(f"{folder}: roster.json does not pin the key of identity.json")
        return cls(folder, federation, identity, roster, policy, counter)


def read_membership(folder: str | os.PathLike[str]) -> tuple[str, Roster]:
    """The federation and the roster in a folder, a client's or the server's.

    Raises:
        RunFolderError: one of them is missing or can't be used.
    """
    try:
        federation = (Path(folder) / "federation.txt").read_text("ascii").strip()
        return checked_name(federation), Roster.load(Path(folder) / "roster.json")
    except (OSError, UnicodeDecodeError, SecureSumError, ConfigError) as error:
        raise RunFolderError(
            f"{folder} is not enrolled: {error}; `prism-secure identity enroll` does that"
        ) from None


def create_identity(folder: str | os.PathLike[str], client_id: int) -> str:
    """Make a new key in `folder`; returns its member line, ``id:public key``.

    Raises:
        RunFolderError: there is one already, or the folder can't be written.
    """
    folder = Path(folder)
    if (folder / "identity.json").exists():
        raise RunFolderError(
            f"{folder} has an identity already, which is kept: its line is in {folder / 'member.txt'}; for a "
            "new one choose another folder"
        )
    try:
        make_private_folder(folder)
        identity = Identity.generate(client_id)
        identity.save(folder / "identity.json")
    except SecureSumError as error:
        raise RunFolderError(str(error)) from None
    member = f"{client_id}:{identity.public_key.hex()}"
    write_atomic(folder / "member.txt", f"{member}\n".encode())
    return member


def read_members(members: Iterable[str]) -> Roster:
    """A roster from member lines and from files that hold such lines.

    Raises:
        ConfigError: something is neither, or two lines contradict each other.
    """
    keys: dict[int, bytes] = {}
    for given in members:
        lines = [given] if _MEMBER.fullmatch(given) else _lines(Path(given))
        for line in lines:
            found = _MEMBER.fullmatch(line)
            if found is None:
                raise ConfigError(f"{given}: expected lines of the form ID:PUBLIC-KEY-IN-HEX, got {line!r}")
            client_id, key = int(found[1]), bytes.fromhex(found[2])
            if keys.setdefault(client_id, key) != key:
                raise ConfigError(f"client {client_id} is named twice, with different keys")
    try:
        return Roster(keys)
    except SecureSumError as error:
        raise ConfigError(str(error)) from None


def session_clock() -> int:
    """Milliseconds since 1970: the number of a session that begins now, unless one had it already.

    Numbers must rise over all runs of a server, also if its disk is lost: the clock does. A client's counter
    takes no number that is 99 days above its last one, so it begins at this clock, too; a client that has
    been away for longer is enrolled again, as a new identity.
    """
    return time.time_ns() // 1_000_000


def enroll(folder: str | os.PathLike[str], federation: str, roster: Roster, policy: Policy | None) -> None:
    """Pin roster and policy, and start the session counter. Without a policy the folder is a server's.

    Raises:
        RunFolderError: the folder is enrolled already, has no identity, or the roster does not pin it.
        ConfigError: the federation's name can't be one.
    """
    folder = Path(folder)
    checked_name(federation)
    if (folder / "roster.json").exists():
        raise RunFolderError(f"{folder} is enrolled already; another federation needs a folder of its own")
    make_folder(folder)
    try:
        if policy is not None:
            identity = Identity.load(folder / "identity.json")
            if identity.client_id not in roster or (
                roster.public_key(identity.client_id) != identity.public_key
            ):
                raise RunFolderError(
                    f"the members do not name client {identity.client_id} with the key of this folder"
                )
            # A day earlier: the server's clock need not be this one's.
            SessionCounter.enrol(folder / "sessions", number=max(0, session_clock() - 24 * 3600 * 1000))
            policy.save(folder / "policy.json")
        write_atomic(folder / "federation.txt", f"{federation}\n".encode())
        roster.save(folder / "roster.json")  # last: it is what says that the folder is enrolled
    except SecureSumError as error:
        raise RunFolderError(f"{folder} can't be enrolled: {error}") from None


def enroll_simulated(root: str | os.PathLike[str], federation: str, clients: int, policy: Policy) -> Roster:
    """Folders ``00``, ``01``, … of simulated clients, and ``server``, in `root`."""
    root = Path(root)
    members = [create_identity(root / f"{client:02d}", client) for client in range(clients)]
    roster = read_members(members)
    for client in range(clients):
        enroll(root / f"{client:02d}", federation, roster, policy)
    enroll(root / "server", federation, roster, None)
    return roster


def checked_name(federation: str) -> str:
    """The name of a federation, if it can be one.

    Raises:
        ConfigError: it can't.
    """
    if not _NAME.fullmatch(federation):
        raise ConfigError(
            f"a federation's name is 1 to 100 letters, digits, dots, dashes, underscores, not {federation!r}"
        )
    return federation


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is neither ID:PUBLIC-KEY-IN-HEX nor a file of such lines: {error}"
        ) from None
