"""Whether the coins behind the released bits were secret. Needs the clients' private folders, as a simulation
has them.

No file can prove that a number was drawn at random. What can be shown is that a client's first upload follows
from its own secret and not from public values, and that no secret is one that a public seed gives.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from prism_privacy import CoinSecret, Outbox, PrivacyError, ReleaseConflict
from prism_privacy.masks.coins import SECRET_BYTES
from prism_privacy.moments.store import stored_release
from prism_secure.audit.checks.file_modes import check_mode
from prism_secure.audit.checks.measured_epsilon import is_measured
from prism_secure.audit.evidence import Evidence
from prism_secure.audit.findings import Notebook, Unchecked
from prism_secure.config.invitations import invited
from prism_secure.config.public_seed import public_seed
from prism_secure.errors import ConfigError, DataError, FeatureError, PrismError
from prism_secure.rounds.arrays import read_arrays
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.server import Server
from prism_secure.rounds.threads import one_thread
from prism_secure.run_folder.environment import describe_environment, read_environment
from prism_secure.run_folder.folder import client_folder

_LEAST_VALUES = 12
"""32 random bytes have fewer different values with probability below 1e-17."""


def secrets(evidence: Evidence, notes: Notebook) -> None:
    """Does each client have a coin secret of its own, which others cannot read or derive?"""
    known = {"secret": 0, "test": 0}
    for entry in evidence.charges:
        known[entry.coins] += 1
    if known["secret"]:
        notes.fact(f"the ledger calls the coins of {known['secret']} charges secret")
    seen: dict[bytes, str] = {}
    guesses = set(_guesses(evidence.config.federation.seed, len(evidence.clients)))
    for folder in evidence.clients:
        check_mode(notes, folder, evidence, 0o700)
        for path in sorted(folder.iterdir()):
            if path.is_file():
                check_mode(notes, path, evidence, 0o600)
        secret = _secret(folder / "coins.key")
        if secret is None:
            if (folder / "coins.key").exists() or _answered(evidence, folder):
                notes.finding(f"Client {folder.name} has no coin secret that can be read, but answered.")
            continue
        if secret in seen:
            notes.finding(f"Clients {seen[secret]} and {folder.name} have the same coin secret.")
        seen[secret] = folder.name
        if secret in guesses or len(set(secret)) < _LEAST_VALUES:
            notes.finding(
                f"Client {folder.name}'s coin secret follows from the public seed "
                f"{evidence.config.federation.seed} or from a pattern: anybody can take its noise away."
            )
    here = {int(folder.name) for folder in evidence.clients}
    if missing := [client for client in range(evidence.config.federation.clients) if client not in here]:
        raise Unchecked(f"clients {missing} have no folder here, and others have")
    if not notes.findings:
        notes.fact(
            f"{len(seen)} different secrets, files private; none is among {len(guesses)} guesses from the "
            "public seed"
        )


def replay(evidence: Evidence, notes: Notebook) -> None:
    """Do the first upload's bits follow from the client's secret, and not without it?"""
    if evidence.config.federation.device != "cpu":
        notes.note(
            "config.toml, which nobody signs, says that clients trained on a graphics card. Sums there "
            "do not repeat bit for bit, so whether a first upload follows from its secret was not tried."
        )
        return
    index = invited(evidence.config, 1)[0]
    folder = next((path for path in evidence.clients if int(path.name) == index), None)
    if folder is None:
        raise Unchecked(f"client {index}, which was in round 1, has no folder here")
    if _secret(folder / "coins.key") is None and _answered(evidence, folder):
        raise Unchecked(f"client {folder.name}'s coin secret cannot be read")
    if not (folder / "outbox").is_dir():
        raise Unchecked(
            f"client {folder.name} has sent nothing yet", expected=not _answered(evidence, folder)
        )
    try:
        if 1 not in Outbox(folder / "outbox").rounds(evidence.federation):
            raise Unchecked(f"client {folder.name} has sent nothing yet", expected=True)
        with tempfile.TemporaryDirectory(prefix="prism-audit-") as name:
            recipe = Components(evidence.config_here)
            own = _first_upload(evidence, recipe, folder, Path(name) / "own", keep_secret=True)
            other = _first_upload(evidence, recipe, folder, Path(name) / "other", keep_secret=False)
            by_own = _was_sent(evidence, folder, own)
            by_other = _was_sent(evidence, folder, other)
    except (PrismError, PrivacyError, OSError) as error:
        # Data, weights and a store of releases may lie elsewhere; what the folder itself holds is damaged.
        elsewhere = isinstance(error, (DataError, FeatureError, ConfigError, ReleaseConflict))
        elsewhere |= evidence.config.privacy.record_store is not None
        text = f"the first round cannot be repeated here: {evidence.told(error)}"
        raise Unchecked(text, expected=elsewhere) from None
    if by_other:
        notes.finding(
            f"Client {folder.name}'s first upload comes out the same with another coin secret: its bits "
            "follow from public values, and so epsilon does not hold.",
            upload_sha256=hashlib.sha256(other).hexdigest(),
        )
    elif by_own:
        notes.fact(
            f"repeated round 1 of client {folder.name}: its own secret gives the upload that was sent, "
            "another does not"
        )
    else:
        _unexplained(evidence, folder, notes)


def _unexplained(evidence: Evidence, folder: Path, notes: Notebook) -> None:
    """The upload is not what this program makes of the folder; another machine or version explains that."""
    here, there = describe_environment(), read_environment(evidence.folder)[0]
    names = ("python", "packages", "cpu_capability", "commit")
    changed = [name for name in names if here.get(name) != there.get(name)]
    text = f"Client {folder.name}'s first upload cannot be reproduced from its secret"
    if changed:
        notes.note(
            f"{text}; {', '.join(changed)} differ from the run's, and other versions round otherwise.",
            "likely",
            differs=changed,
        )
    else:
        notes.finding(
            f"{text}, with the same program and kind of processor: other coins, data or code made it.",
            "likely",
        )


def _first_upload(
    evidence: Evidence, recipe: Components, folder: Path, copy: Path, *, keep_secret: bool
) -> bytes:
    """What a client of this program sends in round 1, in a copy of the run where it has yet to answer."""
    index = int(folder.name)
    client = client_folder(copy, index)
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("state.") and path.name != "coins.key":
            shutil.copy2(path, client / path.name)
    if keep_secret:
        shutil.copy2(folder / "coins.key", client / "coins.key")
    else:
        CoinSecret.create(client / "coins.key")
    broadcast = Server.of(recipe, evidence.federation).broadcast()
    with one_thread():  # as in a run, so that sums are added in the same order
        Client(index, client, recipe).answer(broadcast)
    payload = Outbox(client / "outbox").stored(evidence.federation, 1)
    assert payload is not None
    return payload


def _was_sent(evidence: Evidence, folder: Path, payload: bytes) -> bool:
    """Whether the client's outbox remembers these very bytes; it keeps a digest of those that are gone."""
    return Outbox(folder / "outbox").digest(evidence.federation, 1) == hashlib.sha256(payload).digest()


