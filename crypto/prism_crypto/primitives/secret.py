"""Values that must not be printed, pickled or copied, and that are overwritten when they are done with.

What erasure means here: the bytes of a `Secret` are overwritten, and references to keys are dropped. What it
can't mean in Python: immutable ``bytes`` and ``int`` objects made along the way, swapped pages and core
dumps keep what they held until the memory is used again.
"""

from __future__ import annotations

from typing import NoReturn

__all__ = ["Confidential", "Secret"]


class Confidential:
    """Base of everything that holds a secret: its ``repr`` tells the type alone, and pickling is refused.

    ``copy.copy`` and ``copy.deepcopy`` go through the same door and are refused with it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds secrets: it is not pickled or copied")


class Secret(Confidential):
    """A secret byte string that can be overwritten.

    >>> secret = Secret(b"seed")
    >>> secret
    <Secret>
    >>> bytes(secret.reveal())
    b'seed'
    >>> secret.erase()
    >>> secret.reveal()
    bytearray(b'')
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self._value = bytearray(value)

    def reveal(self) -> bytearray:
        """The bytes themselves, not a copy; empty after `erase`."""
        return self._value

    def erase(self) -> None:
        """Overwrite the bytes with zeros and let go of them."""
        self._value[:] = bytes(len(self._value))
        self._value = bytearray()
