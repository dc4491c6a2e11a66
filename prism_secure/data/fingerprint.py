"""Which data a run reads: kept in its private part, refused where they changed, compared by an audit.

    data.folder/.prism-secure.key    a random secret of these files (0600), drawn by the first run over them
    clients/data.json                the absolute folder, and HMACs of what was read under that key (0600)

A bare hash of private files confirms guesses: who knows all images but one tries the last one out. So the
HMAC and its key lie apart, and neither enters ledger, card, report or an error's text. The key also tells
that two runs read the same files, from wherever each of them named the folder.

Where no key can lie with the data, as in a folder that is read-only, the run keeps one of its own beside the
HMAC: changed files are seen all the same, and whether other runs read these files is told by paths alone.
Published data sets, known by their name, are kept so, too; what ships with the package needs no record.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec
from torch import Tensor

from prism_privacy import PrivacyError
from prism_privacy.durable_files import read_secret_file, write_secret_file
from prism_secure.config import Data
from prism_secure.data import BUNDLED, Dataset
from prism_secure.data.sources import FINGERPRINT_FILE, FINGERPRINTS, DataFingerprint, data_set
from prism_secure.errors import DataError, RunFolderError
from prism_secure.storage import write_atomic

__all__ = ["KEY_FILE", "changed", "keep_fingerprint"]

KEY_FILE = ".prism-secure.key"
_KEY_BYTES = 32


class _Unkept(Exception):
    """No key can be kept with the data, for a reason in words that hold no path."""


def keep_fingerprint(
    place: Path, data: Data, dataset: Dataset, note: Callable[[str], object], *, begun: bool
) -> None:
    """Keep which data a run reads, before it spends anything on them; or see that they have not changed.

    Args:
        place: the run's private folder, where `data.json` lies.
        data: the configuration's section.
        dataset: what was loaded from it.
        note: told what a person should know.
        begun: whether the run has spent something before, so that a record should be there.

    Raises:
        RunFolderError: these are not the images that the run has read before, or nobody can tell; or what was
            kept is damaged.
        DataError: the key that lies with the data is damaged.
        StorageError: the disk refused.
    """
    if data.source == BUNDLED:
        return
    path = place / FINGERPRINT_FILE
    if not path.exists():
        if begun:
            note(f"no {FINGERPRINT_FILE} says which images this run has read before: it is made now")
        found = msgspec.json.encode(_identify(data, dataset, note))
        write_atomic(path, msgspec.json.format(found) + b"\n", mode=0o600)
        return
    try:
        kept = FINGERPRINTS.decode(path.read_bytes())
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise RunFolderError(
            f"clients/{FINGERPRINT_FILE} is damaged ({error}), so whether the images have changed "
            "cannot be told; put it back"
        ) from None
    if parts := changed(kept, _folder(data), dataset):
        raise RunFolderError(
            f"the {' and the '.join(parts)} images in data.folder are not those that this run has read: "
            "expected the same images and labels in the same order; put the files back, or begin another run"
        )


def changed(kept: DataFingerprint, folder: Path, dataset: Dataset) -> list[str]:
    """Which parts differ from what was kept, of "training" and "held-out".

    Args:
        kept: what the run read.
        folder: where the files lie now.
        dataset: what was loaded from there.

    Raises:
        RunFolderError: nobody can tell, because the key is not there that lay with the data.
        DataError: it is damaged.
    """
    key = bytes.fromhex(kept.own_key)
    if not key:
        try:
            key = _read_key(folder)
        except _Unkept as why:
            raise RunFolderError(f"{_UNTOLD}: it {why}; {_MEND}") from None
        if _name_of(key) != kept.key:
            raise RunFolderError(f"{_UNTOLD}: another key lies there; {_MEND}")
    parts = {"training": kept.training, "held-out": kept.held_out}
    found = _digests(key, dataset)
    return [name for name, known in parts.items() if not hmac.compare_digest(known, found[name])]


_UNTOLD = (
    f"whether the images in data.folder are those that this run has read cannot be told without {KEY_FILE}, "
    "the key that lay beside them"
)
_MEND = (
    f"put it back, or, if you know that they are the same, delete clients/{FINGERPRINT_FILE}: they are then "
    "recorded anew"
)


def _identify(data: Data, dataset: Dataset, note: Callable[[str], object]) -> DataFingerprint:
    folder = _folder(data)
    key, shared = secrets.token_bytes(_KEY_BYTES), False
    if not data_set(data):
        try:
            key, shared = _key_of(folder), True
        except _Unkept as why:
            note(
                f"no key can be kept with the data: {KEY_FILE} in data.folder {why}; this run sees all the "
                "same whether files change, but that other runs read these files is told by their path alone"
            )
    digests = _digests(key, dataset)
    return DataFingerprint(
        source=data.source,
        folder=str(folder),
        key=_name_of(key) if shared else "",
        own_key="" if shared else key.hex(),
        training=digests["training"],
        held_out=digests["held-out"],
    )


def _folder(data: Data) -> Path:
    assert data.folder is not None, "every source but the bundled one has a folder"
    return Path(data.folder).expanduser().resolve()


def _digests(key: bytes, dataset: Dataset) -> dict[str, str]:
    """HMAC-SHA256 of each part's images, labels and, where they are told, persons as they are in memory."""
    parts = {
        "training": (
            dataset.train_images,
            dataset.train_labels,
            *([] if dataset.persons is None else [dataset.persons]),
        ),
        "held-out": (dataset.test_images, dataset.test_labels),
    }
    return {name: _hmac(key, name, *tensors) for name, tensors in parts.items()}


def _hmac(key: bytes, usage: str, *tensors: Tensor) -> str:
    found = hmac.new(key, f"prism-secure/v1/data\0{usage}\0".encode(), hashlib.sha256)
    for tensor in tensors:
        found.update(f"{tuple(tensor.shape)} {tensor.dtype}\0".encode())
        found.update(tensor.contiguous().numpy().data)
    return found.hexdigest()


def _name_of(key: bytes) -> str:
    return _hmac(key, "name")


def _key_of(folder: Path) -> bytes:
    """The key in the data's folder; drawn where there is none, once: of two runs that try, one does it."""
    path = folder / KEY_FILE
    if not path.exists():
        try:
            write_secret_file(path, secrets.token_hex(_KEY_BYTES).encode() + b"\n", PrivacyError)
        except OSError as error:
            raise _Unkept(f"cannot be written ({error.strerror})") from None
        except PrivacyError:  # another run was first; or the file system keeps nothing private
            if not path.exists():
                raise _Unkept("would be open to others on this file system") from None
    return _read_key(folder)


def _read_key(folder: Path) -> bytes:
    path = folder / KEY_FILE
    try:
        text = read_secret_file(path, PrivacyError)
    except PrivacyError:
        why = "is not a file of yours alone (mode 0600)" if path.exists() else "is gone"
        raise _Unkept(why) from None
    except OSError as error:
        raise _Unkept(f"cannot be read ({error.strerror})") from None
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise DataError(
            f"{KEY_FILE} in data.folder is damaged: expected {2 * _KEY_BYTES} hexadecimal digits; put it "
            "back, or delete it if no run has to go on: the next one draws another"
        )
    return key
