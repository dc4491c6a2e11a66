"""Who masks with whom: the complete graph, and sparse Harary graphs for a server that follows the protocol.

In the complete graph every pair of clients shares a mask, and a client's work grows as n. Bell, Bonawitz,
Gascón, Lepoint and Raykova (CCS 2020, section 3) keep the security of a semi-honest session with about
log n neighbours a client: put the clients on a ring in a random order and join each with the k/2 next on
either side. The order must be uniform and drawn after the set of clients is fixed; otherwise corrupt
clients choose their places, and surround a victim.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import NamedTuple, TypeAlias

from prism_crypto.errors import InputError
from prism_crypto.primitives.randomness import Rng, uniform_below

MAX_DEGREE = 512
"""No sparse graph has more neighbours; the search for a degree ends here, whatever it is asked."""

Neighbours: TypeAlias = tuple[tuple[int, ...], ...]
"""For each client 0..n-1 its neighbours in increasing order."""


class GraphParameters(NamedTuple):
    """A sparse graph's degree k, and the threshold t of shares among a client's k neighbours."""

    degree: int
    threshold: int


def complete(n: int) -> Neighbours:
    """Everybody masks with everybody.

    >>> complete(3)
    ((1, 2), (0, 2), (0, 1))
    """
    _check_clients(n)
    return tuple(tuple(j for j in range(n) if j != i) for i in range(n))


def harary(n: int, degree: int, permutation: Sequence[int]) -> Neighbours:
    """The Harary graph H(degree, n) on clients placed on a ring in the order of ``permutation``.

    It stays connected when any degree - 1 clients are gone (Harary 1962), and with a uniform permutation
    it falls apart only if two whole runs of degree/2 consecutive clients are.

    Args:
        n: number of clients.
        degree: neighbours of each client, even, 2 ≤ degree < n.
        permutation: the ring's order, each of 0..n-1 once.

    Raises:
        InputError: the degree is odd or out of range, or ``permutation`` is none.

    >>> harary(6, 2, permutation=[0, 3, 1, 4, 2, 5])
    ((3, 5), (3, 4), (4, 5), (0, 1), (1, 2), (0, 2))
    """
    _check_clients(n)
    if degree % 2 or not 2 <= degree < n:
        raise InputError(f"degree must be even and in 2..{n - 1}, not {degree}")
    ring = list(permutation)
    if sorted(ring) != list(range(n)):
        raise InputError(f"expected a permutation of 0..{n - 1}")
    around = ring + ring[:degree]  # ring[(i + j) % n] for i < n and j ≤ degree
    half = degree // 2
    neighbours: list[tuple[int, ...]] = [()] * n
    for i in range(n):
        window = around[i : i + degree + 1]
        client = window.pop(half)
        neighbours[client] = tuple(sorted(window))
    return tuple(neighbours)


def uniform_permutation(n: int, rng: Rng) -> tuple[int, ...]:
    """A uniform order of 0..n-1 (Fisher-Yates, each index by rejection sampling).

    Args:
        n: length, 1 ≤ n < 2^32.
        rng: source of uniform random bytes.
    """
    _check_clients(n)
    order = list(range(n))
    for last in range(n - 1, 0, -1):
        chosen = uniform_below(last + 1, rng)
        order[last], order[chosen] = order[chosen], order[last]
    return tuple(order)


def harary_degree(
    n: int, dropout: float, colluding: float, *, security: int = 40, correctness: int = 20
) -> GraphParameters:
    """The least even degree k, and a threshold t, that keep a sparse session private and able to finish.

    With c = ⌊colluding·n⌋ corrupt clients, δ·n = ⌊dropout·n⌋ that drop out, both independent of the
    ring's order, and a union bound over clients (Bell et al. 2020, section 3.3), three events must be rare:

    1. n · P[X ≥ t] < 2^-security, X ~ Hypergeometric(n-1, c, k) the corrupt neighbours of a client: they
       would hold enough shares to open its secrets by themselves.
    2. n · P[Y < t] < 2^-correctness, Y ~ Hypergeometric(n-1, (1-δ)n - 1, k) the neighbours that stay, of a
       client that stays itself: too few would be left to open what the sum needs.
    3. n² · (γ+δ)^k < 2^-security: the honest survivors' graph falls into parts, and the sum of one part
       would be seen. A cut takes two runs of k/2 consecutive clients that are corrupt or gone; there are
       fewer than n² places for them, and k given clients are all among r of n with probability at most
       (r/n)^k, drawing without replacement.

    The tails are exact: sums of binomial coefficients, compared as integers.

    Args:
        n: invited clients, at least 3.
        dropout: largest share δ of clients that may drop out, 0 ≤ δ.
        colluding: largest share γ of clients that may collude with the server, 0 ≤ γ, γ+δ < 1.
        security: -log2 of the largest probability of a breach.
        correctness: -log2 of the largest probability of a session that can't finish.

    Returns:
        The degree k and the least t that satisfies 1 and 2 for it.

    Raises:
        InputError: an argument is out of range, or no degree below n and up to `MAX_DEGREE` is enough; use
            the complete graph then.

    >>> harary_degree(1000, dropout=0.1, colluding=0.1)
    GraphParameters(degree=46, threshold=26)
    >>> harary_degree(1000, dropout=0.2, colluding=0.2).degree
    98
    """
    if n < 3:
        raise InputError(f"a sparse graph needs at least 3 clients, not {n}")
    if not (dropout >= 0 and colluding >= 0 and dropout + colluding < 1):
        raise InputError(
            f"dropout and colluding must be non-negative shares that sum to less than 1, "
            f"not {dropout} and {colluding}"
        )
    if security < 1 or correctness < 1:
        raise InputError(f"security and correctness must be positive bits, not {security} and {correctness}")
    # 0.29 * 100 is 28.999999999999996, yet 29 clients are meant.
    corrupt, gone = int(colluding * n + 1e-9), int(dropout * n + 1e-9)
    highest = min(n - 1, MAX_DEGREE)
    for degree in range(2, highest + 1, 2):
        if n**2 * (corrupt + gone) ** degree << security >= n**degree:
            continue
        total = comb(n - 1, degree)
        threshold = _least_threshold(n, corrupt, degree, security)
        too_few = sum(hypergeometric_ways(n - 1, n - gone - 1, degree)[:threshold])
        if threshold <= degree and n * too_few << correctness < total:
            return GraphParameters(degree, threshold)
    raise InputError(
        f"no degree up to {highest} is enough for {n} clients, dropout {dropout} and colluding {colluding}: "
        "use the complete graph"
    )


def _least_threshold(n: int, corrupt: int, degree: int, security: int) -> int:
    """The least t ≥ 1 with n · P[t or more of ``degree`` neighbours are corrupt] < 2^-security."""
    total, above = comb(n - 1, degree), 0
    ways = hypergeometric_ways(n - 1, corrupt, degree)
    for threshold in range(degree, 0, -1):
        above += ways[threshold]
        if n * above << security >= total:
            return threshold + 1
    return 1


def hypergeometric_ways(population: int, marked: int, draws: int) -> list[int]:
    """For each number of hits 0..draws, how many subsets of ``draws`` hold exactly that many marked ones.

    Each is found from the one before: C(m, h)·C(p-m, k-h) at h+1 over the same at h is a ratio of small
    numbers, and the division leaves no rest.
    """
    unmarked = population - marked
    least = max(0, draws - unmarked)
    ways = [0] * least + [comb(marked, least) * comb(unmarked, draws - least)]
    for hits in range(least, draws):
        following = ways[-1] * (marked - hits) * (draws - hits)
        ways.append(following // ((hits + 1) * (unmarked - draws + hits + 1)))
    return ways


def _check_clients(n: int) -> None:
    if not 1 <= n < 2**32:
        raise InputError(f"the number of clients must be in 1..2^32-1, not {n}")
