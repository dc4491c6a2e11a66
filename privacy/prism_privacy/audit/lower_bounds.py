"""Lower bounds on epsilon: what an adversary with canaries has already achieved.

Each is a statement "epsilon is at least this, except with probability `error`"; a claim below it is false.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from prism_privacy.audit.exact_tests import clopper_pearson, log_upper_tail

__all__ = ["independent_bound", "one_run_bound", "one_run_log_p", "two_worlds_bound"]

Counts = NDArray[np.int64]


def two_worlds_bound(inside: Counts, outside: Counts, delta: float, error: float) -> tuple[float, int, int]:
    """ε from uploads of two neighbouring worlds, by a threshold on a score.

    (ε, δ)-privacy bounds any event: P ≤ e^ε·Q + δ and Q ≤ e^ε·P + δ. The event (score ≥ t or score < t, and
    which world is P) is picked on the first half of each sample and evaluated on the second, where
    Clopper–Pearson bounds both probabilities, each with error/2 (Nasr et al., "Tight Auditing of
    Differentially Private Machine Learning", 2023).

    Args:
        inside, outside: one score for each upload, integers, in the one and the other world.

    Returns:
        (ε, events seen under P, events seen under Q) of the second half; ε is 0.0 if nothing was learnt.
    """
    half, other = inside.size // 2, outside.size // 2
    best = (-math.inf, 0, True, True)
    for threshold in np.unique(np.concatenate((inside[:half], outside[:other]))):
        for above in (True, False):
            p = _events(inside[:half], int(threshold), above)
            q = _events(outside[:other], int(threshold), above)
            forward = _ratio(p, half, q, other, delta, error)
            backward = _ratio(q, other, p, half, delta, error)
            best = max(best, (forward, int(threshold), above, True), (backward, int(threshold), above, False))
    _, threshold, above, forwards = best
    first, second = (inside[half:], outside[other:]) if forwards else (outside[other:], inside[half:])
    p, q = _events(first, threshold, above), _events(second, threshold, above)
    return max(0.0, _ratio(p, first.size, q, second.size, delta, error)), p, q


def _events(scores: Counts, threshold: int, above: bool) -> int:
    return int(np.count_nonzero(scores >= threshold if above else scores < threshold))


def _ratio(p: int, of_p: int, q: int, of_q: int, delta: float, error: float) -> float:
    low = clopper_pearson(p, of_p, error / 2.0)[0] - delta
    high = clopper_pearson(q, of_q, error / 2.0)[1]
    return math.log(low / high) if low > 0.0 else -math.inf


def one_run_log_p(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """log p of `right` correct guesses if every canary is (ε, δ)-private; canaries may share one run.

    Each of `canaries` independent fair coins decides whether a canary is in or out; `guesses` of them are
    guessed. For δ = 0 the number of right guesses is dominated by Bin(guesses, e^ε/(1+e^ε)), however the
    mechanism couples the canaries; δ adds 2·canaries·δ·max_i P(right−i ≤ Bin < right)/i (Steinke, Nasr and
    Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023, theorem 5.2 and appendix D).
    """
    from scipy import special

    rate = 1.0 / (1.0 + math.exp(-epsilon))
    log_tail = log_upper_tail(guesses, rate, right)
    if delta == 0.0 or right == 0:
        return log_tail
    # P(Bin ≥ right − i) for i = 0 … right. The last is 1, so the most is elsewhere where others underflow.
    least = np.arange(right, 0, -1)
    tails = np.append(special.betainc(least, guesses - least + 1, rate), 1.0)
    most = float(((tails[1:] - tails[0]) / np.arange(1, right + 1)).max())
    return min(0.0, math.log(math.exp(log_tail) + 2.0 * canaries * delta * most))


def one_run_bound(canaries: int, guesses: int, right: int, delta: float, error: float) -> float:
    """The largest ε that `one_run_log_p` refutes at level `error`; 0.0 if it refutes none.

    >>> round(one_run_bound(1000, 1000, 1000, 0.0, 0.05), 2)
    5.81
    """
    target = math.log(error)

    def refuted(epsilon: float) -> bool:
        return one_run_log_p(canaries, guesses, right, epsilon, delta) <= target

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2.0 * high
    for _ in range(40):
        middle = (low + high) / 2.0
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def independent_bound(dim: int, inside: float, outside: float, delta: float) -> float:
    """ε of a whole upload **if its bits are independent and alike**, from the rate at which they agree.

    An upload has `dim` bits, each of which agrees with the canary's with probability at least `inside` in
    the one world and at most `outside` in the other. Agreements are sufficient then, so this is everything
    that can be learnt: ε = max_t log((P(Bin(dim, inside) ≥ t) − δ) / P(Bin(dim, outside) ≥ t)).

    >>> round(independent_bound(10_000, 0.75, 0.25, 1e-5))
    5895
    """
    if inside <= outside:
        return 0.0
    best = 0.0
    first = math.ceil(dim * outside)
    for least in range(first, dim + 1):
        log_left = log_upper_tail(dim, inside, least)
        if log_left <= math.log(delta):
            break
        left = log_left + math.log1p(-delta * math.exp(-log_left))
        best = max(best, left - log_upper_tail(dim, outside, least))
    return best
