"""What a recipe will spend, before anything has left a client: how many rounds, and what they cost at most.

Rounds are alike, so the largest epsilon is that of the client that is in most of them; with everybody in
every round it is each client's. Measured rounds differ, so each client's rounds are added up, and the largest
epsilon counts (`prism_secure.accounting.largest`). A budget shortens the plan before the first round: nothing
that is measured on the way decides when to stop, and so the planned epsilon is a guarantee.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from prism_privacy import (
    Accountant,
    Adjacency,
    MaskRelease,
    MeasuredRelease,
    PrivacyError,
    Unit,
    View,
    calibrate,
)
from prism_secure.accounting.clip_rules import rounded_down
from prism_secure.accounting.epsilons import CELLS, Cell
from prism_secure.accounting.largest import LargestAccount
from prism_secure.accounting.measured import releases
from prism_secure.accounting.record_release import RecordRelease
from prism_secure.config import Config, config_of
from prism_secure.config.invitations import invited, most_participations
from prism_secure.config.sections import Budget, Features, Federation, Mask, Training
from prism_secure.errors import ConfigError
from prism_secure.wording import a_record, format_delta, format_epsilon


class Plan:
    """The rounds that a configuration comes to, and their cost.

    Args:
        config: the configuration.
        dimension: d, the length of a mask.
        moments: the record-level release that clients train from, or None.
        sizes: images of each client, by the public partition; None where nobody says. For measured rounds.
        persons: how many persons each has, with `data.person`; None where nobody says.

    Attributes:
        mask: what a client releases in a round; of measured rounds, in the first.
        measured: what measured rounds release, in order; empty where clients train.
        rounds: how many there will be.
        most: the most of them that one client is in.
        summed: the record-level release where it is opened over all clients, else None.

    Raises:
        ConfigError: the budget does not admit a single round.
    """

    def __init__(
        self,
        config: Config,
        dimension: int,
        moments: RecordRelease | None = None,
        *,
        sizes: Sequence[int] | None = None,
        persons: Sequence[int] | None = None,
    ) -> None:
        privacy = config.privacy
        self.measured = releases(config, dimension, sizes, persons) if config.measures else ()
        self.mask = (
            self.measured[0].release(Unit.CLIENT)
            if self.measured
            else MaskRelease(
                flip=privacy.flip,
                clip=privacy.clip,
                space=privacy.clip_space,
                cohort=config.cohort,
                dim=dimension,
                sum_failure=config.sum_failure,
            )
        )
        self._config = config
        self.summed = moments if moments is not None and moments.summed else None
        self._images = None if moments is None else max(moments.sizes)
        self.rounds = self._admitted()
        self.most = most_participations(config, self.rounds)

    def epsilon(self, view: View, adjacency: Adjacency) -> float:
        """For everything one client contributes, over all planned rounds."""
        return self._cost(self.rounds, view, adjacency)

    def image_epsilon(self, view: View) -> float:
        """For one image that is replaced by any other, over all planned measured rounds; infinite where
        clients train."""
        return self._image_cost(self.rounds, view) if self.measured else math.inf

    def release(self, round_number: int) -> MaskRelease | MeasuredRelease:
        """What a client releases in a round, counted from 1, as the ledger writes it."""
        return self.measured[round_number - 1] if self.measured else self.mask

    def account(self, unit: Unit, rounds: int | None = None) -> LargestAccount:
        """What measured rounds release of clients or of one image of each: of the first ones, or of all."""
        found = LargestAccount(self.delta)
        for number, release in enumerate(self.measured[: self.rounds if rounds is None else rounds], 1):
            found.spend(release.release(unit), self.present(number))
        return found

    def present(self, round_number: int) -> Sequence[Hashable]:
        """Whose accounts a round is on: those of the invited; one for all, where all are in every round."""
        if self._config.everybody:
            return ("every client",)
        return invited(self._config, round_number)

    @property
    def delta(self) -> float:
        """Of every epsilon."""
        return self._config.privacy.delta

    @property
    def unbounded(self) -> tuple[Unbounded, ...]:
        """Each epsilon that is infinite, with its cause and what would make it finite."""
        return () if self.measured else why_infinite(self._config, self.mask.dim, self._images)

    def _admitted(self) -> int:
        """The most rounds, up to the configured number, that are within the budget."""
        wanted = self._config.federation.rounds
        if self._within(wanted):
            return wanted
        if not self._within(1):
            raise ConfigError(self._refused_measured() if self.measured else self._refusal())
        admitted, refused = 1, wanted
        while refused - admitted > 1:
            middle = (admitted + refused) // 2
            admitted, refused = (middle, refused) if self._within(middle) else (admitted, middle)
        return admitted

    def _within(self, rounds: int) -> bool:
        """Whether epsilon(SUM) of a client that is left out, and of an image, is in budget."""
        budget = self._config.budget
        client, image = budget.epsilon, budget.image_epsilon
        return (client is None or self._cost(rounds) <= client) and (
            image is None or self._image_cost(rounds) <= image
        )

    def _refused_measured(self) -> str:
        """Why a budget admits not even the first measured round, and what would."""
        budget, parts = self._config.budget, []
        for name, limit, cost in (
            ("budget.epsilon", budget.epsilon, self._cost(1)),
            ("budget.image_epsilon", budget.image_epsilon, self._image_cost(1)),
        ):
            if limit is not None and cost > limit:
                whose = "a client" if name == "budget.epsilon" else a_record(self._config.record)
                parts.append(
                    f"{name} = {limit:g} admits no round: the first costs {whose} ε(SUM) = "
                    f"{format_epsilon(cost)}"
                )
        return (
            f"{' and '.join(parts)} at δ = {format_delta(self._config.privacy.delta)}; a smaller "
            "measured.first_round or measured.epsilon makes it cost less"
        )

    def _refusal(self) -> str:
        """Why a budget admits no round, and which settings would keep all rounds in it: each was tried."""
        limit, least = self._config.budget.epsilon, self._cost(1)
        assert limit is not None
        text = (
            f"budget.epsilon = {limit:g} admits no round: one costs ε(SUM) = {format_epsilon(least)} at "
            f"δ = {format_delta(self._config.privacy.delta)}"
        )
        if math.isinf(least):
            text += f", because {_cause(self._config, self._images, View.SUM)}"
        elif self.summed is not None:
            text += ", all of it for the sum of noisy moments that opens before round 1"
        before, tried = epsilons_of(self._config, {}, self.mask.dim, self._images), list[str]()
        for settings in sorted(self._cheaper(limit), key=len):
            figures = epsilons_of(self._config, settings, self.mask.dim, self._images)
            cost = figures.get((View.SUM, Adjacency.ZERO_OUT), math.inf)
            if cost <= limit:
                keep = "keeps" if len(settings) == 1 else "keep"
                all_rounds = _rounds(self._config.federation.rounds)
                tried.append(
                    f"{_as_set(settings)} {keep} {all_rounds} at {format_epsilon(cost)}"
                    + _told(_harmed(before, figures))
                )
        return (
            f"{text}; {', or '.join(tried) or 'no clip, flip or record_epsilon that was tried is within it'}"
        )

    def _cheaper(self, limit: float) -> list[dict[str, Any]]:
        """Settings that may keep all rounds in a budget, and loosen neither clip nor flip."""
        config, masks = self._config, dict[str, Any]()
        if self.summed is not None:
            masks["privacy.record_release"] = "client"
        if config.mask.score_layers:
            masks["mask.score_layers"] = 0.0
        flip = masks if config.privacy.flip else masks | {"privacy.flip": _DEFAULT.privacy.flip}
        clip = self._calibrated(limit, flip=flip.get("privacy.flip", config.privacy.flip))
        if config.privacy.clip is None:
            found = [flip | {"privacy.clip": clip}]
        elif clip is not None and clip >= config.privacy.clip:
            found = [flip]
        else:
            found = [
                flip | {"privacy.clip": clip},
                masks | {"privacy.flip": self._calibrated(limit, clip=config.privacy.clip)},
            ]
        if self.summed is not None:
            found.append({"privacy.record_epsilon": self._quieter(limit)})
        return [settings for settings in found if settings and None not in settings.values()]

    def _calibrated(self, limit: float, **known: float) -> float | None:
        """The largest clip or the smallest flip for all rounds, on the safe side; None: there is none."""
        try:
            found = calibrate(
                epsilon=limit,
                delta=self._config.privacy.delta,
                rounds=most_participations(self._config, self._config.federation.rounds),
                view=View.SUM,
                adjacency=Adjacency.ZERO_OUT,
                cohort=self.mask.cohort,
                space=self.mask.space,
                dim=self.mask.dim,
                sum_failure=self.mask.sum_failure,
                **known,
            )
        except PrivacyError:
            return None
        if "flip" in known:
            return None if found.clip is None else rounded_down(found.clip, 2)
        return math.ceil(found.flip * 1e4) / 1e4

    def _quieter(self, limit: float) -> float | None:
        """The largest record_epsilon whose opened moments are in a budget, rounded down.

        None: there is none, or so much noise would drown the images.
        """
        assert self.summed is not None
        low, high = 1e-4, self._config.privacy.record_epsilon
        if self._tried({"privacy.record_epsilon": low}) > limit:
            return None
        while high > 1.001 * low:
            middle = math.sqrt(low * high)
            within = self._tried({"privacy.record_epsilon": middle}) <= limit
            low, high = (middle, high) if within else (low, middle)
        low = rounded_down(low, 2)
        return None if self.summed.at(low).drowned else low

    def _tried(self, settings: Mapping[str, Any]) -> float:
        """ε(SUM), a client left out, over all rounds with other settings; infinite where they do not go."""
        figures = epsilons_of(self._config, settings, self.mask.dim, self._images)
        return figures.get((View.SUM, Adjacency.ZERO_OUT), math.inf)

    def admits(self, limit: float) -> bool:
        """Whether a budget has room for one round."""
        return self._cost(1) <= limit

    def _cost(self, rounds: int, view: View = View.SUM, adjacency: Adjacency = Adjacency.ZERO_OUT) -> float:
        if self.summed is not None:
            return self.summed.client_epsilon(view, adjacency)
        if self.measured:
            return self._measured_cost(rounds, Unit.CLIENT, view, adjacency)
        accountant = Accountant(delta=self._config.privacy.delta)
        accountant.spend(self.mask, rounds=most_participations(self._config, rounds))
        return accountant.epsilon(view, adjacency)

    def _image_cost(self, rounds: int, view: View = View.SUM) -> float:
        return self._measured_cost(rounds, Unit.RECORD, view, Adjacency.ZERO_OUT)

    def _measured_cost(self, rounds: int, unit: Unit, view: View, adjacency: Adjacency) -> float:
        return self.account(unit, rounds).epsilon(view, adjacency)


@dataclass(frozen=True)
class Unbounded:
    """Epsilons that are infinite for one reason.

    Attributes:
        names: which ones.
        cause: why, in words.
        remedy: what makes them finite and small enough to mean something, how large they are then, and which
            others that costs; or that nothing that was tried does.
    """

    names: tuple[str, ...]
    cause: str
    remedy: str

    def __str__(self) -> str:
        verb = "is" if len(self.names) == 1 else "are"
        return f"{' and '.join(self.names)} {verb} inf: {self.cause}" + (
            f"; {self.remedy}" if self.remedy else ""
        )


def large_delta(config: Config, images: int) -> str:
    """Words for a delta that is too large for its epsilons to mean something; "" where it is not.

    With probability delta a release may give away everything about somebody: among 1/delta clients, or
    images, one is to be expected.

    Args:
        images: the most that a client has, or the mean over clients.
    """
    delta = config.privacy.delta
    for number, words in ((config.federation.clients, "1/clients"), (images, "1/images of a client")):
        if delta * number >= 1:
            return (
                f"privacy.delta = {format_delta(delta)} is too large: from {words} = {1 / number:.3g} on, "
                "everything about one of them may be given away; take one well below, such as "
                f"{format_delta(_DEFAULT.privacy.delta)}"
            )
    return ""


_DEFAULT = Config()
_EXTRACTORS = _DEFAULT.features.extractors
MEANINGFUL = 100.0
"""The largest epsilon that is offered as a remedy: above it, a test may be right whatever it says."""
IMAGE = None
"""Stands beside the cells of `CELLS` for epsilon of one image."""
_FINITE: dict[str, Any] = {
    "privacy.record_release": "client",
    "privacy.record_cohort": 1,
    "privacy.flip": _DEFAULT.privacy.flip,
    "mask.score_layers": 0.0,
    "privacy.delta": _DEFAULT.privacy.delta,
}
"""What may make a client's epsilon finite."""
_LONG = 1 << 30
"""A mask whose length nobody knows: what makes epsilons finite for one so long does for every shorter one."""
_CLIPS = (1.0, 0.3, 0.1)
"""What may make it meaningful as well, the loosest first."""
_FINITEIMAGE: dict[str, Any] = {
    "privacy.record_epsilon": _DEFAULT.privacy.record_epsilon,
    "features.bounded": True,
    "privacy.record_release": "client",
    "privacy.delta": _DEFAULT.privacy.delta,
}
"""What may make an image's epsilon finite."""


