"""Pack bounded integers into 64-bit words that add without carries.

A coordinate's total over all clients is at most M, so it is a digit in base M + 1, and k such digits fit a
word when (M+1)^k ≤ 2^64. No digit ever carries into the next, hence sums of packed words modulo 2^64 are
exact, and so are sums of words masked modulo 2^64. Packing contiguous bits instead would lose carries
that pairwise masks produce. The price is 64/k bits a coordinate, against log2(M+1) in the limit: 3.56 against
3.46 for the bits of 10 clients, 7.11 against 6.66 for 100.

Coordinate j is digit j // W of word j mod W, where W = ⌈d/k⌉: a digit of all words is a contiguous slice of
the vector, so packing is arithmetic on slices.

Two words more. The sentinel carries a 1 from every client: the opened sum must count the survivors. The
checksum carries the sum of the client's values, modulo 2^64: the opened one must be the sum of the counts. A
value so large that its digit carries changes the sum of the digits by a multiple of M, so that the two no
longer agree. They catch a mask that was lost or added twice, words that are no packing, and a carry with
which the checksum does not reckon. They do not catch a client that lies with care: M + 1 in one digit is the
same word as 1 in the next, and nobody can tell which was meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prism_crypto.errors import InputError, SumError

# 256 KiB of words: k passes over a block stay in a core's second-level cache.
_BLOCK_WORDS = 32 * 1024

# Packing makes few passes over narrow types: what a call of NumPy costs counts for more than the cache.
_PACKED_AT_ONCE = 64 * 1024

# Below so many columns or values one plain call is quicker than several quick ones.
_FEW_COLUMNS, _FEW_VALUES = 256, 4096

_UNKNOWN = "an upload holds something else than a packed vector, and nobody can tell whose it is"

_LARGEST = {np.dtype(f"u{size}"): 256**size - 1 for size in (1, 2, 4, 8)}  # of each type, the narrowest first
_WORD = np.dtype(np.uint64)


@dataclass(frozen=True)
class Packing:
    """How vectors of one session are packed.

    Args:
        dimension: d, the number of coordinates, at least 1.
        largest_total: M, the largest value that a coordinate's sum over all invited clients can take,
            1 ≤ M < 2^63. For n clients with values 0..bound it is n·bound.

    Raises:
        InputError: an argument is out of range.

    >>> packing = Packing(dimension=5, largest_total=3 * 1)  # the bits of three clients
    >>> a, b = packing.pack(np.array([1, 0, 1, 1, 0])), packing.pack(np.array([1, 1, 0, 1, 0]))
    >>> packing.unpack(a + b, survivors=2).tolist()
    [2, 1, 1, 2, 0]
    >>> packing.digits_per_word, Packing(dimension=10**6, largest_total=10).bits_per_coordinate
    (32, 3.555584)
    """

    dimension: int
    largest_total: int

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise InputError(f"dimension must be at least 1, not {self.dimension}")
        if not 1 <= self.largest_total < 2**63:
            raise InputError(f"largest_total must be in 1..2^63-1, not {self.largest_total}")

    @cached_property
    def digits_per_word(self) -> int:
        """k, the largest integer with (M+1)^k ≤ 2^64."""
        digits, reach = 0, self._base
        while reach <= 2**64:
            digits, reach = digits + 1, reach * self._base
        return digits

    @cached_property
    def words(self) -> int:
        """W = ⌈d/k⌉, the number of words that hold coordinates; sentinel and checksum come on top."""
        return -(-self.dimension // self.digits_per_word)

    @property
    def length(self) -> int:
        """W + 2, the number of words of an upload."""
        return self.words + 2

    @property
    def bits_per_coordinate(self) -> float:
        """64·W/d, without sentinel and checksum, and without any framing."""
        return 64 * self.words / self.dimension

    @property
    def _base(self) -> int:
        return self.largest_total + 1

    @cached_property
    def _powers(self) -> NDArray[np.uint64]:
        return np.array([self._base**digit for digit in range(self.digits_per_word)], dtype=np.uint64)

    def pack(self, values: NDArray[Any], *, bound: int | None = None) -> NDArray[np.uint64]:
        """Pack one client's values.

        Args:
            values: shape (d,), any integer dtype or bool, each in 0..bound.
            bound: the largest value that one client may contribute; by default M, the largest total.

        Returns:
            A new array, shape (W+2,), dtype uint64; the last two words are the sentinel 1 and the checksum.

        Raises:
            InputError: wrong shape or dtype, or a value out of range.
        """
        digits, largest = self._checked(values, bound)
        words = np.empty(self.length, dtype=np.uint64)
        words[-2] = 1
        words[-1] = _total(digits, largest) % 2**64
        # The vector's end leaves the last digits of the last words empty: these have a row less.
        full, rest = divmod(self.dimension, self.words)
        for rows, first, end in ((full + 1, 0, rest), (full, rest, self.words)):
            for start in range(first, end, _PACKED_AT_ONCE):
                block = words[start : min(start + _PACKED_AT_ONCE, end)]
                strides = (self.words * digits.itemsize, digits.itemsize)
                shape, offset = (rows, block.size), start * digits.itemsize
                _join(np.ndarray(shape, digits.dtype, digits, offset, strides), self._powers, largest, block)
        return words

    def unpack(
        self, words: NDArray[np.uint64], survivors: int, *, bound: int | None = None
    ) -> NDArray[np.int64]:
        """Read the counts out of an opened sum, and refuse one that cannot be right.

        Args:
            words: the sum of the survivors' packed vectors, shape (W+2,), dtype uint64. Left as it is.
            survivors: how many vectors were added.
            bound: the largest value that one client may contribute. When given, a count above
                survivors·bound is refused; without it only M limits the counts.

        Returns:
            The counts, shape (d,), dtype int64.

        Raises:
            SumError: the sentinel is not ``survivors``; a count is too large; padding is not zero; or the
                checksum is not the sum of the counts.
            InputError: wrong shape or dtype.
        """
        if words.dtype != np.uint64 or words.shape != (self.length,):
            raise InputError(
                f"expected {self.length} words of uint64, got {words.dtype} of shape {words.shape}"
            )
        if words[-2] != survivors:
            raise SumError(
                f"the opened sum counts {words[-2]} uploads, expected those of {survivors} survivors; "
                f"{_UNKNOWN}"
            )
        counts = np.empty(self.dimension, dtype=np.int64)
        base = np.uint64(self._base)
        for start in range(0, self.words, _BLOCK_WORDS):
            rest = words[start : min(start + _BLOCK_WORDS, self.words)]
            for digit in range(self.digits_per_word):
                quotient = rest // base
                remainder = rest - quotient * base
                target = counts[self._coordinates(digit, start, rest.size)]
                target[:] = remainder[: target.size]
                if remainder[target.size :].any():
                    raise SumError(
                        f"the opened sum has a padding digit that is not zero (digit {digit}); {_UNKNOWN}"
                    )
                rest = quotient
            if rest.any():
                raise SumError(
                    f"the opened sum has a word above the largest total of all its digits; {_UNKNOWN}"
                )
        most = self.largest_total if bound is None else min(self.largest_total, survivors * bound)
        if (largest := int(counts.max())) > most:
            raise SumError(f"the opened sum has a count of {largest}, at most {most} is possible; {_UNKNOWN}")
        if words[-1] != counts.sum(dtype=np.uint64):
            raise SumError(f"the opened sum's checksum is not the sum of its counts; {_UNKNOWN}")
        return counts

    def _coordinates(self, digit: int, start: int, count: int) -> slice:
        """The coordinates held by ``digit`` of the words start..start+count-1; fewer at the vector's end."""
        first = digit * self.words + start
        return slice(min(first, self.dimension), min(first + count, self.dimension))

    def _checked(self, values: NDArray[Any], bound: int | None) -> tuple[NDArray[Any], int]:
        """The values, if they are in range, in the narrowest type for these, and how large they can be."""
        limit = self.largest_total if bound is None else bound
        if not 0 <= limit <= self.largest_total:
            raise InputError(f"bound must be in 0..{self.largest_total} (the largest total), not {bound}")
        values = np.asarray(values)  # a masked array would keep the masked values out of the check
        if values.shape != (self.dimension,):
            raise InputError(f"expected values of shape ({self.dimension},), not {values.shape}")
        if values.dtype.kind not in "biu":
            raise InputError(f"expected integers or booleans, not {values.dtype}")
        # The same bits read as unsigned are the same values if none is negative, and a negative one reads as
        # more than its type holds: one pass finds both. Of a bool it is the bits that count: np.frombuffer
        # makes bools of any byte, and these would spill into other coordinates.
        unsigned = values.view(np.dtype(f"u{values.dtype.itemsize}").newbyteorder(values.dtype.byteorder))
        holds = 256**values.itemsize - 1
        most = min(limit, holds // 2) if values.dtype.kind == "i" else limit
        found = int(unsigned.max())
        if found > most:
            off = np.count_nonzero(unsigned > most)  # their number only: the server is sent this text
            raise InputError(f"values must be in 0..{limit}, {off} of {values.size} are not")
        # Under a bound the time does not depend on the values. Without one, M is far above what they are.
        # 1 at least: of zeros alone any number of rows could be joined, under powers that no type holds.
        largest = max(found if bound is None else bound, 1)
        narrow = next(dtype for dtype, most in _LARGEST.items() if min(largest, holds) <= most)
        return np.ascontiguousarray(unsigned, dtype=narrow), largest


@dataclass(frozen=True)
class PartedPacking:
    """How vectors are packed whose parts have bounds of their own: one part after the other, each by itself.

    Args:
        parts: length and bound of each part, in order.
        clients: how many are invited.

    Raises:
        InputError: an argument is out of range.

    >>> packing = PartedPacking(((1000, 1), (1, 10_000)), clients=3)  # a mask, and how many examples
    >>> a, b = (packing.pack(np.append(np.ones(1000, int), examples)) for examples in (700, 9000))
    >>> packing.unpack(a + b, survivors=2)[-2:].tolist()
    [2, 9700]
    >>> packing.words, Packing(1001, 3 * 10_000).words
    (33, 251)
    """

    parts: tuple[tuple[int, int], ...]
    clients: int

    def __post_init__(self) -> None:
        _ = self.words  # whatever is out of range

    @cached_property
    def _packings(self) -> tuple[Packing, ...]:
        return tuple(Packing(length, self.clients * bound) for length, bound in self.parts)

    @cached_property
    def dimension(self) -> int:
        """The number of coordinates of all parts."""
        return sum(length for length, _ in self.parts)

    @cached_property
    def words(self) -> int:
        """The number of words that hold coordinates; each part has two more."""
        return sum(packing.words for packing in self._packings)

    @cached_property
    def length(self) -> int:
        """The number of words of an upload."""
        return sum(packing.length for packing in self._packings)

    @property
    def bits_per_coordinate(self) -> float:
        """As `Packing.bits_per_coordinate`, the mean over all parts."""
        return 64 * self.words / self.dimension

    def pack(self, values: NDArray[Any], *, bound: int | None = None) -> NDArray[np.uint64]:
        """Pack one client's values, as `Packing.pack`; ``bound`` limits the parts' own ones further."""
        values = np.asarray(values)
        if values.shape != (self.dimension,):
            raise InputError(f"expected values of shape ({self.dimension},), not {values.shape}")
        words, start = [], 0
        for packing, (length, own) in zip(self._packings, self.parts, strict=True):
            part = values[start : start + length]
            words.append(packing.pack(part, bound=own if bound is None else min(own, bound)))
            start += length
        return np.concatenate(words)

    def unpack(
        self, words: NDArray[np.uint64], survivors: int, *, bound: int | None = None
    ) -> NDArray[np.int64]:
        """Read the counts out of an opened sum, as `Packing.unpack`; each part against its own bound."""
        if words.dtype != np.uint64 or words.shape != (self.length,):
            raise InputError(
                f"expected {self.length} words of uint64, got {words.dtype} of shape {words.shape}"
            )
        counts, start = [], 0
        for packing, (_, own) in zip(self._packings, self.parts, strict=True):
            part = words[start : start + packing.length]
            counts.append(packing.unpack(part, survivors, bound=own if bound is None else min(own, bound)))
            start += packing.length
        return np.concatenate(counts)


def _total(values: NDArray[Any], largest: int) -> int:
    """Σ values modulo 2^64, for contiguous values up to ``largest``, 1 at least.

    NumPy adds up narrow values by widening each. It takes fifteen times as long as adding rows of them in
    their own type, which is what this does, for as many rows as cannot overflow.
    """
    while values.dtype != _WORD and values.size > _FEW_VALUES:
        rows = _LARGEST[values.dtype] // largest
        if rows < 2:
            values = values.astype(f"u{2 * values.itemsize}")
            continue
        columns = -(-values.size // rows // 64) * 64  # each row begins where a cache line does
        rows, rest = divmod(values.size, columns)
        added = np.add.reduce(values[: values.size - rest].reshape(rows, columns), 0, values.dtype)
        if rest:  # there are fewer rows than could be: one more fits
            added[:rest] += values[-rest:]
        values, largest = added, largest * (rows + (rest > 0))
    return int(np.add.reduce(values, 0, _WORD))


def _join(rows: NDArray[Any], powers: NDArray[np.uint64], largest: int, words: NDArray[np.uint64]) -> None:
    """Write Σ rows[i]·powers[i] to ``words``, for values up to ``largest`` >= 1: powers of a base, from 0 on.

    As many neighbouring rows are joined as a byte holds, of these as many as 16 bits hold, and so on: most of
    the work is done on bytes instead of words, eight times as many at once.
    """
    if words.size < _FEW_COLUMNS:
        np.matmul(powers[: len(rows)], rows.astype(np.uint64), out=words)
        return
    base = int(powers[1]) if len(powers) > 1 else 1
    for dtype, most in _LARGEST.items():
        group, joint = 1, largest
        while group < len(rows) and (more := joint * base + largest) <= most:
            group, joint = group + 1, more
        if dtype == _WORD:
            _horner(rows, base, len(rows), words[np.newaxis])
        elif group > 1:
            count = -(-len(rows) // group)
            # In the output's memory: to touch new pages costs more than packing. Two rows of bytes always fit
            # 32 bits, so the words are not written while bytes are read.
            room = words if dtype.itemsize == 1 and count <= words.itemsize else None
            joined = np.ndarray((count, words.size), dtype, room)
            _horner(rows, base, group, joined)
            rows, base, largest = joined, base**group, joint


def _horner(rows: NDArray[Any], base: int, group: int, joined: NDArray[Any]) -> None:
    """Each ``group`` of neighbouring rows into one: Σ rows[i]·base^i; the last group may have fewer."""
    # Two bytes at once are multiplied more quickly: neither product leaves its byte.
    lanes = joined.view(np.uint16) if joined.itemsize == 1 and not joined.shape[1] % 2 else joined
    step = np.array(base, lanes.dtype)
    done = 0
    for digit in reversed(range(group)):
        layer = rows[digit::group]
        if done:
            np.add(joined[:done], layer[:done], joined[:done])
        if done < len(layer):
            joined[done : len(layer)] = layer[done:]
            done = len(layer)
        if digit:
            np.multiply(lanes[:done], step, lanes[:done])
