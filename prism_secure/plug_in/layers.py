"""Trees of layers and flat vectors: other people's code passes on the one, the secure sum adds the other.

A tree is what models are kept in: dictionaries, lists and tuples, in one another to any depth, of NumPy
arrays and torch tensors (with gradients, in bfloat16, on a GPU). `Layers` gives its layers names and an
order, and turns vectors into what a tree had. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_crypto import InputError
from prism_crypto.wire.codec import unmasked
from prism_privacy import CoinSecret, MaskRelease, clip_toward, release_bits
from prism_privacy.masks.fixed_point import Computed, pieces

__all__ = ["Layers", "Tree", "leaves_of", "release_mask", "tree_of"]

Tree: TypeAlias = Mapping[Any, Any] | Sequence[Any]
"""One array a layer, in a dictionary, list or tuple, which may hold others. A list of numbers is an array."""


@dataclass(frozen=True)
class Layers:
    """The names and shapes of layers, and their order in a flat vector: by name, whatever a dict's order is.

    A layer `b` in a dictionary `a` has the name `a.b`, as in torch's ``state_dict``; one in a list its place,
    the second of a list `a` is `a.1`.

    >>> layers = Layers.of({"b": np.zeros((2, 2)), "a": np.zeros(3)})
    >>> layers.dimension
    7
    >>> layers.split(layers.flatten({"b": np.array([[4, 5], [6, 7]]), "a": np.array([1, 2, 3])}))
    {'a': array([1, 2, 3]), 'b': array([[4, 5],
           [6, 7]])}
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, arrays: Tree) -> Self:
        """The layers of this tree.

        Raises:
            InputError: it is not a tree of layers, two have one name, or one is not an array.
        """
        leaves = leaves_of(arrays)
        return cls(tuple((name, _shape(name, leaves[name])) for name in sorted(leaves, key=_place)))

    @property
    def dimension(self) -> int:
        """d: the length of the flat vector."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    def size(self, name: Any) -> int:
        """How many numbers the layer of this name has."""
        return math.prod(dict(self.shapes)[name])

    @property
    def digest(self) -> bytes:
        """SHA-256 of names and shapes: bind it into a session whose parties may disagree about them."""
        return hashlib.sha256(b"prism-secure/v1/layers\0" + repr(self.shapes).encode()).digest()

    def flatten(self, arrays: Tree) -> NDArray[Any]:
        """One vector (d,) from one array a layer; the dtype that holds all of theirs.

        Raises:
            InputError: a layer is missing, unknown, of another shape, no array, or has masked entries.
        """
        return self.joined(arrays, lambda name, values: values)

    def joined(self, arrays: Tree, read: Callable[[Any, NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
        """As `flatten`, each layer as ``read(name, values)`` makes it; what that refuses names the layer."""
        return np.concatenate(self._rows(arrays, lambda name, value: read(name, _array(value))))

    def computed(self, arrays: Tree) -> Computed:
        """As `flatten`, in float64 and a piece at a time: layers stay where they are, and of their dtype.

        (One that does not lie in one row is copied.)
        """
        rows = self._rows(arrays, _where_it_is)
        starts = np.cumsum([0, *map(len, rows)]).tolist()

        def piece(wanted: slice) -> NDArray[np.float64]:
            cuts = (
                row[max(wanted.start - start, 0) : max(wanted.stop - start, 0)]
                for row, start in zip(rows, starts[:-1], strict=True)
            )
            return np.concatenate([_array(cut) for cut in cuts if len(cut)], dtype=np.float64)

        return Computed(self.dimension, piece)

    def _rows(self, arrays: Tree, read: Callable[[Any, Any], Any]) -> list[Any]:
        """``read(name, value)`` of each layer, flat and in order; what it refuses names the layer."""
        self._check(arrays)
        leaves, rows = leaves_of(arrays), []
        for name, _ in self.shapes:
            try:
                rows.append(read(name, leaves[name]).reshape(-1))
            except InputError as error:
                raise InputError(f"layer {name!r}: {error.message}") from None
        return rows

    def _check(self, arrays: Tree) -> None:
        """Refuse a tree that has other layers, naming the first that differs."""
        expected, found = dict(self.shapes), dict(Layers.of(arrays).shapes)
        for name in [*expected, *found]:
            if name not in found:
                raise InputError(f"layer {name!r} is missing")
            if name not in expected:
                raise InputError(f"layer {name!r} is unknown; expected {', '.join(map(repr, expected))}")
            if found[name] != expected[name]:
                raise InputError(f"layer {name!r}: expected shape {expected[name]}, got {found[name]}")

    def split(self, vector: ArrayLike, tree: Tree | None = None) -> Any:
        """One array a layer from one vector (d,), by name in a dictionary.

        Args:
            vector: the numbers, in the order of `flatten`.
            tree: take its containers in place of the dictionary, and a tensor on its device where it has a
                tensor. Numbers with a point then take the layer's own float type, if it has one.

        Raises:
            InputError: a vector of another length, or a tree with other layers.

        >>> tree = {"a": [np.ones(1, np.float32)], "b": (np.ones(2),)}
        >>> Layers.of(tree).split([0.5, 2.0, 3.0], tree)
        {'a': [array([0.5], dtype=float32)], 'b': (array([2., 3.]),)}
        """
        if tree is not None:
            self._check(tree)
        flat = np.asarray(vector)
        if flat.shape != (self.dimension,):
            raise InputError(f"expected a vector of shape ({self.dimension},), got {flat.shape}")
        ends = np.cumsum([math.prod(shape) for _, shape in self.shapes])[:-1]
        parts = np.split(flat, ends)
        found = {name: part.reshape(shape) for (name, shape), part in zip(self.shapes, parts, strict=True)}
        return found if tree is None else tree_of(found, tree, _recast)


def release_mask(
    probabilities: Tree,
    broadcast: Tree,
    release: MaskRelease,
    coins: CoinSecret,
    *,
    federation: str,
    round: int,
) -> Any:
    """A client's mask of one round: clipped around the broadcast, randomized, drawn from its secret coins.

    p = f + (1-2f)θ, moved toward the broadcast's until its distance is at most the clip; bits ~ Ber(p). The
    same p gives the same bits, so a round that is repeated after a crash releases nothing new; another p, in
    whatever round or experiment, has coins of its own, or the bits that differ would betray what changed.
    (A repeated training that ends elsewhere is then a second release, and is charged as one.)

    It goes piece by piece: beside the two arguments it needs five bytes a coordinate.

    Args:
        probabilities: this client's θ after local training, in [0, 1], one float array a layer.
        broadcast: the θ that the server sent before this round, as this client loaded it.
        release: what the accountant is told.
        coins: this client's secret; keep it in a file (`CoinSecret.create`), one for each client.
        federation: a name that no other experiment has, for example a UUID kept beside the coins.
        round: the round's number.

    Returns:
        0 or 1, uint8, in the containers of `broadcast`, and as tensors where it has tensors.

    Raises:
        ValueError: the layers differ or are none, or `release` clips in score space.
        prism_privacy.PrivacyError: a probability is out of range. NaN and infinities are not errors; they
            stand for the broadcast's.

    >>> theta = {"head": np.full(4, 0.5)}
    >>> coins = CoinSecret.for_test(bytes(32))
    >>> mine = {"head": np.array([0.9, 0.1, 0.5, 0.5])}
    >>> release_mask(mine, theta, MaskRelease(0.25, 0.1), coins, federation="docs", round=1)
    {'head': array([0, 1, 0, 0], dtype=uint8)}
    """
    if release.space != "probability":
        raise ValueError("release_mask clips probabilities: the release's space must be 'probability'")
    layers = Layers.of(broadcast)
    if not layers.shapes:
        raise InputError("expected one array a layer, got none")
    public, private = layers.computed(broadcast), layers.computed(probabilities)

    def own(piece: slice) -> NDArray[Any]:
        """What overflowed in training stands for the broadcast, without a word: an error would tell of the
        data."""
        values = private.piece(piece)
        overflowed = ~np.isfinite(values)
        if overflowed.any():
            values[overflowed] = public.piece(piece)[overflowed]
        return values

    p = clip_toward(Computed(layers.dimension, own), public, flip=release.flip, clip=release.clip)
    seen = hashlib.sha256(layers.digest)
    for vector in (public.piece, p.__getitem__):
        for piece in pieces(layers.dimension):
            seen.update(np.asarray(vector(piece), "<f8").data)
    bits = release_bits(p, coins.stream(federation, round, seen.digest(), "mask"))
    return layers.split(bits, broadcast)


def alike(array: NDArray[Any], template: Any) -> Any:
    """A tensor of this memory and dtype on the template's device, if that is a tensor; else the array."""
    if not hasattr(template, "detach"):
        return array
    if template.device.type == "mps" and array.dtype == np.float64:
        array = array.astype(np.float32)  # Apple's GPUs have nothing wider
    return sys.modules["torch"].from_numpy(array).to(template.device)


