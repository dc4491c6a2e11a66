"""Differential privacy for masks: mechanisms, accountants, ledger and budget.

What is released, and how
    MaskRelease          what one round released: flip, clip, cohort
    MomentRelease        one noisy release of feature moments, protecting single records
    RandomizedResponse, clip_toward, release_bits, debias      the mechanism for masks
    MeasuredRelease, MeasuredRound, Directions, RowDirections, HadamardEmbedding
                         measured rounds: bits that answer in few public directions
    CoinSecret, CoinStream, Outbox      coins that only one client knows, and an upload that is sent once

What it costs
    Accountant           what has been spent, per view and adjacency
    Participation        accounts of clients that miss rounds
    RenyiFilter, Budget  budgets that refuse before they are passed, for parameters that adapt
    calibrate            the clip, flip or cohort that reaches an epsilon
    calibrate_measured   the clips of a plan of measured rounds
    kappa, exact_epsilon the certified constant and the exact sum behind it all
    Ledger               the signed record of what was spent

Whether it is true
    audit                tries to refute a claimed mechanism from its answers

>>> acct = Accountant(delta=1e-5)
>>> acct.spend(MaskRelease(flip=0.25, clip=1.0, space="probability", cohort=1000), rounds=100)
>>> round(acct.epsilon(View.SUM, Adjacency.ZERO_OUT), 2)
3.33
"""

# scipy and dp_accounting take most of a second to import, so the functions that need them import them.
from prism_privacy import audit
from prism_privacy.accounting.accountant import Accountant, Guarantee, RoundSpending
from prism_privacy.accounting.budget import Budget
from prism_privacy.accounting.calibration import Calibration, calibrate
from prism_privacy.accounting.filters import RenyiFilter
from prism_privacy.accounting.kappa.store import kappa
from prism_privacy.accounting.participation import Participation
from prism_privacy.accounting.unclipped import exact_epsilon
from prism_privacy.errors import (
    AuditError,
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
from prism_privacy.ledger import Ledger, verify_ledger
from prism_privacy.ledger.check import LedgerReport
from prism_privacy.ledger.entry import LedgerEntry, RecordGuarantee, Spent
from prism_privacy.ledger.key import LedgerKey
from prism_privacy.ledger.spent_table import spent_table
from prism_privacy.masks.clipping import clip_toward
from prism_privacy.masks.coins import CoinSecret, CoinStream, release_bits
from prism_privacy.masks.outbox import Outbox
from prism_privacy.masks.randomized_response import RandomizedResponse, debias
from prism_privacy.masks.release import MaskRelease
from prism_privacy.measured import (
    Directions,
    HadamardEmbedding,
    MeasuredCalibration,
    MeasuredMean,
    MeasuredRelease,
    MeasuredRound,
    RowDirections,
    calibrate_measured,
    measured_mean,
    noise_covariance,
    quantise_features,
)
from prism_privacy.moments.noisy_moments import NoisyMoments, noisy_moments
from prism_privacy.moments.noisy_sums import NoisySums, release_moments
from prism_privacy.moments.release import MomentRelease
from prism_privacy.moments.store import moments_once
from prism_privacy.moments.summed import SummedMoments
from prism_privacy.units import Adjacency, Unit, View

__all__ = [
    "Accountant",
    "Adjacency",
    "AuditError",
    "Budget",
    "BudgetExceeded",
    "Calibration",
    "CalibrationError",
    "CoinError",
    "CoinSecret",
    "CoinStream",
    "Directions",
    "Guarantee",
    "HadamardEmbedding",
    "InvalidParameter",
    "Ledger",
    "LedgerEntry",
    "LedgerError",
    "LedgerKey",
    "LedgerReport",
    "MaskRelease",
    "MeasuredCalibration",
    "MeasuredMean",
    "MeasuredRelease",
    "MeasuredRound",
    "MomentRelease",
    "NoisyMoments",
    "NoisySums",
    "Outbox",
    "OutboxError",
    "Participation",
    "ParticipationExceeded",
    "PrivacyError",
    "RandomizedResponse",
    "RecordGuarantee",
    "ReleaseConflict",
    "RenyiFilter",
    "RoundSpending",
    "RowDirections",
    "Spent",
    "SummedMoments",
    "Unit",
    "UnsoundComposition",
    "View",
    "audit",
    "calibrate",
    "calibrate_measured",
    "clip_toward",
    "debias",
    "exact_epsilon",
    "kappa",
    "measured_mean",
    "moments_once",
    "noise_covariance",
    "noisy_moments",
    "quantise_features",
    "release_bits",
    "release_moments",
    "spent_table",
    "verify_ledger",
]
