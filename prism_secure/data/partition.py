"""Who holds which training images: iid, by label shards, or Dirichlet.

A partition assigns every image to exactly one client, and all images of one person to the same: a person with
two clients would be two persons to the clip that protects one. It is a function of the labels, the persons,
the number of clients and the public seed, so that every run of a recipe gives each client the same images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_secure.config.sections import PartitionScheme
from prism_secure.errors import ConfigError

__all__ = ["Partition", "partition"]

_REDRAWS = 1000


@dataclass(frozen=True, eq=False)
class Partition:
    """The images of each client.

    Attributes:
        indices: one sorted int64 array a client, indices into the training images; together each index once.
        class_counts: int64 `(clients, classes)`, how many images of which label each client holds.

        persons: how many persons each client has; None where nobody says whose the images are.

    All describe private data: they are for the simulation's own report, a server never sees them.
    """

    indices: tuple[NDArray[np.int64], ...]
    class_counts: NDArray[np.int64]
    persons: tuple[int, ...] | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of images of each client."""
        return tuple(len(each) for each in self.indices)


def partition(
    labels: ArrayLike,
    clients: int,
    scheme: str = "iid",
    *,
    seed: int = 0,
    shards_per_client: int = 4,
    dirichlet_alpha: float = 0.5,
    persons: ArrayLike | None = None,
) -> Partition:
    """Divide the images with these `labels` among `clients`.

    - `iid`: a random permutation, cut into parts whose sizes differ by one at most.
    - `shards`: the images, sorted by label, are cut into `clients * shards_per_client` runs of equal length
      (up to one), dealt at random, the same number to each client (McMahan et al. 2017, section 3). A few
      shards a client mean a few classes a client.
    - `dirichlet`: the images of each class are shared in proportions drawn from a symmetric Dirichlet
      distribution of concentration `dirichlet_alpha` (Hsu et al. 2019, drawn per class as in Li et al. 2022,
      NIID-Bench). It is drawn again until every client holds at least one image.

    With `persons`, what is dealt out so are persons, each with all images that are theirs and with the label
    that most of these have (the lowest of several).

    Args:
        labels: integers `(N,)`.
        clients: how many parts, at most N, or as many as there are persons.
        seed: public; the same arguments give the same parts.
        persons: integers `(N,)`, whose each image is; None: each is dealt out by itself.

    Raises:
        ConfigError: an argument is impossible, or no draw gave every client an image.

    >>> partition([0, 0, 1, 1, 2, 2], 3, "shards", shards_per_client=1).sizes
    (2, 2, 2)
    >>> found = partition([0, 0, 1, 1, 2, 2], 2, persons=[7, 7, 7, 8, 9, 9])
    >>> sorted(map(int, found.persons)), sum(found.sizes)
    ([1, 2], 6)
    """
    y = np.asarray(labels)
    if y.ndim != 1 or y.dtype.kind not in "iu" or (y.size and y.min() < 0):
        raise ConfigError(f"labels must be non-negative integers (N,), got {y.dtype} {y.shape}")
    if persons is None:
        dealt, owner = y, None
    else:
        dealt, owner = _people(y, np.asarray(persons))
    one = "image" if owner is None else "person"
    if not 1 <= clients <= len(dealt):
        raise ConfigError(
            f"federation.clients must be between 1 and the number of {one}s to train with, {len(dealt)}; "
            f"got {clients}"
        )
    if seed < 0:
        raise ConfigError(f"seed must not be negative, got {seed}")
    rng = np.random.default_rng(seed)
    if scheme == "iid":
        parts = np.array_split(rng.permutation(len(dealt)), clients)
    elif scheme == "shards":
        parts = _shards(dealt, clients, shards_per_client, rng, one)
    elif scheme == "dirichlet":
        parts = _dirichlet(dealt, clients, dirichlet_alpha, rng, one)
    else:
        raise ConfigError(
            f"unknown partition {scheme!r}, expected one of {', '.join(get_args(PartitionScheme))}"
        )
    held = None if owner is None else tuple(map(len, parts))
    if owner is not None:
        parts = [np.flatnonzero(np.isin(owner, part)) for part in parts]
    indices = tuple(np.sort(part).astype(np.int64) for part in parts)
    classes = int(y.max()) + 1
    counts = np.stack([np.bincount(y[part], minlength=classes) for part in indices]).astype(np.int64)
    return Partition(indices, counts, held)


def _people(
    y: NDArray[np.integer], persons: NDArray[np.integer]
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """The label that most images of each person have, and the person of each image, 0, 1, 2 and so on."""
    if persons.shape != y.shape or persons.dtype.kind not in "iu":
        raise ConfigError(f"persons must be integers {y.shape}, got {persons.dtype} {persons.shape}")
    people, owner = np.unique(persons, return_inverse=True)
    pairs, counts = np.unique(np.stack((owner, y)), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))  # by person, the most frequent label first
    first = np.searchsorted(pairs[0][order], np.arange(len(people)))
    return pairs[1][order][first], owner.astype(np.int64)


def _shards(
    y: NDArray[np.integer], clients: int, per_client: int, rng: np.random.Generator, one: str
) -> list[NDArray[np.int64]]:
    count = clients * per_client
    if per_client < 1 or count > len(y):
        raise ConfigError(
            f"shards_per_client must be between 1 and {len(y) // clients} "
            f"({len(y)} {one}s, {clients} clients), got {per_client}"
        )
    # Shuffled before the stable sort: which images of a class share a shard is random too.
    order = rng.permutation(len(y))
    shards = np.array_split(order[np.argsort(y[order], kind="stable")], count)
    dealt = rng.permutation(count).reshape(clients, per_client)
    return [np.concatenate([shards[shard] for shard in hand]) for hand in dealt]


def _dirichlet(
    y: NDArray[np.integer], clients: int, alpha: float, rng: np.random.Generator, one: str
) -> list[NDArray[np.int64]]:
    if not 0 < alpha < np.inf:
        raise ConfigError(f"dirichlet_alpha must be a positive number, got {alpha}")
    by_class = [np.flatnonzero(y == label) for label in np.unique(y)]
    for _ in range(_REDRAWS):
        pieces: list[list[NDArray[np.int64]]] = [[] for _ in range(clients)]
        for members in by_class:
            share = np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1]
            cuts = np.round(share * len(members)).astype(np.int64)
            for part, piece in zip(pieces, np.split(rng.permutation(members), cuts), strict=True):
                part.append(piece)
        parts = [np.concatenate(part) for part in pieces]
        if all(map(len, parts)):
            return parts
    raise ConfigError(
        f"no Dirichlet({alpha:g}) draw of {_REDRAWS} gave each of {clients} clients one {one}: "
        "raise dirichlet_alpha or take fewer clients"
    )