def _recast(array: NDArray[Any], template: Any) -> Any:
    """As `alike`; numbers with a point in the float type of the template, if it has one."""
    made = alike(array, template)
    if array.dtype.kind != "f":
        return made
    if made is not array:
        return made.to(template.dtype) if template.is_floating_point() else made
    dtype = np.asarray(template).dtype
    return array.astype(dtype, copy=False) if dtype.kind == "f" else array


def tree_of(
    layers: Mapping[Any, Any],
    tree: Tree,
    make: Callable[[NDArray[Any], Any], Any] = alike,
    outer: str = "",
) -> Any:
    """`layers`, whose names are those of ``Layers.of(tree)``, in containers like its own, made by `make`."""
    made = {
        key: tree_of(layers, value, make, f"{outer}{key}.")
        if _holds_layers(value)
        else make(layers[f"{outer}{key}" if outer else key], value)
        for key, value in _entries(tree)
    }
    if isinstance(tree, Mapping):
        return OrderedDict(made) if isinstance(tree, OrderedDict) else made
    if not isinstance(tree, tuple):
        return list(made.values())
    named = hasattr(tree, "_fields")
    return type(tree)(*made.values()) if named else tuple(made.values())


def _entries(tree: Tree) -> list[tuple[Any, Any]]:
    return list(tree.items() if isinstance(tree, Mapping) else enumerate(tree))


