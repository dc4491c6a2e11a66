"""Auditors: what somebody finds out who does not trust the trainer.

    audit_mechanism      tries to refute the claimed law and ε of a function (input, theta, seed) -> bits
    Claim                what the function is said to be
    MechanismAudit       what came out: findings, lower bounds, every test with its p-value
    make_seed, read_seed how a seed names a run, a client and a round
    two_worlds_bound, one_run_bound, independent_bound, clopper_pearson
                         the statistics, for audits of other things

By module: black_box, claim and probes say what is asked of whom; law, goodness_of_fit and structure judge the
answers, by exact_tests, as checks; lower_bounds and membership are what attackers reach; mechanism is the
whole audit. None of them reads a run folder.

>>> import numpy as np
>>> def leaky(bits, theta, seed):
...     return bits ^ (np.random.default_rng(seed).random(bits.size) < 0.125)
>>> result = audit_mechanism(leaky, Claim(flip=0.25), dim=256, trials=256)
>>> result.verdict.value, result.findings[0].name
('finding', 'flips of one input')
"""

from prism_privacy.audit.black_box import Mechanism, Progress, SeedParts, make_seed, read_seed
from prism_privacy.audit.checks import Bound, Check, Finding, Layer, MechanismAudit, Verdict, format_log_p
from prism_privacy.audit.claim import Claim
from prism_privacy.audit.exact_tests import clopper_pearson
from prism_privacy.audit.lower_bounds import independent_bound, one_run_bound, two_worlds_bound
from prism_privacy.audit.mechanism import audit_mechanism

__all__ = [
    "Bound",
    "Check",
    "Claim",
    "Finding",
    "Layer",
    "Mechanism",
    "MechanismAudit",
    "Progress",
    "SeedParts",
    "Verdict",
    "audit_mechanism",
    "clopper_pearson",
    "format_log_p",
    "independent_bound",
    "make_seed",
    "one_run_bound",
    "read_seed",
    "two_worlds_bound",
]
