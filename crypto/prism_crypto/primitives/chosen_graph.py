"""Neighbours that the clients choose themselves: sparse graphs against a server that lies.

A server that draws the graph, or that invents neighbours, surrounds a victim. So each client i draws k of the
other invited clients by its own coins, before it has seen anything of the session but its parameters, and
signs them into its advert. Its shares go to these k alone, any t of which open one of its two secrets; i and
j mask with each other if either chose the other. The idea is the malicious variant of Bell, Bonawitz, Gascón,
Lepoint and Raykova (CCS 2020, section 4); here everything that it takes is computed, not asymptotic.

What the server opens is worked out in docs/secure-sum.md, from three rules that honest clients keep: a client
gives at most one of the two shares of an owner; it gives a survivor's share only if that survivor has vouched
that their common mask is on its upload; it gives any only after t of its own k have vouched that they count
it as a survivor. Then, with c_i the corrupt ones among i's k:

1. If 2t > k + c_i for each honest i, nobody's two secrets both open.
2. What opens are sums over sets S of honest clients in each of which every i has at least t of its own k
   among the corrupt and S itself.

The server sees the graph and may then drop, mute and split clients as it likes; so the bound runs over all
sets S. The clients in S drew independently of one another. For one S of s clients among c corrupt ones

    P[S can open by itself] = P[X ≥ t]^s,  X ~ Hypergeometric(n - 1, s - 1 + c, k),

and there are C(n - c, s) such sets. The *guaranteed cohort* is the largest s with all smaller sets together
below the bound. Fewer corrupt clients than c change nothing: count honest ones as corrupt until they are c.

A server may also try again: abort, and look at the next session's graph. Numbers of sessions only increase
and end at `SESSIONS`, and a client draws once a number; so each bound here is one for all that it will ever
take part in.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, log2
from typing import NamedTuple

from prism_crypto.errors import InputError
from prism_crypto.primitives.graph import MAX_DEGREE, hypergeometric_ways
from prism_crypto.primitives.randomness import Rng, uniform_below

__all__ = ["SESSIONS", "ChosenParameters", "choose", "chosen_parameters", "guaranteed_cohort"]

SESSIONS = 2**42
"""The last session number on a chosen graph: as often at most may a server try for a graph that it likes."""

_FINENESS = (8, 256, 4096)
"""Sets are taken in blocks of 1/8 of their size, or where that says too little of 1/256, or of 1/4096."""


class ChosenParameters(NamedTuple):
    """Each client's choices k, the threshold t of shares among them, and the cohort that they guarantee."""

    degree: int
    threshold: int
    cohort: int


def choose(ids: Sequence[int], client_id: int, degree: int, rng: Rng) -> tuple[int, ...]:
    """Draw ``degree`` others uniformly, without replacement (Fisher-Yates on the part that is needed).

    Args:
        ids: the invited clients, increasing.
        client_id: who chooses; never chosen.
        degree: how many, 1 ≤ degree < len(ids).
        rng: source of uniform random bytes.

    Returns:
        The choice, increasing.

    Raises:
        InputError: ``client_id`` is not among ``ids``, or there are not so many others.

    >>> import os
    >>> choose([3, 5, 8], 5, 2, os.urandom)
    (3, 8)
    """
    last = len(ids) - 1
    if client_id not in ids:
        raise InputError(f"client {client_id} is not among those that it chooses from")
    if not 1 <= degree <= last:
        raise InputError(f"a client of {len(ids)} chooses 1 to {last} others, not {degree}")
    moved: dict[int, int] = {}  # what a shuffled list would hold, where it differs from range(last)
    drawn = []
    for place in range(degree):
        other = place + uniform_below(last - place, rng)
        drawn.append(moved.get(other, other))
        moved[other] = moved.get(place, place)
    # The place of the client itself holds the last one: all others have a number in 0..last-1.
    return tuple(sorted(ids[last] if ids[i] == client_id else ids[i] for i in drawn))


