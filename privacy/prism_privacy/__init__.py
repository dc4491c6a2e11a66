"""Differential privacy for masks: mechanisms, accountants, ledger and budget.

    MaskRelease          what one round released: flip, clip, cohort
    Accountant           what has been spent, per view and adjacency
    RenyiFilter          a budget that refuses before it is passed, for parameters that adapt
    Participation        accounts of clients that miss rounds
    calibrate            the clip, flip or cohort that reaches an epsilon
    kappa                the certified constant behind it all
    RandomizedResponse, clip_toward, release_bits, debias      the mechanism
    CoinSecret           the coins that only one client knows
    Ledger               the signed record of what was spent

>>> acct = Accountant(delta=1e-5)
>>> acct.spend(MaskRelease(flip=0.25, clip=1.0, space="probability", cohort=1000), rounds=100)
>>> round(acct.epsilon(View.SUM, Adjacency.ZERO_OUT), 2)
3.33
"""

from prism_privacy.accountant import Accountant, Guarantee, RoundSpending
from prism_privacy.calibration import Calibration, calibrate
from prism_privacy.clipping import clip_toward
from prism_privacy.coins import CoinSecret, CoinStream, release_bits
from prism_privacy.errors import (
    BudgetExceeded,
    CalibrationError,
    CoinError,
    InvalidParameter,
    LedgerError,
    OutboxError,
    ParticipationExceeded,
    PrivacyError,
    ReleaseConflict,
    UnsoundComposition,
)
from prism_privacy.filters import RenyiFilter
from prism_privacy.kappa_store import kappa
from prism_privacy.ledger import Ledger
from prism_privacy.outbox import Outbox
from prism_privacy.participation import Participation
from prism_privacy.randomized_response import RandomizedResponse, debias
from prism_privacy.releases import MaskRelease
from prism_privacy.unclipped import exact_epsilon
from prism_privacy.units import Adjacency, Unit, View

__all__ = [
    "Accountant",
    "Adjacency",
    "BudgetExceeded",
    "Calibration",
    "CalibrationError",
    "CoinError",
    "CoinSecret",
    "CoinStream",
    "Guarantee",
    "InvalidParameter",
    "Ledger",
    "LedgerError",
    "MaskRelease",
    "Outbox",
    "OutboxError",
    "Participation",
    "ParticipationExceeded",
    "PrivacyError",
    "RandomizedResponse",
    "ReleaseConflict",
    "RenyiFilter",
    "RoundSpending",
    "Unit",
    "UnsoundComposition",
    "View",
    "calibrate",
    "clip_toward",
    "debias",
    "exact_epsilon",
    "kappa",
    "release_bits",
]
