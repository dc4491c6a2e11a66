"""The public parameters of one session, fixed before its first message, and the rules they must obey."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import msgspec

from prism_crypto.blame import Blame
from prism_crypto.errors import InputError, MessageError, PolicyError
from prism_crypto.keeping.identity import MAX_CLIENT_ID, NO_ROSTER, SIGNATURE_BYTES, Roster, check_client_id
from prism_crypto.keeping.session_counter import MAX_SESSION
from prism_crypto.primitives.agreement_proof import PROOF_BYTES
from prism_crypto.primitives.chosen_graph import SESSIONS, chosen_parameters, guaranteed_cohort
from prism_crypto.primitives.context import DIGEST_BYTES, digest, encode_ids, u32, u64, variable
from prism_crypto.primitives.graph import MAX_DEGREE, GraphParameters, harary_degree
from prism_crypto.primitives.hybrid import ENCAPSULATED_BYTES, KEM_SECRET_BYTES, check_available
from prism_crypto.spec import CountSpec, check_types, coerce_mode
from prism_crypto.stage import Mode
from prism_crypto.wire.messages import SEALED_BYTES
from prism_crypto.wire.packing import Packing, PartedPacking

__all__ = [
    "COMPLETE_LIMIT",
    "NOBODY_EXCLUDED",
    "SPARSE_FAILURE",
    "GraphKind",
    "Invited",
    "Session",
    "Suite",
    "chosen_cohort",
]

COMPLETE_LIMIT = 200
"""Up to this many clients sessions have the complete graph by default."""

SPARSE_FAILURE = 2.0**-40
"""Probability, a session, that a sparse graph fails to hide uploads; a release's delta pays for it."""

GraphKind = Literal["complete", "harary", "chosen"]

Suite = Literal["x25519", "x25519+ml-kem-768"]
"""How clients agree on keys."""

_OFFER_VERSION = 2
_MAX_TEXT = 256
_MAX_BINDING = 4096
_MAX_EXCLUDED = 16
"""So many pieces of evidence an offer may hold. A client checks each once: 1 to 8 ms for a usual one of 200
clients, 7 ms for each of the first 16 complaints in it (a core of 2026).
"""

_MAX_EVIDENCE = 4 * 2**20
"""Bytes of all of it: one piece of a complete graph of 12,000 clients fits, in hybrid sessions of 830."""


class _Wishes(NamedTuple):
    """What `Session.plan` was asked for, and fills in."""

    mode: Mode | str
    threshold: int | None
    min_survivors: int | None
    min_cohort: int | None
    colluders: int | None
    graph: GraphKind | Literal["auto"]
    dropout: float


class Invited(msgspec.Struct, frozen=True):
    """The clients invited to a session: their number and hash, and the ids themselves where they are needed.

    In a Harary graph a client gets along with number and hash, so that what it receives does not grow
    with the number of clients. Where clients choose their neighbours they choose from the ids.
    """

    count: int
    digest: bytes
    ids: tuple[int, ...] | None = None

    @classmethod
    def of(cls, ids: Iterable[int]) -> Invited:
        """The invited set of these ids.

        Raises:
            InputError: an id twice.
            IdentityError: an id out of range.
        """
        ordered = tuple(sorted(check_client_id(client_id) for client_id in ids))
        if len(set(ordered)) != len(ordered):
            raise InputError("a client is invited twice")
        return cls(len(ordered), _invited_digest(ordered), ordered)

    def summary(self) -> Invited:
        """The same set without its ids."""
        return Invited(self.count, self.digest)


def _invited_digest(ids: tuple[int, ...]) -> bytes:
    return digest("invited", u32(len(ids)), encode_ids(ids))


def _exclusions(evidence: Iterable[bytes]) -> bytes:
    hashes = [hashlib.sha256(each).digest() for each in evidence]
    return digest("excluded", u32(len(hashes)), *hashes)


NOBODY_EXCLUDED = _exclusions(())
"""Stands for the hash of the evidence where there is none."""


