"""Upper bounds on the Rényi moments of one coordinate, for every location and every configuration at once.

**Setting.** n clients send one bit each, client i a Ber(p_i) with p_i ∈ [f, 1−f]; the observer sees the sum
(n = 1: one upload). In the neighbouring world the protected client has p+Δ instead of p. Write P and Q for
the two laws of the sum, in either order, F(P, Q) = Σ P^α Q^(1−α) and D_α = log F/(α−1), for α > 1.

**The worst others sit at the edges.** F is jointly convex, and P and Q are affine in each *other* client's
p_i while the rest is fixed. So the supremum over p_i ∈ [f, 1−f] is at an end point: the others are
Bin(a, f) + Bin(b, 1−f) with a + b = n−1.

**The worst location is at the edge.** For fixed Δ, (P, Q) is affine in the protected client's location lo ∈
[f, 1−f−Δ], so F is convex in lo and its maximum is at one of the two ends. Counting zeros instead of ones
maps the upper end to the lower one and turns the pair around, so both ends are covered by lo = f and both
orders.

**One family.** With V_m = Bin(m, f) + Bin(n−m, 1−f), λ = Δ/(1−2f) ∈ (0, 1] and X = V_(m−1)/V_m − 1 (mean 0
under V_m), the mixture (1−λ)V_m + λV_(m−1) is the law of the sum with the protected client at f+Δ, and
    forward   1 + g = E[(1+λX)^α]       moved client in P
    backward  1 + g = E[(1+λX)^(1−α)]   moved client in Q
under V_m, for m = 1…n. A table holds log(1+g), maximal over m, on nodes of λ for a list of orders.

**Intervals of m.** For m ∈ [m0, m1] every V_m is the law with only m0−1 clients at f and n−m1 at 1−f beside
the protected one, plus independent noise. By data processing the smaller cohort bounds the whole interval. Up
to `_EXACT` clients every m is taken by itself; above, an interval leaves out at most 1/`_EXACT` of the
clients, and above `_FINE_CLIENTS` there are `_COARSE` intervals. The law of others (a, b) read backwards is
that of (b, a).

**Blocks of counts** (above `_EACH_COUNT` clients). X grows with the count k: with w the others' law and t =
w(k−1)/w(k), X = (1−2f)(t−1)/(1−f+f·t), and t grows because w, a sum of Bernoullis, is log-concave. Cut the
counts into blocks k_i ≤ k < k_(i+1). There X lies between X(k_i) and X(k_(i+1)), and for every convex φ
    Σ_block V φ(λX) ≤ M·((1−p)·φ(λX(k_i)) + p·φ(λX(k_(i+1)))),  M = Σ_block V,  p: the mean of X is kept
(a chord lies above φ). M = Σ_block w + f(w(k_i −1) − w(k_(i+1) −1)) and Σ_block V·X = (1−2f)(w(k_i −1) −
w(k_(i+1) −1)), because V = (1−f)w(k) + f·w(k−1), V·X = (1−2f)(w(k−1) − w(k)) and the sums telescope. So three
numbers a block are enough. The right-hand side sums the law with mass on the X(k_i) only, which has mean 0
and values above −1 like that of X, so all that follows holds for it. Blocks of `_BLOCK` standard deviations
cost about `_BLOCK`²/6 of κ where α is not huge, and a cohort of 10⁶ has as many of them as one of 10⁴.

**Between nodes** (`curve.py`), for one m and hence for the maximum over m, which keeps convexity:
    G(λ) = g/λ² is convex in λ when α ∉ (2, 3) or backward.
        G = α(α−1)·E[X² ∫₀¹ (1−t)(1+tλX)^(α−2) dt] (Taylor with integral remainder and E X = 0; backward
        with exponent −α−1), a positive mixture of powers of an affine function, convex for exponents
        outside (0, 1).
    N(λ) = (1+g)^(1/α) is convex, forward: it is the L_α norm of 1+λX.
    log(1+g) is convex, backward: (1+λX)^(1−α) is log-convex in λ, and sums keep log-convexity.
    G(λ) ≤ α(α−1)(E X²/2 + (α−2)·λ·max(E X³, 0)/6), forward with α ∈ [2, 3]: (1+tλX)^(α−2) ≤ 1+(α−2)tλX.
    G(0) = α(α−1)·E X²/2.

**Tails and floats.** F is convex and homogeneous, hence subadditive: splitting the others' law into what is
kept and a cut-off mass τ gives g ≤ g(kept) + τ·g(upload). With φ(u) = (1+u)^α − 1 − αu ≥ 0 in place of
(1+u)^α − 1 (E X = 0 holds exactly for the kept part, too) nothing cancels to first order: an error η in the
pmf moves u by 2ηλ(1+X) and φ by φ′ times that, which is at most 4η/(λ·sd X) of g for small u and e^(2αη) for
large; forming (1+u)^(α−1) − 1 by expm1 and squaring, e ← e(2+e), keeps a relative error of a few 2⁻⁵³ a step
on e, which is at most (K+16)·2⁻⁵³/(λ·sd X) of g after summation. `_slack` is several times the sum of these;
tests compare with 60 digits. In blocks, the same errors move the X(k_i) and the mean of X on a block; eight
times the slack allows for values that fall by a factor of a hundred within a block, far out in the tails.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from prism_privacy.accounting.kappa.edge_counts import TAIL, edge_blocks, edge_counts

__all__ = ["LEAST_MOVE", "MOST_CLIENTS", "MomentTable", "OrderGrid", "moment_table"]

_EXACT = 250
_EACH_COUNT = 1_000
_FINE_CLIENTS = 10_000
_COARSE = 128
_BLOCK = 0.125
MOST_CLIENTS = 1_000_000
LEAST_MOVE = 1e-6

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OrderGrid:
    """Orders α = 1 + base·2^j for j = 0…doublings: doubling α−1 is a squaring, which makes a grid cheap."""

    bases: tuple[float, ...]
    doublings: int

    @property
    def orders(self) -> Floats:
        """All orders, ascending, shape (A,)."""
        excess = np.array(self.bases)[None, :] * 2.0 ** np.arange(self.doublings + 1)[:, None]
        return np.asarray(1.0 + excess.reshape(-1), dtype=np.float64)


@dataclass(frozen=True)
class MomentTable:
    """log(1+g) at `nodes` of λ, each an upper bound over every m, forward and backward.

    cohort, flip   n and f
    orders         α, shape (A,)
    nodes          λ > 0, ascending, shape (L,); the last is as far as the table reaches
    forward        shape (A, L)
    backward       shape (A, L)
    chi2           max over m of E X²
    third          max over m of E X³, at least 0
    """

    cohort: int
    flip: float
    orders: Floats
    nodes: Floats
    forward: Floats
    backward: Floats
    chi2: float
    third: float


def _nodes(cohort: int, flip: float, reach: float) -> Floats:
    """Nodes in (0, reach], denser towards zero, where G bends for large orders.

    None but the last moves p by less than `LEAST_MOVE`: below, rounding costs more than the chord from 0.
    """
    least = 32 if cohort <= _EACH_COUNT else 24
    count = 512 if cohort == 1 else max(least, min(512, 16_000 // cohort))
    nodes = reach * (np.arange(1, count + 1) / count) ** 2
    return nodes[nodes >= min(LEAST_MOVE / (1.0 - 2.0 * flip), reach)]


def _configurations(cohort: int) -> list[tuple[int, int]]:
    """Pairs (others at f, others at 1−f) that together bound every m = 1…n."""
    if cohort > _FINE_CLIENTS:
        return _coarse_configurations(cohort)
    width = max(1, cohort // _EXACT)
    pairs = []
    first = 1
    while first <= cohort:
        # The supremum is most often at an end, so both ends are taken by themselves.
        last = first if first == 1 else min(first + width - 1, max(cohort - 1, first))
        pairs.append((first - 1, cohort - last))
        first = last + 1
    return pairs


def _coarse_configurations(cohort: int) -> list[tuple[int, int]]:
    """The same with `_COARSE` intervals, of which each follows its mirror image: their laws are, too."""
    half = [1 + (cohort - 2) * i // _COARSE for i in range(_COARSE // 2 + 1)]
    half[-1] = cohort // 2
    pairs = [(0, cohort - 1)] + [(below, cohort - last) for below, last in itertools.pairwise(half)]
    if cohort % 2:  # the one in the middle
        pairs.append((cohort // 2, cohort // 2))
    return [pair for low, high in pairs for pair in dict.fromkeys([(low, high), (high, low)])]


def _upload_log_moments(flip: float, orders: Floats, nodes: Floats) -> tuple[Floats, Floats]:
    """Upper bounds on log(1+g) for a single client, forward and backward, each (A, L).

    There are two atoms and nothing overflows. The logarithms cancel where λ is small, so they carry an
    absolute error of a few 2⁻⁵³·α·log((1−f)/f).
    """
    low, high = flip, 1.0 - flip
    p_one = (1.0 - nodes) * low + nodes * high  # P(bit = 1) for the moved client
    p_zero = (1.0 - nodes) * high + nodes * low
    up, down = np.log(p_one / low), np.log(p_zero / high)
    excess = (orders - 1.0)[:, None]
    forward = np.logaddexp(np.log(p_one) + excess * up, np.log(p_zero) + excess * down)
    backward = np.logaddexp(np.log(low) - excess * up, np.log(high) - excess * down)
    slip = 2.0**-50 * (1.0 + (excess + 1.0) * np.log(high / low))
    return forward + slip, backward + slip


def _slack(size: int, sd: float, orders: Floats, nodes: Floats) -> Floats:
    """A relative bound on all rounding in g, shape (A, L); argued at the top of this module."""
    unit = 2.0**-53 * 64.0 * (size + 64)
    return np.asarray(unit * (orders[:, None] + 1.0 / (nodes[None, :] * sd)), dtype=np.float64)


def _moments(
    others: Floats, flip: float, grid: OrderGrid, nodes: Floats
) -> tuple[Floats, Floats, float, float]:
    """g forward and backward, each (A, L), with E X² and E X³, for the others' law `others` of shape (K,)."""
    padded = np.concatenate(([0.0], others, [0.0]))
    still = (1.0 - flip) * padded[1:] + flip * padded[:-1]  # protected client at f
    moved = flip * padded[1:] + (1.0 - flip) * padded[:-1]  # at 1−f
    x = (1.0 - 2.0 * flip) * (padded[:-1] - padded[1:]) / still
    chi2, third = float(still @ (x * x)), float(still @ (x * x * x))
    mean = float(still @ x)  # zero up to rounding; kept, because it cancels first-order errors of x

    ratio = (1.0 - nodes[:, None]) * still
    ratio += nodes[:, None] * moved
    ratio /= still
    forward, backward = _expectations(still, x, ratio, mean, grid, nodes)
    return forward, backward, chi2, third