def chosen_parameters(
    n: int,
    *,
    gone: int,
    corrupt: int,
    cohort: int | None = None,
    security: int = 40,
    correctness: int = 20,
    sessions: int = SESSIONS,
) -> ChosenParameters:
    """The least k, and the threshold t, with which the sum opens for honest parties and for nobody else.

    t is the largest with n · P[Y < t] < 2^-correctness, Y ~ Hypergeometric(n - 1, n - 1 - gone, k) the
    choices of a client that stay to the end: a larger threshold is better for everything else. k is found by
    bisection: its guaranteed cohort is large enough, that of k - 1 is not.

    Args:
        n: invited clients, at least 3.
        gone: how many may drop out, independently of the graph, before the session fails.
        corrupt: how many may collude with the server. They are the same whatever the graph.
        cohort: honest clients in every opened sum, at least; by default more than half of the honest ones, so
            that no more than one sum can open.
        security, sessions: see `guaranteed_cohort`.
        correctness: -log2 of the largest probability that a session of honest parties can't finish.

    Raises:
        InputError: an argument is out of range, or no degree below n and up to `MAX_DEGREE` is enough.

    >>> chosen_parameters(1000, gone=50, corrupt=100)
    ChosenParameters(degree=85, threshold=66, cohort=661)
    >>> chosen_parameters(1000, gone=0, corrupt=100, cohort=900)  # nobody may drop out: all must be in
    ChosenParameters(degree=71, threshold=71, cohort=900)
    """
    if n < 3:
        raise InputError(f"a sparse graph needs at least 3 clients, not {n}")
    if not (corrupt >= 0 and 0 <= gone < n - corrupt):
        raise InputError(f"{gone} clients that drop out and {corrupt} that collude are not fewer than {n}")
    if security < 1 or correctness < 1 or sessions < 1:
        raise InputError("security, correctness and sessions must be positive")
    goal = (n - corrupt) // 2 + 1 if cohort is None else cohort

    def enough(degree: int) -> ChosenParameters | None:
        threshold = _largest_threshold(n, gone, degree, correctness)
        reached = guaranteed_cohort(n, corrupt, degree, threshold, security=security, sessions=sessions)
        return ChosenParameters(degree, threshold, reached) if reached >= goal else None

    below, highest = 0, min(n - 1, MAX_DEGREE)
    best = enough(highest)
    if best is None:
        raise InputError(
            f"even {highest} choices a client do not guarantee {goal} honest clients in every sum, with {n} "
            f"clients of whom {corrupt} may collude and {gone} drop out: allow fewer of these, or take the "
            "complete graph"
        )
    while best.degree - below > 1:
        middle = (below + best.degree) // 2
        found = enough(middle)
        below, best = (middle, best) if found is None else (below, found)
    return best


def guaranteed_cohort(
    n: int, corrupt: int, degree: int, threshold: int, *, security: int = 40, sessions: int = SESSIONS
) -> int:
    """How many honest clients are in every sum that a lying server opens: a certified lower bound.

    The probability that this is wrong for a client, in any of ``sessions`` sessions, is below 2^-security.
    Half of it is for rule 1, n · P[c_i ≥ 2t - k], in exact integers; half for rule 2, in logarithms that are
    rounded up, with C(N, s) ≤ 2^(N·H(s/N)).

    Args:
        n: invited clients.
        corrupt: clients that may collude with the server, at most.
        degree: k, each client's choices, below n.
        threshold: t, at most k.
        security: -log2 of the probability of a breach.
        sessions: how often the server may try.

    Returns:
        The cohort, at most n - corrupt; 0 if the threshold does not keep a client's two secrets apart.

    >>> guaranteed_cohort(1000, 100, 85, 66)
    661
    >>> guaranteed_cohort(1000, 100, 85, 45)
    0
    """
    honest, total = n - corrupt, comb(n - 1, degree)
    if not (0 < threshold <= degree < n and honest > 0 and corrupt >= 0):
        return 0
    too_many = sum(hypergeometric_ways(n - 1, corrupt, degree)[max(0, 2 * threshold - degree) :])
    if 2 * threshold <= degree or 2 * n * too_many * sessions << security >= total:
        return 0
    left = 2.0 ** -(security + 1) / sessions
    log_total, size = log2(total), 1
    while size < honest:
        # Blocks of sizes, coarse ones first: the chance grows with the size, its power shrinks. A block that
        # is no concern is done with; else a finer one is looked at.
        for fineness in _FINENESS:
            largest = min(size + max(1, size // fineness) - 1, honest - 1)
            ways = _ways_at_least(n - 1, largest - 1 + corrupt, degree, threshold)
            exponent = -1000.0
            if ways:
                exponent = size * (log2(ways) - log_total) + _log_sets(honest, size, largest)
                # Each log2 is off by less than 2^-38 while it is below 2^14, as of C(2^32, 512).
                exponent += log2(largest - size + 1) + (size + n) * 2.0**-36
            if exponent < -100 - security - log2(sessions):
                break
        if exponent >= 0:
            return size
        left -= 2.0 ** max(exponent, -1000.0)
        if left <= 0:
            return size
        size = largest + 1
    return honest


def _largest_threshold(n: int, gone: int, degree: int, correctness: int) -> int:
    """The largest t ≤ degree with n · P[fewer than t of ``degree`` choices stay] < 2^-correctness."""
    total, below = comb(n - 1, degree), 0
    for staying, ways in enumerate(hypergeometric_ways(n - 1, n - 1 - gone, degree)):
        below += ways
        if n * below << correctness >= total:
            return staying
    return degree


def _ways_at_least(population: int, marked: int, draws: int, least: int) -> int:
    """How many subsets of ``draws`` hold ``least`` or more of the marked ones; from the most downwards."""
    unmarked, most = population - marked, min(draws, marked)
    ways = comb(marked, most) * comb(unmarked, draws - most) if most >= least else 0
    total = ways
    for hits in range(most, max(least, draws - unmarked), -1):
        ways = ways * hits * (unmarked - draws + hits) // ((marked - hits + 1) * (draws - hits + 1))
        total += ways
    return total


def _log_sets(honest: int, smallest: int, largest: int) -> float:
    """Upper bound of log2 C(honest, s) for all s in smallest..largest < honest: the entropy bound."""
    if smallest <= honest / 2 <= largest:
        return float(honest)
    share = (largest if largest < honest / 2 else smallest) / honest
    return -honest * (share * log2(share) + (1 - share) * log2(1 - share))
