"""What one client demands of a session before it says a word.

The policy is the client's own and stays with it. It is checked at advertise and not later, because once an
upload has left, t others can open the sum without its sender.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec

from prism_crypto.errors import EvidenceError, IdentityError, InputError, PolicyError
from prism_crypto.keeping.guarded_file import PUBLIC, read_json, write_new
from prism_crypto.keeping.identity import Roster, pinned
from prism_crypto.session import Session, Suite
from prism_crypto.spec import check_types, coerce_mode
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.evidence import verify_evidence

__all__ = ["Policy"]

_FORMAT = "prism-crypto/v2/policy"


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The least that a client accepts; a session may offer more.

    Args:
        min_survivors: fewest clients whose sum it lets open, itself included; 2 or more. On a chosen
            graph nobody sees all survivors: there these, less the colluders, must be in the session's cohort.
        min_cohort: fewest honest clients among them, itself included. A privacy accountant's cohort is this
            number, so the cohort that an ε assumes is enforced by every honest client.
        colluders: how many clients it assumes to collude with the server.
        threshold: least threshold t; 0 leaves it to the mode's own rule, which always holds.
        mode: the weakest mode it takes part in. ``ACTIVE`` (default) refuses semi-honest sessions.
        numbered_rounds: refuse sessions of round 0, in which nothing keeps one input out of two sums.
        suite: ``"x25519+ml-kem-768"`` refuses sessions whose keys rest on X25519 alone; ``"x25519"`` takes
            both.

    Raises:
        InputError: the numbers contradict one another.

    >>> Policy(min_survivors=8, colluders=2, min_cohort=6)
    Policy(min_survivors=8, min_cohort=6, colluders=2, threshold=0, mode=<Mode.ACTIVE: 'active'>, \
numbered_rounds=False, suite='x25519')
    """

    min_survivors: int
    min_cohort: int = 1
    colluders: int = 0
    threshold: int = 0
    mode: Mode = Mode.ACTIVE
    numbered_rounds: bool = False
    suite: Suite = "x25519"

    def __post_init__(self) -> None:
        coerce_mode(self)
        check_types(self, min_survivors=int, min_cohort=int, colluders=int, threshold=int)
        check_types(self, numbered_rounds=bool, suite=str)
        if self.suite not in get_args(Suite):
            raise InputError(f"suite must be one of {', '.join(get_args(Suite))}, not {self.suite!r}")
        if self.min_survivors < 2:
            raise InputError(f"min_survivors must be at least 2, not {self.min_survivors}")
        if self.colluders < 0 or self.threshold < 0:
            raise InputError("colluders and threshold can't be negative")
        if not self.min_cohort >= 1:
            raise InputError(f"min_cohort must be at least 1, not {self.min_cohort}")

    def check(self, session: Session, client_id: int, roster: Roster | None) -> None:
        """Refuse a session that is unsound or below this policy.

        Args:
            session: what the server offers, completed with what this client loaded itself.
            client_id: this client.
            roster: the roster pinned by this client; None only where semi-honest sessions may do without.

        Raises:
            PolicyError: saying what is demanded and what was offered.
        """
        # This client's own demands first: they are quick to compare; whether a sparse graph is sound is not.
        problem = self._shortfall(session, client_id, roster)
        if not problem:
            try:
                session.check()
                problem = self._unproved(session, roster)
            except (PolicyError, InputError) as error:
                problem = error.message
        if problem:
            raise PolicyError(problem, stage=Stage.ADVERTISE)

    def _shortfall(self, session: Session, client_id: int, roster: Roster | None) -> str:
        if self.mode is Mode.ACTIVE and session.mode is not Mode.ACTIVE:
            return f"this client takes part in active sessions only, not in a {session.mode.value} one"
        for name in ("min_survivors", "min_cohort", "colluders", "threshold"):
            demanded, offered = getattr(self, name), getattr(session, name)
            if offered < demanded:
                return f"this client demands {name} of at least {demanded}, the session has {offered}"
        if self.suite not in ("x25519", session.suite):
            return f"this client demands keys of {self.suite}, the session has {session.suite}"
        if self.numbered_rounds and not session.round:
            return "this client takes part in numbered rounds only, the session has round 0"
        honest = self.min_survivors - session.colluders
        if session.graph == "chosen" and session.min_cohort < honest:
            return (
                f"this client demands {self.min_survivors} survivors, {session.colluders} of them colluders: "
                f"on a chosen graph a cohort of {honest}; this session has {session.min_cohort}"
            )
        if session.mode is Mode.ACTIVE and roster is None:
            return "this client has no pinned roster for an active session"
        if roster is not None and session.roster_hash != roster.hash:
            return "the session's roster is not the one that this client has pinned"
        ids = session.invited.ids
        if ids is not None:
            if client_id not in ids:
                return "this client is not among the invited"
            if (
                roster is not None
                and (unknown := next((i for i in ids if i not in roster), None)) is not None
            ):
                return f"client {unknown} is invited but not in the pinned roster"
        return ""

    @staticmethod
    def _unproved(session: Session, roster: Roster | None) -> str:
        """Whether somebody is excluded without proof; what each piece proves is worked out once."""
        accused: set[int] = set()
        for evidence in session.excluded:
            try:
                blame = verify_evidence(evidence, pinned(roster))
            except EvidenceError as error:
                return f"a client is excluded, and {error.message}"
            if blame.federation != session.federation or blame.client_id in (session.invited.ids or ()):
                return (
                    f"client {blame.client_id} is excluded for what it did in another federation, or invited"
                )
            if blame.client_id in accused:
                return f"client {blame.client_id} is excluded twice"
            accused.add(blame.client_id)
        return ""

    def save(self, path: str | Path) -> None:
        """Write the policy to a new JSON file (mode 0644).

        Raises:
            IdentityError: the file exists already or can't be written.
        """
        fields = {"format": _FORMAT, **msgspec.to_builtins(self)}
        write_new(Path(path), msgspec.json.format(msgspec.json.encode(fields)).decode(), PUBLIC)

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Read what `save` wrote.

        Raises:
            IdentityError: no such file; not this user's or root's; writable by others; unknown keys; or
                numbers that make no policy.
        """
        fields = read_json(Path(path), PUBLIC)
        if not isinstance(fields, dict) or fields.pop("format", None) != _FORMAT:
            raise IdentityError(f"{path} is no policy file of format {_FORMAT}")
        try:
            return msgspec.convert(fields, Policy)
        except (msgspec.ValidationError, InputError) as error:
            raise IdentityError(f"{path} holds no policy: {error}") from None


msgspec.json.Decoder(Policy)  # prepared at import: not by two threads at once