_mirrored_blocks = lru_cache(maxsize=1)(edge_blocks)


def _block_moments(
    at_low: int, at_high: int, flip: float, length: int, grid: OrderGrid, nodes: Floats
) -> tuple[Floats, Floats, float, float, int]:
    """Upper bounds on what `_moments` gives, from blocks of counts (see the top), and how many counts."""
    blocks, first, last = _mirrored_blocks(min(at_low, at_high), max(at_low, at_high), flip, length)
    if at_low > at_high:
        blocks, first, last = blocks[::-1], last[::-1], first[::-1]
    width = 1.0 - 2.0 * flip
    before = np.concatenate(([0.0], last))  # the others' probability one below the first count of each block
    here = np.append(first, 0.0)
    x = width * (before - here) / ((1.0 - flip) * here + flip * before)
    mass = blocks + flip * (before[:-1] - last)
    share = (width * (before[:-1] - last) / mass - x[:-1]) / np.maximum(np.diff(x), np.finfo(float).tiny)
    share = np.clip(share, 0.0, 1.0)
    law = np.append(mass * (1.0 - share), flip * last[-1])
    law[1:] += mass * share
    ratio = 1.0 + nodes[:, None] * x
    forward, backward = _expectations(law, x, ratio, float(law @ x), grid, nodes)
    return forward, backward, float(law @ (x * x)), float(law @ (x * x * x)), blocks.size * length