def why_infinite(config: Config, dimension: int | None, images: int | None) -> tuple[Unbounded, ...]:
    """Each epsilon of a configuration that is infinite: its cause, and the fewest settings that mend it.

    The settings are not a rule of thumb: each was put through the accountant, and is named with the epsilon
    that it gave.

    Args:
        dimension: d, the length of a mask; None where nobody knows: then figures are not told, and the
            settings do for any length.
        images: the most that a client has; None where nobody says.
    """
    if config.measures:  # bits flip, and move only so far: every epsilon is finite
        return ()
    return _why_infinite(_accounted(config), dimension, images)


def _accounted(config: Config) -> Config:
    """What an epsilon, or a remedy for it, depends on, and nothing else: runs of a sweep share it."""
    who = config.federation
    return Config(
        federation=Federation(
            clients=who.clients,
            client_fraction=who.client_fraction,
            rounds=who.rounds,
            behaviour=who.behaviour,
        ),
        mask=Mask(score_layers=config.mask.score_layers),
        features=Features(bounded=config.features.bounded, extractors=config.own_features or _EXTRACTORS),
        training=Training(variance_weight=config.training.variance_weight),
        privacy=msgspec.structs.replace(config.privacy, record_store=None),
        secure_sum=config.secure_sum,
        budget=config.budget,
    )


