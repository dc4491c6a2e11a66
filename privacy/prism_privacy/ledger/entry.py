"""What one line of a privacy ledger says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, Protocol, Self, get_args

from prism_privacy import _validate, notebook
from prism_privacy.accounting.accountant import Guarantee, guarantee_of
from prism_privacy.errors import InvalidParameter, UnsoundComposition
from prism_privacy.ledger.line import CHAIN_FIELDS
from prism_privacy.masks.release import MaskRelease
from prism_privacy.measured.release import MeasuredRelease
from prism_privacy.moments.release import ADJACENCY_WORDS, MomentRelease, RecordAdjacency
from prism_privacy.units import Adjacency, Unit, View
from prism_privacy.wording import format_delta, format_epsilon

Kind = Literal["round", "aborted", "moments", "end"]
Coins = Literal["secret", "test"]
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

UNIT_WORDS: dict[Unit, str] = {
    Unit.CLIENT: "everything that one client contributes, in all rounds it takes part in",
    Unit.RECORD: "one record (one image) of one client, in everything that is ever computed from it",
}
PERSON_WORDS = UNIT_WORDS[Unit.RECORD].replace("one image", "all images of one person")
"""Of a record, where one is a person."""


@dataclass(frozen=True)
class Spent:
    """Epsilons of one view and one adjacency. They answer different questions and are never mixed up.

    Attributes:
        round: what this release costs alone.
        to_date: what all releases so far cost together, this one included. It is a record of the past;
            where the number of rounds is chosen by looking at results it is not a guarantee.
        planned: the guarantee of the plan that was fixed before the first round; None without a plan.
        budget: the guarantee a filter enforces; None without a filter.
        bound: which of the valid bounds was the smallest and gave ``to_date``; None if not said.
        added: what this release costs on top of those before it, where that is less than ``round``: 0 for
            post-processing of what was released before; None if not said.
    """

    round: float
    to_date: float
    planned: float | None = None
    budget: float | None = None
    bound: str | None = None
    added: float | None = None

    def __post_init__(self) -> None:
        for name in ("round", "to_date", "planned", "budget", "added"):
            value = getattr(self, name)
            if value is None and name in ("planned", "budget", "added"):
                continue
            if _validate.real(name, value) < 0:
                raise InvalidParameter(f"an epsilon ({name}) cannot be negative, got {value!r}")
            object.__setattr__(self, name, float(value))
        if self.added is not None and self.added > self.round:
            raise InvalidParameter(
                f"a release adds at most what it costs alone: expected added <= {self.round:g}, "
                f"got {self.added:g}"
            )
        if self.bound is not None and not isinstance(self.bound, str):
            raise InvalidParameter(f"bound must be a word, got {self.bound!r}")


EpsilonTable = Mapping[tuple[View, Adjacency], Spent]


class Account(Protocol):
    """What says how much was spent: an :class:`Accountant` of one client, or one for the largest of many."""

    @property
    def delta(self) -> float: ...
    def guarantee(self, view: View, adjacency: Adjacency) -> Guarantee: ...
    def planned(self, view: View, adjacency: Adjacency) -> Guarantee: ...


def spent_cell(accountant: Account, release: MaskRelease, view: View, adjacency: Adjacency) -> Spent:
    """What ``release``, already spent on ``accountant``, cost in one view under one adjacency.

    ``planned`` is None where nothing was planned, and where more was spent than planned, so that no planned
    guarantee holds any more.
    """
    to_date = accountant.guarantee(view, adjacency)
    try:
        planned = accountant.planned(view, adjacency).epsilon
    except UnsoundComposition:
        planned = None
    return Spent(
        round=guarantee_of({release: 1}, accountant.delta, view, adjacency).epsilon,
        to_date=to_date.epsilon,
        planned=planned,
        bound=to_date.bound,
    )


def _guaranteed(cell: Spent) -> float:
    return cell.to_date if cell.planned is None else cell.planned


@dataclass(frozen=True)
class RecordGuarantee:
    """The record-level guarantee that stands beside the client-level one.

    Attributes:
        adjacency: ``"swap"`` or ``"add_remove"``.
        epsilon: of everything that is ever released of one record, fixed when it was released. A record is
            in one client's release, so over clients this is the largest; but two releases *of the same
            records* add up: add their epsilons and their deltas here. A ledger holds one such guarantee, or
            one that grows.
        delta: its delta.
        release: the parameters of the release, JSON-safe.
        view: whom it holds against. ``SUM``: an observer of the opened sum over all clients. ``UPLOAD``: one
            of all that leaves the record's client. None in lines that do not say (written before this field).
        cohort: under ``SUM``, how many honest clients' noise it counts on; None where it counts on nobody's.
        spent: of measured rounds, whose bits cost a record something each time: by view, what this round
            costs, all rounds to date, and the plan. ``epsilon`` is then the planned one against an
            observer of the sums (to date, where nothing was planned). None for a release made once.
    """

    adjacency: str
    epsilon: float
    delta: float
    release: Mapping[str, Json]
    view: View | None = None
    cohort: int | None = None
    spent: Mapping[View, Spent] | None = None

    def __post_init__(self) -> None:
        if self.adjacency not in ADJACENCY_WORDS:
            raise InvalidParameter(
                f"record adjacency must be one of {', '.join(ADJACENCY_WORDS)}, got {self.adjacency!r}"
            )
        epsilon = _validate.real("record epsilon", self.epsilon)
        if epsilon < 0:
            raise InvalidParameter(f"record epsilon cannot be negative, got {self.epsilon!r}")
        object.__setattr__(self, "epsilon", epsilon)
        object.__setattr__(self, "delta", _validate.delta(self.delta))
        if not isinstance(self.release, Mapping):
            raise InvalidParameter("record release must be an object")
        if self.view is not None:
            object.__setattr__(self, "view", _validate.member("record view", View, self.view))
        if self.cohort is not None:
            object.__setattr__(self, "cohort", _validate.count("record cohort", self.cohort))
        if (self.view is View.SUM) != (self.cohort is not None):
            raise InvalidParameter(
                "a record guarantee names a cohort if and only if its view is the sum, got "
                f"view {self.view!r} and cohort {self.cohort!r}"
            )
        if self.spent is not None:
            self._check_spent(self.spent)

    def _check_spent(self, spent: Mapping[View, Spent]) -> None:
        if set(spent) != set(View) or not all(isinstance(cell, Spent) for cell in spent.values()):
            raise InvalidParameter("what measured rounds cost a record needs a Spent for both views")
        if self.view is not View.SUM:
            raise InvalidParameter(f"the view of what measured rounds cost is the sum, got {self.view!r}")
        for cell in spent.values():
            if cell.planned is not None and cell.planned < cell.to_date * (1.0 - 1e-9):
                raise InvalidParameter(
                    f"a record's epsilon to date, {cell.to_date:g}, is above the planned one, "
                    f"{cell.planned:g}"
                )
        if self.epsilon != _guaranteed(spent[View.SUM]):
            raise InvalidParameter(
                "a record's epsilon is what was planned against an observer of the sums, or to date without "
                f"a plan: {_guaranteed(spent[View.SUM])}, got {self.epsilon}"
            )

    @classmethod
    def measured(
        cls, release: MeasuredRelease, accountant: Account, adjacency: RecordAdjacency = "swap"
    ) -> Self:
        """What one record has spent after a measured round.

        Args:
            release: the round's.
            accountant: of one record: ``release.release(Unit.RECORD, adjacency)`` of every round was spent on
                it, this one's last.
            adjacency: the one that they were made for.

        >>> from prism_privacy import Accountant
        >>> accountant = Accountant(delta=1e-5)
        >>> release = MeasuredRelease(flip=0.25, clip=1.0, client_clip=0.1, record_clip=0.3, records=10,
        ...                           coordinates=1024, directions=64, cohort=1000)
        >>> accountant.plan(release.release(Unit.RECORD), rounds=20)
        >>> accountant.spend(release.release(Unit.RECORD))
        >>> found = RecordGuarantee.measured(release, accountant)
        >>> found.spent[View.SUM].to_date < found.epsilon == found.spent[View.SUM].planned
        True
        """
        alone = release.release(Unit.RECORD, adjacency)
        spent = {view: spent_cell(accountant, alone, view, Adjacency.ZERO_OUT) for view in View}
        return cls(
            adjacency=adjacency,
            epsilon=_guaranteed(spent[View.SUM]),
            delta=accountant.delta,
            release=release.as_dict(),
            view=View.SUM,
            cohort=release.cohort,
            spent=spent,
        )

    def _repr_html_(self) -> str:
        """For notebooks."""
        rows = [("ε", format_epsilon(self.epsilon)), ("δ", format_delta(self.delta))]
        if self.view is not None:
            rows.append(("against", f"{self.view}" + (f", {self.cohort} honest" if self.cohort else "")))
        return notebook.table(f"one record, {self.adjacency}", rows)

    def to_json(self) -> dict[str, Json]:
        """As the ledger writes it; a release that is made once says nothing of rounds."""
        fields = asdict(self)
        if self.spent is None:
            del fields["spent"]
        found: dict[str, Json] = json_safe(fields, "record")
        return found

    @classmethod
    def of(cls, release: MomentRelease, delta: float) -> Self:
        """The guarantee of a moment release.

        >>> RecordGuarantee.of(MomentRelease(records=1000, norm=1.0, sigma=0.01), 1e-5).adjacency
        'swap'
        """
        return cls(release.adjacency, release.epsilon(delta), delta, release.as_dict())


@dataclass(frozen=True)
class LedgerEntry:
    """One release, as the ledger keeps it.

    Attributes:
        kind: ``"round"``; ``"aborted"``: a session that did not open, charged all the same; ``"moments"``:
            the record-level release made before any round; ``"end"``: the run is over.
        round: the round's number; rounds count 1, 2, 3, … without a gap.
        release: the parameters of the release, as its ``as_dict()`` gives them.
        cohort: honest clients that the opened sum was guaranteed to hold, the target included.
        colluders: clients assumed to side with the server.
        delta: the delta of every client-level epsilon in this line.
        coins: ``"test"`` if anybody could know the coins; then no epsilon is claimed.
        epsilon: both views and both adjacencies, or None: nothing is claimed.
        record: the record-level guarantee, or None where there is none. Of measured rounds, what they have
            spent so far.
        metrics: whatever was measured, JSON-safe.
        warnings: what a reader must know before quoting the line.
    """

    kind: Kind
    round: int
    release: Mapping[str, Json]
    cohort: int
    colluders: int
    delta: float
    coins: Coins
    epsilon: EpsilonTable | None
    record: RecordGuarantee | None
    metrics: Mapping[str, Json]
    warnings: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InvalidParameter(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.coins not in get_args(Coins):
            raise InvalidParameter(f"coins must be 'secret' or 'test', got {self.coins!r}")
        # canonical types, so that what was written and what is read back are equal
        object.__setattr__(self, "round", _validate.count("round", self.round, least=0))
        object.__setattr__(self, "cohort", _validate.count("cohort", self.cohort))
        object.__setattr__(self, "colluders", _validate.count("colluders", self.colluders, least=0))
        object.__setattr__(self, "delta", _validate.delta(self.delta))
        if self.coins == "test" and self.epsilon is not None:
            raise InvalidParameter(
                "test coins are known to others: an entry with coins='test' has epsilon=None"
            )
        if self.epsilon is not None:
            cells = {(view, adjacency) for view in View for adjacency in Adjacency}
            if set(self.epsilon) != cells:
                raise InvalidParameter("epsilon needs an entry for both views under both adjacencies")
            if not all(isinstance(spent, Spent) for spent in self.epsilon.values()):
                raise InvalidParameter("epsilon must map (View, Adjacency) to Spent")
        if self.record is not None and not isinstance(self.record, RecordGuarantee):
            raise InvalidParameter(f"record must be a RecordGuarantee, got {type(self.record).__name__}")

    def spent(self, view: View | str, adjacency: Adjacency | str) -> Spent:
        """What this line charged in one view under one adjacency; infinite where it claims nothing."""
        cell = _validate.view_and_adjacency(view, adjacency)
        return Spent(math.inf, math.inf) if self.epsilon is None else self.epsilon[cell]

    @property
    def invited(self) -> tuple[int, ...]:
        """Whose round it is, where the metrics say that it is not everybody's; else nobody in particular."""
        found = self.metrics.get("invited")
        clients = [client for client in found if type(client) is int] if isinstance(found, list) else []
        return tuple(dict.fromkeys(clients)) if clients == found else ()

    def to_json(self) -> dict[str, Json]:
        """The entry as JSON-safe values; infinities are the word ``"inf"``."""
        table: dict[str, Json] | None = None
        if self.epsilon is not None:
            table = {
                view.value: {a.value: json_safe(asdict(self.epsilon[view, a]), "epsilon") for a in Adjacency}
                for view in View
            }
        return {
            "kind": self.kind,
            "round": self.round,
            "release": json_safe(self.release, "release"),
            "cohort": self.cohort,
            "colluders": self.colluders,
            "delta": self.delta,
            "coins": self.coins,
            "epsilon": table,
            "record": None if self.record is None else self.record.to_json(),
            "metrics": json_safe(self.metrics, "metrics", nan=True),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_line(cls, body: Mapping[str, Any]) -> Self:
        """The entry in the body of a ledger's line, whose other fields chain the lines.

        Raises:
            InvalidParameter: see :meth:`from_json`.
        """
        return cls.from_json({name: value for name, value in body.items() if name not in CHAIN_FIELDS})

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            InvalidParameter: a field is missing, unknown, or not what the schema says.
        """
        names = {field.name for field in fields(cls)}
        if set(body) != names:
            odd = sorted(set(body) ^ names)
            raise InvalidParameter(f"fields missing or unknown: {', '.join(odd)}")
        values = dict(body)
        try:
            table = values["epsilon"]
            if table is not None:
                values["epsilon"] = {
                    (View(v), Adjacency(a)): Spent(**from_json_safe(spent))
                    for v, row in table.items()
                    for a, spent in row.items()
                }
            if values["record"] is not None:
                record = dict(values["record"])
                if (spent := record.get("spent")) is not None:
                    record["spent"] = {
                        View(view): Spent(**from_json_safe(cell)) for view, cell in spent.items()
                    }
                values["record"] = RecordGuarantee(**record | {"epsilon": from_json_safe(record["epsilon"])})
            for name in ("release", "metrics"):
                if not isinstance(values[name], dict):
                    raise InvalidParameter(f"{name} must be an object")
            values["warnings"] = tuple(str(word) for word in values["warnings"])
            return cls(**values)
        except InvalidParameter:
            raise
        except (TypeError, ValueError, KeyError, AttributeError) as cause:
            raise InvalidParameter(f"not an entry: {cause}") from None


def delta_warnings(delta: float, clients: int | None, records: int | None) -> tuple[str, ...]:
    """Words for a delta at which the guarantee allows giving somebody away altogether.

    >>> delta_warnings(1e-5, clients=10, records=1000)
    ()
    >>> delta_warnings(0.1, clients=10, records=None)
    ('delta 0.1 is not below 1/clients = 0.1: publishing one whole client at random would satisfy it',)
    """
    words = []
    for number, names, one in ((clients, "clients", "client"), (records, "records", "record")):
        if number is not None and delta >= 1.0 / number:
            words.append(
                f"delta {delta:g} is not below 1/{names} = {1.0 / number:g}: "
                f"publishing one whole {one} at random would satisfy it"
            )
    return tuple(words)


def json_safe(value: Any, name: str = "value", *, nan: bool = False) -> Any:
    """``value`` as JSON types: infinities become ``"inf"``/``"-inf"``; NaN ``"nan"``, if ``nan`` allows it.

    Raises:
        InvalidParameter: something that has no JSON form, naming its place.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidParameter(f"{name}: keys must be strings, got {key!r}")
        return {str(key): json_safe(inner, f"{name}.{key}", nan=nan) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [json_safe(inner, f"{name}[{i}]", nan=nan) for i, inner in enumerate(value)]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # NumPy and torch scalars
        value = value.item()
        if isinstance(value, bool):
            return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isnan(value) and not nan:
            raise InvalidParameter(f"{name} is NaN")
        return (
            float(value) if math.isfinite(value) else {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan")
        )
    raise InvalidParameter(f"{name} has no JSON form: {type(value).__name__}")


_NUMBER_WORDS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def from_json_safe(value: Any) -> Any:
    """The inverse of :func:`json_safe` for what holds numbers, at any depth: such a word in a text is one.

    >>> from_json_safe({"epsilon": ["inf", 1.0, "-inf"], "unit": "client"})
    {'epsilon': [inf, 1.0, -inf], 'unit': 'client'}
    """
    if isinstance(value, Mapping):
        return {key: from_json_safe(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [from_json_safe(inner) for inner in value]
    return _NUMBER_WORDS.get(value, value) if isinstance(value, str) else value