def _expectations(
    still: Floats, x: Floats, ratio: Floats, mean: float, grid: OrderGrid, nodes: Floats
) -> tuple[Floats, Floats]:
    """E φ(λX) forward and backward, each (A, L), for masses `still` at `x`, both (K,); `ratio` is 1+λX."""
    # Few arrays, written over, one chain of powers at a time: that fits a core's second cache.
    log_ratio, weighted, power, work = np.empty((4, *ratio.shape))
    np.multiply(nodes[:, None], x, out=work)
    with np.errstate(divide="ignore"):  # u rounds to −1 where f is tiny; `ratio` is used there
        np.log(ratio, out=log_ratio)
        np.log1p(work, out=log_ratio, where=np.abs(work) < 0.5)
    np.multiply(still, ratio, out=weighted)  # the mixture itself
    forward = np.empty((len(grid.bases), grid.doublings + 1, nodes.size, 1, 1))
    backward = np.empty(forward.shape[:3])
    rows, columns = weighted[:, None, :], power[:, :, None]  # (L, 1, K) @ (L, K, 1): L dot products
    with np.errstate(over="ignore", under="ignore"):
        for base, ahead, behind in zip(grid.bases, forward, backward, strict=True):
            np.expm1(np.multiply(log_ratio, base, out=power), out=power)
            np.matmul(rows, columns, out=ahead[0])
            for doubled in ahead[1:]:
                np.multiply(power, np.add(power, 2.0, out=work), out=power)
                np.matmul(rows, columns, out=doubled)
            np.expm1(np.multiply(log_ratio, -base, out=power), out=power)
            np.matmul(power, still, out=behind[0])
            for doubled in behind[1:]:
                np.multiply(power, np.add(power, 2.0, out=work), out=power)
                np.matmul(power, still, out=doubled)
    # Σ V·φ, `power` being (1+u)^±(α−1) − 1: forward φ = (1+u)(1+power) − 1 − αu, backward φ = power + (α−1)u.
    shift = (grid.orders - 1.0)[:, None] * mean * nodes
    return (
        forward.swapaxes(0, 1).reshape(shift.shape) - shift,
        backward.swapaxes(0, 1).reshape(shift.shape) + shift,
    )