@lru_cache(maxsize=256)
def _why_infinite(config: Config, dimension: int | None, images: int | None) -> tuple[Unbounded, ...]:
    figures = epsilons_of(config, {}, dimension, images)
    groups: dict[str, dict[str, Collection[Cell | None]]] = {}
    for view in (View.SUM, View.UPLOAD):
        cells = [cell for cell in CELLS if cell[0] is view and math.isinf(figures[cell])]
        if cells:
            name = f"ε({view.name})" + ("" if len(cells) == 2 else " of a client that is replaced")
            cause = next(iter(groups), None) or _cause(config, images, view)
            groups.setdefault(cause, {})[name] = cells
    if math.isinf(figures[IMAGE]):
        groups[_cause_for_images(config)] = {"ε(image)": [IMAGE]}
    return tuple(
        Unbounded(tuple(names), cause, _remedy(config, dimension, images, names))
        for cause, names in groups.items()
    )


def _cause(config: Config, images: int | None, view: View) -> str:
    """Why a client's epsilon is infinite."""
    if config.opens_moments:
        many = "all images" if images is None else f"all {images:,} images"
        if view is View.UPLOAD and config.record_cohort > 1:
            return f"one client's share of the noise on the moments is too little for {many} of it"
        return (
            "the sum of noisy moments that opens before round 1 carries noise for one image, and "
            f"{many} of a client together move it too far for any bound"
        )
    if config.mask.score_layers:
        return "the last layers send scores, without noise"
    flip = config.privacy.flip
    return f"privacy.flip = {flip:g} leaves the masks without {'enough ' if flip else ''}noise"


