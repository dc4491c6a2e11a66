"""Everything public about one measured round, checked before any data are read, and its digest.

The digest goes where the hash of the broadcast model goes: into the coins, so that another V, m, E, p_t, clip
or N gives other coins (the same coins under two questions would show, bit by bit, which way p moved); and
into the session of the secure sum, so that clients who were told different things open nothing together.
(`prism-secure run` takes that of its whole broadcast, in which all of this is.)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prism_privacy import _validate
from prism_privacy.errors import InvalidParameter
from prism_privacy.masks.fixed_point import box
from prism_privacy.measured.answers import answer_probabilities, client_answers
from prism_privacy.measured.directions import Asked
from prism_privacy.measured.embedding import HadamardEmbedding
from prism_privacy.measured.integers import ANSWER_BITS, integers, record_numbers
from prism_privacy.measured.records import clip_responses, record_responses, sum_persons
from prism_privacy.measured.release import MeasuredRelease

_HEADER: Final = b"prism-privacy/v1/measured/round"


@dataclass(frozen=True, eq=False)
class MeasuredRound:
    """One round as every party knows it. Making one is the client's check of what it was sent.

    Attributes:
        release: f, C, A, c, N, m, k, and what accounting needs.
        directions: V and m, in either form.
        embedding: E.
        public: p_t on the m chosen coordinates in units of 2^-24, within the box, int64 (m,); for a theta of
            all d coordinates ``RandomizedResponse(flip).public_point(theta)[embedding.coordinates]``. Any
            public point will do for privacy; 1/2 everywhere leaves the moves the most room.
        federation: the federation's name or id, not empty.
        round: the round's number, in [0, 2^63).

    Raises:
        InvalidParameter: a value out of range, or parts that do not fit each other.

    >>> from prism_privacy.measured import Directions
    >>> release = MeasuredRelease(flip=0.25, clip=0.5, client_clip=1.0, record_clip=1.0, records=2,
    ...                           coordinates=16, directions=2)
    >>> asked = MeasuredRound(release, Directions.of(np.eye(3)[None, :, :2], np.zeros((1, 3))),
    ...                       HadamardEmbedding(bytes(32), dimension=20, size=16, directions=2),
    ...                       np.full(16, 1 << 23), "docs", 1)
    >>> features = np.array([[2**20, 0, 0], [0, -(2**19), 0]], dtype=np.int32)
    >>> answers = asked.answers(features, np.array([0, 0]))
    >>> asked.real(answers)
    array([[ 0.5 , -0.25]])
    >>> moved = asked.probabilities(answers) / 2**24 - 0.5
    >>> float(round(np.linalg.norm(moved), 6)), round(0.5 * (0.5**2 + 0.25**2) ** 0.5, 6)
    (0.279508, 0.279508)
    """

    release: MeasuredRelease
    directions: Asked
    embedding: HadamardEmbedding
    public: NDArray[np.int64]
    federation: str
    round: int

    def __post_init__(self) -> None:
        release, embedding = self.release, self.embedding
        if (release.coordinates, release.directions) != (embedding.size, embedding.directions):
            raise InvalidParameter(
                f"release and embedding must have the same coordinates and directions, got "
                f"{(release.coordinates, release.directions)} and {(embedding.size, embedding.directions)}"
            )
        if self.directions.directions != release.directions:
            raise InvalidParameter(
                f"weights must hold {release.directions} directions, got {self.directions.directions}"
            )
        public = integers("public", self.public, (embedding.size,))
        lo, hi = box(release.flip)
        if int(public.min()) < lo or int(public.max()) > hi:
            raise InvalidParameter(f"public must lie in the box [{lo}, {hi}] of units of 2^-24")
        object.__setattr__(self, "public", public)
        if not isinstance(self.federation, str) or not self.federation:
            raise InvalidParameter(f"federation must be a non-empty string, got {self.federation!r}")
        if _validate.count("round", self.round, least=0) >= 1 << 63:
            raise InvalidParameter(f"round must be below 2^63, got {self.round}")

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over everything public that the bits depend on, 32 bytes.

        The broadcast hash of :meth:`CoinSecret.stream` and the model hash of a secure sum's session. Cohort,
        sum_failure and sigma_max are left out: they are each party's assumptions, not part of the mechanism.
        """
        release = self.release
        reals = (release.flip, release.clip, release.client_clip, release.record_clip)
        whole = (release.records, release.coordinates, release.directions, int(self.round))
        digest = hashlib.sha256(_HEADER + b"\0")
        for part in (
            self.federation.encode(),
            np.array(reals, dtype="<f8").tobytes(),
            b"".join(number.to_bytes(8, "little") for number in whole),
            *self.directions.encode(),
            *self.embedding.encode(),
            self.public.astype("<i8").tobytes(),
        ):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.digest()

    def answers(
        self,
        features: NDArray[np.int32],
        labels: ArrayLike,
        owners: ArrayLike | None = None,
        clients: int = 1,
        persons: ArrayLike | None = None,
    ) -> NDArray[np.int64]:
        """What clients answer to this round: int64 (clients, k), units of A 2^-40.

        Args:
            features: all their records, shape (N, D), from :func:`quantise_features`.
            labels: shape (N,), an array of integers, or a list; what is not in [0, K) answers 0.
            owners: shape (N,): whose record each is, 0, ..., clients - 1; None: all of client 0.
            clients: how many clients; one without records answers 0.
            persons: shape (N,), as labels: records of one client with the same number are one person's and
                share one clip c; so are those of a list that are not whole numbers of 64 bits. None: each
                record is clipped by itself.

        Raises:
            InvalidParameter: shapes or dtypes that do not fit, owners out of range. Never for a value of a
                feature, a label or a person.
        """
        count = _validate.count("clients", clients)
        responses = record_responses(self.directions, features, labels)
        whose = integers(
            "owners", np.zeros(len(features), np.int64) if owners is None else owners, (len(features),)
        )
        if whose.size and (int(whose.min()) < 0 or int(whose.max()) >= count):
            raise InvalidParameter(f"owners must lie in [0, {count})")
        if persons is not None:
            numbers = record_numbers("persons", persons, len(features))
            responses, whose = sum_persons(responses, whose, numbers)
        clipped = clip_responses(responses, self.release.record_gain)
        return client_answers(self.release, clipped, whose, count)

    def probabilities(self, answers: NDArray[np.int64]) -> NDArray[np.uint32]:
        """What :func:`release_bits` draws each client's bits with: uint32 (clients, m), units of 2^-24.

        Raises:
            InvalidParameter: answers that are not int64 of the shape (clients, k).
        """
        rows: Any = answers
        if (
            not isinstance(rows, np.ndarray)
            or rows.dtype != np.int64
            or rows.shape[1:] != (self.release.directions,)
        ):
            raise InvalidParameter(f"answers must be int64 of the shape (clients, {self.release.directions})")
        return answer_probabilities(self.release, self.embedding, self.public, rows)

    def real(self, answers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Answers in units of the responses: for a simulation's own books, never for the wire."""
        return answers.astype(np.float64) * (self.release.client_clip * 2.0**-ANSWER_BITS)