def moment_table(
    cohort: int, flip: float, reach: float, grid: OrderGrid, *, extremes_only: bool = False
) -> MomentTable:
    """The table for n = `cohort`, f = `flip` ∈ (0, 1/2) and λ up to `reach` ∈ (0, 1].

    One core takes up to a second for 126 orders: at n = 1,000, and in blocks from there to n = 10⁶. With
    `extremes_only` just m = 1 and m = n are taken: that is a quick estimate, not a bound.
    """
    orders = grid.orders
    nodes = _nodes(cohort, flip, reach)
    upload_forward, upload_backward = _upload_log_moments(flip, orders, nodes)
    shape = (orders.size, nodes.size)
    forward, backward = np.zeros(shape), np.zeros(shape)
    chi2, third = 0.0, 0.0
    with np.errstate(over="ignore"):
        cut = TAIL * np.expm1(upload_forward), TAIL * np.expm1(upload_backward)
    pairs = [(0, cohort - 1), (cohort - 1, 0)] if extremes_only else _configurations(cohort)
    for at_low, at_high in pairs:
        length = int(_BLOCK * np.sqrt((at_low + at_high) * flip * (1.0 - flip)))
        if cohort <= _EACH_COUNT or length < 2:
            others = edge_counts(at_low, at_high, flip)
            ahead, behind, second, cubed = _moments(others, flip, grid, nodes)
            size = others.size
        else:
            ahead, behind, second, cubed, size = _block_moments(at_low, at_high, flip, length, grid, nodes)
            size *= 8
        widen = 1.0 + _slack(size, float(np.sqrt(second)), orders, nodes)
        np.maximum(forward, ahead * widen, out=forward)
        np.maximum(backward, behind * widen, out=backward)
        chi2 = max(chi2, second * float(widen.max()))
        third = max(third, cubed * float(widen.max()))
    safe = 1.0 + 1e-13
    return MomentTable(
        cohort=cohort,
        flip=flip,
        orders=orders,
        nodes=nodes,
        # One upload already bounds its sum, and does so without overflow.
        forward=safe * np.minimum(np.log1p(forward + cut[0]), upload_forward * safe),
        backward=safe * np.minimum(np.log1p(backward + cut[1]), upload_backward * safe),
        chi2=chi2,
        third=third,
    )