def kept(evidence: Evidence, notes: Notebook) -> None:
    """Is what each client keeps there and whole: its uploads, its state, what it trains from?"""
    finished = range(1, len(evidence.records) + 1)
    own_place = evidence.config.privacy.record_store is None
    measured = is_measured(evidence)  # then no release of its own says what an image costs
    released = not measured and any(entry.record is not None for entry in evidence.entries)  # not config.toml
    if finished and released and evidence.config.opens_moments and own_place:
        opened = partial(stored_release, evidence.folder / "checkpoint" / "release.moments")
        _whole(notes, "The opened sum of moments", opened)
    files = 0
    for folder in evidence.clients:
        rounds = [number for number in finished if int(folder.name) in invited(evidence.config, number)]
        if not rounds:
            continue
        if not (folder / "outbox").is_dir():
            notes.finding(f"Client {folder.name} was in finished rounds, and its outbox is gone.")
            continue
        outbox = Outbox(folder / "outbox")
        reads: dict[str, Callable[[], object]] = {
            f"upload of round {number}": partial(outbox.digest, evidence.federation, number)
            for number in sorted({*rounds, *outbox.rounds(evidence.federation)})
        }
        reads["state"] = partial(_arrays, folder / "state.safetensors")
        if measured:
            reads["file of features"] = partial(_arrays, folder / "features.safetensors")
        elif not released:
            reads["moments"] = partial(_arrays, folder / "moments.safetensors")
        elif own_place:
            reads["release"] = partial(stored_release, folder / "release.moments")
        files += sum(_whole(notes, f"Client {folder.name}'s {name}", read) for name, read in reads.items())
    if not notes.findings:
        notes.fact(f"{files} files of {len(evidence.clients)} clients are whole")


def _whole(notes: Notebook, name: str, read: Callable[[], object]) -> bool:
    """Whether a file that finished rounds left can be read; a finding if not."""
    try:
        if read() is not None:
            return True
        notes.finding(f"{name} is gone, and rounds are finished.")
    except (PrismError, PrivacyError, OSError):
        notes.finding(f"{name} is damaged.")
    return False


def _arrays(path: Path) -> object:
    return read_arrays(path) if path.exists() else None


def _answered(evidence: Evidence, folder: Path) -> bool:
    """Whether this client has drawn coins: an upload is kept, or it was in a round that is finished."""
    uploads = any((folder / "outbox").glob("*/*.upload"))
    index, finished = int(folder.name), len(evidence.records)
    return uploads or any(index in invited(evidence.config, number + 1) for number in range(finished))


def _secret(path: Path) -> bytes | None:
    try:
        _, secret = path.read_text("ascii").split()
        return found if len(found := bytes.fromhex(secret)) == SECRET_BYTES else None
    except (OSError, ValueError):
        return None


def _guesses(seed: int, clients: int) -> Iterator[bytes]:
    """What programmers make of a public seed when they want 32 bytes a client."""
    words = ("coins", "coin", "mask", "secret", "client", "noise")
    for client in range(clients):
        numbers = {seed, seed + client, seed * 1000 + client, client}
        numbers |= {public_seed(seed, word) for word in words}
        numbers |= {public_seed(seed, word, client) for word in words}
        for number in numbers:
            yield number.to_bytes(32, "big")
            yield number.to_bytes(32, "little")
            yield random.Random(number).randbytes(32)  # noqa: S311 - what is looked for
            yield np.random.default_rng(number).bytes(32)
            yield np.random.RandomState(number % 2**32).bytes(32)
            for text in (f"{number}", f"{number}:{client}", f"{number}-{client}", f"{number}{client}"):
                yield hashlib.sha256(text.encode()).digest()
