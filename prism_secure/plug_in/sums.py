"""Secure sums of layers, every party in this process: counts, votes, weighted means, counters beside a mask.

    counts = secure_counts(masks)                                   # how many keep each weight
    counts = secure_counts(masks, release)                          # of released masks, the flips taken out
    counts = secure_counts(replies, bound=Bounds({"mask": 1, "correct": 10_000}))
    majority = secure_votes(signs)
    mean = secure_mean(models, examples, codec=FixedPoint(4.0, 2**20), max_weight=10_000)

It is the real protocol, but all parties share one memory, so it protects nobody: for simulations. Between
machines `Layers` makes vectors of layers, `Bounds` and `prism_crypto.WeightedMean` say what is summed.

What comes back has the containers of the first client, and tensors on its device where it has tensors.

>>> secure_counts([{"conv": np.array([[1, 0]]), "head": np.array([i])} for i in (0, 1, 1)])
{'conv': array([[3, 0]]), 'head': array([2])}
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from prism_crypto import CountSpec, FixedPoint, InputError, SecureSumResult, WeightedMean, secure_sum
from prism_crypto.session import COMPLETE_LIMIT, SPARSE_FAILURE
from prism_crypto.wire.codec import whole_numbers
from prism_privacy import MaskRelease, debias
from prism_secure.plug_in.layers import Layers, Tree, leaves_of, tree_of

__all__ = ["Bounds", "Counts", "Mean", "secure_counts", "secure_mean", "secure_votes"]

Read: TypeAlias = Callable[[Any, NDArray[Any]], NDArray[Any]]
Ties: TypeAlias = Literal["zero", "plus"]


class Counts:
    """Opened sums, in a dictionary, list, tuple or named tuple like the first client's, and whose they are.

    Attributes:
        survivors: the clients that are in the sums, by their places in the list: their number is what a mean
            divides by.
        senders: by layer, those of them that have sent it: all of them, but with ``partial``.

    (A named tuple's layers of these two names are there by place.)

    >>> masks = [{"head": np.array([1, 0])}] * 5
    >>> counts = secure_counts(masks, drop={1: "upload"}, min_survivors=4)
    >>> counts["head"] / len(counts.survivors)
    array([1., 0.])
    >>> isinstance(counts, dict), isinstance(counts, Counts)
    (True, True)
    """

    survivors: tuple[int, ...] = ()
    senders: Mapping[Any, tuple[int, ...]] = MappingProxyType({})

    def __reduce__(self) -> tuple[Any, ...]:
        plain = type(self).__bases__[1]
        return _counted, (_filled_with(plain, self), self.survivors, self.senders)


def _counted(made: Any, survivors: tuple[int, ...], senders: Mapping[Any, tuple[int, ...]]) -> Any:
    container: Any = type(made)
    counts = _filled_with(_counts_in(container), made)
    counts.survivors, counts.senders = survivors, senders
    return counts


@functools.cache
def _counts_in(container: Any) -> Any:
    """`Counts` in this container; a named tuple keeps its name, with which its text begins."""
    return type(container.__name__ if hasattr(container, "_fields") else "Counts", (Counts, container), {})


def _filled_with(container: Any, made: Any) -> Any:
    return container._make(made) if hasattr(container, "_fields") else container(made)


class Bounds:
    """What each layer of one session may hold: bits, counters and real numbers, packed apart.

    Args:
        bounds: by the name of a layer, or of a container for all that it holds, or ``""`` for all others: the
            largest integer of one client, or a `FixedPoint` for real numbers, whose sums come back as real
            numbers.

    Raises:
        InputError: there is none, one is neither, or two have one name.

    >>> bounds = Bounds({"mask": 1, "correct": 10_000, "loss": FixedPoint(10.0, 2**20)})
    >>> replies = [{"mask": {"w": np.array([1, 0])}, "correct": 700 + i, "loss": 0.5 * i} for i in range(4)]
    >>> sums = secure_counts(replies, bound=bounds)
    >>> sums["mask"]["w"], int(sums["correct"]), round(float(sums["loss"]), 4)
    (array([4, 0]), 2806, 3.0)
    """

    def __init__(self, bounds: Mapping[Any, int | FixedPoint]) -> None:
        if not isinstance(bounds, Mapping) or not bounds:
            raise InputError("bounds are {name of a layer: largest integer, or FixedPoint}, and at least one")
        for name, bound in bounds.items():
            if isinstance(bound, bool) or not isinstance(bound, int | np.integer | FixedPoint):
                raise InputError(
                    f"the bound of {name!r} must be a whole number or FixedPoint, not {type(bound).__name__}"
                )
        self._bounds = {str(name): bound for name, bound in bounds.items()}
        if len(self._bounds) < len(bounds):
            raise InputError(f"two bounds have one name: {', '.join(map(repr, bounds))}")

    def __repr__(self) -> str:
        return f"Bounds({self._bounds!r})"

    def of(self, name: Any) -> int | FixedPoint:
        """The bound of the layer of this name: its own, or that of the container nearest to it.

        Raises:
            InputError: there is none.
        """
        parts = str(name).split(".")
        for end in range(len(parts), -1, -1):
            if (bound := self._bounds.get(".".join(parts[:end]))) is not None:
                return bound if isinstance(bound, FixedPoint) else int(bound)
        raise InputError(f"layer {name!r} has no bound; there are {', '.join(map(repr, self._bounds))}")

    def spec(self, layers: Layers) -> CountSpec:
        """What a session sums over these layers; the codec's name binds all bounds.

        Raises:
            InputError: a layer has no bound, or a bound no layer.
        """
        parts = []
        for name, _ in layers.shapes:
            bound = self.of(name)
            parts.append((layers.size(name), int(bound.levels) if isinstance(bound, FixedPoint) else bound))
        names = [f"{name}." for name, _ in layers.shapes]
        if idle := [
            bound for bound in self._bounds if bound and not any(n.startswith(f"{bound}.") for n in names)
        ]:
            raise InputError(f"no layer has the name {idle[0]!r}, which has a bound")
        said = repr(sorted((name, _said(bound)) for name, bound in self._bounds.items()))
        codec = f"bounds {hashlib.sha256(said.encode()).hexdigest()[:40]}"
        return CountSpec.of_parts([part for part in parts if part[0]], codec)

    def encode(self, name: Any, values: NDArray[Any]) -> NDArray[Any]:
        """A layer as the integers that are added.

        Raises:
            InputError: a value is out of range.
        """
        bound = self.of(name)
        return bound.encode(values) if isinstance(bound, FixedPoint) else _within(values, bound)

    def decode(self, name: Any, counts: NDArray[np.int64], survivors: int) -> NDArray[Any]:
        """A layer's opened sum: integers as they are, real numbers as float64."""
        bound = self.of(name)
        return np.asarray(bound.decode_sum(counts, survivors)) if isinstance(bound, FixedPoint) else counts


def secure_counts(
    masks: Iterable[Tree],
    release: MaskRelease | None = None,
    *,
    bound: int | FixedPoint | Bounds = 1,
    partial: bool = False,
    **settings: Any,
) -> Any:
    """Add up the clients' layers by the real protocol, every party in this process: it protects nobody.

    Args:
        masks: for each client one array a layer, in a dictionary, a list or a tuple, which may hold others:
            integers, booleans or floats that are whole numbers, 0 and 1 unless `bound` says more.
        release: what `release_mask` made the masks with: the flips are then taken out of the sums, which
            become estimates of what the masks would have added up to, now and then below 0 or above n.
        bound: the largest value of one client; a `FixedPoint` for real numbers; `Bounds` with one for each
            layer.
        partial: each client has sent some layers of a dictionary. Those that it has not are zeros in the sum;
            who has sent a layer is in ``senders``, which is public, so it must not depend on data. A layer
            that one client alone has sent opens as that client's: few senders hide little. With a
            release each layer needs the release's cohort of senders.
        settings: those of `prism_crypto.secure_sum`. With a release the session guarantees the release's
            cohort of honest clients (`min_cohort`), or is refused; by default `min_survivors` is that cohort
            and the `colluders`, and all clients without a release.

    Returns:
        The sum for each layer (`Counts`), in containers like the first client's (with ``partial`` a
        dictionary by the layers' names), and a tensor on its device where it has a tensor: int64 and exact,
        or float64 where a release or a `FixedPoint` is given (float32 on Apple's GPUs).

    Raises:
        prism_crypto.InputError: the clients' layers are none or differ, a value is out of range, or there are
            fewer clients than a secure sum or the release's cohort needs. It names client and layer, and is
            a ValueError.
        prism_crypto.SecureSumError: too few clients are left.
    """
    masks = _clients(masks, "masks", settings)
    least = {"min_survivors": len(masks)} | settings if release is None else _guaranteed(release, settings)
    if release is not None:
        _check_release(release, len(masks), bound, least)
    masks, first, sent = _filled(masks) if partial else (masks, masks[0], {})
    if isinstance(bound, FixedPoint):
        bound = Bounds({"": bound})
    reads = bound.encode if isinstance(bound, Bounds) else lambda name, values: _within(values, bound)
    layers, vectors = _vectors(masks, "masks", reads)
    if isinstance(bound, Bounds):
        result = _opened(vectors, bound.spec(layers), least)
    else:
        result = secure_sum(vectors, bound, **least)
    left = set(result.survivors)
    senders = dict.fromkeys([name for name, _ in layers.shapes], result.survivors)
    senders |= {name: tuple(client for client in clients if client in left) for name, clients in sent.items()}
    found = layers.split(result.counts)
    for name, counts in found.items():
        if isinstance(bound, Bounds):
            found[name] = bound.decode(name, counts, len(result.survivors))
        elif release is not None:
            found[name] = _unflipped(name, counts, len(senders[name]), release, least["colluders"] or 0)
    return _counted(tree_of(found, first), result.survivors, senders)


def secure_votes(votes: Iterable[Tree], ties: Ties = "zero", **settings: Any) -> Any:
    """The majority of votes of -1 and +1 (signSGD), of which nobody sees a single one.

    Args:
        votes: for each client one array a layer, as in `secure_counts`, of -1 and +1. (A sign that is 0 is no
            vote: let a coin decide it.)
        ties: as many on either side make 0 (Bernstein et al., ICML 2018) or +1.
        settings: those of `prism_crypto.secure_sum`; by default all clients must survive.

    Returns:
        -1, 0 or +1, int64, as `secure_counts`.

    Raises:
        prism_crypto.InputError, prism_crypto.SecureSumError: as `secure_counts`.

    >>> secure_votes([np.array([[1, -1]])] for _ in range(3))
    [array([[ 1, -1]])]
    """
    if ties not in get_args(Ties):
        raise InputError(f'ties must be "zero" or "plus", got {ties!r}')
    votes = _clients(votes, "votes", settings)
    layers, vectors = _vectors(votes, "votes", _ballot)
    result = secure_sum(vectors, 1, **{"min_survivors": len(votes)} | settings)
    lead = 2 * result.counts - len(result.survivors)
    majority = np.where(lead >= 0, 1, -1) if ties == "plus" else np.sign(lead)
    senders = dict.fromkeys([name for name, _ in layers.shapes], result.survivors)
    return _counted(layers.split(majority.astype(np.int64), votes[0]), result.survivors, senders)


@dataclass(frozen=True)
class Mean:
    """What `secure_mean` gives.

    Attributes:
        values: the mean, in containers like the first client's, tensors on its device where it has tensors:
            of each layer's own float type, and float64 of whole numbers.
        weight: the sum of the survivors' weights.
        survivors: ids of the clients that are in it, increasing.
    """

    values: Any
    weight: float
    survivors: tuple[int, ...]


def secure_mean(
    values: Iterable[Tree],
    weights: Iterable[float] | None = None,
    *,
    codec: FixedPoint,
    max_weight: int | FixedPoint = 1,
    **settings: Any,
) -> Mean:
    """The weighted mean of real numbers: their weighted sum opens, and the sum of the weights, nothing else.

    Args:
        values: for each client one array a layer, as in `secure_counts`, of real numbers. They are clipped to
            the codec's clip and rounded to its grid: the mean is off by half a step at most, and by what its
            layer's float type rounds. Integers (such as a batch norm's count of batches) are not clipped: one
            above the clip is refused.
        weights: one for each client, such as its number of examples. None: all are 1.
        codec: the grid.
        max_weight: the largest weight of one client; a `FixedPoint` where weights are real numbers. Like the
            codec it is fixed without a look at the data. Wire bits grow as log2(n · levels · max_weight).
        settings: those of `prism_crypto.secure_sum`; by default all clients must survive.

    Raises:
        prism_crypto.InputError: as `secure_counts`; a value is not finite, a weight is out of range, or they
            add up to 0.
        prism_crypto.SecureSumError: too few clients are left.

    >>> models = [{"w": np.array([0.0, 1.0])}, {"w": np.array([1.0, 1.0])}, {"w": np.array([1.0, 0.0])}]
    >>> mean = secure_mean(models, [2, 1, 1], codec=FixedPoint(1.0, 2**20), max_weight=10)
    >>> mean.values, mean.weight, mean.survivors
    ({'w': array([0.5 , 0.75])}, 4, (0, 1, 2))
    """
    values = _clients(values, "values", settings)
    given = [1] * len(values) if weights is None else list(weights)
    if len(given) != len(values):
        raise InputError(f"weights has {len(given)} entries, values has {len(values)}: one for each client")
    weighted = WeightedMean(codec, max_weight)

    def read(name: Any, found: NDArray[Any]) -> NDArray[Any]:
        if found.dtype.kind in "iu" and found.size and max(-int(found.min()), int(found.max())) > codec.clip:
            raise InputError(
                f"integers above the codec's clip, {codec.clip}: leave the layer out, or add it up by "
                "secure_counts with Bounds; real numbers are floats"
            )
        return _finite(name, found)

    layers, vectors = _vectors(values, "values", read)
    for client, weight in enumerate(given):
        try:
            vectors[client] = weighted.encode(vectors[client], weight)
        except InputError as error:
            raise InputError(f"client {client}: {error.message}") from None
    least = {"min_survivors": len(values)} | settings
    result = _opened(vectors, weighted.spec(layers.dimension), least)
    mean, weight = weighted.decode_sum(result.counts)
    return Mean(layers.split(mean, values[0]), weight, result.survivors)


def _clients(trees: Iterable[Tree], what: str, settings: Mapping[str, Any]) -> list[Any]:
    """The clients' trees, enough of them for a secure sum."""
    if isinstance(trees, Mapping) or not isinstance(trees, Iterable):
        raise InputError(f"{what} must be a list with one entry for each client, not {type(trees).__name__}")
    trees = list(trees)
    if not trees:
        raise InputError(f"{what} is empty: it has one entry for each client")
    fewest = 2 if settings.get("mode") == "semi_honest" else 3
    if len(trees) < fewest:
        raise InputError(
            f"{what} must have entries of at least {fewest} clients for a secure sum, not {len(trees)}"
        )
    return trees


def _guaranteed(release: MaskRelease, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a session that has the release's cohort, where they do not say otherwise."""
    colluders = settings.get("colluders")
    survivors = release.cohort + (colluders if isinstance(colluders, int) else 0)
    least = {"min_survivors": survivors, "min_cohort": release.cohort, "colluders": None, "graph": "auto"}
    return least | dict(settings)


def _check_release(
    release: MaskRelease, clients: int, bound: int | FixedPoint | Bounds, least: Mapping[str, Any]
) -> None:
    if bound != 1:
        raise InputError(
            "a release is about bits, and epsilon covers nothing beside them: with release, bound is 1"
        )
    if clients < release.cohort:
        raise InputError(
            f"masks has {clients} entries, and release.cohort is {release.cohort}: epsilon was computed "
            "for a sum over more clients; give the release the cohort that there is"
        )
    colluders = least["colluders"] or 0
    for name, needed in (("min_survivors", release.cohort + colluders), ("min_cohort", release.cohort)):
        if (least[name] or 0) < needed:
            more = f" with {colluders} colluders" if needed > release.cohort else ""
            raise InputError(
                f"{name}={least[name]} is below release.cohort, {release.cohort}{more}, for which epsilon "
                f"was computed; it must be at least {needed}"
            )
    if clients < release.cohort + colluders:
        raise InputError(
            f"{clients} clients with {colluders} colluders guarantee a cohort of {clients - colluders}, and "
            f"release.cohort is {release.cohort}"
        )
    sparse = least["graph"] in ("harary", "chosen") or (least["graph"] == "auto" and clients > COMPLETE_LIMIT)
    if sparse and release.sum_failure < SPARSE_FAILURE:
        raise InputError(
            f"the sparse graph of {clients} clients fails to hide uploads with probability 2^-40, and "
            f"release.sum_failure is {release.sum_failure}: give the release sum_failure=2**-40, or the sum "
            'graph="complete"'
        )


def _vectors(trees: Sequence[Tree], what: str, read: Read) -> tuple[Layers, list[NDArray[Any]]]:
    """The first client's layers, and each client's vector; errors name client and layer."""
    layers: Layers | None = None
    vectors = []
    for client, tree in enumerate(trees):
        try:
            layers = layers or Layers.of(tree)
            if not layers.dimension:
                raise InputError("expected one array a layer, and at least one number in them, got none")
            vectors.append(layers.joined(tree, read))
        except InputError as error:
            client, error = _at_fault(trees, client, error)
            raise InputError(f"{what}[{client}]: {error.message}") from None
    assert layers is not None
    return layers, vectors


def _at_fault(trees: Sequence[Tree], client: int, error: InputError) -> tuple[int, InputError]:
    """Who and what to name: the first client, where all others have the same layers, and it has others."""
    if client == 1 and len(trees) > 2:
        with contextlib.suppress(InputError):  # of one that has no layers at all
            others = {Layers.of(tree) for tree in trees[1:]}
            if len(others) == 1 and Layers.of(trees[0]) not in others:
                try:
                    others.pop().flatten(trees[0])
                except InputError as found:
                    return 0, found
    return client, error


def _filled(masks: Sequence[Tree]) -> tuple[list[Any], dict[Any, Any], dict[Any, tuple[int, ...]]]:
    """Dictionaries with all layers, zeros where a client has sent none; the first of each; who sent each."""
    found = []
    for client, mask in enumerate(masks):
        try:
            if not isinstance(mask, Mapping):
                raise InputError(f"expected a dictionary of layers, not {type(mask).__name__}")
            found.append((leaves_of(mask), dict(Layers.of(mask).shapes)))
        except InputError as error:
            raise InputError(f"masks[{client}]: {error.message}") from None
    first = {name: leaf for leaves, _ in reversed(found) for name, leaf in leaves.items()}
    shapes = {name: shape for _, each in reversed(found) for name, shape in each.items()}
    zeros = {name: np.zeros(shape, np.uint8) for name, shape in shapes.items()}
    senders = {name: tuple(i for i, (leaves, _) in enumerate(found) if name in leaves) for name in shapes}
    return [zeros | leaves for leaves, _ in found], first, senders


def _opened(vectors: list[NDArray[Any]], spec: CountSpec, settings: Mapping[str, Any]) -> SecureSumResult:
    parts = list(spec.parts) if isinstance(spec.parts, tuple) else [(spec.dimension, spec.bound)]
    return secure_sum(vectors, parts, codec=spec.codec, **settings)


def _unflipped(
    name: Any, counts: NDArray[Any], senders: int, release: MaskRelease, colluders: int
) -> NDArray[Any]:
    if senders - colluders < release.cohort:
        more = f", {colluders} of them colluders" if colluders else ""
        raise InputError(
            f"layer {name!r} is of {senders} survivors{more}, and release.cohort is {release.cohort}: "
            "epsilon was computed for a sum over more clients"
        )
    return np.asarray(senders * debias(counts, senders, release.flip))


def _within(values: NDArray[Any], bound: Any) -> NDArray[Any]:
    whole = whole_numbers(values)
    # Of an odd bound, the secure sum says what is odd.
    if isinstance(bound, int) and whole.size and not 0 <= whole.min() <= whole.max() <= bound:
        raise InputError(f"values outside 0..{bound}")
    return whole


def _finite(name: Any, values: NDArray[Any]) -> NDArray[Any]:
    if not np.isfinite(values).all():
        raise InputError("expected finite numbers")
    return values


def _ballot(name: Any, values: NDArray[Any]) -> NDArray[Any]:
    """-1 as 0, +1 as 1."""
    whole = whole_numbers(values)
    for_it, against = whole == 1, whole == -1
    if not (for_it | against).all():
        raise InputError("votes are -1 or +1; for a sign that is 0 let a coin decide")
    return np.asarray(for_it)


def _said(bound: int | FixedPoint) -> str:
    return bound.name if isinstance(bound, FixedPoint) else str(int(bound))
