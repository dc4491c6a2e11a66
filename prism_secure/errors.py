"""What can go wrong, as types.

    PrismError                 everything below; `exit_code` is what the command line ends with
    ├── ConfigError            a setting is unknown, of the wrong type, or impossible          (2)
    │   ├── AgreementError     what another party asks for is not what was agreed on
    │   └── MissingPackage     an optional package is not installed; an ImportError, too
    ├── DataError              a data set is missing, unreadable, or of the wrong shape        (3)
    ├── FeatureError           a feature extractor's weights are missing or do not fit         (3)
    ├── RunFolderError         a run folder is in use, of another configuration, or damaged    (4)
    ├── StorageError           the disk refused a write; what was there before is untouched    (5)
    ├── NotClaimed             an epsilon was asked for of which a run's ledger says nothing   (4)
    ├── RoundError             a round could not be completed; the run can be resumed          (6)
    └── ModelError             a model file is corrupt, foreign, or does not fit its network   (7)

Interrupted by Ctrl-C is exit code 130 and ended by SIGTERM 143, as for every program. Errors of the secure
sum and of the accountant are `prism_crypto.SecureSumError` and `prism_privacy.PrivacyError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PrismError(Exception):
    """Base of every error that prism_secure raises on purpose; its text is one clear message.

    Args:
        text: for who runs this, on their console.
        public: what may be kept of it, see `public_text`; the text itself if None.
    """

    exit_code = 1

    def __init__(self, text: str = "", *, public: str | None = None) -> None:
        super().__init__(text)
        self._public = public

    @property
    def public(self) -> str:
        """The text without what only the console may say."""
        return str(self) if self._public is None else self._public


class ConfigError(PrismError):
    """A setting is unknown, of the wrong type, or impossible."""

    exit_code = 2


class AgreementError(ConfigError):
    """What another party asks for is not what was agreed on; it is sent the text.

    So the text holds what was asked and what everybody agreed on, and nothing of data, files or machines.
    """


class MissingPackage(ConfigError, ImportError):
    """An optional package is not installed; the text says how to get it."""


class DataError(PrismError):
    """A data set is missing, unreadable, or of the wrong shape; only the console hears which files."""

    exit_code = 3

    @property
    def public(self) -> str:
        return "the data cannot be used: the console says why" if self._public is None else self._public


class FeatureError(PrismError):
    """A feature extractor's weights are missing or do not fit."""

    exit_code = 3


class RunFolderError(PrismError):
    """A run folder is in use, belongs to another configuration, or is damaged."""

    exit_code = 4


class NotClaimed(PrismError):
    """An epsilon was asked for of which a run's ledger says nothing; the message lists what it claims."""

    exit_code = 4


class StorageError(PrismError):
    """The disk refused a write; files that were complete before are untouched."""

    exit_code = 5


class RoundError(PrismError):
    """A round could not be completed; everything before it is kept and the run can be resumed."""

    exit_code = 6


class ModelError(PrismError):
    """A model file is corrupt, foreign, or does not fit its network."""

    exit_code = 7


def pip_install(extra: str) -> str:
    """What a message about missing packages ends with; the project is on no package index.

    >>> pip_install("onnx")
    "in a clone of the repository, pip install '.[onnx]'"
    """
    return f"in a clone of the repository, pip install '.[{extra}]'"


def public_text(error: BaseException) -> str:
    """What may be kept of an error in run folders, studies, reports and audits, which others read.

    Names of one's own files are for the console alone; texts of errors that nobody foresaw may quote them.

    >>> public_text(DataError("/home/me/jane-doe.png cannot be read"))
    'the data cannot be used: the console says why'
    >>> public_text(FileNotFoundError(2, "No such file or directory", "jane-doe.png"))
    'FileNotFoundError: No such file or directory'
    >>> public_text(KeyError("jane-doe"))
    'KeyError: the console says more'
    """
    if isinstance(error, PrismError):
        return error.public
    from prism_crypto import SecureSumError  # here: their packages take a second to import
    from prism_privacy import PrivacyError

    if isinstance(error, (PrivacyError, SecureSumError)):
        return str(error)
    why = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}: {why or 'the console says more'}"


def did_you_mean(
    name: str, valid: Iterable[str], *, cutoff: float = 0.5, otherwise: str | None = None
) -> str:
    """What a message about an unknown name ends with: the nearest valid one, or else all of them.

    Args:
        name: what was asked for. Of names `section.key`, the nearest are a longer key of this section that
            ends with it, and the same key in another section.
        valid: what it could have been.
        cutoff: how alike names must be, see `difflib.get_close_matches`.
        otherwise: what to say instead of all valid names.

    >>> did_you_mean("flp", ["flip", "clip"]), did_you_mean("x", ["flip", "clip"])
    ("did you mean 'flip'?", 'valid: flip, clip')
    >>> did_you_mean("data.flip", ["privacy.flip", "data.folder"])
    "did you mean 'privacy.flip'?"
    >>> did_you_mean("privacy.epsilon", ["privacy.record_epsilon", "budget.epsilon"])
    "did you mean 'privacy.record_epsilon' or 'budget.epsilon'?"
    """
    valid = tuple(valid)
    section, _, key = name.rpartition(".")
    longer = [
        item for item in valid if section and item.startswith(f"{section}.") and item.endswith(f"_{key}")
    ]
    near = longer[:1] + [item for item in valid if item.endswith(f".{key}")][:1]
    near = near or difflib.get_close_matches(name, valid, n=1, cutoff=cutoff)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"valid: {', '.join(valid)}" if otherwise is None else otherwise
