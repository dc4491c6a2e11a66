"""Measured rounds: the server asks in few public directions, and mask bits carry the answers.

    directions    V and m: what is asked
    embedding     E: k numbers as moves of m probabilities
    public_round  everything public about a round, checked before data are read, and its digest
    records       a record's response, clipped
    answers       a client's answer, clipped, and the probabilities of its bits
    release       the radii for a client and for a record, with their proof
    estimate      the mean answer and its noise, from the opened counts
    calibrate     the clips of a plan that reaches an epsilon
    integers      what keeps all of this exact

It is select-measure-generate (Hardt, Ligett and McSherry, "A Simple and Practical Algorithm for
Differentially Private Data Release", 2012) with mask bits as the measuring noise (Chen, Ozgur and
Kairouz, "The Poisson Binomial Mechanism", 2022).
"""

from prism_privacy.measured.calibrate import MeasuredCalibration, calibrate_measured
from prism_privacy.measured.directions import Directions, RowDirections
from prism_privacy.measured.embedding import HadamardEmbedding
from prism_privacy.measured.estimate import MeasuredMean, measured_mean, noise_covariance
from prism_privacy.measured.integers import quantise_features
from prism_privacy.measured.public_round import MeasuredRound
from prism_privacy.measured.release import MeasuredRelease

__all__ = [
    "Directions",
    "HadamardEmbedding",
    "MeasuredCalibration",
    "MeasuredMean",
    "MeasuredRelease",
    "MeasuredRound",
    "RowDirections",
    "calibrate_measured",
    "measured_mean",
    "noise_covariance",
    "quantise_features",
]
