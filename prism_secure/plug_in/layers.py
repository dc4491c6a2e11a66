"""Trees of layers and flat vectors: other people's code passes on the one, the secure sum adds the other.

A tree is what models are kept in: dictionaries, lists and tuples, in one another to any depth, of NumPy
arrays and torch tensors (with gradients, in bfloat16, on a GPU). `Layers` gives its layers names and an
order; `like` turns arrays into what a tree had. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_crypto import InputError
from prism_crypto.wire.codec import unmasked
from prism_privacy import CoinSecret, MaskRelease, clip_toward, release_bits

__all__ = ["Layers", "Tree", "leaves_of", "like", "release_mask", "tree_of"]

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
        if (found := Layers.of(arrays)) != self:
            raise InputError(self._differing(found))
        leaves, parts = leaves_of(arrays), []
        for name, _ in self.shapes:
            try:
                parts.append(read(name, _array(leaves[name])).reshape(-1))
            except InputError as error:
                raise InputError(f"layer {name!r}: {error.message}") from None
        return np.concatenate(parts)

    def _differing(self, other: Layers) -> str:
        """What is wrong with the layers of `other`, the first that is."""
        expected, found = dict(self.shapes), dict(other.shapes)
        for name in [*expected, *found]:
            if name not in found:
                return f"layer {name!r} is missing"
            if name not in expected:
                return f"layer {name!r} is unknown; expected {', '.join(map(repr, expected))}"
            if found[name] != expected[name]:
                return f"layer {name!r}: expected shape {expected[name]}, got {found[name]}"
        raise AssertionError("layers that are equal were compared")

    def split(self, vector: ArrayLike) -> dict[str, NDArray[Any]]:
        """One array a layer from one vector (d,).

        Raises:
            InputError: a vector of another length.
        """
        flat = np.asarray(vector)
        if flat.shape != (self.dimension,):
            raise InputError(f"expected a vector of shape ({self.dimension},), got {flat.shape}")
        ends = np.cumsum([math.prod(shape) for _, shape in self.shapes])[:-1]
        pieces = np.split(flat, ends)
        return {name: piece.reshape(shape) for (name, shape), piece in zip(self.shapes, pieces, strict=True)}


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

    Args:
        probabilities: this client's θ after local training, in [0, 1], one float array a layer, in a
            dictionary or a list.
        broadcast: the θ that the server sent before this round, as this client loaded it.
        release: what the accountant is told.
        coins: this client's secret; keep it in a file (`CoinSecret.create`), one for each client.
        federation: a name that no other experiment has, for example a UUID kept beside the coins.
        round: the round's number.

    Returns:
        0 or 1, uint8, one array a layer, in a dictionary or list like `broadcast`.

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
    public = layers.flatten(broadcast).astype(np.float64)
    own = layers.flatten(probabilities).astype(np.float64)
    # What overflowed in training stands for the broadcast, without a word: an error would tell of the data.
    own = np.where(np.isfinite(own), own, public)
    p = clip_toward(own, public, flip=release.flip, clip=release.clip)
    seen = hashlib.sha256(layers.digest + public.astype("<f8").tobytes() + p.astype("<f8").tobytes()).digest()
    bits = release_bits(p, coins.stream(federation, round, seen, "mask"))
    return tree_of(layers.split(bits), broadcast)


def like(values: Tree, tree: Tree) -> Any:
    """`values` as `tree` has its layers: the same containers, a tensor on its device where that has a tensor.

    Numbers with a point take the tensor's dtype, if that has one, too; whole numbers keep theirs.

    Args:
        values: arrays, for example what `secure_counts` gives; in any containers with these names.
        tree: the template; it is read only.

    Raises:
        InputError: the two have other layers.

    >>> like({"a": [np.zeros(2)]}, {"a": (np.ones(2),)})
    {'a': (array([0., 0.]),)}
    """
    layers = Layers.of(tree)
    layers.flatten(values)
    return tree_of({name: _array(value) for name, value in leaves_of(values).items()}, tree, _as_tensor)


def _as_tensor(array: NDArray[Any], template: Any) -> Any:
    """A tensor if the template is one."""
    if not hasattr(template, "detach"):
        return array
    tensor = sys.modules["torch"].from_numpy(np.array(array))  # a copy: nobody's memory is shared
    pointed = tensor.is_floating_point() and template.is_floating_point()
    return tensor.to(device=template.device, dtype=template.dtype if pointed else tensor.dtype)


def tree_of(
    layers: Mapping[Any, Any],
    tree: Tree,
    make: Callable[[NDArray[Any], Any], Any] = lambda array, template: array,
    outer: str = "",
) -> Any:
    """`layers`, whose names are those of ``Layers.of(tree)``, in containers like those of `tree`."""
    made = {
        key: tree_of(layers, value, make, f"{outer}{key}.")
        if _holds_layers(value)
        else make(layers[f"{outer}{key}" if outer else key], value)
        for key, value in _entries(tree)
    }
    if isinstance(tree, Mapping):
        return made
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