class Session(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Everything that is agreed before the first message. Its hash is ctx0.

    `Session.plan` fills in sound values; the fields are public for those who want others.

    Attributes:
        federation: name of the federation, at most 256 bytes.
        number: session number, from 1, only ever increasing.
        round: the application's round, from 1; 0 (default) if it does not number them. A client's counter
            lets one upload leave in a round, see `prism_crypto.keeping.session_counter`. The round is the
            server's word: an application joins only if it is the one for which its input was made.
        spec: what is summed.
        invited: who may take part. n, for the threshold and for the largest total, is their number.
        mode: against whom.
        threshold: t; in the complete graph of all holders, in a sparse graph among a client's neighbours
            (``"chosen"``: among those that it chose).
        min_survivors: the session opens no sum of fewer clients. On a sparse graph this is the server's word.
        min_cohort: honest clients in every opened sum, at least; in active mode, whatever the server does.
        colluders: clients that may collude with the server (and with one another) without harm.
        graph, degree: who masks with whom. ``"complete"``: everybody, the degree is n - 1; ``"harary"``: a
            ring that the server draws, semi-honest mode only; ``"chosen"``: each client chooses ``degree``
            others, active mode only.
        suite: how clients agree on keys. ``"x25519"``, or ``"x25519+ml-kem-768"``: so that recorded sessions
            stay closed when X25519 falls.
        roster_hash: `Roster.hash`, or `NO_ROSTER`.
        excluded: the evidence against clients that are left out, which every client of the session checks.
        exclusions: hash of that evidence.
        model_hash: hash of what was broadcast, *as this party itself loaded it*; at most 256 bytes.
        binding: whatever else the application wants all clients to agree on; at most 4096 bytes.
    """

    federation: str
    number: int
    round: int
    spec: CountSpec
    invited: Invited
    mode: Mode
    threshold: int
    min_survivors: int
    min_cohort: int
    colluders: int
    graph: GraphKind
    degree: int
    suite: Suite = "x25519"
    roster_hash: bytes = NO_ROSTER
    excluded: tuple[bytes, ...] = ()
    exclusions: bytes = NOBODY_EXCLUDED
    model_hash: bytes = b""
    binding: bytes = b""

    def __post_init__(self) -> None:
        coerce_mode(self)
        check_types(self, spec=CountSpec, invited=Invited, federation=str, graph=str, suite=str)
        check_types(self, excluded=tuple)
        check_types(self, **dict.fromkeys(("roster_hash", "exclusions", "model_hash", "binding"), bytes))
        numbers = ("number", "round", "threshold", "min_survivors", "min_cohort", "colluders", "degree")
        check_types(self, **dict.fromkeys(numbers, int))
        if self.graph not in get_args(GraphKind):
            raise InputError(f"graph must be one of {', '.join(get_args(GraphKind))}, not {self.graph!r}")
        if self.suite not in get_args(Suite):
            raise InputError(f"suite must be one of {', '.join(get_args(Suite))}, not {self.suite!r}")

    @classmethod
    def plan(
        cls,
        spec: CountSpec,
        invited: Iterable[int],
        *,
        federation: str,
        number: int,
        round: int = 0,
        mode: Mode | str = Mode.ACTIVE,
        threshold: int | None = None,
        min_survivors: int | None = None,
        min_cohort: int | None = None,
        colluders: int | None = None,
        graph: GraphKind | Literal["auto"] = "auto",
        dropout: float = 0.1,
        roster: Roster | None = None,
        suite: Suite = "x25519",
        excluded: Iterable[Blame] = (),
        model_hash: bytes = b"",
        binding: bytes = b"",
    ) -> Session:
        """Choose sound parameters for these clients.

        Args:
            spec: what is summed.
            invited: ids of the invited clients.
            federation, number, round, model_hash, binding: see the class.
            mode: ``"active"`` or ``"semi_honest"``.
            threshold: t; by default ⌊2n/3⌋+1 (active) or ⌊n/2⌋+1 (semi-honest), or more where ``colluders``
                asks for it; in a sparse graph what its degree asks for.
            min_survivors: by default t; in a sparse graph (1 - dropout)·n.
            min_cohort: by default min_survivors - colluders. On a chosen graph what the graph guarantees: all
                honest clients if nobody may drop out, else more than half of them; ask for more and each
                client has more neighbours.
            colluders: by default 0; in a sparse graph n/10.
            graph: by default complete; for more than 200 clients sparse: ``"harary"`` in semi-honest mode,
                ``"chosen"`` in active mode, unless a threshold is given or the complete graph is needed.
            dropout: sparse graph only: the share of clients that may be lost before the session is.
            roster: the pinned keys; needed in active mode.
            suite: how clients agree on keys: see the class. The hybrid one needs a `cryptography` that has
                ML-KEM, at every client and at the server.
            excluded: who broke the protocol in earlier sessions of this federation, as
                `SecureSumServer.blamed` has them. They are taken out of ``invited``, and the evidence goes
                with the offer: as many as it has room for, the smallest evidence first, and as
                ``min_survivors`` and ``min_cohort`` let go. These and ``colluders`` are what they are with
                nobody out, as policies and privacy accounts count on that. Who can't be left out is invited:
                see ``session.invited``.

        Raises:
            PolicyError: the parameters asked for are not sound together.
            InputError: one of them is out of its range.
        """
        ids = tuple(invited)

        def planned(
            out: tuple[Blame, ...], survivors: int | None, cohort: int | None, with_server: int | None
        ) -> Session:
            return cls._planned(
                Invited.of(client_id for client_id in ids if client_id not in {b.client_id for b in out}),
                _Wishes(mode, threshold, survivors, cohort, with_server, graph, dropout),
                federation=federation,
                number=number,
                round=round,
                spec=spec,
                suite=suite,
                roster_hash=NO_ROSTER if roster is None else roster.hash,
                excluded=tuple(b.evidence for b in sorted(out, key=attrgetter("client_id"))),
                model_hash=model_hash,
                binding=binding,
            )

        whole = session = planned((), min_survivors, min_cohort, colluders)
        blamed = {blame.client_id: blame for blame in excluded if blame.client_id in ids}
        gone: tuple[Blame, ...] = ()
        for blame in sorted(blamed.values(), key=lambda blame: (len(blame.evidence), blame.client_id)):
            with suppress(PolicyError, InputError):
                session = planned((*gone, blame), whole.min_survivors, whole.min_cohort, whole.colluders)
                gone += (blame,)
        return session

    @classmethod
    def _planned(
        cls, everyone: Invited, wishes: _Wishes, *, excluded: tuple[bytes, ...], **fields: Any
    ) -> Session:
        mode, threshold, min_survivors, min_cohort, colluders, graph, dropout = wishes
        n = everyone.count
        if mode not in list(Mode):
            raise InputError(f"mode must be one of {', '.join(Mode)}, not {mode!r}")
        mode = Mode(mode)
        if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise InputError(f"dropout is a share of the clients, 0 to below 1, not {dropout}")
        if colluders is not None and (not isinstance(colluders, int) or isinstance(colluders, bool)):
            raise InputError(f"colluders must be int, not {type(colluders).__name__}")
        wanted = (n, colluders, min_survivors, min_cohort, float(dropout))
        if graph == "auto":
            graph = _automatic_graph(mode, threshold, wanted)
        if graph == "harary":
            colluders, min_survivors, min_cohort, degree, least = _harary(*wanted)
        elif graph == "chosen":
            colluders, min_survivors, min_cohort, degree, least = _chosen(*wanted)
        else:
            colluders = colluders or 0
            degree = n - 1
            least = max(2 * n // 3, (n + colluders) // 2) if mode is Mode.ACTIVE else max(n // 2, colluders)
            least += 1
        threshold = least if threshold is None else threshold
        min_survivors = threshold if min_survivors is None else min_survivors
        session = cls(
            invited=everyone,
            mode=mode,
            threshold=threshold,
            min_survivors=min_survivors,
            min_cohort=min_survivors - colluders if min_cohort is None else min_cohort,
            colluders=colluders,
            graph=graph,
            degree=degree,
            excluded=excluded,
            exclusions=_exclusions(excluded),
            **fields,
        )
        session.check()
        return session

    def check(self) -> None:
        """Refuse parameters under which the protocol does not protect what it promises.

        Active mode: 2t > n + c, so that the signers of two different survivor sets would need an honest
        one among them to sign both (Bonawitz et al. 2017, theorem 6.5). Semi-honest mode: t > n/2 and t > c.
        Harary graph: the degree and threshold of `harary_degree` for c colluders and n - min_survivors lost.
        Chosen graph: degree and threshold must guarantee the cohort, see `guaranteed_cohort`, and the number
        is at most 2^42, as that counts on.

        Raises:
            PolicyError: naming the rule.
            InputError: a field is out of its range.
        """
        self._check_ranges()
        if self.hybrid:
            check_available()
        n, t, c = self.invited.count, self.threshold, self.colluders
        if self.mode is Mode.ACTIVE:
            if n < 3:
                raise PolicyError(f"active mode needs 3 clients, not {n}")
            if self.graph == "harary":
                raise PolicyError("active mode runs on a complete or a chosen graph, not on a Harary graph")
            if self.roster_hash == NO_ROSTER:
                raise PolicyError("active mode needs a roster")
            if self.graph == "complete" and 2 * t <= n + c:
                raise PolicyError(f"active mode needs 2t > n + c, not t={t} for n={n}, c={c}")
        if self.graph == "complete":
            if self.invited.ids is None:
                raise PolicyError("the complete graph needs the ids of the invited clients")
            if self.degree != n - 1:
                raise PolicyError(f"the complete graph of {n} clients has degree {n - 1}, not {self.degree}")
            if 2 * t <= n or t <= c:
                raise PolicyError(f"semi-honest mode needs t > n/2 and t > c, not t={t} for n={n}, c={c}")
        elif self.graph == "chosen":
            self._check_chosen()
        elif (self.degree, t) != (expected := _sparse(n, n - self.min_survivors, c)):
            raise PolicyError(
                f"a sparse graph of {n} clients that may lose {n - self.min_survivors} and has {c} colluders "
                f"needs degree {expected.degree} and threshold {expected.threshold}, "
                f"not {self.degree} and {t}"
            )
        if not 0 < self.min_cohort <= self.min_survivors - c:
            raise PolicyError(
                f"{self.min_survivors} survivors with {c} colluders guarantee a cohort of "
                f"{self.min_survivors - c}, not {self.min_cohort}"
            )

    def _check_chosen(self) -> None:
        n, t, c = self.invited.count, self.threshold, self.colluders
        if self.mode is not Mode.ACTIVE:
            raise PolicyError("a graph that clients choose is for active mode; semi-honest takes harary")
        if self.invited.ids is None:
            raise PolicyError("clients that choose their neighbours need the ids of the invited clients")
        if self.number > SESSIONS:
            raise PolicyError(f"sessions on a chosen graph have numbers up to 2^42, not {self.number}")
        if self.degree > MAX_DEGREE:  # before its cohort is computed, which takes the longer the larger it is
            raise PolicyError(f"each client chooses at most {MAX_DEGREE} neighbours, not {self.degree}")
        if self.min_cohort > (cohort := _cohort(n, c, self.degree, t)):
            raise PolicyError(
                f"{self.degree} choices of each of {n} clients, threshold {t} and {c} colluders guarantee a "
                f"cohort of {cohort}, not {self.min_cohort}"
            )

    def _check_ranges(self) -> None:
        n = self.invited.count
        if not 1 <= self.number <= MAX_SESSION:
            raise InputError(f"a session number is in 1..2^64-1, not {self.number}")
        if not 0 <= self.round < 2**64:
            raise InputError(f"a round is in 0..2^64-1, not {self.round}")
        if not 2 <= n <= MAX_CLIENT_ID:
            raise InputError(f"expected 2 to {MAX_CLIENT_ID} invited clients, not {n}")
        for name in ("threshold", "min_survivors", "min_cohort", "colluders"):
            if not 0 <= (value := getattr(self, name)) <= n:
                raise InputError(f"{name} must be in 0..{n}, not {value}")
        if not 0 < self.degree < n:
            raise InputError(f"degree must be in 1..{n - 1}, not {self.degree}")
        if len(self.federation.encode()) > _MAX_TEXT or len(self.model_hash) > _MAX_TEXT:
            raise InputError(f"federation and model_hash take at most {_MAX_TEXT} bytes")
        if len(self.binding) > _MAX_BINDING:
            raise InputError(f"binding takes at most {_MAX_BINDING} bytes")
        if self.exclusions != _exclusions(self.excluded):
            raise InputError("the evidence against excluded clients does not match its hash")
        if len(self.excluded) > _MAX_EXCLUDED or sum(map(len, self.excluded)) > _MAX_EVIDENCE:
            raise InputError(
                f"a session excludes at most {_MAX_EXCLUDED} clients, with {_MAX_EVIDENCE} bytes of evidence"
            )
        if self.excluded and self.mode is not Mode.ACTIVE:
            raise InputError("clients are excluded from active sessions only: elsewhere nothing is signed")
        if len(self.roster_hash) != DIGEST_BYTES:
            raise InputError(f"roster_hash must be {DIGEST_BYTES} bytes")
        ids = self.invited.ids
        if ids is not None and (len(ids) != n or self.invited.digest != Invited.of(ids).digest):
            raise InputError("the invited ids do not match their number and hash")
        if len(self.invited.digest) != DIGEST_BYTES:
            raise InputError(f"the hash of the invited set must be {DIGEST_BYTES} bytes")
        self.spec.largest_total(n)

    @cached_property
    def packing(self) -> Packing | PartedPacking:
        """How uploads of this session are packed."""
        if self.spec.parts is not msgspec.UNSET:
            return PartedPacking(self.spec.parts, self.invited.count)
        return Packing(self.spec.dimension, self.spec.largest_total(self.invited.count))

    @cached_property
    def everyone(self) -> frozenset[int]:
        """The invited ids, where they are known."""
        return frozenset(self.invited.ids or ())

    @property
    def hybrid(self) -> bool:
        """Whether keys rest on ML-KEM-768, too."""
        return self.suite == "x25519+ml-kem-768"

    @property
    def dealt_bytes(self) -> int:
        """What one client deals to another, without the id: sealed shares.

        In hybrid sessions what it encapsulates, too, and with `signs_records` its signature over both.
        """
        encapsulated = ENCAPSULATED_BYTES if self.hybrid else 0
        return SEALED_BYTES + encapsulated + (SIGNATURE_BYTES if self.signs_records else 0)

    @property
    def signs_records(self) -> bool:
        """Whether a client signs what it deals to each holder by itself, beside all of it together."""
        return self.hybrid and self.mode is Mode.ACTIVE

    @property
    def complaint_bytes(self) -> int:
        """What a client shows of a dealer whose shares do not open."""
        return PROOF_BYTES + (KEM_SECRET_BYTES if self.hybrid else 0)

    @property
    def quorum(self) -> int:
        """The fewest clients with which the session goes on: max(t, min_survivors)."""
        return max(self.threshold, self.min_survivors)

    @property
    def confirmations(self) -> int:
        """Complete graph: how many must sign U3 before a client helps to open: t; hybrid: the quorum.

        In a hybrid session a lying server can make clients stop, list them as survivors, and take their masks
        off. Whoever has signed has not stopped.
        """
        return self.quorum if self.hybrid else self.threshold

    @property
    def spare(self) -> int:
        """How many clients' shares may fail to open at one client before it stops: n - t, one at least.

        The sum needs t shares of each secret. In a session that can spare none, one that does not open loses
        the sum, but not the proof of whose fault it is.
        """
        return max(1, self.invited.count - self.threshold)

    @cached_property
    def context0(self) -> bytes:
        """ctx0: the hash of all fields."""
        spec = self.spec
        return digest(
            "context0",
            variable(self.federation.encode()),
            u64(self.number),
            u64(self.round),
            u64(spec.dimension),
            u64(spec.bound),
            u64(spec.largest_total(self.invited.count)),
            variable(spec.codec.encode()),
            variable(self.mode.value.encode()),
            u32(self.threshold),
            u32(self.min_survivors),
            u32(self.min_cohort),
            u32(self.colluders),
            variable(self.graph.encode()),
            u32(self.degree),
            variable(self.suite.encode()),
            self.roster_hash,
            u32(self.invited.count),
            self.invited.digest,
            self.exclusions,
            variable(self.model_hash),
            variable(self.binding),
            *(() if spec.parts is msgspec.UNSET else (variable(msgspec.msgpack.encode(spec.parts)),)),
        )

    def summary(self) -> Session:
        """The same session, with the hash of the evidence alone."""
        return msgspec.structs.replace(self, excluded=())

    def offer(self) -> bytes:
        """The bytes that invite a client, for a transport to carry.

        What the client must know by itself is not in them: the hash of the model that it loaded, and its own
        reading of ``binding``. In a Harary graph the ids of the others are not in them either.
        """
        invited = self.invited.summary() if self.graph == "harary" else self.invited
        bare = msgspec.structs.replace(self, invited=invited, model_hash=b"", binding=b"")
        return msgspec.msgpack.encode((_OFFER_VERSION, bare))

    @classmethod
    def from_offer(
        cls, data: bytes, *, model_hash: bytes = b"", binding: bytes = b"", max_clients: int = 100_000
    ) -> Session:
        """Read an `offer` and complete it with what this client itself has loaded.

        The result is no more than what the server said; `Policy.check`, which `SecureSumClient` calls
        before anything leaves, decides whether it is good enough.

        Raises:
            MessageError: not an offer of this version, or one for more than ``max_clients`` clients.
        """
        if len(data) > 4096 + 5 * max_clients + _MAX_EVIDENCE:
            raise MessageError(f"an offer of {len(data)} bytes is too long for {max_clients} clients")
        session = None
        try:
            version, session = _OFFERS.decode(data)
        except (msgspec.MsgspecError, InputError, ValueError, RecursionError):
            version = None
        if session is None or msgspec.msgpack.encode((version, session)) != data:
            raise MessageError("not the canonical encoding of an offer")
        if version != _OFFER_VERSION:
            raise MessageError(f"expected an offer of version {_OFFER_VERSION}, not {version}")
        if session.invited.count > max_clients:
            raise MessageError(
                f"an offer for {session.invited.count} clients; at most {max_clients} are expected"
            )
        return msgspec.structs.replace(session, model_hash=model_hash, binding=binding)


_OFFERS = msgspec.msgpack.Decoder(tuple[int, Session])

_Wanted: TypeAlias = tuple[int, int | None, int | None, int | None, float]
"""n, colluders, min_survivors, min_cohort and dropout, as `Session.plan` was asked for them."""


def chosen_cohort(n: int, *, colluders: int, min_survivors: int) -> int:
    """The cohort of an active session of n clients on the chosen graph that `Session.plan` takes for it.

    Returns:
        Honest clients in every sum that a lying server opens; 0 where the complete graph is taken.
    """
    wanted = (n, colluders, min_survivors, None, 0.0)
    try:
        return _chosen(*wanted)[2] if _automatic_graph(Mode.ACTIVE, None, wanted) == "chosen" else 0
    except InputError:
        return 0


def _automatic_graph(mode: Mode, threshold: int | None, wanted: _Wanted) -> GraphKind:
    n = wanted[0]
    if n <= COMPLETE_LIMIT:
        return "complete"
    if mode is Mode.SEMI_HONEST:
        return "harary"
    # The complete graph bears all that a chosen one does: the way out where that can't, or is no cheaper.
    if threshold is None:
        with suppress(PolicyError):
            degree = _chosen(*wanted)[3]
            return "chosen" if 2 * degree < n - 1 else "complete"
    return "complete"


def _counts(n: int, colluders: int | None, min_survivors: int | None, dropout: float) -> tuple[int, int]:
    """Colluders and survivors on a sparse graph, where nothing else was asked for."""
    colluders = n // 10 if colluders is None else colluders
    # 0.29 * 100 is 28.999999999999996, yet 29 clients are meant.
    min_survivors = n - int(dropout * n + 1e-9) if min_survivors is None else min_survivors
    if not (0 <= colluders < n and 0 < min_survivors <= n):
        raise InputError(f"colluders {colluders} or min_survivors {min_survivors} out of 0..{n}")
    return colluders, min_survivors


def _harary(
    n: int, colluders: int | None, min_survivors: int | None, min_cohort: int | None, dropout: float
) -> tuple[int, int, int | None, int, int]:
    colluders, min_survivors = _counts(n, colluders, min_survivors, dropout)
    return colluders, min_survivors, min_cohort, *_sparse(n, n - min_survivors, colluders)


@lru_cache(maxsize=256)
def _chosen(
    n: int, colluders: int | None, min_survivors: int | None, min_cohort: int | None, dropout: float
) -> tuple[int, int, int, int, int]:
    colluders, min_survivors = _counts(n, colluders, min_survivors, dropout)
    # Where nobody may drop out, every honest client can be in each sum, and should.
    cohort = n - colluders if min_cohort is None and min_survivors == n else min_cohort
    try:
        found = chosen_parameters(n, gone=n - min_survivors, corrupt=colluders, cohort=cohort)
    except InputError as error:
        raise PolicyError(f"no chosen graph: {error.message}") from None
    min_cohort = min(found.cohort, min_survivors - colluders) if min_cohort is None else min_cohort
    return colluders, min_survivors, min_cohort, found.degree, found.threshold


@lru_cache(maxsize=256)
def _cohort(n: int, colluders: int, degree: int, threshold: int) -> int:
    return guaranteed_cohort(n, colluders, degree, threshold)


@lru_cache(maxsize=256)
def _sparse(n: int, gone: int, colluders: int) -> GraphParameters:
    # One colluder at least: with none the threshold would be 1, and a single neighbour's share a secret.
    try:
        return harary_degree(n, dropout=gone / n, colluding=max(colluders, 1) / n)
    except InputError as error:
        raise PolicyError(f"no sparse graph: {error.message}") from None