def _cause_for_images(config: Config) -> str:
    if not config.keeps_to_the_release:
        return f"nothing says what federation.behaviour = {config.federation.behaviour!r} reads of the images"
    if config.own_features:
        return f"a release of features of your own promises nothing ({', '.join(config.own_features)})"
    if not config.record_level:
        return "clients train from exact moments of their images (privacy.record_epsilon = inf)"
    return (
        f"a sum of noisy shares proves nothing above ε = 100 or below δ = 1e-40 (privacy.record_epsilon = "
        f"{config.privacy.record_epsilon:g}, privacy.delta = {config.privacy.delta:g})"
    )


def _remedy(
    config: Config, dimension: int | None, images: int | None, names: Mapping[str, Collection[Cell | None]]
) -> str:
    """The fewest settings that make all of these epsilons finite and meaningful within the budget.

    Of as few, those that make them least. What makes an epsilon of another kind worse is offered last, and
    says so.
    """
    wanted = [cell for cells in names.values() for cell in cells]
    known = dimension is not None or IMAGE in wanted
    dimension = _LONG if dimension is None else dimension
    budget = config.budget.epsilon if known else None
    before, costly = epsilons_of(config, {}, dimension, images, budget=budget), ""
    for choices in _choices(config, _FINITEIMAGE if IMAGE in wanted else _FINITE, image=IMAGE in wanted):
        found: list[tuple[float, dict[str, Any], dict[Cell | None, float]]] = []
        for chosen in choices:
            figures = epsilons_of(config, chosen, dimension, images, budget=budget)
            largest = max(figures.get(next(iter(cells)), math.inf) for cells in names.values())
            if largest <= MEANINGFUL and all(math.isfinite(figures[cell]) for cell in wanted):
                found.append((largest, chosen, figures))
        for _, settings, figures in sorted(found, key=lambda each: each[0]):
            told = [format_epsilon(figures[next(iter(cells))]) for cells in names.values()]
            them = "them" if len(names) > 1 else "it"
            text = f"{_as_set(settings)} would make {them} {' and '.join(told) if known else 'finite'}"
            harmed = _harmed(before, figures)
            if not harmed:
                return text
            costly = costly or text + _told(harmed)
    return costly or f"no settings that were tried make {'them' if len(names) > 1 else 'it'} 100 or less"


