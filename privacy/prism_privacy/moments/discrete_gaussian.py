"""The discrete Gaussian: exact integer noise, and why the continuous Gaussian's epsilon holds for it.

**Law.** DG(s) puts mass proportional to exp(-x^2 / (2 s^2)) on every integer x.

**Sampling** (Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020,
algorithms 1-3): a discrete Laplace variable of scale t = s + 1 is made from uniforms and
Bernoulli(exp(-x)) trials and accepted with probability exp(-(|y| - s^2/t)^2 / (2 s^2)). Every trial
compares a uniform real, of which bits are drawn as far as they are needed, with a real number that is
computed as precisely as it takes: binary64 decides when it certainly can, decimal arithmetic of growing
precision otherwise. So the output law is DG(s) itself, not an approximation, given uniform coins.

**Accounting.** Let x + DG(s_j) per coordinate be released for integer vectors x. It is, up to a factor
e^(+-eta) in probability, a randomised function of x + N(0, s_j^2 - r^2), for any 0 < r < min s_j: given
y, draw an integer with mass proportional to exp(-(k - y)^2 / (2 r^2)), which commutes with integer
shifts. Writing phi_v for the density of N(0, v^2), the result has mass

    integral phi_s'(y) phi_r(k - y) r sqrt(2 pi) / rho(y) dy,     rho(y) = sum_k exp(-(k - y)^2 / (2 r^2)),

and Poisson summation gives rho(y) = r sqrt(2 pi) (1 + c), |c| <= theta = 2 sum_{j>=1} exp(-2 pi^2 r^2
j^2); the integral of phi_s' phi_r is phi_s(k). The normaliser of DG(s) is bounded in the same way, so
both masses lie within 1/(1 +- theta) of phi_s(k) and eta <= d log((1 + theta)/(1 - theta)) for d
coordinates. With r = 3, theta < 3e-77: for any d that a machine can hold eta < 1e-60, far below the room
that :func:`gaussian_epsilon` leaves. So (epsilon, delta) of the Gaussian mechanism with standard
deviations sqrt(s_j^2 - 9) holds for discrete Gaussian noise, by post-processing. (The paper's
zero-concentrated bound is the Gaussian's too, but converting it loses 7 to 9% at epsilon 1 to 10, delta
1e-5.)

**Sums.** The sum of independent DG(s_1) and DG(s_2) has mass rho_s(k) sum_y exp(-(y - c)^2 / (2 r^2)) up
to a constant, with s^2 = s_1^2 + s_2^2, r = s_1 s_2 / s and some real c depending on k. As above it is
DG(s) up to ((1 + theta)/(1 - theta)), theta with this r; by induction a sum of n shares of at least 5
each is DG up to a factor e^(+-n eta), as r >= 5 / sqrt 2 > 3. (Kairouz, Liu and Steinke, "The Distributed
Discrete Gaussian Mechanism", ICML 2021, theorem 1, in another form.)
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter
from prism_privacy.masks.coins import CoinStream

SMOOTHING: Final = 3
"""r of the accounting argument, in units of the lattice."""
LEAST_SHARE: Final = 5
"""The smallest s of a share of distributed noise, in units of the lattice."""
LARGEST: Final = 1 << 54
"""The largest s: 256 s still fits an int64, and exceeding 128 s has probability below exp(-8000)."""

_LEAST_MULTIPLIER: Final = 1e-4
_MARGIN: float = 2.0**-36
"""How far from the threshold binary64 is trusted. exp and its argument are wrong by less than 2^-39: gamma is
u/t in [0, 1], or z^2/2 with z = y/s - s/t known to 2^-46 while y/s <= 64, so to 2^-40; above that both the
probability and its error are below exp(-1900)."""
_CHUNK: Final = 1 << 16


def sample_discrete_gaussian(sigma: int, size: int, coins: CoinStream) -> NDArray[np.int64]:
    """``size`` independent draws from DG(sigma), exactly; int64, shape (size,).

    Args:
        sigma: the parameter s in units of the lattice, an integer in [1, 2^54]. The standard deviation is
            below it by a factor that differs from 1 by less than 1e-6 at s = 1 and soon vanishes.
        size: how many.
        coins: where uniform bits come from; the same stream gives the same draws.

    Raises:
        InvalidParameter: sigma or size out of range.

    >>> from prism_privacy.masks.coins import CoinSecret
    >>> coins = CoinSecret.for_test(bytes(32)).stream("docs", 0, bytes(32), "noise")
    >>> noise = sample_discrete_gaussian(1000, 100_000, coins)
    >>> abs(noise.std() / 1000 - 1) < 0.01
    np.True_
    """
    s = _validate.count("sigma", sigma)
    if s > LARGEST:
        raise InvalidParameter(f"sigma must be at most 2^54 units of the lattice, got {s}")
    wanted = _validate.count("size", size, least=0)
    out = np.empty(wanted, dtype=np.int64)
    filled = 0
    while filled < wanted:
        accepted = _accepted(s, min(_CHUNK, 2 * (wanted - filled) + 64), coins)[: wanted - filled]
        out[filled : filled + accepted.size] = accepted
        filled += accepted.size
    return out


def gaussian_epsilon(noise_multiplier: float, delta: float) -> float:
    """Epsilon of the Gaussian mechanism with noise ``noise_multiplier`` times the sensitivity, rounded up.

    The analytic formula (Balle and Wang, ICML 2018, theorem 8) as in ``dp_accounting``, whose import takes a
    second (tests hold the two together), with room for its binary64 error and root finding, and for the
    factor e^(+-eta) above. Below a multiplier of 10^-4 the
    formula runs out of digits; there the privacy loss, which is N(u^2/2, u^2) with u = 1/multiplier, exceeds
    u^2/2 + u sqrt(2 log(1/delta)) with probability at most delta.
    """
    if noise_multiplier <= 0.0:
        return math.inf
    if noise_multiplier < _LEAST_MULTIPLIER:
        shift = 1.0 / noise_multiplier
        return (shift * shift / 2.0 + shift * _tail(delta)) * (1.0 + 1e-9)
    return _analytic_epsilon(noise_multiplier, delta * (1.0 - 1e-9)) * (1.0 + 1e-9) + 1e-9


def _analytic_epsilon(multiplier: float, delta: float) -> float:
    wanted = math.log(delta)
    if _log_delta(multiplier, 0.0) < wanted:
        return 0.0
    low, high = 0.0, 1.0
    while _log_delta(multiplier, high) > wanted:
        low, high = high, 10.0 * high
    return _root(lambda epsilon: _log_delta(multiplier, epsilon) - wanted, low, high)


def gaussian_multiplier(epsilon: float, delta: float) -> float:
    """About the least noise multiplier with `gaussian_epsilon` at most ``epsilon``: check what it gives."""
    if epsilon > 0.5 / _LEAST_MULTIPLIER**2:
        tail = _tail(delta)
        return 1.0 / (math.sqrt(tail * tail + min(2.0 * epsilon, 1e300)) - tail)
    wanted = math.log(delta)
    low, high = 0.1, 1.0
    while _log_delta(low, epsilon) < wanted:
        low, high = low / 10.0, low
    while _log_delta(high, epsilon) > wanted:
        low, high = high, 10.0 * high
    return _root(lambda multiplier: _log_delta(multiplier, epsilon) - wanted, low, high)


def _log_delta(multiplier: float, epsilon: float) -> float:
    """log of the least delta at ``epsilon``: Phi(1/(2m) - epsilon m) - e^epsilon Phi(-1/(2m) - epsilon m)."""
    from scipy.special import log_ndtr

    middle = epsilon * multiplier + 1.0 / (2.0 * multiplier)
    x = float(log_ndtr(1.0 / multiplier - middle))
    y = epsilon + float(log_ndtr(-middle))
    return x + float(np.log1p(-np.exp(y - x))) if y < x else -math.inf


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq

    return float(brentq(f, low, high, xtol=1e-12))


def _tail(delta: float) -> float:
    """t with P(N(0, 1) > t) <= exp(-t^2 / 2) = delta."""
    return math.sqrt(-2.0 * math.log(delta * (1.0 - 1e-9)))


def _accepted(s: int, tries: int, coins: CoinStream) -> NDArray[np.int64]:
    """Those of ``tries`` draws of a discrete Laplace that the Gaussian accepts."""
    y = _discrete_laplace(s + 1, tries, coins)
    size = np.abs(y)
    z = size / s - s / (s + 1)

    def exact(i: int) -> Fraction:
        return (int(size[i]) - Fraction(s * s, s + 1)) ** 2 / (2 * s * s)

    kept: NDArray[np.int64] = y[_bernoulli_exp(z * z / 2.0, exact, coins)]
    return kept


def _discrete_laplace(t: int, tries: int, coins: CoinStream) -> NDArray[np.int64]:
    """Mass proportional to exp(-|y|/t); fewer than ``tries`` draws come back, as some are rejected."""
    low = _uniform_below(t, tries, coins)
    low = low[_bernoulli_exp(low / t, lambda i: Fraction(int(low[i]), t), coins)]
    high = _geometric(low.size, coins)
    magnitude = low + t * high
    negative = (_words(low.size, coins) >> np.uint64(63)).astype(bool)
    kept = ~(negative & (magnitude == 0))
    signed: NDArray[np.int64] = np.where(negative, -magnitude, magnitude)
    return signed[kept]  # type: ignore[no-any-return]


def _geometric(size: int, coins: CoinStream) -> NDArray[np.int64]:
    """How many Bernoulli(1/e) trials succeed in a row."""
    count = np.zeros(size, dtype=np.int64)
    active = np.arange(size)
    while active.size:
        ones = np.ones(active.size)
        active = active[_bernoulli_exp(ones, lambda _: Fraction(1), coins)]
        count[active] += 1
    return count


def _uniform_below(t: int, tries: int, coins: CoinStream) -> NDArray[np.int64]:
    """Uniform on {0, ..., t - 1}, by rejection: on average at least half of ``tries`` draws come back."""
    shift = np.uint64(64 - max(1, (t - 1).bit_length()))
    words = (_words(tries, coins) >> shift).astype(np.int64)
    kept: NDArray[np.int64] = words[words < t]
    return kept


def _bernoulli_exp(
    gamma: NDArray[np.float64], exact: Callable[[int], Fraction], coins: CoinStream
) -> NDArray[np.bool_]:
    """True with probability exp(-gamma), exactly; ``exact(i)`` is the i-th gamma as a fraction."""
    words = _words(gamma.size, coins)
    gap = np.exp(-gamma) - words.astype(np.float64) * 2.0**-64
    answer: NDArray[np.bool_] = gap > 0.0
    for i in np.flatnonzero(np.abs(gap) <= _MARGIN).tolist():
        answer[i] = _uniform_is_below_exp(int(words[i]), exact(i), coins)
    return answer


def _uniform_is_below_exp(word: int, gamma: Fraction, coins: CoinStream) -> bool:
    """Whether the uniform real whose first 64 bits are ``word`` is below exp(-gamma)."""
    bits, digits = 64, 30
    while True:
        with decimal.localcontext() as context:
            context.prec = digits
            context.Emin, context.Emax = decimal.MIN_EMIN, decimal.MAX_EMAX
            value = Fraction((-(decimal.Decimal(gamma.numerator) / decimal.Decimal(gamma.denominator))).exp())
        # three roundings of gamma and a correctly rounded exp: relative error below 3 gamma + 1 units
        error = value * (3 * gamma + 2) / Fraction(10) ** (digits - 1)
        if Fraction(word + 1, 1 << bits) <= value - error:
            return True
        if Fraction(word, 1 << bits) >= value + error:
            return False
        word = (word << 64) | int(_words(1, coins)[0])
        bits, digits = bits + 64, digits + 20


def _words(count: int, coins: CoinStream) -> NDArray[np.uint64]:
    return np.frombuffer(coins.bytes(8 * count), dtype="<u8")
