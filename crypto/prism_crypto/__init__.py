"""The secure sum: a server learns the sum of its clients' vectors, and nothing else about them.

`secure_sum` runs all parties in one process, for simulation and tests. `SecureSumClient` and
`SecureSumServer` are the parties themselves, for a transport to drive. The protocol is Bonawitz et al. 2017
(double masking, five stages) against a server that lies, and Bell et al. 2020 (sparse graphs) against one
that only listens; see ``docs/secure-sum.md``.

>>> import numpy as np
>>> from prism_crypto import Stage, secure_sum
>>> masks = [np.array([1, 0, 1, 1]), np.array([1, 1, 0, 1]), np.array([0, 0, 1, 1]), np.array([1, 0, 0, 1])]
>>> secure_sum(masks, drop={1: Stage.UNMASK}).counts.tolist()
[3, 1, 2, 4]
"""

from prism_crypto.blame import Blame
from prism_crypto.client import SecureSumClient
from prism_crypto.errors import (
    ContextMismatch,
    EvidenceError,
    IdentityError,
    InputError,
    MessageError,
    OutOfOrder,
    PolicyError,
    ProtocolError,
    PublicKeyError,
    RandomnessError,
    SealError,
    SecureSumError,
    ShareError,
    SignatureError,
    StateError,
    SumError,
    ThresholdError,
)
from prism_crypto.keeping.identity import Identity, Roster
from prism_crypto.keeping.session_counter import MemoryCounter, SessionCounter
from prism_crypto.policy import Policy
from prism_crypto.secure_sum import SessionContext, secure_sum
from prism_crypto.server import SecureSumResult, SecureSumServer
from prism_crypto.session import Invited, Session
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.evidence import verify_evidence
from prism_crypto.wire.codec import FixedPoint, WeightedMean

__all__ = [
    "Blame",
    "ContextMismatch",
    "CountSpec",
    "EvidenceError",
    "FixedPoint",
    "Identity",
    "IdentityError",
    "InputError",
    "Invited",
    "MemoryCounter",
    "MessageError",
    "Mode",
    "OutOfOrder",
    "Policy",
    "PolicyError",
    "ProtocolError",
    "PublicKeyError",
    "RandomnessError",
    "Roster",
    "SealError",
    "SecureSumClient",
    "SecureSumError",
    "SecureSumResult",
    "SecureSumServer",
    "Session",
    "SessionContext",
    "SessionCounter",
    "ShareError",
    "SignatureError",
    "Stage",
    "StateError",
    "SumError",
    "ThresholdError",
    "WeightedMean",
    "secure_sum",
    "verify_evidence",
]