def _choices(
    config: Config, offered: Mapping[str, Any], *, image: bool
) -> Iterator[Sequence[dict[str, Any]]]:
    """Settings to try: those with as many settings and one clip together, the fewest and loosest first."""
    clip = config.privacy.clip
    for tried in (None, *(() if image else _CLIPS)):
        if tried is None or clip is None or tried < clip:
            more = {} if tried is None else {"privacy.clip": tried}
            for number in range(0 if more else 1, len(offered) + 1):
                yield [dict(each) | more for each in itertools.combinations(offered.items(), number)]


def _harmed(
    before: Mapping[Cell | None, float], after: Mapping[Cell | None, float]
) -> list[tuple[str, float, float]]:
    """Epsilons that meant something and become larger: name, before, after; of each name the first."""
    harmed: dict[str, tuple[str, float, float]] = {}
    for cell in (*CELLS, IMAGE):
        name = "ε(image)" if cell is None else f"ε({cell[0].name})"
        if before.get(cell, math.inf) <= MEANINGFUL and after[cell] > 1.001 * before[cell]:
            harmed.setdefault(name, (name, before[cell], after[cell]))
    return list(harmed.values())


def _told(harmed: Sequence[tuple[str, float, float]]) -> str:
    """What a remedy costs, after its sentence; "" where it costs nothing."""
    costs = [f"{name} from {format_epsilon(old)} to {format_epsilon(new)}" for name, old, new in harmed]
    return f", but would take {' and '.join(costs)}" if costs else ""


def epsilons_of(
    config: Config,
    settings: Mapping[str, Any],
    dimension: int | None,
    images: int | None,
    *,
    budget: float | None = None,
) -> dict[Cell | None, float]:
    """Every epsilon that a configuration with other settings plans, whatever its own budget is.

    Empty where the settings do not go together, or the budget admits no round of them.

    Args:
        settings: `section.key` to value; none: the configuration as it is.
        dimension, images: see `why_infinite`.
        budget: the budget that plans it; None: all rounds.
    """
    raw = msgspec.to_builtins(config)
    for name, value in ({"budget.epsilon": None} | dict(settings)).items():
        section, _, key = name.partition(".")
        raw[section][key] = value
    try:
        other = config_of(raw, "plan")
    except ConfigError:
        return {}
    # What an image costs does not depend on how many there are, and what a client costs on its own alone.
    sizes = (images or 1,) * config.federation.clients
    release = RecordRelease(other, sizes, classes=2, dimension=1) if other.record_level else None
    plan = Plan(other, dimension or 1, release)
    if budget is not None:
        if not plan.admits(budget):
            return {}
        plan = Plan(msgspec.structs.replace(other, budget=Budget(epsilon=budget)), dimension or 1, release)
    return {
        **{cell: plan.epsilon(*cell) for cell in CELLS},
        IMAGE: math.inf if release is None else release.guarantee.epsilon,
    }


def _as_set(settings: Mapping[str, Any]) -> str:
    """Settings as --set takes them.

    >>> _as_set({"privacy.record_release": "client", "privacy.clip": 0.31})
    'privacy.record_release=client and privacy.clip=0.31'
    """
    words = [
        f"{name}={f'{value:g}' if isinstance(value, float) else str(value).lower()}"
        for name, value in settings.items()
    ]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _rounds(number: int) -> str:
    return "the one round" if number == 1 else f"all {number} rounds"