def _holds_layers(value: Any) -> bool:
    """Whether it is a container and no layer: a list of numbers is an array, an empty one holds no layer."""
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list | tuple) and not (value and all(map(_of_numbers, value)))


def _of_numbers(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_of_numbers, value))
    return isinstance(value, int | float | np.generic)


def _where_it_is(name: Any, value: Any) -> Any:
    """A layer to be read by `_array` in parts: a tensor as it is, anything else as an array.

    Raises:
        InputError: it is not an array of numbers.
    """
    if not hasattr(value, "detach"):
        return _array(value)
    _array(value.reshape(-1)[:0])  # its type decides; nothing is brought from its device
    return value.detach()


def leaves_of(tree: Tree) -> dict[Any, Any]:
    """The arrays by name: containers in containers joined by dots, a list's by place."""
    if not isinstance(tree, Mapping | list | tuple):
        raise InputError(
            f"expected a dictionary or a list with one array a layer, not {type(tree).__name__} "
            "(prism_crypto.secure_sum adds up flat vectors)"
        )
    found: dict[Any, Any] = {}
    for key, value in _entries(tree):
        named = {key: value}
        if _holds_layers(value):
            named = {f"{key}.{name}": leaf for name, leaf in leaves_of(value).items()}
        # By text: 1 and "1" are two keys of a dictionary and one name.
        if twice := sorted({str(name) for name in found} & {str(name) for name in named}):
            raise InputError(
                f"two layers have the name {twice[0]!r}: rename a key that has a dot, or a number beside its "
                "text"
            )
        found |= named
    return found


def _place(name: Any) -> tuple[bool, Any]:
    """By what layers are put in order: whole numbers (a list's places) by size, all other names as text."""
    return (False, name) if isinstance(name, int) else (True, str(name))


def _shape(name: object, value: Any) -> tuple[int, ...]:
    """Also of a tensor: plain integers, so that a digest does not tell tensors from arrays."""
    if (shape := getattr(value, "shape", None)) is not None:
        return tuple(map(int, shape))
    try:
        return _array(value).shape
    except InputError as error:
        raise InputError(f"layer {name!r}: {error.message}") from None


def _array(value: Any) -> NDArray[Any]:
    """A layer as NumPy has it: a tensor without its gradient, from where it is, bfloat16 as float32.

    Raises:
        InputError: it is not an array of numbers.
    """
    array, refused = None, ""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            # NumPy has neither bfloat16 nor floats of eight bits; float32 holds all of their numbers.
            known = str(value.dtype) in ("torch.float16", "torch.float32", "torch.float64")
            value = (value if known or not value.is_floating_point() else value.float()).numpy()
        array = np.asanyarray(value)
    except Exception as error:  # whatever a foreign array raises: its own words say what it lacks
        refused = f"{type(error).__name__}: {error}".splitlines()[0]
        if isinstance(value, list | tuple):
            refused = "its entries differ in shape"
    if array is None or array.dtype.kind not in "biuf":
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        found = refused if array is None else f"of {array.dtype}"
        raise InputError(f"expected an array of numbers, not {kind} ({found})")
    return unmasked(array)
