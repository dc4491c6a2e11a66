"""For other people's mask-based federated learning: dictionaries of layers in, dictionaries of layers out.

Code bases like FedPM's pass masks around as one array a layer. The secure sum and the privacy mechanism work
on one flat vector. What lies between is here, so that both fit in without moving anything:

    counts = secure_counts(masks)                                   # a secure sum in one process
    mask = release_mask(mine, theta, release, coins, federation=name, round=7)   # clipped, randomized bits
    counts = secure_counts(masks, release)                          # their sum, with the flips taken out

and `Layers` where a transport of your own carries the vectors. NumPy arrays and torch tensors alike (with
gradients, in bfloat16, on a GPU), in dictionaries, dictionaries in them or lists; nothing imports torch.

>>> secure_counts([{"conv": np.array([[1, 0]]), "head": np.array([i])} for i in (0, 1, 1)])
{'conv': array([[3, 0]]), 'head': array([2])}
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_crypto import InputError, secure_sum
from prism_crypto.wire.codec import unmasked, whole_numbers
from prism_privacy import CoinSecret, MaskRelease, clip_toward, debias, release_bits

__all__ = ["Layers", "release_mask", "secure_counts"]

Tree: TypeAlias = Mapping[str, Any] | Sequence[ArrayLike]
"""One array a layer, in a dictionary (which may hold dictionaries) or in a list."""


@dataclass(frozen=True)
class Layers:
    """The names and shapes of layers, and their order in a flat vector: by name, whatever a dict's order is.

    A layer `b` in a dictionary `a` has the name `a.b`, as in torch's ``state_dict``; one in a list its place.

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
        """The layers of this dictionary or list.

        Raises:
            InputError: it is neither, two layers have one name, or one is no array.
        """
        leaves = _leaves(arrays)
        return cls(tuple((name, _shape(name, leaves[name])) for name in sorted(leaves)))

    @property
    def dimension(self) -> int:
        """d: the length of the flat vector."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    @property
    def digest(self) -> bytes:
        """SHA-256 of names and shapes: bind it into a session whose parties may disagree about them."""
        return hashlib.sha256(b"prism-secure/v1/layers\0" + repr(self.shapes).encode()).digest()

    def flatten(self, arrays: Tree) -> NDArray[Any]:
        """One vector (d,) from one array a layer; the dtype that holds all of theirs.

        Raises:
            InputError: a layer is missing, unknown, of another shape, no array, or has masked entries.
        """
        return self._joined(arrays, lambda values: values)

    def _joined(self, arrays: Tree, read: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
        """As `flatten`, each layer as `read` makes it."""
        if (found := Layers.of(arrays)) != self:
            raise InputError(self._differing(found))
        leaves, parts = _leaves(arrays), []
        for name, _ in self.shapes:
            try:
                parts.append(read(_array(leaves[name])).reshape(-1))
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


def secure_counts(masks: Iterable[Tree], release: MaskRelease | None = None, **settings: Any) -> Any:
    """Add up the clients' layers by the real protocol, every party in this process: it protects nobody.

    Args:
        masks: for each client one array a layer, in a dictionary or a list: integers, booleans or floats that
            are whole numbers, 0 and 1 unless `bound` says more.
        release: what `release_mask` made the masks with: the flips are then taken out of the sums, which
            become estimates of what the masks would have added up to, now and then below 0 or above n.
        settings: those of `prism_crypto.secure_sum`. `min_survivors` is what an accountant may assume to be
            in every sum; by default the release's cohort, and all clients without one.

    Returns:
        The sum for each layer, in a dictionary or list like the first client's: int64 and exact, or float64
        where a release is given.

    Raises:
        prism_crypto.InputError: the clients' layers are none or differ, a value is out of range, or there are
            fewer clients than a secure sum or the release's cohort needs. It names client and layer, and is
            a ValueError.
        prism_crypto.SecureSumError: too few clients are left.
    """
    if isinstance(masks, Mapping) or not isinstance(masks, Iterable):
        raise InputError(f"masks must be a list with one entry for each client, not {type(masks).__name__}")
    masks = list(masks)
    if not masks:
        raise InputError("masks is empty: it has one entry for each client")
    fewest = 2 if settings.get("mode") == "semi_honest" else 3
    if len(masks) < fewest:
        raise InputError(
            f"masks must have entries of at least {fewest} clients for a secure sum, not {len(masks)}"
        )
    least = {"min_survivors": len(masks) if release is None else release.cohort} | settings
    if release is not None and len(masks) < release.cohort:
        raise InputError(
            f"masks has {len(masks)} entries, and release.cohort is {release.cohort}: epsilon was computed "
            "for a sum over more clients; give the release the cohort that there is"
        )
    if release is not None and (least["min_survivors"] or 0) < release.cohort:
        raise InputError(
            f"min_survivors={least['min_survivors']} is below release.cohort, {release.cohort}, for which "
            "epsilon was computed"
        )
    vectors: list[NDArray[Any]] = []
    layers: Layers | None = None
    bound = settings.get("bound", 1)

    def read(values: NDArray[Any]) -> NDArray[Any]:
        whole = whole_numbers(values)
        # Of an odd bound, the secure sum says what is odd.
        if isinstance(bound, int) and whole.size and not 0 <= whole.min() <= whole.max() <= bound:
            raise InputError(f"values outside 0..{bound}")
        return whole

    for client, mask in enumerate(masks):
        try:
            layers = layers or Layers.of(mask)
            if not layers.dimension:
                raise InputError("expected one array a layer, and at least one number in them, got none")
            vectors.append(layers._joined(mask, read))
        except InputError as error:
            raise InputError(f"masks[{client}]: {error.message}") from None
    assert layers is not None
    result = secure_sum(vectors, **least)
    counts: NDArray[Any] = result.counts
    if release is not None:
        counts = len(result.survivors) * debias(counts, len(result.survivors), release.flip)
    return _like(masks[0], layers.split(counts))


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
        prism_privacy.PrivacyError: a probability is out of range. NaN and infinities are no error, they
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
    return _like(broadcast, layers.split(release_bits(p, coins.stream(federation, round, seen, "mask"))))


def _leaves(tree: Tree) -> dict[Any, Any]:
    """The arrays by name: dictionaries in dictionaries joined by dots, a list's by place."""
    if isinstance(tree, list | tuple):
        return dict(enumerate(tree))
    if not isinstance(tree, Mapping):
        raise InputError(
            f"expected a dictionary or a list with one array a layer, not {type(tree).__name__} "
            "(prism_crypto.secure_sum adds up flat vectors)"
        )
    found: dict[Any, Any] = {}
    for key, value in tree.items():
        named = {key: value}
        if isinstance(value, Mapping):
            named = {f"{key}.{name}": leaf for name, leaf in _leaves(value).items()}
        if twice := sorted(found.keys() & named.keys()):
            raise InputError(f"two layers have the name {twice[0]!r}: rename a key that has a dot")
        found |= named
    return found


def _like(tree: Tree, layers: Mapping[Any, Any], outer: str = "") -> Any:
    """`layers`, whose names are those of `_leaves(tree)`, in dictionaries or a list like `tree`."""
    if not isinstance(tree, Mapping):
        return [layers[place] for place in range(len(tree))]
    return {
        key: _like(value, layers, f"{outer}{key}.")
        if isinstance(value, Mapping)
        else layers[f"{outer}{key}" if outer else key]
        for key, value in tree.items()
    }


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
        InputError: it is no array of numbers.
    """
    array, refused = None, ""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            # NumPy has no bfloat16; float32 holds all of its numbers.
            value = value.float().numpy() if str(value.dtype) == "torch.bfloat16" else value.numpy()
        array = np.asanyarray(value)
    except Exception as error:  # whatever a foreign array raises: its own words say what it lacks
        refused = f"{type(error).__name__}: {error}".splitlines()[0]
        if isinstance(value, list | tuple):
            refused = "its entries differ in shape; layers in a dictionary have a name each"
    if array is None or array.dtype.kind not in "biuf":
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        found = refused if array is None else f"of {array.dtype}"
        raise InputError(f"expected an array of numbers, not {kind} ({found})")
    return unmasked(array)
