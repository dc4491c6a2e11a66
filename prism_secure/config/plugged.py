"""Settings that may name something of the user's own, as "package.module:name"."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prism_secure.errors import ConfigError

_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_reference(text: str) -> bool:
    """Whether `text` has the form of a reference; nothing is imported.

    >>> [is_reference(text) for text in ("mine:rule", "my.rules:Rules.first", "mine", "mine:", "a b:c")]
    [True, True, False, False, False]
    """
    return _REFERENCE.fullmatch(text) is not None


def origin(reference: str) -> str:
    """A reference with the SHA-256 of the file that its module is in, as a ledger names it: of this file, not
    of what it imports.

    Raises:
        ConfigError: its module cannot be found.
    """
    module = reference.partition(":")[0]
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{reference!r} cannot be found: {error}") from None
    if found is None:
        raise ConfigError(f"{reference!r} cannot be found: there is no module {module!r}")
    file = found.origin
    if file is None or not Path(file).is_file():  # a namespace, or made by another program
        return f"{reference}, no source file"
    return f"{reference}, sha256 {hashlib.sha256(Path(file).read_bytes()).hexdigest()}"


def plugged(reference: str, setting: str) -> Callable[..., Any]:
    """What a reference names; importing it runs its module.

    Args:
        reference: of the form that `is_reference` knows.
        setting: "section.key", for the message.

    Raises:
        ConfigError: it is the script that runs, cannot be imported, has no such name, or cannot be called.
    """
    module, _, name = reference.partition(":")
    if module == "__main__":  # another process has another one, and so has whoever repeats the run
        raise ConfigError(f"{setting} = {reference!r} must name a module that can be imported, not a script")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # a user's module may raise anything while it is imported
        raise ConfigError(
            f"{setting} = {reference!r} cannot be imported: {type(error).__name__}: {error}; its module "
            "must be installed, or in a folder on PYTHONPATH"
        ) from error
    if not callable(found):
        raise ConfigError(f"{setting} = {reference!r} must be something to call, got {found!r}")
    return found  # type: ignore[no-any-return]


def built(
    reference: str,
    setting: str,
    *arguments: object,
    called: str = "",
    passes: tuple[type[Exception], ...] = (),
    **named: object,
) -> Any:
    """What a reference's call with these arguments gives.

    Args:
        reference, setting: as in `plugged`.
        called: how it is called, for the message.
        passes: errors that it may raise, and that are left as they are.

    Raises:
        ConfigError: as `plugged`, or the call fails.
    """
    make = plugged(reference, setting)
    try:
        return make(*arguments, **named)
    except passes:
        raise
    except Exception as error:  # a user's code may raise anything
        how = f"; it is called {called}" if called else ""
        raise ConfigError(
            f"{setting} = {reference!r} cannot be built: {type(error).__name__}: {error}{how}"
        ) from error
